//! Patterns in requests: the steps for the channels that they stand for take their place.

use std::collections::HashSet;
use std::sync::Arc;

use akis_model::{Channel, ErrorCode, Pattern};

use super::{Step, Work};
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
    channels: Arc<HashSet<Channel>>,
    patterns: Arc<[Pattern]>,
    /// How many of the patterns come before this one.
    before: usize,
}

impl Named {
    /// What stands beside the first of the patterns.
    pub(super) fn of(wishes: &[Wish]) -> Self {
        let (mut channels, mut patterns) = (HashSet::new(), Vec::new());
        for wish in wishes {
            match &wish.wanted {
                Ok(Wanted::One(terms)) => {
                    channels.insert(terms.channel.clone());
                }
                Ok(Wanted::Every(terms)) => patterns.push(terms.channel.clone()),
                Err(_) => {}
            }
        }
        Self { channels: Arc::new(channels), patterns: patterns.into(), before: 0 }
    }

    /// What stands beside the pattern whose turn it is; the next one is the next one's.
    pub(super) fn next(&mut self) -> Self {
        let this = self.clone();
        self.before += 1;
        this
    }

    fn has(&self, channel: &Channel, subject: &str) -> bool {
        let mut before = self.patterns.iter().take(self.before);
        self.channels.contains(channel) || before.any(|pattern| pattern.matches(channel, subject))
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
            Ok(channels) => self.put_first(
                channels.into_iter().map(|channel| Step { id: id.clone(), work: Work::Subscribe(terms.of(channel)) }),
            ),
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
