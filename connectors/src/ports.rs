//! How a session is connected to whoever reads it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::frame::RawFrame;

/// Something that the reader of a session wants from the venue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The whole book of a symbol, in the venue's spelling. The answer is a [`crate::Content::Reply`], or a frame where
    /// books come over the socket.
    Book {
        /// The symbol.
        symbol: String,
    },
    /// Trades of a symbol from one of the venue's ids on, as many as it gives at once; the last ones where the venue cannot be
    /// asked by id. The answer is as above.
    Trades {
        /// The symbol.
        symbol: String,
        /// The first id; 0 where it does not matter.
        from_id: u64,
    },
    /// The latest candles of a symbol. The answer is as above.
    Candles {
        /// The symbol.
        symbol: String,
        /// As the venue names it.
        interval: &'static str,
        /// How many, the running one included.
        count: u32,
    },
}

/// What goes into a session and what comes out.
#[derive(Debug)]
pub struct Ports {
    /// Takes everything that comes in. When it is full the session waits, and reads its sockets slower.
    pub frames: mpsc::Sender<RawFrame>,
    /// Gives requests. They are queued and paced; one for a symbol that is already waiting is dropped.
    pub requests: mpsc::Receiver<Request>,
    /// Counts what happens.
    pub stats: Arc<Stats>,
}

/// What a session counts. Read by the metrics of whoever runs it.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections that are open now.
    pub open: Count,
    /// Connections that were opened.
    pub opened: Count,
    /// Connections that ended without being asked to.
    pub lost: Count,
    /// Streams that were asked for and from which nothing had come when the time for it was over.
    pub silent_streams: Count,
    /// Streams that stopped while others of their connection went on, and were asked for again.
    pub stopped_streams: Count,
    /// How far the venue's clock is ahead of this machine's, in milliseconds.
    pub clock_offset_ms: Offset,
    /// REST requests that were made.
    pub requests: Count,
    /// REST requests that were refused or not answered.
    pub refused: Count,
    /// Packets of a binary transport that are none.
    pub malformed: Count,
    /// Packets of another session than the one that is followed.
    pub other_session: Count,
}

/// A difference between clocks, as it was last measured.
#[derive(Debug, Default)]
pub struct Offset(AtomicI64);

impl Offset {
    /// The difference; 0 before it was measured.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, offset: i64) {
        self.0.store(offset, Ordering::Relaxed);
    }
}

/// A number that several tasks count in.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn less(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }
}
