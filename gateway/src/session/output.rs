//! What is written next, and what gives way when too much waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use akis_eventlog::LogEvent;
use akis_model::{Channel, CloseCode, ErrorCode};
use bytes::Bytes;

use super::Session;
use super::queue::Item;
use super::subscription::Outcome;
use crate::clock::Now;
use crate::run::Run;
use crate::wire;

/// Items that one channel may write before it is the next one's turn.
const TURN: usize = 16;

/// Slots of the queue of answers that a quiet session keeps.
const KEPT_CAPACITY: usize = 4;

/// Where envelopes go.
pub(crate) trait Output {
    /// Takes one envelope.
    fn envelope(&mut self, envelope: &Bytes);
    /// Takes the envelope of an event of the log, of which more is known.
    fn event(&mut self, event: &LogEvent) {
        self.envelope(&event.envelope);
    }
    /// Takes the envelopes of a run.
    fn run(&mut self, run: &Arc<Run>);
}

impl Output for Vec<Bytes> {
    fn envelope(&mut self, envelope: &Bytes) {
        self.push(envelope.clone());
    }

    fn run(&mut self, run: &Arc<Run>) {
        self.extend(run.events().iter().map(|event| event.envelope.clone()));
    }
}

/// What a session has done since it was last asked.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    /// Envelopes handed out.
    pub(crate) delivered: u64,
    /// By how much the bytes that wait have changed.
    pub(crate) queued_change: i64,
}

impl Session {
    /// Moves envelopes to `out`, until they hold `max_bytes` or more.
    pub(crate) fn take(&mut self, max_bytes: usize, out: &mut impl Output, now: Now) {
        let mut taken = 0;
        while taken < max_bytes
            && let Some(envelope) = self.control.pop_front()
        {
            self.control_bytes -= envelope.len();
            taken += envelope.len();
            self.delivered += 1;
            out.envelope(&envelope);
        }
        if self.control.is_empty() && self.control.capacity() > KEPT_CAPACITY {
            self.control = VecDeque::new();
        }
        taken += self.take_lane(max_bytes.saturating_sub(taken), out);
        while taken < max_bytes
            && let Some(slot) = self.ready.pop_front()
        {
            taken += self.take_turn(slot, max_bytes - taken, out, now);
        }
        self.begin_part();
        if !self.steps.is_empty() {
            self.pump(now);
        }
    }

    fn take_turn(&mut self, slot: u32, max_bytes: usize, out: &mut impl Output, now: Now) -> usize {
        let Some((channel, subscription)) = self.roster.named(slot) else { return 0 };
        subscription.is_listed = false;
        let (queued, replay) = (subscription.queued_bytes(), subscription.replay_bytes());
        let mut taken = 0;
        for _ in 0..TURN {
            if taken >= max_bytes {
                break;
            }
            match subscription.next_item() {
                None => break,
                Some(Item::Run(run)) => {
                    taken += run.bytes();
                    self.delivered += run.events().len() as u64;
                    out.run(&run);
                }
                Some(Item::Event(event)) => {
                    taken += event.envelope.len();
                    self.delivered += 1;
                    out.event(&event);
                }
                Some(item) => {
                    match &item {
                        Item::Gap { reason, .. } => self.surroundings.metrics.gap(reason.as_str()),
                        Item::Malformed { .. } => self.surroundings.metrics.gap("malformed"),
                        _ => {}
                    }
                    let envelope = render(channel, &item, subscription.interval, now.unix_ms);
                    taken += envelope.len();
                    self.delivered += 1;
                    out.envelope(&envelope);
                }
            }
        }
        self.queued_bytes = self.queued_bytes - queued + subscription.queued_bytes();
        self.replay_bytes = self.replay_bytes - replay + subscription.replay_bytes();
        self.list(slot);
        taken
    }

    /// Puts a channel among those to be written, when it has something, and among those whose next part of a replay is wanted.
    pub(super) fn list(&mut self, slot: u32) {
        if self.roster.at(slot).is_some_and(|subscription| subscription.wants_more()) && !self.parts.contains(&slot) {
            self.parts.push_back(slot);
            self.begin_part();
        }
        if let Some(subscription) = self.roster.at(slot)
            && !subscription.is_listed
            && subscription.is_writable()
        {
            subscription.is_listed = true;
            self.ready.push_back(slot);
        }
    }

    /// Makes room when more bytes wait than may: first newest-wins channels, then trades. What is left then is never
    /// thinned, and the client has to come back and resume.
    pub(super) fn relieve(&mut self) {
        self.clear_lane();
        let max_bytes = self.surroundings.config.limits.queue_bytes;
        // Down to half, so that this is not done again for every event.
        let (newest_wins, others): (Vec<_>, Vec<_>) =
            self.roster.all().partition(|subscription| subscription.kind.is_newest_wins());
        let mut queued = self.queued_bytes;
        let share = max_bytes / 2 / others.len().max(1);
        for (subscription, share) in
            newest_wins.into_iter().map(|s| (s, 0)).chain(others.into_iter().map(|s| (s, share)))
        {
            if queued <= max_bytes / 2 {
                break;
            }
            let before = subscription.queued_bytes();
            if let Outcome::Thinned(count, reason) = subscription.thin(share) {
                self.surroundings.metrics.dropped(subscription.kind, reason, count);
            }
            queued = queued - before + subscription.queued_bytes();
        }
        self.queued_bytes = queued;
        if queued > max_bytes {
            self.close(CloseCode::Slow);
        }
    }

    /// Bytes of answers and events that wait.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.control_bytes + self.queued_bytes + self.replay_bytes
    }

    /// What has happened since this was last asked. Whoever asks adds it to the metrics, and says how many bytes `unsent` that were
    /// handed out the socket has not taken.
    pub(crate) fn tally(&mut self, unsent: usize) -> Tally {
        let waiting = self.waiting_bytes() + unsent;
        let queued_change = waiting as i64 - self.reported_bytes as i64;
        self.reported_bytes = waiting;
        Tally { delivered: std::mem::take(&mut self.delivered), queued_change }
    }

    /// Adds to the metrics what has happened since the last time: for a session that no shard adds up for. `unsent` as in
    /// [`Session::tally`].
    pub(crate) fn report(&mut self, unsent: usize) {
        let Tally { delivered, queued_change } = self.tally(unsent);
        let metrics = &self.surroundings.metrics;
        metrics.deliveries.inc_by(delivered);
        metrics.add_stream_bytes(queued_change);
    }
}

fn render(channel: &Channel, item: &Item, interval: Option<Duration>, now_ms: i64) -> Bytes {
    let name = channel.as_str();
    match item {
        Item::Event(_) | Item::Run(_) => Bytes::new(),
        Item::Term { seq, previous } => wire::term(name, *seq, *previous, now_ms),
        Item::Gap { from, to, reason } => wire::gap(name, *from, *to, *reason, None, now_ms),
        Item::Malformed { seq } => {
            wire::gap(name, *seq, *seq, wire::GapReason::Lost, Some(ErrorCode::InternalError), now_ms)
        }
        Item::Staleness { seq, silent_for } => wire::staleness(name, *seq, *silent_for, now_ms),
        Item::Dropped { from, to, count, reason } => wire::backpressure_drop(name, *from, *to, *count, *reason, now_ms),
        Item::Restart { seq } => {
            let said = wire::Subscribed {
                recovered: Some(false),
                interval_ms: interval.map_or(0, |interval| interval.as_millis() as u64),
                ..wire::Subscribed::default()
            };
            wire::subscribed(name, *seq, &said, now_ms)
        }
    }
}
