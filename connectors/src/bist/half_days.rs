//! The days on which the equity market ends early, as the configuration has them: the feed tells nothing of them.

use std::collections::BTreeMap;

/// By day since the epoch: when the last trades are over, milliseconds since midnight in Istanbul.
pub type HalfDays = BTreeMap<i64, i64>;

const MINUTE_MS: i64 = 60_000;

/// Reads days such as `2026-10-28T12:40`, separated by commas: the day, and when its last trades are over in Istanbul.
/// An empty text is no day.
///
/// # Errors
///
/// What is no such day.
pub fn half_days(text: &str) -> Result<HalfDays, String> {
    let days = text.split(',').map(str::trim).filter(|day| !day.is_empty());
    days.map(|day| half_day(day).ok_or_else(|| format!("half_days: {day:?} is no day like 2026-10-28T12:40"))).collect()
}

fn half_day(text: &str) -> Option<(i64, i64)> {
    let (date, time) = text.split_once('T')?;
    let mut date = date.splitn(3, '-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (hour, minute) = time.split_once(':')?;
    let (hour, minute) = (number(hour)?, number(minute)?);
    let is_date = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    // A day of Istanbul before six in the morning would partly be the day before in UTC, and nobody trades then.
    let is_time = (6..24).contains(&hour) && (0..60).contains(&minute);
    (is_date && is_time).then(|| (days_since_epoch(year, month, day), (hour * 60 + minute) * MINUTE_MS))
}

fn number(digits: &str) -> Option<i64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
/// Source: Howard Hinnant, `days_from_civil`, <https://howardhinnant.github.io/date_algorithms.html>.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_and_nonsense_is_named() {
        let days = half_days("2026-10-28T12:40, 2024-02-29T12:30").unwrap();
        assert_eq!(days, [(20_754, 760 * MINUTE_MS), (19_782, 750 * MINUTE_MS)].into());
        assert_eq!(half_days("").unwrap(), HalfDays::new());
        for wrong in
            ["2026-10-28", "2026-13-01T12:00", "2026-10-28T1240", "2026-10-28T25:00", "x-1-1T12:00", "-1-1-1T12:00"]
        {
            assert!(half_days(wrong).unwrap_err().contains(wrong), "{wrong}");
        }
    }
}
