//! One partition as plain data, and what each call of the store does to it.
//!
//! The Redis scripts do the same; the contract tests run both through the same calls.

use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;

use akis_model::{Channel, Seq, TraceContext};

use crate::listing::{CANDLES_KEPT, ChannelHead, StoredCandle, closed_candle, head};
use crate::retention::{FEED_AGE, IDEMPOTENCY_TTL, history_len};
use crate::store::{
    Append, ChannelEnd, Claim, Ends, Entry, FeedEnd, FeedEntry, FeedId, Fence, Identity, Marker, RANGE_BYTES, Range,
    Select, StoreError, TERM_JUMP, Write,
};

/// When a call is carried out, and by which log.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    /// The server's clock, microseconds since the epoch.
    pub(super) now_us: u64,
    pub(super) identity: Identity,
    /// Whether this log was never replaced.
    pub(super) is_first_log: bool,
}

/// Everything a partition's keys hold.
#[derive(Debug, Clone, Default)]
pub(super) struct PartitionLog {
    histories: HashMap<Channel, VecDeque<Entry>>,
    candles: HashMap<Channel, VecDeque<StoredCandle>>,
    feed: VecDeque<FeedEntry>,
    feed_end: FeedEnd,
    identity: Option<Identity>,
    since: Seq,
    top: Seq,
    fences: HashMap<String, Fence>,
    proofs: HashMap<Channel, Identity>,
    /// The newest marker of each channel, with the position from which nothing lies before it.
    marks: HashMap<Channel, (Seq, Seq)>,
    idempotency: HashMap<(Channel, String), (Seq, u64)>,
    /// The keys of `idempotency` in the order in which they expire.
    expiring: VecDeque<(u64, (Channel, String))>,
}

impl PartitionLog {
    /// Records a new identity, and raises `since` above everything that anybody has seen.
    ///
    /// One more than just above: the log before may have had an event that nobody saw right behind the last one that
    /// somebody did, and who waits there has to be told.
    pub(super) fn check_identity(&mut self, moment: &Moment, seen: Seq) {
        if self.identity.as_ref() != Some(&moment.identity) {
            self.identity = Some(moment.identity.clone());
            self.since = clock(moment).max(self.top.plus(2)).max(seen.plus(2));
        } else if seen > self.top {
            self.since = self.since.max(seen.plus(2));
        }
    }

    pub(super) fn ends(&mut self, moment: &Moment, channels: &[Channel], publisher: Option<&str>, seen: Seq) -> Ends {
        self.check_identity(moment, seen);
        let end = |channel: &Channel| ChannelEnd {
            last: self.last(channel),
            proven: self.is_proven(moment, channel),
            term: self.term(moment, channel),
        };
        Ends {
            identity: moment.identity.clone(),
            since: self.since,
            top: self.top,
            feed: self.feed_end,
            fence: publisher.and_then(|name| self.fences.get(name).cloned()),
            channels: channels.iter().map(end).collect(),
        }
    }

    pub(super) fn set_fence(
        &mut self,
        moment: &Moment,
        publisher: &str,
        expected: Option<&Fence>,
        fence: &Fence,
        seen: Seq,
    ) -> Result<(), StoreError> {
        self.check_identity(moment, seen);
        let stored = self.fences.get(publisher);
        if stored != expected && stored != Some(fence) {
            return Err(StoreError::Fenced);
        }
        self.fences.insert(publisher.to_owned(), fence.clone());
        Ok(())
    }

    pub(super) fn publish(&mut self, moment: &Moment, claim: &Claim, writes: &[Write]) -> Result<(), StoreError> {
        self.check_claim(moment, claim)?;
        for write in writes {
            if self.last(&write.channel).is_none_or(|last| write.seq > last) {
                self.write(moment, &write.channel, write.seq, write.previous, write.body.clone());
                self.trace_newest(write.origin.trace);
            }
        }
        Ok(())
    }

    /// Says which trace the newest entry of the feed belongs to.
    fn trace_newest(&mut self, trace: Option<TraceContext>) {
        if let Some(entry) = self.feed.back_mut() {
            entry.trace = trace;
        }
    }

    pub(super) fn mark(&mut self, moment: &Moment, claim: &Claim, markers: &[Marker]) -> Result<(), StoreError> {
        self.check_claim(moment, claim)?;
        if markers.iter().any(|marker| marker.seq.next() < self.since) {
            return Err(StoreError::TermTooLow);
        }
        for marker in markers {
            let last = self.last(&marker.channel);
            let proof = marker.previous.filter(|previous| *previous > Seq::ZERO && last == Some(*previous));
            if proof.is_some() {
                self.proofs.insert(marker.channel.clone(), moment.identity.clone());
            }
            self.marks.insert(marker.channel.clone(), (proof.unwrap_or(marker.seq), marker.seq));
            self.top = self.top.max(marker.seq);
            self.feed(moment, &marker.channel, marker.seq, marker.previous, None);
        }
        Ok(())
    }

