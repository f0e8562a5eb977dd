//! What the log brings to a shard: batches of its tail, answers of joins, and lists of channels.

use std::sync::Arc;

use akis_eventlog::{JoinError, Joined, Partition};
use akis_model::Channel;
use slab::Slab;
use tracing::warn;

use super::conn::Conn;
use super::inbox::ConnKey;
use super::topics::Subscriber;
use super::{Shard, find, touch};
use crate::age::{Arrival, Mark};
use crate::batch::{Batch, Piece, TopicId};
use crate::clock::Now;
use crate::context::Context;
use crate::listing::Listed;
use crate::request::Refusal;
use crate::session::Session;

impl Shard {
    pub(super) fn on_batch(&mut self, batch: &Batch, now: Now) {
        let came = batch.arrival;
        for (id, piece) in &batch.pieces {
            let Self { conns, touched, desk, .. } = &mut *self;
            let Some(topic) = desk.topics.get(*id) else { continue };
            match piece {
                Piece::Run(run) => {
                    // The references to it are counted on this thread alone.
                    let run = Arc::new(run.clone());
                    for subscriber in &topic.subscribers {
                        give(conns, touched, *subscriber, came, |session, slot| session.on_run(slot, &run));
                    }
                    if let Some(newest) = run.events().last() {
                        desk.topics.groups.on_event(id.index, newest, now.instant, |subscriber, run| {
                            give(conns, touched, subscriber, came, |session, slot| session.on_newest(slot, run));
                        });
                    }
                }
                Piece::Notice(notice) => {
                    desk.topics.groups.flush(id.index, now.instant, |subscriber, run| {
                        give(conns, touched, subscriber, None, |session, slot| session.on_newest(slot, run));
                    });
                    for subscriber in desk.topics.all(id.index) {
                        give(conns, touched, subscriber, came, |session, slot| session.on_notice(slot, notice));
                    }
                }
            }
        }
        self.follow(&batch.marks);
    }

    /// Follows the events that are sampled to their first subscribers.
    fn follow(&mut self, marks: &[(TopicId, Mark)]) {
        for (id, mark) in marks {
            let first = self.desk.topics.get(*id).and_then(|_| self.desk.topics.all(id.index).next());
            if let Some(conn) = first.and_then(|(place, _)| self.conns.get_mut(place as usize))
                && conn.is_touched
            {
                conn.mark = Some(Box::new(mark.clone()));
            }
        }
    }

    pub(super) fn run_intervals(&mut self, now: Now) {
        let Self { conns, touched, desk, .. } = self;
        desk.topics.groups.on_time(now.instant, |subscriber, run| {
            give(conns, touched, subscriber, None, |session, slot| session.on_newest(slot, run));
        });
    }

    /// Batches were dropped because this shard is too slow: what they held is read from the log.
    pub(super) fn on_missed(&mut self, partition: Partition) {
        warn!(shard = self.desk.number, %partition, "a shard is behind: its subscribers join again where they are");
        self.desk.context.surroundings.metrics.overruns.inc();
        for (place, slot) in self.desk.topics.of_partition(partition) {
            if let Some(conn) = self.conns.get_mut(place as usize) {
                conn.session.on_missed(slot);
                touch(&mut self.touched, place, conn);
            }
        }
    }

    pub(super) fn on_listed(&mut self, key: ConnKey, token: u64, listed: Result<Listed, Refusal>, now: Now) {
        if let Some(conn) = find(&mut self.conns, key) {
            conn.session.on_listed(token, listed, now);
            touch(&mut self.touched, key.place, conn);
        }
    }

    pub(super) fn on_joined(
        &mut self,
        key: ConnKey,
        channel: &Channel,
        token: u64,
        joined: Result<Joined, JoinError>,
        now: Now,
    ) {
        if let Some(conn) = find(&mut self.conns, key) {
            conn.session.on_joined(channel, token, joined, now);
            touch(&mut self.touched, key.place, conn);
        }
        // A join that ended after its channel was left has told the log that somebody subscribes.
        if self.desk.topics.index_of(channel).is_none() {
            let Context { hub, replica, .. } = &*self.desk.context;
            hub.check_unused(channel, || replica.leave(channel));
        }
    }
}

/// Gives a subscription something, and marks its connection when there is something to write. `came`: since when that is to be
/// measured; not for what an interval has held back.
fn give(
    conns: &mut Slab<Box<Conn>>,
    touched: &mut Vec<u32>,
    (place, slot): Subscriber,
    came: Option<Arrival>,
    take: impl FnOnce(&mut Session, u32) -> bool,
) {
    if let Some(conn) = conns.get_mut(place as usize)
        && take(&mut conn.session, slot)
    {
        conn.note_arrival(came);
        touch(touched, place, conn);
    }
}
