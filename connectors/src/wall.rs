//! This machine's clock, as frames are stamped by it and as pauses are measured.

use std::time::{Duration, Instant};

use crate::outlet::now_ms;

/// Once the clock was set back, time goes on at this part of its speed until the clock has caught up: what waits for a moment gets
/// there, though later, and stamps stay near the clock.
const SLOWED: i64 = 2;

/// Milliseconds since the epoch, which never fall and never stand still, whatever the machine's clock is set to.
#[derive(Debug)]
pub struct Wall {
    /// The last moment by the clock, before it was set back if it was, and when that was read.
    clock_ms: i64,
    read_at: Instant,
    /// What was given last, and when.
    given_ms: i64,
    given_at: Instant,
}

impl Default for Wall {
    fn default() -> Self {
        Self::new(now_ms(), Instant::now())
    }
}

impl Wall {
    fn new(clock_ms: i64, read_at: Instant) -> Self {
        Self { clock_ms, read_at, given_ms: clock_ms, given_at: read_at }
    }

    /// Now.
    pub fn now_ms(&mut self) -> i64 {
        self.at(now_ms(), Instant::now()).0
    }

    /// Now, and by how much more than the time that has passed since it was asked last: the clock was set forward, or put right
    /// after it had been set back.
    pub fn now_and_step(&mut self) -> (i64, Duration) {
        self.at(now_ms(), Instant::now())
    }

    fn at(&mut self, clock_ms: i64, now: Instant) -> (i64, Duration) {
        let passed_ms = now.saturating_duration_since(self.read_at).as_millis();
        let slowed = self.clock_ms.saturating_add(i64::try_from(passed_ms).unwrap_or(i64::MAX) / SLOWED);
        if clock_ms >= slowed {
            (self.clock_ms, self.read_at) = (clock_ms, now);
        }
        let now_ms = clock_ms.max(slowed);
        let gained = u64::try_from(now_ms.saturating_sub(self.given_ms)).unwrap_or_default();
        let step = Duration::from_millis(gained).saturating_sub(now.saturating_duration_since(self.given_at));
        (self.given_ms, self.given_at) = (now_ms, now);
        (now_ms, step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_goes_on_slowly_until_it_has_caught_up() {
        let began = Instant::now();
        let mut wall = Wall::new(100_000, began);
        for (passed_ms, clock_ms, now_ms) in [
            (10, 100_010, 100_010),
            (1_010, 91_010, 100_510),
            (1_011, 91_011, 100_510),
            (1_012, 91_012, 100_511),
            (20_010, 110_010, 110_010),
            (20_020, 500_000, 500_000),
            (20_030, 500_010, 500_010),
        ] {
            let (given_ms, _) = wall.at(clock_ms, began + Duration::from_millis(passed_ms));
            assert_eq!(given_ms, now_ms, "{passed_ms} ms later");
        }
    }

    #[test]
    fn a_clock_that_is_put_right_after_it_was_set_back_has_gone_forward_from_what_was_given() {
        let began = Instant::now();
        let mut wall = Wall::new(1_000_000, began);
        let mut at = |passed_ms: u64, clock_ms| wall.at(clock_ms, began + Duration::from_millis(passed_ms));
        // Ten minutes back, and right again five minutes later.
        for passed_ms in (1_000..300_000).step_by(1_000) {
            let (given_ms, step) = at(passed_ms, 400_000 + i64::try_from(passed_ms).unwrap());
            assert_eq!((given_ms, step), (1_000_000 + i64::try_from(passed_ms).unwrap() / 2, Duration::ZERO));
        }
        assert_eq!(at(300_000, 1_300_000), (1_300_000, Duration::from_millis(149_500)), "from 1,149,500 on");
        assert_eq!(at(300_050, 1_300_050), (1_300_050, Duration::ZERO));
    }
}
