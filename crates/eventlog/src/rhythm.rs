//! Whether a channel that speaks regularly has fallen silent.
//!
//! A venue that is down says so itself (`channel_status`), and a log that is away is told as `upstream`. What is left is a
//! channel that just does not reach this replica any more, because nobody publishes it. How often a channel speaks
//! differs by orders of magnitude between symbols, so each is judged by its own pauses.

use std::time::Duration;

use akis_model::{Channel, Kind};
use tokio::time::Instant;

/// A shorter silence is not worth a word, however lively the channel was: a normalizer that takes over needs some seconds.
const LEAST: Duration = Duration::from_secs(15);

/// How many times longer than the longest pause lately a silence has to be.
const FACTOR: u32 = 4;

/// A rhythm is known when it has been listened to for so long. Pauses are remembered for one to two of these.
const WINDOW: Duration = Duration::from_secs(60);

/// The pauses of one channel. Those between events are measured by the log's clock, because events come in batches and late
/// after a fault; the silence since the last one by the clock here.
#[derive(Debug, Default)]
pub(crate) struct Rhythm {
    heard_at: Option<Instant>,
    heard_ms: u64,
    window_began_ms: u64,
    longest: Duration,
    /// The longest pause of the window before; `None` while the rhythm is not known.
    longest_before: Option<Duration>,
    is_silent: bool,
}

impl Rhythm {
    /// A rhythm to listen to, for channels that should speak: a market's prices, where the newest event stands for the
    /// present. Trades and sessions may rest for as long as they like.
    pub(crate) fn of(channel: &Channel) -> Option<Self> {
        let speaks = match channel.kind() {
            Kind::Ticker | Kind::Book | Kind::Candles => channel.is_venue(),
            Kind::Trades | Kind::Session | Kind::App => false,
        };
        speaks.then(Self::default)
    }

    /// Takes note of an event, `log_ms` by the log's clock. Gives whether it ends a silence that was told.
    pub(crate) fn heard(&mut self, log_ms: u64, now: Instant) -> bool {
        let was_silent = std::mem::take(&mut self.is_silent);
        if self.heard_at.replace(now).is_none() {
            self.window_began_ms = log_ms;
        } else if !was_silent {
            self.longest = self.longest.max(Duration::from_millis(log_ms.saturating_sub(self.heard_ms)));
        }
        self.heard_ms = log_ms;
        if log_ms.saturating_sub(self.window_began_ms) >= WINDOW.as_millis() as u64 {
            self.longest_before = Some(std::mem::take(&mut self.longest));
            self.window_began_ms = log_ms;
        }
        was_silent
    }

    /// How long the channel has been silent, when that is too long and has not been told.
    pub(crate) fn fell_silent(&mut self, now: Instant) -> Option<Duration> {
        let usual = self.longest_before?.max(self.longest);
        let silence = now.duration_since(self.heard_at?);
        if self.is_silent || silence < LEAST.max(FACTOR * usual) {
            return None;
        }
        self.is_silent = true;
        Some(silence)
    }

    /// The log could not be read: what lies before `now` is not the channel's silence.
    pub(crate) fn excuse(&mut self, now: Instant) {
        if !self.is_silent && self.heard_at.is_some() {
            self.heard_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A rhythm that has heard an event at each of these seconds.
    fn after(seconds: impl IntoIterator<Item = u64>, start: Instant) -> Rhythm {
        let mut rhythm = Rhythm::default();
        for second in seconds {
            assert!(!rhythm.heard(1000 * second, start + Duration::from_secs(second)));
        }
        rhythm
    }

    #[test]
    fn only_prices_of_venues_should_speak() {
        for (name, speaks) in [
            ("binance:BTCUSDT:ticker", true),
            ("binance:BTCUSDT:book", true),
            ("bist:THYAO:1m", true),
            ("bist:THYAO:session", false),
            ("binance:BTCUSDT:trades", false),
            ("job:1:ticker", false),
            ("job:1", false),
        ] {
            assert_eq!(Rhythm::of(&Channel::parse(name).unwrap()).is_some(), speaks, "{name}");
        }
    }

    #[test]
    fn a_silence_is_told_once_and_so_is_its_end() {
        let start = Instant::now();
        let mut rhythm = after(0..=60, start);
        assert_eq!(rhythm.fell_silent(start + 74 * SECOND), None);
        assert_eq!(rhythm.fell_silent(start + 75 * SECOND), Some(15 * SECOND));
        assert_eq!(rhythm.fell_silent(start + 90 * SECOND), None, "told");
        assert!(rhythm.heard(100_000, start + 100 * SECOND));
        assert!(!rhythm.heard(101_000, start + 101 * SECOND));
        assert_eq!(rhythm.fell_silent(start + 116 * SECOND), Some(15 * SECOND), "the silence itself is no pause");
    }

    #[test]
    fn a_quiet_channel_may_rest_as_long_as_it_does() {
        let start = Instant::now();
        let mut rhythm = after((0..=120).step_by(20), start);
        assert_eq!(rhythm.fell_silent(start + 199 * SECOND), None);
        assert_eq!(rhythm.fell_silent(start + 200 * SECOND), Some(80 * SECOND));
    }

    #[test]
    fn nothing_is_told_before_the_rhythm_is_known_or_of_a_log_that_was_away() {
        let start = Instant::now();
        assert_eq!(after(0..=59, start).fell_silent(start + 600 * SECOND), None);
        assert_eq!(after([], start).fell_silent(start + 600 * SECOND), None);
        let mut rhythm = after(0..=60, start);
        rhythm.excuse(start + 100 * SECOND);
        assert_eq!(rhythm.fell_silent(start + 114 * SECOND), None);
        assert!(rhythm.fell_silent(start + 115 * SECOND).is_some());
    }

    #[test]
    fn events_that_come_in_one_batch_keep_their_pauses() {
        let start = Instant::now();
        let mut rhythm = Rhythm::default();
        (0..=6).for_each(|n| _ = rhythm.heard(20_000 * n, start));
        assert_eq!(rhythm.fell_silent(start + 79 * SECOND), None);
        assert!(rhythm.fell_silent(start + 80 * SECOND).is_some());
    }
}
