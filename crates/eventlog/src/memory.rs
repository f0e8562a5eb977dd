//! The in-memory store: the promises of the Redis scripts, in one process.
//!
//! What a call does lies in [`partition`] as plain functions over plain data; this file adds the lock, the clock
//! and the waiting. [`MemoryStore::fail_over`] replaces the log by an older one, as a promoted replica would.

mod lease;
mod partition;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use akis_model::{Channel, Seq};
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use self::lease::Leases;
use self::partition::{Moment, PartitionLog};
use crate::hearing::Hearing;
use crate::listing::{ChannelHead, LISTED, StoredCandle};
use crate::store::{
    Append, Claim, Ends, Feed, FeedBatch, FeedId, FeedStart, Fence, Identity, Lease, Marker, Partition, Range, Select,
    Store, StoreError, Unavailable, Write,
};

/// Entries that one read of a feed gives at most.
const READ_COUNT: usize = 1000;

/// A log that lives and dies with its process.
pub struct MemoryStore {
    inner: Arc<Inner>,
}

struct Inner {
    partitions: u16,
    server: Mutex<Server>,
    /// Rises with every write to a feed and every fail-over; wakes waiting readers.
    written: watch::Sender<u64>,
    started: Instant,
    started_us: u64,
}

/// What a Redis server would hold.
struct Server {
    identity: Identity,
    /// Raised with every fail-over; open feeds of an older one are dead connections.
    generation: u64,
    clock_offset_us: i64,
    data: Data,
}

#[derive(Clone)]
struct Data {
    partitions: Vec<PartitionLog>,
    leases: Leases,
}

/// A copy of everything a store held at one moment.
#[derive(Clone)]
pub struct Snapshot(Data);

impl MemoryStore {
    /// Makes an empty log.
    pub fn new(partitions: u16) -> Arc<Self> {
        let started_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
        let server =
            Server { identity: new_identity(), generation: 0, clock_offset_us: 0, data: Data::empty(partitions) };
        let inner = Inner {
            partitions,
            server: Mutex::new(server),
            written: watch::Sender::new(0),
            started: Instant::now(),
            started_us,
        };
        Arc::new(Self { inner: Arc::new(inner) })
    }

    /// Copies the log, as a replica that is in step would hold it.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.inner.server.lock().data.clone())
    }

    /// Replaces the log by `data` under a new identity, with a clock that is `clock_offset_us` off: a promoted replica,
    /// or a restart. Open feeds end with an error. `None` starts empty.
    pub fn fail_over(&self, data: Option<Snapshot>, clock_offset_us: i64) {
        let mut server = self.inner.server.lock();
        server.identity = new_identity();
        server.generation += 1;
        server.clock_offset_us = clock_offset_us;
        server.data = data.map_or_else(|| Data::empty(self.inner.partitions), |snapshot| snapshot.0);
        drop(server);
        self.inner.written.send_modify(|n| *n += 1);
    }
}

impl Data {
    fn empty(partitions: u16) -> Self {
        Self { partitions: vec![PartitionLog::default(); usize::from(partitions)], leases: Leases::default() }
    }
}

impl Inner {
    fn moment(&self, server: &Server) -> Moment {
        let elapsed = self.started.elapsed().as_micros() as u64;
        Moment {
            now_us: (self.started_us + elapsed).saturating_add_signed(server.clock_offset_us),
            identity: server.identity.clone(),
            is_first_log: server.generation == 0,
        }
    }

    /// Runs `call` on one partition under the lock.
    fn with<T>(
        &self,
        partition: Partition,
        call: impl FnOnce(&mut PartitionLog, &Moment) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut server = self.server.lock();
        let moment = self.moment(&server);
        let log = server
            .data
            .partitions
            .get_mut(usize::from(partition.0))
            .ok_or_else(|| StoreError::Broken(format!("no partition {partition}")))?;
        let before = log.feed_end();
        let result = call(log, &moment);
        let wrote = log.feed_end() != before;
        drop(server);
        if wrote {
            self.written.send_modify(|n| *n += 1);
        }
        result
    }

    fn with_leases<T>(
        &self,
        call: impl FnOnce(&mut Leases, &Moment) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut server = self.server.lock();
        let moment = self.moment(&server);
        call(&mut server.data.leases, &moment)
    }
}

/// Random, as a `master_replid` is: 40 hex digits.
fn new_identity() -> Identity {
    Identity(format!("{:032x}{:08x}", fastrand::u128(..), fastrand::u32(..)).into())
}

#[async_trait]
impl Store for MemoryStore {
    fn partitions(&self) -> u16 {
        self.inner.partitions
    }

    async fn ends(
        &self,
        partition: Partition,
        channels: &[Channel],
        publisher: Option<&str>,
        seen: Seq,
    ) -> Result<Ends, StoreError> {
        self.inner.with(partition, |log, moment| Ok(log.ends(moment, channels, publisher, seen)))
    }

    async fn set_fence(
        &self,
        partition: Partition,
        publisher: &str,
        expected: Option<&Fence>,
        fence: &Fence,
        seen: Seq,
    ) -> Result<(), StoreError> {
        self.inner.with(partition, |log, moment| log.set_fence(moment, publisher, expected, fence, seen))
    }

