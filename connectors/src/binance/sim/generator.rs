//! Generated markets: what happens when, and which frames come of it.
//!
//! Time goes in steps of [`STEP_MS`]. Equal seeds, symbols and rates give equal events in equal steps; only the
//! moment at which the first step lies is the present.

use std::collections::HashMap;

use fastrand::Rng;

use super::candles::{INTERVALS, Interval, MINUTE_MS};
use super::fault::Once;
use super::frames;
use super::hub::{Frame, Hub};
use super::instrument::Instrument;
use super::market::{AggTrade, Diff, Market, Pace};
use crate::binance::market::Market as Venue;

/// The length of a step.
pub(super) const STEP_MS: i64 = 10;

/// Every how many steps fast depth goes out, slow depth and tickers, and candles.
const FAST: i64 = 10;
const SLOW: i64 = 100;
const CANDLE: i64 = 200;

/// How many levels the partial books have.
const PARTIAL_LEVELS: [usize; 3] = [5, 10, 20];

/// How far off wrong ids are.
const WRONG_BY: i64 = 1_000_000;

/// Falling behind by more than this (a suspended machine) is not made up for.
const MOST_LAG_MS: i64 = 5_000;

/// The markets and the time in them.
#[derive(Debug)]
pub(super) struct Generator {
    listings: Vec<Listing>,
    by_symbol: HashMap<String, usize>,
    /// Sums of the weights up to each listing.
    weights: Vec<u64>,
    rng: Rng,
    rate: u32,
    /// Events that are due, in thousandths.
    credit: u64,
    step: i64,
    base: i64,
    /// The minute that is open.
    minute: i64,
    venue: &'static Venue,
    seed: u64,
    clock_skew: i64,
}

/// A market with what its streams are called and what they have told already.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) market: Market,
    /// The symbol as stream names have it.
    stream: String,
    /// Whether it is listed, and anything happens to it.
    pub(super) is_traded: bool,
    /// Asked for so often; some replies are stale.
    pub(super) depth_requests: u64,
    book_ticker: String,
    told_ticker: i64,
    told_candle: i64,
    told_partial: [i64; 2],
    last_trade: i64,
}

impl Generator {
    /// Markets for these symbols, at least one, at the moment `now`.
    pub(super) fn new(venue: &'static Venue, symbols: &[String], rate: u32, seed: u64, now: i64) -> Self {
        let mut generator = Self {
            listings: Vec::new(),
            by_symbol: HashMap::new(),
            weights: Vec::new(),
            rng: Rng::with_seed(seed),
            rate,
            credit: 0,
            step: 0,
            base: now,
            minute: now.div_euclid(MINUTE_MS),
            venue,
            seed,
            clock_skew: 0,
        };
        symbols.iter().for_each(|symbol| generator.list(symbol));
        generator
    }

    /// Has one more symbol traded.
    pub(super) fn list(&mut self, symbol: &str) {
        let place = self.listings.len();
        if self.by_symbol.insert(symbol.to_owned(), place).is_some() {
            return;
        }
        // The first symbols are the busiest, and one in four is quiet, as on the venue.
        let weight = 10_000 / (1 + place as u64 / 2);
        let weight = if place % 4 == 3 { weight / 100 } else { weight };
        self.weights.push(self.weights.last().copied().unwrap_or(0) + weight.max(1));
        let mut listing = Listing::new(self.venue, symbol, self.seed, self.now());
        listing.market.instrument.clock_skew = self.clock_skew;
        self.listings.push(listing);
    }

    /// Nothing happens to the symbol any more.
    pub(super) fn delist(&mut self, symbol: &str) {
        if let Some(listing) = self.listing(symbol) {
            listing.is_traded = false;
        }
    }

    /// From now on the venue's clock is off by this much.
    pub(super) fn skew_clock(&mut self, ms: i64) {
        self.clock_skew = ms;
        self.listings.iter_mut().for_each(|listing| listing.market.instrument.clock_skew = ms);
    }

