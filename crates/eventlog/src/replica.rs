//! A gateway replica's view of the log: follows every partition, keeps rings, and lets subscribers join.
//!
//! Each partition has one reader task. What it reads goes into the partition's [`Tail`](crate::tail::Tail), which decides what
//! that means (an event, a hole to repair, a log that went back), and from there to the [`Sink`]. A subscriber is
//! registered with the sink first and then joined: [`Replica::join`] computes what lies before live and
//! hands it over while the tail stands still, so nothing falls between the two.

use std::sync::Arc;
use std::time::{Duration, Instant};

use akis_model::{Channel, Seq};
use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::store::{Append, Partition, Store, StoreError};

/// One event as a replica holds it: checked once, its envelope rendered once, shared by all subscribers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEvent {
    /// The channel.
    pub channel: Channel,
    /// Its position.
    pub seq: Seq,
    /// On the first event of a term: the position before it, as a proof that nothing lies between.
    pub previous: Option<Seq>,
    /// When it happened at its source, milliseconds since the epoch.
    pub ts_ms: i64,
    /// The whole envelope, one line of JSON: what a text frame holds.
    pub envelope: Bytes,
}

/// What a replica tells its subscribers, in order for each channel.
///
/// A subscriber at position `pos` of the channel treats them like this:
/// an event or marker with `seq <= pos` is skipped; `seq == pos + 1` follows; a `previous` that [links](crate::links) `pos` to it is
/// told as `term`; anything else as `gap`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The next event.
    Event(Arc<LogEvent>),
    /// A term begins behind `seq`; no event yet.
    Marker {
        /// The channel.
        channel: Channel,
        /// The position that the next event follows.
        seq: Seq,
        /// The last position before the term, where it is known that nothing lies between.
        previous: Option<Seq>,
    },
    /// The log was replaced and nobody proved in time what the channel had: subscribers below `since - 1` are told
    /// `gap` up to there, with the reason `unproven`.
    Unproven {
        /// The channel.
        channel: Channel,
        /// What lies below was written to another log.
        since: Seq,
    },
    /// The log ends below what was already delivered, and goes on with other content from `seq`: subscriptions with a position at or above it
    /// and joined before `epoch` begin anew, with `recovered: false`, behind `seq - 1`.
    Rewound {
        /// The channel.
        channel: Channel,
        /// The position of the event that follows.
        seq: Seq,
        /// Counts the rewinds of the partition; see [`Joined::epoch`].
        epoch: u64,
    },
    /// An entry that is no event: told to subscribers as an `error` with `INTERNAL_ERROR` on the channel, and as `gap` of one position.
    Malformed {
        /// The channel.
        channel: Channel,
        /// The position that has no event.
        seq: Seq,
    },
}

/// Where a replica's notices go. Called by reader tasks, one per partition; must not block.
pub trait Sink: Send + Sync + 'static {
    /// Takes the next notices of a partition.
    fn deliver(&self, partition: Partition, notices: &[Notice]);
}

/// Where a subscriber wants to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// Live from now; with the latest event first when `snapshot`.
    Live {
        /// Begin with the channel's latest event.
        snapshot: bool,
    },
    /// Everything above a position, then live.
    After(Seq),
    /// Everything from the first event whose `ts` is at or above this (milliseconds since the epoch), then live.
    Since(i64),
}

/// What lies before live for one subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The position that the first of `events`, or else the next live event, follows. 0 on a channel without events.
    pub position: Seq,
    /// Nothing between the position asked for and the first event that follows is missing. Only for `After` and `Since`.
    pub recovered: bool,
    /// The oldest event kept; `oldest - 1` can be resumed from.
    pub oldest: Option<Seq>,
    /// In order. Where two do not follow each other the subscriber is told `term` or `gap` as with live notices.
    pub events: Vec<Arc<LogEvent>>,
    /// How many events come before live in all, `events` and what is left included.
    pub replayed: usize,
    /// Whether this reaches the tail: live notices go on from here. Otherwise join again `After` the last of `events` once they
    /// have been written, and ignore live notices until then.
    pub live: bool,
    /// Rewinds with a number at or below this happened before.
    pub epoch: u64,
}

/// Why a subscriber cannot join now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The log is away and the ring does not reach: `REPLAY_UNAVAILABLE`.
    #[error("history cannot be read now: {0}")]
    Unavailable(StoreError),
}

/// Bounds of a replica's memory and patience. The defaults are those of the design.
#[derive(Debug, Clone)]
pub struct ReplicaConfig {
    /// This replica's id.
    pub name: String,
    /// How far back in time the rings are filled at the start.
    pub warm_up: Duration,
    /// Events kept in memory per channel.
    pub ring_events: usize,
    /// Bytes of events kept in memory in all; the least recently used channels are forgotten first.
    pub ring_bytes: usize,
    /// Events handed out by one join.
    pub join_events: usize,
    /// Concurrent reads of history.
    pub history_reads: usize,
    /// How long a channel may stay unproven under a new identity before its subscribers are told.
    pub unproven_after: Duration,
    /// How long one read waits for the log to have something new.
    pub read_wait: Duration,
}

/// Whether the log can be reached, as the readers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upstream {
    /// Every partition is being read.
    Up,
    /// At least one partition cannot be read since this moment.
    Down {
        /// When the last read succeeded.
        since: Instant,
    },
}
