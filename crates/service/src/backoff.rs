//! How long to wait before trying again.

use std::time::Duration;

/// Exponential back-off with full jitter: each wait is uniform between nothing and a ceiling that doubles up to a cap.
///
/// Full jitter spreads clients that lost the same server at the same moment best.
/// Source: <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempt: u32,
}

impl Backoff {
    /// The first wait is at most `base`, none is longer than `cap`.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, attempt: 0 }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        self.ceiling_then_grow().mul_f64(fastrand::f64())
    }

    /// Whether nothing has failed since the last reset.
    pub fn is_fresh(&self) -> bool {
        self.attempt == 0
    }

    /// Begins anew, after a healthy spell.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    fn ceiling_then_grow(&mut self) -> Duration {
        let ceiling = self.base.saturating_mul(1 << self.attempt.min(30)).min(self.cap);
        self.attempt = self.attempt.saturating_add(1);
        ceiling
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_double_up_to_the_cap_and_begin_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500));
        let ms: Vec<u128> = (0..5).map(|_| backoff.ceiling_then_grow().as_millis()).collect();
        assert_eq!(ms, [100, 200, 400, 500, 500]);
        assert!(!backoff.is_fresh());
        backoff.reset();
        assert!(backoff.is_fresh());
        assert!(backoff.next_wait() <= Duration::from_millis(100));
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        let ceilings: Vec<u128> = (0..9)
            .map(|_| {
                let ceiling = backoff.clone().ceiling_then_grow();
                assert!(backoff.next_wait() <= ceiling);
                ceiling.as_millis()
            })
            .collect();
        assert_eq!(ceilings, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500));
        backoff.attempt = u32::MAX;
        assert!(backoff.next_wait() <= Duration::from_millis(500), "no overflow however long it goes on");
    }
}
