//! The channels of one publisher in one partition: positions, terms, and the memory that heals a log.
//!
//! Plain data: what to write comes out, what the log says goes in. One value lives as long as one reign
//! (an unbroken lease): what was written before it proves nothing.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use akis_model::{Channel, Seq};
use bytes::Bytes;

use super::Event;
use super::state::{State, is_status};
use crate::ByChannel;
use crate::store::{ChannelEnd, Marker, TERM_JUMP, Write};

/// Longest step by which the memory's clock advances between two acknowledgements: while the log is away it stands.
const CLOCK_STEP: Duration = Duration::from_secs(1);

/// Most bytes remembered in one partition.
const MEMORY_BYTES: usize = 16 << 20;

/// The channels that one reign has opened.
#[derive(Debug, Default)]
pub(super) struct Channels {
    owned: ByChannel<Owned>,
    /// What was published lately, in flight included, the oldest first.
    memory: VecDeque<Remembered>,
    memory_bytes: usize,
    clock: Duration,
    /// Whether the reign before ended in order, so that nothing was lost between its last event and the first of this one.
    continues: bool,
    /// Channels of which nothing is missing although their holder vanished: this publisher has seen the same events.
    whole: HashSet<Channel>,
    /// Where earlier reigns of this publisher began, when nobody had the lease between them and this one: of what was lost before
    /// that, an event that is there tells.
    own: ByChannel<Seq>,
    /// The highest position that the log is known to have had.
    seen: Seq,
}

#[derive(Debug)]
struct Owned {
    /// The first position that this reign may have given to an event.
    first: Seq,
    /// The position that the next event follows.
    last: Seq,
    /// The last position that this reign gave to an event.
    mine: Option<Seq>,
    /// A term that was announced and has no event yet, with its proof.
    term: Option<Option<Seq>>,
    /// What its last event says, where that tells how the channel is.
    told: Option<State>,
}

#[derive(Debug)]
struct Remembered {
    at: Duration,
    write: Write,
}

impl Channels {
    /// Starts a reign. `seen` is the highest position known from before; `continues` as in [`crate::Lease`].
    pub(super) fn new(seen: Seq, continues: bool) -> Self {
        Self { seen, continues, ..Self::default() }
    }

    /// The next reign of the same publisher, when nobody had the lease in between: it knows of what came before as much as this one did.
    pub(super) fn again(self) -> Self {
        let mut own = self.own;
        for (channel, owned) in self.owned {
            own.entry(channel).or_insert(owned.first);
        }
        Self { own, whole: self.whole, ..Self::new(self.seen, self.continues) }
    }

    /// The highest position that the log is known to have had. Not what is in flight: a position above everything that the log
    /// has says that it lost something.
    pub(super) fn seen(&self) -> Seq {
        self.seen
    }

    /// The channels that are open.
    pub(super) fn open(&self) -> Vec<Channel> {
        self.owned.keys().cloned().collect()
    }

    /// Whether a channel is open.
    pub(super) fn is_open(&self, channel: &Channel) -> bool {
        self.owned.contains_key(channel)
    }

    /// Takes note that nothing is missing of a channel behind its last entry in the log.
    pub(super) fn note_whole(&mut self, channel: Channel) {
        self.whole.insert(channel);
    }

    /// Forgets channels whose term could not be announced.
    pub(super) fn close(&mut self, channels: &[Channel]) {
        self.owned.retain(|channel, _| !channels.contains(channel));
    }

    /// Begins a term in each channel where the log says it may begin. `replaced`: the identity of the log is new.
    ///
    /// The proof is the publisher's own last position, whatever the log still has; else, for a channel that this reign
    /// has not written to, the end of the channel where that is proven and nothing was lost behind it, and 0 for a new
    /// one.
    pub(super) fn begin_terms(&mut self, channels: &[Channel], ends: &[ChannelEnd], replaced: bool) {
        for (channel, end) in channels.iter().zip(ends) {
            let before = self.owned.get(channel);
            let previous = match before {
                Some(Owned { mine: Some(mine), .. }) => Some(*mine),
                Some(Owned { term: Some(previous), .. }) if !replaced || end.last.is_some() => *previous,
                Some(_) => None,
                None => match end.last {
                    None => Some(Seq::ZERO),
                    Some(last) if end.proven && self.vouches_for(channel, last) => Some(last),
                    Some(_) => None,
                },
            };
            let behind_own = before.map_or(Seq::ZERO, |owned| owned.last.plus(TERM_JUMP));
            let first = end.term.max(behind_own);
            let mine = before.and_then(|owned| owned.mine);
            let last = first.before();
            let first = before.map_or(first, |owned| owned.first);
            self.owned.insert(channel.clone(), Owned { first, last, mine, term: Some(previous), told: None });
            self.seen = self.seen.max(end.last.unwrap_or_default());
        }
    }

