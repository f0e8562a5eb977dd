//! What a replica knows of one partition: rings, the place in the feed, and what an entry of the feed means.
//!
//! Plain data under a lock that is never held across a wait. The reader task asks for a [`Verdict`] on each entry, reads
//! history where the verdict says so, and hands the entry over; joins read the rings.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use akis_model::{Body, Channel, Seq};
use tokio::time::Instant;

use crate::ByChannel;
use crate::replica::{LogEvent, Notice, ReplicaConfig, Traced};
use crate::ring::Ring;
use crate::store::{ChannelEnd, Entry, FeedEnd, FeedEntry, Identity};

/// Whether an entry at `seq` that carries `previous` follows `position` with nothing between them.
///
/// A `previous` is a proof that nothing lies between it and the entry; 0 (a channel that began) links only 0.
pub fn links(position: Seq, seq: Seq, previous: Option<Seq>) -> bool {
    seq == position.next()
        || (position < seq
            && previous.is_some_and(|previous| {
                (previous > Seq::ZERO && previous <= position) || (previous == Seq::ZERO && position == Seq::ZERO)
            }))
}

/// What to do with an entry of the feed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is here already.
    Skip,
    /// Take it in.
    Take,
    /// First take in what history has between these two positions, both not included.
    Repair {
        /// The last position in memory.
        after: Seq,
        /// The entry's.
        before: Seq,
    },
    /// It lies below what is in memory and is not known: when history ends below the memory's end the log went back.
    Below,
}

/// See the module's documentation.
pub(crate) struct Tail {
    ring_events: usize,
    ring_bytes: usize,
    ring_channels: usize,
    unproven_after: Duration,
    rings: ByChannel<Ring>,
    /// Channels that somebody subscribes to here; their rings know it too. Nobody is told of others.
    watched: HashSet<Channel>,
    /// Channels that were watched without an event when the identity became new: the log before may have had events of
    /// theirs, so a channel that begins is no proof to those who waited.
    doubtful_starts: HashSet<Channel>,
    /// Watched channels that somebody joined without leaving a ring: what the feed brings first is news to them.
    bare: HashSet<Channel>,
    /// Watched channels that are not proven, and when their subscribers are told.
    unproven: HashMap<Channel, Instant>,
    identity: Option<Identity>,
    since: Seq,
    cursor: Option<FeedEnd>,
    seen: Seq,
    epoch: u64,
    bytes: usize,
    uses: u64,
}

impl Tail {
    pub(crate) fn new(config: &ReplicaConfig, partitions: u16) -> Self {
        let partitions = usize::from(partitions.max(1));
        Self {
            ring_events: config.ring_events,
            ring_bytes: config.ring_bytes / partitions,
            ring_channels: (config.ring_channels / partitions).max(1),
            unproven_after: config.unproven_after,
            rings: ByChannel::default(),
            watched: HashSet::new(),
            doubtful_starts: HashSet::new(),
            bare: HashSet::new(),
            unproven: HashMap::new(),
            identity: None,
            since: Seq::ZERO,
            cursor: None,
            seen: Seq::ZERO,
            epoch: 0,
            bytes: 0,
            uses: 0,
        }
    }

    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The highest position ever seen here.
    pub(crate) fn seen(&self) -> Seq {
        self.seen
    }

    /// The place in the feed; `None` before the first entry or look.
    pub(crate) fn cursor(&self) -> Option<FeedEnd> {
        self.cursor
    }

