//! The trades of one pair: each of them told once, however often and over however many connections it comes.
//!
//! Ids are unique within a pair but not counted by ones, so a hole cannot be seen from them. What shows one is a list of the
//! last 50 trades. It comes with each join (`421`): when it holds nothing that was told before, trades between may be missing.
//! And it can be had over REST: what it holds between trades that were told was lost inside a living connection. Such a
//! trade comes too late to be told in order, so it is counted as missing before the next one.

use std::collections::{HashSet, VecDeque};

use crate::mapper::Reason;

/// How many trades are remembered: many times what a list holds.
const REMEMBERED: usize = 2_000;

/// The list is asked for after so long when anything was traded, and sooner when it might not reach back far enough later.
const COMPARE_AFTER_MS: i64 = 60_000;
const COMPARE_AFTER_TRADES: u32 = 30;

/// It is never asked for more often than this.
const COMPARE_PAUSE_MS: i64 = 5_000;

/// What trades are ordered by: the venue's time, then its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Milliseconds since the epoch.
    pub(super) time: i64,
    pub(super) id: u128,
}

/// What is known of the trades so far.
#[derive(Debug, Default)]
pub(super) struct Tape {
    /// The ids of those that were told, or are known from the first list, which tells of what was before us.
    seen: HashSet<u128>,
    /// The same in the order in which they came, to forget the oldest.
    order: VecDeque<Key>,
    /// The last one in the venue's order.
    newest: Option<Key>,
    /// What lies at or below it is not judged any more: it was before us, or is forgotten.
    floor: Option<Key>,
    /// How many are known to be missing before the next one that is told.
    owed: u64,
    /// Connections that trades come over.
    sources: HashSet<u32>,
    /// Trades may have been missed, until a list or the next trade settles it.
    unsure: bool,
    /// Trades that came by themselves since the list was asked for.
    fresh: u32,
    compared_at: Option<i64>,
}

impl Tape {
    /// Places a trade that came by itself; gives back how many are known to be missing before it, at least.
    pub(super) fn single(&mut self, key: Key, connection: u32) -> Result<u64, Reason> {
        self.sources.insert(connection);
        self.check(key)?;
        self.remember(key);
        self.fresh = self.fresh.saturating_add(1);
        Ok(std::mem::take(&mut self.owed) + u64::from(std::mem::take(&mut self.unsure)))
    }

    /// Places a list of trades that came over a connection, or over REST (`None`); gives back which of them are to be told,
    /// in their order, and how many are known to be missing before the first of them, at least.
    pub(super) fn list(&mut self, mut keys: Vec<Key>, connection: Option<u32>) -> (Vec<Key>, u64) {
        self.sources.extend(connection);
        keys.sort_unstable();
        if self.floor.is_none() {
            // The first list is about the time before us, up to the first trade that came by itself.
            self.floor = self.order.iter().min().copied();
        }
        if self.floor.is_none() {
            self.floor = keys.last().copied();
            keys.into_iter().for_each(|key| self.remember(key));
            return (Vec::new(), 0);
        }
        let overlaps = keys.iter().any(|key| self.seen.contains(&key.id));
        keys.retain(|&key| self.check(key).is_ok());
        let newest = self.newest;
        keys.iter().for_each(|&key| self.remember(key));
        let late = keys.partition_point(|&key| newest.is_some_and(|newest| key < newest));
        self.owed += late as u64;
        let new = keys.split_off(late);
        if new.is_empty() && !overlaps {
            // Without anything that was known there is no telling.
            return (new, 0);
        }
        let unsure = std::mem::replace(&mut self.unsure, self.sources.is_empty());
        if new.is_empty() {
            return (new, 0);
        }
        (new, std::mem::take(&mut self.owed) + u64::from(unsure && !overlaps))
    }

    /// Whether the venue's list is to be asked for now.
    pub(super) fn asks(&mut self, now_ms: i64) -> bool {
        let since = now_ms.saturating_sub(*self.compared_at.get_or_insert(now_ms));
        let pause = if self.fresh < COMPARE_AFTER_TRADES { COMPARE_AFTER_MS } else { COMPARE_PAUSE_MS };
        if self.fresh == 0 || since < pause {
            return false;
        }
        (self.fresh, self.compared_at) = (0, Some(now_ms));
        true
    }

