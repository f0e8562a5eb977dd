//! The short way of most events: in at one end of the session, out at the other.
//!
//! A run that follows what its subscription was told, while nothing of it waits and the socket takes what is written, need not be queued by
//! channel: it waits in one list with those of all channels and is written in the order in which it came. That touches a subscription once for
//! each event instead of three times, and most of what a delivery costs beside the write is memory that is not in the cache.
//!
//! Whatever has to look at what waits by channel takes the lane apart first.

use std::sync::Arc;

use super::Session;
use super::output::Output;
use crate::run::Run;

/// Runs with the numbers of their channels, in the order in which they came.
pub(super) type Lane = Vec<(u32, Arc<Run>)>;

impl Session {
    /// Takes consecutive events of the channel with this number. Gives whether there is something to write.
    pub(crate) fn on_run(&mut self, slot: u32, run: &Arc<Run>) -> bool {
        let is_open = !self.is_blocked && self.closing.is_none();
        if !is_open || !self.roster.at(slot).is_some_and(|subscription| subscription.let_pass(run)) {
            return self.take_in(slot, |subscription, pressure| subscription.on_run(run, pressure));
        }
        self.queued_bytes += run.bytes();
        self.lane.push((slot, Arc::clone(run)));
        if self.queued_bytes > self.surroundings.config.limits.queue_bytes {
            self.relieve();
        }
        true
    }

    /// Moves runs from the lane to `out`, until they hold `max_bytes` or more. Gives how many bytes they hold.
    pub(super) fn take_lane(&mut self, max_bytes: usize, out: &mut impl Output) -> usize {
        let (mut taken, mut runs) = (0, 0);
        for (_, run) in &self.lane {
            if taken >= max_bytes {
                break;
            }
            taken += run.bytes();
            runs += 1;
            self.delivered += run.events().len() as u64;
            out.run(run);
        }
        self.lane.drain(..runs);
        self.queued_bytes -= taken;
        taken
    }

    /// Puts what is in the lane where it waits by channel.
    pub(super) fn clear_lane(&mut self) {
        // The newest first, each in front of what came later.
        let lane = std::mem::take(&mut self.lane);
        for (slot, run) in lane.iter().rev() {
            if let Some(subscription) = self.roster.at(*slot) {
                subscription.take_back(Arc::clone(run));
            }
        }
        lane.iter().for_each(|(slot, _)| self.list(*slot));
    }
}
