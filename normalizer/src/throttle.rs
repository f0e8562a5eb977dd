//! Newest wins: at most one event in each interval of its kind, and the last one is never lost.

use std::collections::{BTreeSet, HashMap};

use akis_model::{Channel, Kind};
use foldhash::fast::RandomState;

use crate::update::{Payload, Update};

/// The shortest time between two events of a channel; `None`: every event goes through.
fn interval_ms(kind: Kind) -> Option<i64> {
    match kind {
        Kind::Ticker => Some(100),
        Kind::Book => Some(250),
        Kind::Candles => Some(1_000),
        Kind::Trades | Kind::Session | Kind::App => None,
    }
}

/// When a channel may be told of next, for a mapper behind which a throttle stands: what that would not let through need not
/// be made. The mapper keeps what it did not tell, and tells it when it is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    next_at: i64,
}

impl Default for Pace {
    /// At once.
    fn default() -> Self {
        Self { next_at: i64::MIN }
    }
}

impl Pace {
    /// Whether it may be told at `now_ms`; `None`: at any time, because no throttle stands behind.
    pub(crate) fn is_due(self, now_ms: Option<i64>) -> bool {
        now_ms.is_none_or(|now_ms| now_ms >= self.next_at)
    }

    /// An event of this kind was told.
    pub(crate) fn note(&mut self, kind: Kind, now_ms: Option<i64>) {
        if let Some(now_ms) = now_ms {
            self.next_at = now_ms.saturating_add(interval_ms(kind).unwrap_or_default());
        }
    }
}

/// Holds the newest event of each channel whose interval is not over.
///
/// Bounded by the number of channels: each holds one event.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    slots: HashMap<Channel, Slot, RandomState>,
    /// The slots that hold something, by the moment when it may go.
    due: BTreeSet<(i64, Channel)>,
}

#[derive(Debug)]
struct Slot {
    /// Nothing goes before this moment.
    open_at: i64,
    held: Option<Update>,
}

impl Throttle {
    /// Lets `update` through or holds it; what goes is added to `out`.
    pub(crate) fn offer(&mut self, update: Update, now_ms: i64, out: &mut Vec<Update>) {
        let channel = update.channel.clone();
        let Some(interval) = interval_ms(channel.kind()) else {
            out.push(update);
            return;
        };
        let slot = self.slots.entry(channel.clone()).or_insert(Slot { open_at: now_ms, held: None });
        let before = slot.held.take();
        let was_due = before.is_some();
        // A status is no newer version of an event, and a closed candle is the last word on it.
        out.extend(before.filter(|held| !replaces(&update, held)));
        let passes = update.payload.is_status() || now_ms >= slot.open_at;
        match (passes, was_due) {
            (true, true) => {
                self.due.remove(&(slot.open_at, channel));
            }
            (false, false) => {
                self.due.insert((slot.open_at, channel));
            }
            (true, false) | (false, true) => {}
        }
        if !passes {
            slot.held = Some(update);
            return;
        }
        if !update.payload.is_status() {
            slot.open_at = now_ms.saturating_add(interval);
        }
        out.push(update);
    }

    /// Lets go what is due.
    pub(crate) fn on_tick(&mut self, now_ms: i64, out: &mut Vec<Update>) {
        while self.due.first().is_some_and(|(at, _)| *at <= now_ms) {
            self.release(now_ms, out);
        }
    }

    /// Lets go everything, at the end.
    pub(crate) fn flush(&mut self, now_ms: i64, out: &mut Vec<Update>) {
        while !self.due.is_empty() {
            self.release(now_ms, out);
        }
    }

    fn release(&mut self, now_ms: i64, out: &mut Vec<Update>) {
        let Some((_, channel)) = self.due.pop_first() else { return };
        let Some(slot) = self.slots.get_mut(&channel) else { return };
        slot.open_at = now_ms.saturating_add(interval_ms(channel.kind()).unwrap_or(0));
        out.extend(slot.held.take());
    }
}