    async fn publish(&self, partition: Partition, claim: &Claim, writes: &[Write]) -> Result<(), StoreError> {
        self.inner.with(partition, |log, moment| log.publish(moment, claim, writes))
    }

    async fn mark(&self, partition: Partition, claim: &Claim, markers: &[Marker]) -> Result<(), StoreError> {
        self.inner.with(partition, |log, moment| log.mark(moment, claim, markers))
    }

    async fn append(&self, partition: Partition, events: &[Append], seen: Seq) -> Result<Vec<Seq>, StoreError> {
        self.inner.with(partition, |log, moment| Ok(log.append(moment, events, seen)))
    }

    async fn keep_candles(
        &self,
        partition: Partition,
        claim: &Claim,
        channel: &Channel,
        candles: &[StoredCandle],
    ) -> Result<(), StoreError> {
        self.inner.with(partition, |log, moment| log.keep_candles(moment, claim, channel, candles))
    }

    async fn range(&self, channel: &Channel, select: Select) -> Result<Range, StoreError> {
        let partition = Partition::of(channel, self.inner.partitions);
        self.inner.with(partition, |log, moment| Ok(log.range(moment, channel, select)))
    }

    async fn candles(
        &self,
        channel: &Channel,
        before_ms: Option<u64>,
        limit: usize,
    ) -> Result<Vec<StoredCandle>, StoreError> {
        let partition = Partition::of(channel, self.inner.partitions);
        self.inner.with(partition, |log, _| Ok(log.candles(channel, before_ms, limit)))
    }

    async fn channels(&self, prefix: &str) -> Result<Vec<ChannelHead>, StoreError> {
        let mut heads = Vec::new();
        for partition in Partition::all(self.inner.partitions) {
            heads.extend(self.inner.with(partition, |log, _| Ok(log.channels(prefix)))?);
        }
        heads.sort_unstable_by(|a, b| a.channel.cmp(&b.channel));
        heads.truncate(LISTED);
        Ok(heads)
    }

    async fn take_lease(
        &self,
        publisher: &str,
        owner: &str,
        ttl: Duration,
        hearing: Hearing,
    ) -> Result<Lease, StoreError> {
        self.inner.with_leases(|leases, moment| leases.take(moment, publisher, owner, ttl, hearing))
    }

    async fn renew_lease(
        &self,
        publisher: &str,
        owner: &str,
        ttl: Duration,
        hearing: Hearing,
    ) -> Result<Lease, StoreError> {
        self.inner.with_leases(|leases, moment| leases.renew(moment, publisher, owner, ttl, hearing))
    }

    async fn release_lease(&self, publisher: &str, owner: &str) -> Result<(), StoreError> {
        self.inner.with_leases(|leases, moment| {
            leases.release(moment, publisher, owner);
            Ok(())
        })
    }

    async fn open_feed(
        &self,
        partition: Partition,
        _replica: &str,
        _generation: u64,
        start: FeedStart,
    ) -> Result<Box<dyn Feed>, StoreError> {
        let generation = self.inner.server.lock().generation;
        let behind = match start {
            FeedStart::Behind(id) => id,
            FeedStart::Back(age) => self.inner.with(partition, |_, moment| {
                Ok(FeedId { ms: (moment.now_us / 1000).saturating_sub(age.as_millis() as u64), n: 0 })
            })?,
        };
        let written = self.inner.written.subscribe();
        Ok(Box::new(MemoryFeed { inner: Arc::clone(&self.inner), partition, generation, behind, written }))
    }

    async fn announce_replica(&self, _replica: &str, _ttl: Duration, _grace: Duration) -> Result<(), StoreError> {
        Ok(())
    }

    async fn forget_replica(&self, _replica: &str) -> Result<(), StoreError> {
        Ok(())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A place in the feed of one partition.
struct MemoryFeed {
    inner: Arc<Inner>,
    partition: Partition,
    generation: u64,
    behind: FeedId,
    written: watch::Receiver<u64>,
}

impl MemoryFeed {
    fn read(&mut self) -> Result<FeedBatch, StoreError> {
        if self.inner.server.lock().generation != self.generation {
            let message = "the log was replaced".to_owned();
            return Err(StoreError::Unavailable(Unavailable { kind: "io", message }));
        }
        let behind = self.behind;
        let batch = self.inner.with(self.partition, |log, moment| {
            Ok(FeedBatch {
                entries: log.feed_after(behind, READ_COUNT),
                check: Some((moment.identity.clone(), log.feed_end())),
            })
        })?;
        if let Some(last) = batch.entries.last() {
            self.behind = last.id;
        }
        Ok(batch)
    }
}

#[async_trait]
impl Feed for MemoryFeed {
    async fn next(&mut self, wait: Duration) -> Result<FeedBatch, StoreError> {
        let deadline = Instant::now() + wait;
        loop {
            self.written.mark_unchanged();
            let batch = self.read()?;
            if !batch.entries.is_empty() || timeout_at(deadline, self.written.changed()).await.is_err() {
                return Ok(batch);
            }
        }
    }
}
