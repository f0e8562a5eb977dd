//! One channel in memory: its newest events, each checked and rendered when somebody first wants it.
//!
//! Most of what a replica reads is of channels that nobody subscribes to here. It is kept as the log has it; the first
//! subscriber who needs an event has it parsed, once, and everybody after that shares the result.

use std::collections::VecDeque;
use std::sync::Arc;

use akis_model::{Channel, Seq};
use bytes::Bytes;

use crate::replica::LogEvent;
use crate::rhythm::Rhythm;
use crate::tail::links;

/// What an event costs in memory beside its text.
const OVERHEAD: usize = 160;

#[derive(Debug)]
enum Content {
    /// As the feed gave it: not checked yet.
    Raw(Bytes),
    /// Checked and rendered.
    Ready(Arc<LogEvent>),
}

#[derive(Debug)]
struct Slot {
    seq: Seq,
    previous: Option<Seq>,
    /// As it was counted when it came in.
    size_bytes: usize,
    content: Content,
}

/// What history has of a channel, as far as a ring knows.
#[derive(Debug, Clone, Copy)]
struct Kept {
    /// The oldest position that was kept when this became known.
    first: Seq,
    /// How many entries there were from there on, at that moment. Histories are trimmed in pieces, so that may be more than they keep.
    learnt: usize,
    /// How many there have been by now.
    count: usize,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    slots: VecDeque<Slot>,
    /// `None` while it is not known.
    kept: Option<Kept>,
    /// The last position taken in, that of a malformed entry included.
    pub(crate) last: Seq,
    /// The highest position that a join took from history: above `last` while the feed has not come as far.
    pub(crate) joined: Seq,
    /// Whether the channel's end is proven under the present identity.
    pub(crate) is_proven: bool,
    /// Whether somebody subscribes to the channel here. Changed by [`Ring::set_watched`].
    is_watched: bool,
    /// While it is watched, of a channel that should speak.
    pub(crate) rhythm: Option<Rhythm>,
    /// When it was used last, in uses of the whole partition.
    pub(crate) used: u64,
    bytes: usize,
}

/// A part of a ring whose events were all checked.
pub(crate) struct Checked {
    /// In order.
    pub(crate) events: Vec<Arc<LogEvent>>,
    /// Positions that turned out to be no event. They are forgotten.
    pub(crate) malformed: Vec<Seq>,
}

impl Ring {
    /// What it holds in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether somebody subscribes to the channel here.
    pub(crate) fn is_watched(&self) -> bool {
        self.is_watched
    }

    /// Says whether somebody subscribes to the channel here.
    pub(crate) fn set_watched(&mut self, channel: &Channel, is_watched: bool) {
        if self.is_watched != is_watched {
            self.is_watched = is_watched;
            self.rhythm = if is_watched { Rhythm::of(channel) } else { None };
        }
    }

    /// The oldest position held.
    pub(crate) fn first(&self) -> Option<Seq> {
        self.slots.front().map(|slot| slot.seq)
    }

    /// The oldest position that a history of `keeps` entries and more has; at most some entries above it, for histories are trimmed in pieces.
    /// `None` when that is not known.
    pub(crate) fn oldest_kept(&self, keeps: usize) -> Option<Seq> {
        let Kept { first, learnt, count } = self.kept?;
        if count <= learnt.max(keeps) {
            return Some(first);
        }
        let is_dense = self.last.get() - first.get() + 1 == count as u64;
        if is_dense {
            return Some(first.plus((count - keeps) as u64));
        }
        // Where a term began between the two, positions say nothing of how many entries there are.
        let oldest = self.slots.len().checked_sub(keeps)?;
        self.slots.get(oldest).map(|slot| slot.seq)
    }

    /// History has `count` entries from `first` to `last`. Of no use while the feed has not come as far.
    pub(crate) fn learn_kept(&mut self, first: Seq, last: Seq, count: usize) {
        if first <= last && last <= self.last {
            let above = self.slots.len() - self.index_above(last);
            self.kept = Some(Kept { first, learnt: count, count: count + above });
        }
    }

    /// What history has may have changed.
    pub(crate) fn forget_kept(&mut self) {
        self.kept = None;
    }

    /// Takes note of the position of the next entry, which is no event where it is not pushed.
    pub(crate) fn advance(&mut self, seq: Seq, previous: Option<Seq>) {
        self.kept = match self.kept {
            _ if previous == Some(Seq::ZERO) => Some(Kept { first: seq, learnt: 1, count: 1 }),
            Some(kept) if seq == self.last.next() => Some(Kept { count: kept.count + 1, ..kept }),
            // What lies before another term may be gone: the history of an application's channel can have expired.
            Some(_) | None => None,
        };
        self.last = seq;
    }