    /// A connection ended; what comes next may not follow.
    pub(super) fn on_closed(&mut self, connection: u32) {
        if self.sources.remove(&connection) && self.sources.is_empty() {
            self.unsure = true;
        }
    }

    fn check(&self, key: Key) -> Result<(), Reason> {
        if self.seen.contains(&key.id) {
            return Err(Reason::Duplicate);
        }
        if self.floor.is_some_and(|floor| key <= floor) { Err(Reason::Stale) } else { Ok(()) }
    }

    fn remember(&mut self, key: Key) {
        self.newest = self.newest.max(Some(key));
        if self.seen.insert(key.id) {
            self.order.push_back(key);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest.id);
            self.floor = self.floor.max(Some(oldest));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: i64) -> Key {
        Key { time: n / 2, id: n.unsigned_abs().into() }
    }

    fn keys(range: std::ops::RangeInclusive<i64>) -> Vec<Key> {
        range.rev().map(key).collect()
    }

    #[test]
    fn the_first_list_is_the_past_and_later_ones_fill_holes() {
        let mut tape = Tape::default();
        assert_eq!(tape.list(keys(1..=50), Some(1)), (vec![], 0));
        assert_eq!(tape.single(key(51), 1), Ok(0));
        assert_eq!(tape.single(key(51), 1), Err(Reason::Duplicate));
        assert_eq!(tape.single(key(50), 1), Err(Reason::Duplicate));
        assert_eq!(tape.single(key(0), 1), Err(Reason::Stale), "from before us");
        tape.on_closed(1);
        assert_eq!(tape.list(keys(10..=59), Some(2)), ((52..=59).map(key).collect(), 0));
        tape.on_closed(2);
        assert_eq!(tape.list(keys(100..=149), Some(3)), ((100..=149).map(key).collect(), 1), "60 to 99 are gone");
        assert_eq!(tape.single(key(150), 3), Ok(0));
    }

    #[test]
    fn what_the_first_list_has_from_before_the_first_trade_is_the_past() {
        for connection in [Some(1), None] {
            let mut tape = Tape::default();
            assert_eq!((tape.single(key(60), 1), tape.single(key(62), 1)), (Ok(0), Ok(0)));
            assert_eq!(tape.list(keys(14..=63), connection), (vec![key(63)], 1), "61 was lost, 14 to 59 were not");
            assert_eq!(tape.list(keys(15..=64), None), (vec![key(64)], 0));
            assert_eq!(tape.single(key(59), 1), Err(Reason::Stale));
        }
    }

    #[test]
    fn without_a_list_the_next_trade_says_that_some_may_be_missing() {
        let mut tape = Tape::default();
        assert_eq!(tape.single(key(1), 1), Ok(0));
        tape.on_closed(1);
        assert_eq!(tape.single(key(9), 2), Ok(1));
        assert_eq!(tape.single(key(10), 2), Ok(0));
    }

    #[test]
    fn a_connection_that_ends_beside_another_one_costs_nothing() {
        let mut tape = Tape::default();
        tape.list(keys(1..=5), Some(1));
        tape.list(keys(1..=6), Some(2));
        tape.on_closed(1);
        assert_eq!(tape.single(key(7), 2), Ok(0));
    }

    #[test]
    fn what_is_forgotten_is_not_told_again() {
        let mut tape = Tape::default();
        for n in 1..=5_000 {
            assert_eq!(tape.single(key(n), 1), Ok(0));
        }
        assert_eq!(tape.seen.len(), REMEMBERED);
        assert_eq!(tape.single(key(2), 1), Err(Reason::Stale));
    }