    /// By how much the venue's clock is off, in milliseconds.
    pub(super) fn clock_skew(&self) -> i64 {
        self.clock_skew
    }

    /// What the venue's clock says.
    pub(super) fn venue_time(&self) -> i64 {
        self.now().saturating_add(self.clock_skew)
    }

    /// The moment of the last step.
    pub(super) fn now(&self) -> i64 {
        self.base + self.step * STEP_MS
    }

    pub(super) fn listing(&mut self, symbol: &str) -> Option<&mut Listing> {
        self.by_symbol.get(symbol).and_then(|&at| self.listings.get_mut(at))
    }

    pub(super) fn has(&self, symbol: &str) -> bool {
        self.by_symbol.contains_key(symbol)
    }

    pub(super) fn listings(&self) -> &[Listing] {
        &self.listings
    }

    /// Takes all steps up to `now`.
    pub(super) fn advance(&mut self, now: i64, hub: &mut Hub) {
        let lag = now - self.now();
        if lag > MOST_LAG_MS {
            self.base += lag;
        }
        while self.now() + STEP_MS <= now {
            self.take_step(hub);
        }
    }

    fn take_step(&mut self, hub: &mut Hub) {
        self.step += 1;
        let now = self.now();
        hub.move_to(now);
        while self.minute < now.div_euclid(MINUTE_MS) {
            self.minute += 1;
            let end = self.minute * MINUTE_MS;
            self.listings.iter_mut().for_each(|listing| listing.close_minute(end, now, hub));
        }
        self.credit += u64::from(self.rate) * STEP_MS as u64;
        for _ in 0..self.credit / 1000 {
            self.happen(now, hub);
        }
        self.credit %= 1000;
        // Symbols take turns, so that frames do not all come in one burst.
        let first = (-self.step).rem_euclid(FAST) as usize;
        for (i, listing) in self.listings.iter_mut().enumerate().skip(first).step_by(FAST as usize) {
            let turn = self.step + i as i64;
            listing.tell_depth(Pace::Fast, now, hub);
            if turn % SLOW == 0 {
                listing.tell_depth(Pace::Slow, now, hub);
                listing.tell_ticker(now, hub);
            }
            if turn % CANDLE == 0 {
                listing.tell_candles(now, hub);
            }
        }
    }

    fn happen(&mut self, now: i64, hub: &mut Hub) {
        let Some(&total) = self.weights.last() else { return };
        let drawn = self.rng.u64(0..total);
        let chosen = self.weights.partition_point(|&sum| sum <= drawn);
        if let Some(listing) = self.listings.get_mut(chosen) {
            listing.happen(now, hub);
        }
    }
}

impl Listing {
    fn new(venue: &'static Venue, symbol: &str, seed: u64, now: i64) -> Self {
        let stream = symbol.to_ascii_lowercase();
        Self {
            market: Market::new(Instrument::named(venue, symbol), seed, now),
            book_ticker: format!("{stream}@bookTicker"),
            stream,
            is_traded: true,
            depth_requests: 0,
            told_ticker: 0,
            told_candle: 0,
            told_partial: [0; 2],
            last_trade: 0,
        }
    }

    fn happen(&mut self, now: i64, hub: &mut Hub) {
        if !self.is_traded {
            return;
        }
        let before = self.market.best();
        let mut trades = Vec::new();
        self.market.act(now, &mut trades);
        for trade in &trades {
            self.tell_trade(trade, hub);
        }
        let best = self.market.best();
        if best != before && hub.wants(&self.book_ticker) {
            let data = frames::book_ticker(&self.market.instrument, self.market.update_id(), best, now);
            self.publish(&self.book_ticker, data, hub);
        }
    }

    fn tell_trade(&mut self, trade: &AggTrade, hub: &mut Hub) {
        self.last_trade = trade.last_id();
        let instrument = &self.market.instrument;
        self.tell("trade", hub, || frames::trades(instrument, trade));
        self.tell("aggTrade", hub, || vec![frames::agg_trade(instrument, trade)]);
    }