    pub(super) fn append(&mut self, moment: &Moment, events: &[Append], seen: Seq) -> Vec<Seq> {
        self.check_identity(moment, seen);
        self.forget_expired(moment);
        events.iter().map(|event| self.append_one(moment, event)).collect()
    }

    fn append_one(&mut self, moment: &Moment, event: &Append) -> Seq {
        let key = event.id.as_ref().map(|id| (event.channel.clone(), id.clone()));
        if let Some((seq, _)) = key.as_ref().and_then(|key| self.idempotency.get(key)) {
            return *seq;
        }
        let (seq, previous) = match self.last(&event.channel) {
            None => (self.term(moment, &event.channel), Some(Seq::ZERO)),
            Some(last) if self.is_proven(moment, &event.channel) => (last.next(), None),
            Some(_) => (self.term(moment, &event.channel), None),
        };
        self.write(moment, &event.channel, seq, previous, event.body.clone());
        self.trace_newest(event.trace);
        self.proofs.insert(event.channel.clone(), moment.identity.clone());
        if let Some(key) = key {
            let expires_us = moment.now_us + IDEMPOTENCY_TTL.as_micros() as u64;
            self.idempotency.insert(key.clone(), (seq, expires_us));
            self.expiring.push_back((expires_us, key));
        }
        seq
    }

    pub(super) fn range(&self, moment: &Moment, channel: &Channel, select: Select) -> Range {
        let empty = VecDeque::new();
        let history = self.histories.get(channel).unwrap_or(&empty);
        let entries = match select {
            Select::Above { after, limit } => {
                let from = history.partition_point(|entry| entry.seq <= after);
                within_bytes(history.range(from..).take(limit))
            }
            Select::Newest { limit } => newest(history.iter(), limit),
            Select::Below { before, limit } => {
                let to = history.partition_point(|entry| entry.seq < before);
                newest(history.range(..to), limit)
            }
            Select::At(seq) => history.iter().filter(|entry| entry.seq == seq).cloned().collect(),
        };
        let given = entries.last().map(|newest| history.partition_point(|entry| entry.seq <= newest.seq));
        Range {
            rest: given.map_or(0, |given| history.len() - given),
            entries,
            length: history.len(),
            first: history.front().map(|entry| entry.seq),
            last: self.last(channel),
            proven: self.is_proven(moment, channel),
            since: self.since,
            told: (self.identity.as_ref() == Some(&moment.identity)).then(|| self.told(channel)),
        }
    }

    fn told(&self, channel: &Channel) -> RangeInclusive<Seq> {
        let since = self.since.before();
        let mark = self.marks.get(channel).filter(|(_, marked)| *marked >= since);
        mark.map_or(since..=since, |(from, marked)| *from..=*marked)
    }

    /// Keeps closed candles wherever they belong among the others.
    pub(super) fn keep_candles(
        &mut self,
        moment: &Moment,
        claim: &Claim,
        channel: &Channel,
        candles: &[StoredCandle],
    ) -> Result<(), StoreError> {
        self.check_claim(moment, claim)?;
        let kept = self.candles.entry(channel.clone()).or_default();
        for candle in candles {
            let at = kept.partition_point(|other| other.open_ms < candle.open_ms);
            if kept.get(at).is_none_or(|other| other.open_ms != candle.open_ms) {
                kept.insert(at, candle.clone());
            }
        }
        kept.drain(..kept.len().saturating_sub(CANDLES_KEPT));
        Ok(())
    }

    pub(super) fn candles(&self, channel: &Channel, before_ms: Option<u64>, limit: usize) -> Vec<StoredCandle> {
        let Some(candles) = self.candles.get(channel) else { return Vec::new() };
        let to = before_ms.map_or(candles.len(), |before| candles.partition_point(|candle| candle.open_ms < before));
        candles.range(to.saturating_sub(limit)..to).cloned().collect()
    }

    pub(super) fn channels(&self, prefix: &str) -> Vec<ChannelHead> {
        let named = self.histories.iter().filter(|(channel, _)| channel.as_str().starts_with(prefix));
        named
            .filter_map(|(channel, history)| history.back().and_then(|last| head(channel, last.seq, &last.body)))
            .collect()
    }

