//! The trades of one symbol in the order of the venue's ids: a hole is asked for before it is told.
//!
//! Holes come from connections that ended; frames that come in another order, or twice where connections overlap, are
//! put right on the way.

use std::collections::BTreeMap;

use crate::mapper::Reason;
use crate::update::Update;

/// An id further from the last one than this is not believed until the next one confirms it: a single bad frame
/// would otherwise silence the series, or tear a hole that nobody can fill.
const FAR: u64 = 10_000_000;

/// Trades that wait behind a hole at most; then it is told.
const MAX_HELD: usize = 5_000;

/// Without progress for so long a hole is told.
const GIVE_UP_MS: i64 = 5_000;

/// After so long what is missing is asked for again.
const ASK_AGAIN_MS: i64 = 2_000;

/// Which series of trades a symbol is fed from. Never both, for they tell of the same trades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tape {
    /// `aggTrade`, numbered by `a`.
    Aggregate,
    /// `trade`, numbered by `t`.
    Single,
}

/// A trade that may be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// How many are missing right before it.
    pub(super) missing: u64,
    /// The trade; `None` for one that only counts.
    pub(super) update: Option<Update>,
}

/// The trades of one symbol.
#[derive(Debug, Default)]
pub(super) struct Trades {
    last: Option<u64>,
    far: Option<u64>,
    /// What came from behind a hole, by id.
    held: BTreeMap<u64, Option<Update>>,
    /// When the hole was found, or last grew smaller.
    waits_since: i64,
    /// When, and from which id on, what is missing was asked for.
    asked: Option<(i64, u64)>,
}

impl Trades {
    /// Takes a trade; what may be told is added to `told`.
    ///
    /// # Errors
    ///
    /// [`Reason::Duplicate`], and [`Reason::OutOfRange`] for an id that is not believed.
    pub(super) fn take(
        &mut self,
        id: u64,
        update: Option<Update>,
        now_ms: i64,
        told: &mut Vec<Told>,
    ) -> Result<(), Reason> {
        let Some(last) = self.last else {
            self.tell(id, update, told);
            return Ok(());
        };
        if self.held.is_empty() && last.checked_add(1) == Some(id) {
            // As nearly always.
            self.far = None;
            self.tell(id, update, told);
            return Ok(());
        }
        if id.abs_diff(last) > FAR {
            if self.far.replace(id).and_then(|far| far.checked_add(1)) != Some(id) {
                return Err(Reason::OutOfRange);
            }
            // Another series has begun; what lies between cannot be counted, but the one that was not believed is missing.
            self.give_up(told);
            (self.last, self.far) = (Some(id), None);
            told.push(Told { missing: 1, update });
            return Ok(());
        }
        self.far = None;
        if id <= last || self.held.contains_key(&id) {
            return Err(Reason::Duplicate);
        }
        if self.held.is_empty() {
            self.waits_since = now_ms;
        }
        self.held.insert(id, update);
        let before = told.len();
        self.advance(told);
        if told.len() > before {
            self.waits_since = now_ms;
        }
        if self.held.len() > MAX_HELD {
            self.skip_hole(told);
        }
        Ok(())
    }

    /// The first id that is missing, when it is to be asked for now.
    pub(super) fn asks(&mut self, now_ms: i64) -> Option<u64> {
        let from = self.last?.checked_add(1).filter(|_| !self.held.is_empty())?;
        let is_new = self.asked.is_none_or(|(at, asked)| asked != from || now_ms.saturating_sub(at) >= ASK_AGAIN_MS);
        is_new.then(|| {
            self.asked = Some((now_ms, from));
            from
        })
    }

    /// The venue was asked for trades from `from` on, and has given all that it has: a hole that begins there stays.
    pub(super) fn on_answer(&mut self, from: u64, told: &mut Vec<Told>) {
        if self.last.and_then(|last| last.checked_add(1)) == Some(from) {
            self.skip_hole(told);
        }
    }

    /// Tells a hole that nobody has filled in time.
    pub(super) fn on_tick(&mut self, now_ms: i64, told: &mut Vec<Told>) {
        if !self.held.is_empty() && now_ms.saturating_sub(self.waits_since) > GIVE_UP_MS {
            self.skip_hole(told);
            self.waits_since = now_ms;
        }
    }

    /// Tells everything that waits.
    pub(super) fn give_up(&mut self, told: &mut Vec<Told>) {
        while !self.held.is_empty() {
            self.skip_hole(told);
        }
    }

    /// Tells what follows the last one.
    fn advance(&mut self, told: &mut Vec<Told>) {
        while let Some((id, update)) = self.held.pop_first() {
            if self.last.and_then(|last| last.checked_add(1)) != Some(id) {
                self.held.insert(id, update);
                return;
            }
            self.tell(id, update, told);
        }
    }

