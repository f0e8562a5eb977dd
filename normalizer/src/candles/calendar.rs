//! When candles begin and end.

/// A minute in milliseconds.
const MINUTE_MS: i64 = 60_000;

/// The lengths of candles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Interval {
    /// `1m`
    M1,
    /// `5m`
    M5,
    /// `15m`
    M15,
    /// `1h`
    H1,
    /// `4h`
    H4,
    /// `1d`
    D1,
}

impl Interval {
    /// Every one, the shortest first.
    pub(crate) const ALL: [Self; 6] = [Self::M1, Self::M5, Self::M15, Self::H1, Self::H4, Self::D1];

    /// Those that are rolled up from minutes.
    pub(crate) const LONGER: [Self; 5] = [Self::M5, Self::M15, Self::H1, Self::H4, Self::D1];

    /// The name in channels and payloads.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::M1 => "1m",
            Self::M5 => "5m",
            Self::M15 => "15m",
            Self::H1 => "1h",
            Self::H4 => "4h",
            Self::D1 => "1d",
        }
    }

    /// The length in milliseconds, where no calendar cuts it short.
    pub(crate) fn length_ms(self) -> i64 {
        MINUTE_MS
            * match self {
                Self::M1 => 1,
                Self::M5 => 5,
                Self::M15 => 15,
                Self::H1 => 60,
                Self::H4 => 240,
                Self::D1 => 1_440,
            }
    }
}

/// The time of a candle, milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// The first millisecond that belongs to it.
    pub(crate) open_time: i64,
    /// The first one that does not any more.
    pub(crate) end: i64,
}

impl Span {
    /// The last millisecond that belongs to it.
    pub(crate) fn close_time(self) -> i64 {
        self.end - 1
    }
}

/// Says which candle a moment belongs to. Spans of an interval do not overlap, and those of a shorter one never reach over
/// the end of a longer one.
pub(crate) trait Calendar {
    /// The candle of `interval` that `time_ms` belongs to; `None` when it belongs to none, because the market is closed.
    fn span(&self, interval: Interval, time_ms: i64) -> Option<Span>;
}

/// Candles that follow each other without a break, days beginning at midnight UTC.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Utc;

impl Calendar for Utc {
    fn span(&self, interval: Interval, time_ms: i64) -> Option<Span> {
        let length = interval.length_ms();
        let open_time = time_ms.checked_sub(time_ms.rem_euclid(length))?;
        Some(Span { open_time, end: open_time.checked_add(length)? })
    }
}
