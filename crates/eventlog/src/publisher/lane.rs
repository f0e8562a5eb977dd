//! The writer of one partition.
//!
//! A reign goes: set the fence, join what was seen on standby with the log's last trades, read the ends of the channels,
//! write again what a replaced log has lost, announce the terms by markers, then publish what is offered and the log does
//! not have. Each step is a call that can be repeated without harm, and each is
//! made only while the lease runs by this process's own clock.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use akis_model::{Channel, Kind, Seq};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::channels::Channels;
use super::floors::Floors;
use super::lease::{Held, LeaseKeeper};
use super::state;
use super::trade::{self, Trade};
use super::{Event, Inbox, PublisherConfig, PublisherCounts};
use crate::store::{Claim, Ends, Fence, Identity, Partition, Select, Store, StoreError, Write};

/// Events written by one call.
const BATCH: usize = 500;

/// Channels looked up by one call.
const LOOKUP: usize = 500;

/// Channels whose last entries are read at once.
const READS: usize = 16;

/// Between two tries of a call that the log did not answer.
const RETRY: Duration = Duration::from_millis(100);

/// How long a stop waits for a log that does not answer.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// See the module's documentation.
pub(super) struct Lane {
    store: Arc<dyn Store>,
    partition: Partition,
    config: PublisherConfig,
    inbox: Inbox,
    keeper: Arc<LeaseKeeper>,
    counts: Arc<PublisherCounts>,
    channels: Channels,
    /// The number of the last lease under which it began to reign.
    reign: Option<u64>,
    floors: Floors,
    in_flight: InFlight,
    acknowledged_at: Instant,
}

/// Sent and not acknowledged.
#[derive(Default)]
struct InFlight {
    writes: Vec<Write>,
    /// Of each, see [`Event::missing_before`].
    missing_before: Vec<u64>,
}

impl InFlight {
    fn clear(&mut self) {
        self.writes.clear();
        self.missing_before.clear();
    }
}

/// Under what right the lane writes at the moment.
struct Right {
    held: Held,
    fence: Fence,
}

/// Why a step did not come to its end.
enum Broken {
    /// The reign is over.
    Lost,
    /// The log was replaced: enter it anew.
    Changed,
    /// A term would have begun too low: read the ends again.
    TooLow,
}

impl Lane {
    pub(super) fn new(
        store: Arc<dyn Store>,
        partition: Partition,
        config: PublisherConfig,
        inbox: Inbox,
        keeper: Arc<LeaseKeeper>,
        counts: Arc<PublisherCounts>,
    ) -> Self {
        Self {
            store,
            partition,
            config,
            inbox,
            keeper,
            counts,
            channels: Channels::new(Seq::ZERO, true),
            reign: None,
            floors: Floors::default(),
            in_flight: InFlight::default(),
            acknowledged_at: Instant::now(),
        }
    }

    /// Writes whenever the lease is held, until `stop`; then writes what still waits. Whether that is all.
    pub(super) async fn run(mut self, stop: CancellationToken) -> bool {
        let mut held = self.keeper.held();
        loop {
            let reign = tokio::select! {
                seen = held.wait_for(Option::is_some) => seen.ok().and_then(|held| *held),
                () = stop.cancelled() => None,
            };
            let Some(reign) = reign else {
                return self.in_flight.writes.is_empty() && self.inbox.pending.lock().is_empty();
            };
            let mut overdue = Box::pin(async {
                stop.cancelled().await;
                sleep(LAST_WORDS).await;
            });
            let over = tokio::select! {
                over = self.reign(reign, &stop) => over,
                () = &mut overdue => return false,
            };
            if over.is_ok() {
                return true;
            }
            self.keeper.give_up(reign.number);
        }
    }

    /// One reign. Ends well only on a stop.
    async fn reign(&mut self, held: Held, stop: &CancellationToken) -> Result<(), Broken> {
        let had_no_successor = self.reign.replace(held.number).is_some_and(|last| last > held.before);
        self.channels = if had_no_successor {
            std::mem::take(&mut self.channels).again()
        } else {
            Channels::new(self.channels.seen(), held.continues)
        };
        self.floors = Floors::default();
        self.forget_if_succeeded(held).await?;
        let mut right = self.set_fence(held).await?;
        self.settle(&right).await?;
        let known = self.inbox.pending.lock().known();
        self.join_trades(&right, &known).await?;
        let mut identity = self.enter(&right, &known, None).await?;
        loop {
            match self.publish(&right, &identity, stop).await {
                Ok(()) => return Ok(()),
                Err(Broken::Lost) => return Err(Broken::Lost),
                Err(Broken::TooLow) => {}
                Err(Broken::Changed) => {
                    info!(publisher = %self.config.name, partition = %self.partition, "the log was replaced: entering it anew");
                    let held = self.register(right.held.number).await?;
                    right = self.set_fence(held).await?;
                }
            }
            let open = self.channels.open();
            let entered = self.enter(&right, &open, Some(&identity)).await?;
            if entered != identity {
                self.keeper.tell_replaced(&entered);
            }
            identity = entered;
        }
    }

