//! Positions of events in their channel.

use std::fmt;

use serde::Serialize;

/// Positions lie below 2^53, so that JavaScript numbers hold them exactly.
pub const MAX_SEQ: u64 = (1 << 53) - 1;

/// The position of an event in its channel. 0 stands before every event.
///
/// Inside a term it rises by exactly 1; it is never given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct Seq(u64);

impl Seq {
    /// The position before every event.
    pub const ZERO: Self = Self(0);

    /// Checks the range.
    ///
    /// # Errors
    ///
    /// [`SeqError`] for 2^53 and above.
    pub fn new(value: u64) -> Result<Self, SeqError> {
        if value > MAX_SEQ { Err(SeqError) } else { Ok(Self(value)) }
    }

    /// The bare number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The position `n` further on; stays at [`MAX_SEQ`] when it would pass it.
    #[must_use]
    pub fn plus(self, n: u64) -> Self {
        Self(self.0.saturating_add(n).min(MAX_SEQ))
    }

    /// The position right after this one.
    #[must_use]
    pub fn next(self) -> Self {
        self.plus(1)
    }

    /// The position right before this one; 0 stays 0.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number that is no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a position lies below 2^53")]
pub struct SeqError;
