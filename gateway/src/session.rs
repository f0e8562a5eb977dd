//! What one client is told: the protocol as a state machine, without socket, clock or task.
//!
//! Messages, joins, notices of the log and the passing of time go in; envelopes come out by [`Session::take`], and
//! what has to be done outside by [`Session::actions`]. Answers and messages about the connection go before events;
//! among channels the writing takes turns.

mod action;
mod heartbeat;
mod lane;
mod output;
mod queue;
mod requests;
mod roster;
mod subscription;
mod token;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use akis_eventlog::{From, JoinError, Joined, Notice, StoreError};
use akis_model::{Channel, CloseCode, ErrorCode};
use akis_service::config::GatewayConfig;
use bytes::Bytes;
use serde_json::json;

pub(crate) use self::action::{Action, ActionKind};
use self::lane::Lane;
pub(crate) use self::output::{Output, Tally};
use self::requests::Steps;
use self::roster::Roster;
use self::subscription::{Outcome, Phase, Pressure, Subscription};
use self::token::TokenWatch;
use crate::auth::{Authenticator, Grant};
use crate::clock::Now;
use crate::limits::MessageGate;
use crate::listing::Listed;
use crate::metrics::Metrics;
use crate::request::Refusal;
use crate::run::Run;
use crate::wire;

/// Bytes of answers that may wait before no further message is read.
const MAX_CONTROL_BYTES: usize = 256 << 10;

/// How long to wait before a replay goes on that could not be read.
const JOIN_RETRY: Duration = Duration::from_secs(1);

/// Events and age that a replay may reach back; what history keeps at most, by kind and in the feed's longest case.
const REPLAY_MAX_EVENTS: u64 = 5000;
const REPLAY_MAX_AGE_MS: u64 = 86_400_000;

/// What sessions share.
pub(crate) struct Surroundings {
    /// The configuration.
    pub(crate) config: GatewayConfig,
    /// Checks tokens.
    pub(crate) auth: Authenticator,
    /// Counts.
    pub(crate) metrics: Metrics,
}

/// One client's session. See the module's documentation.
pub(crate) struct Session {
    surroundings: Arc<Surroundings>,
    grant: Grant,
    token: TokenWatch,
    gate: MessageGate,
    bad_requests: u32,
    roster: Roster,
    steps: Steps,
    actions: Vec<Action>,
    /// Answers and messages about the connection.
    control: VecDeque<Bytes>,
    control_bytes: usize,
    /// Events that are written before those that wait by channel.
    lane: Lane,
    /// Channels with something to write, in turn.
    ready: VecDeque<u32>,
    /// Channels whose next part of a replay is wanted, in turn.
    parts: VecDeque<u32>,
    /// The join of a further part that is under way: one at a time, because each may bring as much as one read of history gives.
    part: Option<u64>,
    /// Joins to be tried again.
    retries: Vec<(Instant, Channel, u64)>,
    queued_bytes: usize,
    /// As much of it as has been told by [`Session::tally`].
    reported_bytes: usize,
    /// Envelopes handed out since the last [`Session::tally`].
    delivered: u64,
    replay_bytes: usize,
    next_token: u64,
    heartbeat_at: Instant,
    is_blocked: bool,
    closing: Option<CloseCode>,
}

impl Session {
    /// A session that begins with `welcome`.
    pub(crate) fn new(surroundings: Arc<Surroundings>, grant: Grant, connection: &str, now: Now) -> Self {
        let limits = grant.limits;
        let mut session = Self {
            token: TokenWatch::new(grant.expires_at_ms, now.unix_ms),
            gate: MessageGate::new(limits.messages_per_second, limits.burst, now.instant),
            bad_requests: 0,
            roster: Roster::default(),
            steps: Steps::default(),
            actions: Vec::new(),
            control: VecDeque::new(),
            control_bytes: 0,
            lane: Lane::new(),
            ready: VecDeque::new(),
            parts: VecDeque::new(),
            part: None,
            retries: Vec::new(),
            queued_bytes: 0,
            reported_bytes: 0,
            delivered: 0,
            replay_bytes: 0,
            next_token: 0,
            heartbeat_at: heartbeat::next(surroundings.config.heartbeat, now),
            is_blocked: false,
            closing: None,
            grant,
            surroundings,
        };
        session.welcome(connection, now);
        session.token_tick(now);
        session
    }

