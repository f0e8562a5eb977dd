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

/// Sessions begin before this in Istanbul, with the reference data of the day; orders are collected from 09:40 on.
const DUE_MS: i64 = (9 * 60 + 30) * MINUTE_MS;

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

/// When the next session has to be there, after one has ended at `ended_at`; both milliseconds since the epoch. While the
/// equity market is open that is at once, for the exchange has begun anew; else it is the next weekday: holidays are not known.
pub(super) fn due_after(ended_at: i64, half_days: &HalfDays) -> i64 {
    // 1970-01-01 was a Thursday.
    let is_weekday = |day: &i64| (day + 3).rem_euclid(7) < 5;
    let due_on = |day: i64| day.saturating_mul(DAY_MS).saturating_add(DUE_MS - OFFSET_MS);
    let today = ended_at.saturating_add(OFFSET_MS).div_euclid(DAY_MS);
    let open_ms = half_days.get(&today).copied().unwrap_or(LAST_TRADE_MS) - DUE_MS;
    if is_weekday(&today) && (due_on(today)..due_on(today).saturating_add(open_ms)).contains(&ended_at) {
        return ended_at;
    }
    let next = (today..today.saturating_add(7)).filter(is_weekday).map(due_on).find(|&due| due > ended_at);
    next.unwrap_or(ended_at)
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

    #[test]
    fn a_session_that_has_ended_is_followed_by_one_on_the_next_weekday() {
        let half_days = half_days("2026-10-28T12:40").unwrap();
        // Wednesday, and a half day; in minutes before and after 10:00.
        let due = |minutes: i64| (due_after(MORNING + minutes * MINUTE_MS, &half_days) - MORNING) / MINUTE_MS;
        let day = 24 * 60;
        assert_eq!(due(160), day - 30, "12:40");
        assert_eq!(due(159), 159, "the exchange begins anew");
        assert_eq!(due(-31), -30, "09:29");
        assert_eq!(due(day + 489), day + 489);
        assert_eq!(due(day + 600), 2 * day - 30, "Thursday 20:00");
        assert_eq!(due(day + 850), 2 * day - 30, "Friday 00:10, which is Thursday in UTC");
        for friday_and_later in [2 * day + 500, 3 * day, 4 * day + 300] {
            assert_eq!(due(friday_and_later), 5 * day - 30, "Monday");
        }
        assert_eq!(due_after(i64::MAX, &half_days), i64::MAX);
        assert_eq!(due_after(i64::MIN, &half_days).signum(), -1);
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
