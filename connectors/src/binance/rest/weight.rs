//! How much of the venue's request weight is used, and when there is room again.

use std::time::Duration;

const MINUTE_MS: i64 = 60_000;

/// The weight used in one minute. The venue's window is the minute of the UTC clock.
#[derive(Debug)]
pub(super) struct Weight {
    limit: u32,
    minute: i64,
    used: u32,
}

impl Weight {
    /// Nothing is used yet of `limit` a minute.
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, minute: 0, used: 0 }
    }

    /// How long to wait before a request of `cost`.
    pub(super) fn wait(&self, now_ms: i64, cost: u32) -> Duration {
        let minute = now_ms.div_euclid(MINUTE_MS);
        // Before it too: our clock was set back.
        if minute != self.minute || self.used.saturating_add(cost) <= self.limit {
            return Duration::ZERO;
        }
        let next = (self.minute + 1) * MINUTE_MS;
        Duration::from_millis(u64::try_from(next - now_ms).unwrap_or(0))
    }

    /// Counts a request that is being sent.
    pub(super) fn spend(&mut self, now_ms: i64, cost: u32) {
        self.turn(now_ms);
        self.used = self.used.saturating_add(cost);
    }

    /// Takes over what the venue says is used, by everybody at this address.
    pub(super) fn told(&mut self, now_ms: i64, used: u32) {
        self.turn(now_ms);
        self.used = used;
    }

    fn turn(&mut self, now_ms: i64) {
        let minute = now_ms.div_euclid(MINUTE_MS);
        if minute != self.minute {
            (self.minute, self.used) = (minute, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_the_next_minute_when_it_is_used_up() {
        let mut weight = Weight::new(1_000);
        let now = 100 * MINUTE_MS + 20_000;
        weight.spend(now, 50);
        assert_eq!(weight.wait(now, 50), Duration::ZERO);
        weight.told(now, 951);
        assert_eq!(weight.wait(now, 50), Duration::from_secs(40));
        assert_eq!(weight.wait(now, 49), Duration::ZERO);
        assert_eq!(weight.wait(now + 40_000, 50), Duration::ZERO);
        weight.spend(now + 40_000, 50);
        assert_eq!(weight.used, 50);
    }

    #[test]
    fn a_clock_that_is_set_back_by_hours_holds_nothing_up() {
        let mut weight = Weight::new(1_000);
        let now = 500 * MINUTE_MS;
        weight.spend(now, 1_000);
        let now = now - 180 * MINUTE_MS;
        assert_eq!(weight.wait(now, 50), Duration::ZERO);
        weight.spend(now, 1_000);
        assert_eq!(weight.wait(now, 50), Duration::from_secs(60));
    }
}