    #[test]
    fn a_trade_that_was_lost_inside_a_connection_is_found_by_the_venues_list() {
        let mut tape = Tape::default();
        tape.list(keys(1..=50), Some(1));
        assert_eq!((tape.single(key(51), 1), tape.single(key(53), 1)), (Ok(0), Ok(0)), "52 is lost");
        assert_eq!(tape.list(keys(4..=53), None), (vec![], 0));
        assert_eq!(tape.list(keys(4..=53), None), (vec![], 0), "it is counted once");
        assert_eq!(tape.single(key(52), 1), Err(Reason::Duplicate), "and not told any more");
        assert_eq!((tape.single(key(54), 1), tape.single(key(55), 1)), (Ok(1), Ok(0)));
        assert_eq!(tape.list(keys(7..=56), None), (vec![key(56)], 0), "what is newer is told at once");
        assert_eq!(tape.single(key(56), 1), Err(Reason::Duplicate));
        tape.on_closed(1);
        assert_eq!(tape.list(keys(8..=57), None), (vec![key(57)], 0));
        assert_eq!(tape.single(key(70), 2), Ok(1), "what was traded since the list is not known");
    }

    #[test]
    fn the_list_is_asked_for_when_something_was_traded() {
        let mut tape = Tape::default();
        assert!(!tape.asks(0) && !tape.asks(COMPARE_AFTER_MS * 2));
        tape.single(key(1), 1).unwrap();
        assert!(tape.asks(COMPARE_AFTER_MS * 2) && !tape.asks(COMPARE_AFTER_MS * 9));
        for n in 2..=30 {
            tape.single(key(n), 1).unwrap();
        }
        assert!(!tape.asks(COMPARE_AFTER_MS * 2 + COMPARE_PAUSE_MS));
        tape.single(key(31), 1).unwrap();
        assert!(!tape.asks(COMPARE_AFTER_MS * 2 + COMPARE_PAUSE_MS - 1));
        assert!(tape.asks(COMPARE_AFTER_MS * 2 + COMPARE_PAUSE_MS));
    }

    proptest! {
        /// Whatever is lost inside a connection: what is told comes in order, and the rest is counted.
        #[test]
        fn each_is_told_or_counted(steps in prop::collection::vec(0u8..9, 1..300)) {
            let mut tape = Tape::default();
            tape.list(keys(1..=50), Some(1));
            let (mut last, mut told, mut missing) = (50i64, vec![50i64], 0);
            for (at, step) in steps.into_iter().chain([8, 0]).enumerate() {
                if step == 8 || at % 40 == 39 {
                    let (new, lost) = tape.list(keys(last - 49..=last), None);
                    told.extend(new.iter().map(|key| i64::try_from(key.id).unwrap()));
                    missing += lost;
                }
                if step == 8 {
                    continue;
                }
                last += 1;
                if step < 7 {
                    missing += tape.single(key(last), 1).unwrap();
                    told.push(last);
                }
            }
            prop_assert!(told.is_sorted_by(|a, b| a < b), "{told:?}");
            prop_assert_eq!(i64::try_from(missing).unwrap() + told.len() as i64, last - 49);
        }

        /// Over any sequence of trades, repetitions and reconnects: none twice, in order, and none missing unsaid.
        #[test]
        fn none_twice_and_none_missing_unsaid(steps in prop::collection::vec(0u8..12, 1..400)) {
            let mut tape = Tape::default();
            let (mut last, mut told, mut connection) = (60i64, Vec::new(), 1);
            tape.list(keys(11..=60), Some(1));
            let mut connected = true;
            for step in steps {
                match step {
                    0..=7 => {
                        last += 1;
                        if connected && let Ok(missing) = tape.single(key(last), connection) {
                            told.push((last, missing));
                        }
                    }
                    8 if connected => {
                        prop_assert!(tape.single(key(last), connection).is_err(), "a repetition");
                    }
                    9 if connected => {
                        tape.on_closed(connection);
                        connected = false;
                    }
                    10 if !connected => {
                        connection += 1;
                        connected = true;
                        let (new, missing) = tape.list(keys(last - 49..=last), Some(connection));
                        for (at, key) in new.iter().enumerate() {
                            told.push((i64::try_from(key.id).unwrap(), if at == 0 { missing } else { 0 }));
                        }
                    }
                    _ => last += i64::from(!connected) * 30,
                }
            }
            for pair in told.windows(2) {
                let step = pair[1].0 - pair[0].0;
                prop_assert!(step >= 1, "{pair:?}");
                prop_assert!(step == 1 || pair[1].1 > 0, "a hole that is not told: {pair:?}");
            }
        }
    }
}
