//! One generated pair: its price, book, trades and minutes. No clock and no I/O.

use std::collections::{BTreeMap, VecDeque};

use fastrand::Rng;

use super::window::{LEVELS, Level, Window};

/// A minute in milliseconds.
pub(super) const MINUTE_MS: i64 = 60_000;

/// How many minutes of the past there are at the beginning, and how many are kept.
const PAST_MINUTES: i64 = 500;
const KEPT_MINUTES: usize = 2_000;

/// How many trades a `421` and REST tell of.
pub(super) const LAST_TRADES: usize = 50;

/// Between so many levels a side is held: always more than are told of, so that levels move in and out of the window.
const FEWEST_LEVELS: usize = LEVELS + 10;
const MOST_LEVELS: usize = LEVELS + 60;

/// Known pairs: base, quote, decimals of the price and of the amount, price in ticks.
const KNOWN: [(&str, &str, u32, u32, i64); 10] = [
    ("BTC", "TRY", 0, 8, 4_105_000),
    ("BTC", "USDT", 0, 8, 86_700),
    ("ETH", "TRY", 0, 8, 131_000),
    ("ETH", "USDT", 1, 8, 27_690),
    ("USDT", "TRY", 3, 4, 47_350),
    ("XRP", "TRY", 4, 4, 1_021_000),
    ("AVAX", "TRY", 2, 4, 101_130),
    ("SOL", "TRY", 1, 6, 62_040),
    ("DOGE", "TRY", 5, 4, 812_340),
    ("ADA", "TRY", 3, 4, 34_720),
];

/// The first `count` pairs to generate: the known ones, then made-up ones.
pub(super) fn names(count: usize) -> Vec<String> {
    let known = KNOWN.iter().map(|(base, quote, ..)| format!("{base}{quote}"));
    known.chain((1..).map(|number| format!("SIM{number}TRY"))).take(count).collect()
}

/// A trade, in ticks and lots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trade {
    pub(super) id: i64,
    pub(super) time: i64,
    pub(super) price: i64,
    pub(super) lots: i64,
    pub(super) taker_buys: bool,
}

/// A candle, in ticks and lots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candle {
    pub(super) open_time: i64,
    pub(super) open: i64,
    pub(super) high: i64,
    pub(super) low: i64,
    pub(super) close: i64,
    pub(super) lots: i64,
}

impl Candle {
    fn join(&mut self, later: &Self) {
        self.high = self.high.max(later.high);
        self.low = self.low.min(later.low);
        self.close = later.close;
        self.lots += later.lots;
    }
}

/// One pair.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) symbol: String,
    pub(super) base: String,
    pub(super) quote: String,
    pub(super) price_decimals: u32,
    pub(super) lot_decimals: u32,
    /// The size of a common order.
    usual_lots: i64,
    rng: Rng,
    bids: BTreeMap<i64, i64>,
    asks: BTreeMap<i64, i64>,
    next_trade_id: i64,
    trades: VecDeque<Trade>,
    /// Minutes with trades, the oldest first.
    minutes: VecDeque<Candle>,
}

impl Pair {
    /// A pair with a past and a full book. Equal seeds give equal pairs, whatever the time is.
    pub(super) fn new(symbol: &str, seed: u64, now: i64) -> Self {
        let mut rng = Rng::with_seed(seed ^ name_hash(symbol));
        let known = KNOWN.iter().find(|(base, quote, ..)| symbol.strip_suffix(quote) == Some(base));
        let (base, quote, price_decimals, lot_decimals, start) = match known {
            Some(&(base, quote, price, lot, start)) => (base.to_owned(), quote.to_owned(), price, lot, start),
            None => {
                let quote = if symbol.ends_with("USDT") { "USDT" } else { "TRY" };
                let base = symbol.strip_suffix(quote).filter(|base| !base.is_empty()).unwrap_or(symbol);
                (base.to_owned(), quote.to_owned(), rng.u32(1..5), 4, rng.i64(5_000..90_000))
            }
        };
        let mut pair = Self {
            symbol: symbol.to_owned(),
            base,
            quote,
            price_decimals,
            lot_decimals,
            usual_lots: (1_000 * 10i64.pow(price_decimals + lot_decimals) / start).max(20),
            bids: BTreeMap::new(),
            asks: BTreeMap::new(),
            next_trade_id: 637_000_000_000_000_000 + rng.i64(0..1_000_000_000),
            trades: VecDeque::new(),
            minutes: VecDeque::new(),
            rng,
        };
        let price = pair.walk(start, now - now.rem_euclid(MINUTE_MS));
        for distance in 1..=i64::try_from(FEWEST_LEVELS).unwrap_or(i64::MAX) {
            let lots = pair.order_lots();
            pair.bids.insert((price - distance * 2).max(1), lots);
            pair.asks.insert(price + distance * 2, lots);
        }
        for second in -60..0 {
            pair.trade(now + second * 1_000);
        }
        pair.refill();
        pair
    }