    /// Whether exactly this event is here.
    pub(crate) fn has(&self, seq: Seq, body: &Bytes) -> bool {
        let slot = self.slots.binary_search_by_key(&seq, |slot| slot.seq).ok().and_then(|at| self.slots.get(at));
        slot.is_some_and(|slot| match &slot.content {
            Content::Raw(raw) => raw == body,
            Content::Ready(event) => event.envelope.ends_with(body),
        })
    }

    /// Adds the next event as the log has it.
    pub(crate) fn push_raw(&mut self, seq: Seq, previous: Option<Seq>, body: Bytes) {
        let size_bytes = body.len() + OVERHEAD;
        self.push_back(Slot { seq, previous, size_bytes, content: Content::Raw(body) });
    }

    /// Adds the next event.
    pub(crate) fn push(&mut self, event: Arc<LogEvent>) {
        self.push_back(Slot::ready(event));
    }

    fn push_back(&mut self, slot: Slot) {
        self.advance(slot.seq, slot.previous);
        self.bytes += slot.size_bytes;
        self.slots.push_back(slot);
    }

    /// Adds events from history in front, the newest first, as far as each is followed by what is here without
    /// anything between them, up to `max_events` in all.
    pub(crate) fn extend_front(&mut self, events: &[Arc<LogEvent>], max_events: usize) {
        for event in events.iter().rev() {
            let Some(front) = self.slots.front() else { return };
            if event.seq >= front.seq {
                continue;
            }
            if !links(event.seq, front.seq, front.previous) || self.slots.len() >= max_events {
                return;
            }
            let slot = Slot::ready(Arc::clone(event));
            self.bytes += slot.size_bytes;
            self.slots.push_front(slot);
        }
    }

    /// Forgets the oldest until at most `max_events` are held.
    pub(crate) fn trim(&mut self, max_events: usize) {
        while self.slots.len() > max_events
            && let Some(oldest) = self.slots.pop_front()
        {
            self.bytes -= oldest.size_bytes;
        }
    }

    /// Forgets the older half.
    pub(crate) fn halve(&mut self) {
        self.trim(self.slots.len().div_ceil(2));
    }

    /// The events above `after`, checked.
    pub(crate) fn above(&mut self, channel: &Channel, after: Seq) -> Checked {
        self.checked(channel, self.index_above(after))
    }

    /// The newest event, checked; none when the ring holds none.
    pub(crate) fn newest(&mut self, channel: &Channel) -> Checked {
        let mut checked = Checked { events: Vec::new(), malformed: Vec::new() };
        while checked.events.is_empty() && !self.slots.is_empty() {
            let part = self.checked(channel, self.slots.len() - 1);
            checked.events = part.events;
            checked.malformed.extend(part.malformed);
        }
        checked
    }

    /// All events, checked.
    pub(crate) fn all(&mut self, channel: &Channel) -> Checked {
        self.checked(channel, 0)
    }

    fn index_above(&self, seq: Seq) -> usize {
        self.slots.partition_point(|slot| slot.seq <= seq)
    }

    fn checked(&mut self, channel: &Channel, from: usize) -> Checked {
        let mut checked = Checked { events: Vec::with_capacity(self.slots.len() - from), malformed: Vec::new() };
        for slot in self.slots.range_mut(from..) {
            match slot.check(channel) {
                Some(event) => checked.events.push(Arc::clone(event)),
                None => checked.malformed.push(slot.seq),
            }
        }
        if !checked.malformed.is_empty() {
            self.forget(&checked.malformed);
        }
        checked
    }

    fn forget(&mut self, seqs: &[Seq]) {
        self.slots.retain(|slot| !seqs.contains(&slot.seq));
        self.bytes = self.slots.iter().map(|slot| slot.size_bytes).sum();
    }
}

impl Slot {
    fn ready(event: Arc<LogEvent>) -> Self {
        let size_bytes = event.envelope.len() + OVERHEAD;
        Self { seq: event.seq, previous: event.previous, size_bytes, content: Content::Ready(event) }
    }

