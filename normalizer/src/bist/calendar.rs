//! The trading hours of the venue, as far as candles need them: when a day's last trade is over.
//!
//! Istanbul is at UTC+3 all year. A session lies inside one day of UTC (from 04:30 at the earliest), so candles begin where they
//! do at the other venues, at whole multiples of their length in UTC, and those of equities end when the session does.

use std::sync::Arc;

use akis_connectors::bist::HalfDays;

use crate::candles::{Calendar, Interval, Span, Utc};

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

/// Istanbul is ahead of UTC by so much.
const OFFSET_MS: i64 = 180 * MINUTE_MS;

/// Trades at the closing price end at 18:10 in Istanbul.
/// Source: Borsa Istanbul, hours of the equity market ("Pay Piyasası İşleyişi").
const LAST_TRADE_MS: i64 = (18 * 60 + 10) * MINUTE_MS;

/// What is matched in the last moment may be told a little later.
const GRACE_MS: i64 = 5 * MINUTE_MS;

/// When an instrument trades.
#[derive(Debug, Clone)]
pub(super) enum Hours {
    /// As the equity market does.
    Equities(Arc<HalfDays>),
    /// At other hours, some of them in the evening.
    Other,
}

/// The day of a moment: a session lies inside one of UTC.
pub(super) fn day(time_ms: i64) -> i64 {
    time_ms.div_euclid(DAY_MS)
}

impl Calendar for Hours {
    fn span(&self, interval: Interval, time_ms: i64) -> Option<Span> {
        let span = Utc.span(interval, time_ms)?;
        let Self::Equities(half_days) = self else { return Some(span) };
        let day = day(time_ms);
        let last_trade = half_days.get(&day).copied().unwrap_or(LAST_TRADE_MS);
        let end = day.checked_mul(DAY_MS)?.checked_add(last_trade - OFFSET_MS + GRACE_MS)?;
        // What should be traded later all the same has candles of its own.
        if time_ms < end {
            Some(Span { end: span.end.min(end), ..span })
        } else {
            Some(Span { open_time: span.open_time.max(end), ..span })
        }
    }
}

#[cfg(test)]
mod tests {
    use akis_connectors::bist::half_days;
    use proptest::prelude::*;

    use super::*;

    /// 2026-10-28 10:00 in Istanbul.
    const MORNING: i64 = 1_793_170_800_000;

    fn equities() -> Hours {
        Hours::Equities(Arc::new(half_days("2026-10-28T12:40,2024-02-29T12:30").unwrap()))
    }

    fn day_end(hours: &Hours, ts: i64) -> i64 {
        hours.span(Interval::D1, ts).unwrap().end
    }

    #[test]
    fn half_days_end_early_and_others_do_not() {
        let grace = GRACE_MS;
        assert_eq!(day_end(&equities(), MORNING), MORNING + 160 * MINUTE_MS + grace);
        assert_eq!(day_end(&equities(), MORNING + DAY_MS), MORNING + DAY_MS + 490 * MINUTE_MS + grace);
        let leap_day = 1_709_190_000_000; // 2024-02-29 10:00 in Istanbul
        assert_eq!(day_end(&equities(), leap_day), leap_day + 150 * MINUTE_MS + grace);
        assert_eq!(day_end(&Hours::Other, MORNING), MORNING + 17 * 60 * MINUTE_MS, "midnight in UTC");
    }

    proptest! {
        #[test]
        fn spans_hold_their_moment_and_shorter_ones_lie_in_longer_ones(at in 0..4 * DAY_MS) {
            let ts = MORNING - DAY_MS + at;
            for hours in [equities(), Hours::Other] {
                let spans = Interval::ALL.map(|interval| hours.span(interval, ts).unwrap());
                for span in spans {
                    prop_assert!((span.open_time..span.end).contains(&ts));
                }
                for pair in spans.windows(2) {
                    prop_assert!(pair[1].open_time <= pair[0].open_time && pair[0].end <= pair[1].end);
                }
            }
        }
    }
}
