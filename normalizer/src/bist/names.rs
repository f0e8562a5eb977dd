//! Symbols as channels show them.

use std::fmt::Write as _;

/// Equities end so; channels show them without it.
const EQUITY: &str = ".E";

/// A symbol, or what a user wrote for one, as channels and events show it: upper case, equities without `.E`.
/// `None` for an empty one.
pub(super) fn shown(symbol: &str) -> Option<String> {
    let symbol = symbol.trim().to_ascii_uppercase();
    let shown = symbol.strip_suffix(EQUITY).unwrap_or(&symbol);
    (!shown.is_empty()).then(|| shown.to_owned())
}

/// The symbol as a segment of a channel: a byte that no segment can hold becomes a dot and two hexadecimal digits.
pub(super) fn segment(symbol: &str) -> String {
    let mut segment = String::with_capacity(symbol.len());
    for byte in symbol.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            segment.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(segment, ".{byte:02X}");
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equities_are_shown_without_their_ending() {
        for (symbol, name) in
            [("THYAO.E", Some("THYAO")), ("thyao", Some("THYAO")), ("F_ASELS0426", Some("F_ASELS0426")), (".E", None)]
        {
            assert_eq!(shown(symbol).as_deref(), name);
        }
        assert_eq!(segment("A B/Ş"), "A.20B.2F.C5.9E");
        assert_eq!(segment("ACSEL.V"), "ACSEL.V");
    }
}
