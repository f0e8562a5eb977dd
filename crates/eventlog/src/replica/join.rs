//! How a subscriber joins a channel: what lies before live, and what that is worth.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use akis_model::{Channel, Seq};
use tokio::time::timeout;

use super::reads::Page;
use super::{From, JoinError, Joined, LogEvent, Replica, Upstream};
use crate::retention::{history_len, retention};
use crate::ring::Checked;
use crate::tail::{Tail, links};

/// How often a join reads history again because the ring has moved on meanwhile.
const READS: usize = 4;

/// How long a join that memory serves waits to learn what history keeps.
const END_WITHIN: Duration = Duration::from_secs(1);

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
        let is_in_memory = {
            let mut tail = view.tail.lock();
            tail.watch(channel);
            match self.join_from_memory(&mut tail, channel, from) {
                Some(joined) if joined.oldest.is_some() => {
                    activate(joined);
                    return Ok(());
                }
                joined => joined.is_some(),
            }
        };
        if is_in_memory {
            // All that is missing is what history keeps, which is asked once for a ring.
            let page = self.end_of(channel).await;
            let mut tail = view.tail.lock();
            if let Some(page) = &page {
                tail.learn_kept(channel, page.first, page.last, page.length);
            }
            if let Some(mut joined) = self.join_from_memory(&mut tail, channel, from) {
                joined.oldest = page.and_then(|page| page.first).or(joined.oldest);
                activate(joined);
                return Ok(());
            }
        }
        for read in 1..=READS {
            let page = self.reads.read(channel, from).await.map_err(|error| {
                self.counts.errors.count(&error);
                JoinError::Unavailable(error)
            })?;
            let mut tail = view.tail.lock();
            let past = Past { channel, from, page: &page };
            let newer = self.newer(&mut tail, &past);
            let next = newer.first().filter(|_| !past.is_gone());
            let reaches = next.is_none_or(|next| links(past.end(), next.seq, next.previous));
            // After the last read what is missing between history and the ring is told as a gap.
            if reaches || read == READS {
                activate(past.join(&mut tail, &newer, self.config.join_events));
                break;
            }
        }
        Ok(())
    }

    /// Reads the end of a channel, when the log answers soon.
    async fn end_of(&self, channel: &Channel) -> Option<Arc<Page>> {
        if *self.upstream.borrow() != Upstream::Up {
            return None;
        }
        let read = self.reads.read(channel, From::Live { snapshot: false });
        let page = timeout(END_WITHIN, read).await.ok()?;
        page.inspect_err(|error| self.counts.errors.count(error)).ok()
    }

    /// Joins from memory alone, when it reaches.
    fn join_from_memory(&self, tail: &mut Tail, channel: &Channel, from: From) -> Option<Joined> {
        let ring = tail.ring(channel)?;
        // Without an event it gives nothing.
        ring.first()?;
        if self.note(channel, ring.newest(channel)).last().is_some_and(|newest| may_have_expired(newest)) {
            ring.forget_kept();
        }
        let (oldest, last, proven) = (ring.oldest_kept(history_len(channel)), ring.last, ring.is_proven);
        let (position, wanted) = match from {
            From::Live { snapshot } => {
                let newest = self.note(channel, ring.newest(channel));
                let latest = newest.last()?.seq;
                if snapshot { (latest.before(), newest) } else { (last, Vec::new()) }
            }
            From::After(after) => {
                let reached = proven && after > Seq::ZERO && after <= last;
                reached.then(|| (after, self.note(channel, ring.above(channel, after))))?
            }
            From::Since(ts_ms) => {
                let mut events = self.note(channel, ring.all(channel));
                let skipped = events.iter().position(|event| event.ts_ms >= ts_ms).unwrap_or(events.len());
                let before = skipped.checked_sub(1).and_then(|before| events.get(before)).filter(|_| proven)?;
                (before.seq, events.split_off(skipped))
            }
        };
        let linked = is_chain(position, &wanted) && (!wanted.is_empty() || position == last);
        let resumes = !matches!(from, From::Live { .. });
        if resumes && !linked {
            return None;
        }
        let before = Before { position, recovered: resumes, oldest, events: wanted, rest: 0 };
        if !proven {
            tail.doubt(channel);
        }
        Some(before.joined(tail, self.config.join_events))
    }

    /// What memory has above the end of what was read; all of it where history is gone.
    fn newer(&self, tail: &mut Tail, past: &Past<'_>) -> Vec<Arc<LogEvent>> {
        let end = if past.is_gone() { Seq::ZERO } else { past.end() };
        let ring = tail.ring(past.channel);
        ring.map_or_else(Vec::new, |ring| self.note(past.channel, ring.above(past.channel, end)))
    }

    /// Counts what turned out to be no event, and gives the others.
    fn note(&self, channel: &Channel, checked: Checked) -> Vec<Arc<LogEvent>> {
        checked.malformed.iter().for_each(|seq| self.counts.malformed(channel, *seq));
        checked.events
    }
}

