//! Whether a session is being replayed: one that is joined late is from its first message on, and one that was away from what it
//! missed.
//!
//! Its trades are told all the same: what the log has of them the publisher knows. But states, books and prices of this
//! morning are nobody's news, and closed candles belong to the past.

use crate::mapper::{History, Output};
use crate::update::Payload;

/// A session whose clock is further behind than this is replayed.
const BEHIND_MS: i64 = 10_000;

/// So is one that falls so much further behind from one second to the next: longer than packets are held for one that is missing.
const BREAK_MS: i64 = 60_000;

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
    /// Nobody takes a recording for what is now.
    Recorded,
}

impl CatchUp {
    /// Takes the venue's clock, which was read at `received_at`, both milliseconds since the epoch; `lag_before` is how far it was
    /// behind ours at its last second.
    pub(super) fn on_second(&mut self, venue_ms: i64, received_at: i64, lag_before: Option<i64>) {
        let now_lag = received_at.saturating_sub(venue_ms);
        let is_behind = (BEHIND_MS..OTHER_DAY_MS).contains(&now_lag);
        let begins = match *self {
            Self::Unknown => is_behind,
            Self::Done => is_behind && lag_before.is_some_and(|before| now_lag.saturating_sub(before) >= BREAK_MS),
            Self::Behind { began, looked_at, lag } => {
                let passed = received_at.saturating_sub(looked_at);
                if is_behind && received_at.saturating_sub(began) < LONGEST_MS {
                    if passed < LOOK_MS {
                        return;
                    }
                    if lag - now_lag > passed {
                        *self = Self::Behind { began, looked_at: received_at, lag: now_lag };
                        return;
                    }
                }
                false
            }
            Self::Recorded => return,
        };
        *self =
            if begins { Self::Behind { began: received_at, looked_at: received_at, lag: now_lag } } else { Self::Done };
    }

    /// Takes note of the time, for a replay may break off.
    pub(super) fn on_tick(&mut self, now_ms: i64) {
        if let Self::Behind { began, .. } = *self
            && now_ms.saturating_sub(began) >= LONGEST_MS
        {
            self.end();
        }
    }

    /// Takes note that this machine's clock was set.
    pub(super) fn on_clock_set(&mut self, by_ms: i64) {
        if let Self::Behind { began, looked_at, lag } = self {
            for moment in [began, looked_at, lag] {
                *moment = moment.saturating_add(by_ms);
            }
        }
    }

    /// Nothing more waits to be read.
    pub(super) fn end(&mut self) {
        if matches!(self, Self::Unknown | Self::Behind { .. }) {
            *self = Self::Done;
        }
    }

    /// Another session has begun, of which nothing is known yet.
    pub(super) fn begin(&mut self) {
        if *self != Self::Recorded {
            *self = Self::Unknown;
        }
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
        let (mut catch_up, mut lag_before) = (CatchUp::default(), None);
        let states = seconds.iter().map(|&(second, later_ms)| {
            let received_at = 1_000_000_000 + later_ms;
            catch_up.on_second(second * 1_000, received_at, lag_before);
            lag_before = Some(received_at - second * 1_000);
            catch_up.is_behind()
        });
        states.collect()
    }

    #[test]
    fn a_replay_is_one_until_its_clock_has_come_near_ours() {
        let now = 1_000_000;
        assert_eq!(behind(&[(now, 0), (now, 9_000)]), [false, false], "it was never behind");
        assert_eq!(
            behind(&[(now - 9_000, 0), (now - 5_000, 1_900), (now - 1_000, 4_000), (now - 5, 4_500), (now, 4_600)]),
            [true, true, true, false, false]
        );
    }

    #[test]
    fn who_falls_behind_at_once_gets_a_replay() {
        let now = 1_000_000;
        assert_eq!(
            behind(&[(now, 0), (now + 1, 3_600_000), (now + 1_800, 3_601_000), (now + 3_601, 3_601_500)]),
            [false, true, true, false],
            "away for an hour"
        );
        let slow: Vec<(i64, i64)> = (0..60).map(|n| (now + n, n * 3_000)).collect();
        assert!(behind(&slow).iter().all(|behind| !behind), "ours runs away from the venue's");
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
