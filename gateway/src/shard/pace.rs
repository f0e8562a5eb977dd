//! How long a shard gathers what a busy connection is sent.
//!
//! A write costs far more than an envelope in it. As the shard nears what its core can do, the time grows step by step: fewer writes, each
//! with more in it. It comes back when there is room again.

use std::time::{Duration, Instant};

/// How long the load is watched before the time changes.
const WINDOW: Duration = Duration::from_millis(200);

/// The part of a window that is spent at work, in percent, above which the time grows and below which it shrinks.
const BUSY: u32 = 85;
const CALM: u32 = 60;

/// The coalescing time of one shard.
#[derive(Debug)]
pub(super) struct Pace {
    least: Duration,
    most: Duration,
    current: Duration,
    window_began: Instant,
    worked: Duration,
}

impl Pace {
    /// Begins with `least`. Zero turns coalescing off, whatever the load.
    pub(super) fn new(least: Duration, most: Duration, now: Instant) -> Self {
        Self { least, most: most.max(least), current: least, window_began: now, worked: Duration::ZERO }
    }

    /// The time as it is now.
    pub(super) fn current(&self) -> Duration {
        self.current
    }

    /// The moment at which a connection that was written at `written_at` may be written again; `None` when that is now.
    pub(super) fn writes_at(&self, written_at: Option<Instant>, now: Instant) -> Option<Instant> {
        written_at.map(|at| at + self.current).filter(|at| *at > now)
    }

    /// Takes note of a turn of work. Gives the time when it has changed.
    pub(super) fn worked(&mut self, from: Instant, to: Instant) -> Option<Duration> {
        self.worked += to.duration_since(from);
        let window = to.duration_since(self.window_began);
        if window < WINDOW {
            return None;
        }
        let before = self.current;
        let step = self.least.max(Duration::from_millis(1));
        if self.worked * 100 >= window * BUSY && !self.least.is_zero() {
            self.current = (before + step).min(self.most);
        } else if self.worked * 100 < window * CALM {
            self.current = before.saturating_sub(step).max(self.least);
        }
        self.window_began = to;
        self.worked = Duration::ZERO;
        (self.current != before).then_some(self.current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Works so many percent of ten windows.
    fn run(pace: &mut Pace, now: &mut Instant, percent: u32) -> Duration {
        for _ in 0..10 {
            let from = *now + WINDOW * (100 - percent) / 100;
            *now += WINDOW;
            pace.worked(from, *now);
        }
        pace.current()
    }

    #[test]
    fn the_time_grows_at_the_limit_and_comes_back() {
        let mut now = Instant::now();
        let mut pace = Pace::new(5 * MS, 40 * MS, now);
        assert_eq!(run(&mut pace, &mut now, 70), 5 * MS);
        assert_eq!(run(&mut pace, &mut now, 95), 40 * MS);
        assert_eq!(run(&mut pace, &mut now, 70), 40 * MS, "between the two marks it stays");
        assert_eq!(run(&mut pace, &mut now, 10), 5 * MS);
    }

    #[test]
    fn a_quiet_connection_is_written_at_once_and_a_busy_one_gathers() {
        let start = Instant::now();
        let mut pace = Pace::new(5 * MS, 40 * MS, start);
        assert_eq!(pace.writes_at(None, start), None, "nothing was written yet");
        assert_eq!(pace.writes_at(Some(start), start + MS), Some(start + 5 * MS));
        assert_eq!(pace.writes_at(Some(start), start + 5 * MS), None, "the time is over");
        let mut now = start;
        run(&mut pace, &mut now, 100);
        assert_eq!(pace.writes_at(Some(now), now), Some(now + 40 * MS), "a busy core gathers for longer");
        assert_eq!(Pace::new(Duration::ZERO, 40 * MS, start).writes_at(Some(start), start), None);
    }

    #[test]
    fn zero_stays_zero() {
        let mut now = Instant::now();
        let mut pace = Pace::new(Duration::ZERO, 40 * MS, now);
        assert_eq!(run(&mut pace, &mut now, 100), Duration::ZERO);
    }
}
