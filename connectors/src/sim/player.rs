//! A recording that is played by its own times, as fast as is asked for.

use std::collections::HashSet;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use tokio::sync::mpsc;
use tracing::warn;

use crate::recording::{Header, Reader, RecordingError};
use crate::symbols::is_symbol;
use crate::{Content, RawFrame};

/// How many frames are read ahead of the moment that is being played.
const READ_AHEAD: usize = 1024;

/// See the module's documentation.
pub(crate) struct Player {
    header: Header,
    frames: mpsc::Receiver<RawFrame>,
    ahead: Option<RawFrame>,
    speed: f64,
    /// The recording's moment in milliseconds; `None` before the first frame is due.
    position: Option<f64>,
    /// When the position was last moved, by our clock.
    moved_at: i64,
    is_over: bool,
    /// Recorded connections that are open.
    open: HashSet<u32>,
}

impl Player {
    /// Opens a recording and begins to read it on a thread of its own.
    ///
    /// # Errors
    ///
    /// That of the file, or of its header.
    pub(crate) fn open(file: &Path, speed: f64) -> Result<Self, RecordingError> {
        let (header, reader) = Reader::open(BufReader::new(File::open(file)?))?;
        let (sender, frames) = mpsc::channel(READ_AHEAD);
        // It ends with the file, or at the next frame once the receiver is gone.
        tokio::task::spawn_blocking(move || {
            for frame in reader {
                match frame.map(|frame| sender.blocking_send(frame)) {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return,
                    Err(error) => warn!(%error, "a line of the recording is skipped"),
                }
            }
        });
        let (ahead, position, open) = (None, None, HashSet::new());
        Ok(Self { header, frames, ahead, speed, position, moved_at: 0, is_over: false, open })
    }

    /// What the recording says about itself.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Whether the recording is one of this symbol, as far as it says so: a pattern says nothing.
    pub(crate) fn has(&self, symbol: &str) -> bool {
        let fits = |found: &String| found == symbol || !is_symbol(found);
        self.header.symbols.as_ref().is_none_or(|symbols| symbols.iter().any(fits))
    }

    /// Whether a frame has been played.
    pub(crate) fn has_begun(&self) -> bool {
        self.position.is_some()
    }

    /// Whether all frames have been played.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// When it was last moved, in milliseconds since the epoch by our clock.
    pub(crate) fn moved_at(&self) -> i64 {
        self.moved_at
    }

    /// Whether no recorded connection is open any more: then the end of one is an end for the clients too, else it was a
    /// change of connections and nothing was missed.
    pub(crate) fn is_unconnected(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes note of the time. The recording goes on by what has passed, unless it stands still.
    pub(crate) fn move_to(&mut self, now: i64, stands_still: bool) {
        let passed = (now - std::mem::replace(&mut self.moved_at, now)) as f64;
        if let Some(position) = self.position.as_mut().filter(|_| !stands_still) {
            *position += passed * self.speed;
        }
    }

    /// The next frame, when it is a reply that was recorded before anything came over a connection. It is due before somebody
    /// subscribes: who looks up what to subscribe to needs it.
    pub(crate) fn next_lookup(&mut self) -> Option<RawFrame> {
        if self.has_begun() {
            return None;
        }
        let frame = self.read()?;
        if matches!(frame.content, Content::Reply { .. }) {
            return Some(frame);
        }
        self.ahead = Some(frame);
        None
    }

    /// The next frame that is due; `None` when none is yet or the recording is over. The first one is due at once.
    pub(crate) fn next_due(&mut self) -> Option<RawFrame> {
        let frame = self.read()?;
        let at = frame.received_at as f64;
        if at > *self.position.get_or_insert(at) {
            self.ahead = Some(frame);
            return None;
        }
        match frame.content {
            Content::Text { connection, .. } => _ = self.open.insert(connection),
            Content::Closed { connection, .. } => _ = self.open.remove(&connection),
            Content::Binary { .. } | Content::Reply { .. } => {}
        }
        Some(frame)
    }

    fn read(&mut self) -> Option<RawFrame> {
        if self.ahead.is_some() {
            return self.ahead.take();
        }
        match self.frames.try_recv() {
            Ok(frame) => Some(frame),
            Err(mpsc::error::TryRecvError::Empty) => None,
            Err(mpsc::error::TryRecvError::Disconnected) => {
                self.is_over = true;
                None
            }
        }
    }
}
