//! Frames on their way out.

use std::io;
use std::time::Instant;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::frame::{put_batch, put_texts};

/// Whole frames, and how much of them has left. Filled again only when all of it has, so it holds one write and a few control frames.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    stuck_since: Option<Instant>,
}

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Since when the socket takes nothing of it.
    pub(super) fn stuck_since(&self) -> Option<Instant> {
        self.stuck_since
    }

    /// Adds whole frames behind those that wait.
    pub(super) fn put(&mut self, add: impl FnOnce(&mut Vec<u8>)) {
        add(&mut self.bytes);
    }

    /// Adds envelopes, packed or each in a frame of its own. Gives how many bytes wait.
    pub(super) fn put_envelopes(&mut self, envelopes: &[Bytes], is_packed: bool) -> usize {
        if is_packed {
            put_batch(&mut self.bytes, envelopes);
        } else {
            put_texts(&mut self.bytes, envelopes);
        }
        self.bytes.len() - self.sent
    }

    /// Writes as much as the socket takes now. Gives how much that was.
    pub(super) fn flush(&mut self, stream: &TcpStream, now: Instant) -> io::Result<usize> {
        let before = self.sent;
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match stream.try_write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.sent += written;
                    self.stuck_since = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stuck_since.get_or_insert(now);
                    return Ok(self.sent - before);
                }
                Err(error) => return Err(error),
            }
        }
        let written = self.sent - before;
        // A quiet connection holds no buffer.
        *self = Self::default();
        Ok(written)
    }

    /// Writes all of it, however long that takes.
    pub(super) async fn write_out(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        let rest = self.bytes.get(self.sent..).unwrap_or_default();
        stream.write_all(rest).await?;
        *self = Self::default();
        Ok(())
    }
}
