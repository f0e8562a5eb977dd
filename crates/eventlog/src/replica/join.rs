//! How a subscriber joins a channel: what lies before live, and what that is worth.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use akis_model::{Channel, Seq};

use super::{From, JoinError, Joined, LogEvent, Replica};
use crate::store::{Range, Select, StoreError};
use crate::tail::{Tail, links};

/// Most entries of history that one join reads: somewhat more than any kind keeps, because trimming is approximate.
const HISTORY: usize = 8192;

/// How often a join reads history again because the ring has moved on meanwhile.
const READS: usize = 4;

impl Replica {
    /// Joins a subscriber: calls `activate` with what lies before live while the partition's tail stands still.
    ///
    /// The subscriber has been registered with the sink before, and until `activate` ignores notices of the channel; from then
    /// on it takes those above the last position of [`Joined::events`].
    ///
    /// # Errors
    ///
    /// [`JoinError::Unavailable`] when memory does not reach and history cannot be read; `activate` was not called.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop: `activate` has then not been called.
    pub async fn join(
        &self,
        channel: &Channel,
        from: From,
        activate: impl FnOnce(Joined) + Send,
    ) -> Result<(), JoinError> {
        let view = self.view(channel);
        {
            let mut tail = view.tail.lock();
            tail.watch(channel);
            if let Some(joined) = from_ring(&mut tail, channel, from, self.config.join_events) {
                activate(joined);
                return Ok(());
            }
        }
        for read in 1..=READS {
            let range = self.read_history(channel, from).await.map_err(|error| {
                self.counts.errors.count(&error);
                JoinError::Unavailable(error)
            })?;
            let mut tail = view.tail.lock();
            let past = Past::new(channel, from, &range);
            // After the last read what is missing between history and the ring is told as a gap.
            if past.reaches(&mut tail) || read == READS {
                activate(past.join(&mut tail, self.config.join_events));
                break;
            }
        }
        Ok(())
    }

    async fn read_history(&self, channel: &Channel, from: From) -> Result<Range, StoreError> {
        let _permit = self.reads.acquire().await.map_err(|_| StoreError::Broken("reads are closed".to_owned()))?;
        self.counts.history_reads.fetch_add(1, Ordering::Relaxed);
        let select = match from {
            From::Live { .. } => Select::Newest { limit: 1 },
            From::After(after) => Select::Above { after, limit: HISTORY },
            From::Since(_) => Select::Newest { limit: HISTORY },
        };
        let range = self.store.range(channel, select).await?;
        if range.entries.is_empty() && range.last.is_some() {
            let latest = self.store.range(channel, Select::Newest { limit: 1 }).await?;
            return Ok(at_end(range, latest));
        }
        Ok(range)
    }
}

/// What is read for a position that has nothing above it: the latest event, with which those begin who cannot resume, unless
/// `latest` is of a later end than `range`. Then what lies between the two is in neither, and those who stood at the end would
/// lose it; the ring or the feed brings all of it.
fn at_end(range: Range, latest: Range) -> Range {
    if latest.last == range.last { latest } else { range }
}

/// What lies before live, before it is cut to size.
struct Before {
    position: Seq,
    recovered: bool,
    oldest: Option<Seq>,
    events: Vec<Arc<LogEvent>>,
    /// Whether `events` reaches the end of what there is.
    complete: bool,
}

impl Before {
    fn joined(mut self, tail: &Tail, limit: usize) -> Joined {
        let replayed = self.events.len();
        self.events.truncate(limit);
        Joined {
            position: self.position,
            recovered: self.recovered,
            oldest: self.oldest,
            live: self.complete && replayed <= limit,
            events: self.events,
            replayed,
            epoch: tail.epoch(),
        }
    }
}

/// Whether each event follows the one before it, the first one `position`.
fn is_chain<'a>(position: Seq, events: impl IntoIterator<Item = &'a Arc<LogEvent>>) -> bool {
    let mut position = position;
    events.into_iter().all(|event| {
        let linked = links(position, event.seq, event.previous);
        position = event.seq;
        linked
    })
}

