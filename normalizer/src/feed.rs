//! Whether a venue's data flows.

use std::collections::BTreeMap;

use akis_connectors::{Content, RawFrame};

/// Without data for longer than this the venue is down.
const DOWN_MS: i64 = 5_000;

/// A turn of the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Data flows again.
    Up,
    /// No data.
    Down {
        /// When the last data came.
        since: i64,
        /// Why, in a few words.
        reason: &'static str,
    },
}

/// Watches over the data of a venue.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    /// Connections that something came from and that have not ended, each with when the first came.
    open: BTreeMap<u32, i64>,
    /// When data came last, or when the watch began.
    last_data: Option<i64>,
    down: bool,
}

impl Feed {
    /// Takes note of a frame; `data` tells whether it was market data.
    pub(crate) fn on_frame(&mut self, frame: &RawFrame, data: bool) -> Option<Turn> {
        match frame.content {
            Content::Text { connection, .. } | Content::Binary { connection, .. } => {
                self.open.entry(connection).or_insert(frame.received_at);
            }
            Content::Closed { connection, .. } => {
                self.open.remove(&connection);
            }
            Content::Reply { .. } => {}
        }
        if !data {
            return None;
        }
        self.last_data = Some(frame.received_at);
        std::mem::take(&mut self.down).then_some(Turn::Up)
    }

    /// When something came first over the oldest connection that is open, milliseconds since the epoch.
    pub(crate) fn connected_since(&self) -> Option<i64> {
        self.open.values().copied().min()
    }

    /// Takes note of the time.
    pub(crate) fn on_tick(&mut self, now_ms: i64) -> Option<Turn> {
        let since = *self.last_data.get_or_insert(now_ms);
        if self.down || now_ms.saturating_sub(since) <= DOWN_MS {
            return None;
        }
        self.down = true;
        let reason = if self.open.is_empty() { "no connection" } else { "no data" };
        Some(Turn::Down { since, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(received_at: i64, connection: u32) -> RawFrame {
        RawFrame { received_at, content: Content::Text { connection, text: String::new() } }
    }

    fn closed(received_at: i64, connection: u32) -> RawFrame {
        RawFrame { received_at, content: Content::Closed { connection, code: 1006 } }
    }

    #[test]
    fn goes_down_once_after_five_seconds_and_up_with_the_first_data() {
        let mut feed = Feed::default();
        assert_eq!(feed.on_tick(0), None);
        assert_eq!(feed.on_frame(&text(1_000, 1), true), None);
        assert_eq!(feed.on_tick(6_000), None);
        assert_eq!(feed.on_tick(6_001), Some(Turn::Down { since: 1_000, reason: "no data" }));
        assert_eq!(feed.on_tick(9_000), None);
        assert_eq!(feed.on_frame(&text(9_001, 1), false), None, "an acknowledgement is no data");
        assert_eq!(feed.on_frame(&text(9_002, 1), true), Some(Turn::Up));
        assert_eq!(feed.on_frame(&text(9_002, 2), false), None);
        assert_eq!(feed.connected_since(), Some(1_000));
        assert_eq!(feed.on_frame(&closed(9_003, 1), false), None);
        assert_eq!(feed.connected_since(), Some(9_002));
        assert_eq!(feed.on_frame(&closed(9_004, 2), false), None);
        assert_eq!(feed.connected_since(), None);
        assert_eq!(feed.on_tick(15_000), Some(Turn::Down { since: 9_002, reason: "no connection" }));
    }

    #[test]
    fn a_venue_that_was_never_there_is_down_too() {
        let mut feed = Feed::default();
        assert_eq!(feed.on_tick(100), None);
        assert_eq!(feed.on_tick(5_101), Some(Turn::Down { since: 100, reason: "no connection" }));
    }
}
