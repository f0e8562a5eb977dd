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
}

impl Default for Wall {
    fn default() -> Self {
        Self { clock_ms: now_ms(), read_at: Instant::now() }
    }
}

impl Wall {
    /// Now.
    pub fn now_ms(&mut self) -> i64 {
        self.at(now_ms(), Instant::now())
    }

    /// Now, and how far the clock was set forward since it was read last.
    pub fn now_and_step(&mut self) -> (i64, Duration) {
        let (clock_ms, read_at) = (self.clock_ms, self.read_at);
        let (now_ms, now) = (self.now_ms(), Instant::now());
        let passed = u64::try_from(now_ms.saturating_sub(clock_ms)).unwrap_or_default();
        (now_ms, Duration::from_millis(passed).saturating_sub(now.saturating_duration_since(read_at)))
    }

    fn at(&mut self, clock_ms: i64, now: Instant) -> i64 {
        let passed_ms = now.saturating_duration_since(self.read_at).as_millis();
        let slowed = self.clock_ms.saturating_add(i64::try_from(passed_ms).unwrap_or(i64::MAX) / SLOWED);
        if clock_ms < slowed {
            return slowed;
        }
        (self.clock_ms, self.read_at) = (clock_ms, now);
        clock_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_goes_on_slowly_until_it_has_caught_up() {
        let began = Instant::now();
        let mut wall = Wall { clock_ms: 100_000, read_at: began };
        for (passed_ms, clock_ms, now_ms) in [
            (10, 100_010, 100_010),
            (1_010, 91_010, 100_510),
            (1_011, 91_011, 100_510),
            (1_012, 91_012, 100_511),
            (20_010, 110_010, 110_010),
            (20_020, 500_000, 500_000),
            (20_030, 500_010, 500_010),
        ] {
            assert_eq!(wall.at(clock_ms, began + Duration::from_millis(passed_ms)), now_ms, "{passed_ms} ms later");
        }
    }
}