    /// The event, checked and rendered the first time. `None` when it is none.
    fn check(&mut self, channel: &Channel) -> Option<&Arc<LogEvent>> {
        if let Content::Raw(body) = &self.content {
            let event = LogEvent::parse(channel, self.seq, self.previous, body)?;
            self.content = Content::Ready(Arc::new(event));
        }
        match &self.content {
            Content::Ready(event) => Some(event),
            Content::Raw(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use akis_model::{Body, Outcome};
    use serde_json::json;

    use super::*;

    fn channel() -> Channel {
        Channel::parse("v:S:ticker").unwrap()
    }

    fn body(ts_ms: i64) -> Bytes {
        Body::render(ts_ms, "e", &channel(), Outcome::Ok, &json!({})).unwrap().text().clone()
    }

    fn seq(seq: u64) -> Seq {
        Seq::new(seq).unwrap()
    }

    fn event(n: u64) -> Arc<LogEvent> {
        Arc::new(LogEvent::parse(&channel(), seq(n), None, &body(n as i64)).unwrap())
    }

    fn seqs(events: &[Arc<LogEvent>]) -> Vec<u64> {
        events.iter().map(|event| event.seq.get()).collect()
    }

    #[test]
    fn an_event_is_rendered_once_and_shared() {
        let mut ring = Ring::default();
        (1..=3).for_each(|n| ring.push_raw(seq(n), None, body(n as i64)));
        let first = ring.above(&channel(), seq(1)).events;
        let second = ring.all(&channel()).events;
        assert_eq!((seqs(&first), seqs(&second)), (vec![2, 3], vec![1, 2, 3]));
        assert!(Arc::ptr_eq(&first[0], &second[1]));
        assert!(ring.has(seq(2), &body(2)) && !ring.has(seq(2), &body(3)));
    }

    #[test]
    fn what_is_no_event_is_found_when_it_is_wanted_and_forgotten() {
        let mut ring = Ring::default();
        ring.push_raw(seq(1), None, body(1));
        ring.push_raw(seq(2), None, Bytes::from_static(b"no event"));
        assert_eq!(ring.last, seq(2));
        let newest = ring.newest(&channel());
        assert_eq!((seqs(&newest.events), newest.malformed), (vec![1], vec![seq(2)]));
        assert_eq!(ring.last, seq(2), "its position stays taken");
        assert_eq!(ring.bytes(), body(1).len() + OVERHEAD);
        assert!(ring.all(&channel()).malformed.is_empty());
    }

    #[test]
    fn what_history_keeps_is_known_from_a_channels_beginning_or_from_a_look_at_it() {
        let mut ring = Ring::default();
        ring.push_raw(seq(10), Some(Seq::ZERO), body(10));
        (11..=14).for_each(|n| ring.push_raw(seq(n), None, body(n as i64)));
        assert_eq!([5, 3].map(|keeps| ring.oldest_kept(keeps)), [10, 12].map(|n| Some(seq(n))));
        ring.push_raw(seq(30), Some(seq(14)), body(30));
        assert_eq!(ring.oldest_kept(5), None, "another term");
        ring.learn_kept(seq(12), seq(31), 5);
        assert_eq!(ring.oldest_kept(5), None, "the feed has not come as far");
        ring.learn_kept(seq(12), seq(30), 4);
        ring.push_raw(seq(31), None, body(31));
        assert_eq!([5, 4].map(|keeps| ring.oldest_kept(keeps)), [12, 13].map(|n| Some(seq(n))));
        ring.trim(2);
        assert_eq!(ring.oldest_kept(4), None, "the ring is too short to say, and its first is not the oldest");
        ring.forget_kept();
        assert_eq!(ring.oldest_kept(5), None);
    }

    #[test]
    fn a_history_that_is_somewhat_longer_than_it_has_to_be_begins_where_it_was_seen_to() {
        let mut ring = Ring::default();
        (12..=14).for_each(|n| ring.push_raw(seq(n), None, body(n as i64)));
        ring.push_raw(seq(30), Some(seq(14)), body(30));
        // Of entries 5 to 14 and 30 five have to be kept.
        ring.learn_kept(seq(5), seq(30), 11);
        assert_eq!(ring.oldest_kept(5), Some(seq(5)));
        ring.push_raw(seq(31), None, body(31));
        assert_eq!(ring.oldest_kept(6), None, "it may have been trimmed since");
        assert_eq!(ring.oldest_kept(5), Some(seq(12)), "the ring has all that is kept");
    }

    #[test]
    fn history_is_put_in_front_as_far_as_it_links() {
        let mut ring = Ring::default();
        ring.push_raw(seq(9), None, body(9));
        ring.extend_front(&[event(3), event(5), event(6), event(7), event(8), event(9)], 4);
        assert_eq!(seqs(&ring.all(&channel()).events), vec![6, 7, 8, 9], "bounded");
        ring.extend_front(&[event(3), event(5)], 100);
        assert_eq!(ring.first(), Some(seq(5)), "3 is not followed by 5");
        ring.halve();
        assert_eq!(seqs(&ring.all(&channel()).events), vec![7, 8, 9]);
        let mut apart = Ring::default();
        apart.push(event(9));
        apart.extend_front(&[event(7)], 100);
        assert_eq!(apart.first(), Some(seq(9)));
    }
}
