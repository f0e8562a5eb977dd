//! What a client asked for, step by step: answers come in the order in which the channels were named.

mod patterns;

use std::collections::VecDeque;

use akis_eventlog::{From, JoinError, Joined};
use akis_model::{Channel, CloseCode, ErrorCode, Pattern, Seq};
use bytes::Bytes;

use self::patterns::{Named, no_patterns};
use super::subscription::{Phase, Subscription};
use super::{Action, ActionKind, Session, unavailable};
use crate::clock::Now;
use crate::interval;
use crate::limits::Admission;
use crate::request::{Ask, Refusal, Request, Start, Target, Terms, Wanted};
use crate::wire::{self, RequestId};

/// Steps that may wait before no further message is read.
const MAX_STEPS: usize = 512;

/// Joins of one connection at a time.
pub(super) const MAX_JOINS: usize = 16;

/// One entry of a request.
#[derive(Debug)]
struct Step {
    id: Option<RequestId>,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// Not begun.
    Subscribe(Terms),
    /// Not begun.
    Unsubscribe(Channel),
    /// Not begun. Becomes a step for each of the channels.
    SubscribeEvery(Terms<Pattern>, Named),
    /// Not begun. Becomes a step for each of the channels.
    UnsubscribeEvery(Pattern),
    /// It is being found out which channels there are.
    Listing { terms: Terms<Pattern>, named: Named, token: u64 },
    /// A join is under way.
    Joining { terms: Terms, token: u64, resumed: Option<Resumed> },
    /// The subscription stands; its answer waits for its turn.
    Joined { terms: Terms, answer: Answer },
    /// The answer waits for its turn.
    Refused { name: String, refusal: Refusal },
}

/// What an earlier join said about the position asked for, when a second one fetches the snapshot.
#[derive(Debug, Clone, Copy)]
struct Resumed {
    recovered: bool,
    snapshot: Seq,
}

#[derive(Debug, Clone, Copy)]
struct Answer {
    recovered: Option<bool>,
    replayed: usize,
    oldest: Option<Seq>,
    /// The channel was subscribed before.
    is_again: bool,
}

impl Work {
    fn channel(&self) -> Option<&Channel> {
        match self {
            Self::Subscribe(terms) | Self::Joining { terms, .. } | Self::Joined { terms, .. } => Some(&terms.channel),
            Self::Unsubscribe(channel) => Some(channel),
            Self::SubscribeEvery(..) | Self::UnsubscribeEvery(_) | Self::Listing { .. } | Self::Refused { .. } => None,
        }
    }

    fn is_begun(&self) -> bool {
        match self {
            Self::Subscribe(_) | Self::Unsubscribe(_) | Self::SubscribeEvery(..) | Self::UnsubscribeEvery(_) => false,
            Self::Listing { .. } | Self::Joining { .. } | Self::Joined { .. } | Self::Refused { .. } => true,
        }
    }
}

/// Steps in the order in which they are answered. They begin in this order too.
#[derive(Debug, Default)]
pub(super) struct Steps(VecDeque<Step>);

impl Steps {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.0.len() < MAX_STEPS
    }

    /// Whether the join with this token belongs to a step.
    pub(super) fn is_joining(&self, token: u64) -> bool {
        self.0.iter().any(|step| matches!(&step.work, Work::Joining { token: other, .. } if *other == token))
    }

    /// Answers the step that subscribes a channel with a refusal, because the token no longer allows it.
    pub(super) fn refuse(&mut self, channel: &Channel, code: ErrorCode) {
        for step in &mut self.0 {
            if step.work.is_begun() && step.work.channel() == Some(channel) {
                let refusal = Refusal::new(code, "the token no longer allows the channel");
                step.work = Work::Refused { name: channel.as_str().to_owned(), refusal };
            }
        }
    }
}

