//! Who subscribes to what: takes the log's notices to the sessions that want them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use akis_eventlog::{Notice, Partition, Sink};
use akis_model::Channel;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::clock::Now;
use crate::session::{Session, Surroundings};

/// One connection as the hub sees it.
pub(crate) struct Peer {
    /// Names the connection in this process.
    pub(crate) id: u64,
    /// Its session. Held for a few steps of plain code at a time.
    pub(crate) session: Mutex<Session>,
    /// Told when the session has something to write, or an earlier deadline.
    pub(crate) wake: Notify,
    /// Whether the batch that is being delivered has touched it already.
    is_touched: AtomicBool,
}

impl Peer {
    /// A peer that nothing is delivered to yet.
    pub(crate) fn new(id: u64, session: Session) -> Arc<Self> {
        Arc::new(Self { id, session: Mutex::new(session), wake: Notify::new(), is_touched: AtomicBool::new(false) })
    }
}

type Subscribers = HashMap<u64, Arc<Peer>, foldhash::fast::RandomState>;

/// The subscribers of the channels of one partition.
#[derive(Default)]
struct Shelf {
    /// Held while subscribers come and go, over the call that tells the log. The log delivers under a lock of its own, so that call must
    /// not be made under `channels`.
    changing: Mutex<()>,
    channels: RwLock<HashMap<Channel, Subscribers, foldhash::fast::RandomState>>,
}

/// The index of all subscribers of this replica.
pub(crate) struct Hub {
    shelves: Box<[Shelf]>,
    surroundings: Arc<Surroundings>,
}

impl Hub {
    /// An index for a log of so many partitions.
    pub(crate) fn new(partitions: u16, surroundings: Arc<Surroundings>) -> Arc<Self> {
        let shelves = (0..partitions).map(|_| Shelf::default()).collect();
        Arc::new(Self { shelves, surroundings })
    }

    fn shelf(&self, channel: &Channel) -> Option<&Shelf> {
        let partition = Partition::of(channel, u16::try_from(self.shelves.len()).unwrap_or(u16::MAX));
        self.shelves.get(usize::from(partition.0))
    }

    /// Delivers the channel's notices to `peer` from now on.
    pub(crate) fn add(&self, channel: &Channel, peer: &Arc<Peer>) {
        let Some(shelf) = self.shelf(channel) else { return };
        let _changing = shelf.changing.lock();
        shelf.channels.write().entry(channel.clone()).or_default().insert(peer.id, Arc::clone(peer));
        self.surroundings.metrics.subscriptions.inc();
    }

    /// Delivers them no longer. Calls `last` when nobody is left.
    pub(crate) fn remove(&self, channel: &Channel, peer: &Peer, last: impl FnOnce()) {
        let Some(shelf) = self.shelf(channel) else { return };
        let _changing = shelf.changing.lock();
        let mut channels = shelf.channels.write();
        let Some(subscribers) = channels.get_mut(channel) else { return };
        if subscribers.remove(&peer.id).is_some() {
            self.surroundings.metrics.subscriptions.dec();
        }
        if subscribers.is_empty() {
            channels.remove(channel);
            drop(channels);
            last();
        }
    }

    /// Calls `unused` when nobody subscribes to the channel.
    pub(crate) fn check_unused(&self, channel: &Channel, unused: impl FnOnce()) {
        let Some(shelf) = self.shelf(channel) else { return };
        let _changing = shelf.changing.lock();
        let is_used = shelf.channels.read().contains_key(channel);
        if !is_used {
            unused();
        }
    }
}

impl Sink for Hub {
    fn deliver(&self, partition: Partition, notices: &[Notice]) {
        let Some(shelf) = self.shelves.get(usize::from(partition.0)) else { return };
        let now = Now::read();
        let mut touched: Vec<Arc<Peer>> = Vec::new();
        let channels = shelf.channels.read();
        // What follows each other in a channel is handed over at once: a session is locked and looked at once for it.
        for run in notices.chunk_by(|a, b| a.channel() == b.channel()) {
            let Some(channel) = run.first().map(Notice::channel) else { continue };
            let Some(subscribers) = channels.get(channel) else { continue };
            for peer in subscribers.values() {
                let should_wake = peer.session.lock().on_notices(channel, run, now);
                if should_wake && !peer.is_touched.swap(true, Ordering::Relaxed) {
                    touched.push(Arc::clone(peer));
                }
            }
        }
        drop(channels);
        for peer in touched {
            peer.is_touched.store(false, Ordering::Relaxed);
            peer.wake.notify_one();
        }
        let events = notices.iter().filter(|notice| matches!(notice, Notice::Event(_))).count();
        self.surroundings.metrics.events.inc_by(events as u64);
    }
}
