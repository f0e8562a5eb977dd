//! The two sides of a book by price, for venues that send absolute quantities.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use akis_model::{Decimal, Level};

use crate::ladder::Ladder;

/// How many levels of a side are shown.
pub(crate) const SHOWN_LEVELS: usize = 20;

/// How many levels of a side are kept. Those far from the best price are the first to go.
const MAX_LEVELS: usize = 1_000;

/// How many more there may be before the worst of them go, which moves all others.
const MAX_MORE_LEVELS: usize = 24;

/// Quantities by price. No level has a quantity of zero.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Sides {
    bids: Side<Bid>,
    asks: Side<Ask>,
}

/// What levels are sorted by: the rank of the price, and where that is the same, the price. The larger, the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key<P> {
    rank: i64,
    price: P,
}

type Bid = Key<Decimal>;
type Ask = Key<Reverse<Decimal>>;

impl Bid {
    fn of(price: Decimal) -> Self {
        Self { rank: price.rank(), price }
    }
}

impl Ask {
    fn of(price: Decimal) -> Self {
        // Not `-`, of which the least number has none.
        Self { rank: !price.rank(), price: Reverse(price) }
    }

    fn price(self) -> Decimal {
        self.price.0
    }
}

/// One side of a book; the larger the key, the better.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Side<K> {
    levels: Ladder<K, Decimal>,
    /// The last level that is known to be followed by none that is not here. What lies behind it is not kept, for others that
    /// nobody has told of may lie between. `None`: all levels are here.
    known_to: Option<K>,
    /// How many levels there were in the beginning.
    first_count: usize,
}

impl Sides {
    /// A whole book of these levels, in any order.
    pub(crate) fn new(bids: &[Level], asks: &[Level]) -> Self {
        Self::best(bids, asks, usize::MAX)
    }

    /// The best levels of a book, in any order: the venue tells `most` of each side at most.
    pub(crate) fn best(bids: &[Level], asks: &[Level], most: usize) -> Self {
        Self {
            bids: Side::new(bids.iter().map(|&Level(price, qty)| (Bid::of(price), qty)), most),
            asks: Side::new(asks.iter().map(|&Level(price, qty)| (Ask::of(price), qty)), most),
        }
    }

    /// Sets levels to their quantities; zero removes a level, also one that is not there.
    pub(crate) fn set(&mut self, bids: &[Level], asks: &[Level]) {
        bids.iter().for_each(|&Level(price, qty)| self.bids.set(Bid::of(price), qty));
        asks.iter().for_each(|&Level(price, qty)| self.asks.set(Ask::of(price), qty));
    }

    /// Whether the levels that are shown are all there are above the worst of them.
    pub(crate) fn is_known(&self) -> bool {
        self.bids.knows(SHOWN_LEVELS) && self.asks.knows(SHOWN_LEVELS)
    }

    /// Whether that may no longer be so once these levels are set; when not, it surely will be.
    pub(crate) fn may_run_out(&self, bids: &[Level], asks: &[Level]) -> bool {
        !(self.bids.knows(SHOWN_LEVELS + bids.len()) && self.asks.knows(SHOWN_LEVELS + asks.len()))
    }

    /// Whether most of the levels that were known are gone, so that what is shown may soon not be known.
    pub(crate) fn runs_low(&self) -> bool {
        !(self.bids.knows(self.bids.first_count / 4) && self.asks.knows(self.asks.first_count / 4))
    }

    /// Forgets the levels of each side behind the best `most`, for venues that tell of no more.
    pub(crate) fn keep_best(&mut self, most: usize) {
        self.bids.levels.keep_best(most);
        self.asks.levels.keep_best(most);
    }

    /// Whether the best bid is not below the best ask.
    pub(crate) fn is_crossed(&self) -> bool {
        match (self.bids.levels.best(), self.asks.levels.best()) {
            (Some(bid), Some(ask)) => bid.price >= ask.price(),
            _ => false,
        }
    }

    /// Whether it might be crossed once these levels are set; when not, it surely is not.
    pub(crate) fn may_cross(&self, bids: &[Level], asks: &[Level]) -> bool {
        let bid = staying(bids).chain(self.bids.levels.best().map(|bid| bid.price)).max();
        let ask = staying(asks).chain(self.asks.levels.best().map(Ask::price)).min();
        bid.zip(ask).is_some_and(|(bid, ask)| bid >= ask)
    }

    /// The best bids, highest first.
    pub(crate) fn best_bids(&self) -> Vec<Level> {
        self.bids.levels.iter().take(SHOWN_LEVELS).map(|(bid, qty)| Level(bid.price, qty)).collect()
    }

    /// The best asks, lowest first.
    pub(crate) fn best_asks(&self) -> Vec<Level> {
        self.asks.levels.iter().take(SHOWN_LEVELS).map(|(ask, qty)| Level(ask.price(), qty)).collect()
    }
}

/// The prices of levels that are not removed.
fn staying(levels: &[Level]) -> impl Iterator<Item = Decimal> {
    levels.iter().filter(|level| !level.1.is_zero()).map(|level| level.0)
}

impl<K> Default for Side<K> {
    fn default() -> Self {
        Self { levels: Ladder::default(), known_to: None, first_count: 0 }
    }
}

impl<K: Ord + Copy> Side<K> {
    fn new(levels: impl Iterator<Item = (K, Decimal)>, most: usize) -> Self {
        let sorted: BTreeMap<K, Decimal> = levels.filter(|(_, qty)| !qty.is_zero()).collect();
        let first_count = sorted.len();
        let levels: Ladder<K, Decimal> = sorted.into_iter().collect();
        let known_to = levels.worst().filter(|_| first_count >= most);
        let mut side = Self { levels, known_to, first_count };
        side.forget_worst();
        side
    }

    fn set(&mut self, key: K, qty: Decimal) {
        if self.known_to.is_some_and(|last| key < last) {
            return;
        }
        match self.levels.find(key) {
            Ok(at) if qty.is_zero() => self.levels.remove(at),
            Ok(at) => *self.levels.value_mut(at) = qty,
            Err(_) if qty.is_zero() => {}
            Err(at) => {
                self.levels.insert(at, key, qty);
                self.forget_worst();
            }
        }
    }

    /// Forgets the worst levels when there are too many.
    fn forget_worst(&mut self) {
        if self.levels.len() > MAX_LEVELS + MAX_MORE_LEVELS {
            self.levels.keep_best(MAX_LEVELS);
            self.known_to = self.levels.worst();
        }
    }

    /// Whether the best `count` levels are known, or all when there are fewer.
    fn knows(&self, count: usize) -> bool {
        self.known_to.is_none() || self.levels.len() >= count
    }
}