impl Session {
    /// Takes a text message.
    pub(crate) fn on_text(&mut self, text: &str, now: Now) {
        if !self.admit(now, || Request::id_of(text)) {
            return;
        }
        let Request { id, ask } = match Request::parse(text) {
            Ok(request) => request,
            Err(bad) => return self.bad_request(bad.id.as_ref(), &bad.refusal, now),
        };
        match ask {
            Ask::Ping => self.tell(wire::pong(id.as_ref(), now.unix_ms)),
            Ask::Auth(token) => self.authenticate(id.as_ref(), token.expose(), now),
            Ask::Subscribe(wishes) => {
                let takes_patterns = self.surroundings.config.patterns;
                let named = Named::of(&wishes);
                self.steps.0.extend(wishes.into_iter().map(|wish| Step {
                    id: id.clone(),
                    work: match wish.wanted {
                        Ok(Wanted::One(terms)) => Work::Subscribe(terms),
                        Ok(Wanted::Every(terms)) if takes_patterns => Work::SubscribeEvery(terms, named.clone()),
                        Ok(Wanted::Every(_)) => Work::Refused { name: wish.name, refusal: no_patterns() },
                        Err(refusal) => Work::Refused { name: wish.name, refusal },
                    },
                }));
                self.pump(now);
            }
            Ask::Unsubscribe(names) => {
                let takes_patterns = self.surroundings.config.patterns;
                self.steps.0.extend(names.into_iter().map(|name| Step {
                    id: id.clone(),
                    work: match Target::parse(&name) {
                        Ok(Target::Channel(channel)) => Work::Unsubscribe(channel),
                        Ok(Target::Pattern(pattern)) if takes_patterns => Work::UnsubscribeEvery(pattern),
                        Ok(Target::Pattern(_)) => Work::Refused { name, refusal: no_patterns() },
                        Err(refusal) => Work::Refused { name, refusal },
                    },
                }));
                self.pump(now);
            }
        }
    }

    /// Takes a binary message, which is never understood.
    pub(crate) fn on_binary(&mut self, now: Now) {
        if self.admit(now, || None) {
            self.bad_request(None, &Refusal::new(ErrorCode::BadRequest, "messages are text, not binary"), now);
        }
    }

    /// Counts a ping or pong frame, and gives whether it is within the rate.
    pub(crate) fn on_control_frame(&mut self, now: Now) -> bool {
        self.admit(now, || None)
    }

    fn admit(&mut self, now: Now, id: impl FnOnce() -> Option<RequestId>) -> bool {
        if self.closing.is_some() {
            return false;
        }
        self.surroundings.metrics.messages.inc();
        match self.gate.admit(now.instant) {
            Admission::Accepted => true,
            Admission::Refused { retry_after, is_last } => {
                let retry_after_ms = (retry_after.as_millis() as u64).max(1);
                let message = "more messages than allowed";
                let error =
                    wire::error(id().as_ref(), ErrorCode::RateLimited, message, Some(retry_after_ms), now.unix_ms);
                self.tell(error);
                if is_last {
                    self.close(CloseCode::RateLimit);
                }
                false
            }
        }
    }

    /// Answers a request that is refused as a whole, and closes after too many of them.
    pub(super) fn bad_request(&mut self, id: Option<&RequestId>, refusal: &Refusal, now: Now) {
        self.tell(wire::error(id, refusal.code, &refusal.message, None, now.unix_ms));
        self.bad_requests += 1;
        if self.bad_requests >= self.surroundings.config.limits.bad_requests {
            self.close(CloseCode::BadRequests);
        }
    }

    /// Answers what can be answered and begins what can be begun.
    pub(super) fn pump(&mut self, now: Now) {
        if !self.steps.is_empty() {
            self.clear_lane();
        }
        loop {
            while let Some(step) =
                self.steps.0.pop_front_if(|step| matches!(step.work, Work::Refused { .. } | Work::Joined { .. }))
            {
                self.answer(step, now);
            }
            if self.closing.is_some() || !self.begin_next(now) {
                return;
            }
        }
    }

    fn answer(&mut self, step: Step, now: Now) {
        let Step { id, work } = step;
        let id = id.as_ref();
        match work {
            Work::Refused { name, refusal } => {
                self.tell(wire::subscribe_error(&name, id, refusal.code, &refusal.message, now.unix_ms));
            }
            Work::Joined { terms, answer } => {
                if let Some(envelope) = self.confirm(&terms, answer, id, now)
                    && let Some(slot) = self.roster.slot(&terms.channel)
                {
                    self.tell(envelope);
                    self.list(slot);
                }
            }
            Work::Subscribe(_)
            | Work::Unsubscribe(_)
            | Work::SubscribeEvery(..)
            | Work::UnsubscribeEvery(_)
            | Work::Listing { .. }
            | Work::Joining { .. } => {}
        }
    }