/// Whether the history of a channel may be gone whose newest event is this one: that of a channel that nobody publishes to is not kept for ever.
fn may_have_expired(newest: &LogEvent) -> bool {
    let kept = retention(&newest.channel);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let age = now.saturating_sub(Duration::from_millis(u64::try_from(newest.ts_ms).unwrap_or_default()));
    !kept.is_zero() && age >= kept
}

/// What lies before live, before it is cut to size.
struct Before {
    position: Seq,
    recovered: bool,
    oldest: Option<Seq>,
    events: Vec<Arc<LogEvent>>,
    /// How many more events there are behind these.
    rest: usize,
}

impl Before {
    fn joined(mut self, tail: &Tail, limit: usize) -> Joined {
        let replayed = self.events.len() + self.rest;
        self.events.truncate(limit);
        Joined {
            position: self.position,
            recovered: self.recovered,
            oldest: self.oldest,
            live: replayed == self.events.len(),
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

/// What history holds for one subscriber.
struct Past<'a> {
    channel: &'a Channel,
    from: From,
    page: &'a Page,
}

impl Past<'_> {
    /// Whether nothing is kept.
    fn is_gone(&self) -> bool {
        self.page.first.is_none()
    }

    /// Where history ends.
    fn end(&self) -> Seq {
        self.page.last.unwrap_or_default()
    }

    /// Puts together what was read and what memory has above it.
    fn join(self, tail: &mut Tail, newer: &[Arc<LogEvent>], limit: usize) -> Joined {
        let end = self.end();
        let mut before = self.before();
        before.oldest = self.page.first.or_else(|| tail.ring(self.channel).and_then(|ring| ring.first()));
        if self.page.is_complete() {
            self.add_newer(&mut before, newer);
        }
        if !self.page.is_proven {
            before.recovered &= matches!(self.from, From::After(after) if self.page.was_told(after));
            if end > Seq::ZERO || !newer.is_empty() {
                tail.doubt(self.channel);
            }
        }
        if self.page.is_complete() {
            tail.absorb(self.channel, &self.page.events, self.page.is_proven);
            tail.note_joined(self.channel, end);
        }
        tail.learn_kept(self.channel, self.page.first, self.page.last, self.page.length);
        before.joined(tail, limit)
    }

    /// What history alone gives.
    fn before(&self) -> Before {
        let (position, recovered, events) = match self.from {
            From::Live { snapshot } => self.latest(snapshot),
            From::After(after) => self.after(after),
            From::Since(ts_ms) => self.since(ts_ms),
        };
        Before { position, recovered, oldest: None, events: events.to_vec(), rest: self.page.rest }
    }

    fn latest(&self, wanted: bool) -> (Seq, bool, &[Arc<LogEvent>]) {
        match self.page.events.last() {
            Some(latest) if wanted => (latest.seq.before(), false, &self.page.events[self.page.events.len() - 1..]),
            _ => (self.end(), false, &[]),
        }
    }

    fn after(&self, after: Seq) -> (Seq, bool, &[Arc<LogEvent>]) {
        let above = &self.page.events[self.page.events.partition_point(|event| event.seq <= after)..];
        if let Some(first) = above.first() {
            let linked = after > Seq::ZERO && is_chain(after, above);
            return (if linked && self.page.is_proven { after } else { first.seq.before() }, linked, above);
        }
        if after > Seq::ZERO && (self.page.last == Some(after) || self.page.was_told(after)) {
            return (after, true, &[]);
        }
        self.latest(true)
    }

    fn since(&self, ts_ms: i64) -> (Seq, bool, &[Arc<LogEvent>]) {
        let Some(first) = self.page.events.iter().position(|event| event.ts_ms >= ts_ms) else {
            let end = if self.page.is_complete() { self.end() } else { self.page.reached };
            return (end, !self.page.events.is_empty(), &[]);
        };
        let wanted = &self.page.events[first..];
        let position = wanted[0].seq.before();
        let linked = match first.checked_sub(1).map(|before| &self.page.events[before]) {
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
            From::After(_) | From::Since(_) if self.is_gone() && !before.recovered => {
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
    use crate::store::{Entry, Range};

    fn seq(n: u64) -> Seq {
        Seq::new(n).unwrap()
    }

    fn range(entries: &[u64], last: u64) -> Range {
        let body = Bytes::from_static(br#""ts":1,"event":"e","channel":"job:1","ok":true,"data":{}}"#);
        let entry = |&n: &u64| Entry { seq: seq(n), previous: None, body: body.clone() };
        let entries = entries.iter().map(entry).collect();
        let (first, last) = (Some(seq(1)), Some(seq(last)));
        Range { entries, first, last, proven: true, since: Seq::ZERO, told: None, rest: 0, length: 0 }
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
            let page = Page::at_end(&channel, range(&[], 7), latest);
            let before = Past { channel: &channel, from: From::After(seq(after)), page: &page }.before();
            assert_eq!((before.recovered, before.position), (recovered, seq(position)), "after {after}");
            assert!(is_chain(before.position, &before.events), "after {after}");
        }
    }
}
