//! The faults of a stand-in that wait for a frame, and those that last for a while.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

use super::client::{ClientId, Outgoing};

/// How many frames may be held back in all; further ones are lost.
const MOST_HELD: usize = 65_536;

/// Faults by what they are about: a symbol, or everything. `K` names what happens to a single frame.
#[derive(Debug)]
pub(crate) struct Pending<K> {
    once: HashSet<(K, String)>,
    /// Until when a symbol's frames (or everyone's) are lost.
    silent: HashMap<Option<String>, i64>,
    /// Until when they are held back.
    late: HashMap<Option<String>, i64>,
    /// Frames that are held back, with their symbol.
    held: VecDeque<(ClientId, String, Outgoing)>,
}

impl<K> Default for Pending<K> {
    fn default() -> Self {
        Self { once: HashSet::new(), silent: HashMap::new(), late: HashMap::new(), held: VecDeque::new() }
    }
}

impl<K: Eq + Hash> Pending<K> {
    /// Something happens once to a symbol.
    pub(crate) fn once(&mut self, what: K, symbol: String) {
        self.once.insert((what, symbol));
    }

    /// What is sent before `until` is lost.
    pub(crate) fn silence(&mut self, until: i64, symbol: Option<String>) {
        self.silent.insert(symbol, until);
    }

    /// What is sent before `until` is held back.
    pub(crate) fn delay(&mut self, until: i64, symbol: Option<String>) {
        self.late.insert(symbol, until);
    }

    /// Whether it is to happen to this symbol now; it is asked for once.
    pub(crate) fn take(&mut self, what: K, symbol: &str) -> bool {
        !self.once.is_empty() && self.once.remove(&(what, symbol.to_owned()))
    }

    /// Whether what is sent for the symbol at `now` is lost.
    pub(crate) fn is_silent(&self, symbol: &str, now: i64) -> bool {
        lasts(&self.silent, symbol, now)
    }

    /// Whether what is sent for the symbol at `now` is held back.
    pub(crate) fn is_late(&self, symbol: &str, now: i64) -> bool {
        lasts(&self.late, symbol, now)
    }

    /// Holds a frame back.
    pub(crate) fn hold(&mut self, id: ClientId, symbol: &str, outgoing: Outgoing) {
        if self.held.len() < MOST_HELD {
            self.held.push_back((id, symbol.to_owned(), outgoing));
        }
    }

    /// What was held back long enough, in order.
    pub(crate) fn release(&mut self, now: i64) -> Vec<(ClientId, Outgoing)> {
        let mut released = Vec::new();
        for (id, symbol, outgoing) in std::mem::take(&mut self.held) {
            if self.is_late(&symbol, now) {
                self.held.push_back((id, symbol, outgoing));
            } else {
                released.push((id, outgoing));
            }
        }
        released
    }
}

fn lasts(until: &HashMap<Option<String>, i64>, symbol: &str, now: i64) -> bool {
    !until.is_empty()
        && [None, Some(symbol.to_owned())].iter().any(|key| until.get(key).is_some_and(|&until| now < until))
}
