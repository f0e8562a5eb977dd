//! What is traded: names, steps and usual sizes of the generated symbols.

use std::fmt;

use crate::binance::USDM;
use crate::binance::market::Market as Venue;

/// By how much the numbers of a future's book jump.
pub(super) const JUMP: i64 = 7;

/// How many decimals the venue writes, whatever the step of a symbol is.
const DECIMALS: u32 = 8;

/// Well-known symbols: base, quote, decimals of price and quantity, price in ticks.
const KNOWN: [(&str, &str, u32, u32, i64); 20] = [
    ("BTC", "USDT", 2, 5, 6_700_000),
    ("ETH", "USDT", 2, 4, 350_000),
    ("BNB", "USDT", 2, 3, 59_000),
    ("SOL", "USDT", 2, 3, 15_000),
    ("XRP", "USDT", 4, 1, 5_200),
    ("DOGE", "USDT", 5, 0, 12_000),
    ("ADA", "USDT", 4, 1, 4_500),
    ("AVAX", "USDT", 2, 2, 2_800),
    ("LINK", "USDT", 2, 2, 1_400),
    ("DOT", "USDT", 3, 2, 6_200),
    ("LTC", "USDT", 2, 3, 7_200),
    ("TRX", "USDT", 4, 1, 1_300),
    ("SHIB", "USDT", 8, 0, 1_700),
    ("PEPE", "USDT", 8, 0, 1_000),
    ("BTC", "TRY", 0, 5, 2_300_000),
    ("ETH", "TRY", 0, 4, 120_000),
    ("USDT", "TRY", 2, 0, 3_400),
    ("ETH", "BTC", 5, 3, 5_200),
    ("BTC", "EUR", 2, 5, 6_200_000),
    ("BNB", "BTC", 6, 2, 8_800),
];

/// Quotes, and how many thousandths of them an order usually is worth.
const QUOTES: [(&str, i64); 10] = [
    ("USDT", 1_000_000),
    ("USDC", 1_000_000),
    ("FDUSD", 1_000_000),
    ("BUSD", 1_000_000),
    ("TRY", 40_000_000),
    ("EUR", 1_000_000),
    ("BRL", 5_000_000),
    ("BTC", 20),
    ("ETH", 400),
    ("BNB", 2_000),
];

/// A symbol and the steps in which its prices and quantities are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Instrument {
    /// Whose shapes its frames have.
    pub(super) market: &'static Venue,
    pub(super) symbol: String,
    pub(super) base: String,
    pub(super) quote: String,
    /// A tick is 10^-`price_decimals`.
    pub(super) price_decimals: u32,
    /// A lot is 10^-`lot_decimals`.
    pub(super) lot_decimals: u32,
    /// Where the price starts, in ticks.
    pub(super) start: i64,
    /// The size of a common order, in lots.
    pub(super) usual_lots: i64,
    /// By how much the venue's clock is off, in milliseconds.
    pub(super) clock_skew: i64,
}

impl Instrument {
    /// The instrument of this name: as it is known, or derived from the name alone.
    pub(super) fn named(market: &'static Venue, symbol: &str) -> Self {
        let known = KNOWN.iter().find(|(base, quote, ..)| symbol.strip_suffix(quote) == Some(base));
        if let Some(&(base, quote, price_decimals, lot_decimals, start)) = known {
            return Self::new(market, symbol, (base, quote), (price_decimals, lot_decimals), start);
        }
        let hash = name_hash(symbol);
        let (base, quote) = QUOTES
            .iter()
            .find_map(|&(quote, _)| Some((symbol.strip_suffix(quote).filter(|base| !base.is_empty())?, quote)))
            .unwrap_or((symbol, "USDT"));
        let price_decimals = 2 + (hash % 4) as u32;
        let start = 1_000 + (hash >> 8) as i64 % 60_000;
        Self::new(market, symbol, (base, quote), (price_decimals, 1), start)
    }

