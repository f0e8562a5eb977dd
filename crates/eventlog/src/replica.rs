//! A gateway replica's view of the log: follows every partition, keeps rings, and lets subscribers join.
//!
//! Each partition has one reader task. What it reads goes into the partition's [`Tail`](crate::tail::Tail), which decides what
//! that means (an event, a hole to repair, a log that went back), and from there to the [`Sink`]. A subscriber is
//! registered with the sink first and then joined: [`Replica::join`] computes what lies before live and
//! hands it over while the tail stands still, so nothing falls between the two.

mod join;
mod lookup;
mod reader;
mod reads;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use akis_model::{Channel, Seq, TraceContext};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use self::lookup::Excerpt;
use self::reader::Reader;
use self::reads::Reads;
use crate::errors::ErrorCounts;
use crate::store::{Append, Partition, Store, StoreError};
use crate::tail::Tail;

/// How long the log may not answer before it counts as away. Above a read's own deadline, and together with what a
/// fresh connection takes well below the 5 s in which clients are told.
const AWAY_AFTER: Duration = Duration::from_millis(3500);

/// How often the replica says that it is alive, and for how long that holds.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
const ALIVE_TTL: Duration = Duration::from_secs(30);

/// How long a replica must be gone before its groups are removed.
const GONE_GRACE: Duration = Duration::from_secs(600);

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
    /// Of an event that has just come from the feed and is sampled.
    pub trace: Option<Box<Traced>>,
}

/// What is known of a sampled event on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traced {
    /// What the reading of it hangs from.
    pub context: TraceContext,
    /// When it was appended to the feed, milliseconds since the epoch by the log's clock.
    pub logged_ms: u64,
}

/// What a replica tells its subscribers, in order for each channel. Nothing is told of channels that nobody has joined.
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
    /// A channel that should speak has been silent for much longer than it used to be, or speaks again: told to subscribers
    /// as it is, without effect on their positions.
    Staleness {
        /// The channel.
        channel: Channel,
        /// How long it has been silent; `None` when it speaks again.
        silent_for: Option<Duration>,
    },
}

impl Notice {
    /// The channel that it is about.
    pub fn channel(&self) -> &Channel {
        match self {
            Self::Event(event) => &event.channel,
            Self::Marker { channel, .. }
            | Self::Unproven { channel, .. }
            | Self::Rewound { channel, .. }
            | Self::Malformed { channel, .. }
            | Self::Staleness { channel, .. } => channel,
        }
    }
}

/// Where a replica's notices go. Called by reader tasks, one per partition; must not block.
pub trait Sink: Send + Sync + 'static {
    /// Takes the next notices of a partition.
    fn deliver(&self, partition: Partition, notices: &[Notice]);

    /// Told before what a read of the feed brought is delivered, once the replica is warm: the oldest of it was appended at
    /// `oldest_ms`, milliseconds since the epoch by the log's clock.
    fn arrived(&self, partition: Partition, oldest_ms: u64) {
        let _ = (partition, oldest_ms);
    }
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
    /// The oldest event kept, or one of the oldest; `oldest - 1` can be resumed from. `None` when there is none, or the log cannot say.
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
    /// Channels kept in memory that nobody subscribes to; the least recently used are forgotten first.
    pub ring_channels: usize,
    /// Events handed out by one join.
    pub join_events: usize,
    /// Concurrent reads of history for joins; others wait in the order in which they came.
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

impl ReplicaConfig {
    /// The bounds of the design.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            warm_up: Duration::from_secs(30),
            ring_events: 512,
            ring_bytes: 256 << 20,
            ring_channels: 100_000,
            join_events: 1000,
            history_reads: 32,
            unproven_after: Duration::from_secs(10),
            read_wait: Duration::from_millis(500),
        }
    }
}

/// One partition as its reader and its joins share it.
struct View {
    tail: Mutex<Tail>,
    progress: Mutex<Progress>,
}

