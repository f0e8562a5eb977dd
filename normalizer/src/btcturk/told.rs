//! What was told of the candles of one pair: one that was told while it was open is told closed too, however late that is known, and
//! by whoever publishes then.

use std::collections::VecDeque;

use crate::candles::{Interval, Shown};

/// Most candles that are remembered as open; each lost connection leaves one of every interval at most.
const MOST_OPEN: usize = 24;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The last one of each interval, in the order of [`Interval::ALL`].
    last: [Option<Shown>; Interval::ALL.len()],
    /// The newest one of each that was told closed.
    closed: [Option<Shown>; Interval::ALL.len()],
    /// Interval and open time of those that were not told closed yet, the oldest first.
    open: VecDeque<(Interval, i64)>,
}

impl Told {
    /// Whether it was told closed already, or a later one was: nothing more is to be told of it.
    pub(super) fn has_ended(&self, shown: &Shown) -> bool {
        let last = self.last[shown.interval as usize];
        last.is_some_and(|last| last.closed && shown.span.open_time <= last.span.open_time)
    }

    /// A candle is told now.
    pub(super) fn note(&mut self, shown: &Shown) {
        let key = key(shown);
        self.last[shown.interval as usize] = Some(*shown);
        let closed = &mut self.closed[shown.interval as usize];
        if shown.closed && closed.is_none_or(|closed| closed.span.open_time < shown.span.open_time) {
            *closed = Some(*shown);
        }
        self.open.retain(|open| *open != key);
        if !shown.closed {
            self.open.push_back(key);
        }
        if self.open.len() > MOST_OPEN {
            self.open.pop_front();
        }
    }

    /// How the newest candles closed, and what has come since: who published before may not have come to it.
    pub(super) fn again(&self) -> Vec<Shown> {
        let of_each = self.closed.iter().zip(&self.last).flat_map(|(closed, last)| {
            let closed = closed.filter(|closed| Some(closed) != last.as_ref());
            [closed, *last]
        });
        of_each.flatten().collect()
    }

    /// Those of the past that are to be told before `next`. The newest wins, so what was told after them comes again.
    pub(super) fn late(&self, past: &[Shown], next: &[Shown]) -> Vec<Shown> {
        let is_late = |shown: &&Shown| shown.closed && self.open.contains(&key(shown));
        let mut late: Vec<Shown> = past.iter().filter(is_late).copied().collect();
        let has = |candles: &[Shown], interval| candles.iter().any(|shown| shown.interval == interval);
        let comes_again = |last: &&Shown| {
            let before = |shown: &Shown| shown.interval == last.interval && shown.span.open_time < last.span.open_time;
            late.iter().any(before) && !has(next, last.interval)
        };
        let again: Vec<Shown> = self.last.iter().flatten().filter(comes_again).copied().collect();
        late.extend(again);
        late
    }
}

fn key(shown: &Shown) -> (Interval, i64) {
    (shown.interval, shown.span.open_time)
}
