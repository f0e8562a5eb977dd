//! A leased publisher: the only writer of its channels while it holds the lease.
//!
//! It counts positions itself, keeps what it published in the last seconds, and when the log was replaced
//! writes what is missing again under the same positions. One task keeps the lease, one task per partition writes;
//! [`lane`] tells how.

mod channels;
mod floors;
mod lane;
mod lease;
mod pending;
mod state;
mod trade;
mod warm;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use akis_model::{Body, Channel};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::lane::Lane;
use self::lease::LeaseKeeper;
use self::pending::Pending;
use crate::errors::ErrorCounts;
use crate::hearing::Hearing;
use crate::listing::{StoredCandle, closed_candle};
use crate::store::{Partition, Store, Write};

/// One event to be published, in the order of its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The channel.
    pub channel: Channel,
    /// What happened.
    pub body: Body,
    /// Events of the channel that were lost right before this one, at the venue or on the way from it: their
    /// positions are left out, so that subscribers are told `gap`. Of the first trade of a process one more where others may have been before
    /// it: in a log that has none that one is not told.
    pub missing_before: u64,
}

/// Whether a publisher may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Another publisher holds the lease, or nobody could take it yet. What is offered is not written; the latest
    /// trades are remembered, so that none is missing should the holder vanish.
    Standby,
    /// Holds the lease and writes.
    Active,
    /// Held the lease last, and the log is away: newest-wins kinds keep the newest, the others a bounded queue.
    Away,
}

/// Bounds of a publisher.
#[derive(Debug, Clone)]
pub struct PublisherConfig {
    /// The publisher's name: the venue.
    pub name: Arc<str>,
    /// How long a lease lasts without renewal.
    pub ttl: Duration,
    /// How long what was published is kept to heal a log that lost it.
    pub memory: Duration,
    /// Events of one trades or application channel that wait while the log is away; the oldest are dropped, counted
    /// and told as `gap`.
    pub queue_per_channel: usize,
    /// Who is told of what has been written.
    pub observer: Option<Arc<dyn Observer>>,
}

/// Told of what a publisher does, for metrics and traces. Called by its tasks; must not block.
pub trait Observer: std::fmt::Debug + Send + Sync {
    /// The log has acknowledged a batch whose call began at `began`.
    fn written(&self, partition: Partition, writes: &[Write], began: SystemTime);
}

impl PublisherConfig {
    /// The bounds of the design, for one venue.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            ttl: Duration::from_secs(5),
            memory: Duration::from_secs(10),
            queue_per_channel: 5000,
            observer: None,
        }
    }
}

/// Counts of a publisher since its start.
#[derive(Debug, Default)]
pub struct PublisherCounts {
    /// Events that the log acknowledged.
    pub published: AtomicU64,
    /// Events that were dropped because too many waited.
    pub dropped: AtomicU64,
    /// Events that were written again under the same position after the log had lost them.
    pub healed: AtomicU64,
    /// Trades that were offered and not written because the log had them already.
    pub repeated: AtomicU64,
    /// Calls that failed, by kind.
    pub errors: ErrorCounts,
}

/// Hands events to a running publisher. Cloning is cheap.
#[derive(Clone)]
pub struct PublisherHandle {
    lanes: Arc<[Inbox]>,
    role: watch::Receiver<Role>,
    heard: Arc<Heard>,
    counts: Arc<PublisherCounts>,
}

/// What was said last of what the publisher hears, and when.
struct Heard(parking_lot::Mutex<(Hearing, Instant)>);

impl Default for Heard {
    fn default() -> Self {
        Self(parking_lot::Mutex::new((Hearing::Unknown, Instant::now())))
    }
}

impl Heard {
    fn set(&self, hearing: Hearing) {
        *self.0.lock() = (hearing, Instant::now());
    }

    fn now(&self) -> Hearing {
        let (hearing, said_at) = *self.0.lock();
        hearing.after(said_at.elapsed())
    }
}

/// Where the events of one partition wait for its lane.
#[derive(Clone)]
struct Inbox {
    pending: Arc<parking_lot::Mutex<Pending>>,
    offered: Arc<Notify>,
}

impl PublisherHandle {
    /// Offers an event. Never waits: a standby does not write it, and what happens when too many wait is said at [`Role::Away`].
    pub fn offer(&self, event: Event) {
        self.offer_all([event]);
    }

    /// Offers events that came together: they are written together too, in as few calls as there are partitions in them.
    pub fn offer_all(&self, events: impl IntoIterator<Item = Event>) {
        let mut offered = vec![false; self.lanes.len()];
        for event in events {
            let at = self.lane(&event.channel);
            let Some(inbox) = self.lanes.get(at) else { continue };
            let dropped = inbox.pending.lock().offer(event);
            self.counts.dropped.fetch_add(dropped, Ordering::Relaxed);
            offered[at] = true;
        }
        for (inbox, _) in self.lanes.iter().zip(offered).filter(|(_, offered)| *offered) {
            inbox.offered.notify_one();
        }
    }

