//! A limit book in ticks and lots.

use std::collections::BTreeMap;

/// A side of the book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Who wants to buy.
    Bid,
    /// Who wants to sell.
    Ask,
}

impl Side {
    pub(super) const BOTH: [Self; 2] = [Self::Bid, Self::Ask];

    /// The tick that lies `distance` behind `tick`, seen from the other side.
    pub(super) fn behind(self, tick: i64, distance: i64) -> i64 {
        match self {
            Self::Bid => tick - distance,
            Self::Ask => tick + distance,
        }
    }

    /// Orders ticks best first. It is its own inverse.
    pub(super) fn rank(self, tick: i64) -> i64 {
        match self {
            Self::Bid => -tick,
            Self::Ask => tick,
        }
    }
}

/// A value for each of the sides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sides<T> {
    bid: T,
    ask: T,
}

impl<T> Sides<T> {
    pub(super) fn of(&self, side: Side) -> &T {
        match side {
            Side::Bid => &self.bid,
            Side::Ask => &self.ask,
        }
    }

    pub(super) fn of_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::Bid => &mut self.bid,
            Side::Ask => &mut self.ask,
        }
    }
}

/// A price and what lies there: ticks and lots.
pub(super) type Level = (i64, i64);

/// All orders, added up by price. No level is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Book {
    /// Lots by [`Side::rank`], so that both sides begin with their best.
    sides: Sides<BTreeMap<i64, i64>>,
}

impl Book {
    /// The levels of a side, best first.
    pub(super) fn levels(&self, side: Side) -> impl Iterator<Item = Level> {
        self.sides.of(side).iter().map(move |(&rank, &lots)| (side.rank(rank), lots))
    }

    pub(super) fn best(&self, side: Side) -> Option<Level> {
        self.levels(side).next()
    }

    /// The level at this tick or the next one behind it.
    pub(super) fn at_or_behind(&self, side: Side, tick: i64) -> Option<Level> {
        let (&rank, &lots) = self.sides.of(side).range(side.rank(tick)..).next()?;
        Some((side.rank(rank), lots))
    }

    pub(super) fn worst(&self, side: Side) -> Option<Level> {
        let (&rank, &lots) = self.sides.of(side).last_key_value()?;
        Some((side.rank(rank), lots))
    }

    pub(super) fn depth(&self, side: Side) -> usize {
        self.sides.of(side).len()
    }

    /// What lies at this tick.
    pub(super) fn lots(&self, side: Side, tick: i64) -> i64 {
        self.sides.of(side).get(&side.rank(tick)).copied().unwrap_or(0)
    }

    /// Sets a level, or removes it when nothing is left, and returns what was there.
    pub(super) fn set(&mut self, side: Side, tick: i64, lots: i64) -> i64 {
        let levels = self.sides.of_mut(side);
        let before = if lots > 0 { levels.insert(side.rank(tick), lots) } else { levels.remove(&side.rank(tick)) };
        before.unwrap_or(0)
    }
}
