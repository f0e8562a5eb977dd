//! How far a venue's clock is ahead of the one that stamps frames, by the replies that tell its time.

use std::collections::VecDeque;

use serde::Deserialize;

use crate::mapper::Reason;
use crate::update::BELIEVED_AHEAD_MS;
use crate::wire::parse;

/// A venue's clock that is further from ours than this is not believed, whatever it says of itself: one of the two is wrong by
/// more than a clock can drift.
const MOST_OFFSET_MS: i64 = 3_600_000;

/// So many replies that told the venue's time count.
const OFFSETS: usize = 8;

/// No reply takes longer: a venue's clock that seems to have gone back by more is another one, or this machine's was set.
const MOST_REPLY_MS: i64 = 10_000;

/// What is known of a venue's clock.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// By each of the last replies that told its time.
    offsets_ms: VecDeque<i64>,
}

/// A reply that tells the time, milliseconds since the epoch.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Time {
    server_time: i64,
}

impl Clock {
    /// Takes a reply that tells the time.
    ///
    /// # Errors
    ///
    /// Those of [`parse`], and [`Reason::BadTime`] for a clock that is not believed.
    pub(crate) fn take(&mut self, body: &str, received_at: i64) -> Result<(), Reason> {
        let Time { server_time } = parse(body)?;
        let offset_ms = server_time.saturating_sub(received_at);
        if offset_ms.saturating_abs() > MOST_OFFSET_MS {
            return Err(Reason::BadTime);
        }
        if self.offset_ms().is_some_and(|before| before.saturating_sub(offset_ms) > MOST_REPLY_MS) {
            self.offsets_ms.clear();
        } else if self.offsets_ms.len() == OFFSETS {
            self.offsets_ms.pop_front();
        }
        self.offsets_ms.push_back(offset_ms);
        Ok(())
    }

    /// How far it is ahead; `None` before the first reply. The way back makes that seem less, so the most is the nearest to the truth.
    pub(crate) fn offset_ms(&self) -> Option<i64> {
        self.offsets_ms.iter().copied().max()
    }

    /// How far a venue time may lie ahead of the moment of receiving and still be believed: by the venue's clock, not by ours.
    pub(crate) fn believed_ahead_ms(&self) -> i64 {
        BELIEVED_AHEAD_MS + self.offset_ms().unwrap_or_default()
    }
}