/// Joins from memory alone, when it reaches.
fn from_ring(tail: &mut Tail, channel: &Channel, from: From, limit: usize) -> Option<Joined> {
    let ring = tail.ring(channel)?;
    let (events, last, proven) = (ring.events(), ring.last(), ring.is_proven());
    let (oldest, newest) = (events.front()?, events.back()?);
    let (position, skipped) = match from {
        From::Live { snapshot: true } => (newest.seq.before(), events.len() - 1),
        From::Live { snapshot: false } => (last, events.len()),
        From::After(after) => {
            let reached = proven && after > Seq::ZERO && after <= last;
            reached.then(|| (after, events.partition_point(|event| event.seq <= after)))?
        }
        From::Since(ts_ms) => {
            let skipped = events.iter().position(|event| event.ts_ms >= ts_ms).unwrap_or(events.len());
            let before = skipped.checked_sub(1).and_then(|before| events.get(before)).filter(|_| proven)?;
            (before.seq, skipped)
        }
    };
    let wanted: Vec<_> = events.range(skipped..).cloned().collect();
    let linked = is_chain(position, &wanted) && (!wanted.is_empty() || position == last);
    let resumes = !matches!(from, From::Live { .. });
    if resumes && !linked {
        return None;
    }
    let before = Before { position, recovered: resumes, oldest: Some(oldest.seq), events: wanted, complete: true };
    if !proven {
        tail.doubt(channel);
    }
    Some(before.joined(tail, limit))
}

/// What history holds for one subscriber.
struct Past<'a> {
    channel: &'a Channel,
    from: From,
    range: &'a Range,
    /// The entries read that are events.
    events: Vec<Arc<LogEvent>>,
}

impl<'a> Past<'a> {
    fn new(channel: &'a Channel, from: From, range: &'a Range) -> Self {
        let parse = |entry: &crate::store::Entry| LogEvent::parse(channel, entry.seq, entry.previous, &entry.body);
        let events = range.entries.iter().filter_map(parse).map(Arc::new).collect();
        Self { channel, from, range, events }
    }

    /// Where history ends.
    fn end(&self) -> Seq {
        self.range.last.unwrap_or_default()
    }

    /// Whether what was read reaches the end of history, and that end the ring.
    fn reaches(&self, tail: &mut Tail) -> bool {
        let end = self.end();
        let next = tail.ring(self.channel).and_then(|ring| ring.events().iter().find(|event| event.seq > end).cloned());
        next.is_none_or(|next| links(end, next.seq, next.previous))
    }

    fn is_complete(&self) -> bool {
        self.range.entries.last().is_none_or(|last| last.seq >= self.end())
    }

    fn join(self, tail: &mut Tail, limit: usize) -> Joined {
        let end = self.end();
        let newer: Vec<Arc<LogEvent>> = match tail.ring(self.channel) {
            Some(ring) => ring.events().iter().filter(|event| event.seq > end).cloned().collect(),
            None => Vec::new(),
        };
        let front = tail.ring(self.channel).and_then(|ring| ring.events().front().map(|event| event.seq));
        let mut before = self.before();
        before.oldest = self.range.first.or(front);
        before.complete = self.is_complete();
        if before.complete {
            self.add_newer(&mut before, &newer);
        }
        if !self.range.proven {
            before.recovered = false;
            if end > Seq::ZERO || !newer.is_empty() {
                tail.doubt(self.channel);
            }
        }
        if before.complete {
            tail.seed(self.channel, &self.events, self.range.proven);
            tail.note_joined(self.channel, end);
        }
        before.joined(tail, limit)
    }

    /// What history alone gives.
    fn before(&self) -> Before {
        let (position, recovered, events) = match self.from {
            From::Live { snapshot } => self.latest(snapshot),
            From::After(after) => self.after(after),
            From::Since(ts_ms) => self.since(ts_ms),
        };
        Before { position, recovered, oldest: None, events: events.to_vec(), complete: true }
    }