    fn welcome(&mut self, connection: &str, now: Now) {
        let config = &self.surroundings.config;
        let limits = self.grant.limits;
        let welcome = json!({
            "connection": connection,
            "replica": config.replica,
            "heartbeatMs": config.heartbeat.as_millis() as u64,
            "tokenExpiresAt": self.grant.expires_at_ms,
            "limits": {
                "channels": limits.channels,
                "messagesPerSecond": limits.messages_per_second,
                "burst": limits.burst,
                "messageBytes": config.limits.message_bytes,
                "queuePerChannel": config.limits.queue_per_channel,
            },
            "replay": { "maxEvents": REPLAY_MAX_EVENTS, "maxAgeMs": REPLAY_MAX_AGE_MS },
        });
        self.tell(wire::system("welcome", now.unix_ms, &welcome));
    }

    /// Takes what came before live for the join with this token.
    pub(crate) fn on_joined(&mut self, channel: &Channel, token: u64, joined: Result<Joined, JoinError>, now: Now) {
        if self.closing.is_some() {
            return;
        }
        let metrics = &self.surroundings.metrics;
        metrics.joins.inc();
        metrics.join_failures.inc_by(u64::from(joined.is_err()));
        if self.steps.is_joining(token) {
            self.on_first_join(channel, token, joined);
        } else {
            self.on_further_join(channel, token, joined, now);
        }
        self.pump(now);
    }

    /// Takes the channels that there are, for the request with this token.
    pub(crate) fn on_listed(&mut self, token: u64, listed: Result<Listed, Refusal>, now: Now) {
        self.expand(token, listed);
        self.pump(now);
    }

    /// Goes on with a replay whose beginning was told.
    fn on_further_join(&mut self, channel: &Channel, token: u64, joined: Result<Joined, JoinError>, now: Now) {
        self.clear_lane();
        self.part.take_if(|part| *part == token);
        let has_room = self.has_replay_room();
        let Some(slot) = self.roster.slot(channel) else { return self.begin_part() };
        let Some(subscription) = self.roster.at(slot) else { return };
        if subscription.phase != (Phase::Joining { token }) {
            return;
        }
        match joined {
            Ok(_) if !has_room && subscription.interval.is_none() => {
                subscription.put_off();
                self.list(slot);
            }
            Ok(joined) => {
                self.surroundings.metrics.replayed.inc_by(joined.events.len() as u64);
                let (queued, replay) = (subscription.queued_bytes(), subscription.replay_bytes());
                subscription.go_on(joined);
                self.queued_bytes = self.queued_bytes - queued + subscription.queued_bytes();
                self.replay_bytes = self.replay_bytes - replay + subscription.replay_bytes();
                self.list(slot);
            }
            Err(JoinError::Unavailable(_)) => self.retries.push((now.instant + JOIN_RETRY, channel.clone(), token)),
        }
        self.begin_part();
    }

    /// Whether what a join gives may be taken, whatever that is: a part that alone is more than may wait has to be written too.
    fn has_replay_room(&self) -> bool {
        self.replay_bytes < self.surroundings.config.limits.queue_bytes
    }

    /// Asks for the part of a replay whose turn it is, when it may come. With an interval one event takes the place of another, and those
    /// wait for each other otherwise.
    fn begin_part(&mut self) {
        let has_room = self.has_replay_room();
        while self.part.is_none() {
            let Self { parts, roster, .. } = self;
            let may_come = |slot: &u32| has_room || roster.at(*slot).is_some_and(|s| s.interval.is_some());
            let Some(slot) = parts.iter().position(may_come).and_then(|at| parts.remove(at)) else { return };
            if self.roster.at(slot).is_some_and(|subscription| subscription.wants_more()) {
                self.part = self.join_on(slot);
            }
        }
    }

    /// The number of a channel that is subscribed to.
    pub(crate) fn slot(&self, channel: &Channel) -> Option<u32> {
        self.roster.slot(channel)
    }

