//! The contract of a log store: what Redis does in one script call each, and what the in-memory store does alike.
//!
//! A store is passive. It checks identity, fence and order at every write and answers reads with the proof
//! of what they are worth; leases, terms, healing and tailing are built on it in [`crate::publisher`] and
//! [`crate::tail`], once for both stores.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use akis_model::{Channel, Origin, Seq, TraceContext};
use async_trait::async_trait;
use bytes::Bytes;

use crate::hearing::Hearing;
use crate::listing::{ChannelHead, StoredCandle};

/// How far a new term begins above the last position, so that positions of a lost tail are not met again.
pub const TERM_JUMP: u64 = 1 << 20;

/// Bytes of bodies that one read of history gives: it goes no further once there are so many.
pub const RANGE_BYTES: usize = 8 << 20;

/// How soon a lease that was given back must be taken for the new holder to go on where the old one ended.
pub const HANDOVER: Duration = Duration::from_secs(2);

/// A slice of the channels: the unit of placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub u16);

impl Partition {
    /// The partition of `channel` in a log of `partitions`: FNV-1a of the name, modulo.
    pub fn of(channel: &Channel, partitions: u16) -> Self {
        let hash = channel
            .as_str()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        Self((hash % u64::from(partitions.max(1))) as u16)
    }

    /// All partitions of a log, in order.
    pub fn all(partitions: u16) -> impl Iterator<Item = Self> {
        (0..partitions).map(Self)
    }
}

impl fmt::Display for Partition {
    /// `p07`, as in the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{:02}", self.0)
    }
}

/// Which log this is: Redis' `master_replid`. A log that may have lost something has another one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity(pub Arc<str>);

/// The number that shuts out whoever may no longer publish. The store accepts exactly the one it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// Above that of every fence before it.
    pub number: u64,
    /// Random, so that two fences of the same number differ.
    pub owner: Arc<str>,
}

impl fmt::Display for Fence {
    /// `<number>-<owner>`, as it is stored.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.number, self.owner)
    }
}

impl Fence {
    /// Parses the stored form.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, owner) = text.split_once('-')?;
        Some(Self { number: number.parse().ok()?, owner: owner.into() })
    }
}

/// Under what right a publisher writes: checked by the store before the first write of a batch.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The publisher's name: the venue.
    pub publisher: Arc<str>,
    /// The fence it set in this partition.
    pub fence: Fence,
    /// The identity under which it read the ends of its channels.
    pub identity: Identity,
    /// The highest position it has ever seen in this partition.
    pub seen: Seq,
}

/// One event of a leased publisher, at the position it chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The channel.
    pub channel: Channel,
    /// Its position.
    pub seq: Seq,
    /// On the first event of a term: the position before it, as a proof that nothing lies between.
    pub previous: Option<Seq>,
    /// See [`akis_model::Body::text`].
    pub body: Bytes,
    /// Where it came from. Of this only a trace goes into the log, as `traceparent`.
    pub origin: Origin,
}

/// Tells readers where a term begins before it has an event, and that the channel is whole up to there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// The channel.
    pub channel: Channel,
    /// The position that the next event follows.
    pub seq: Seq,
    /// The last position before the term, as a proof; 0 for a new channel; `None` when it is not known.
    pub previous: Option<Seq>,
}

/// One event of an application: the store chooses its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// The channel.
    pub channel: Channel,
    /// Makes a retry within [`IDEMPOTENCY_TTL`] harmless.
    pub id: Option<String>,
    /// See [`akis_model::Body::text`].
    pub body: Bytes,
    /// The trace that it belongs to, for the log's `traceparent`.
    pub trace: Option<TraceContext>,
}

/// One event as history holds it. The body has not been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its position.
    pub seq: Seq,
    /// See [`Write::previous`].
    pub previous: Option<Seq>,
    /// What the writer stored.
    pub body: Bytes,
}