    /// Whether nothing was lost between `last`, the log's last event, and the first one of this reign. Where the newest event
    /// replaces the one before, what the last holder left unwritten has been replaced.
    fn vouches_for(&self, channel: &Channel, last: Seq) -> bool {
        self.continues
            || channel.kind().is_newest_wins()
            || self.whole.contains(channel)
            || self.own.get(channel).is_some_and(|&first| last >= first)
    }

    /// The markers that announce the terms of `channels`.
    pub(super) fn markers(&self, channels: &[Channel]) -> Vec<Marker> {
        let marker = |channel: &Channel| {
            let owned = self.owned.get(channel)?;
            Some(Marker { channel: channel.clone(), seq: owned.last, previous: owned.term? })
        };
        channels.iter().filter_map(marker).collect()
    }

    /// Gives each event its position and remembers it, but for what the last one of its channel told already of how that is. All channels
    /// are open. With each comes [`Event::missing_before`].
    pub(super) fn assign(&mut self, events: Vec<Event>) -> (Vec<Write>, Vec<u64>) {
        let assigned = events.into_iter().filter_map(|event| {
            let missing_before = event.missing_before;
            Some((self.assign_one(event)?, missing_before))
        });
        let (writes, missing_before): (Vec<Write>, Vec<u64>) = assigned.unzip();
        for write in &writes {
            self.memory_bytes += write.body.len();
            self.memory.push_back(Remembered { at: self.clock, write: write.clone() });
        }
        (writes, missing_before)
    }

    fn assign_one(&mut self, event: Event) -> Option<Write> {
        let owned = self.owned.get_mut(&event.channel)?;
        let told = is_status(event.body.text()).then(|| State::of(event.body.text())).flatten();
        if told.is_some() && told == owned.told && event.missing_before == 0 {
            return None;
        }
        owned.told = told;
        let seq = owned.last.plus(1 + event.missing_before);
        // A hole is proof of nothing: what is left out is told as a gap.
        let previous = owned.term.take().flatten().filter(|_| event.missing_before == 0);
        owned.last = seq;
        owned.mine = Some(seq);
        let (body, origin): (Bytes, _) = (event.body.text().clone(), event.body.origin());
        Some(Write { channel: event.channel, seq, previous, body, origin })
    }

    /// Takes note that the log has this position.
    pub(super) fn note_seen(&mut self, seq: Seq) {
        self.seen = self.seen.max(seq);
    }

    /// Takes note that the log has acknowledged a batch, `since_last` after the one before, and forgets what is older
    /// than `keep`.
    pub(super) fn acknowledged(&mut self, since_last: Duration, keep: Duration) {
        self.clock += since_last.min(CLOCK_STEP);
        while self
            .memory
            .front()
            .is_some_and(|oldest| oldest.at + keep < self.clock || self.memory_bytes > MEMORY_BYTES)
        {
            if let Some(oldest) = self.memory.pop_front() {
                self.memory_bytes -= oldest.write.body.len();
            }
        }
    }

