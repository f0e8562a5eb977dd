//! A leased publisher: the only writer of its channels while it holds the lease.
//!
//! It counts positions itself, keeps what it published in the last seconds, and when the log was replaced
//! writes what is missing again under the same positions.

use std::sync::Arc;
use std::time::Duration;

use akis_model::{Body, Channel};
use tokio::sync::watch;

/// One event to be published, in the order of its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The channel.
    pub channel: Channel,
    /// What happened.
    pub body: Body,
    /// Events of the channel that were lost right before this one, at the venue or on the way from it: their positions
    /// are left out, so that subscribers are told `gap`.
    pub missing_before: u64,
}

/// Whether a publisher may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Another publisher holds the lease, or nobody could take it yet. What is offered is dropped.
    Standby,
    /// Holds the lease and writes.
    Active,
    /// Held the lease last, and the log is away: newest-wins kinds keep the newest, trades a bounded queue.
    Away,
}

/// Bounds of a publisher. The defaults are those of the design.
#[derive(Debug, Clone)]
pub struct PublisherConfig {
    /// The publisher's name: the venue.
    pub name: Arc<str>,
    /// How long a lease lasts without renewal.
    pub ttl: Duration,
    /// How long what was published is kept to heal a log that lost it.
    pub memory: Duration,
    /// Events of one trades or application channel that wait while the log is away; the oldest are dropped and counted.
    pub queue_per_channel: usize,
    /// Events of all channels together that wait.
    pub queue: usize,
}

/// Hands events to a running publisher. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct PublisherHandle {
    role: watch::Receiver<Role>,
}
