//! Which symbols are asked for: by name, by pattern, or the busiest ones.
//!
//! | written | means |
//! |---|---|
//! | `BTCUSDT` | this symbol |
//! | `*TRY` | every symbol that is traded and fits; `*` stands for any letters |
//! | `top:50` | the 50 symbols with the largest volume in the last 24 hours, of those whose volumes can be compared |
//!
//! What is no name is looked up in the venue's list of symbols, again and again. What was found once is asked for until it
//! is delisted: who falls out of the busiest ones, or is not traded for a while, has readers all the same.

mod lookup;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use akis_model::Decimal;

use crate::registry::Part;

pub(crate) use lookup::{Lookup, Refresh};

/// How often it is looked up what symbols there are.
pub(crate) const REFRESH_EVERY: Duration = Duration::from_secs(24 * 3600);

/// How often until something is found: a venue that is being repaired lists nothing that is traded, and is back at any
/// moment.
pub(crate) const SEARCH_EVERY: Duration = Duration::from_secs(60);

/// The most that may be asked for as the busiest.
const MOST_TOP: usize = 5_000;

/// Whether an entry of [`crate::Settings::symbols`] is the name of a symbol. What is none is looked up by the session.
pub fn is_symbol(entry: &str) -> bool {
    !entry.contains(['*', ':'])
}

/// One entry of the list of symbols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
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
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        // Only ASCII letters have a case at the venues.
        let symbol = text.to_ascii_uppercase();
        if let Some(count) = symbol.strip_prefix("TOP:") {
            return match count.parse() {
                Ok(count @ 1..=MOST_TOP) => Ok(Self::Top(count)),
                _ => Err(format!("{text:?} must be top: and a number from 1 to {MOST_TOP}")),
            };
        }
        Ok(if symbol.contains('*') { Self::Pattern(symbol) } else { Self::Name(symbol) })
    }
}

/// A symbol in the venue's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// In the venue's spelling.
    pub(crate) symbol: String,
    /// Whether it is traded now.
    pub(crate) is_traded: bool,
    /// The money that changed hands in the last 24 hours; `None` where it cannot be compared with that of others.
    pub(crate) volume: Option<Decimal>,
}

/// The symbols that are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Symbols {
    /// Each once.
    wanted: Vec<Wanted>,
    /// Which of them.
    part: Option<Part>,
}

impl Symbols {
    /// What entries say that make sense; what is wrong with the others is told by [`Wanted::parse`].
    pub(crate) fn new<'a>(entries: impl IntoIterator<Item = &'a str>, part: Option<Part>) -> Self {
        let mut wanted: Vec<Wanted> = Vec::new();
        for entry in entries.into_iter().filter_map(|entry| Wanted::parse(entry).ok()) {
            if !wanted.contains(&entry) {
                wanted.push(entry);
            }
        }
        Self { wanted, part }
    }

    /// The symbols that are asked for by name.
    pub(crate) fn names(&self) -> Vec<String> {
        self.select(&[], &[])
    }

    /// Whether some have to be looked up.
    pub(crate) fn looks_up(&self) -> bool {
        self.wanted.iter().any(|wanted| !matches!(wanted, Wanted::Name(_)))
    }

    /// Whether a listing has something of what has to be looked up, for whichever part.
    pub(crate) fn are_found_in(&self, listing: &[Listed]) -> bool {
        let whole = Self { part: None, ..self.clone() };
        whole.select(&[], listing).len() > whole.names().len()
    }

    /// The symbols that are meant now, each once: those named first, then those of `asked` that are still listed, then
    /// those that fit in the order of their names, then the busiest first.
    pub(crate) fn select(&self, asked: &[String], listing: &[Listed]) -> Vec<String> {
        let mut selected = Selected { part: self.part, symbols: Vec::new(), seen: BTreeSet::new() };
        for entry in &self.wanted {
            // A name is asked for even when it is not traded now: it may be again.
            if let Wanted::Name(name) = entry {
                selected.add(name);
            }
        }
        let traded: BTreeMap<&str, Option<Decimal>> = listing
            .iter()
            .filter(|listed| listed.is_traded)
            .map(|listed| (listed.symbol.as_str(), listed.volume))
            .collect();
        let listed: BTreeSet<&str> = listing.iter().map(|listed| listed.symbol.as_str()).collect();
        asked.iter().filter(|symbol| listed.contains(symbol.as_str())).for_each(|symbol| selected.add(symbol));
        for entry in &self.wanted {
            if let Wanted::Pattern(pattern) = entry {
                traded.keys().filter(|symbol| fits(pattern, symbol)).for_each(|symbol| selected.add(symbol));
            }
        }
        let mut busiest: Vec<(Decimal, &str)> =
            traded.into_iter().filter_map(|(symbol, volume)| Some((volume?, symbol))).collect();
        busiest.sort_by_key(|&(volume, _)| Reverse(volume));
        for entry in &self.wanted {
            if let Wanted::Top(count) = entry {
                busiest.iter().take(*count).for_each(|(_, symbol)| selected.add(symbol));
            }
        }
        selected.symbols
    }
}

