//! How far a venue's clock is ahead of this machine's.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Deserialize;

/// How often it is measured.
pub(crate) const MEASURE_EVERY: Duration = Duration::from_secs(600);

/// So many measurements count; the one with the shortest way is believed.
const KEPT: usize = 8;

/// The last measurements.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// How long the way there and back took, and the difference; in milliseconds.
    measured: VecDeque<(i64, i64)>,
}

/// What a venue answers when it is asked for its time, milliseconds since the epoch.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Time {
    server_time: i64,
}

impl Clock {
    /// Takes the reply to a call for the time that was sent at `sent_ms` and answered at `came_ms`.
    pub(crate) fn take(&mut self, body: &str, sent_ms: i64, came_ms: i64) {
        let way = came_ms - sent_ms;
        // Below zero, this machine's clock was set meanwhile.
        let Ok(Time { server_time }) = serde_json::from_str(body) else { return };
        if way < 0 {
            return;
        }
        if self.measured.len() == KEPT {
            self.measured.pop_front();
        }
        self.measured.push_back((way, server_time.saturating_sub(sent_ms + way / 2)));
    }

    /// The difference by the measurement that is most certain; `None` before the first one.
    pub(crate) fn offset(&self) -> Option<i64> {
        self.measured.iter().min_by_key(|(way, _)| way).map(|(_, offset)| *offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_way_lately_is_believed() {
        let mut clock = Clock::default();
        assert_eq!(clock.offset(), None);
        let time = |ms: i64| format!(r#"{{"serverTime":{ms},"serverTime2":"2026-09-23T03:20:00.0268053+00:00"}}"#);
        clock.take(&time(1_100), 1_000, 1_100);
        assert_eq!(clock.offset(), Some(50));
        clock.take(&time(2_030), 2_000, 2_010);
        assert_eq!(clock.offset(), Some(25));
        clock.take(&time(9_000), 3_000, 3_400);
        clock.take(&time(9_000), 3_000, 2_000);
        clock.take("[]", 3_000, 3_001);
        assert_eq!(clock.offset(), Some(25));
        for n in 0..8 {
            clock.take(&time(4_000 + n), 4_000, 4_020);
        }
        assert_eq!(clock.offset(), Some(-10), "what is old is forgotten");
    }
}
