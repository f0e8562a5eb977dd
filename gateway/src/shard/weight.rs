//! How much memory the connections of a shard hold, and who gives way when it is too much.

use std::cmp::Reverse;
use std::time::Duration;

use akis_model::CloseCode;
use tracing::warn;

use super::Shard;
use super::conn::{Conn, End};
use crate::clock::Now;
use crate::session::Surroundings;

/// How often the memory of connections is measured for the metrics.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

impl Shard {
    /// When more waits for all clients of this replica than may, those of this shard give way for which the most waits, until it keeps
    /// to its part: first those that read nothing, because a long replay waits also for who reads well. At least one shard is above its
    /// part then, or the event streams are above theirs, which give way by themselves.
    pub(super) fn relieve(&mut self, now: Now) {
        let Surroundings { config, metrics, .. } = &*self.desk.context.surroundings;
        let limits = &config.limits;
        let part = self.desk.context.shards_part();
        let mut waiting = usize::try_from(self.desk.waiting).unwrap_or(0);
        if waiting <= part || !metrics.is_overfull(limits.queue_bytes_total) {
            return;
        }
        let waits = self.conns.iter().filter(|(_, conn)| !conn.is_leaving());
        // Whoever has stopped for a moment with little that waits would make no room.
        let much = limits.queue_bytes / 2;
        let weight = |conn: &Conn| {
            let waits = conn.waiting_bytes();
            Reverse((waits > much && conn.is_idle(now), waits))
        };
        let mut slowest: Vec<_> = waits.map(|(place, conn)| (weight(conn), place as u32)).collect();
        slowest.sort_unstable();
        let mut closed = 0;
        for (Reverse((_, bytes)), place) in slowest {
            // Somewhat below, so that this is not done again at once. Whoever has nothing that waits makes no room for those that leave.
            if waiting <= part / 8 * 7 || bytes == 0 {
                break;
            }
            waiting -= bytes.min(waiting);
            closed += 1;
            // The code can be said to whoever takes what is written; what waits is dropped all the same.
            let is_stuck = self.conns.get(place as usize).is_some_and(|conn| conn.is_stuck());
            self.end(place, if is_stuck { End::Cut(CloseCode::Slow) } else { End::Close(CloseCode::Slow) }, now);
        }
        self.desk.report();
        if closed > 0 {
            warn!(shard = self.desk.number, closed, "too much waits for clients: the slowest are closed");
        }
    }

    pub(super) fn measure(&mut self, now: Now) {
        if now.instant < self.measure_at {
            return;
        }
        self.measure_at = now.instant + MEASURE_EVERY;
        let (mut held, mut unsent) = (0, 0);
        let mut states = [("open", 0), ("blocked", 0), ("leaving", 0)];
        for (_, conn) in &self.conns {
            held += conn.held_bytes() + conn.session.held_bytes();
            unsent += conn.unsent_bytes();
            let state = conn.state();
            states.iter_mut().filter(|(name, _)| *name == state).for_each(|(_, count)| *count += 1);
        }
        let metrics = &self.desk.context.surroundings.metrics;
        metrics.set_memory(self.desk.number, held, unsent);
        metrics.set_states(self.desk.number, &states, self.desk.topics.groups.len());
    }
}