    /// Offers how channels are (`channel_status`), one event each, in front of what is offered after it. Written where the log says
    /// otherwise; a standby drops them.
    pub fn offer_states(&self, states: impl IntoIterator<Item = Event>) {
        for state in states {
            if let Some(inbox) = self.inbox(&state.channel) {
                inbox.pending.lock().offer_state(state);
            }
        }
        self.lanes.iter().for_each(|inbox| inbox.offered.notify_one());
    }

    /// Keeps closed candles of the past, in order; no event comes of them. A standby drops them, and when too many wait
    /// the newcomers are dropped.
    pub fn keep_candles(&self, channel: &Channel, candles: Vec<Body>) {
        let Some(inbox) = self.inbox(channel) else { return };
        let stored = |body: Body| {
            let open_ms = closed_candle(channel, body.text())?;
            Some(StoredCandle { open_ms, body: body.text().clone() })
        };
        inbox.pending.lock().keep_candles(channel, candles.into_iter().filter_map(stored).collect());
        inbox.offered.notify_one();
    }

    /// Names a channel before it has an event, so that a new term of it is announced when the lease is taken.
    pub fn declare(&self, channel: &Channel) {
        if let Some(inbox) = self.inbox(channel) {
            inbox.pending.lock().declare(channel);
            inbox.offered.notify_one();
        }
    }

    /// Says what is heard now of what is published. To be said again and again: a publisher that is deaf leaves its lease to
    /// one that stands by and hears.
    pub fn set_hearing(&self, hearing: Hearing) {
        self.heard.set(hearing);
    }

    /// The publisher's role, as it changes. [`Role::Active`] is told once more when the log was replaced by one that may have lost candles,
    /// and how channels are.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.role.clone()
    }

    /// Counts since the start.
    pub fn counts(&self) -> &PublisherCounts {
        &self.counts
    }

    fn inbox(&self, channel: &Channel) -> Option<&Inbox> {
        self.lanes.get(self.lane(channel))
    }

    fn lane(&self, channel: &Channel) -> usize {
        Partition::of(channel, self.lanes.len() as u16).0.into()
    }
}

/// A running publisher.
pub struct Publisher;

impl Publisher {
    /// Starts a publisher. When `stop` is cancelled it writes what waits, gives the lease back and ends; whoever
    /// started it waits for that on the handle given back. A lease under which not all could be written is not given back.
    pub fn start(
        store: Arc<dyn Store>,
        config: PublisherConfig,
        stop: CancellationToken,
    ) -> (PublisherHandle, JoinHandle<()>) {
        let counts = Arc::new(PublisherCounts::default());
        let lanes: Arc<[Inbox]> = Partition::all(store.partitions())
            .map(|_| Inbox {
                pending: Arc::new(parking_lot::Mutex::new(Pending::new(config.queue_per_channel))),
                offered: Arc::new(Notify::new()),
            })
            .collect();
        let (role, role_seen) = watch::channel(Role::Standby);
        let heard = Arc::new(Heard::default());
        let keeper = Arc::new(LeaseKeeper::new(Arc::clone(&store), &config, Arc::clone(&heard), role));
        let handle = PublisherHandle { lanes: Arc::clone(&lanes), role: role_seen, heard, counts: Arc::clone(&counts) };
        let running = tokio::spawn(run(store, config, lanes, keeper, counts, stop));
        (handle, running)
    }
}

async fn run(
    store: Arc<dyn Store>,
    config: PublisherConfig,
    inboxes: Arc<[Inbox]>,
    keeper: Arc<LeaseKeeper>,
    counts: Arc<PublisherCounts>,
    stop: CancellationToken,
) {
    let mut lanes = JoinSet::new();
    for (partition, inbox) in Partition::all(store.partitions()).zip(inboxes.iter().cloned()) {
        let lane =
            Lane::new(Arc::clone(&store), partition, config.clone(), inbox, Arc::clone(&keeper), Arc::clone(&counts));
        lanes.spawn(lane.run(stop.clone()));
    }
    let lanes_done = CancellationToken::new();
    let keeping = keeper.keep(&inboxes, &counts, lanes_done.clone());
    let finishing = async {
        stop.cancelled().await;
        let mut wrote_all = true;
        while let Some(ended) = lanes.join_next().await {
            wrote_all &= ended.unwrap_or(false);
        }
        lanes_done.cancel();
        wrote_all
    };
    let ((), wrote_all) = tokio::join!(keeping, finishing);
    keeper.end(wrote_all).await;
}
