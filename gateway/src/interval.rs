//! Subscriptions with an interval: those of one channel and one interval share a timer, a newest event and a frame.
//!
//! Plain code: events and the passing of time go in, and what is due comes out by the closure that every call takes. A member gets at
//! most one event per interval, always the newest, and no event waits for longer than the interval. Members that came at different
//! moments fall into step: where several wait for an event, it is given to all of them when the last one may have it, which is early
//! enough for the first.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use akis_eventlog::LogEvent;
use akis_model::Kind;

use crate::run::{Run, RunBuilder};

/// Intervals are granted from a small set, so that many subscriptions share the same moments. The shortest is about what coalescing
/// does anyway; those above the longest are multiples of it.
const INTERVALS_MS: [u64; 15] = [10, 20, 50, 100, 200, 250, 300, 500, 1000, 2000, 2500, 5000, 10_000, 30_000, 60_000];

/// The interval that a subscription of this kind is granted when it asks for so many milliseconds; `None`: every event as it comes.
pub(crate) fn granted(kind: Kind, asked_ms: u64) -> Option<Duration> {
    let is_asked = asked_ms > 0 && kind.is_newest_wins();
    let longest = INTERVALS_MS.last().copied().unwrap_or(1);
    let granted = INTERVALS_MS
        .into_iter()
        .find(|granted| *granted >= asked_ms)
        .unwrap_or_else(|| asked_ms.div_ceil(longest).saturating_mul(longest));
    is_asked.then(|| Duration::from_millis(granted))
}

/// Names a group: the number of its channel, and its interval.
type Key = (u32, Duration);

/// One subscription of a group.
#[derive(Debug)]
struct Member<M> {
    who: M,
    /// It may be given nothing before this.
    ready_at: Instant,
    /// The number of the last event that it needs not be given any more.
    has: u64,
}

/// The subscriptions of one channel and one interval.
#[derive(Debug)]
struct Group<M> {
    interval: Duration,
    members: Vec<Member<M>>,
    /// The newest event, as long as there are members that have not been given it.
    newest: Option<Arc<LogEvent>>,
    /// Its number: how many there were.
    count: u64,
    /// Nobody has been given it.
    is_fresh: bool,
    /// When it is given to those that may have it.
    tick_at: Option<Instant>,
    /// When somebody was last given something.
    given_at: Option<Instant>,
}

/// All groups of a shard. `M` names a subscription.
#[derive(Debug)]
pub(crate) struct Groups<M> {
    /// By the number of their channel.
    groups: HashMap<u32, Vec<Group<M>>, foldhash::fast::RandomState>,
    ticks: BTreeSet<(Instant, Key)>,
}

impl<M> Default for Groups<M> {
    fn default() -> Self {
        Self { groups: HashMap::default(), ticks: BTreeSet::new() }
    }
}

impl<M: Copy + Eq> Group<M> {
    /// Takes an event that replaces the one that waits.
    fn replace(&mut self, event: &Arc<LogEvent>, now: Instant) {
        self.newest = Some(Arc::clone(event));
        self.count += 1;
        if std::mem::replace(&mut self.is_fresh, true) {
            return;
        }
        // After a pause it is given at once to whoever may have it. On a busy channel it waits until the last one may.
        let is_busy = self.given_at.is_some_and(|at| now < at + self.interval);
        let ready_at = self.members.iter().map(|member| member.ready_at);
        self.tick_at = if is_busy { ready_at.max() } else { ready_at.min().map(|at| at.max(now)) };
    }

    /// Gives the newest event to those that may have it; with `is_flushed`, to all.
    fn give(&mut self, now: Instant, is_flushed: bool, give: &mut impl FnMut(M, &Arc<Run>)) {
        let Some(newest) = &self.newest else { return };
        let run = Arc::new(RunBuilder::new(newest).finish());
        let mut owed_until = None;
        for member in self.members.iter_mut().filter(|member| member.has != self.count) {
            if member.ready_at <= now || is_flushed {
                member.has = self.count;
                member.ready_at = now + self.interval;
                give(member.who, &run);
            } else {
                owed_until = owed_until.max(Some(member.ready_at));
            }
        }
        self.is_fresh = false;
        self.given_at = Some(now);
        self.tick_at = owed_until;
        if owed_until.is_none() {
            self.newest = None;
        }
    }
}

