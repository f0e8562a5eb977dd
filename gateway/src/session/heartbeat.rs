//! When a session tells its client that it is still there.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Session;
use super::lane::Lane;
use crate::clock::Now;

/// Heartbeats of all sessions fall on moments so far apart, so that many leave in one turn of a shard and share
/// their text.
const HEARTBEATS_APART: Duration = Duration::from_millis(50);

/// A heartbeat may come so much before its time, as a part of its period.
const EARLY_PART: u32 = 5;

impl Session {
    /// Called before a write that takes place anyway: a heartbeat that is due soon goes along, instead of causing a write of its own.
    pub(crate) fn on_write(&mut self, now: Now, heartbeat: impl FnOnce() -> Bytes) {
        if now.instant + self.surroundings.config.heartbeat / EARLY_PART >= self.heartbeat_at {
            self.beat(now, heartbeat());
        }
    }

    pub(super) fn beat(&mut self, now: Now, heartbeat: Bytes) {
        if self.lane.is_empty() {
            // What a busy time needed is not kept for ever.
            self.lane = Lane::new();
        }
        self.heartbeat_at = next(self.surroundings.config.heartbeat, now);
        self.tell(heartbeat);
    }
}

/// One period from now, or a little earlier.
pub(super) fn next(period: Duration, now: Now) -> Instant {
    let apart_ms = HEARTBEATS_APART.min(period / 20).as_millis().max(1) as i64;
    let early_ms = (now.unix_ms + period.as_millis() as i64).rem_euclid(apart_ms);
    now.instant + period - Duration::from_millis(early_ms.unsigned_abs())
}
