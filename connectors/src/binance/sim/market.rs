//! One generated symbol: its price, book, trades and candles. No clock and no I/O.

mod history;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fastrand::Rng;

use super::book::{Book, Level, Side, Sides};
use super::candles::{Candle, Candles, Fill, Interval, MINUTE_MS};
use super::instrument::{Instrument, name_hash};

/// The fair price is kept in parts of a tick, so that coarse symbols do not jump.
const PARTS: i64 = 1 << 10;

/// How many levels a side has near the fair price; below them orders are only placed.
const NEAR_LEVELS: usize = 10;

/// Most levels that a side keeps: beyond them the worst one is withdrawn.
const MOST_LEVELS: usize = 1000;

/// How many orders build the book of the beginning, per side.
const FIRST_ORDERS: usize = 400;

/// How many levels one taker may sweep.
const MOST_SWEPT: usize = 5;

/// How many trades are kept for the REST route.
const KEPT_TRADES: usize = 5000;

/// A taker's order at one price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AggTrade {
    pub(super) id: i64,
    pub(super) price: i64,
    pub(super) time: i64,
    pub(super) taker_buys: bool,
    pub(super) first_id: i64,
    /// Lots of each maker's order; their ids count up from `first_id`.
    pub(super) fills: Vec<i64>,
}

impl AggTrade {
    pub(super) fn lots(&self) -> i64 {
        self.fills.iter().sum()
    }

    pub(super) fn last_id(&self) -> i64 {
        self.first_id + self.fills.len() as i64 - 1
    }
}

/// How often a diff goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// Every 100 ms.
    Fast,
    /// Every second.
    Slow,
}

/// What changed in a book since the last diff of the same pace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Diff {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) bids: Vec<Level>,
    pub(super) asks: Vec<Level>,
}

/// A book, or its upper part, at one update id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) last: i64,
    pub(super) bids: Vec<Level>,
    pub(super) asks: Vec<Level>,
}

/// The last 24 hours.
#[derive(Debug, Clone)]
pub(super) struct Day {
    pub(super) total: Candle,
    pub(super) last_lots: i64,
    pub(super) bid: Level,
    pub(super) ask: Level,
}

/// What is told of the levels that changed; the sets are emptied by each diff.
#[derive(Debug, Clone, Default)]
struct Touched {
    /// By rank, since the last fast diff.
    fast: Sides<BTreeSet<i64>>,
    /// By rank, since the last slow diff, with the lots that lay there then.
    slow: Sides<BTreeMap<i64, i64>>,
    /// The last update id in a fast diff.
    fast_last: i64,
    /// The last update id in a slow diff.
    slow_last: i64,
}

/// One symbol.
#[derive(Debug)]
pub(super) struct Market {
    pub(super) instrument: Instrument,
    rng: Rng,
    /// Where the price is drawn to, in [`PARTS`] of a tick.
    fair: i64,
    book: Book,
    update_id: i64,
    touched: Touched,
    candles: Candles,
    next_agg_id: i64,
    next_trade_id: i64,
    last_lots: i64,
    recent: VecDeque<AggTrade>,
}

impl Market {
    /// A market that has a past and a full book. Equal seeds give equal markets, whatever the time is.
    pub(super) fn new(instrument: Instrument, seed: u64, now: i64) -> Self {
        let mut rng = Rng::with_seed(seed ^ name_hash(&instrument.symbol));
        let first_trade_id = rng.i64(1_000_000..100_000_000);
        let minute = now - now.rem_euclid(MINUTE_MS);
        let past = history::walk(&instrument, &mut rng, minute, first_trade_id);
        let update_id = rng.i64(1_000_000_000..10_000_000_000);
        let mut market = Self {
            fair: past.price * PARTS,
            book: Book::default(),
            update_id,
            touched: Touched::default(),
            candles: Candles::new(past.minutes, minute, past.price),
            next_agg_id: first_trade_id / 2,
            next_trade_id: past.next_trade_id,
            last_lots: instrument.usual_lots,
            recent: VecDeque::new(),
            instrument,
            rng,
        };
        for _ in 0..FIRST_ORDERS {
            Side::BOTH.into_iter().for_each(|side| market.place(side, far_reach(past.price)));
        }
        market.touched = Touched { fast_last: market.update_id, slow_last: market.update_id, ..Touched::default() };
        market
    }

