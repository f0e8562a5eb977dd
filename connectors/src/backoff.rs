//! How long to wait before trying again.

use std::time::Duration;

use crate::registry::Settings;

/// The most that the first wait may be.
const BASE: Duration = Duration::from_millis(500);

/// The most that any wait may be, unless the settings say otherwise.
const CAP: Duration = Duration::from_secs(30);

/// Exponential waits with full jitter: anything from nothing to the ceiling, so that clients that lost
/// the same venue at the same moment do not come back at the same moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backoff {
    cap: Duration,
    failures: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { cap: CAP, failures: 0 }
    }
}

impl Backoff {
    /// The one that the settings ask for, before any failure.
    pub(crate) fn of(settings: &Settings) -> Self {
        Self { cap: settings.longest_wait.unwrap_or(CAP), ..Self::default() }
    }

    /// Counts a failure and gives the wait before the next try.
    pub(crate) fn fail(&mut self) -> Duration {
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(fastrand::f64())
    }

    /// Whether nothing has failed since the last reset.
    pub(crate) fn is_fresh(&self) -> bool {
        self.failures == 0
    }

    /// Forgets the failures.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    fn ceiling(&self) -> Duration {
        BASE.saturating_mul(1 << self.failures.min(6)).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_begin_anew_after_a_reset() {
        let mut backoff = Backoff::default();
        let ceilings: Vec<u128> = (0..9)
            .map(|_| {
                let ceiling = backoff.ceiling();
                assert!(backoff.fail() <= ceiling);
                ceiling.as_millis()
            })
            .collect();
        assert_eq!(ceilings, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        backoff.reset();
        assert_eq!(backoff.ceiling(), BASE);
        let mut backoff = Backoff::of(&Settings { longest_wait: Some(BASE), ..Settings::default() });
        for _ in 0..9 {
            assert!(backoff.fail() <= BASE);
        }
    }
}
