//! Whether a session is still being replayed, which one that is joined late is from its first message on.
//!
//! Its trades are told all the same: what the log has of them the publisher knows. But states, books and prices of this
//! morning are nobody's news, and closed candles belong to the past.

use crate::mapper::{History, Output};
use crate::update::Payload;

/// A session whose clock is further behind than this is replayed.
const BEHIND_MS: i64 = 10_000;

/// A clock that is further behind is not that of this day: of a stand-in, which plays another one.
const OTHER_DAY_MS: i64 = 24 * 3_600_000;

/// The venue's clock is compared with this machine's after so long: in a replay it runs more than twice as fast. Where it
/// does not, one of the two is wrong, or there is nothing to wait for.
const LOOK_MS: i64 = 2_000;

/// What takes longer is told as it goes.
const LONGEST_MS: i64 = 120_000;

/// Where a session is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum CatchUp {
    /// No second has come yet.
    #[default]
    Unknown,
    /// Replayed since `began`, by this machine's clock; at the moment `looked_at` the venue's clock was `lag` behind it.
    Behind { began: i64, looked_at: i64, lag: i64 },
    /// What comes is of now.
    Done,
}

impl CatchUp {
    /// Takes the venue's clock, which was read at `received_at`; both milliseconds since the epoch.
    pub(super) fn on_second(&mut self, venue_ms: i64, received_at: i64) {
        let now_lag = received_at.saturating_sub(venue_ms);
        let is_behind = (BEHIND_MS..OTHER_DAY_MS).contains(&now_lag);
        *self = match *self {
            Self::Unknown if is_behind => Self::Behind { began: received_at, looked_at: received_at, lag: now_lag },
            Self::Behind { began, looked_at, lag } if is_behind && received_at.saturating_sub(began) < LONGEST_MS => {
                let passed = received_at.saturating_sub(looked_at);
                if passed < LOOK_MS {
                    return;
                }
                if lag - now_lag > passed {
                    Self::Behind { began, looked_at: received_at, lag: now_lag }
                } else {
                    Self::Done
                }
            }
            Self::Unknown | Self::Behind { .. } | Self::Done => Self::Done,
        };
    }

    /// Takes note of the time, for a replay may break off.
    pub(super) fn on_tick(&mut self, now_ms: i64) {
        if let Self::Behind { began, .. } = *self
            && now_ms.saturating_sub(began) >= LONGEST_MS
        {
            self.end();
        }
    }

    /// Nothing more waits to be read.
    pub(super) fn end(&mut self) {
        *self = Self::Done;
    }

    pub(super) fn is_behind(self) -> bool {
        matches!(self, Self::Behind { .. })
    }
}

/// Leaves of the updates from the one at `from` on what is told of the past: trades and what is not known. Candles that are
/// closed are history.
pub(super) fn hold_back(from: usize, out: &mut Output) {
    for update in out.updates.split_off(from.min(out.updates.len())) {
        match update.payload {
            Payload::Trade(_) | Payload::Status(_) | Payload::Stale(_) => out.updates.push(update),
            Payload::Candle(candle) if candle.closed => {
                out.history.push(History { channel: update.channel, candles: vec![candle] });
            }
            Payload::Candle(_)
            | Payload::PriceTick(_)
            | Payload::Auction(_)
            | Payload::Book(_)
            | Payload::Market(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it is behind after each of these seconds, read so many milliseconds after the first.
    fn behind(seconds: &[(i64, i64)]) -> Vec<bool> {
        let mut catch_up = CatchUp::default();
        let states = seconds.iter().map(|&(second, received_at)| {
            catch_up.on_second(second * 1_000, 1_000_000_000 + received_at);
            catch_up.is_behind()
        });
        states.collect()
    }

    #[test]
    fn a_replay_is_one_until_its_clock_has_come_near_ours() {
        let now = 1_000_000;
        assert_eq!(behind(&[(now, 0), (now - 60, 1)]), [false, false], "it was never behind");
        assert_eq!(
            behind(&[
                (now - 9_000, 0),
                (now - 5_000, 1_900),
                (now - 1_000, 4_000),
                (now - 5, 4_500),
                (now - 90, 4_600)
            ]),
            [true, true, true, false, false]
        );
    }

    #[test]
    fn a_clock_that_does_not_run_faster_than_ours_waits_for_nothing() {
        let now = 1_000_000;
        assert_eq!(
            behind(&[(now - 60, 0), (now - 59, 1_000), (now - 58, 2_000)]),
            [true, true, false],
            "ours is wrong"
        );
        assert_eq!(behind(&[(now - 90_000, 0)]), [false], "another day is played");
        let slow: Vec<(i64, i64)> = (0..62).map(|n| (now - 9_000 + n * 6, n * 2_000)).collect();
        assert_eq!(behind(&slow).iter().filter(|behind| **behind).count(), 60, "two minutes at most");
    }
}