    fn new(
        market: &'static Venue,
        symbol: &str,
        (base, quote): (&str, &str),
        (price_decimals, lot_decimals): (u32, u32),
        start: i64,
    ) -> Self {
        let worth = QUOTES.iter().find(|(name, _)| *name == quote).map_or(1_000_000, |(_, worth)| *worth);
        let usual_lots = worth * 10i64.pow(price_decimals + lot_decimals) / (start * 1_000);
        Self {
            market,
            symbol: symbol.into(),
            base: base.into(),
            quote: quote.into(),
            price_decimals,
            lot_decimals,
            start,
            usual_lots: usual_lots.max(20),
            clock_skew: 0,
        }
    }

    /// Whether it is traded at the futures market.
    pub(super) fn is_future(&self) -> bool {
        *self.market == USDM
    }

    /// The number that an update of the book has on the wire. Those of futures count all symbols together, so they jump.
    pub(super) fn book_id(&self, update: i64) -> i64 {
        if self.is_future() { update * JUMP } else { update }
    }

    /// A moment as the venue writes it.
    pub(super) fn time(&self, moment: i64) -> i64 {
        moment.saturating_add(self.clock_skew)
    }

    /// A price as the venue writes it.
    pub(super) fn price(&self, ticks: i64) -> Fixed {
        Fixed { mantissa: ticks.into(), scale: self.price_decimals }
    }

    /// A quantity as the venue writes it.
    pub(super) fn amount(&self, lots: i64) -> Fixed {
        Fixed { mantissa: lots.into(), scale: self.lot_decimals }
    }

    /// Ticks times lots as the venue writes it.
    pub(super) fn value(&self, value: i128) -> Fixed {
        Fixed { mantissa: value, scale: self.price_decimals + self.lot_decimals }
    }
}

/// The first `count` symbols to generate: the well-known ones, then made-up ones.
pub(super) fn names(count: usize) -> Vec<String> {
    let known = KNOWN.iter().map(|(base, quote, ..)| format!("{base}{quote}"));
    known.chain((1..).map(|number| format!("SIM{number}USDT"))).take(count).collect()
}

/// FNV-1a: the same on every machine and in every version, unlike the hashers of the standard library.
pub(super) fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// `mantissa` / 10^`scale`, written with the venue's eight decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fixed {
    pub(super) mantissa: i128,
    pub(super) scale: u32,
}

impl Fixed {
    /// The number in units of 10^-8; what lies behind is cut off.
    fn units(self) -> i128 {
        match DECIMALS.checked_sub(self.scale) {
            Some(missing) => self.mantissa.saturating_mul(10i128.pow(missing)),
            None => self.mantissa / 10i128.pow(self.scale - DECIMALS),
        }
    }
}

impl fmt::Display for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = self.units();
        let sign = if units < 0 { "-" } else { "" };
        let one = 10u128.pow(DECIMALS);
        let (whole, fraction) = (units.unsigned_abs() / one, units.unsigned_abs() % one);
        write!(f, "{sign}{whole}.{fraction:08}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binance::SPOT;

    #[test]
    fn numbers_have_the_eight_decimals_of_the_venue() {
        for (mantissa, scale, text) in [
            (6_700_012, 2, "67000.12000000"),
            (0, 5, "0.00000000"),
            (-7, 2, "-0.07000000"),
            (1_700, 8, "0.00001700"),
            (123_456_789_019, 10, "12.34567890"),
        ] {
            assert_eq!(Fixed { mantissa, scale }.to_string(), text);
        }
    }

    #[test]
    fn a_name_says_what_it_is() {
        let btc = Instrument::named(&SPOT, "BTCUSDT");
        assert_eq!((btc.base.as_str(), btc.quote.as_str(), btc.start), ("BTC", "USDT", 6_700_000));
        let other = Instrument::named(&SPOT, "KOALATRY");
        assert_eq!((other.base.as_str(), other.quote.as_str()), ("KOALA", "TRY"));
        assert_eq!(other, Instrument::named(&SPOT, "KOALATRY"));
        let names = names(1000);
        assert_eq!(names[0], "BTCUSDT");
        for name in &names {
            let instrument = Instrument::named(&SPOT, name);
            assert!(instrument.start >= 1_000 && instrument.usual_lots >= 20, "{instrument:?}");
        }
    }
}
