//! What a replica knows of one partition: rings, the place in the feed, and what an entry of the feed means.
//!
//! Plain data under a lock that is never held across a wait. The reader task asks for a [`Verdict`] on each entry, reads
//! history where the verdict says so, and hands the entry over; joins read the rings.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use akis_model::{Body, Channel, Seq};
use tokio::time::Instant;

use crate::replica::{LogEvent, Notice, ReplicaConfig};
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

/// One channel in memory.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    events: VecDeque<Arc<LogEvent>>,
    /// The last position taken in, that of a malformed entry included.
    last: Seq,
    /// The highest position that a join took from history: above `last` while the feed has not come as far.
    joined: Seq,
    /// Whether the channel's end is proven under the present identity.
    proven: bool,
    bytes: usize,
    used: u64,
}

impl Ring {
    pub(crate) fn events(&self) -> &VecDeque<Arc<LogEvent>> {
        &self.events
    }

    pub(crate) fn last(&self) -> Seq {
        self.last
    }

    pub(crate) fn is_proven(&self) -> bool {
        self.proven
    }
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
    unproven_after: Duration,
    rings: HashMap<Channel, Ring>,
    /// Channels that somebody subscribes to here.
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
        Self {
            ring_events: config.ring_events,
            ring_bytes: config.ring_bytes / usize::from(partitions.max(1)),
            unproven_after: config.unproven_after,
            rings: HashMap::new(),
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
    pub(crate) fn ring(&mut self, channel: &Channel) -> Option<&Ring> {
        self.uses += 1;
        let ring = self.rings.get_mut(channel)?;
        ring.used = self.uses;
        Some(ring)
    }

    pub(crate) fn watch(&mut self, channel: &Channel) {
        self.watched.insert(channel.clone());
    }

    pub(crate) fn unwatch(&mut self, channel: &Channel) {
        self.watched.remove(channel);
        self.doubtful_starts.remove(channel);
        self.bare.remove(channel);
        self.unproven.remove(channel);
    }

    /// Takes note of the log's identity; under a new one nothing in memory is proven until history says so.
    pub(crate) fn set_identity(&mut self, identity: Identity, since: Seq) {
        if self.identity.as_ref().is_some_and(|before| *before != identity) {
            self.rings.values_mut().for_each(|ring| ring.proven = false);
            let empty = self.watched.iter().filter(|channel| !self.rings.contains_key(*channel));
            self.doubtful_starts.extend(empty.cloned());
        }
        self.identity = Some(identity);
        self.since = since;
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
        let known = ring.events.binary_search_by_key(&entry.seq, |event| event.seq);
        let same = known.is_ok_and(|at| ring.events.get(at).is_some_and(|event| event.envelope.ends_with(body)));
        if same { Verdict::Skip } else { Verdict::Below }
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

    /// The log ends below what a join took from history: those subscribers begin anew at `seq`.
    pub(crate) fn rewind_joined(&mut self, channel: &Channel, seq: Seq) -> Notice {
        self.epoch += 1;
        if let Some(ring) = self.rings.get_mut(channel) {
            ring.joined = Seq::ZERO;
        }
        Notice::Rewound { channel: channel.clone(), seq, epoch: self.epoch }
    }

    /// Takes an entry of the feed in, and says what subscribers are told.
    pub(crate) fn take(&mut self, channel: &Channel, entry: &FeedEntry) -> Option<Notice> {
        self.seen = self.seen.max(entry.seq);
        let Some(body) = &entry.body else {
            self.take_proof(channel, entry.previous);
            let previous = self.start(channel, entry.previous);
            return Some(Notice::Marker { channel: channel.clone(), seq: entry.seq, previous });
        };
        let notice = self.push(channel, entry.seq, entry.previous, body);
        if entry.seq >= self.since {
            self.prove(channel);
        }
        Some(notice)
    }

    /// Takes in what history has above the ring's end. Entries below it are left out.
    pub(crate) fn repair(&mut self, channel: &Channel, entries: &[Entry], before: Option<Seq>) -> Vec<Notice> {
        let last = self.rings.get(channel).map_or(Seq::ZERO, |ring| ring.last);
        let wanted = entries.iter().filter(|entry| entry.seq > last && before.is_none_or(|before| entry.seq < before));
        wanted.map(|entry| self.push(channel, entry.seq, entry.previous, &entry.body)).collect()
    }

    /// The log went back: the ring begins anew at `seq`.
    pub(crate) fn rewind(&mut self, channel: &Channel, seq: Seq) -> Notice {
        self.epoch += 1;
        if let Some(ring) = self.rings.remove(channel) {
            self.bytes -= ring.bytes;
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
            ring.proven = false;
        }
        if self.watched.contains(channel) {
            let due = Instant::now() + self.unproven_after;
            self.unproven.entry(channel.clone()).or_insert(due);
        }
    }

    fn prove(&mut self, channel: &Channel) {
        if let Some(ring) = self.rings.get_mut(channel) {
            ring.proven = true;
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

    /// Fills an empty ring with the end of history, so that later joins need not read it. Not where somebody has joined
    /// already: what history has beyond that must come to them through the feed, which skips what a ring holds.
    pub(crate) fn seed(&mut self, channel: &Channel, events: &[Arc<LogEvent>], proven: bool) {
        if events.is_empty()
            || self.bare.contains(channel)
            || self.rings.get(channel).is_some_and(|ring| ring.last > Seq::ZERO)
        {
            return;
        }
        for event in &events[events.len().saturating_sub(self.ring_events)..] {
            self.push_event(Arc::clone(event));
        }
        if let Some(ring) = self.rings.get_mut(channel) {
            ring.proven = proven;
        }
    }

    fn push(&mut self, channel: &Channel, seq: Seq, previous: Option<Seq>, body: &bytes::Bytes) -> Notice {
        self.seen = self.seen.max(seq);
        let previous = self.start(channel, previous);
        match LogEvent::parse(channel, seq, previous, body) {
            Some(event) => {
                let event = Arc::new(event);
                self.push_event(Arc::clone(&event));
                Notice::Event(event)
            }
            None => {
                self.rings.entry(channel.clone()).or_default().last = seq;
                Notice::Malformed { channel: channel.clone(), seq }
            }
        }
    }

    fn push_event(&mut self, event: Arc<LogEvent>) {
        self.seen = self.seen.max(event.seq);
        self.uses += 1;
        let ring = self.rings.entry(event.channel.clone()).or_default();
        ring.used = self.uses;
        ring.last = event.seq;
        ring.bytes += event.envelope.len();
        self.bytes += event.envelope.len();
        ring.events.push_back(event);
        if ring.events.len() > self.ring_events
            && let Some(oldest) = ring.events.pop_front()
        {
            ring.bytes -= oldest.envelope.len();
            self.bytes -= oldest.envelope.len();
        }
        if self.bytes > self.ring_bytes {
            self.shrink();
        }
    }

    /// Makes room: channels that nobody subscribes to go first, the least recently used first; the others keep a half.
    fn shrink(&mut self) {
        let goal = self.ring_bytes / 4 * 3;
        let mut idle: Vec<(u64, Channel)> = self
            .rings
            .iter()
            .filter(|(channel, _)| !self.watched.contains(*channel))
            .map(|(channel, ring)| (ring.used, channel.clone()))
            .collect();
        idle.sort_unstable();
        for (_, channel) in idle {
            if self.bytes <= goal {
                return;
            }
            if let Some(ring) = self.rings.remove(&channel) {
                self.bytes -= ring.bytes;
            }
        }
        for ring in self.rings.values_mut() {
            let half = ring.events.len() / 2;
            let freed: usize = ring.events.drain(..half).map(|event| event.envelope.len()).sum();
            ring.bytes -= freed;
            self.bytes -= freed;
        }
    }
}

impl LogEvent {
    /// Checks a stored body and renders its envelope. `None` when it is no event of this channel.
    pub(crate) fn parse(channel: &Channel, seq: Seq, previous: Option<Seq>, body: &bytes::Bytes) -> Option<Self> {
        let body = Body::parse(body.clone(), channel).ok()?;
        let (ts_ms, envelope) = (body.ts_ms(), body.envelope(seq).into());
        Some(Self { channel: channel.clone(), seq, previous, ts_ms, envelope })
    }
}
