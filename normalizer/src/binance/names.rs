//! Binance's symbols as channels and in the common form.

use std::fmt::Write as _;

use crate::candles::Interval;

/// Assets that others are priced in, for symbols that `exchangeInfo` has not told of. Those that end like
/// another one stand before it.
const QUOTES: [&str; 22] = [
    "FDUSD", "TUSD", "BUSD", "USDT", "USDC", "USDP", "USD1", "DAI", "TRY", "EUR", "BRL", "GBP", "JPY", "ARS", "MXN",
    "PLN", "ZAR", "USD", "BTC", "ETH", "BNB", "SOL",
];

/// The symbol as a segment of a channel: a byte that a segment cannot hold, and the dot itself, becomes a dot
/// and two upper-case hexadecimal digits. `币USDT` is `.E5.B8.81USDT`. Different symbols have different segments.
pub(super) fn segment(symbol: &str) -> String {
    let mut segment = String::with_capacity(symbol.len());
    for byte in symbol.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            segment.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(segment, ".{byte:02X}");
        }
    }
    segment
}

/// The common form, `BTC/USDT`, by the quote asset that the symbol ends with; the symbol itself when none is known.
pub(super) fn guess_common(symbol: &str) -> String {
    QUOTES
        .iter()
        .find_map(|quote| {
            symbol.strip_suffix(quote).filter(|base| !base.is_empty()).map(|base| format!("{base}/{quote}"))
        })
        .unwrap_or_else(|| symbol.to_owned())
}

/// The symbol that a REST call asked for: `/api/v3/depth?symbol=BTCUSDT&limit=1000`.
pub(super) fn asked_symbol(target: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix("symbol=")).and_then(percent_decode)
}

/// The number that a REST call gave as `name`.
pub(super) fn asked_number(target: &str, name: &str) -> Option<u64> {
    asked(target, name)?.parse().ok()
}

/// The interval that a REST call asked for, when it has a channel.
pub(super) fn asked_interval(target: &str) -> Option<Interval> {
    let name = asked(target, "interval")?;
    Interval::ALL.into_iter().find(|interval| interval.as_str() == name)
}

/// Whether a call for `exchangeInfo` asked for some of the symbols only.
pub(super) fn asks_for_some(target: &str) -> bool {
    ["symbol", "symbols", "permissions", "symbolStatus"].iter().any(|name| asked(target, name).is_some())
}

fn asked<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = target.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use akis_model::is_segment;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn symbols_in_the_common_form() {
        for (symbol, common) in [
            ("BTCUSDT", "BTC/USDT"),
            ("BTCFDUSD", "BTC/FDUSD"),
            ("BTCTUSD", "BTC/TUSD"),
            ("BTCTRY", "BTC/TRY"),
            ("BLZETH", "BLZ/ETH"),
            ("币安人生USDT", "币安人生/USDT"),
            ("USDT", "USDT"),
            ("WHATEVER", "WHATEVER"),
        ] {
            assert_eq!(guess_common(symbol), common);
        }
    }

    #[test]
    fn no_quote_hides_behind_a_shorter_one() {
        for (i, long) in QUOTES.iter().enumerate() {
            assert!(!QUOTES[..i].iter().any(|short| long.ends_with(short)), "{long}");
        }
    }

    #[test]
    fn the_symbol_of_a_call() {
        for (target, symbol) in [
            ("/api/v3/depth?symbol=BTCUSDT&limit=1000", Some("BTCUSDT")),
            ("/api/v3/depth?limit=5&symbol=%E5%B8%81USDT", Some("币USDT")),
            ("/api/v3/depth?symbol=币USDT", Some("币USDT")),
            ("/api/v3/depth?symbol=%E5", None),
            ("/api/v3/depth?symbol=%zz", None),
            ("/api/v3/depth?symbol=%", None),
            ("/api/v3/depth", None),
        ] {
            assert_eq!(asked_symbol(target).as_deref(), symbol, "{target}");
        }
    }

    proptest! {
        #[test]
        fn segments_are_legal_and_differ(a in "[A-Z0-9._\\-币é ]{1,6}", b in "[A-Z0-9._\\-币é ]{1,6}") {
            prop_assert!(is_segment(&segment(&a)));
            prop_assert_eq!(a == b, segment(&a) == segment(&b));
        }
    }
}
