//! How the other threads reach a shard.

use std::sync::Arc;

use akis_eventlog::{JoinError, Joined, Partition};
use akis_model::Channel;
use mio::Waker;
use parking_lot::Mutex;

use super::pool::Newcomer;
use crate::batch::Batch;

/// Notices that may wait in an inbox. When there are more, batches are dropped, and the shard lets its subscribers of that partition
/// join again where they are: the log has what they miss.
const MAX_NOTICES: usize = 65_536;

/// Names a connection of a shard: its place, and its number because places are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnKey {
    pub(super) place: u32,
    pub(super) id: u64,
}

/// What a shard is told. Connections and joins are bounded by their own limits, batches by [`MAX_NOTICES`].
pub(crate) enum Message {
    /// What the log brought.
    Batch(Arc<Batch>),
    /// A join has an answer.
    Joined {
        /// Whose it is.
        conn: ConnKey,
        /// What was joined.
        channel: Channel,
        /// Names the join.
        token: u64,
        /// The answer.
        joined: Result<Joined, JoinError>,
    },
    /// Another client.
    Adopt(Box<Newcomer>),
    /// Whether the log can be reached.
    Upstream(bool),
    /// Tokens have been revoked.
    Revoked,
    /// Send all clients away, over the drain time.
    Drain,
    /// Send all clients away at once.
    Stop,
    /// End, whoever is left.
    End,
}

#[derive(Default)]
struct Waiting {
    messages: Vec<Message>,
    notices: usize,
    /// Partitions of which batches were dropped.
    missed: Vec<Partition>,
    /// Whether the shard sleeps, or is about to.
    is_asleep: bool,
}

/// The way into a shard.
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    waker: Waker,
}

impl Inbox {
    pub(super) fn new(waker: Waker) -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::default(), waker })
    }

    /// Hands a batch over. Never waits.
    pub(crate) fn deliver(&self, batch: &Arc<Batch>) {
        let mut waiting = self.waiting.lock();
        if waiting.missed.contains(&batch.partition) {
            return;
        }
        if waiting.notices >= MAX_NOTICES {
            waiting.missed.push(batch.partition);
        } else {
            waiting.notices += batch.notices;
            waiting.messages.push(Message::Batch(Arc::clone(batch)));
        }
        self.wake(&mut waiting);
    }

    /// Hands anything else over.
    pub(crate) fn send(&self, message: Message) {
        let mut waiting = self.waiting.lock();
        waiting.messages.push(message);
        self.wake(&mut waiting);
    }

    fn wake(&self, waiting: &mut Waiting) {
        if std::mem::take(&mut waiting.is_asleep)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "failed to wake a shard");
        }
    }

    /// Moves everything that waits to `messages`, which is empty, and gives the partitions of which batches were dropped after that.
    pub(super) fn drain(&self, messages: &mut Vec<Message>) -> Vec<Partition> {
        let mut waiting = self.waiting.lock();
        waiting.notices = 0;
        std::mem::swap(&mut waiting.messages, messages);
        std::mem::take(&mut waiting.missed)
    }

    /// Announces that the shard is about to sleep. Gives whether it may.
    pub(super) fn fall_asleep(&self) -> bool {
        let mut waiting = self.waiting.lock();
        waiting.is_asleep = waiting.messages.is_empty() && waiting.missed.is_empty();
        waiting.is_asleep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_inbox_says_what_was_dropped() {
        let poll = mio::Poll::new().unwrap();
        let inbox = Inbox::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let batch =
            |partition, notices| Arc::new(Batch { partition: Partition(partition), pieces: Vec::new(), notices });
        assert!(inbox.fall_asleep());
        inbox.deliver(&batch(1, MAX_NOTICES));
        assert!(!inbox.fall_asleep());
        inbox.deliver(&batch(2, 1));
        inbox.deliver(&batch(2, 1));
        let mut messages = Vec::new();
        assert_eq!(inbox.drain(&mut messages), [Partition(2)]);
        assert_eq!(messages.len(), 1);
        messages.clear();
        inbox.deliver(&batch(2, 1));
        assert!(inbox.drain(&mut messages).is_empty(), "there is room again");
        assert_eq!(messages.len(), 1);
    }
}