/// How the reader of one partition gets on.
#[derive(Debug, Clone, Copy)]
struct Progress {
    /// When the log last answered a read.
    read_at: Instant,
    /// How much older the last entry taken in was than the newest of the feed, by the log's clock, when that was last
    /// looked at.
    behind: Duration,
    /// Whether everything written before the start has been read.
    warm: bool,
}

/// Counts of a replica since its start, by what happened.
#[derive(Debug, Default)]
pub struct ReplicaCounts {
    /// Entries read from the feeds.
    pub entries: AtomicU64,
    /// Entries that were no event. Those of channels that nobody subscribes to are found when somebody does.
    pub malformed: AtomicU64,
    /// Holes in a channel that history was asked for.
    pub repairs: AtomicU64,
    /// Times that a partition was compared with history.
    pub comparisons: AtomicU64,
    /// Connections of readers that ended by an error.
    pub reconnects: AtomicU64,
    /// Reads of history for joins.
    pub history_reads: AtomicU64,
    /// Calls that failed, by kind.
    pub errors: ErrorCounts,
}

impl ReplicaCounts {
    /// Counts an entry that is no event, and says so.
    fn malformed(&self, channel: &Channel, seq: Seq) {
        self.malformed.fetch_add(1, Ordering::Relaxed);
        warn!(%channel, seq = seq.get(), "an entry of the log is no event");
    }
}