    /// Renders `subscribed`; from here on events of the channel may be written.
    fn confirm(&mut self, terms: &Terms, answer: Answer, id: Option<&RequestId>, now: Now) -> Option<Bytes> {
        let slot = self.roster.slot(&terms.channel)?;
        let subscription = self.roster.at(slot)?;
        subscription.is_answered = true;
        let (mut recovered, mut replayed) = (answer.recovered, answer.replayed);
        if answer.is_again {
            let (queued, replay) = (subscription.queued_bytes(), subscription.replay_bytes());
            subscription.set_interval(interval::granted(subscription.kind, terms.interval_ms));
            self.queued_bytes = self.queued_bytes - queued + subscription.queued_bytes();
            self.replay_bytes = self.replay_bytes - replay + subscription.replay_bytes();
            recovered = match terms.start {
                Start::Now => None,
                Start::After(after) => Some(after != Seq::ZERO && subscription.covers(after)),
                Start::Since(_) => Some(false),
            };
            replayed = subscription.replay_events();
        }
        if let Some(interval) = subscription.interval {
            let ready_at = if subscription.has_items() { now.instant + interval } else { now.instant };
            let kind = ActionKind::Pace { interval: Some(interval), ready_at };
            self.actions.push(Action::Channel { channel: terms.channel.clone(), slot, kind });
        }
        let said = wire::Subscribed {
            id,
            recovered,
            replayed,
            oldest: answer.oldest,
            interval_ms: subscription.interval.map_or(0, |interval| interval.as_millis() as u64),
        };
        Some(wire::subscribed(terms.channel.as_str(), subscription.told_position(), &said, now.unix_ms))
    }

    /// Begins the next step, if one may. Gives whether it did.
    fn begin_next(&mut self, now: Now) -> bool {
        let under_way = self.steps.0.iter().take_while(|step| step.work.is_begun()).count();
        let Some(step) = self.steps.0.get(under_way) else { return false };
        let is_first = under_way == 0;
        if matches!(self.steps.0.front(), Some(Step { work: Work::Listing { .. }, .. })) {
            return false;
        }
        let work = match &step.work {
            Work::Subscribe(terms) => {
                let same = |step: &Step| step.work.channel() == Some(&terms.channel);
                let has_room = under_way < MAX_JOINS && self.has_replay_room();
                if !has_room || self.steps.0.iter().take(under_way).any(same) {
                    return false;
                }
                let terms = terms.clone();
                self.begin_subscribe(terms, now)
            }
            Work::Unsubscribe(channel) if is_first => {
                let (channel, id) = (channel.clone(), step.id.clone());
                self.end(&channel);
                self.steps.0.pop_front();
                self.tell(wire::unsubscribed(channel.as_str(), id.as_ref(), now.unix_ms));
                return true;
            }
            // What its channels are is only known when everything before it is done, and so is what comes after it.
            Work::SubscribeEvery(terms, named) if is_first => {
                let (terms, named) = (terms.clone(), named.clone());
                self.begin_listing(terms, named, now)
            }
            Work::UnsubscribeEvery(pattern) if is_first => {
                let pattern = pattern.clone();
                self.unsubscribe_every(&pattern);
                return true;
            }
            Work::Unsubscribe(_)
            | Work::SubscribeEvery(..)
            | Work::UnsubscribeEvery(_)
            | Work::Listing { .. }
            | Work::Joining { .. }
            | Work::Joined { .. }
            | Work::Refused { .. } => return false,
        };
        if let Some(step) = self.steps.0.get_mut(under_way) {
            step.work = work;
        }
        true
    }

    fn begin_subscribe(&mut self, terms: Terms, now: Now) -> Work {
        let refuse = |code, message: &str| Work::Refused {
            name: terms.channel.as_str().to_owned(),
            refusal: Refusal::new(code, message),
        };
        if let Some((code, message)) = self.token.refusal(now.unix_ms) {
            return refuse(code, message);
        }
        if !self.grant.channels.allows(&terms.channel) {
            return refuse(ErrorCode::ChannelForbidden, "the token does not allow the channel");
        }
        let token = self.new_token();
        let (slot, from) = if let Some(slot) = self.roster.slot(&terms.channel) {
            if self.roster.at(slot).is_some_and(|subscription| subscription.interval.is_some()) {
                // The new terms begin where every event is known. Until they do the newest one waits, without an interval.
                let kind = ActionKind::Pace { interval: None, ready_at: now.instant };
                self.actions.push(Action::Channel { channel: terms.channel.clone(), slot, kind });
            }
            // Only to learn what is kept: the subscription goes on where it is.
            (slot, From::Live { snapshot: false })
        } else {
            if self.roster.len() >= self.grant.limits.channels {
                return refuse(ErrorCode::ChannelLimit, "the connection has as many channels as it may have");
            }
            let kind = terms.channel.kind();
            let subscription = Subscription::joining(kind, interval::granted(kind, terms.interval_ms), token);
            let slot = self.roster.insert(terms.channel.clone(), subscription);
            let from = match terms.start {
                Start::Now => From::Live { snapshot: terms.snapshot },
                Start::After(after) => From::After(after),
                Start::Since(time) => From::Since(time),
            };
            (slot, from)
        };
        self.actions.push(Action::Channel {
            channel: terms.channel.clone(),
            slot,
            kind: ActionKind::Join { from, token },
        });
        Work::Joining { terms, token, resumed: None }
    }

