//! Who subscribes to what on this replica: takes the log's notices to the shards and guests that want them.
//!
//! Knows which shards have subscribers of a channel, not which subscribers: those are each shard's own. A channel that somebody wants has a
//! number, so that its name is looked up once for a batch and shard, and never for a delivery.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use akis_eventlog::{Notice, Partition, Sink};
use akis_model::Channel;
use parking_lot::Mutex;
use prometheus::Histogram;
use tokio::sync::Notify;

use crate::age::{self, Arrival};
use crate::batch::{Batch, BatchBuilder, TopicId};
use crate::clock::Now;
use crate::session::{Session, Surroundings};
use crate::shard::Inbox;
use crate::solo::Solo;

/// Shards that a replica may have; the width of a mask.
pub(crate) const MAX_SHARDS: usize = 64;

/// A session outside the shards, as the hub sees it.
pub(crate) struct Peer {
    /// Names the connection in this process.
    pub(crate) id: u64,
    /// Its session. Held for a few steps of plain code at a time.
    pub(crate) solo: Mutex<Solo>,
    /// Told when the session has something to write, or an earlier deadline.
    pub(crate) wake: Notify,
    /// Whether the batch that is being delivered has touched it already.
    is_touched: AtomicBool,
}

impl Peer {
    /// A peer that nothing is delivered to yet.
    pub(crate) fn new(id: u64, session: Session) -> Arc<Self> {
        let solo = Mutex::new(Solo::new(session));
        Arc::new(Self { id, solo, wake: Notify::new(), is_touched: AtomicBool::new(false) })
    }
}

/// Who wants one channel.
struct Entry {
    id: TopicId,
    /// Shards with subscribers, a bit for each.
    shards: u64,
    guests: HashMap<u64, Arc<Peer>, foldhash::fast::RandomState>,
}

impl Entry {
    fn is_unused(&self) -> bool {
        self.shards == 0 && self.guests.is_empty()
    }
}

/// The channels of one partition that somebody wants.
#[derive(Default)]
struct Shelf {
    /// Held while subscribers come and go, over the call that tells the log. The log delivers under a lock of its own, so that call must
    /// not be made under `channels`.
    changing: Mutex<()>,
    /// When the oldest of what has been read and not yet delivered was appended to the log, milliseconds since the epoch;
    /// 0 for nothing.
    arrived_ms: AtomicU64,
    channels: Mutex<HashMap<Channel, Entry, foldhash::fast::RandomState>>,
}

/// Gives out the numbers of channels. One that was given back is given out again with another generation, because batches with the old
/// one may still be on their way.
#[derive(Default)]
struct Numbers {
    free: Vec<TopicId>,
    next: u32,
}

impl Numbers {
    fn take(&mut self) -> TopicId {
        if let Some(TopicId { index, generation }) = self.free.pop() {
            return TopicId { index, generation: generation.wrapping_add(1) };
        }
        let id = TopicId { index: self.next, generation: 0 };
        self.next += 1;
        id
    }
}

/// See the module's documentation.
pub(crate) struct Hub {
    shelves: Box<[Shelf]>,
    numbers: Mutex<Numbers>,
    inboxes: Vec<Arc<Inbox>>,
    surroundings: Arc<Surroundings>,
    /// How late what is read is, by partition.
    read_delays: Box<[Histogram]>,
}

impl Hub {
    /// An index for a log of so many partitions, with a shard behind each inbox.
    pub(crate) fn new(partitions: u16, inboxes: Vec<Arc<Inbox>>, surroundings: Arc<Surroundings>) -> Arc<Self> {
        let shelves = (0..partitions).map(|_| Shelf::default()).collect();
        let read_delays = Partition::all(partitions).map(|of| surroundings.metrics.read_delay(of)).collect();
        Arc::new(Self { shelves, numbers: Mutex::default(), inboxes, surroundings, read_delays })
    }

    /// How many shards there are.
    pub(crate) fn shards(&self) -> usize {
        self.inboxes.len().max(1)
    }

    /// The partition of a channel.
    pub(crate) fn partition(&self, channel: &Channel) -> Partition {
        Partition::of(channel, u16::try_from(self.shelves.len()).unwrap_or(u16::MAX))
    }

    fn shelf(&self, channel: &Channel) -> Option<&Shelf> {
        self.shelves.get(usize::from(self.partition(channel).0))
    }

    /// Delivers the channel's notices to a shard from now on. Gives the number under which they come.
    pub(crate) fn enter(&self, channel: &Channel, shard: usize) -> Option<TopicId> {
        self.register(channel, |entry| entry.shards |= 1 << shard)
    }

    /// Delivers them no longer. Calls `last` when nobody is left.
    pub(crate) fn exit(&self, channel: &Channel, shard: usize, last: impl FnOnce()) {
        self.unregister(channel, |entry| entry.shards &= !(1 << shard), last);
    }