    /// Makes sure that the log, which may be another one now, knows who holds the lease.
    async fn register(&self, number: u64) -> Result<Held, Broken> {
        loop {
            match self.keeper.renew(number).await {
                Ok(Some(held)) => return Ok(held),
                Ok(None) => sleep(RETRY).await,
                Err(_) => return Err(Broken::Lost),
            }
        }
    }

    /// Shuts out whoever published before, by compare-and-set on the fence that is stored.
    async fn set_fence(&self, held: Held) -> Result<Right, Broken> {
        let name = &*self.config.name;
        let owner: Arc<str> = format!("{}.{:08x}", self.keeper.owner(), fastrand::u32(..)).into();
        loop {
            let seen = self.channels.seen();
            let stored = self.call(held, || self.store.ends(self.partition, &[], Some(name), seen)).await?.fence;
            if let Some(mine) = stored.as_ref().filter(|stored| stored.owner == owner) {
                return Ok(Right { held, fence: mine.clone() });
            }
            let above = stored.as_ref().map_or(0, |stored| stored.number + 1);
            let fence = Fence { number: held.number.max(above), owner: Arc::clone(&owner) };
            let set = || self.store.set_fence(self.partition, name, stored.as_ref(), &fence, seen);
            match self.call(held, set).await {
                Ok(()) => return Ok(Right { held, fence }),
                // Somebody's late call came in between, or this one was done and its answer lost: look again.
                Err(Broken::Lost) => {
                    self.register(held.number).await?;
                }
                Err(broken) => return Err(broken),
            }
        }
    }

    /// Forgets what was in flight when somebody else has written since: their terms have told of it, and their events are newer.
    async fn forget_if_succeeded(&mut self, held: Held) -> Result<(), Broken> {
        if self.in_flight.writes.is_empty() {
            return Ok(());
        }
        let (name, seen) = (Some(&*self.config.name), self.channels.seen());
        let fence = self.call(held, || self.store.ends(self.partition, &[], name, seen)).await?.fence;
        if fence.is_some_and(|fence| !self.is_mine(&fence)) {
            let trades = self.in_flight.writes.iter().filter(|write| !write.channel.kind().is_newest_wins()).count();
            self.counts.dropped.fetch_add(trades as u64, Ordering::Relaxed);
            self.in_flight.clear();
        }
        Ok(())
    }

    /// Whether this process has set the fence, in whichever reign.
    fn is_mine(&self, fence: &Fence) -> bool {
        fence.owner.split_once('.').is_some_and(|(owner, _)| owner == self.keeper.owner())
    }

    /// Finds out what became of the events that were in flight when the last reign ended.
    async fn settle(&mut self, right: &Right) -> Result<(), Broken> {
        let mut lost = Vec::new();
        for (write, &missing_before) in self.in_flight.writes.iter().zip(&self.in_flight.missing_before) {
            let read = || self.store.range(&write.channel, Select::At(write.seq));
            if self.call(right.held, read).await?.entries.is_empty() {
                lost.push((write.clone(), missing_before));
            }
        }
        self.in_flight.clear();
        let events = lost.into_iter().filter_map(|(write, missing_before)| {
            let body = akis_model::Body::parse(write.body, &write.channel).ok()?;
            Some(Event { channel: write.channel, body, missing_before })
        });
        self.inbox.pending.lock().put_back(events.collect());
        Ok(())
    }

    /// Joins the trades that were seen on standby with what the log has: its holder may have vanished with some of them.
    async fn join_trades(&mut self, right: &Right, known: &[Channel]) -> Result<(), Broken> {
        for (channel, last) in self.last_trades(right, known).await? {
            let (is_whole, repeated) = self.inbox.pending.lock().join_warm(&channel, last.as_ref());
            self.counts.repeated.fetch_add(repeated as u64, Ordering::Relaxed);
            if is_whole {
                self.channels.note_whole(channel);
            } else {
                self.floors.set(channel, last);
            }
        }
        self.inbox.pending.lock().cool();
        Ok(())
    }

    /// The log's last trade of each channel of trades among `channels`.
    async fn last_trades(&self, right: &Right, channels: &[Channel]) -> Result<Vec<(Channel, Option<Trade>)>, Broken> {
        let channels: Vec<&Channel> = channels.iter().filter(|channel| channel.kind() == Kind::Trades).collect();
        let mut trades = Vec::with_capacity(channels.len());
        for channels in channels.chunks(READS) {
            trades.extend(self.call(right.held, || trade::last(&self.store, channels)).await?);
        }
        Ok(trades)
    }