/// Part of a channel's history, with what it takes to judge it. All of it was read at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// In order.
    pub entries: Vec<Entry>,
    /// Position of the oldest entry kept.
    pub first: Option<Seq>,
    /// Position of the newest entry; of an application's channel also when all have expired, while that is remembered and proven.
    pub last: Option<Seq>,
    /// Whether the channel's end is proven under the present identity.
    pub proven: bool,
    /// What lies below it was written to another log, which may have had more.
    pub since: Seq,
    /// Positions that subscribers may have been told without an event, and that no event of this log lies between, nor between them and the
    /// next one: up to the newest marker, or the one below `since`. `None` while the present identity has not been recorded.
    pub told: Option<RangeInclusive<Seq>>,
    /// How many entries lie above those given; 0 when there are none. A position that was left out inside a term may be counted.
    pub rest: usize,
    /// How many entries are kept.
    pub length: usize,
}

impl Range {
    /// Whether whoever stands at `after` has missed nothing, where there is no entry above it.
    pub(crate) fn ends_at(&self, after: Seq) -> bool {
        (self.proven && self.last == Some(after)) || self.told.as_ref().is_some_and(|told| told.contains(&after))
    }
}

/// Which part of history to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// The oldest `limit` entries with a position above `after`, or as many as have [`RANGE_BYTES`].
    Above {
        /// Not included.
        after: Seq,
        /// At most so many.
        limit: usize,
    },
    /// The newest `limit` entries, or as many as have [`RANGE_BYTES`], in ascending order.
    Newest {
        /// At most so many.
        limit: usize,
    },
    /// The newest `limit` entries with a position below `before`, or as many as have [`RANGE_BYTES`], in ascending order.
    Below {
        /// Not included.
        before: Seq,
        /// At most so many.
        limit: usize,
    },
    /// Exactly this position, when it is there.
    At(Seq),
}

/// What a partition says of itself and of some of its channels, read at one moment, the identity checked first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends {
    /// The present identity, recorded in the partition.
    pub identity: Identity,
    /// See [`Range::since`].
    pub since: Seq,
    /// The highest position ever written.
    pub top: Seq,
    /// The end of the feed.
    pub feed: FeedEnd,
    /// The fence that is set for the publisher asked for.
    pub fence: Option<Fence>,
    /// In the order asked for.
    pub channels: Vec<ChannelEnd>,
}

/// The end of one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelEnd {
    /// Position of the newest entry in history.
    pub last: Option<Seq>,
    /// Whether it is proven under the present identity.
    pub proven: bool,
    /// Where a term that begins now has its first event: the largest of the clock in microseconds, the last position
    /// + [`TERM_JUMP`], `since` and `top` + 1, plus a random number below [`TERM_JUMP`].
    pub term: Seq,
}

/// Id of a feed entry: milliseconds of the server's clock, and a counter within one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FeedId {
    /// Milliseconds since the epoch, by the server's clock.
    pub ms: u64,
    /// Counts within the millisecond.
    pub n: u64,
}

/// The end of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FeedEnd {
    /// Id of the newest entry ever written.
    pub id: FeedId,
    /// Its dense number.
    pub number: u64,
}

/// One entry of a partition's feed. Nothing of it has been checked beyond its shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedEntry {
    /// Its place.
    pub id: FeedId,
    /// Dense: a hole means that entries were missed.
    pub number: u64,
    /// The channel's name; `None` when it is no channel name.
    pub channel: Option<Channel>,
    /// The event's position; of a marker, the position that the next event follows.
    pub seq: Seq,
    /// See [`Write::previous`].
    pub previous: Option<Seq>,
    /// `None` for a marker.
    pub body: Option<Bytes>,
    /// The trace of an event that is sampled.
    pub trace: Option<TraceContext>,
}

/// Where a feed reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedStart {
    /// So far back in time by the server's clock.
    Back(Duration),
    /// Behind this entry.
    Behind(FeedId),
}

