//! How the other threads reach a shard.

use std::sync::Arc;

use akis_eventlog::{JoinError, Joined, Partition};
use akis_model::Channel;
use mio::Waker;
use parking_lot::Mutex;

use super::pool::Newcomer;
use crate::batch::Batch;
use crate::listing::Listed;
use crate::request::Refusal;

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
    /// It is known which channels there are.
    Listed {
        /// Who asked.
        conn: ConnKey,
        /// Names the request.
        token: u64,
        /// The channels, or why not.
        listed: Result<Listed, Refusal>,
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
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    fn batch(partition: Partition, notices: usize) -> Batch {
        Batch { partition, pieces: Vec::new(), notices, arrival: None, marks: Vec::new() }
    }

    #[test]
    fn a_full_inbox_says_what_was_dropped() {
        let poll = mio::Poll::new().unwrap();
        let inbox = Inbox::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let batch = |partition, notices| Arc::new(batch(Partition(partition), notices));
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

    #[test]
    fn no_message_is_left_without_a_wake() {
        const SENDERS: usize = 3;
        const EACH: usize = 2_000;
        let (mut poll, mut events) = (mio::Poll::new().unwrap(), mio::Events::with_capacity(8));
        let inbox = Inbox::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let taken = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for sender in 0..SENDERS {
                let (inbox, taken) = (&inbox, &taken);
                scope.spawn(move || {
                    for n in 0..EACH {
                        let before = taken.load(Ordering::Relaxed);
                        if n % 2 == 0 {
                            inbox.send(Message::Revoked);
                        } else {
                            let partition = Partition(sender as u16);
                            inbox.deliver(&Arc::new(batch(partition, 1)));
                        }
                        // Lets the other side fall asleep in between, at all moments.
                        while n % 3 == 0 && taken.load(Ordering::Relaxed) == before {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let mut messages = Vec::new();
            while taken.load(Ordering::Relaxed) < SENDERS * EACH {
                // As the loop of a shard does it. Somebody always has something to send, so only a lost wake can last so long.
                let timeout = if inbox.fall_asleep() { Duration::from_secs(60) } else { Duration::ZERO };
                poll.poll(&mut events, Some(timeout)).unwrap();
                assert!(timeout.is_zero() || !events.is_empty(), "slept beside a message");
                assert!(inbox.drain(&mut messages).is_empty());
                taken.fetch_add(messages.len(), Ordering::Relaxed);
                messages.clear();
            }
        });
    }
}
