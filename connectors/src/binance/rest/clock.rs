//! How far the venue's clock is ahead of this machine's.

use std::collections::VecDeque;

use serde::Deserialize;

/// So many measurements count; the one with the shortest way is believed.
const KEPT: usize = 8;

/// The last measurements.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// How long the way there and back took, and the difference; in milliseconds.
    measured: VecDeque<(i64, i64)>,
}

/// The reply to `GET …/time`; no other reply has this field alone.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Time {
    server_time: i64,
}

impl Clock {
    /// Takes a reply to a request that was sent at `sent_ms` and answered at `came_ms`, in case it tells the time.
    pub(super) fn take(&mut self, body: &str, sent_ms: i64, came_ms: i64) {
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
    pub(super) fn offset(&self) -> Option<i64> {
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
        let time = |ms: i64| format!(r#"{{"serverTime":{ms}}}"#);
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
