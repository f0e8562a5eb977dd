//! The shards of a replica: starts them, and hands clients and news to them.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use mio::{Poll, Token, Waker};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tracing::error;

use super::Shard;
use super::desk::Desk;
use super::inbox::{Inbox, Message};
use crate::auth::Grant;
use crate::context::Context;
use crate::hub::MAX_SHARDS;
use crate::server::Seat;

/// The token of the inbox's waker: no connection has it.
const WAKER: Token = Token(usize::MAX);

/// A client that has been let in.
pub(crate) struct Newcomer {
    /// Its socket, upgraded.
    pub(crate) stream: TcpStream,
    /// What it is to be sent before anything else.
    pub(crate) greeting: Vec<u8>,
    /// What was read of it already.
    pub(crate) already_read: Bytes,
    /// What it may do.
    pub(crate) grant: Grant,
    /// Whether it takes several envelopes in one frame.
    pub(crate) takes_batches: bool,
    /// Whether compressed messages were agreed on.
    pub(crate) takes_compressed: bool,
    /// Its place in the limits, given back when the connection ends.
    pub(crate) seat: Seat,
}

/// A shard that has not begun: its selector and its inbox.
pub(crate) struct Seed {
    poll: Poll,
    inbox: Arc<Inbox>,
}

impl Seed {
    /// One for each core.
    ///
    /// # Errors
    ///
    /// When the system gives no selector.
    pub(crate) fn for_each_core() -> io::Result<Vec<Self>> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_SHARDS);
        let seed = |_| {
            let poll = Poll::new()?;
            let inbox = Inbox::new(Waker::new(poll.registry(), WAKER)?);
            Ok(Self { poll, inbox })
        };
        (0..cores).map(seed).collect()
    }

    /// The way into the shard.
    pub(crate) fn inbox(&self) -> Arc<Inbox> {
        Arc::clone(&self.inbox)
    }
}

/// The running shards. Ends them when dropped.
pub(crate) struct Shards {
    shards: Vec<(Arc<Inbox>, Arc<AtomicUsize>)>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    tasks: TaskTracker,
}

impl Shards {
    /// Starts a thread for each seed. Must be called inside a Tokio runtime, which runs what has to wait for the log.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub(crate) fn start(seeds: Vec<Seed>, context: &Arc<Context>) -> io::Result<Self> {
        let mut started = Self { shards: Vec::new(), threads: Mutex::default(), tasks: TaskTracker::new() };
        for (number, Seed { poll, inbox }) in seeds.into_iter().enumerate() {
            let load = Arc::new(AtomicUsize::new(0));
            started.shards.push((Arc::clone(&inbox), Arc::clone(&load)));
            let desk = Desk::new(number, Arc::clone(context), inbox, Handle::current(), started.tasks.clone());
            let shard = Shard::new(poll, desk, load);
            let thread = std::thread::Builder::new().name(format!("shard-{number}")).spawn(move || shard.run())?;
            started.threads.lock().push(thread);
        }
        Ok(started)
    }

    /// Gives a client to the shard with the fewest.
    pub(crate) fn adopt(&self, newcomer: Newcomer) {
        if let Some((inbox, load)) = self.shards.iter().min_by_key(|(_, load)| load.load(Ordering::Relaxed)) {
            load.fetch_add(1, Ordering::Relaxed);
            inbox.send(Message::Adopt(Box::new(newcomer)));
        }
    }

    /// Tells all clients whether the log can be reached.
    pub(crate) fn tell_upstream(&self, is_reachable: bool) {
        self.tell(|| Message::Upstream(is_reachable));
    }

    /// Lets all sessions look whether their token has been revoked.
    pub(crate) fn tell_revoked(&self) {
        self.tell(|| Message::Revoked);
    }

    /// Sends all clients away, over the drain time.
    pub(crate) fn drain(&self) {
        self.tell(|| Message::Drain);
    }

    /// Sends all clients away at once.
    pub(crate) fn stop(&self) {
        self.tell(|| Message::Stop);
    }

    fn tell(&self, message: impl Fn() -> Message) {
        self.shards.iter().for_each(|(inbox, _)| inbox.send(message()));
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        self.tell(|| Message::End);
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                error!("a shard has panicked");
            }
        }
    }
}