/// What one read of the feed gave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FeedBatch {
    /// In order; empty when nothing came in time.
    pub entries: Vec<FeedEntry>,
    /// The identity and the end of the feed, looked at after the entries were read: with every idle read, and
    /// with the others at least once a second.
    pub check: Option<(Identity, FeedEnd)>,
}

/// One reader's connection to the feed of a partition, with a consumer group of its own.
#[async_trait]
pub trait Feed: Send {
    /// Reads on, waiting up to `wait` for the first entry.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] also when the server does not answer in `wait` and a margin; the reader is then
    /// dropped and another one opened behind the last entry that was handled.
    ///
    /// # Cancel safety
    ///
    /// Not safe: a batch may be lost on the way. Drop the reader with the future.
    async fn next(&mut self, wait: Duration) -> Result<FeedBatch, StoreError>;
}

/// What a lease gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Above the number of every lease of this publisher before it, as far as the store remembers.
    pub number: u64,
    /// Whether it goes on where the last one ended: it was given back no more than [`HANDOVER`] ago, or nobody ever had it.
    /// Otherwise its last holder vanished, and with it what it had not written, unless that was this owner.
    pub continues: bool,
    /// Number of the last one that another owner had, 0 when there is none. Whoever remembers to have been given one above it had
    /// no successor. That this owner took the last one proves nothing: the answer may never have reached it.
    pub before: u64,
}