    /// What a log that replaced the one written to has lost, as far as it is remembered: to be written again under the
    /// same positions.
    pub(super) fn missing(&self, channels: &[Channel], ends: &[ChannelEnd]) -> Vec<Write> {
        let last: HashMap<&Channel, Option<Seq>> = channels.iter().zip(ends.iter().map(|end| end.last)).collect();
        let is_missing =
            |write: &&Write| last.get(&write.channel).is_some_and(|last| last.is_none_or(|last| write.seq > last));
        self.memory.iter().map(|remembered| &remembered.write).filter(is_missing).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use akis_model::{Body, Outcome};
    use serde_json::json;

    use super::*;

    fn channel() -> Channel {
        Channel::parse("v:S:trades").unwrap()
    }

    fn seq(n: u64) -> Seq {
        Seq::new(n).unwrap()
    }

    fn event(missing_before: u64) -> Event {
        let body = Body::render(0, "e", &channel(), Outcome::Ok, &json!({})).unwrap();
        Event { channel: channel(), body, missing_before }
    }

    fn end(last: Option<u64>, proven: bool, term: u64) -> ChannelEnd {
        ChannelEnd { last: last.map(seq), proven, term: seq(term) }
    }

    fn begun(last: Option<u64>, proven: bool) -> Channels {
        let mut channels = Channels::new(Seq::ZERO, true);
        channels.begin_terms(&[channel()], &[end(last, proven, 100)], false);
        channels
    }

    #[test]
    fn a_term_begins_with_the_proof_that_its_writer_has() {
        for (last, proven, previous) in [(None, false, Some(0)), (Some(7), true, Some(7)), (Some(7), false, None)] {
            let mut channels = begun(last, proven);
            let previous = previous.map(seq);
            assert_eq!(channels.markers(&[channel()]).first().map(|m| (m.seq, m.previous)), Some((seq(99), previous)));
            let (writes, _) = channels.assign(vec![event(0), event(0)]);
            assert_eq!(
                writes.iter().map(|w| (w.seq, w.previous)).collect::<Vec<_>>(),
                [(seq(100), previous), (seq(101), None)]
            );
        }
    }

    #[test]
    fn a_holder_that_vanished_is_vouched_for_only_where_the_newest_event_wins() {
        for (name, previous) in [("v:S:trades", None), ("v:S:ticker", Some(seq(7)))] {
            let channel = Channel::parse(name).unwrap();
            let mut channels = Channels::new(Seq::ZERO, false);
            channels.begin_terms(std::slice::from_ref(&channel), &[end(Some(7), true, 100)], false);
            assert_eq!(channels.markers(&[channel])[0].previous, previous, "{name}");
        }
    }

    #[test]
    fn who_reigns_again_vouches_for_what_it_has_written_itself() {
        for (written, previous) in [(false, None), (true, Some(seq(100)))] {
            let mut channels = Channels::new(Seq::ZERO, false);
            channels.begin_terms(&[channel()], &[end(Some(7), true, 100)], false);
            let last = if written { 100 } else { 7 };
            for term in [200, 300] {
                channels = channels.again();
                channels.begin_terms(&[channel()], &[end(Some(last), true, term)], false);
                let told = channels.markers(&[channel()])[0].previous;
                assert_eq!(told, previous, "only an event tells who comes back later that some are missing before it");
            }
        }
    }

    #[test]
    fn a_hole_leaves_positions_out_and_proves_nothing() {
        let (writes, missing) = begun(Some(7), true).assign(vec![event(3), event(0), event(2)]);
        assert_eq!(missing, [3, 0, 2]);
        assert_eq!(
            writes.iter().map(|w| (w.seq, w.previous)).collect::<Vec<_>>(),
            [(seq(103), None), (seq(104), None), (seq(107), None)]
        );
    }

    #[test]
    fn how_a_channel_is_is_not_told_twice_in_a_row() {
        let status = |state: &str, missing_before| {
            let data = json!({ "state": state, "since": missing_before });
            let body = Body::render(0, "channel_status", &channel(), Outcome::Ok, &data).unwrap();
            Event { body, ..event(missing_before) }
        };
        let mut channels = begun(None, false);
        let (writes, missing) = channels.assign(vec![status("down", 0), status("down", 0), status("up", 0)]);
        assert_eq!((writes.len(), missing.len()), (2, 2));
        assert_eq!(channels.assign(vec![status("up", 0)]).0, []);
        let (writes, _) = channels.assign(vec![status("up", 1), event(0), status("up", 0)]);
        assert_eq!(writes.len(), 3, "a hole is told, and what came in between may have said otherwise");
    }

    #[test]
    fn a_new_identity_is_healed_and_linked_by_the_publishers_own_last_position() {
        let mut channels = begun(None, false);
        let (written, _) = channels.assign(vec![event(0), event(0), event(0)]);
        let ends = [end(Some(100), false, 50)];
        assert_eq!(channels.missing(&[channel()], &ends), written[1..]);
        assert_eq!(channels.missing(&[channel()], &[end(None, false, 50)]), written);
        channels.begin_terms(&[channel()], &ends, true);
        let marker = channels.markers(&[channel()]).remove(0);
        assert_eq!((marker.previous, marker.seq), (Some(seq(102)), seq(102 + TERM_JUMP - 1)));
    }

    #[test]
    fn an_announced_term_keeps_its_proof_only_while_the_log_has_the_channel() {
        let mut channels = begun(Some(7), true);
        channels.begin_terms(&[channel()], &[end(Some(7), false, 500)], true);
        assert_eq!(channels.markers(&[channel()])[0].previous, Some(seq(7)));
        channels.begin_terms(&[channel()], &[end(None, false, 500)], true);
        assert_eq!(channels.markers(&[channel()])[0].previous, None);
    }

    #[test]
    fn memory_is_forgotten_by_a_clock_that_stands_while_nothing_is_acknowledged() {
        let mut channels = begun(None, false);
        let (written, _) = channels.assign(vec![event(0)]);
        let gone = [end(None, false, 1)];
        channels.acknowledged(Duration::from_secs(3600), Duration::from_secs(10));
        assert_eq!(channels.missing(&[channel()], &gone), written, "an hour without the log counts as a second");
        for _ in 0..11 {
            channels.acknowledged(Duration::from_secs(1), Duration::from_secs(10));
        }
        assert_eq!(channels.missing(&[channel()], &gone), []);
    }
}
