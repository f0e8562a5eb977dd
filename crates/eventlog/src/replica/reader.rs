//! Follows the feed of one partition.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use akis_model::{Channel, Seq};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Notice, ReplicaConfig, ReplicaCounts, Sink, View};
use crate::store::{
    Ends, Feed, FeedBatch, FeedEnd, FeedEntry, FeedStart, Identity, Partition, Select, Store, StoreError,
};
use crate::tail::Verdict;

/// Channels compared by one call.
const LOOKUP: usize = 500;

/// Entries of history read by one call of a repair.
const REPAIR: usize = 1000;

/// Entries taken in under one lock, which joins wait for.
const RUN: usize = 128;

/// How often silent channels are looked for.
const LISTEN_EVERY: Duration = Duration::from_secs(1);

/// Between two connections: short, because a promoted replica is there at once.
const RECONNECT: Duration = Duration::from_millis(200);

/// How long entries of a busy feed gather before they are read. A read costs as much as some thirty entries do, so one for
/// each write of a busy log would cost more than everything that it brings.
const GATHER: Duration = Duration::from_millis(5);

/// So many reads in a row, each soon after the one before, make a feed busy.
const BUSY: u32 = 16;

/// A read that brings so many entries is followed by the next one at once: the reader is behind.
const BEHIND: usize = 500;

/// How a feed comes in.
#[derive(Debug, Default)]
struct Pace {
    read_at: Option<Instant>,
    /// Reads in a row that brought something soon after the one before.
    streak: u32,
}

impl Pace {
    /// Takes note of a read that brought so many entries. Gives when to read again; at once when `None`.
    fn after(&mut self, entries: usize, now: Instant) -> Option<Instant> {
        let is_soon = self.read_at.replace(now).is_some_and(|before| now.duration_since(before) < 2 * GATHER);
        self.streak = if is_soon && entries > 0 { self.streak.saturating_add(1) } else { 0 };
        (self.streak >= BUSY && entries < BEHIND).then(|| now + GATHER)
    }
}

/// See the module's documentation.
pub(super) struct Reader {
    store: Arc<dyn Store>,
    partition: Partition,
    config: ReplicaConfig,
    view: Arc<View>,
    sink: Arc<dyn Sink>,
    counts: Arc<ReplicaCounts>,
    /// Tells this connection's group from those before it, also across restarts under the same name.
    generation: u64,
    /// A comparison has begun and has not come to its end.
    comparing: bool,
    /// The end of the feed at an idle read that did not fit the cursor.
    doubted: Option<FeedEnd>,
    /// When silent channels were last looked for.
    silence_looked_at: Instant,
    /// The end of the feed at the start: having read up to here is being warm.
    warm_at: Option<FeedEnd>,
}

