//! A session that nobody shares a shard with: it keeps the intervals of its subscriptions by itself.

use std::time::Instant;

use akis_eventlog::Notice;
use akis_model::Channel;
use bytes::Bytes;

use crate::clock::Now;
use crate::interval::Groups;
use crate::session::{Action, ActionKind, Session};

/// See the module's documentation.
pub(crate) struct Solo {
    /// The session. What concerns time, notices and actions goes through [`Solo`].
    pub(crate) session: Session,
    /// Its subscriptions with an interval, each a group of its own.
    groups: Groups<u32>,
}

impl Solo {
    /// Takes in a session that has not subscribed to anything.
    pub(crate) fn new(session: Session) -> Self {
        Self { session, groups: Groups::default() }
    }

    /// Takes a notice of the log. Gives whether there is something to write, or an earlier deadline.
    pub(crate) fn on_notice(&mut self, channel: &Channel, notice: &Notice, now: Now) -> bool {
        let Self { session, groups } = self;
        let Some(slot) = session.slot(channel) else { return false };
        if !groups.has(slot) {
            return session.on_notice(slot, notice);
        }
        let mut should_wake = false;
        if let Notice::Event(event) = notice {
            groups.on_event(slot, event, now.instant, |slot, run| should_wake |= session.on_newest(slot, run));
            return should_wake || groups.next_at().is_some();
        }
        groups.flush(slot, now.instant, |slot, run| should_wake |= session.on_newest(slot, run));
        session.on_notice(slot, notice) || should_wake
    }

    /// Whether a channel's events come once in an interval.
    #[cfg(test)]
    pub(crate) fn is_paced(&self, slot: u32) -> bool {
        self.groups.has(slot)
    }

    /// Does what is due, as [`Session::on_tick`].
    pub(crate) fn on_tick(&mut self, now: Now, heartbeat: impl FnOnce() -> Bytes) {
        let Self { session, groups } = self;
        groups.on_time(now.instant, |slot, run| {
            session.on_newest(slot, run);
        });
        session.on_tick(now, heartbeat);
    }

    /// When [`Solo::on_tick`] has something to do again.
    pub(crate) fn deadline(&self, now: Now) -> Instant {
        let deadline = self.session.deadline(now);
        self.groups.next_at().map_or(deadline, |at| at.min(deadline))
    }

    /// What has to be done outside, as [`Session::actions`].
    pub(crate) fn actions(&mut self) -> Vec<Action> {
        let Self { session, groups } = self;
        let mut actions = session.actions();
        actions.retain(|action| {
            let Action::Channel { slot, kind, .. } = *action else { return true };
            match kind {
                ActionKind::Pace { interval, ready_at } => {
                    if let Some(owed) = groups.leave(slot, slot) {
                        session.on_newest(slot, &owed);
                    }
                    if let Some(interval) = interval {
                        groups.join(slot, interval, slot, ready_at);
                    }
                    false
                }
                ActionKind::Leave => {
                    groups.leave(slot, slot);
                    true
                }
                ActionKind::Join { .. } => true,
            }
        });
        actions
    }
}