    /// Lets one thing happen; what was traded is added to `trades`.
    pub(super) fn act(&mut self, now: i64, trades: &mut Vec<AggTrade>) {
        self.drift();
        let fair = self.fair / PARTS;
        let side = if self.rng.bool() { Side::Bid } else { Side::Ask };
        if let Some((left_behind, lots)) = self.left_behind(fair) {
            self.trade(left_behind, lots, now, trades);
        } else if self.is_wide(fair) {
            self.place(side, fair / 20_000);
        } else if let Some(thin) = self.thin_side(fair) {
            self.place(thin, near_reach(fair));
        } else {
            match self.rng.u32(0..100) {
                0..20 => {
                    let lots = 1 + self.order_lots() / 2;
                    self.trade(side, lots, now, trades);
                }
                20..62 => self.place(side, far_reach(fair)),
                62..97 => self.withdraw(side),
                _ => self.flicker(side),
            }
        }
        for side in Side::BOTH {
            if self.book.depth(side) > MOST_LEVELS
                && let Some((tick, _)) = self.book.worst(side)
            {
                self.set(side, tick, 0);
            }
        }
    }

    /// Closes the open minute.
    pub(super) fn roll(&mut self) {
        self.candles.roll();
    }

    /// What changed since the last call with the same pace; `None` when nothing did.
    pub(super) fn diff(&mut self, pace: Pace) -> Option<Diff> {
        let last = match pace {
            Pace::Fast => &mut self.touched.fast_last,
            Pace::Slow => &mut self.touched.slow_last,
        };
        let first = std::mem::replace(last, self.update_id) + 1;
        if first > self.update_id {
            return None;
        }
        let [bids, asks] = Side::BOTH.map(|side| {
            let ranks: Vec<i64> = match pace {
                Pace::Fast => std::mem::take(self.touched.fast.of_mut(side)).into_iter().collect(),
                Pace::Slow => std::mem::take(self.touched.slow.of_mut(side)).into_keys().collect(),
            };
            let level = |rank| (side.rank(rank), self.book.lots(side, side.rank(rank)));
            ranks.into_iter().map(level).collect()
        });
        Some(Diff { first, last: self.update_id, bids, asks })
    }

    /// The book as it is.
    pub(super) fn snapshot(&self, limit: usize) -> Snapshot {
        top(&self.book, self.update_id, limit)
    }

    /// The book as it was at the last slow diff, as a cache in front of the venue would still have it.
    pub(super) fn stale_snapshot(&self, limit: usize) -> Snapshot {
        let mut book = self.book.clone();
        for side in Side::BOTH {
            for (&rank, &lots) in self.touched.slow.of(side) {
                book.set(side, side.rank(rank), lots);
            }
        }
        top(&book, self.touched.slow_last, limit)
    }

    /// The best bid and ask; zero lots where a side is empty.
    pub(super) fn best(&self) -> [Level; 2] {
        Side::BOTH.map(|side| self.book.best(side).unwrap_or_default())
    }

    /// The last update id.
    pub(super) fn update_id(&self) -> i64 {
        self.update_id
    }

    /// The rolling 24 hours.
    pub(super) fn day(&self) -> Option<Day> {
        let [bid, ask] = self.best();
        Some(Day { total: self.candles.total()?, last_lots: self.last_lots, bid, ask })
    }

    /// The candle that holds `time`.
    pub(super) fn candle(&self, interval: Interval, time: i64) -> Option<Candle> {
        self.candles.at(interval, time)
    }

    /// See [`Candles::series`].
    pub(super) fn candles(&self) -> &Candles {
        &self.candles
    }

    /// The last trades, oldest first.
    pub(super) fn recent(&self) -> &VecDeque<AggTrade> {
        &self.recent
    }

    fn drift(&mut self) {
        let start = self.instrument.start * PARTS;
        let away = (self.fair - start) * 100 / start;
        // Free within 3 %, then held back, so that a long run stays plausible.
        let up_of_1000 = 500 - 60 * (away / 3).signum();
        let step = self.rng.i64(0..=self.fair / 100_000);
        self.fair += if self.rng.i64(0..1000) < up_of_1000 { step } else { -step };
    }

    /// The side whose best order the fair price has passed, and how much lies there.
    fn left_behind(&self, fair: i64) -> Option<(Side, i64)> {
        let (side, lots) = match self.best() {
            [(bid, lots), _] if bid > fair && lots > 0 => (Side::Bid, lots),
            [_, (ask, lots)] if ask < fair && lots > 0 => (Side::Ask, lots),
            _ => return None,
        };
        (self.book.depth(side) > 1).then_some((side, lots))
    }

    /// Whether takers have left a gap that makers would close: more than 2 basis points.
    fn is_wide(&self, fair: i64) -> bool {
        let [(bid, _), (ask, _)] = self.best();
        ask - bid > (fair / 5_000).max(2)
    }

