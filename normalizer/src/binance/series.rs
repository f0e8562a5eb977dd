//! Series that can be repeated, or have holes, where connections change over: trades and candles.

/// An id further from the last one than this is not believed until the next one confirms it: a single bad frame
/// would otherwise silence the series, or tear a hole that nobody can fill.
const FAR: u64 = 10_000_000;

/// Which series of trades a symbol is fed from. Never both, for they tell of the same trades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tape {
    /// `aggTrade`, numbered by `a`.
    Aggregate,
    /// `trade`, numbered by `t`.
    Single,
}

/// What an id means for its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// New; this many are missing right before it.
    Next {
        /// 0 when it follows the last one.
        missing: u64,
    },
    /// It was there before.
    Repeated,
    /// Too far away to be true.
    Far,
}

/// A series of ids that rise by 1.
#[derive(Debug, Default)]
pub(super) struct Ids {
    last: Option<u64>,
    far: Option<u64>,
}

impl Ids {
    /// Finds the place of `id` and takes note of it.
    pub(super) fn place(&mut self, id: u64) -> Place {
        let Some(last) = self.last else {
            self.last = Some(id);
            return Place::Next { missing: 0 };
        };
        if id.abs_diff(last) > FAR {
            if self.far.replace(id).and_then(|far| far.checked_add(1)) != Some(id) {
                return Place::Far;
            }
            // Another series has begun; what lies between cannot be counted.
            (self.last, self.far) = (Some(id), None);
            return Place::Next { missing: 0 };
        }
        if id <= last {
            return Place::Repeated;
        }
        (self.last, self.far) = (Some(id), None);
        Place::Next { missing: id - last - 1 }
    }
}

/// How far the candles of one interval have come.
#[derive(Debug, Default)]
pub(super) struct Candles {
    last: Option<CandleEnd>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct CandleEnd {
    open_time: i64,
    closed: bool,
    event_time: i64,
}

impl Candles {
    /// Whether a candle in this state does not go back behind what was seen. Takes note of it when so.
    pub(super) fn advance(&mut self, open_time: i64, closed: bool, event_time: i64) -> bool {
        let end = CandleEnd { open_time, closed, event_time };
        let goes_on = match &self.last {
            // A closed candle changes no more.
            Some(last) if last.closed && last.open_time == open_time => false,
            Some(last) => *last <= end,
            None => true,
        };
        if goes_on {
            self.last = Some(end);
        }
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_placed() {
        let mut ids = Ids::default();
        for (id, place) in [
            (5, Place::Next { missing: 0 }),
            (6, Place::Next { missing: 0 }),
            (6, Place::Repeated),
            (4, Place::Repeated),
            (10, Place::Next { missing: 3 }),
            (u64::MAX, Place::Far),
            (11, Place::Next { missing: 0 }),
            (u64::MAX, Place::Far),
            (50_000_000, Place::Far),
            (50_000_001, Place::Next { missing: 0 }),
            (50_000_002, Place::Next { missing: 0 }),
        ] {
            assert_eq!(ids.place(id), place, "{id}");
        }
    }

    #[test]
    fn candles_do_not_go_back() {
        let mut candles = Candles::default();
        for (open_time, closed, event_time, goes_on) in [
            (60, false, 61, true),
            (60, false, 62, true),
            (60, false, 62, true),
            (60, false, 61, false),
            (60, true, 120, true),
            (60, false, 119, false),
            (60, true, 120, false),
            (120, false, 121, true),
            (60, true, 122, false),
        ] {
            assert_eq!(candles.advance(open_time, closed, event_time), goes_on, "{open_time} {closed} {event_time}");
        }
    }
}
