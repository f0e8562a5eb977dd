//! What is written next, and what gives way when too much waits.

use std::time::Duration;

use akis_model::{Channel, CloseCode, ErrorCode};
use bytes::Bytes;

use super::Session;
use super::queue::Item;
use super::subscription::Outcome;
use crate::clock::Now;
use crate::wire;

/// Items that one channel may write before it is the next one's turn.
const TURN: usize = 16;

impl Session {
    /// Moves envelopes to `out`, until they hold `max_bytes` or more.
    pub(crate) fn take(&mut self, max_bytes: usize, out: &mut Vec<Bytes>, now: Now) {
        let mut taken = 0;
        while taken < max_bytes
            && let Some(envelope) = self.control.pop_front()
        {
            self.control_bytes -= envelope.len();
            taken += envelope.len();
            out.push(envelope);
        }
        while taken < max_bytes
            && let Some(channel) = self.ready.pop_front()
        {
            taken += self.take_turn(&channel, max_bytes - taken, out, now);
        }
        self.report_queued();
        self.surroundings.metrics.deliveries.inc_by(out.len() as u64);
        if !self.steps.is_empty() {
            self.pump(now);
        }
    }

    fn take_turn(&mut self, channel: &Channel, max_bytes: usize, out: &mut Vec<Bytes>, now: Now) -> usize {
        let Some(subscription) = self.subscriptions.get_mut(channel) else { return 0 };
        subscription.is_listed = false;
        let (queued, replay) = (subscription.queued_bytes(), subscription.replay_bytes());
        let mut taken = 0;
        for _ in 0..TURN {
            if taken >= max_bytes {
                break;
            }
            let Some(item) = subscription.next_item(now.instant) else { break };
            let envelope = render(channel, &item, subscription.interval, now.unix_ms);
            taken += envelope.len();
            out.push(envelope);
        }
        self.queued_bytes = self.queued_bytes - queued + subscription.queued_bytes();
        self.replay_bytes = self.replay_bytes - replay + subscription.replay_bytes();
        if subscription.wants_more() {
            self.join_on(channel);
        }
        self.list(channel, now);
        taken
    }

    /// Puts a channel where it belongs: among those to be written, or those that wait for their interval.
    pub(super) fn list(&mut self, channel: &Channel, now: Now) {
        let Some(subscription) = self.subscriptions.get_mut(channel) else { return };
        if subscription.is_writable(now.instant) {
            if !subscription.is_listed {
                subscription.is_listed = true;
                self.ready.push_back(channel.clone());
            }
        } else if let Some(due) = subscription.waits_until(now.instant) {
            self.gated.insert((due, channel.clone()));
        }
    }

    /// Makes room when more bytes wait than may: first newest-wins channels, then trades. What is left then is never
    /// thinned, and the client has to come back and resume.
    pub(super) fn relieve(&mut self) {
        let max_bytes = self.surroundings.config.limits.queue_bytes;
        if self.queued_bytes <= max_bytes {
            return;
        }
        // Down to half, so that this is not done again for every event.
        let (newest_wins, others): (Vec<_>, Vec<_>) =
            self.subscriptions.values_mut().partition(|subscription| subscription.kind.is_newest_wins());
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

    /// Tells the metrics how much waits.
    pub(super) fn report_queued(&mut self) {
        let change = self.queued_bytes as i64 - self.reported_bytes as i64;
        self.surroundings.metrics.queued_bytes.add(change);
        self.reported_bytes = self.queued_bytes;
    }
}

fn render(channel: &Channel, item: &Item, interval: Option<Duration>, now_ms: i64) -> Bytes {
    let name = channel.as_str();
    match item {
        Item::Event(event) => event.envelope.clone(),
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