    /// The side that has too few levels near the fair price, or none behind them.
    fn thin_side(&self, fair: i64) -> Option<Side> {
        let is_thin = |side: Side| {
            let outermost = self.book.levels(side).nth(NEAR_LEVELS - 1);
            outermost.is_none_or(|(tick, _)| (tick - fair).abs() > near_reach(fair))
        };
        Side::BOTH.into_iter().find(|side| is_thin(*side))
    }

    /// A taker's order of `lots` against `side`.
    fn trade(&mut self, side: Side, lots: i64, now: i64, trades: &mut Vec<AggTrade>) {
        let mut left = lots;
        for _ in 0..MOST_SWEPT {
            let Some((tick, there)) = self.book.best(side).filter(|_| left > 0 && self.book.depth(side) > 1) else {
                return;
            };
            let taken = left.min(there);
            left -= taken;
            self.set(side, tick, there - taken);
            let fills = self.split(taken);
            self.last_lots = fills.last().copied().unwrap_or(taken);
            let trade = AggTrade {
                id: self.next_agg_id,
                price: tick,
                time: now,
                taker_buys: side == Side::Ask,
                first_id: self.next_trade_id,
                fills,
            };
            self.next_agg_id += 1;
            self.next_trade_id = trade.last_id() + 1;
            self.candles.take(&Fill {
                price: tick,
                lots: taken,
                first_id: trade.first_id,
                last_id: trade.last_id(),
                taker_buys: trade.taker_buys,
            });
            if self.recent.len() == KEPT_TRADES {
                self.recent.pop_front();
            }
            self.recent.push_back(trade.clone());
            trades.push(trade);
        }
    }

    /// Shares `lots` among one to three makers.
    fn split(&mut self, lots: i64) -> Vec<i64> {
        let mut left = lots;
        let mut fills = Vec::new();
        for _ in 0..self.rng.usize(0..3) {
            if left < 2 {
                break;
            }
            let fill = self.rng.i64(1..left);
            fills.push(fill);
            left -= fill;
        }
        fills.push(left);
        fills
    }

    /// Places an order at most `reach` ticks behind the fair price.
    fn place(&mut self, side: Side, reach: i64) {
        let tick = self.some_tick(side, reach);
        let lots = self.book.lots(side, tick) + self.order_lots();
        self.set(side, tick, lots);
    }

    /// Takes back some of a level, or all of it.
    fn withdraw(&mut self, side: Side) {
        let tick = self.some_tick(side, far_reach(self.fair / PARTS));
        let Some((tick, lots)) = self.book.at_or_behind(side, tick).or_else(|| self.book.worst(side)) else { return };
        let kept = if self.rng.u32(0..3) == 0 { 0 } else { self.rng.i64(0..lots) };
        self.set(side, tick, kept);
    }

    /// Places an order and takes it back at once: readers see the removal of a level that they never had.
    fn flicker(&mut self, side: Side) {
        let tick = self.some_tick(side, far_reach(self.fair / PARTS));
        let lots = self.book.lots(side, tick);
        self.set(side, tick, lots + self.instrument.usual_lots);
        self.set(side, tick, lots);
    }

    /// A tick on this side of the fair price, likelier near than far.
    fn some_tick(&mut self, side: Side, reach: i64) -> i64 {
        let halvings = self.rng.u32(0..=10);
        side.behind(self.fair / PARTS, 1 + self.rng.i64(0..=reach >> halvings)).max(1)
    }

    fn order_lots(&mut self) -> i64 {
        let halvings = self.rng.u32(0..6);
        1 + self.rng.i64(0..=(self.instrument.usual_lots * 4) >> halvings)
    }

    fn set(&mut self, side: Side, tick: i64, lots: i64) {
        let before = self.book.set(side, tick, lots);
        self.update_id += 1;
        self.touched.fast.of_mut(side).insert(side.rank(tick));
        self.touched.slow.of_mut(side).entry(side.rank(tick)).or_insert(before);
    }
}

/// How many ticks behind the fair price there is always something: 20 basis points.
fn near_reach(fair: i64) -> i64 {
    (fair / 500).max(20)
}

/// How many ticks behind the fair price orders commonly reach.
fn far_reach(fair: i64) -> i64 {
    (fair / 64).max(64)
}

fn top(book: &Book, last: i64, limit: usize) -> Snapshot {
    let [bids, asks] = Side::BOTH.map(|side| book.levels(side).take(limit).collect());
    Snapshot { last, bids, asks }
}

#[cfg(test)]
mod tests;
