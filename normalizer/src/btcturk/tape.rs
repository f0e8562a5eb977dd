//! The trades of one pair: each of them told once, however often and over however many connections it comes.
//!
//! Ids are unique within a pair but not counted by ones, so a hole cannot be seen from them. What shows one is the list
//! of the last 50 trades (`421`) that comes with each join: when it holds nothing that was told before, trades between
//! may be missing.

use std::collections::{BTreeSet, VecDeque};

use crate::mapper::Reason;

/// How many trades are remembered: many times what a list holds.
const REMEMBERED: usize = 2_000;

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
    /// Told, or known from the first list, which tells of what was before us.
    seen: BTreeSet<Key>,
    /// The same in the order in which they came, to forget the oldest.
    order: VecDeque<Key>,
    /// What lies at or below it is not judged any more: it was before us, or is forgotten.
    floor: Option<Key>,
    /// Connections that trades come over.
    sources: BTreeSet<u32>,
    /// Trades may have been missed, until a list or the next trade settles it.
    unsure: bool,
}

impl Tape {
    /// Places a trade that came by itself; gives back how many are known to be missing before it, at least.
    pub(super) fn single(&mut self, key: Key, connection: u32) -> Result<u64, Reason> {
        self.sources.insert(connection);
        self.check(key)?;
        self.remember(key);
        Ok(u64::from(std::mem::take(&mut self.unsure)))
    }

    /// Places a list of trades; gives back which of them are to be told, in their order, and how many are known to be
    /// missing before the first of them, at least.
    pub(super) fn list(&mut self, mut keys: Vec<Key>, connection: u32) -> (Vec<Key>, u64) {
        self.sources.insert(connection);
        keys.sort_unstable();
        if self.floor.is_none() && self.seen.is_empty() {
            // The first list is about the time before us.
            self.floor = keys.last().copied();
            keys.into_iter().for_each(|key| self.remember(key));
            return (Vec::new(), 0);
        }
        let overlaps = keys.iter().any(|key| self.seen.contains(key));
        keys.retain(|&key| self.check(key).is_ok());
        keys.iter().for_each(|&key| self.remember(key));
        if keys.is_empty() {
            // Without anything new there is no hole; with nothing at all there is no telling.
            self.unsure &= !overlaps;
            return (keys, 0);
        }
        let missing = u64::from(std::mem::take(&mut self.unsure) && !overlaps);
        (keys, missing)
    }

    /// A connection ended; what comes next may not follow.
    pub(super) fn on_closed(&mut self, connection: u32) {
        if self.sources.remove(&connection) && self.sources.is_empty() {
            self.unsure = true;
        }
    }

    fn check(&self, key: Key) -> Result<(), Reason> {
        if self.seen.contains(&key) {
            return Err(Reason::Duplicate);
        }
        if self.floor.is_some_and(|floor| key <= floor) { Err(Reason::Stale) } else { Ok(()) }
    }

    fn remember(&mut self, key: Key) {
        if self.seen.insert(key) {
            self.order.push_back(key);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
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
        assert_eq!(tape.list(keys(1..=50), 1), (vec![], 0));
        assert_eq!(tape.single(key(51), 1), Ok(0));
        assert_eq!(tape.single(key(51), 1), Err(Reason::Duplicate));
        assert_eq!(tape.single(key(50), 1), Err(Reason::Duplicate));
        assert_eq!(tape.single(key(0), 1), Err(Reason::Stale), "from before us");
        tape.on_closed(1);
        assert_eq!(tape.list(keys(10..=59), 2), ((52..=59).map(key).collect(), 0));
        tape.on_closed(2);
        assert_eq!(tape.list(keys(100..=149), 3), ((100..=149).map(key).collect(), 1), "60 to 99 are gone");
        assert_eq!(tape.single(key(150), 3), Ok(0));
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
        tape.list(keys(1..=5), 1);
        tape.list(keys(1..=6), 2);
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

    proptest! {
        /// Over any sequence of trades, repetitions and reconnects: none twice, in order, and none missing unsaid.
        #[test]
        fn none_twice_and_none_missing_unsaid(steps in prop::collection::vec(0u8..12, 1..400)) {
            let mut tape = Tape::default();
            let (mut last, mut told, mut connection) = (60i64, Vec::new(), 1);
            tape.list(keys(11..=60), 1);
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
                        let (new, missing) = tape.list(keys(last - 49..=last), connection);
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
