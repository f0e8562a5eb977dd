//! Which symbols are asked for: by name, by pattern, or the busiest ones.
//!
//! | written | means |
//! |---|---|
//! | `BTCUSDT` | this symbol |
//! | `*TRY` | every symbol that is traded and fits; `*` stands for any letters |
//! | `top:50` | the 50 symbols in US dollar coins with the largest volume in the last 24 hours |
//!
//! Patterns are looked up in `exchangeInfo`, the busiest ones in `ticker/24hr`.

use std::collections::{BTreeSet, HashMap};

use akis_model::Decimal;
use serde::Deserialize;

/// Volumes are compared in these only, for volumes in different assets cannot be.
const DOLLARS: [&str; 3] = ["USDT", "USDC", "FDUSD"];

/// The most that may be asked for as the busiest.
const MOST_TOP: usize = 5_000;

/// One entry of the list of symbols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A symbol, in upper case.
    Name(String),
    /// Every symbol that fits, in upper case.
    Pattern(String),
    /// So many of the busiest.
    Top(usize),
}

impl Wanted {
    /// Reads an entry.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some(count) = text.strip_prefix("top:") {
            return match count.parse() {
                Ok(count @ 1..=MOST_TOP) => Ok(Self::Top(count)),
                _ => Err(format!("{text:?} must be top: and a number from 1 to {MOST_TOP}")),
            };
        }
        // Only ASCII letters have a case at Binance.
        let symbol = text.to_ascii_uppercase();
        Ok(if symbol.contains('*') { Self::Pattern(symbol) } else { Self::Name(symbol) })
    }
}

/// The reply to `exchangeInfo`, as far as it matters here.
#[derive(Debug, Deserialize)]
pub(super) struct Info {
    symbols: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    symbol: String,
    status: String,
    quote_asset: String,
}

/// A row of the reply to `ticker/24hr`, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Day {
    symbol: String,
    quote_volume: String,
}

/// The symbols that `wanted` means now, each once: those named first, then those that fit in the order of their names,
/// then the busiest first.
pub(super) fn select(wanted: &[Wanted], info: &Info, days: &[Day]) -> Vec<String> {
    let traded: HashMap<&str, &Listed> = info
        .symbols
        .iter()
        .filter(|listed| listed.status == "TRADING")
        .map(|listed| (listed.symbol.as_str(), listed))
        .collect();
    let mut selected: Vec<String> = Vec::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut add = |symbol: &str| {
        if seen.insert(symbol.to_owned()) {
            selected.push(symbol.to_owned());
        }
    };
    for entry in wanted {
        // A name is asked for even when it is not traded now: it may be again.
        if let Wanted::Name(name) = entry {
            add(name);
        }
    }
    for entry in wanted {
        if let Wanted::Pattern(pattern) = entry {
            let fitting: BTreeSet<&str> = traded.keys().copied().filter(|symbol| fits(pattern, symbol)).collect();
            fitting.into_iter().for_each(&mut add);
        }
    }
    let busiest = busiest(&traded, days);
    for entry in wanted {
        if let Wanted::Top(count) = entry {
            busiest.iter().take(*count).for_each(|symbol| add(symbol));
        }
    }
    selected
}

/// The traded symbols in dollars, the largest volume first.
fn busiest<'a>(traded: &HashMap<&str, &Listed>, days: &'a [Day]) -> Vec<&'a str> {
    let mut volumes: Vec<(Decimal, &str)> = days
        .iter()
        .filter(|day| traded.get(day.symbol.as_str()).is_some_and(|listed| DOLLARS.contains(&&*listed.quote_asset)))
        .filter_map(|day| Some((day.quote_volume.parse().ok()?, day.symbol.as_str())))
        .collect();
    volumes.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    volumes.into_iter().map(|(_, symbol)| symbol).collect()
}

/// Whether `symbol` is `pattern` with each `*` in the place of any letters.
fn fits(pattern: &str, symbol: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == symbol };
    let Some(mut left) = symbol.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = left.find(part) else { return false };
        left = left.get(at + part.len()..).unwrap_or_default();
    }
    left.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(entries: &[&str]) -> Vec<Wanted> {
        entries.iter().map(|entry| Wanted::parse(entry).unwrap()).collect()
    }

    fn info(symbols: &[(&str, &str, &str)]) -> Info {
        let listed = |&(symbol, quote_asset, status): &(&str, &str, &str)| Listed {
            symbol: symbol.into(),
            status: status.into(),
            quote_asset: quote_asset.into(),
        };
        Info { symbols: symbols.iter().map(listed).collect() }
    }

    fn day(symbol: &str, quote_volume: &str) -> Day {
        Day { symbol: symbol.into(), quote_volume: quote_volume.into() }
    }

    #[test]
    fn names_patterns_and_the_busiest_are_found_once_each() {
        let info = info(&[
            ("BTCUSDT", "USDT", "TRADING"),
            ("ETHUSDT", "USDT", "TRADING"),
            ("ADAUSDC", "USDC", "TRADING"),
            ("OLDUSDT", "USDT", "BREAK"),
            ("BTCTRY", "TRY", "TRADING"),
            ("ETHTRY", "TRY", "TRADING"),
            ("OLDTRY", "TRY", "HALT"),
        ]);
        let days = [
            day("ETHUSDT", "900.5"),
            day("BTCUSDT", "1000"),
            day("ADAUSDC", "1000.1"),
            day("OLDUSDT", "5000"),
            day("BTCTRY", "99999"),
            day("GONEUSDT", "99999"),
            day("ETHUSDT2", "nonsense"),
        ];
        let select = |entries: &[&str]| select(&wanted(entries), &info, &days);
        assert_eq!(select(&["top:2"]), ["ADAUSDC", "BTCUSDT"]);
        assert_eq!(
            select(&["top:50", "*try", "oldusdt", "ethtry"]),
            ["OLDUSDT", "ETHTRY", "BTCTRY", "ADAUSDC", "BTCUSDT", "ETHUSDT"]
        );
    }

    #[test]
    fn a_star_stands_for_any_letters() {
        for (pattern, symbol, expected) in [
            ("*TRY", "BTCTRY", true),
            ("*TRY", "TRYBTC", false),
            ("BTC*", "BTCUSDT", true),
            ("*", "币安人生USDT", true),
            ("B*C*T", "BTCUSDT", true),
            ("B*X*T", "BTCUSDT", false),
            ("BTC*CUSDT", "BTCUSDT", false),
        ] {
            assert_eq!(fits(pattern, symbol), expected, "{pattern} {symbol}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in ["top:0", "top:", "top:x", "top:-5", "top:5001"] {
            assert!(Wanted::parse(text).is_err(), "{text}");
        }
    }
}