/// Whether `held` need not be told once `newer` is.
fn replaces(newer: &Update, held: &Update) -> bool {
    match (&newer.payload, &held.payload) {
        (Payload::Status(_) | Payload::Stale(_), _) => false,
        (_, Payload::Candle(held)) => !held.closed,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use akis_model::{Candle, ChannelState, Decimal, Provenance, TimeSource};
    use proptest::prelude::*;

    use super::*;

    fn candle(facet: &str, minute: i64, trades: u64, closed: bool) -> Update {
        let provenance = Provenance { ts_source: TimeSource::Venue, received_at: 0 };
        let zero = Decimal::ZERO;
        let payload = Payload::Candle(Candle {
            symbol: "A/B".into(),
            interval: "1m".into(),
            open_time: minute,
            close_time: minute,
            open: zero,
            high: zero,
            low: zero,
            close: zero,
            volume: zero,
            trades: Some(trades),
            closed,
            provenance,
        });
        let channel = Channel::parse(&format!("binance:AB:{facet}")).unwrap();
        Update::new(&channel, 0, payload)
    }

    fn trades(updates: &[Update]) -> Vec<u64> {
        let count = |update: &Update| match &update.payload {
            Payload::Candle(candle) => candle.trades.unwrap(),
            _ => 0,
        };
        updates.iter().map(count).collect()
    }

    #[test]
    fn the_first_goes_at_once_and_the_newest_when_it_is_due() {
        let (mut throttle, mut out) = (Throttle::default(), Vec::new());
        for (now, n) in [(0, 1), (10, 2), (20, 3)] {
            throttle.offer(candle("ticker", 0, n, false), now, &mut out);
        }
        assert_eq!(trades(&out), [1]);
        throttle.on_tick(99, &mut out);
        assert_eq!(trades(&out), [1]);
        throttle.on_tick(100, &mut out);
        throttle.on_tick(500, &mut out);
        assert_eq!(trades(&out), [1, 3]);
        throttle.offer(candle("ticker", 0, 4, false), 150, &mut out);
        throttle.flush(160, &mut out);
        assert_eq!(trades(&out), [1, 3, 4]);
    }

    #[test]
    fn a_closed_candle_is_not_replaced_by_the_next_one() {
        let (mut throttle, mut out) = (Throttle::default(), Vec::new());
        throttle.offer(candle("1m", 0, 1, false), 0, &mut out);
        throttle.offer(candle("1m", 0, 2, false), 10, &mut out);
        throttle.offer(candle("1m", 0, 3, true), 20, &mut out);
        throttle.offer(candle("1m", 60, 4, false), 30, &mut out);
        throttle.offer(candle("1m", 60, 5, false), 40, &mut out);
        throttle.on_tick(1_000, &mut out);
        assert_eq!(trades(&out), [1, 3, 5]);
    }

    #[test]
    fn a_status_comes_after_what_was_held() {
        let (mut throttle, mut out) = (Throttle::default(), Vec::new());
        throttle.offer(candle("book", 0, 1, false), 0, &mut out);
        throttle.offer(candle("book", 0, 2, false), 10, &mut out);
        let channel = Channel::parse("binance:AB:book").unwrap();
        throttle.offer(Update::status(channel, ChannelState::Down, 0, "", 20), 20, &mut out);
        throttle.on_tick(1_000, &mut out);
        assert_eq!(trades(&out), [1, 2, 0]);
    }

    proptest! {
        #[test]
        fn keeps_order_and_interval_and_never_loses_the_last(
            steps in prop::collection::vec((0i64..120, prop::bool::weighted(0.7)), 1..60)
        ) {
            let (mut throttle, mut sent) = (Throttle::default(), Vec::new());
            let (mut now, mut last) = (0, 0);
            for (n, (later, offered)) in (1..).zip(steps) {
                now += later;
                let mut out = Vec::new();
                throttle.on_tick(now, &mut out);
                if offered {
                    throttle.offer(candle("ticker", 0, n, false), now, &mut out);
                    last = n;
                }
                prop_assert!(out.len() <= 1);
                sent.extend(trades(&out).into_iter().map(|n| (now, n)));
            }
            let mut rest = Vec::new();
            throttle.flush(now, &mut rest);
            sent.extend(trades(&rest).into_iter().map(|n| (i64::MAX, n)));
            prop_assert!(sent.windows(2).all(|w| w[0].1 < w[1].1 && w[1].0 - w[0].0 >= 100));
            prop_assert_eq!(sent.last().map_or(0, |last| last.1), last);
        }
    }
}
