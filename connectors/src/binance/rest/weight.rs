//! How much of the venue's request weight is used, and when there is room again.

use std::time::Duration;

const MINUTE_MS: i64 = 60_000;

/// So long after the venue's minute ours begins: with a clock that is a little ahead, what is sent at once would still be
/// counted with the minute before, and the whole next one be taken for used up.
const LATE_MS: i64 = 1_000;

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
        let minute = minute(now_ms);
        // Before it too: our clock was set back.
        if minute != self.minute || self.used.saturating_add(cost) <= self.limit {
            return Duration::ZERO;
        }
        let next = (self.minute + 1) * MINUTE_MS + LATE_MS;
        Duration::from_millis(u64::try_from(next - now_ms).unwrap_or(0))
    }

    /// Counts a request that is being sent.
    pub(super) fn spend(&mut self, now_ms: i64, cost: u32) {
        self.turn(now_ms);
        self.used = self.used.saturating_add(cost);
    }

    /// Takes over what the venue says is used, by everybody at this address, in its answer to a request sent at `sent_ms`. Of a
    /// minute that is over it is nothing to go by.
    pub(super) fn told(&mut self, sent_ms: i64, now_ms: i64, used: u32) {
        self.turn(now_ms);
        if minute(sent_ms) == self.minute {
            self.used = used;
        }
    }

    fn turn(&mut self, now_ms: i64) {
        let minute = minute(now_ms);
        if minute != self.minute {
            (self.minute, self.used) = (minute, 0);
        }
    }
}

fn minute(now_ms: i64) -> i64 {
    (now_ms - LATE_MS).div_euclid(MINUTE_MS)
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
        weight.told(now, now, 951);
        assert_eq!(weight.wait(now, 50), Duration::from_secs(41));
        assert_eq!(weight.wait(now, 49), Duration::ZERO);
        assert_eq!(weight.wait(now + 41_000, 50), Duration::ZERO);
        weight.spend(now + 41_000, 50);
        assert_eq!(weight.used, 50);
    }

    #[test]
    fn what_was_used_in_the_minute_before_leaves_the_next_one_free() {
        let mut weight = Weight::new(1_000);
        let turn = 100 * MINUTE_MS;
        weight.told(turn - 200, turn + 300, 1_000);
        assert_eq!(weight.wait(turn + 300, 50), Duration::from_millis(700), "the venue may not be there yet");
        weight.told(turn - 200, turn + 3_000, 1_000);
        assert_eq!(weight.wait(turn + 3_000, 50), Duration::ZERO, "it was a slow answer");
    }

    #[test]
    fn a_clock_that_is_set_back_by_hours_holds_nothing_up() {
        let mut weight = Weight::new(1_000);
        let now = 500 * MINUTE_MS + LATE_MS;
        weight.spend(now, 1_000);
        let now = now - 180 * MINUTE_MS;
        assert_eq!(weight.wait(now, 50), Duration::ZERO);
        weight.spend(now, 1_000);
        assert_eq!(weight.wait(now, 50), Duration::from_secs(60));
    }
}