impl Reader {
    pub(super) fn new(
        store: Arc<dyn Store>,
        partition: Partition,
        config: ReplicaConfig,
        view: Arc<View>,
        sink: Arc<dyn Sink>,
        counts: Arc<ReplicaCounts>,
    ) -> Self {
        let generation = fastrand::u64(..1 << 40) << 20;
        Self {
            store,
            partition,
            config,
            view,
            sink,
            counts,
            generation,
            comparing: false,
            doubted: None,
            silence_looked_at: Instant::now(),
            warm_at: None,
        }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let ended = tokio::select! {
                ended = self.connection() => ended,
                () = stop.cancelled() => return,
            };
            if let Err(error) = ended {
                self.counts.reconnects.fetch_add(1, Ordering::Relaxed);
                self.counts.errors.count(&error);
                debug!(partition = %self.partition, %error, "reader's connection ended");
            }
            tokio::select! {
                () = sleep(RECONNECT) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One connection: finds its place, then reads until something is wrong.
    async fn connection(&mut self) -> Result<(), StoreError> {
        let ends = self.look(&[]).await?;
        let known = self.view.tail.lock().identity().cloned();
        let start = match known {
            None => {
                self.view.tail.lock().set_identity(ends.identity, ends.since);
                self.warm_at = Some(ends.feed);
                FeedStart::Back(self.config.warm_up)
            }
            Some(known) if known != ends.identity || self.comparing => {
                info!(partition = %self.partition, "the log was replaced or entries were missed: comparing with history");
                FeedStart::Behind(self.compare().await?.id)
            }
            Some(_) => {
                let cursor = self.view.tail.lock().cursor();
                cursor.map_or(FeedStart::Back(self.config.warm_up), |cursor| FeedStart::Behind(cursor.id))
            }
        };
        self.generation += 1;
        let mut feed = self.store.open_feed(self.partition, &self.config.name, self.generation, start).await?;
        self.doubted = None;
        self.view.tail.lock().excuse_silence();
        self.read(&mut *feed).await
    }

    /// Reads until the log turns out to be another one, or the place in it is lost.
    async fn read(&mut self, feed: &mut dyn Feed) -> Result<(), StoreError> {
        let mut pace = Pace::default();
        loop {
            let batch = feed.next(self.config.read_wait).await?;
            self.view.progress.lock().read_at = Instant::now();
            if let Some((identity, _)) = &batch.check
                && self.is_new(identity)
            {
                return Ok(());
            }
            if self.is_misplaced(&batch) {
                self.comparing = true;
                return Ok(());
            }
            self.counts.entries.fetch_add(batch.entries.len() as u64, Ordering::Relaxed);
            if let Some(oldest) = batch.entries.first()
                && self.view.progress.lock().warm
            {
                self.sink.arrived(self.partition, oldest.id.ms);
            }
            self.take(&batch.entries).await?;
            self.note_progress(&batch);
            self.tell_overdue().await?;
            self.tell_silent();
            if let Some(at) = pace.after(batch.entries.len(), Instant::now()) {
                sleep_until(at).await;
            }
        }
    }

    fn is_new(&self, identity: &Identity) -> bool {
        self.view.tail.lock().identity() != Some(identity)
    }

    /// Whether the batch does not continue where the last one ended: a hole in its numbers, or twice the same end of
    /// the feed that an idle read has not reached.
    fn is_misplaced(&mut self, batch: &FeedBatch) -> bool {
        let tail = self.view.tail.lock();
        if let Some(first) = batch.entries.first() {
            self.doubted = None;
            return tail.is_hole(first) || batch.entries.windows(2).any(|pair| pair[1].number != pair[0].number + 1);
        }
        let Some((_, end)) = &batch.check else { return false };
        match tail.cursor() {
            Some(cursor) if cursor.id != end.id => self.doubted.replace(*end) == Some(*end),
            Some(_) => {
                self.doubted = None;
                false
            }
            None => false,
        }
    }

    /// Takes entries in, and tells subscribers what came of it, also when the log stops answering half-way.
    async fn take(&mut self, entries: &[FeedEntry]) -> Result<(), StoreError> {
        let mut notices = Vec::with_capacity(entries.len());
        let taken = self.take_all(entries, &mut notices).await;
        self.deliver(&mut notices);
        taken
    }

    /// Takes entries in, repairing from history what they do not follow. An error leaves the cursor before the entry
    /// that it came with, so that it is read again.
    async fn take_all(&mut self, entries: &[FeedEntry], notices: &mut Vec<Notice>) -> Result<(), StoreError> {
        let nameless = entries.iter().filter(|entry| entry.channel.is_none()).count();
        self.counts.malformed.fetch_add(nameless as u64, Ordering::Relaxed);
        for mut entries in entries.chunks(RUN) {
            loop {
                let taken = self.view.tail.lock().take_run(entries, notices);
                entries = &entries[taken..];
                let Some((entry, rest)) = entries.split_first() else { break };
                if let Some(channel) = &entry.channel {
                    self.take_doubtful(channel, entry, notices).await?;
                }
                self.view.tail.lock().set_cursor(FeedEnd { id: entry.id, number: entry.number });
                entries = rest;
            }
        }
        Ok(())
    }

    /// Takes in an entry that does not just follow what is here.
    async fn take_doubtful(
        &self,
        channel: &Channel,
        entry: &FeedEntry,
        notices: &mut Vec<Notice>,
    ) -> Result<(), StoreError> {
        self.check_joined(channel, entry, notices).await?;
        let verdict = self.view.tail.lock().verdict(channel, entry);
        match verdict {
            Verdict::Skip => return Ok(()),
            Verdict::Take => {}
            Verdict::Repair { after, before } => self.repair(channel, after, Some(before), notices).await?,
            Verdict::Below => return self.take_below(channel, entry, notices).await,
        }
        self.view.tail.lock().take(channel, entry, notices);
        Ok(())
    }

    /// An entry below a position that a join took from history: unless history still reaches that far, the log went back.
    async fn check_joined(
        &self,
        channel: &Channel,
        entry: &FeedEntry,
        notices: &mut Vec<Notice>,
    ) -> Result<(), StoreError> {
        let Some(joined) = self.view.tail.lock().joined_above(channel, entry) else { return Ok(()) };
        let last = self.store.range(channel, Select::Newest { limit: 1 }).await?.last;
        if last.is_none_or(|last| last < joined) {
            warn!(%channel, seq = entry.seq.get(), "the log ends below what was delivered: beginning anew");
            notices.push(self.view.tail.lock().rewind_joined(channel, entry.seq));
        }
        Ok(())
    }

    /// An entry below what is here: unless history still reaches the end that is here, the log went back.
    async fn take_below(
        &self,
        channel: &Channel,
        entry: &FeedEntry,
        notices: &mut Vec<Notice>,
    ) -> Result<(), StoreError> {
        let last = self.store.range(channel, Select::Newest { limit: 1 }).await?.last;
        let mut tail = self.view.tail.lock();
        if tail.ring(channel).is_some_and(|ring| last.is_none_or(|last| last < ring.last)) {
            warn!(%channel, seq = entry.seq.get(), "the log ends below what was delivered: beginning anew");
            notices.push(tail.rewind(channel, entry.seq));
            tail.take(channel, entry, notices);
        }
        Ok(())
    }

    /// Takes in what history has above `after`, and below `before` where that is given.
    async fn repair(
        &self,
        channel: &Channel,
        mut after: Seq,
        before: Option<Seq>,
        notices: &mut Vec<Notice>,
    ) -> Result<(), StoreError> {
        self.counts.repairs.fetch_add(1, Ordering::Relaxed);
        loop {
            let range = self.store.range(channel, Select::Above { after, limit: REPAIR }).await?;
            notices.extend(self.view.tail.lock().repair(channel, &range.entries, before));
            let Some(last) = range.entries.last() else { return Ok(()) };
            after = last.seq;
            if range.last.is_none_or(|newest| after >= newest) || before.is_some_and(|before| after >= before) {
                return Ok(());
            }
        }
    }

    /// Compares every channel that is held here with history, repairs what is missing, and continues from the end that
    /// the feed had when the comparison began.
    async fn compare(&mut self) -> Result<FeedEnd, StoreError> {
        self.counts.comparisons.fetch_add(1, Ordering::Relaxed);
        self.comparing = true;
        let channels = self.view.tail.lock().held();
        let first = self.look(&[]).await?;
        {
            let mut tail = self.view.tail.lock();
            tail.set_identity(first.identity.clone(), first.since);
            // Also under the same identity: a log that is emptied keeps it.
            tail.forget_kept();
        }
        let mut notices = Vec::new();
        for channels in channels.chunks(LOOKUP) {
            let ends = self.look(channels).await?;
            for (channel, end) in channels.iter().zip(&ends.channels) {
                let here = self.view.tail.lock().ring(channel).map(|ring| ring.last).unwrap_or_default();
                // A channel without a ring is known to its subscribers alone: the end of history puts them right.
                if end.last.is_some_and(|last| last > here) {
                    self.repair(channel, here, None, &mut notices).await?;
                    self.deliver(&mut notices);
                }
                self.view.tail.lock().judge(channel, *end);
            }
        }
        self.view.tail.lock().set_cursor(first.feed);
        self.comparing = false;
        self.view.progress.lock().read_at = Instant::now();
        Ok(first.feed)
    }

    /// Tells subscribers of channels that nobody has proven in time.
    async fn tell_overdue(&self) -> Result<(), StoreError> {
        let due = self.view.tail.lock().overdue();
        if due.is_empty() {
            return Ok(());
        }
        let ends = match self.look(&due).await {
            Ok(ends) => ends,
            Err(error) => {
                let mut tail = self.view.tail.lock();
                due.iter().for_each(|channel| tail.doubt(channel));
                return Err(error);
            }
        };
        let mut notices = Vec::new();
        for (channel, end) in due.into_iter().zip(&ends.channels) {
            if end.proven {
                self.view.tail.lock().judge(&channel, *end);
            } else {
                notices.push(Notice::Unproven { channel, since: ends.since });
            }
        }
        self.deliver(&mut notices);
        Ok(())
    }

    async fn look(&self, channels: &[Channel]) -> Result<Ends, StoreError> {
        let seen = self.view.tail.lock().seen();
        self.store.ends(self.partition, channels, None, seen).await
    }

    /// Tells subscribers of channels that have fallen silent, once a second.
    fn tell_silent(&mut self) {
        if self.silence_looked_at.elapsed() < LISTEN_EVERY {
            return;
        }
        self.silence_looked_at = Instant::now();
        let mut notices = Vec::new();
        self.view.tail.lock().tell_silent(&mut notices);
        self.deliver(&mut notices);
    }

    fn note_progress(&self, batch: &FeedBatch) {
        if let Some((_, end)) = &batch.check {
            let at = self.view.tail.lock().cursor().unwrap_or(*end);
            let behind = Duration::from_millis(end.id.ms.saturating_sub(at.id.ms));
            self.view.progress.lock().behind = behind;
        }
        if let (true, Some((_, end))) = (batch.entries.is_empty(), &batch.check) {
            let mut tail = self.view.tail.lock();
            // Nothing came since the start: the end of then is the place.
            if tail.cursor().is_none() && Some(*end) == self.warm_at {
                tail.set_cursor(*end);
            }
        }
        let reached = batch.entries.is_empty()
            || self.view.tail.lock().cursor().zip(self.warm_at).is_some_and(|(at, end)| at.number >= end.number);
        if reached {
            self.view.progress.lock().warm = true;
        }
    }

    fn deliver(&self, notices: &mut Vec<Notice>) {
        for notice in notices.iter() {
            if let Notice::Malformed { channel, seq } = notice {
                self.counts.malformed(channel, *seq);
            }
        }
        if !notices.is_empty() {
            self.sink.deliver(self.partition, notices);
            notices.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_feed_gathers_and_a_quiet_or_late_one_does_not() {
        let (mut pace, start, ms) = (Pace::default(), Instant::now(), Duration::from_millis(1));
        for n in 0..BUSY {
            assert_eq!(pace.after(1, start + n * ms), None, "not busy yet");
        }
        let now = start + BUSY * ms;
        assert_eq!(pace.after(1, now), Some(now + GATHER));
        assert_eq!(pace.after(BEHIND, now + GATHER), None, "behind");
        assert_eq!(pace.after(1, now + 2 * GATHER), Some(now + 3 * GATHER), "still busy");
        assert_eq!(pace.after(1, now + 4 * GATHER), None, "quiet");
        assert_eq!(pace.after(0, now + 5 * GATHER), None);
    }
}
