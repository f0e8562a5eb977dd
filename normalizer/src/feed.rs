//! Whether a venue's data flows.

use std::collections::BTreeMap;
use std::time::Duration;

use akis_connectors::{Content, RawFrame};
use akis_eventlog::Hearing;

/// Without a connection, or without data where pauses are short, for longer than this the venue is down.
const DOWN_MS: i64 = 5_000;

/// Without data for longer than this it is down, whatever its pauses are: by then its sessions give up their connections too.
const LONGEST_DOWN_MS: i64 = 60_000;

/// How many times its longest pause lately an open connection has to be without data. Of a few thin symbols nothing may be heard
/// for half a minute, and nothing is wrong.
const TIMES: i64 = 3;

/// The longest pause is forgotten by this part with each frame of data.
const FADING: i64 = 256;

/// A turn of the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Data flows again.
    Up,
    /// No data.
    Down {
        /// When the last data came, or was due.
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
    /// When the last of them ended.
    cut_at: Option<i64>,
    /// When data came last, or when the watch began.
    last_data: Option<i64>,
    /// The longest pause between two frames of data lately, of those in which a connection was open throughout.
    longest_ms: i64,
    /// Until then the venue rests, and nothing need come.
    due_at: i64,
    /// Since when market data has come, without an outage.
    heard_since: Option<i64>,
    /// Since when it is down, and why.
    down: Option<(i64, &'static str)>,
}

impl Feed {
    /// Takes note of a frame; `data` tells whether it was market data. What was asked for is no sign that anything flows.
    pub(crate) fn on_frame(&mut self, frame: &RawFrame, data: bool) -> Option<Turn> {
        match frame.content {
            Content::Text { connection, .. } | Content::Binary { connection, .. } => {
                self.open.entry(connection).or_insert(frame.received_at);
            }
            Content::Closed { connection, .. } => {
                if self.open.remove(&connection).is_some() && self.open.is_empty() {
                    self.cut_at = Some(frame.received_at);
                }
            }
            Content::Reply { .. } => return None,
        }
        if !data {
            return None;
        }
        if self.down.is_some() || self.heard_since.is_none() {
            self.heard_since = Some(frame.received_at);
        }
        self.due_at = 0;
        let heard_at = self.last_data.replace(frame.received_at).unwrap_or(frame.received_at);
        let faded = self.longest_ms - self.longest_ms / FADING;
        let was_cut = self.cut_at.is_some_and(|cut_at| cut_at >= heard_at);
        let pause = if was_cut { 0 } else { frame.received_at.saturating_sub(heard_at) };
        self.longest_ms = faded.max(pause);
        self.down.take().map(|_| Turn::Up)
    }

    /// Since when the venue is down, and why; `None` while it is not.
    pub(crate) fn down(&self) -> Option<(i64, &'static str)> {
        self.down
    }

    /// Whether it is known if data flows: some has come, or has not for too long.
    pub(crate) fn is_judged(&self) -> bool {
        self.heard_since.is_some() || self.down.is_some()
    }

    /// What is heard at `now_ms`, for the lease to be where most is. Data has to have come for as long as it takes to call a venue
    /// down, or one that comes back would go to whoever hears it first.
    pub(crate) fn hearing(&self, now_ms: i64) -> Hearing {
        let Some(last_data) = self.last_data else { return Hearing::Unknown };
        let ago = Duration::from_millis(now_ms.saturating_sub(last_data).max(0).unsigned_abs());
        if self.down.is_some() {
            Hearing::Deaf(ago)
        } else if self.heard_for(now_ms) > DOWN_MS {
            Hearing::Hears(ago)
        } else {
            Hearing::Unknown
        }
    }

    /// For how long data has come without an outage.
    pub(crate) fn heard_for(&self, now_ms: i64) -> i64 {
        self.heard_since.map_or(0, |since| now_ms.saturating_sub(since))
    }

    /// Our clock was set forward by this much, to `now_ms`: nobody was silent for so long.
    pub(crate) fn on_clock_set(&mut self, by_ms: i64, now_ms: i64) {
        for at in [&mut self.last_data, &mut self.cut_at, &mut self.heard_since].into_iter().flatten() {
            *at = at.saturating_add(by_ms).min(now_ms);
        }
    }

    /// When something came first over the oldest connection that is open, milliseconds since the epoch.
    pub(crate) fn connected_since(&self) -> Option<i64> {
        self.open.values().copied().min()
    }

    /// The venue rests until `due_at`, or until data comes.
    pub(crate) fn rest(&mut self, due_at: i64) {
        self.due_at = due_at;
    }

    /// Takes note of the time.
    pub(crate) fn on_tick(&mut self, now_ms: i64) -> Option<Turn> {
        let heard_at = *self.last_data.get_or_insert(now_ms);
        let (since, most_ms, reason) = if self.open.is_empty() {
            (self.cut_at.map_or(heard_at, |cut_at| cut_at.max(heard_at)), DOWN_MS, "no connection")
        } else {
            (heard_at, self.longest_ms.saturating_mul(TIMES).clamp(DOWN_MS, LONGEST_DOWN_MS), "no data")
        };
        let since = since.max(self.due_at);
        if self.down.is_some() || now_ms.saturating_sub(since) <= most_ms {
            return None;
        }
        self.down = Some((since, reason));
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
        assert_eq!(feed.on_tick(15_000), Some(Turn::Down { since: 9_004, reason: "no connection" }));
    }

    #[test]
    fn who_has_heard_for_a_while_hears_and_who_is_down_is_deaf() {
        let mut feed = Feed::default();
        assert_eq!(feed.hearing(0), Hearing::Unknown);
        feed.on_tick(0);
        assert_eq!(feed.hearing(5_000), Hearing::Unknown);
        feed.on_tick(5_001);
        assert_eq!(feed.hearing(5_100), Hearing::Deaf(Duration::from_millis(5_100)), "since it began to listen");
        feed.on_frame(&text(6_000, 1), true);
        feed.on_frame(&text(11_000, 1), true);
        assert_eq!(feed.hearing(11_000), Hearing::Unknown, "it has only begun");
        feed.on_frame(&text(11_001, 1), true);
        assert_eq!(feed.hearing(11_051), Hearing::Hears(Duration::from_millis(50)));
        feed.on_tick(31_001);
        assert_eq!(feed.hearing(31_101), Hearing::Deaf(Duration::from_millis(20_100)));
    }

    #[test]
    fn a_venue_whose_symbols_rarely_speak_is_not_down_between_two_words() {
        let mut feed = Feed::default();
        for n in 0..10 {
            assert_eq!(
                feed.on_frame(&text(n * 12_000, 1), true),
                (n == 1).then_some(Turn::Up),
                "told once, and learned"
            );
            let down = feed.on_tick(n * 12_000 + 11_999);
            assert_eq!(down, (n == 0).then_some(Turn::Down { since: 0, reason: "no data" }));
        }
        // Its connection ends after a pause as usual: it is down when none comes for five seconds.
        assert_eq!(feed.on_frame(&closed(119_000, 1), false), None);
        assert_eq!(feed.on_tick(124_000), None);
        assert_eq!(feed.on_frame(&text(124_000, 2), false), None);
        // By its own measure it is down at last.
        assert_eq!(feed.on_tick(143_000), None);
        assert_eq!(feed.on_tick(144_001), Some(Turn::Down { since: 108_000, reason: "no data" }));
        // A pause that a lost connection made is not how it speaks, and long ones fade.
        assert_eq!(feed.on_frame(&text(200_000, 2), true), Some(Turn::Up));
        for n in 1..=2_000 {
            assert_eq!(feed.on_frame(&text(200_000 + n * 100, 2), true), None);
        }
        assert_eq!(feed.on_tick(405_001), Some(Turn::Down { since: 400_000, reason: "no data" }));
    }

    #[test]
    fn no_pause_is_long_enough_to_hide_a_venue_that_is_away() {
        let mut feed = Feed::default();
        assert_eq!(feed.on_frame(&text(0, 1), true), None);
        assert_eq!(feed.on_frame(&text(50_000, 1), true), None);
        assert_eq!(feed.on_tick(110_000), None);
        assert_eq!(feed.on_tick(110_001), Some(Turn::Down { since: 50_000, reason: "no data" }));
    }

    #[test]
    fn a_venue_that_was_never_there_is_down_too() {
        let mut feed = Feed::default();
        assert_eq!(feed.on_tick(100), None);
        let reply = Content::Reply { target: "/trades".into(), status: 200, body: "[]".into() };
        assert_eq!(feed.on_frame(&RawFrame { received_at: 5_000, content: reply }, true), None);
        assert!(!feed.is_judged(), "that it answers is no sign that it sends");
        assert_eq!(feed.on_tick(5_101), Some(Turn::Down { since: 100, reason: "no connection" }));
        assert!(feed.is_judged());
    }

    #[test]
    fn a_clock_that_is_set_forward_is_no_silence() {
        let mut feed = Feed::default();
        assert_eq!(feed.on_frame(&text(1_000, 1), true), None);
        feed.on_clock_set(3_600_000, 3_602_000);
        assert_eq!(feed.heard_for(3_602_000), 1_000, "nor was it heard for so long");
        assert_eq!(feed.on_tick(3_602_000), None);
        assert_eq!(feed.on_tick(3_606_000), None);
        assert!(feed.on_tick(3_606_001).is_some(), "it is still watched over");
        assert_eq!(feed.on_frame(&text(3_607_000, 1), true), Some(Turn::Up));
        feed.on_clock_set(3_600_000, 3_607_500);
        assert!(feed.on_tick(3_626_000).is_some(), "also where a frame came before the step was noticed");
    }

    #[test]
    fn a_venue_that_rests_is_down_only_when_it_is_due() {
        for connection_ends in [true, false] {
            let mut feed = Feed::default();
            assert_eq!(feed.on_frame(&text(1_000, 1), true), None);
            feed.rest(100_000);
            if connection_ends {
                assert_eq!(feed.on_frame(&closed(1_001, 1), false), None);
            }
            assert_eq!(feed.on_tick(104_999), None);
            assert!(matches!(feed.on_tick(105_001), Some(Turn::Down { since: 100_000, .. })));
            assert_eq!(feed.on_frame(&text(106_000, 2), true), Some(Turn::Up));
            feed.rest(200_000);
            // It is there before that.
            assert_eq!(feed.on_frame(&text(150_000, 2), true), None);
            assert_eq!(feed.on_frame(&closed(150_001, 2), false), None);
            assert!(!connection_ends || feed.on_tick(155_002).is_some());
        }
    }
}