    /// The end of the feed.
    pub(super) fn feed_end(&self) -> FeedEnd {
        self.feed_end
    }

    /// The oldest `count` entries of the feed behind an id.
    pub(super) fn feed_after(&self, behind: FeedId, count: usize) -> Vec<FeedEntry> {
        let from = self.feed.partition_point(|entry| entry.id <= behind);
        self.feed.range(from..).take(count).cloned().collect()
    }

    fn check_claim(&mut self, moment: &Moment, claim: &Claim) -> Result<(), StoreError> {
        self.check_identity(moment, claim.seen);
        if claim.identity != moment.identity {
            return Err(StoreError::Changed);
        }
        if self.fences.get(&*claim.publisher) != Some(&claim.fence) {
            return Err(StoreError::Fenced);
        }
        Ok(())
    }

    fn last(&self, channel: &Channel) -> Option<Seq> {
        self.histories.get(channel)?.back().map(|entry| entry.seq)
    }

    fn is_proven(&self, moment: &Moment, channel: &Channel) -> bool {
        self.identity.as_ref() == Some(&moment.identity)
            && (self.last(channel).is_some_and(|last| last >= self.since)
                || self.proofs.get(channel) == Some(&moment.identity))
    }

    /// Where a term that begins now has its first event.
    fn term(&self, moment: &Moment, channel: &Channel) -> Seq {
        let behind_last = self.last(channel).map_or(Seq::ZERO, |last| last.plus(TERM_JUMP));
        let lowest = clock(moment).max(behind_last).max(self.since).max(self.top.next());
        lowest.plus(fastrand::u64(..TERM_JUMP))
    }

    fn write(&mut self, moment: &Moment, channel: &Channel, seq: Seq, previous: Option<Seq>, body: bytes::Bytes) {
        let history = self.histories.entry(channel.clone()).or_default();
        history.push_back(Entry { seq, previous, body: body.clone() });
        if history.len() > history_len(channel) {
            history.pop_front();
        }
        self.top = self.top.max(seq);
        if let Some(open_ms) = closed_candle(channel, &body) {
            self.keep_candle(channel, StoredCandle { open_ms, body: body.clone() });
        }
        self.feed(moment, channel, seq, previous, Some(body));
    }

    /// Keeps a closed candle, unless it or a later one is kept already.
    fn keep_candle(&mut self, channel: &Channel, candle: StoredCandle) {
        let candles = self.candles.entry(channel.clone()).or_default();
        if candles.back().is_none_or(|last| candle.open_ms > last.open_ms) {
            candles.push_back(candle);
        }
        if candles.len() > CANDLES_KEPT {
            candles.pop_front();
        }
    }

    fn feed(
        &mut self,
        moment: &Moment,
        channel: &Channel,
        seq: Seq,
        previous: Option<Seq>,
        body: Option<bytes::Bytes>,
    ) {
        let now_ms = moment.now_us / 1000;
        let last = self.feed_end.id;
        let id = if now_ms > last.ms { FeedId { ms: now_ms, n: 0 } } else { FeedId { ms: last.ms, n: last.n + 1 } };
        self.feed_end = FeedEnd { id, number: self.feed_end.number + 1 };
        let number = self.feed_end.number;
        let channel = Some(channel.clone());
        self.feed.push_back(FeedEntry { id, number, channel, seq, previous, body, trace: None });
        let oldest_ms = now_ms.saturating_sub(FEED_AGE.as_millis() as u64);
        while self.feed.front().is_some_and(|entry| entry.id.ms < oldest_ms) {
            self.feed.pop_front();
        }
    }

    fn forget_expired(&mut self, moment: &Moment) {
        while self.expiring.front().is_some_and(|(expires_us, _)| *expires_us <= moment.now_us) {
            if let Some((_, key)) = self.expiring.pop_front() {
                self.idempotency.remove(&key);
            }
        }
    }
}

/// The clock as a position.
fn clock(moment: &Moment) -> Seq {
    Seq::ZERO.plus(moment.now_us)
}

/// The last ones that one read gives.
fn newest<'a>(entries: impl DoubleEndedIterator<Item = &'a Entry>, limit: usize) -> Vec<Entry> {
    let mut newest = within_bytes(entries.rev().take(limit));
    newest.reverse();
    newest
}

/// Those that one read gives.
fn within_bytes<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<Entry> {
    let mut bytes = 0;
    let fits = |entry: &&Entry| {
        let before = bytes;
        bytes += entry.body.len();
        before < RANGE_BYTES
    };
    entries.take_while(fits).cloned().collect()
}