    /// Begins terms in `channels`: writes again what the log has lost of them, then announces them. Gives the identity
    /// under which that was done.
    async fn enter(
        &mut self,
        right: &Right,
        channels: &[Channel],
        before: Option<&Identity>,
    ) -> Result<Identity, Broken> {
        let mut right_now = Right { held: right.held, fence: right.fence.clone() };
        loop {
            match self.enter_once(&right_now, channels, before).await {
                Err(Broken::TooLow) => {}
                Err(Broken::Changed) => {
                    let held = self.register(right_now.held.number).await?;
                    right_now = self.set_fence(held).await?;
                }
                done => return done,
            }
        }
    }

    async fn enter_once(
        &mut self,
        right: &Right,
        channels: &[Channel],
        before: Option<&Identity>,
    ) -> Result<Identity, Broken> {
        let mut identity = None;
        let lookups = if channels.is_empty() { vec![channels] } else { channels.chunks(LOOKUP).collect() };
        for channels in lookups {
            let ends = self.ends(right, channels).await?;
            let claim = self.claim(right, &ends.identity);
            let missing = self.channels.missing(channels, &ends.channels);
            for batch in missing.chunks(BATCH) {
                self.call(right.held, || self.store.publish(self.partition, &claim, batch)).await?;
                batch.iter().for_each(|write| self.channels.note_seen(write.seq));
                self.counts.healed.fetch_add(batch.len() as u64, Ordering::Relaxed);
            }
            if !missing.is_empty() {
                warn!(publisher = %self.config.name, partition = %self.partition, events = missing.len(), "wrote again what the log had lost");
            }
            let replaced = before.is_some_and(|before| *before != ends.identity);
            self.channels.begin_terms(channels, &ends.channels, replaced);
            self.mark(right, &ends.identity, channels).await?;
            identity.get_or_insert(ends.identity);
        }
        // What was in flight is in the memory, so it has been written.
        self.in_flight.clear();
        identity.ok_or(Broken::TooLow)
    }

    /// Publishes what is offered until `stop`, and then what still waits.
    async fn publish(&mut self, right: &Right, identity: &Identity, stop: &CancellationToken) -> Result<(), Broken> {
        loop {
            self.send_in_flight(right, identity).await?;
            self.keep_candles(right, identity).await?;
            let (declared, mut events) = self.take(right).await?;
            if declared.is_empty() && events.is_empty() {
                if stop.is_cancelled() {
                    return Ok(());
                }
                self.wait(right, stop).await?;
                continue;
            }
            let mut unopened: Vec<Channel> = declared;
            unopened.extend(events.iter().map(|event| event.channel.clone()));
            unopened.retain(|channel| !self.channels.is_open(channel));
            unopened.sort_unstable();
            unopened.dedup();
            let opened = self.open(right, identity, &unopened).await;
            if let Err(broken) = opened {
                let mut pending = self.inbox.pending.lock();
                pending.put_back(events);
                unopened.iter().for_each(|channel| pending.redeclare(channel));
                return Err(broken);
            }
            let offered = events.len();
            self.floors.drop_known(&mut events);
            self.counts.repeated.fetch_add((offered - events.len()) as u64, Ordering::Relaxed);
            let (writes, missing_before) = self.channels.assign(events);
            self.in_flight = InFlight { writes, missing_before };
        }
    }

    /// Takes out channels that were declared, and events: first how channels are, as far as the log says otherwise. What was
    /// offered after that comes behind it.
    async fn take(&self, right: &Right) -> Result<(Vec<Channel>, Vec<Event>), Broken> {
        loop {
            let states = {
                let mut pending = self.inbox.pending.lock();
                let states = pending.take_states(READS);
                if states.is_empty() {
                    return Ok((pending.take_declared(), pending.take(BATCH)));
                }
                states
            };
            let is_news = self.call(right.held, || state::are_news(&self.store, &states)).await?;
            let news = states.into_iter().zip(is_news).filter(|(_, is_news)| *is_news).map(|(state, _)| state);
            self.inbox.pending.lock().put_back(news.collect());
        }
    }

    /// Keeps candles of the past that wait for it.
    async fn keep_candles(&self, right: &Right, identity: &Identity) -> Result<(), Broken> {
        loop {
            // Not in the condition of a `while let`: the lock would be held across the call.
            let waiting = self.inbox.pending.lock().take_candles();
            let Some((channel, candles)) = waiting else { return Ok(()) };
            let claim = self.claim(right, identity);
            let held = self.current(right.held)?;
            let kept = self.call(held, || self.store.keep_candles(self.partition, &claim, &channel, &candles)).await;
            if let Err(broken) = kept {
                self.inbox.pending.lock().put_candles_back(channel, candles);
                return Err(broken);
            }
        }
    }