    /// Takes a notice of the log for the channel with this number. Gives whether there is something to write.
    pub(crate) fn on_notice(&mut self, slot: u32, notice: &Notice) -> bool {
        self.clear_lane();
        self.take_in(slot, |subscription, pressure| subscription.on_notice(notice, pressure))
    }

    /// Takes the newest event of a channel that has an interval; those that it stands for have been skipped by agreement. Gives whether
    /// there is something to write.
    pub(crate) fn on_newest(&mut self, slot: u32, run: &Arc<Run>) -> bool {
        self.take_in(slot, |subscription, _| subscription.on_newest(run))
    }

    fn take_in(&mut self, slot: u32, take: impl FnOnce(&mut Subscription, Pressure) -> Outcome) -> bool {
        let limits = &self.surroundings.config.limits;
        let pressure = Pressure { max_events: limits.queue_per_channel, is_blocked: self.is_blocked };
        let max_bytes = limits.queue_bytes;
        let Some(subscription) = self.roster.at(slot) else { return false };
        let before = subscription.queued_bytes();
        let outcome = take(subscription, pressure);
        self.queued_bytes = self.queued_bytes - before + subscription.queued_bytes();
        match outcome {
            Outcome::Taken => {}
            Outcome::Thinned(count, reason) => {
                let kind = subscription.kind;
                self.surroundings.metrics.dropped(kind, reason, count);
            }
            Outcome::Overflow => self.close(CloseCode::Slow),
        }
        if self.queued_bytes > max_bytes {
            self.relieve();
        }
        self.list(slot);
        self.closing.is_some() || self.has_output()
    }

    /// Live notices of the channel with this number were missed: asks for what the log has above its position.
    pub(crate) fn on_missed(&mut self, slot: u32) {
        if self.roster.at(slot).is_some_and(|subscription| subscription.is_live()) {
            self.join_on(slot);
        }
    }

    /// Tells whether the log can be reached.
    pub(crate) fn on_upstream(&mut self, is_reachable: bool, now: Now) {
        self.tell(wire::upstream(is_reachable, now.unix_ms));
    }

    /// Tells that this replica is going away, and closes what is left after `period`.
    pub(crate) fn drain(&mut self, period: Duration, now: Now) {
        // Clients come back elsewhere in the first part of the time, each at a moment of its own; the rest is for those that are slow to.
        let period_ms = period.as_millis() as u64;
        let data = json!({ "reconnectAfterMs": fastrand::u64(0..=period_ms * 4 / 5), "deadlineMs": period_ms });
        self.tell(wire::system("draining", now.unix_ms, &data));
    }

    /// Does what is due. `heartbeat` gives the message, which many may share.
    pub(crate) fn on_tick(&mut self, now: Now, heartbeat: impl FnOnce() -> Bytes) {
        if now.instant >= self.heartbeat_at {
            self.beat(now, heartbeat());
        }
        self.token_tick(now);
        for (_, channel, token) in self.retries.extract_if(.., |(at, ..)| *at <= now.instant).collect::<Vec<_>>() {
            if let Some(slot) = self.roster.slot(&channel)
                && let Some(subscription) = self.roster.at(slot)
                && subscription.phase == (Phase::Joining { token })
            {
                subscription.put_off();
                self.list(slot);
            }
        }
    }

    /// When [`Session::on_tick`] has something to do again.
    pub(crate) fn deadline(&self, now: Now) -> Instant {
        let retry = self.retries.iter().map(|(at, ..)| *at).min();
        let times = [retry, Some(self.token.next_at(now))];
        times.into_iter().flatten().fold(self.heartbeat_at, Instant::min)
    }

    /// What has to be done outside, in order. Must be asked for after every call, and carried out without the session's lock.
    pub(crate) fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Why the connection is to be closed, once what [`Session::take`] gives has been written.
    pub(crate) fn closing(&self) -> Option<CloseCode> {
        self.closing
    }

    /// Whether there is something to write.
    pub(crate) fn has_output(&self) -> bool {
        !self.control.is_empty() || !self.lane.is_empty() || !self.ready.is_empty()
    }

