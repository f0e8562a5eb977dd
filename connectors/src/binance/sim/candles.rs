//! Candles from trades, minute by minute, and longer ones from the minutes.

use std::collections::VecDeque;

/// A minute in milliseconds.
pub(super) const MINUTE_MS: i64 = 60_000;

/// How many minutes are kept: the venue's 24 hours.
const KEPT_MINUTES: usize = 1440;

/// Intervals that are served, by the venue's names. Those of a second and of a month are not.
pub(super) const INTERVALS: [Interval; 14] = [
    Interval::new("1m", 1),
    Interval::new("3m", 3),
    Interval::new("5m", 5),
    Interval::new("15m", 15),
    Interval::new("30m", 30),
    Interval::new("1h", 60),
    Interval::new("2h", 120),
    Interval::new("4h", 240),
    Interval::new("6h", 360),
    Interval::new("8h", 480),
    Interval::new("12h", 720),
    Interval::new("1d", 1440),
    Interval::new("3d", 3 * 1440),
    Interval::new("1w", 7 * 1440),
];

/// A length of candles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) name: &'static str,
    pub(super) length_ms: i64,
}

impl Interval {
    const fn new(name: &'static str, minutes: i64) -> Self {
        Self { name, length_ms: minutes * MINUTE_MS }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        INTERVALS.into_iter().find(|interval| interval.name == name)
    }

    /// When the candle that holds `time` opened.
    pub(super) fn open_of(self, time: i64) -> i64 {
        // The epoch was a Thursday and weeks begin on Monday, four days later.
        let origin = if self.name == "1w" { 4 * 1440 * MINUTE_MS } else { 0 };
        time - (time - origin).rem_euclid(self.length_ms)
    }
}

/// What a candle needs to know of a trade with one order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fill {
    pub(super) price: i64,
    pub(super) lots: i64,
    pub(super) first_id: i64,
    pub(super) last_id: i64,
    pub(super) taker_buys: bool,
}

/// A candle in ticks and lots; values are ticks times lots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candle {
    pub(super) open_time: i64,
    pub(super) open: i64,
    pub(super) high: i64,
    pub(super) low: i64,
    pub(super) close: i64,
    pub(super) lots: i64,
    pub(super) value: i128,
    pub(super) taker_lots: i64,
    pub(super) taker_value: i128,
    /// -1 without a trade.
    pub(super) first_id: i64,
    /// -1 without a trade.
    pub(super) last_id: i64,
}

impl Candle {
    /// A candle without a trade, at the price of the last one.
    pub(super) fn flat(open_time: i64, price: i64) -> Self {
        Self {
            open_time,
            open: price,
            high: price,
            low: price,
            close: price,
            lots: 0,
            value: 0,
            taker_lots: 0,
            taker_value: 0,
            first_id: -1,
            last_id: -1,
        }
    }

    pub(super) fn trades(&self) -> i64 {
        if self.first_id < 0 { 0 } else { self.last_id - self.first_id + 1 }
    }

    /// Adds a trade.
    pub(super) fn take(&mut self, fill: &Fill) {
        let value = i128::from(fill.price) * i128::from(fill.lots);
        let taker = i64::from(fill.taker_buys);
        self.append(&Self {
            lots: fill.lots,
            value,
            taker_lots: fill.lots * taker,
            taker_value: value * i128::from(taker),
            first_id: fill.first_id,
            last_id: fill.last_id,
            ..Self::flat(self.open_time, fill.price)
        });
    }

    /// Adds what came after it.
    fn append(&mut self, later: &Self) {
        if later.first_id < 0 {
            return;
        }
        if self.first_id < 0 {
            (self.open, self.high, self.low, self.first_id) = (later.open, later.high, later.low, later.first_id);
        }
        self.high = self.high.max(later.high);
        self.low = self.low.min(later.low);
        self.close = later.close;
        self.lots += later.lots;
        self.value += later.value;
        self.taker_lots += later.taker_lots;
        self.taker_value += later.taker_value;
        self.last_id = later.last_id;
    }
}

/// The minutes of a symbol without a hole, the last one still open.
#[derive(Debug, Clone)]
pub(super) struct Candles {
    minutes: VecDeque<Candle>,
}