    fn tell_depth(&mut self, pace: Pace, now: i64, hub: &mut Hub) {
        let (suffix, told) = match pace {
            Pace::Fast => ("@100ms", 0),
            Pace::Slow => ("", 1),
        };
        if let Some(mut diff) = self.market.diff(pace) {
            let stream = format!("{}@depth{suffix}", self.stream);
            if hub.wants(&stream) {
                if hub.faults.take(Once::Cross, &self.market.instrument.symbol) {
                    self.cross(&mut diff);
                }
                if hub.faults.take(Once::WrongSequence, &self.market.instrument.symbol) {
                    (diff.first, diff.last) = (diff.first + WRONG_BY, diff.last + WRONG_BY);
                }
                let data = frames::diff(&self.market.instrument, &diff, now);
                let symbol = &self.market.instrument.symbol;
                hub.publish(Frame { stream: &stream, symbol, is_diff: true, data, wrapped: None });
            }
        }
        if self.told_partial.get(told) == Some(&self.market.update_id()) {
            return;
        }
        for levels in PARTIAL_LEVELS {
            let market = &self.market;
            self.tell(&format!("depth{levels}{suffix}"), hub, || {
                vec![frames::partial(&market.instrument, &market.snapshot(levels), now)]
            });
        }
        self.told_partial[told] = self.market.update_id();
    }

    /// Puts a bid above the best ask into what readers are told; the book itself stays as it is.
    fn cross(&self, diff: &mut Diff) {
        let [_, (ask, _)] = self.market.best();
        let instrument = &self.market.instrument;
        diff.bids.insert(0, (ask + instrument.start / 100, instrument.usual_lots));
    }

    fn tell_ticker(&mut self, now: i64, hub: &mut Hub) {
        if self.told_ticker == self.market.update_id() {
            return;
        }
        self.told_ticker = self.market.update_id();
        let market = &self.market;
        let day = std::cell::LazyCell::new(|| market.day());
        self.tell("ticker", hub, || day.iter().map(|day| frames::ticker(&market.instrument, day, now)).collect());
        self.tell("miniTicker", hub, || {
            day.iter().map(|day| frames::mini_ticker(&market.instrument, day, now)).collect()
        });
    }

    fn tell_candles(&mut self, now: i64, hub: &mut Hub) {
        if self.told_candle == self.last_trade {
            return;
        }
        self.told_candle = self.last_trade;
        for interval in INTERVALS {
            self.tell_candle(interval, now, false, now, hub);
        }
    }

    /// Closes the minute that ends at `end`, and every longer candle that ends with it.
    fn close_minute(&mut self, end: i64, now: i64, hub: &mut Hub) {
        for interval in INTERVALS.into_iter().filter(|interval| interval.open_of(end) == end) {
            self.tell_candle(interval, end - 1, true, now, hub);
        }
        self.market.roll();
    }

    fn tell_candle(&self, interval: Interval, time: i64, closed: bool, now: i64, hub: &mut Hub) {
        let market = &self.market;
        self.tell(&format!("kline_{}", interval.name), hub, || {
            let candle = market.candle(interval, time);
            candle.map(|candle| frames::kline(&market.instrument, interval, &candle, closed, now)).into_iter().collect()
        });
    }

    /// Publishes frames of a stream, which are only made when somebody wants them.
    fn tell(&self, kind: &str, hub: &mut Hub, frames: impl FnOnce() -> Vec<String>) {
        let stream = format!("{}@{kind}", self.stream);
        if self.is_traded && hub.wants(&stream) {
            frames().into_iter().for_each(|data| self.publish(&stream, data, hub));
        }
    }

    fn publish(&self, stream: &str, data: String, hub: &mut Hub) {
        let symbol = &self.market.instrument.symbol;
        hub.publish(Frame { stream, symbol, is_diff: false, data, wrapped: None });
    }
}

#[cfg(test)]
mod tests;