    fn latest(&self, wanted: bool) -> (Seq, bool, &[Arc<LogEvent>]) {
        match self.events.last() {
            Some(latest) if wanted => (latest.seq.before(), false, &self.events[self.events.len() - 1..]),
            _ => (self.end(), false, &[]),
        }
    }

    fn after(&self, after: Seq) -> (Seq, bool, &[Arc<LogEvent>]) {
        let above = &self.events[self.events.partition_point(|event| event.seq <= after)..];
        if let Some(first) = above.first() {
            let linked = after > Seq::ZERO && is_chain(after, above);
            return (if linked && self.range.proven { after } else { first.seq.before() }, linked, above);
        }
        if after > Seq::ZERO && self.range.last == Some(after) {
            return (after, true, &[]);
        }
        self.latest(true)
    }

    fn since(&self, ts_ms: i64) -> (Seq, bool, &[Arc<LogEvent>]) {
        let Some(first) = self.events.iter().position(|event| event.ts_ms >= ts_ms) else {
            return (self.end(), !self.events.is_empty(), &[]);
        };
        let wanted = &self.events[first..];
        let position = wanted[0].seq.before();
        let linked = match first.checked_sub(1).map(|before| &self.events[before]) {
            Some(before) => is_chain(before.seq, wanted),
            // The whole of the channel was read when its first event is the one that began it.
            None => wanted[0].previous == Some(Seq::ZERO) && is_chain(Seq::ZERO, wanted),
        };
        (position, linked, wanted)
    }

    /// Adds what the ring has above the end of history.
    fn add_newer(&self, before: &mut Before, newer: &[Arc<LogEvent>]) {
        let Some(latest) = newer.last() else { return };
        match self.from {
            From::Live { snapshot: true } => {
                before.position = latest.seq.before();
                before.events = vec![Arc::clone(latest)];
            }
            From::Live { snapshot: false } => before.position = latest.seq,
            // History is gone and memory is not: what memory has above the position, else the latest event.
            From::After(_) | From::Since(_) if self.range.last.is_none() => {
                let floor = if let From::After(after) = self.from { after } else { Seq::ZERO };
                before.events = newer.iter().filter(|event| event.seq > floor).cloned().collect();
                if before.events.is_empty() {
                    before.events.push(Arc::clone(latest));
                }
                before.position = before.events.first().map_or(Seq::ZERO, |event| event.seq.before());
            }
            From::After(_) | From::Since(_) => {
                let end = before.events.last().map_or(before.position, |event| event.seq);
                let above = newer.iter().filter(|event| event.seq > end).cloned();
                let added: Vec<_> = above.collect();
                before.recovered &= is_chain(end, &added);
                before.events.extend(added);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::store::Entry;

    fn seq(n: u64) -> Seq {
        Seq::new(n).unwrap()
    }

    fn range(entries: &[u64], last: u64) -> Range {
        let body = Bytes::from_static(br#""ts":1,"event":"e","channel":"job:1","ok":true,"data":{}}"#);
        let entry = |&n: &u64| Entry { seq: seq(n), previous: None, body: body.clone() };
        let entries = entries.iter().map(entry).collect();
        Range { entries, first: Some(seq(1)), last: Some(seq(last)), proven: true, since: Seq::ZERO }
    }

    #[test]
    fn who_stands_at_the_end_is_recovered_also_when_events_come_between_two_reads() {
        let channel = Channel::parse("job:1").unwrap();
        for (after, latest, recovered, position) in [
            // Nothing came in between.
            (7, range(&[7], 7), true, 7),
            (9, range(&[7], 7), false, 6),
            // Two events did: the latest alone would begin behind the other.
            (7, range(&[9], 9), true, 7),
            (9, range(&[9], 9), false, 7),
        ] {
            let range = at_end(range(&[], 7), latest);
            let before = Past::new(&channel, From::After(seq(after)), &range).before();
            assert_eq!((before.recovered, before.position), (recovered, seq(position)), "after {after}");
            assert!(is_chain(before.position, &before.events), "after {after}");
        }
    }
}
