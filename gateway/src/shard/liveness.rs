//! Whether a client is still there.

use std::time::{Duration, Instant};

/// A client from which no frame came for so long is pinged.
const PING_AFTER: Duration = Duration::from_secs(15);

/// One from which no frame came for so long is pinged when something is written to it anyway, such as a heartbeat.
const PING_ALONG_AFTER: Duration = Duration::from_millis(12_500);

/// A client from which no frame came for so long, although it was pinged, is closed.
const SILENT_AFTER: Duration = Duration::from_secs(20);

/// What is to be done about a silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet.
    Fine,
    /// Ask whether anybody is there.
    Ping,
    /// Nobody is.
    Silent,
}

/// Counts whole frames: half a frame that never ends is silence.
#[derive(Debug)]
pub(super) struct Liveness {
    frames: u64,
    heard_at: Instant,
    is_pinged: bool,
}

impl Liveness {
    pub(super) fn new(now: Instant) -> Self {
        Self { frames: 0, heard_at: now, is_pinged: false }
    }

    /// Takes how many whole frames have come so far.
    pub(super) fn heard(&mut self, frames: u64, now: Instant) {
        if frames != self.frames {
            self.frames = frames;
            self.excuse(now);
        }
    }

    /// Nothing is read at present, so nothing can be heard.
    pub(super) fn excuse(&mut self, now: Instant) {
        self.heard_at = now;
        self.is_pinged = false;
    }

    /// Judges the silence. Says [`Verdict::Ping`] once, earlier when there is a write that it can go along with.
    pub(super) fn judge(&mut self, now: Instant, is_writing: bool) -> Verdict {
        let goes_along = is_writing && !self.is_pinged && now >= self.heard_at + PING_ALONG_AFTER;
        if now < self.next_at() && !goes_along {
            Verdict::Fine
        } else if self.is_pinged {
            Verdict::Silent
        } else {
            self.is_pinged = true;
            Verdict::Ping
        }
    }

    /// When to judge again.
    pub(super) fn next_at(&self) -> Instant {
        self.heard_at + if self.is_pinged { SILENT_AFTER } else { PING_AFTER }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_client_is_pinged_and_then_given_up() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut liveness = Liveness::new(start);
        assert_eq!(liveness.judge(at(14), false), Verdict::Fine);
        assert_eq!(liveness.judge(at(15), false), Verdict::Ping);
        assert_eq!(liveness.judge(at(19), true), Verdict::Fine, "it is pinged once");
        liveness.heard(1, at(19));
        assert_eq!(liveness.judge(at(31), true), Verdict::Fine);
        assert_eq!(liveness.judge(at(32), true), Verdict::Ping, "along with a write");
        liveness.heard(1, at(38));
        assert_eq!(liveness.judge(at(39), false), Verdict::Silent, "no frame came since");
    }
}