    /// Makes up the minutes before `until` and returns where the price is then.
    fn walk(&mut self, start: i64, until: i64) -> i64 {
        let mut price = start;
        for minute in -PAST_MINUTES..0 {
            // Now and then nobody trades for a minute: there is no candle then.
            if self.rng.u32(0..20) == 0 {
                continue;
            }
            let reach = (price / 2_000).max(1);
            let (open, close) = (price, (price + self.rng.i64(-reach..=reach)).max(300));
            let (high, low) = (open.max(close) + self.rng.i64(0..=reach), open.min(close) - self.rng.i64(0..=reach));
            let lots = self.rng.i64(1..=self.usual_lots * 20);
            self.minutes.push_back(Candle { open_time: until + minute * MINUTE_MS, open, high, low, close, lots });
            price = close;
        }
        price
    }

    /// Lets one thing happen at `now`; gives back a trade when it was one.
    pub(super) fn act(&mut self, now: i64) -> Option<Trade> {
        let traded = match self.rng.u32(0..100) {
            0..25 => self.trade(now),
            25..65 => {
                self.place();
                None
            }
            _ => {
                self.withdraw();
                None
            }
        };
        self.refill();
        traded
    }

    /// The best levels as they are.
    pub(super) fn window(&self) -> Window {
        let level = |(&tick, &lots): (&i64, &i64)| (tick, lots);
        Window {
            bids: self.bids.iter().rev().take(LEVELS).map(level).collect(),
            asks: self.asks.iter().take(LEVELS).map(level).collect(),
        }
    }

    /// Best bid and best ask.
    pub(super) fn best(&self) -> [Level; 2] {
        let level = |found: Option<(&i64, &i64)>| found.map_or((0, 0), |(&tick, &lots)| (tick, lots));
        [level(self.bids.last_key_value()), level(self.asks.first_key_value())]
    }

    /// The last trades, oldest first.
    pub(super) fn trades(&self) -> &VecDeque<Trade> {
        &self.trades
    }

    /// The candles of so many minutes that opened in a stretch of time, oldest first; those without a trade are left out.
    pub(super) fn candles(&self, minutes: i64, from: i64, to: i64) -> Vec<Candle> {
        let mut candles: Vec<Candle> = Vec::new();
        for minute in &self.minutes {
            let open_time = minute.open_time - minute.open_time.rem_euclid(minutes * MINUTE_MS);
            match candles.last_mut() {
                Some(candle) if candle.open_time == open_time => candle.join(minute),
                _ => candles.push(Candle { open_time, ..*minute }),
            }
        }
        candles.retain(|candle| (from..=to).contains(&candle.open_time));
        candles
    }

    /// The rolling day as far as there is one.
    pub(super) fn day(&self, now: i64) -> Option<Candle> {
        let mut minutes = self.minutes.iter().filter(|minute| minute.open_time > now - 1_440 * MINUTE_MS);
        let first = *minutes.next()?;
        Some(minutes.fold(first, |mut day, minute| {
            day.join(minute);
            day
        }))
    }

    /// A taker's order against the best level of a side.
    fn trade(&mut self, now: i64) -> Option<Trade> {
        let taker_buys = self.rng.bool();
        let lots = self.order_lots();
        let side = if taker_buys { &mut self.asks } else { &mut self.bids };
        let mut best = if taker_buys { side.first_entry()? } else { side.last_entry()? };
        let price = *best.key();
        let taken = lots.min(*best.get());
        *best.get_mut() -= taken;
        if *best.get() == 0 {
            best.remove();
        }
        // Ids rise, but not by ones.
        self.next_trade_id += self.rng.i64(1..5_000);
        let trade = Trade { id: self.next_trade_id, time: now, price, lots: taken, taker_buys };
        let open_time = now - now.rem_euclid(MINUTE_MS);
        let own = Candle { open_time, open: price, high: price, low: price, close: price, lots: taken };
        match self.minutes.back_mut() {
            Some(minute) if minute.open_time == open_time => minute.join(&own),
            _ => self.minutes.push_back(own),
        }
        if self.minutes.len() > KEPT_MINUTES {
            self.minutes.pop_front();
        }
        if self.trades.len() == LAST_TRADES {
            self.trades.pop_front();
        }
        self.trades.push_back(trade.clone());
        Some(trade)
    }