    /// Waits until something is offered, or the lease runs out.
    async fn wait(&self, right: &Right, stop: &CancellationToken) -> Result<(), Broken> {
        let mut held = self.keeper.held();
        let number = right.held.number;
        tokio::select! {
            () = self.inbox.offered.notified() => Ok(()),
            () = stop.cancelled() => Ok(()),
            _ = held.wait_for(|held| held.is_none_or(|held| held.number != number)) => Err(Broken::Lost),
        }
    }

    async fn send_in_flight(&mut self, right: &Right, identity: &Identity) -> Result<(), Broken> {
        if self.in_flight.writes.is_empty() {
            return Ok(());
        }
        let claim = self.claim(right, identity);
        let held = self.current(right.held)?;
        let began = SystemTime::now();
        self.call(held, || self.store.publish(self.partition, &claim, &self.in_flight.writes)).await?;
        if let Some(observer) = &self.config.observer {
            observer.written(self.partition, &self.in_flight.writes, began);
        }
        self.counts.published.fetch_add(self.in_flight.writes.len() as u64, Ordering::Relaxed);
        self.in_flight.writes.iter().for_each(|write| self.channels.note_seen(write.seq));
        self.in_flight.clear();
        let now = Instant::now();
        self.channels.acknowledged(now - self.acknowledged_at, self.config.memory);
        self.acknowledged_at = now;
        Ok(())
    }

    /// Opens channels that this reign has not written to, under the identity it writes under.
    async fn open(&mut self, right: &Right, identity: &Identity, channels: &[Channel]) -> Result<(), Broken> {
        for channels in channels.chunks(LOOKUP) {
            let ends = self.ends(right, channels).await?;
            if ends.identity != *identity {
                return Err(Broken::Changed);
            }
            for (channel, last) in self.last_trades(right, channels).await? {
                self.floors.set(channel, last);
            }
            self.channels.begin_terms(channels, &ends.channels, false);
            let marked = self.mark(right, identity, channels).await;
            if marked.is_err() {
                self.channels.close(channels);
            }
            marked?;
        }
        Ok(())
    }

    async fn ends(&self, right: &Right, channels: &[Channel]) -> Result<Ends, Broken> {
        let seen = self.channels.seen();
        let held = self.current(right.held)?;
        self.call(held, || self.store.ends(self.partition, channels, None, seen)).await
    }

    async fn mark(&mut self, right: &Right, identity: &Identity, channels: &[Channel]) -> Result<(), Broken> {
        let markers = self.channels.markers(channels);
        if markers.is_empty() {
            return Ok(());
        }
        let claim = self.claim(right, identity);
        let held = self.current(right.held)?;
        self.call(held, || self.store.mark(self.partition, &claim, &markers)).await?;
        markers.iter().for_each(|marker| self.channels.note_seen(marker.seq));
        Ok(())
    }

    fn claim(&self, right: &Right, identity: &Identity) -> Claim {
        Claim {
            publisher: Arc::clone(&self.config.name),
            fence: right.fence.clone(),
            identity: identity.clone(),
            seen: self.channels.seen(),
        }
    }

    /// The lease with its latest end.
    fn current(&self, held: Held) -> Result<Held, Broken> {
        let now = *self.keeper.held().borrow();
        now.filter(|now| now.number == held.number).ok_or(Broken::Lost)
    }

    /// Makes a call that can be repeated, until it is answered or the lease has run out.
    async fn call<T, F>(&self, held: Held, mut call: impl FnMut() -> F) -> Result<T, Broken>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        loop {
            // Right before each write: a process that was paused must not write once the lease has run out.
            let held = self.current(held)?;
            if !held.is_valid() {
                return Err(Broken::Lost);
            }
            let error = match call().await {
                Ok(done) => return Ok(done),
                Err(StoreError::Changed) => return Err(Broken::Changed),
                Err(StoreError::TermTooLow) => return Err(Broken::TooLow),
                Err(StoreError::Fenced | StoreError::Held { .. } | StoreError::HeardElsewhere) => {
                    return Err(Broken::Lost);
                }
                Err(error @ (StoreError::Broken(_) | StoreError::Unavailable(_))) => error,
            };
            self.counts.errors.count(&error);
            debug!(publisher = %self.config.name, partition = %self.partition, %error, "a call to the log failed");
            sleep(RETRY).await;
        }
    }
}
