//! Candles can be repeated where connections change over: they never go back.

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
