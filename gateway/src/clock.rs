//! The two clocks of a session, read outside and passed in.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// One moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// Monotonic: what timers go by.
    pub(crate) instant: Instant,
    /// Milliseconds since the epoch: what envelopes and tokens carry.
    pub(crate) unix_ms: i64,
}

impl Now {
    /// Reads both clocks.
    pub(crate) fn read() -> Self {
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_millis() as i64);
        Self { instant: Instant::now(), unix_ms }
    }
}
