//! The target of an HTTP request, taken apart.

use crate::binance::market::{Market, SPOT, USDM};

/// A path and the parameters behind it, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) path: String,
    parameters: Vec<(String, String)>,
}

impl Target {
    /// Takes `/path?name=value&…` apart; `None` when it is not text in percent-encoding.
    pub(super) fn parse(target: &str) -> Option<Self> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let parameters = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((decode(name)?, decode(value)?))
            })
            .collect::<Option<_>>()?;
        Some(Self { path: decode(path)?, parameters })
    }

    /// The route without what the paths of a market begin with: `/depth`.
    pub(super) fn route(&self) -> &str {
        let of = |market: &Market| self.path.strip_prefix(market.rest);
        of(&SPOT).or_else(|| of(&USDM)).unwrap_or(&self.path)
    }

    /// The market that it is about: the paths of futures differ from those of spot, for streams and for REST.
    pub(super) fn market(&self) -> &'static Market {
        let of_futures = [USDM.rest, "/public", "/market"].iter().any(|prefix| self.path.starts_with(prefix));
        if of_futures || self.parameter("market") == Some(USDM.recorded_as) { &USDM } else { &SPOT }
    }

    /// The first value of a parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Path and parameters without those that only say how much of something is wanted, and in which order.
    pub(super) fn subject(&self) -> (String, Vec<(String, String)>) {
        let extent = ["limit", "startTime", "endTime", "fromId"];
        let mut parameters = self.parameters.clone();
        parameters.retain(|(name, _)| !extent.contains(&name.as_str()));
        parameters.sort();
        (self.path.clone(), parameters)
    }
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    let digit = |bytes: &mut std::str::Bytes<'_>| char::from(bytes.next()?).to_digit(16);
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => u8::try_from(digit(&mut bytes)? << 4 | digit(&mut bytes)?).ok()?,
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_taken_apart() {
        let target = Target::parse("/ws/%E5%B8%81usdt%40trade?symbols=%5B%22A%22%5D&limit=5&x").unwrap();
        assert_eq!(target.path, "/ws/币usdt@trade");
        assert_eq!(target.parameter("symbols"), Some(r#"["A"]"#));
        assert_eq!((target.parameter("x"), target.parameter("y")), (Some(""), None));
        for bad in ["/%", "/%2", "/%zz", "/%ff", "/?a=%"] {
            assert_eq!(Target::parse(bad), None, "{bad}");
        }
        let subject = |text| Target::parse(text).unwrap().subject();
        assert_eq!(subject("/d?limit=5&symbol=A"), subject("/d?symbol=A&limit=1000"));
    }
}
