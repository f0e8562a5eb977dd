//! The event log: who may write, in which order, and what a reader can be sure of.
//!
//! [`Store`] is the contract of the two backends, [`RedisStore`] and [`MemoryStore`]. On it stand [`Publisher`]
//! (leases, terms, healing), and [`Replica`] (what a gateway reads: rings, joins, gaps). This is the only crate
//! that knows Redis.

mod errors;
mod hearing;
mod listing;
mod memory;
mod publisher;
mod redis;
mod replica;
mod retention;
mod rhythm;
mod ring;
mod store;
mod tail;

pub use errors::ErrorCounts;
pub use hearing::Hearing;
pub use listing::{CANDLES_KEPT, ChannelHead, LISTED, StoredCandle};
pub use memory::{MemoryStore, Snapshot};
pub use publisher::{Event, Observer, Publisher, PublisherConfig, PublisherCounts, PublisherHandle, Role};
pub use redis::{ConnectError, RedisStore};
pub use replica::{
    Excerpt, From, JoinError, Joined, LogEvent, Notice, Replica, ReplicaConfig, ReplicaCounts, Sink, Traced, Upstream,
};
pub use retention::{APP_RETENTION, FEED_AGE, IDEMPOTENCY_TTL};
pub use store::{
    Append, ChannelEnd, Claim, Ends, Entry, Feed, FeedBatch, FeedEnd, FeedEntry, FeedId, FeedStart, Fence, HANDOVER,
    Identity, Lease, Marker, Partition, RANGE_BYTES, Range, Select, Store, StoreError, TERM_JUMP, Unavailable, Write,
};
pub use tail::links;

/// By channel: looked up for every event, so with a hash that is cheap for short names.
pub(crate) type ByChannel<T> = std::collections::HashMap<akis_model::Channel, T, foldhash::fast::RandomState>;
