//! What everything that serves clients shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use akis_eventlog::Replica;
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::listing::Listing;
use crate::session::Surroundings;

/// See the module's documentation.
pub(crate) struct Context {
    /// What sessions share.
    pub(crate) surroundings: Arc<Surroundings>,
    /// The log.
    pub(crate) replica: Arc<Replica>,
    /// Which channels there are.
    pub(crate) listing: Listing,
    /// The index of subscribers.
    pub(crate) hub: Arc<Hub>,
    /// Ends connections one by one, over the drain time.
    pub(crate) drain: CancellationToken,
    /// Ends connections at once.
    pub(crate) stop: CancellationToken,
    /// Numbers connections.
    pub(crate) next_id: AtomicU64,
}

impl Context {
    /// A number that no other connection of this process has, and the name that clients are told.
    pub(crate) fn new_connection(&self) -> (u64, String) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        (id, format!("{}-{id}", self.surroundings.config.replica))
    }

    /// As much of what may wait for all clients together as streams are left when it is too much: a part as if they were one shard more.
    pub(crate) fn streams_part(&self) -> usize {
        self.surroundings.config.limits.queue_bytes_total / (self.hub.shards() + 1)
    }

    /// As much as each shard is left then. What streams have of their part is not there for shards.
    pub(crate) fn shards_part(&self) -> usize {
        let Surroundings { config, metrics, .. } = &*self.surroundings;
        let of_streams = metrics.stream_bytes().min(self.streams_part());
        (config.limits.queue_bytes_total - of_streams) / self.hub.shards()
    }
}
