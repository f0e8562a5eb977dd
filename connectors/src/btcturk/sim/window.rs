//! The best levels of a book, and what is told of their changes.

/// A price and what lies there: ticks and lots.
pub(super) type Level = (i64, i64);

/// How many levels of a side the venue tells of.
pub(super) const LEVELS: usize = 100;

/// The best levels of both sides, best first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) bids: Vec<Level>,
    pub(super) asks: Vec<Level>,
}

/// What `CP` says of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Amount = 0,
    New = 1,
    Deleted = 3,
}

/// Changes of both sides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) bids: Vec<(Change, Level)>,
    pub(super) asks: Vec<(Change, Level)>,
}

impl Difference {
    /// What leads from one window to the other. A level that was pushed out is a deleted one, with the amount that it
    /// still has.
    pub(super) fn between(before: &Window, after: &Window) -> Self {
        Self { bids: side(&before.bids, &after.bids), asks: side(&before.asks, &after.asks) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bids.is_empty() && self.asks.is_empty()
    }
}

fn side(before: &[Level], after: &[Level]) -> Vec<(Change, Level)> {
    let find = |levels: &[Level], tick| levels.iter().find(|level| level.0 == tick).map(|level| level.1);
    let changed = after.iter().filter_map(|&(tick, lots)| match find(before, tick) {
        None => Some((Change::New, (tick, lots))),
        Some(was) if was != lots => Some((Change::Amount, (tick, lots))),
        Some(_) => None,
    });
    let gone = before.iter().filter(|level| find(after, level.0).is_none()).map(|&level| (Change::Deleted, level));
    changed.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_enters_pushes_one_out() {
        let before = Window { bids: (0..100).map(|n| (1_000 - n, 5)).collect(), asks: vec![(1_002, 1)] };
        let mut after = before.clone();
        after.bids.insert(0, (1_001, 7));
        after.bids.truncate(LEVELS);
        after.asks[0].1 = 2;
        let difference = Difference::between(&before, &after);
        assert_eq!(difference.bids, [(Change::New, (1_001, 7)), (Change::Deleted, (901, 5))]);
        assert_eq!(difference.asks, [(Change::Amount, (1_002, 2))]);
        assert!(Difference::between(&after, &after).is_empty());
    }
}