/// Symbols of a part, each once.
struct Selected {
    part: Option<Part>,
    symbols: Vec<String>,
    seen: BTreeSet<String>,
}

impl Selected {
    fn add(&mut self, symbol: &str) {
        if self.part.is_none_or(|part| part.has(symbol)) && self.seen.insert(symbol.to_owned()) {
            self.symbols.push(symbol.to_owned());
        }
    }
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

    /// Volumes in whole units, 0 for one that cannot be compared.
    fn listing(symbols: &[(&str, bool, i128)]) -> Vec<Listed> {
        let listed = |&(symbol, is_traded, volume): &(&str, bool, i128)| Listed {
            symbol: symbol.into(),
            is_traded,
            volume: (volume > 0).then(|| Decimal::from_parts(volume, 0).unwrap()),
        };
        symbols.iter().map(listed).collect()
    }

    #[test]
    fn names_patterns_and_the_busiest_are_found_once_each() {
        let listing = listing(&[
            ("BTCUSDT", true, 1_000),
            ("ETHUSDT", true, 900),
            ("ADAUSDC", true, 1_001),
            ("OLDUSDT", false, 5_000),
            ("ETHTRY", true, 0),
            ("BTCTRY", true, 0),
            ("OLDTRY", false, 0),
        ]);
        let select = |entries: &[&str]| Symbols::new(entries.iter().copied(), None).select(&[], &listing);
        assert_eq!(select(&["top:2"]), ["ADAUSDC", "BTCUSDT"]);
        assert_eq!(
            select(&["Top:50", "*try", "oldusdt", "ethtry"]),
            ["OLDUSDT", "ETHTRY", "BTCTRY", "ADAUSDC", "BTCUSDT", "ETHUSDT"]
        );
    }

    #[test]
    fn what_was_found_once_is_asked_for_until_it_is_delisted() {
        let symbols = Symbols::new(["top:1", "XTRY"], None);
        let first = symbols.select(&[], &listing(&[("A", true, 2), ("B", true, 1)]));
        assert_eq!(first, ["XTRY", "A"]);
        let second = symbols.select(&first, &listing(&[("A", false, 2), ("B", true, 3)]));
        assert_eq!(second, ["XTRY", "A", "B"], "A is halted");
        assert_eq!(symbols.select(&second, &listing(&[("B", true, 3)])), ["XTRY", "B"]);
    }

    #[test]
    fn only_symbols_of_the_part_are_asked_for() {
        let all = listing(&[("A", true, 1), ("B", true, 2), ("C", true, 3), ("D", true, 4)]);
        let of = |number| Symbols::new(["*", "NAMED"], Some(Part { number, of: 2 })).select(&[], &all);
        let (first, second) = (of(1), of(2));
        assert_eq!(first.len() + second.len(), 5);
        assert!(first.iter().all(|symbol| !second.contains(symbol)), "{first:?} {second:?}");
    }

    #[test]
    fn only_what_has_to_be_looked_up_is_found() {
        let listing = listing(&[("BTCTRY", true, 0), ("OLDTRY", false, 0), ("BTCUSDT", true, 1)]);
        for (entries, expected) in
            [(&["*TRY"] as &[_], true), (&["OLD*"], false), (&["BTCUSDT", "OLD*"], false), (&["NAMED", "top:1"], true)]
        {
            for number in [1, 2] {
                let symbols = Symbols::new(entries.iter().copied(), Some(Part { number, of: 2 }));
                assert_eq!(symbols.are_found_in(&listing), expected, "{entries:?}, part {number}");
            }
        }
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
        for text in ["top:0", "top:", "TOP:x", "top:-5", "top:5001"] {
            assert!(Wanted::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_looked_up_is_no_name() {
        assert!(is_symbol("BTCUSDT") && !is_symbol("*TRY") && !is_symbol("top:50"));
    }
}
