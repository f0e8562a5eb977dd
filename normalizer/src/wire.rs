//! What the frames of JSON venues have in common: numbers that must stay exact, and errors with a reason.

use akis_model::Decimal;
use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::mapper::Reason;

/// A price or quantity: a string, or a number where the venue writes one; never parsed as a float.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
pub(crate) struct Number<'a>(#[serde(borrow)] &'a RawValue);

impl Number<'_> {
    /// Any number.
    pub(crate) fn signed(self) -> Result<Decimal, Reason> {
        self.text().parse().map_err(|_| Reason::BadNumber)
    }

    /// Zero or above.
    pub(crate) fn unsigned(self) -> Result<Decimal, Reason> {
        self.signed().and_then(|value| if value.is_negative() { Err(Reason::OutOfRange) } else { Ok(value) })
    }

    /// Above zero.
    pub(crate) fn positive(self) -> Result<Decimal, Reason> {
        self.unsigned().and_then(|value| if value.is_zero() { Err(Reason::OutOfRange) } else { Ok(value) })
    }

    /// As the venue wrote it, without the quotes of a string.
    pub(crate) fn text(&self) -> &str {
        let raw = self.0.get();
        raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(raw)
    }
}

/// Parses a shape, and says whether it was JSON at all when it was not that.
pub(crate) fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Reason> {
    serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Syntax | Category::Eof | Category::Io => Reason::NotJson,
        Category::Data => Reason::BadShape,
    })
}