/// A running view of the log. See the module's documentation.
pub struct Replica {
    store: Arc<dyn Store>,
    config: ReplicaConfig,
    views: Vec<Arc<View>>,
    reads: Reads,
    upstream: watch::Receiver<Upstream>,
    counts: Arc<ReplicaCounts>,
    running: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Replica {
    /// Starts following the log until `stop`.
    pub fn start(
        store: Arc<dyn Store>,
        config: ReplicaConfig,
        sink: Arc<dyn Sink>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let partitions = store.partitions();
        let progress = Progress { read_at: Instant::now(), behind: Duration::ZERO, warm: false };
        let views: Vec<Arc<View>> = Partition::all(partitions)
            .map(|_| {
                let tail = Mutex::new(Tail::new(&config, partitions));
                Arc::new(View { tail, progress: Mutex::new(progress) })
            })
            .collect();
        let (upstream, upstream_seen) = watch::channel(Upstream::Up);
        let counts = Arc::new(ReplicaCounts::default());
        let mut readers = JoinSet::new();
        for (partition, view) in Partition::all(partitions).zip(&views) {
            let reader = Reader::new(
                Arc::clone(&store),
                partition,
                config.clone(),
                Arc::clone(view),
                Arc::clone(&sink),
                Arc::clone(&counts),
            );
            readers.spawn(reader.run(stop.clone()));
        }
        let running =
            tokio::spawn(watch_over(Arc::clone(&store), config.name.clone(), views.clone(), upstream, readers, stop));
        Arc::new(Self {
            reads: Reads::new(Arc::clone(&store), Arc::clone(&counts), config.history_reads),
            store,
            config,
            views,
            upstream: upstream_seen,
            counts,
            running: tokio::sync::Mutex::new(Some(running)),
        })
    }

    /// Whether the log can be reached, as it changes.
    pub fn upstream(&self) -> watch::Receiver<Upstream> {
        self.upstream.clone()
    }

    /// How far this replica is behind the log: how long ago the log last answered the reader that has waited longest, and how
    /// old what it gave then was. Up to [`ReplicaConfig::read_wait`] is normal when nothing happens.
    pub fn tail_age(&self) -> Duration {
        let age = |view: &Arc<View>| {
            let progress = view.progress.lock();
            progress.read_at.elapsed() + progress.behind
        };
        self.views.iter().map(age).max().unwrap_or_default()
    }

    /// Whether the rings have been filled from the feeds.
    pub fn is_warm(&self) -> bool {
        self.views.iter().all(|view| view.progress.lock().warm)
    }

    /// Counts since the start.
    pub fn counts(&self) -> &ReplicaCounts {
        &self.counts
    }

    /// Nobody on this replica subscribes to `channel` any more.
    pub fn leave(&self, channel: &Channel) {
        self.view(channel).tail.lock().unwatch(channel);
    }

    /// Appends events of applications. The results are in the order of the events.
    ///
    /// # Errors
    ///
    /// Each event's own. After [`StoreError::Unavailable`] the outcome is unknown: repeat with the same id.
    pub async fn append(&self, events: Vec<Append>) -> Vec<Result<Seq, StoreError>> {
        let mut by_partition: Vec<(Partition, Vec<usize>)> = Vec::new();
        for (i, event) in events.iter().enumerate() {
            let partition = Partition::of(&event.channel, self.store.partitions());
            match by_partition.iter_mut().find(|(known, _)| *known == partition) {
                Some((_, indices)) => indices.push(i),
                None => by_partition.push((partition, vec![i])),
            }
        }
        let mut results: Vec<Result<Seq, StoreError>> =
            events.iter().map(|_| Err(StoreError::Broken("no answer for this event".to_owned()))).collect();
        for (partition, indices) in by_partition {
            let batch: Vec<Append> = indices.iter().map(|&i| events[i].clone()).collect();
            let seen = self.views[usize::from(partition.0)].tail.lock().seen();
            match self.store.append(partition, &batch, seen).await {
                Ok(seqs) => indices.iter().zip(seqs).for_each(|(&i, seq)| results[i] = Ok(seq)),
                Err(error) => {
                    self.counts.errors.count(&error);
                    indices.iter().for_each(|&i| results[i] = Err(error.clone()));
                }
            }
        }
        results
    }

    /// Waits until the readers have ended, after `stop`.
    pub async fn stopped(&self) {
        if let Some(running) = self.running.lock().await.take()
            && let Err(error) = running.await
        {
            error!(%error, "failed to stop reading the log");
        }
    }

    fn view(&self, channel: &Channel) -> &Arc<View> {
        &self.views[usize::from(Partition::of(channel, self.store.partitions()).0)]
    }
}

/// Owns the readers: tells whether the log can be reached, says that the replica is alive, and waits for the end.
async fn watch_over(
    store: Arc<dyn Store>,
    name: String,
    views: Vec<Arc<View>>,
    upstream: watch::Sender<Upstream>,
    mut readers: JoinSet<()>,
    stop: CancellationToken,
) {
    let announcing = async {
        let mut every = interval(ALIVE_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            if let Err(error) = store.announce_replica(&name, ALIVE_TTL, GONE_GRACE).await {
                // The readers notice a log that is away; this is only about being listed.
                tracing::debug!(%error, "failed to announce the replica");
            }
        }
    };
    let judging = async {
        let mut every = interval(Duration::from_millis(250));
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let oldest = views.iter().map(|view| view.progress.lock().read_at).min();
            judge_upstream(&upstream, oldest.unwrap_or_else(Instant::now));
        }
    };
    tokio::select! {
        () = async { tokio::join!(announcing, judging); } => {}
        () = stop.cancelled() => {}
    }
    while readers.join_next().await.is_some() {}
    if let Err(error) = store.forget_replica(&name).await {
        warn!(%error, "failed to remove this replica's groups; another replica will");
    }
}

fn judge_upstream(upstream: &watch::Sender<Upstream>, oldest_read: Instant) {
    let away = oldest_read.elapsed() > AWAY_AFTER;
    upstream.send_if_modified(|state| match (*state, away) {
        (Upstream::Up, true) => {
            error!("the log cannot be reached: clients are told, rings still serve");
            *state = Upstream::Down { since: oldest_read };
            true
        }
        (Upstream::Down { since }, false) => {
            info!(away_ms = since.elapsed().as_millis() as u64, "the log can be reached again");
            *state = Upstream::Up;
            true
        }
        (Upstream::Up, false) | (Upstream::Down { .. }, true) => false,
    });
}