    /// Whether a further message may be read: not while the answers to those before it wait.
    pub(crate) fn wants_input(&self) -> bool {
        self.closing.is_none() && self.control_bytes < MAX_CONTROL_BYTES && self.steps.has_room()
    }

    /// Says whether the socket takes what is written.
    pub(crate) fn set_blocked(&mut self, is_blocked: bool) {
        self.is_blocked = is_blocked;
        self.clear_lane();
    }

    /// Asks for what the log has above the position of a subscription. Gives the join's token.
    fn join_on(&mut self, slot: u32) -> Option<u64> {
        let token = self.new_token();
        let (channel, subscription) = self.roster.named(slot)?;
        subscription.phase = Phase::Joining { token };
        let kind = ActionKind::Join { from: From::After(subscription.position()), token };
        self.actions.push(Action::Channel { channel: channel.clone(), slot, kind });
        Some(token)
    }

    fn tell(&mut self, envelope: Bytes) {
        if self.closing.is_none() {
            self.control_bytes += envelope.len();
            self.control.push_back(envelope);
        }
    }

    fn new_token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// Ends one subscription without a word.
    fn end(&mut self, channel: &Channel) -> Option<Subscription> {
        self.clear_lane();
        let (slot, subscription) = self.roster.remove(channel)?;
        self.queued_bytes -= subscription.queued_bytes();
        self.replay_bytes -= subscription.replay_bytes();
        self.ready.retain(|other| *other != slot);
        self.parts.retain(|other| *other != slot);
        self.part.take_if(|part| subscription.phase == (Phase::Joining { token: *part }));
        self.retries.retain(|(_, other, _)| other != channel);
        self.actions.push(Action::Channel { channel: channel.clone(), slot, kind: ActionKind::Leave });
        Some(subscription)
    }

    /// Ends subscriptions that are no longer allowed, each told by its own message. Gives those that were told.
    fn end_forbidden(
        &mut self,
        code: ErrorCode,
        now: Now,
        is_allowed: impl Fn(&Grant, &Channel) -> bool,
    ) -> Vec<Channel> {
        let mut ended: Vec<Channel> =
            self.roster.channels().filter(|channel| !is_allowed(&self.grant, channel)).cloned().collect();
        ended.sort_unstable();
        ended.retain(|channel| {
            let was_answered = self.end(channel).is_some_and(|subscription| subscription.is_answered);
            if was_answered {
                self.tell(wire::ended(channel.as_str(), code, now.unix_ms));
            }
            self.steps.refuse(channel, code);
            was_answered
        });
        ended
    }

    /// Ends the session. What has been answered is still written; events are not.
    fn close(&mut self, code: CloseCode) {
        if self.closing.is_none() {
            self.closing = Some(code);
            self.leave_all();
        }
    }

    /// Ends all subscriptions and requests without a word.
    pub(crate) fn leave_all(&mut self) {
        let left =
            self.roster.drain().map(|(slot, channel)| Action::Channel { channel, slot, kind: ActionKind::Leave });
        self.actions.extend(left);
        self.lane = Lane::new();
        self.ready = VecDeque::new();
        self.parts = VecDeque::new();
        self.part = None;
        self.retries = Vec::new();
        self.steps = Steps::default();
        self.queued_bytes = 0;
        self.replay_bytes = 0;
    }

    /// As [`Session::leave_all`], and drops the answers that wait: nothing more can be said.
    pub(crate) fn give_up(&mut self) {
        self.leave_all();
        self.control = VecDeque::new();
        self.control_bytes = 0;
    }

    /// About how much memory it takes beside itself, events that it shares with others included.
    pub(crate) fn held_bytes(&self) -> usize {
        self.roster.held_bytes()
            + self.lane.capacity() * size_of::<(u32, Arc<Run>)>()
            + self.control_bytes
            + self.queued_bytes
            + self.replay_bytes
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.give_up();
        self.report(0);
    }
}

/// The word for a failed join.
fn unavailable(error: &JoinError) -> String {
    match error {
        JoinError::Unavailable(StoreError::Unavailable(_)) => "history cannot be read now".to_owned(),
        JoinError::Unavailable(error) => format!("history cannot be read now: {error}"),
    }
}

#[cfg(test)]
mod tests;
