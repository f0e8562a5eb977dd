//! Expands compressed messages on their way in, for a client library that knows no compression.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use flate2::{Decompress, FlushDecompress};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What ends a message and is left out on the wire (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];

/// Bytes of one read.
const READ_BYTES: usize = 16 << 10;

/// A socket behind which no frame is compressed. Expects that each message is compressed on its own (`server_no_context_takeover`).
pub(crate) struct Inflating {
    socket: TcpStream,
    /// What came and has not been understood: half a head, half a frame.
    raw: Vec<u8>,
    /// What may be read, up to `read` already.
    ready: Vec<u8>,
    read: usize,
    /// Whether the answer to the handshake has passed.
    is_open: bool,
}

impl Inflating {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self { socket, raw: Vec::new(), ready: Vec::new(), read: 0, is_open: false }
    }

    /// Moves what is whole of what came to what may be read.
    fn expand(&mut self) -> io::Result<()> {
        if !self.is_open {
            let Some(at) = self.raw.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(()) };
            self.is_open = self.raw.starts_with(b"HTTP/1.1 101");
            // A refusal has no frames behind it.
            let len = if self.is_open { at + 4 } else { self.raw.len() };
            self.ready.extend(self.raw.drain(..len));
        }
        while let Some((head_len, len)) = frame_len(&self.raw).filter(|(head, len)| head + len <= self.raw.len()) {
            let frame: Vec<u8> = self.raw.drain(..head_len + len).collect();
            let (head, payload) = frame.split_at(head_len);
            match head.first() {
                Some(first) if first & 0x40 != 0 => {
                    let message = inflate(payload)?;
                    self.ready.extend([first & !0x40, 127]);
                    self.ready.extend((message.len() as u64).to_be_bytes());
                    self.ready.extend(message);
                }
                _ => self.ready.extend(frame),
            }
        }
        Ok(())
    }
}

/// The lengths of the head and the payload of a server's frame.
fn frame_len(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes {
        [_, 127, a, b, c, d, e, f, g, h, ..] => {
            Some((10, usize::try_from(u64::from_be_bytes([a, b, c, d, e, f, g, h])).ok()?))
        }
        [_, 126, a, b, ..] => Some((4, u16::from_be_bytes([a, b]).into())),
        [_, len @ 0..=125, ..] => Some((2, len.into())),
        _ => None,
    }
}

fn inflate(payload: &[u8]) -> io::Result<Vec<u8>> {
    let mut decompress = Decompress::new(false);
    let input = [payload, &TAIL].concat();
    let mut message = Vec::new();
    while decompress.total_in() < input.len() as u64 {
        message.reserve(READ_BYTES.max(4 * payload.len()));
        let rest = input.get(decompress.total_in() as usize..).unwrap_or_default();
        decompress.decompress_vec(rest, &mut message, FlushDecompress::Sync).map_err(io::Error::other)?;
    }
    Ok(message)
}

impl AsyncRead for Inflating {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.read == self.ready.len() {
            (self.ready, self.read) = (Vec::new(), 0);
            let mut chunk = [0; READ_BYTES];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.raw.extend_from_slice(chunk.filled());
            self.expand()?;
        }
        let rest = self.ready.get(self.read..).unwrap_or_default();
        let len = rest.len().min(out.remaining());
        out.put_slice(rest.get(..len).unwrap_or_default());
        self.read += len;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Inflating {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
