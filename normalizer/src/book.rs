//! The two sides of a book by price, for venues that send absolute quantities.

use std::collections::BTreeMap;

use akis_model::{Decimal, Level};

/// How many levels of a side are shown.
pub(crate) const SHOWN_LEVELS: usize = 20;

/// How many levels of a side are kept: the most that a snapshot has anywhere. Those far from the best price are
/// the first to go, for they are never shown before many others have been sent anew.
const MAX_LEVELS: usize = 5_000;

/// Quantities by price. No level has a quantity of zero.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Sides {
    bids: BTreeMap<Decimal, Decimal>,
    asks: BTreeMap<Decimal, Decimal>,
}

impl Sides {
    /// A book of these levels, in any order.
    pub(crate) fn new(bids: &[Level], asks: &[Level]) -> Self {
        let mut sides = Self::default();
        sides.set(bids, asks);
        sides
    }

    /// Sets levels to their quantities; zero removes a level, also one that is not there.
    pub(crate) fn set(&mut self, bids: &[Level], asks: &[Level]) {
        set(&mut self.bids, bids);
        set(&mut self.asks, asks);
        self.keep_best(MAX_LEVELS);
    }

    /// Forgets the levels of each side behind the best `most`, for venues that tell of no more.
    pub(crate) fn keep_best(&mut self, most: usize) {
        while self.bids.len() > most {
            self.bids.pop_first();
        }
        while self.asks.len() > most {
            self.asks.pop_last();
        }
    }

    /// Whether the best bid is not below the best ask.
    pub(crate) fn is_crossed(&self) -> bool {
        match (self.bids.last_key_value(), self.asks.first_key_value()) {
            (Some((bid, _)), Some((ask, _))) => bid >= ask,
            _ => false,
        }
    }

    /// The best bids, highest first.
    pub(crate) fn best_bids(&self) -> Vec<Level> {
        self.bids.iter().rev().take(SHOWN_LEVELS).map(|(&price, &qty)| Level(price, qty)).collect()
    }

    /// The best asks, lowest first.
    pub(crate) fn best_asks(&self) -> Vec<Level> {
        self.asks.iter().take(SHOWN_LEVELS).map(|(&price, &qty)| Level(price, qty)).collect()
    }
}

fn set(side: &mut BTreeMap<Decimal, Decimal>, levels: &[Level]) {
    for &Level(price, qty) in levels {
        if qty.is_zero() {
            side.remove(&price);
        } else {
            side.insert(price, qty);
        }
    }
}
