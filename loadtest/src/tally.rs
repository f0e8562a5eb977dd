//! What all clients of a swarm have seen, added up.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Counts that many clients add to. All rise only.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Clients all of whose subscriptions have been answered.
    ready: AtomicUsize,
    /// Events received.
    events: AtomicU64,
    /// Positions that did not follow the one before, and messages that say that something is missing.
    losses: AtomicU64,
    /// Positions at or below one that was received before.
    duplicates: AtomicU64,
    /// The number of events that somebody waits for.
    awaited: AtomicU64,
    changed: Notify,
    /// Microseconds from sending to receiving.
    delays: Mutex<Histogram<u64>>,
    trace: Mutex<Vec<Read>>,
    failure: Mutex<Option<String>>,
}

/// What one read of a client adds.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) events: u64,
    pub(crate) losses: u64,
    pub(crate) duplicates: u64,
    pub(crate) delays_us: Vec<u64>,
    /// Only of clients whose reads are kept.
    pub(crate) read: Option<Read>,
}

/// A read of a client that brought events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Read {
    /// Microseconds since the epoch.
    pub(crate) at_us: u64,
    /// The client's number in its swarm.
    pub(crate) client: u32,
    pub(crate) events: u32,
}

impl Tally {
    /// Nothing has been seen.
    ///
    /// # Errors
    ///
    /// None that can happen: the precision is one that histograms have.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            ready: AtomicUsize::new(0),
            events: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            awaited: AtomicU64::new(0),
            changed: Notify::new(),
            delays: Mutex::new(histogram()?),
            trace: Mutex::new(Vec::new()),
            failure: Mutex::new(None),
        })
    }

    /// Adds what a client has seen, and empties it.
    pub(crate) fn add(&self, batch: &mut Batch) {
        if !batch.delays_us.is_empty() {
            let mut delays = self.delays.lock().unwrap_or_else(PoisonError::into_inner);
            batch.delays_us.drain(..).for_each(|delay| delays.saturating_record(delay));
        }
        if let Some(read) = batch.read.take() {
            self.trace.lock().unwrap_or_else(PoisonError::into_inner).push(read);
        }
        self.duplicates.fetch_add(std::mem::take(&mut batch.duplicates), Ordering::Relaxed);
        self.losses.fetch_add(std::mem::take(&mut batch.losses), Ordering::Relaxed);
        let events = std::mem::take(&mut batch.events);
        let before = self.events.fetch_add(events, Ordering::Relaxed);
        let awaited = self.awaited.load(Ordering::Relaxed);
        if before < awaited && before + events >= awaited {
            self.changed.notify_one();
        }
    }

    /// One more client has all of its subscriptions.
    pub(crate) fn add_ready(&self) {
        self.ready.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// A client ended before it was told to. The first reason is kept.
    pub(crate) fn fail(&self, reason: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.changed.notify_one();
    }

    /// Clients so far that have all of their subscriptions.
    pub(crate) fn ready(&self) -> usize {
        self.ready.load(Ordering::Relaxed)
    }

    /// Events received so far.
    pub(crate) fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Losses seen so far.
    pub(crate) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// Duplicates seen so far.
    pub(crate) fn duplicates(&self) -> u64 {
        self.duplicates.load(Ordering::Relaxed)
    }

    /// Takes the delays measured since the last call, in microseconds.
    ///
    /// # Errors
    ///
    /// As [`Tally::new`].
    pub(crate) fn take_delays(&self) -> Result<Histogram<u64>> {
        let fresh = histogram()?;
        Ok(std::mem::replace(&mut self.delays.lock().unwrap_or_else(PoisonError::into_inner), fresh))
    }

    /// Takes the reads that were kept since the last call.
    pub(crate) fn take_trace(&self) -> Vec<Read> {
        std::mem::take(&mut self.trace.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Why a client ended early, when one did.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `count` clients have all of their subscriptions.
    ///
    /// # Errors
    ///
    /// When a client failed, or time runs out.
    pub(crate) async fn wait_ready(&self, count: usize, within: Duration) -> Result<()> {
        let is_done = || self.ready.load(Ordering::Relaxed) >= count;
        let waited = timeout(within, self.wait(is_done)).await;
        waited.with_context(|| format!("only {} of {count} clients are ready", self.ready.load(Ordering::Relaxed)))?
    }

    /// Waits until `count` events have been received.
    ///
    /// # Errors
    ///
    /// When a client failed, or time runs out.
    pub(crate) async fn wait_events(&self, count: u64, within: Duration) -> Result<()> {
        self.awaited.store(count, Ordering::SeqCst);
        let waited = timeout(within, self.wait(|| self.events() >= count)).await;
        waited.with_context(|| format!("only {} of {count} deliveries came", self.events()))?
    }

    async fn wait(&self, is_done: impl Fn() -> bool) -> Result<()> {
        while !is_done() {
            if let Some(failure) = self.failure() {
                bail!("a client failed: {failure}");
            }
            self.changed.notified().await;
        }
        Ok(())
    }
}

/// Of values from 1 to 60,000,000, to three digits: microseconds of up to a minute, for example.
///
/// # Errors
///
/// When there is no memory for it.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000, 3).context("make a histogram")
}
