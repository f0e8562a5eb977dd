//! Durations and sizes as text: `"250ms"`, `"1h"`, `"64KiB"`.

use std::time::Duration;

/// Units of durations in milliseconds, largest first.
const TIMES: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Units of sizes in bytes, largest first.
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads a duration: one whole number with its unit, such as `250ms`, `20s`, `15m` or `1h`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    parse(text, &TIMES).map(Duration::from_millis)
}

/// Writes a duration with the largest unit that leaves it whole.
pub(super) fn render_duration(duration: Duration) -> String {
    render(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &TIMES)
}

/// Reads a size: one whole number with its unit.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    parse(text, &SIZES)
}

/// Writes a size with the largest unit that leaves it whole.
pub(super) fn render_size(bytes: usize) -> String {
    render(bytes as u64, &SIZES)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit.trim_start())?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn render(value: u64, units: &[(&str, u64)]) -> String {
    let smallest = units[units.len() - 1];
    let fits = |(_, factor): &&(&str, u64)| value != 0 && value.is_multiple_of(*factor);
    let (name, factor) = units.iter().find(fits).copied().unwrap_or(smallest);
    format!("{}{name}", value / factor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn examples() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("20 s"), Some(Duration::from_secs(20)));
        assert_eq!(parse_duration("1h"), Some(Duration::from_secs(3600)));
        assert_eq!(parse_size("64KiB"), Some(65_536));
        for bad in ["", "5", "s", "-5s", "1.5s", "5 sec", "5S", "99999999999999999999h", "9999999999999999999h"] {
            assert_eq!(parse_duration(bad), None, "{bad:?}");
        }
        for bad in ["64", "64kb", "64KB", "-1B", "KiB", "1.5MiB"] {
            assert_eq!(parse_size(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_rendered_reads_back(ms in 0..u64::from(u32::MAX), bytes in 0..usize::MAX) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&render_duration(duration)), Some(duration));
            prop_assert_eq!(parse_size(&render_size(bytes)), Some(bytes as u64));
        }
    }
}