    pub(crate) fn set_cursor(&mut self, end: FeedEnd) {
        self.cursor = Some(end);
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The ring of a channel, marked as used.
    pub(crate) fn ring(&mut self, channel: &Channel) -> Option<&mut Ring> {
        self.uses += 1;
        let ring = self.rings.get_mut(channel)?;
        ring.used = self.uses;
        Some(ring)
    }

    pub(crate) fn watch(&mut self, channel: &Channel) {
        if !self.watched.contains(channel) {
            self.watched.insert(channel.clone());
            if let Some(ring) = self.rings.get_mut(channel) {
                ring.set_watched(channel, true);
            }
        }
    }

    pub(crate) fn unwatch(&mut self, channel: &Channel) {
        self.watched.remove(channel);
        if let Some(ring) = self.rings.get_mut(channel) {
            ring.set_watched(channel, false);
        }
        self.doubtful_starts.remove(channel);
        self.bare.remove(channel);
        self.unproven.remove(channel);
    }

    /// Takes note of the log's identity; under a new one nothing in memory is proven until history says so.
    pub(crate) fn set_identity(&mut self, identity: Identity, since: Seq) {
        if self.identity.as_ref().is_some_and(|before| *before != identity) {
            for ring in self.rings.values_mut() {
                ring.is_proven = false;
            }
            let empty = self.watched.iter().filter(|channel| !self.rings.contains_key(*channel));
            self.doubtful_starts.extend(empty.cloned());
        }
        self.identity = Some(identity);
        self.since = since;
    }

    /// Entries were missed, or the log was replaced: what history has of any channel may be gone.
    pub(crate) fn forget_kept(&mut self) {
        self.rings.values_mut().for_each(Ring::forget_kept);
    }

    /// Channels that are in memory or subscribed to.
    pub(crate) fn held(&self) -> Vec<Channel> {
        let rings = self.rings.keys().filter(|channel| !self.watched.contains(*channel));
        rings.chain(&self.watched).cloned().collect()
    }

    /// Whether entries of the feed were missed before this one.
    pub(crate) fn is_hole(&self, entry: &FeedEntry) -> bool {
        self.cursor.is_some_and(|cursor| entry.number != cursor.number + 1)
    }

    /// Takes in entries as far as that needs no look at history, and tells subscribers. Gives how many.
    pub(crate) fn take_run(&mut self, entries: &[FeedEntry], notices: &mut Vec<Notice>) -> usize {
        for (taken, entry) in entries.iter().enumerate() {
            if let Some(channel) = &entry.channel
                && !self.take_unwatched(channel, entry)
            {
                if self.joined_above(channel, entry).is_some() {
                    return taken;
                }
                match self.verdict(channel, entry) {
                    Verdict::Skip => {}
                    Verdict::Take => self.take(channel, entry, notices),
                    Verdict::Repair { .. } | Verdict::Below => return taken,
                }
            }
            self.cursor = Some(FeedEnd { id: entry.id, number: entry.number });
        }
        entries.len()
    }

    /// The short way of most entries: the next event of a channel that is in memory and that nobody wants.
    fn take_unwatched(&mut self, channel: &Channel, entry: &FeedEntry) -> bool {
        let (Some(ring), Some(body)) = (self.rings.get_mut(channel), &entry.body) else { return false };
        let is_next = ring.last > Seq::ZERO && links(ring.last, entry.seq, entry.previous);
        if ring.is_watched() || !is_next || entry.seq <= ring.joined {
            return false;
        }
        self.seen = self.seen.max(entry.seq);
        self.uses += 1;
        ring.used = self.uses;
        ring.is_proven |= entry.seq >= self.since;
        let before = ring.bytes();
        ring.push_raw(entry.seq, entry.previous, body.clone());
        ring.trim(self.ring_events);
        self.bytes = self.bytes - before + ring.bytes();
        self.keep_bounds();
        true
    }

    /// Decides on an entry. Markers are always taken.
    pub(crate) fn verdict(&self, channel: &Channel, entry: &FeedEntry) -> Verdict {
        let Some(ring) = self.rings.get(channel).filter(|ring| ring.last > Seq::ZERO) else { return Verdict::Take };
        let Some(body) = &entry.body else { return Verdict::Take };
        if entry.seq > ring.last {
            if links(ring.last, entry.seq, entry.previous) {
                return Verdict::Take;
            }
            return Verdict::Repair { after: ring.last, before: entry.seq };
        }
        if ring.has(entry.seq, body) { Verdict::Skip } else { Verdict::Below }
    }

    /// The position that a subscriber got from history at or above this entry, when the feed has not come as far.
    pub(crate) fn joined_above(&self, channel: &Channel, entry: &FeedEntry) -> Option<Seq> {
        let ring = self.rings.get(channel)?;
        let above = entry.body.is_some() && ring.last < entry.seq && entry.seq <= ring.joined;
        above.then_some(ring.joined)
    }

    /// Takes note of the position that a join took from history.
    pub(crate) fn note_joined(&mut self, channel: &Channel, seq: Seq) {
        self.seen = self.seen.max(seq);
        match self.rings.get_mut(channel) {
            Some(ring) => ring.joined = ring.joined.max(seq),
            None => _ = self.bare.insert(channel.clone()),
        }
    }

    /// Takes note of what history has: `count` entries from `first` to `last`.
    pub(crate) fn learn_kept(&mut self, channel: &Channel, first: Option<Seq>, last: Option<Seq>, count: usize) {
        if let (Some(ring), Some((first, last))) = (self.rings.get_mut(channel), first.zip(last)) {
            ring.learn_kept(first, last, count);
        }
    }

    /// The log ends below what a join took from history: those subscribers begin anew at `seq`.
    pub(crate) fn rewind_joined(&mut self, channel: &Channel, seq: Seq) -> Notice {
        self.epoch += 1;
        if let Some(ring) = self.rings.get_mut(channel) {
            ring.joined = Seq::ZERO;
        }
        Notice::Rewound { channel: channel.clone(), seq, epoch: self.epoch }
    }

    /// Takes an entry of the feed in, and tells subscribers, if there are any.
    pub(crate) fn take(&mut self, channel: &Channel, entry: &FeedEntry, notices: &mut Vec<Notice>) {
        self.seen = self.seen.max(entry.seq);
        let Some(body) = &entry.body else {
            self.take_proof(channel, entry.previous);
            let previous = self.start(channel, entry.previous);
            if self.watched.contains(channel) {
                notices.push(Notice::Marker { channel: channel.clone(), seq: entry.seq, previous });
            }
            return;
        };
        let trace = entry.trace.map(|context| Box::new(Traced { context, logged_ms: entry.id.ms }));
        notices.extend(self.push(channel, entry.seq, entry.previous, body, trace));
        if entry.seq >= self.since {
            self.prove(channel);
        }
        let rhythm = self.rings.get_mut(channel).and_then(|ring| ring.rhythm.as_mut());
        if rhythm.is_some_and(|rhythm| rhythm.heard(entry.id.ms, Instant::now())) {
            notices.push(Notice::Staleness { channel: channel.clone(), silent_for: None });
        }
    }

    /// Tells subscribers of channels that should speak and have fallen silent.
    pub(crate) fn tell_silent(&mut self, notices: &mut Vec<Notice>) {
        let now = Instant::now();
        for (channel, ring) in &mut self.rings {
            let silent_for = ring.rhythm.as_mut().and_then(|rhythm| rhythm.fell_silent(now));
            if silent_for.is_some() {
                notices.push(Notice::Staleness { channel: channel.clone(), silent_for });
            }
        }
    }

    /// The log could not be read until now: that was no channel's silence.
    pub(crate) fn excuse_silence(&mut self) {
        let now = Instant::now();
        self.rings.values_mut().filter_map(|ring| ring.rhythm.as_mut()).for_each(|rhythm| rhythm.excuse(now));
    }

    /// Takes in what history has above the ring's end. Entries below it are left out.
    pub(crate) fn repair(&mut self, channel: &Channel, entries: &[Entry], before: Option<Seq>) -> Vec<Notice> {
        let last = self.rings.get(channel).map_or(Seq::ZERO, |ring| ring.last);
        let wanted = entries.iter().filter(|entry| entry.seq > last && before.is_none_or(|before| entry.seq < before));
        wanted.filter_map(|entry| self.push(channel, entry.seq, entry.previous, &entry.body, None)).collect()
    }

    /// The log went back: the ring begins anew at `seq`.
    pub(crate) fn rewind(&mut self, channel: &Channel, seq: Seq) -> Notice {
        self.epoch += 1;
        if let Some(ring) = self.rings.remove(channel) {
            self.bytes -= ring.bytes();
        }
        Notice::Rewound { channel: channel.clone(), seq, epoch: self.epoch }
    }

    /// Takes note of what history says of a channel's end.
    pub(crate) fn judge(&mut self, channel: &Channel, end: ChannelEnd) {
        if end.proven {
            self.prove(channel);
        } else {
            self.doubt(channel);
        }
    }

    /// A watched channel is not proven: its subscribers are told unless that changes in time.
    pub(crate) fn doubt(&mut self, channel: &Channel) {
        if let Some(ring) = self.rings.get_mut(channel) {
            ring.is_proven = false;
        }
        if self.watched.contains(channel) {
            let due = Instant::now() + self.unproven_after;
            self.unproven.entry(channel.clone()).or_insert(due);
        }
    }

    fn prove(&mut self, channel: &Channel) {
        if let Some(ring) = self.rings.get_mut(channel) {
            ring.is_proven = true;
        }
        self.unproven.remove(channel);
    }

    /// The proof that an entry carries, without that of a doubtful start.
    fn start(&mut self, channel: &Channel, previous: Option<Seq>) -> Option<Seq> {
        previous.filter(|previous| *previous > Seq::ZERO || !self.doubtful_starts.remove(channel))
    }

    /// A marker proves the channel's end when what it names is that end.
    fn take_proof(&mut self, channel: &Channel, previous: Option<Seq>) {
        let last = self.rings.get(channel).map(|ring| ring.last);
        if previous.is_some_and(|previous| previous > Seq::ZERO && Some(previous) == last) {
            self.prove(channel);
        }
    }

    /// Channels that stayed unproven for too long.
    pub(crate) fn overdue(&mut self) -> Vec<Channel> {
        let now = Instant::now();
        let due: Vec<Channel> =
            self.unproven.iter().filter(|(_, at)| **at <= now).map(|(channel, _)| channel.clone()).collect();
        self.unproven.retain(|_, at| *at > now);
        due
    }

    /// Takes what a join read into the ring, so that later joins need not read it: as the ring when there is none, else in
    /// front of it. Not where somebody has joined already without a ring: what history has beyond that must come to them
    /// through the feed, which skips what a ring holds.
    pub(crate) fn absorb(&mut self, channel: &Channel, events: &[Arc<LogEvent>], proven: bool) {
        if events.is_empty() || self.bare.contains(channel) {
            return;
        }
        let max_events = self.ring_events;
        let is_empty = self.rings.get(channel).is_none_or(|ring| ring.last == Seq::ZERO);
        if let Some(newest) = events.last() {
            self.seen = self.seen.max(newest.seq);
        }
        self.with_ring(channel, |ring| {
            if is_empty {
                let kept = &events[events.len().saturating_sub(max_events)..];
                kept.iter().for_each(|event| ring.push(Arc::clone(event)));
                ring.is_proven = proven;
            } else {
                ring.extend_front(events, max_events);
            }
        });
    }

    fn push(
        &mut self,
        channel: &Channel,
        seq: Seq,
        previous: Option<Seq>,
        body: &bytes::Bytes,
        trace: Option<Box<Traced>>,
    ) -> Option<Notice> {
        self.seen = self.seen.max(seq);
        let previous = self.start(channel, previous);
        if !self.watched.contains(channel) {
            self.with_ring(channel, |ring| ring.push_raw(seq, previous, body.clone()));
            return None;
        }
        let Some(event) = LogEvent::parse(channel, seq, previous, body) else {
            self.with_ring(channel, |ring| ring.advance(seq, previous));
            return Some(Notice::Malformed { channel: channel.clone(), seq });
        };
        let event = Arc::new(LogEvent { trace, ..event });
        self.with_ring(channel, |ring| ring.push(Arc::clone(&event)));
        Some(Notice::Event(event))
    }

    /// Changes a ring, which is made when there is none, and keeps the bounds.
    fn with_ring(&mut self, channel: &Channel, change: impl FnOnce(&mut Ring)) {
        self.uses += 1;
        let ring = self.rings.entry(channel.clone()).or_default();
        ring.set_watched(channel, self.watched.contains(channel));
        ring.used = self.uses;
        let before = ring.bytes();
        change(ring);
        ring.trim(self.ring_events);
        self.bytes = self.bytes - before + ring.bytes();
        self.keep_bounds();
    }

    fn keep_bounds(&mut self) {
        if self.bytes > self.ring_bytes || self.idle() > self.ring_channels {
            self.shrink();
        }
    }

    /// How many channels are in memory without a subscriber, at least.
    fn idle(&self) -> usize {
        self.rings.len().saturating_sub(self.watched.len())
    }

    /// Makes room: channels that nobody subscribes to go first, the least recently used first; when that is not enough
    /// in bytes, the others keep a half.
    fn shrink(&mut self) {
        let (max_bytes, max_channels) = (self.ring_bytes / 4 * 3, self.ring_channels / 4 * 3);
        let idle = self.rings.iter().filter(|(_, ring)| !ring.is_watched());
        let mut idle: Vec<(u64, Channel)> = idle.map(|(channel, ring)| (ring.used, channel.clone())).collect();
        idle.sort_unstable();
        for (_, channel) in idle {
            if self.bytes <= max_bytes && self.idle() <= max_channels {
                return;
            }
            if let Some(ring) = self.rings.remove(&channel) {
                self.bytes -= ring.bytes();
            }
        }
        if self.bytes > self.ring_bytes {
            self.rings.values_mut().for_each(Ring::halve);
            self.bytes = self.rings.values().map(Ring::bytes).sum();
        }
    }
}

impl LogEvent {
    /// Checks a stored body and renders its envelope. `None` when it is no event of this channel.
    pub(crate) fn parse(channel: &Channel, seq: Seq, previous: Option<Seq>, body: &bytes::Bytes) -> Option<Self> {
        let body = Body::parse(body.clone(), channel).ok()?;
        let (ts_ms, envelope) = (body.ts_ms(), body.envelope(seq).into());
        Some(Self { channel: channel.clone(), seq, previous, ts_ms, envelope, trace: None })
    }
}