    /// Delivers the channel's notices to a guest from now on.
    pub(crate) fn add(&self, channel: &Channel, peer: &Arc<Peer>) {
        let added = self.register(channel, |entry| {
            entry.guests.insert(peer.id, Arc::clone(peer));
        });
        if added.is_some() {
            self.surroundings.metrics.subscriptions.inc();
        }
    }

    /// Delivers them no longer. Calls `last` when nobody is left.
    pub(crate) fn remove(&self, channel: &Channel, peer: &Peer, last: impl FnOnce()) {
        let mut was_there = false;
        self.unregister(channel, |entry| was_there = entry.guests.remove(&peer.id).is_some(), last);
        if was_there {
            self.surroundings.metrics.subscriptions.dec();
        }
    }

    fn register(&self, channel: &Channel, add: impl FnOnce(&mut Entry)) -> Option<TopicId> {
        let shelf = self.shelf(channel)?;
        let _changing = shelf.changing.lock();
        let mut channels = shelf.channels.lock();
        let entry = channels.entry(channel.clone()).or_insert_with(|| Entry {
            id: self.numbers.lock().take(),
            shards: 0,
            guests: HashMap::default(),
        });
        add(entry);
        Some(entry.id)
    }

    fn unregister(&self, channel: &Channel, remove: impl FnOnce(&mut Entry), last: impl FnOnce()) {
        let Some(shelf) = self.shelf(channel) else { return };
        let _changing = shelf.changing.lock();
        let mut channels = shelf.channels.lock();
        let Some(entry) = channels.get_mut(channel) else { return };
        remove(entry);
        if entry.is_unused() {
            self.numbers.lock().free.push(entry.id);
            channels.remove(channel);
            drop(channels);
            last();
        }
    }

    /// Calls `unused` when nobody subscribes to the channel.
    pub(crate) fn check_unused(&self, channel: &Channel, unused: impl FnOnce()) {
        let Some(shelf) = self.shelf(channel) else { return };
        let _changing = shelf.changing.lock();
        let is_used = shelf.channels.lock().contains_key(channel);
        if !is_used {
            unused();
        }
    }

    /// Sorts notices by who wants them: into the guests' sessions, and into a batch for the shards whose mask is given.
    fn sort(&self, shelf: &Shelf, partition: Partition, notices: &[Notice]) -> (Vec<Arc<Peer>>, Batch, u64) {
        let now = Now::read();
        let mut touched: Vec<Arc<Peer>> = Vec::new();
        let logged_ms = i64::try_from(shelf.arrived_ms.swap(0, Ordering::Relaxed)).unwrap_or(i64::MAX);
        let arrival = (logged_ms > 0).then_some(Arrival { logged_ms, read_at: now.instant });
        let mut batch = BatchBuilder::new(partition, arrival);
        let mut shards = 0;
        let channels = shelf.channels.lock();
        for notice in notices {
            let channel = notice.channel();
            let Some(entry) = channels.get(channel) else { continue };
            if let Notice::Event(event) = notice
                && let Some(traced) = &event.trace
            {
                let mark = age::read(&self.surroundings.metrics, **traced, channel, partition.to_string());
                batch.mark(entry.id, mark);
            }
            for peer in entry.guests.values() {
                let should_wake = peer.solo.lock().on_notice(channel, notice, now);
                if should_wake && !peer.is_touched.swap(true, Ordering::Relaxed) {
                    touched.push(Arc::clone(peer));
                }
            }
            if entry.shards != 0 {
                shards |= entry.shards;
                batch.push(entry.id, notice);
            }
        }
        drop(channels);
        (touched, batch.finish(), shards)
    }
}

impl Sink for Hub {
    fn arrived(&self, partition: Partition, oldest_ms: u64) {
        let at = usize::from(partition.0);
        let (Some(shelf), Some(delays)) = (self.shelves.get(at), self.read_delays.get(at)) else { return };
        shelf.arrived_ms.store(oldest_ms, Ordering::Relaxed);
        let now_ms = u64::try_from(Now::read().unix_ms).unwrap_or_default();
        delays.observe(now_ms.saturating_sub(oldest_ms) as f64 / 1e3);
    }

    fn deliver(&self, partition: Partition, notices: &[Notice]) {
        let Some(shelf) = self.shelves.get(usize::from(partition.0)) else { return };
        let (touched, batch, shards) = self.sort(shelf, partition, notices);
        for peer in touched {
            peer.is_touched.store(false, Ordering::Relaxed);
            peer.wake.notify_one();
        }
        if shards != 0 {
            let batch = Arc::new(batch);
            for (shard, inbox) in self.inboxes.iter().enumerate() {
                if shards & (1 << shard) != 0 {
                    inbox.deliver(&batch);
                }
            }
        }
        let events = notices.iter().filter(|notice| matches!(notice, Notice::Event(_))).count();
        self.surroundings.metrics.events.inc_by(events as u64);
    }
}
