//! The venue's time: the second of the last `T`, and the nanoseconds that each message adds to it.

use akis_model::{Provenance, TimeSource};

use crate::update::{BELIEVED_AHEAD_MS, is_believable};

/// The time of one stream of messages.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// Seconds since the epoch; `None` before the first `T`, and after messages were lost.
    second: Option<u32>,
    /// That of the last `T` that was believed.
    latest: Option<u32>,
    /// Receive time minus venue time at the last `T`, milliseconds.
    offset_ms: i64,
}

/// A moment in an event, milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) ts: i64,
    pub(super) source: TimeSource,
    pub(super) received_at: i64,
}

impl Moment {
    pub(super) fn provenance(self) -> Provenance {
        Provenance { ts_source: self.source, received_at: self.received_at }
    }
}

impl Clock {
    /// Takes a `T`; whether it can be true. After one that cannot, the second is not known until the next.
    pub(super) fn on_second(&mut self, second: u32, received_at: i64, believed_ahead_ms: i64) -> bool {
        let ts = i64::from(second) * 1_000;
        let is_believed = is_believable(ts, received_at, believed_ahead_ms);
        self.second = is_believed.then_some(second);
        if is_believed {
            self.latest = Some(second);
            self.offset_ms = received_at.saturating_sub(ts);
        }
        is_believed
    }

    /// Whether a `T` goes back, which time does not. A clock that itself runs ahead of the moment of receiving is no measure.
    pub(super) fn goes_back(&self, second: u32, received_at: i64) -> bool {
        self.latest.is_some_and(|latest| {
            second < latest && is_believable(i64::from(latest) * 1_000, received_at, BELIEVED_AHEAD_MS)
        })
    }

    /// The clock of receive times was set forward by this much.
    pub(super) fn on_set(&mut self, by_ms: i64) {
        self.offset_ms = self.offset_ms.saturating_add(by_ms);
    }

    /// How far the venue's clock was behind that of receive times at the last `T`, milliseconds.
    pub(super) fn lag(&self) -> Option<i64> {
        self.latest.map(|_| self.offset_ms)
    }

    /// Messages were lost, and a `T` may have been among them.
    pub(super) fn forget_second(&mut self) {
        self.second = None;
    }

    /// When a message with this field happened.
    pub(super) fn at(&self, ns: u32, received_at: i64) -> Moment {
        match self.second {
            Some(second) => {
                let ts = i64::from(second) * 1_000 + i64::from(ns / 1_000_000);
                Moment { ts, source: TimeSource::Venue, received_at }
            }
            None => Moment { ts: self.estimate(received_at), source: TimeSource::Received, received_at },
        }
    }

    /// What the venue's clock shows now, as far as the last `T` tells: never ahead of it while both run alike.
    pub(super) fn estimate(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(self.offset_ms)
    }
}
