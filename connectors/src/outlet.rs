//! Where the frames of a session go: one bounded queue for all of its connections.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::frame::{Content, RawFrame};
use crate::ports::Stats;
use crate::wall::Wall;

/// The sending end that the connections of a session share.
#[derive(Debug)]
pub(crate) struct Outlet {
    frames: mpsc::Sender<RawFrame>,
    cancel: CancellationToken,
    /// What frames are stamped by: stamps never fall, whichever connection they belong to.
    wall: Mutex<Wall>,
    /// The stamp given last: a frame may have waited after it was read.
    last: Mutex<i64>,
    connections: AtomicU32,
    stats: Arc<Stats>,
}

/// Nobody takes frames any more.
#[derive(Debug)]
pub(crate) struct Stopped;

impl Outlet {
    pub(crate) fn new(frames: mpsc::Sender<RawFrame>, stats: Arc<Stats>, cancel: CancellationToken) -> Self {
        Self { frames, cancel, wall: Mutex::default(), last: Mutex::new(0), connections: AtomicU32::new(0), stats }
    }

    /// Stamps `content` and hands it on. Waits while the queue is full, so that the socket is read slower.
    pub(crate) async fn send(&self, content: Content) -> Result<(), Stopped> {
        let read_at = self.wall.lock().unwrap_or_else(PoisonError::into_inner).now_ms();
        let permit = self.unless_stopped(self.frames.reserve()).await?.map_err(|_| Stopped)?;
        // Stamping and sending are one step, or the stamps of two connections could cross in the queue.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = read_at.max(*last);
        permit.send(RawFrame { received_at: *last, content });
        Ok(())
    }

    /// Waits for `done`, but no longer than the session lasts.
    pub(crate) async fn unless_stopped<T>(&self, done: impl Future<Output = T>) -> Result<T, Stopped> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Stopped),
            done = done => Ok(done),
        }
    }

    /// The number of a new connection.
    pub(crate) fn next_connection(&self) -> u32 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }
}

/// Milliseconds since the epoch by this machine's clock, as it is set.
pub(crate) fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}
