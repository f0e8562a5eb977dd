//! Patterns in requests: the steps for the channels that they stand for take their place.

use std::collections::HashSet;
use std::sync::Arc;

use akis_model::{Channel, ErrorCode, Pattern};

use super::{Step, Steps, Work};
use crate::clock::Now;
use crate::limits::Admission;
use crate::listing::Listed;
use crate::request::{Refusal, Terms, Wanted, Wish};
use crate::session::{Action, Session};

/// Why they are refused where the configuration does not allow them.
pub(super) fn no_patterns() -> Refusal {
    Refusal::new(ErrorCode::BadChannel, "this server takes no patterns: name the channels")
}

/// What a `subscribe` names beside one of its patterns: a channel that is named twice counts once.
#[derive(Debug, Clone)]
pub(super) struct Named {
    /// The same set for all patterns of the request.
    channels: Arc<HashSet<Channel>>,
    /// The patterns before this one, without those that were refused.
    patterns: Vec<Pattern>,
}

impl Named {
    /// What stands beside a pattern before any has been looked up.
    pub(super) fn of(wishes: &[Wish]) -> Self {
        let channel = |wish: &Wish| match &wish.wanted {
            Ok(Wanted::One(terms)) => Some(terms.channel.clone()),
            Ok(Wanted::Every(_)) | Err(_) => None,
        };
        Self { channels: Arc::new(wishes.iter().filter_map(channel).collect()), patterns: Vec::new() }
    }

    fn has(&self, channel: &Channel, subject: &str) -> bool {
        let mut patterns = self.patterns.iter();
        self.channels.contains(channel) || patterns.any(|pattern| pattern.matches(channel, subject))
    }
}

impl Steps {
    /// Lets those patterns know that the request of `named` names behind this one.
    fn note_expanded(&mut self, named: &Named, pattern: &Pattern) {
        for step in &mut self.0 {
            if let Work::SubscribeEvery(_, other) = &mut step.work
                && Arc::ptr_eq(&other.channels, &named.channels)
            {
                other.patterns.push(pattern.clone());
            }
        }
    }
}

impl Session {
    pub(super) fn begin_listing(&mut self, terms: Terms<Pattern>, named: Named, now: Now) -> Work {
        let refuse = |code, message: &str| Work::Refused {
            name: terms.channel.to_string(),
            refusal: Refusal::new(code, message),
        };
        if let Some((code, message)) = self.token.refusal(now.unix_ms) {
            return refuse(code, message);
        }
        // Looking through all channels is work, which one message may ask for two hundred times.
        if let Admission::Refused { .. } = self.gate.admit(now.instant) {
            return refuse(ErrorCode::RateLimited, "more patterns than allowed: each counts as a message");
        }
        let token = self.new_token();
        self.actions.push(Action::List { token });
        Work::Listing { terms, named, token }
    }

    /// Puts the channels that a pattern stands for in its place.
    pub(in crate::session) fn expand(&mut self, token: u64, listed: Result<Listed, Refusal>) {
        let is_it = |step: &mut Step| matches!(&step.work, Work::Listing { token: other, .. } if *other == token);
        let Some(Step { id, work: Work::Listing { terms, named, .. } }) = self.steps.0.pop_front_if(is_it) else {
            return;
        };
        match listed.and_then(|listed| self.covered(&terms.channel, &named, &listed)) {
            Ok(channels) => {
                self.steps.note_expanded(&named, &terms.channel);
                self.put_first(
                    channels
                        .into_iter()
                        .map(|channel| Step { id: id.clone(), work: Work::Subscribe(terms.of(channel)) }),
                );
            }
            Err(refusal) => {
                let name = terms.channel.to_string();
                self.steps.0.push_front(Step { id, work: Work::Refused { name, refusal } });
            }
        }
    }

    /// The channels that a pattern stands for and that the request does not name otherwise, in order: all of them or none.
    fn covered(&self, pattern: &Pattern, named: &Named, listed: &Listed) -> Result<Vec<Channel>, Refusal> {
        let is_meant =
            |channel: &Channel| pattern.matches(channel, &self.grant.subject) && self.grant.channels.allows(channel);
        let mut channels: Vec<Channel> =
            listed.iter().map(|head| &head.channel).filter(|channel| is_meant(channel)).cloned().collect();
        if channels.is_empty() {
            return Err(Refusal::new(ErrorCode::BadChannel, "there is no such channel that the token allows"));
        }
        channels.retain(|channel| !named.has(channel, &self.grant.subject));
        let new = channels.iter().filter(|channel| self.roster.slot(channel).is_none()).count();
        let most = self.grant.limits.channels;
        if self.roster.len() + new > most {
            let message = format!("it stands for {new} more channels, and the connection may have {most}");
            return Err(Refusal::new(ErrorCode::ChannelLimit, message));
        }
        channels.sort_unstable();
        Ok(channels)
    }

    /// Puts the channels that are subscribed to and that a pattern covers in the place of the first step.
    pub(super) fn unsubscribe_every(&mut self, pattern: &Pattern) {
        let Some(Step { id, .. }) = self.steps.0.pop_front() else { return };
        let is_meant = |channel: &&Channel| pattern.matches(channel, &self.grant.subject);
        let mut channels: Vec<Channel> = self.roster.channels().filter(is_meant).cloned().collect();
        channels.sort_unstable();
        if channels.is_empty() {
            let refusal = Refusal::new(ErrorCode::BadChannel, "the connection has no such channel");
            self.steps.0.push_front(Step { id, work: Work::Refused { name: pattern.to_string(), refusal } });
            return;
        }
        self.put_first(channels.into_iter().map(|channel| Step { id: id.clone(), work: Work::Unsubscribe(channel) }));
    }

    fn put_first(&mut self, steps: impl DoubleEndedIterator<Item = Step>) {
        steps.rev().for_each(|step| self.steps.0.push_front(step));
    }
}