impl Candles {
    /// Begins with `history`, in order, and an open minute behind it.
    pub(super) fn new(history: VecDeque<Candle>, open_time: i64, price: i64) -> Self {
        let mut minutes = history;
        minutes.push_back(Candle::flat(open_time, price));
        Self { minutes }
    }

    pub(super) fn take(&mut self, fill: &Fill) {
        if let Some(open) = self.minutes.back_mut() {
            open.take(fill);
        }
    }

    /// Closes the open minute and opens the next one.
    pub(super) fn roll(&mut self) {
        let Some(closed) = self.minutes.back() else { return };
        self.minutes.push_back(Candle::flat(closed.open_time + MINUTE_MS, closed.close));
        if self.minutes.len() > KEPT_MINUTES {
            self.minutes.pop_front();
        }
    }

    /// All minutes added up.
    pub(super) fn total(&self) -> Option<Candle> {
        self.minutes.iter().copied().reduce(joined)
    }

    /// The candle that holds `time`.
    pub(super) fn at(&self, interval: Interval, time: i64) -> Option<Candle> {
        let open_time = interval.open_of(time);
        self.between(open_time, open_time + interval.length_ms)
            .copied()
            .reduce(joined)
            .map(|candle| Candle { open_time, ..candle })
    }

    /// The candles that opened in `range`: the last `limit` of them, or the first where a start is given.
    pub(super) fn series(&self, interval: Interval, start: Option<i64>, end: Option<i64>, limit: usize) -> Vec<Candle> {
        let mut series: Vec<Candle> = Vec::new();
        for minute in &self.minutes {
            let open_time = interval.open_of(minute.open_time);
            match series.last_mut() {
                Some(candle) if candle.open_time == open_time => candle.append(minute),
                _ => series.push(Candle { open_time, ..*minute }),
            }
        }
        series.retain(|c| start.is_none_or(|at| c.open_time >= at) && end.is_none_or(|at| c.open_time <= at));
        let surplus = series.len().saturating_sub(limit);
        if start.is_some() {
            series.truncate(limit);
        } else {
            series.drain(..surplus);
        }
        series
    }

    fn between(&self, from: i64, until: i64) -> impl Iterator<Item = &Candle> {
        let first = self.minutes.partition_point(|minute| minute.open_time < from);
        self.minutes.range(first..).take_while(move |minute| minute.open_time < until)
    }
}

fn joined(mut earlier: Candle, later: Candle) -> Candle {
    earlier.append(&later);
    earlier
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(price: i64, id: i64) -> Fill {
        Fill { price, lots: 2, first_id: id, last_id: id, taker_buys: price % 2 == 0 }
    }

    #[test]
    fn longer_candles_add_up_and_quiet_minutes_keep_the_price() {
        let mut candles = Candles::new(VecDeque::new(), 0, 10);
        for (minute, price) in [Some(12), None, Some(9), Some(14)].into_iter().enumerate() {
            if minute > 0 {
                candles.roll();
            }
            if let Some(price) = price {
                candles.take(&fill(price, minute as i64));
            }
        }
        let three = Interval::named("3m").unwrap();
        let series = candles.series(three, None, None, 500);
        assert_eq!(
            series.iter().map(|c| (c.open, c.high, c.low, c.close)).collect::<Vec<_>>(),
            [(12, 12, 9, 9), (14, 14, 14, 14)]
        );
        assert_eq!(candles.at(three, 179_999), series.first().copied());
        let minutes = candles.series(INTERVALS[0], None, None, 500);
        assert_eq!((minutes[1].open, minutes[1].close, minutes[1].trades(), minutes[1].first_id), (12, 12, 0, -1));
        assert_eq!(candles.series(INTERVALS[0], None, None, 2), minutes[2..]);
        assert_eq!(candles.series(INTERVALS[0], Some(60_000), Some(120_000), 9), minutes[1..3]);
        assert_eq!(candles.series(INTERVALS[0], Some(60_000), None, 1), minutes[1..2]);
        assert_eq!(candles.total().map(|c| (c.lots, c.value, c.trades())), Some((6, 70, 4)), "ids 0, 2 and 3 span 4");
    }

    #[test]
    fn weeks_begin_on_monday() {
        let monday = 1_791_158_400_000; // 2026-10-05
        let week = Interval::named("1w").unwrap();
        assert_eq!(week.open_of(monday), monday);
        assert_eq!(week.open_of(monday - 1), monday - 7 * 86_400_000);
    }
}