    /// Takes the result of a join that a request waits for.
    pub(super) fn on_first_join(&mut self, channel: &Channel, token: u64, joined: Result<Joined, JoinError>) {
        let is_it = |step: &Step| matches!(&step.work, Work::Joining { token: other, .. } if *other == token);
        let Some(at) = self.steps.0.iter().position(is_it) else { return };
        let Some(Step { work: Work::Joining { terms, resumed, .. }, .. }) = self.steps.0.get(at) else { return };
        let (terms, resumed) = (terms.clone(), *resumed);
        let is_new = self.roster.get(channel).is_some_and(|s| s.phase == (Phase::Joining { token }));
        let work = match joined {
            Ok(joined) if is_new => self.begin_joined(terms, resumed, joined),
            Err(error) if is_new => {
                self.end(channel);
                let refusal = Refusal::new(ErrorCode::ReplayUnavailable, unavailable(&error));
                Work::Refused { name: channel.as_str().to_owned(), refusal }
            }
            // The subscription itself stands, whether or not history can be read.
            joined => {
                let oldest = joined.ok().and_then(|joined| joined.oldest);
                Work::Joined { terms, answer: Answer { recovered: None, replayed: 0, oldest, is_again: true } }
            }
        };
        if let Some(step) = self.steps.0.get_mut(at) {
            step.work = work;
        }
    }

    fn begin_joined(&mut self, terms: Terms, resumed: Option<Resumed>, mut joined: Joined) -> Work {
        let resumes = terms.start != Start::Now;
        if resumes && terms.snapshot && resumed.is_none() && joined.live && joined.events.is_empty() {
            let resumed = Resumed { recovered: joined.recovered, snapshot: joined.position };
            return self.join_again(terms, From::Live { snapshot: true }, Some(resumed));
        }
        let recovered = match (resumed, joined.events.first()) {
            (Some(resumed), Some(first)) if first.seq > resumed.snapshot => {
                if resumed.recovered {
                    // Something has come meanwhile, and maybe more than the latest event: that is what is missing.
                    return self.join_again(terms, From::After(resumed.snapshot), None);
                }
                false
            }
            (Some(resumed), Some(_)) => resumed.recovered,
            (Some(resumed), None) => {
                joined.position = resumed.snapshot;
                resumed.recovered
            }
            (None, _) => joined.recovered && terms.start != Start::After(Seq::ZERO),
        };
        let (oldest, mut replayed) = (joined.oldest, joined.replayed);
        let has_room = self.has_replay_room();
        let metrics = &self.surroundings.metrics;
        if let Some(subscription) = self.roster.get(&terms.channel) {
            if resumes && !has_room && subscription.interval.is_none() && !joined.events.is_empty() {
                // Other joins that were under way have brought more than may wait: this one is asked again in its turn.
                joined.events = Vec::new();
                joined.live = false;
            }
            if resumes {
                metrics.replays.inc();
                metrics.replayed.inc_by(joined.events.len() as u64);
            }
            subscription.begin(joined);
            self.replay_bytes += subscription.replay_bytes();
            if subscription.interval.is_some() {
                replayed = subscription.replay_events();
            }
        }
        let answer = Answer { recovered: resumes.then_some(recovered), replayed, oldest, is_again: false };
        Work::Joined { terms, answer }
    }

    /// Joins once more, for the snapshot where there is nothing above the position asked for. Not by a position: the one that a
    /// client was told may lie anywhere above the latest event.
    fn join_again(&mut self, terms: Terms, from: From, resumed: Option<Resumed>) -> Work {
        let token = self.new_token();
        if let Some(slot) = self.roster.slot(&terms.channel)
            && let Some(subscription) = self.roster.at(slot)
        {
            subscription.phase = Phase::Joining { token };
            let kind = ActionKind::Join { from, token };
            self.actions.push(Action::Channel { channel: terms.channel.clone(), slot, kind });
        }
        Work::Joining { terms, token, resumed }
    }
}