    /// Goes over the hole to the first trade behind it.
    fn skip_hole(&mut self, told: &mut Vec<Told>) {
        if let Some((id, update)) = self.held.pop_first() {
            self.tell(id, update, told);
            self.advance(told);
        }
    }

    fn tell(&mut self, id: u64, update: Option<Update>, told: &mut Vec<Told>) {
        let missing = self.last.map_or(0, |last| id.saturating_sub(last).saturating_sub(1));
        self.last = Some(id);
        told.push(Told { missing, update });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is told, as ids: the missing ones counted before each.
    #[derive(Default)]
    struct Harness {
        trades: Trades,
        told: Vec<u64>,
    }

    impl Harness {
        fn take(&mut self, id: u64, now_ms: i64) -> Result<(), Reason> {
            self.with(|trades, told| trades.take(id, None, now_ms, told))
        }

        fn with<T>(&mut self, act: impl FnOnce(&mut Trades, &mut Vec<Told>) -> T) -> T {
            let mut told = Vec::new();
            let outcome = act(&mut self.trades, &mut told);
            self.told.extend(told.iter().map(|told| told.missing));
            outcome
        }
    }

    #[test]
    fn a_hole_is_asked_for_filled_and_told_only_when_it_stays() {
        let mut tape = Harness::default();
        for id in [5, 6] {
            tape.take(id, 0).unwrap();
        }
        assert_eq!(tape.trades.asks(0), None);
        tape.take(9, 10).unwrap();
        assert_eq!(tape.told, [0, 0], "9 waits");
        assert_eq!((tape.trades.asks(10), tape.trades.asks(11), tape.trades.asks(3_000)), (Some(7), None, Some(7)));
        assert_eq!(tape.take(9, 12), Err(Reason::Duplicate));
        tape.take(7, 20).unwrap();
        assert_eq!(tape.trades.asks(20), Some(8));
        tape.take(8, 20).unwrap();
        assert_eq!(tape.told, [0; 5]);
        tape.take(12, 30).unwrap();
        tape.with(|trades, told| trades.on_answer(7, told));
        assert_eq!(tape.told.len(), 5, "an answer about something else");
        tape.with(|trades, told| trades.on_answer(10, told));
        assert_eq!(tape.told[5..], [2]);
        tape.take(14, 40).unwrap();
        tape.with(|trades, told| trades.on_tick(5_040, told));
        assert_eq!(tape.told.len(), 6);
        tape.with(|trades, told| trades.on_tick(5_041, told));
        assert_eq!(tape.told[6..], [1]);
        assert_eq!(tape.take(13, 6_000), Err(Reason::Duplicate), "too late");
    }

    #[test]
    fn an_id_far_away_is_believed_with_the_second_one() {
        let mut tape = Harness::default();
        tape.take(5, 0).unwrap();
        assert_eq!(tape.take(u64::MAX, 0), Err(Reason::OutOfRange));
        tape.take(6, 0).unwrap();
        assert_eq!(tape.take(50_000_000, 0), Err(Reason::OutOfRange));
        tape.take(50_000_001, 0).unwrap();
        tape.take(50_000_002, 0).unwrap();
        assert_eq!(tape.told, [0, 0, 1, 0]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut tape = Harness::default();
        tape.take(1, 0).unwrap();
        for id in 0..=MAX_HELD as u64 {
            tape.take(10 + id, 0).unwrap();
        }
        assert_eq!(tape.told[..2], [0, 8]);
    }

    proptest! {
        /// Trades that come twice, in another order or not at all, and answers that fill what is missing.
        #[test]
        fn each_trade_is_told_once_in_order_or_counted_as_missing(
            frames in prop::collection::vec((0u64..60, 0i64..1_500, prop::bool::weighted(0.2)), 1..150)
        ) {
            let mut trades = Trades::default();
            let (mut now, mut told) = (0, Vec::new());
            trades.take(1_000, None, 0, &mut told).unwrap();
            for (id, later, answered) in frames {
                now += later;
                let _ = trades.take(1_000 + id, None, now, &mut told);
                trades.on_tick(now, &mut told);
                if let (Some(from), true) = (trades.asks(now), answered) {
                    for id in from..from + 3 {
                        let _ = trades.take(id, None, now, &mut told);
                    }
                    trades.on_answer(from, &mut told);
                }
            }
            trades.give_up(&mut told);
            // Every id from the first to the last is either told or counted.
            let counted: u64 = told.iter().map(|told| told.missing + 1).sum();
            prop_assert_eq!(trades.last, Some(999 + counted));
            prop_assert!(trades.held.is_empty());
        }
    }
}