impl<M: Copy + Eq> Groups<M> {
    /// Adds a subscription to a channel, which may be given something that comes later, from `ready_at` on.
    pub(crate) fn join(&mut self, channel: u32, interval: Duration, who: M, ready_at: Instant) {
        let groups = self.groups.entry(channel).or_default();
        // Whoever joins has everything up to now.
        match groups.iter_mut().find(|group| group.interval == interval) {
            Some(group) => group.members.push(Member { who, ready_at, has: group.count }),
            None => groups.push(Group {
                interval,
                members: vec![Member { who, ready_at, has: 0 }],
                newest: None,
                count: 0,
                is_fresh: false,
                tick_at: None,
                given_at: None,
            }),
        }
    }

    /// Removes a subscription. Gives the event that it was still to be given.
    pub(crate) fn leave(&mut self, channel: u32, who: M) -> Option<Arc<Run>> {
        let groups = self.groups.get_mut(&channel)?;
        let (at, member) = groups.iter().enumerate().find_map(|(at, group)| {
            group.members.iter().position(|member| member.who == who).map(|member| (at, member))
        })?;
        let group = groups.get_mut(at)?;
        let member = group.members.swap_remove(member);
        let newest = group.newest.as_ref().filter(|_| member.has != group.count);
        let owed = newest.map(|newest| Arc::new(RunBuilder::new(newest).finish()));
        if group.members.is_empty() {
            let group = groups.swap_remove(at);
            if let Some(tick_at) = group.tick_at {
                self.ticks.remove(&(tick_at, (channel, group.interval)));
            }
            if groups.is_empty() {
                self.groups.remove(&channel);
            }
        }
        owed
    }

    /// Whether a channel has subscriptions here.
    pub(crate) fn has(&self, channel: u32) -> bool {
        self.groups.contains_key(&channel)
    }

    /// How many groups there are.
    pub(crate) fn len(&self) -> usize {
        self.groups.values().map(Vec::len).sum()
    }

    /// The subscriptions of a channel.
    pub(crate) fn members(&self, channel: u32) -> impl Iterator<Item = M> {
        let members = self.groups.get(&channel).into_iter().flatten().flat_map(|group| &group.members);
        members.map(|member| member.who)
    }

    /// Takes the newest event of a channel.
    pub(crate) fn on_event(
        &mut self,
        channel: u32,
        event: &Arc<LogEvent>,
        now: Instant,
        mut give: impl FnMut(M, &Arc<Run>),
    ) {
        for group in self.groups.get_mut(&channel).into_iter().flatten() {
            let before = group.tick_at;
            group.replace(event, now);
            if group.tick_at.is_some_and(|at| at <= now) {
                group.give(now, false, &mut give);
            }
            reset(&mut self.ticks, (channel, group.interval), before, group.tick_at);
        }
    }

    /// Gives everything of a channel that waits, whatever the interval: something else is to be told that follows it.
    pub(crate) fn flush(&mut self, channel: u32, now: Instant, mut give: impl FnMut(M, &Arc<Run>)) {
        for group in self.groups.get_mut(&channel).into_iter().flatten() {
            let before = group.tick_at;
            group.give(now, true, &mut give);
            reset(&mut self.ticks, (channel, group.interval), before, group.tick_at);
        }
    }

    /// Gives what is due.
    pub(crate) fn on_time(&mut self, now: Instant, mut give: impl FnMut(M, &Arc<Run>)) {
        while let Some((at, (channel, interval))) = self.ticks.first().copied()
            && at <= now
        {
            self.ticks.pop_first();
            let mut groups = self.groups.get_mut(&channel).into_iter().flatten();
            if let Some(group) = groups.find(|group| group.interval == interval) {
                group.give(now, false, &mut give);
                reset(&mut self.ticks, (channel, interval), None, group.tick_at);
            }
        }
    }

    /// When something is due.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.ticks.first().map(|(at, _)| *at)
    }
}

fn reset(ticks: &mut BTreeSet<(Instant, Key)>, key: Key, before: Option<Instant>, after: Option<Instant>) {
    if before == after {
        return;
    }
    if let Some(before) = before {
        ticks.remove(&(before, key));
    }
    if let Some(after) = after {
        ticks.insert((after, key));
    }
}

#[cfg(test)]
mod tests;