    /// An order on either side, also between the best prices, never across them.
    fn place(&mut self) {
        let [(bid, _), (ask, _)] = self.best();
        let halvings = self.rng.u32(0..6);
        let distance = self.rng.i64(0..=(FEWEST_LEVELS as i64 * 3) >> halvings);
        let lots = self.order_lots();
        if self.rng.bool() {
            let tick = (ask - 1 - distance).max(1);
            *self.bids.entry(tick).or_default() += lots;
        } else {
            *self.asks.entry(bid + 1 + distance).or_default() += lots;
        }
    }

    /// Some order is taken back, wholly or in part.
    fn withdraw(&mut self) {
        let is_bid = self.rng.bool();
        let halvings = self.rng.u32(0..6);
        let at = self.rng.usize(0..=MOST_LEVELS >> halvings);
        let keep = self.rng.u32(0..3);
        let side = if is_bid { &mut self.bids } else { &mut self.asks };
        let tick = if is_bid { side.keys().rev().nth(at) } else { side.keys().nth(at) };
        if let Some(&tick) = tick {
            let lots = side.get(&tick).copied().unwrap_or_default() * i64::from(keep) / 3;
            if lots == 0 {
                side.remove(&tick);
            } else {
                side.insert(tick, lots);
            }
        }
    }

    /// Keeps either side between its bounds.
    fn refill(&mut self) {
        while self.bids.len() < FEWEST_LEVELS {
            let lots = self.order_lots();
            let below = self.bids.first_key_value().map(|(&tick, _)| tick);
            let from = below.or(self.asks.first_key_value().map(|(&tick, _)| tick)).unwrap_or(1_000);
            if from <= 1 {
                break;
            }
            self.bids.insert((from - self.rng.i64(1..4)).max(1), lots);
        }
        while self.asks.len() < FEWEST_LEVELS {
            let lots = self.order_lots();
            let above = self.asks.last_key_value().or(self.bids.last_key_value()).map_or(1_000, |(&tick, _)| tick);
            self.asks.insert(above + self.rng.i64(1..4), lots);
        }
        while self.bids.len() > MOST_LEVELS {
            self.bids.pop_first();
        }
        while self.asks.len() > MOST_LEVELS {
            self.asks.pop_last();
        }
    }

    fn order_lots(&mut self) -> i64 {
        let halvings = self.rng.u32(0..6);
        1 + self.rng.i64(0..=(self.usual_lots * 4) >> halvings)
    }
}

/// FNV-1a: the same on every machine and in every version, unlike the hashers of the standard library.
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_791_383_650_000;

    #[test]
    fn equal_seeds_give_equal_pairs_at_any_time_and_books_never_cross() {
        let run = |seed, now| {
            let mut pair = Pair::new("BTCTRY", seed, now);
            let mut trades = Vec::new();
            for _ in 0..20_000 {
                trades.extend(pair.act(now).map(|trade| (trade.id, trade.price, trade.lots)));
                let [(bid, bid_lots), (ask, ask_lots)] = pair.best();
                assert!(0 < bid && bid < ask && bid_lots > 0 && ask_lots > 0, "{bid} {ask}");
            }
            assert!(trades.windows(2).all(|pair| pair[0].0 < pair[1].0) && trades.len() > 2_000);
            (trades, pair.window())
        };
        assert_eq!(run(1, NOW), run(1, NOW + MINUTE_MS * 99));
        assert_ne!(run(1, NOW), run(2, NOW));
    }

    #[test]
    fn longer_candles_are_sums_of_minutes() {
        let mut pair = Pair::new("SIM7TRY", 3, NOW);
        for step in 0..3_000 {
            pair.act(NOW + step * 100);
        }
        let minutes = pair.candles(1, 0, i64::MAX);
        let longer = pair.candles(60, 0, i64::MAX);
        assert_eq!(minutes.iter().map(|c| c.lots).sum::<i64>(), longer.iter().map(|c| c.lots).sum::<i64>());
        assert!(minutes.windows(2).all(|pair| pair[0].open_time < pair[1].open_time));
        assert!(minutes.iter().all(|c| c.low <= c.open.min(c.close) && c.high >= c.open.max(c.close)));
        assert_eq!(names(12)[11], "SIM2TRY");
    }
}
