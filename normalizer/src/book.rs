//! The two sides of a book by price, for venues that send absolute quantities.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use akis_model::{Decimal, Level};

use crate::ladder::Ladder;

/// How many levels of a side are shown.
pub(crate) const SHOWN_LEVELS: usize = 20;

/// How many levels of a side are kept: the most that a snapshot has anywhere. Those far from the best price are
/// the first to go, for they are never shown before many others have been sent anew.
const MAX_LEVELS: usize = 5_000;

/// How many more there may be before the worst of them go, which moves all others.
const MAX_MORE_LEVELS: usize = 1_000;

/// Quantities by price. No level has a quantity of zero.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Sides {
    bids: Ladder<Decimal, Decimal>,
    asks: Ladder<Reverse<Decimal>, Decimal>,
}

impl Sides {
    /// A book of these levels, in any order.
    pub(crate) fn new(bids: &[Level], asks: &[Level]) -> Self {
        let mut sides = Self {
            bids: side(bids.iter().map(|&Level(price, qty)| (price, qty))),
            asks: side(asks.iter().map(|&Level(price, qty)| (Reverse(price), qty))),
        };
        sides.keep_best(MAX_LEVELS);
        sides
    }

    /// Sets levels to their quantities; zero removes a level, also one that is not there.
    pub(crate) fn set(&mut self, bids: &[Level], asks: &[Level]) {
        bids.iter().for_each(|&Level(price, qty)| set(&mut self.bids, price, qty));
        asks.iter().for_each(|&Level(price, qty)| set(&mut self.asks, Reverse(price), qty));
        if self.bids.len().max(self.asks.len()) > MAX_LEVELS + MAX_MORE_LEVELS {
            self.keep_best(MAX_LEVELS);
        }
    }

    /// Forgets the levels of each side behind the best `most`, for venues that tell of no more.
    pub(crate) fn keep_best(&mut self, most: usize) {
        self.bids.keep_best(most);
        self.asks.keep_best(most);
    }

    /// Whether the best bid is not below the best ask.
    pub(crate) fn is_crossed(&self) -> bool {
        match (self.bids.best(), self.asks.best()) {
            (Some(bid), Some(Reverse(ask))) => bid >= ask,
            _ => false,
        }
    }

    /// Whether it might be crossed once these levels are set; when not, it surely is not.
    pub(crate) fn may_cross(&self, bids: &[Level], asks: &[Level]) -> bool {
        let bid = staying(bids).chain(self.bids.best()).max();
        let ask = staying(asks).chain(self.asks.best().map(|Reverse(ask)| ask)).min();
        bid.zip(ask).is_some_and(|(bid, ask)| bid >= ask)
    }

    /// The best bids, highest first.
    pub(crate) fn best_bids(&self) -> Vec<Level> {
        self.bids.iter().take(SHOWN_LEVELS).map(|(price, qty)| Level(price, qty)).collect()
    }

    /// The best asks, lowest first.
    pub(crate) fn best_asks(&self) -> Vec<Level> {
        self.asks.iter().take(SHOWN_LEVELS).map(|(Reverse(price), qty)| Level(price, qty)).collect()
    }
}

/// The prices of levels that are not removed.
fn staying(levels: &[Level]) -> impl Iterator<Item = Decimal> {
    levels.iter().filter(|level| !level.1.is_zero()).map(|level| level.0)
}

fn side<K: Ord + Copy>(levels: impl Iterator<Item = (K, Decimal)>) -> Ladder<K, Decimal> {
    let sorted: BTreeMap<K, Decimal> = levels.collect();
    sorted.into_iter().filter(|(_, qty)| !qty.is_zero()).collect()
}

fn set<K: Ord + Copy>(side: &mut Ladder<K, Decimal>, key: K, qty: Decimal) {
    match side.find(key) {
        Ok(at) if qty.is_zero() => side.remove(at),
        Ok(at) => *side.value_mut(at) = qty,
        Err(_) if qty.is_zero() => {}
        Err(at) => side.insert(at, key, qty),
    }
}
