//! WebSocket framing, server side (RFC 6455 section 5), without a socket and without an idea of what is said.
//!
//! [`Decoder`] turns the bytes of a client into messages, on a buffer that connections share; the `put_` functions turn
//! messages into bytes. Stricter than the general libraries in one point: a length that is not in its shortest form is an error.

mod decode;
pub mod deflate;
mod encode;

pub use decode::{Decoder, FrameError, Incoming, Rules};
pub use encode::{put_binary, put_close, put_compressed_text, put_ping, put_pong, put_text};

/// Longest payload of a control frame (RFC 6455 section 5.5).
const MAX_CONTROL: u64 = 125;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xA,
}

impl Opcode {
    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

#[cfg(test)]
mod tests;