/// A log store. See the module's documentation.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// How many partitions the log has.
    fn partitions(&self) -> u16;

    /// Checks the identity, raises `since` where `seen` lies above everything the log knows, and reads the ends of
    /// `channels` and the fence of `publisher`.
    async fn ends(
        &self,
        partition: Partition,
        channels: &[Channel],
        publisher: Option<&str>,
        seen: Seq,
    ) -> Result<Ends, StoreError>;

    /// Sets the fence of `publisher` in a partition when the stored one is `expected`, or `fence` already.
    ///
    /// # Errors
    ///
    /// [`StoreError::Fenced`] when another one is stored.
    async fn set_fence(
        &self,
        partition: Partition,
        publisher: &str,
        expected: Option<&Fence>,
        fence: &Fence,
        seen: Seq,
    ) -> Result<(), StoreError>;

    /// Appends a batch of one partition, all or nothing. A position that is already there is left as it is and
    /// counts as done, so the same call can be repeated.
    ///
    /// # Errors
    ///
    /// [`StoreError::Changed`] when the identity is not the claim's (the new one is then recorded),
    /// [`StoreError::Fenced`] when the fence is not the stored one.
    async fn publish(&self, partition: Partition, claim: &Claim, writes: &[Write]) -> Result<(), StoreError>;

    /// Writes markers to the feed, and records as proof those whose `previous` is above 0 and the last entry. The newest marker of a channel
    /// is remembered, for those who resume from it.
    ///
    /// # Errors
    ///
    /// As [`Store::publish`], and [`StoreError::TermTooLow`] when one of them begins below `since`.
    async fn mark(&self, partition: Partition, claim: &Claim, markers: &[Marker]) -> Result<(), StoreError>;

    /// Appends events of applications to one partition; gives the position of each, or that of the first event
    /// with the same id.
    async fn append(&self, partition: Partition, events: &[Append], seen: Seq) -> Result<Vec<Seq>, StoreError>;

    /// Keeps closed candles of `channel`, in order, wherever among those that are kept they belong. One that is kept
    /// already stays as it is. No event comes of it.
    ///
    /// # Errors
    ///
    /// As [`Store::publish`].
    async fn keep_candles(
        &self,
        partition: Partition,
        claim: &Claim,
        channel: &Channel,
        candles: &[StoredCandle],
    ) -> Result<(), StoreError>;

    /// Reads history. Writes nothing.
    async fn range(&self, channel: &Channel, select: Select) -> Result<Range, StoreError>;

    /// The newest `limit` closed candles of `channel` that opened before `before_ms`, in order. An event that closes a
    /// candle is kept by the call that writes it, unless that candle or a later one is kept already.
    async fn candles(
        &self,
        channel: &Channel,
        before_ms: Option<u64>,
        limit: usize,
    ) -> Result<Vec<StoredCandle>, StoreError>;

    /// The channels whose names begin with `prefix` and that have an event, in order, at most
    /// [`LISTED`](crate::LISTED). Not one moment: a channel that begins meanwhile may be missing.
    async fn channels(&self, prefix: &str) -> Result<Vec<ChannelHead>, StoreError>;

    /// Takes a publisher's lease for `ttl` when nobody else holds it. For one `ttl` after the identity of the log became
    /// new only the owner that the new log has recorded may take it. Whoever finds it held leaves a note of when it heard last.
    ///
    /// # Errors
    ///
    /// [`StoreError::Held`], and [`StoreError::HeardElsewhere`] for who is deaf.
    async fn take_lease(
        &self,
        publisher: &str,
        owner: &str,
        ttl: Duration,
        hearing: Hearing,
    ) -> Result<Lease, StoreError>;

    /// Renews the lease that `owner` holds by its own clock. Within one `ttl` of a new identity it also succeeds
    /// when the new log knows of no lease: nobody can have taken it since.
    ///
    /// # Errors
    ///
    /// [`StoreError::Held`] when it is no longer this owner's. [`StoreError::HeardElsewhere`] when the owner is deaf and
    /// somebody who waits for the lease has heard more: it is free then, and not as if it had been given back.
    async fn renew_lease(
        &self,
        publisher: &str,
        owner: &str,
        ttl: Duration,
        hearing: Hearing,
    ) -> Result<Lease, StoreError>;

    /// Gives a lease back; nothing happens when it is not this owner's.
    async fn release_lease(&self, publisher: &str, owner: &str) -> Result<(), StoreError>;

    /// Opens a reader of a partition's feed: makes the group `gw:<replica>:<generation>` at `start` and removes the
    /// replica's groups of other generations.
    async fn open_feed(
        &self,
        partition: Partition,
        replica: &str,
        generation: u64,
        start: FeedStart,
    ) -> Result<Box<dyn Feed>, StoreError>;

    /// Says that a replica is alive, for `ttl`; and removes groups of replicas whose key has been gone for `grace`.
    async fn announce_replica(&self, replica: &str, ttl: Duration, grace: Duration) -> Result<(), StoreError>;

    /// Removes a replica's key and groups, on an orderly stop.
    async fn forget_replica(&self, replica: &str) -> Result<(), StoreError>;

    /// Answers when the store can be reached and written to.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// Why a call did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The log's identity is not the one named. Nothing was written.
    #[error("the log was replaced by another one")]
    Changed,
    /// The fence is not the stored one. Nothing was written.
    #[error("another publisher has taken over")]
    Fenced,
    /// A term would begin below `since`. Nothing was written.
    #[error("the term begins below what another log may have had")]
    TermTooLow,
    /// The lease cannot be had.
    #[error("the lease is held by another publisher")]
    Held {
        /// Another owner has it; otherwise it is free, and only too early after a new identity, or no longer this owner's.
        by_another: bool,
    },
    /// The lease is for somebody else who waits for it, and hears what this owner does not.
    #[error("another publisher hears what this one does not")]
    HeardElsewhere,
    /// No answer, or one that says "not now": whether a write was done is unknown.
    #[error("the log cannot be reached: {0}")]
    Unavailable(Unavailable),
    /// The store answered what it never should.
    #[error("unexpected answer from the log: {0}")]
    Broken(String),
}

/// Why a store cannot be used now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {message}")]
pub struct Unavailable {
    /// A word for metrics: `io`, `timeout`, or Redis' own (`LOADING`, `READONLY`, `OOM`, …).
    pub kind: &'static str,
    /// What was said.
    pub message: String,
}

impl Unavailable {
    /// Whether the server said so, and was not silent.
    pub(crate) fn is_reply(&self) -> bool {
        !matches!(self.kind, "io" | "timeout")
    }
}
