//! What comes in from a venue, before anybody has looked into it.

/// One thing that came in from a venue, in the order in which the connector read it.
///
/// A recording is a series of these, and a mapper takes nothing else: what was recorded replays without a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    /// When the connector read it: milliseconds since the epoch by this machine's clock. Never falls.
    pub received_at: i64,
    /// What it was.
    pub content: Content,
}

/// The kinds of things that come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A text frame.
    Text {
        /// Counts the connections of a session from 1; numbers are not used again.
        connection: u32,
        /// Exactly as it came.
        text: String,
    },
    /// A binary frame, a datagram, or the bytes of one TCP read.
    Binary {
        /// See [`Content::Text`].
        connection: u32,
        /// Exactly as it came.
        bytes: Vec<u8>,
    },
    /// A REST reply.
    Reply {
        /// Path and query as asked, `/api/v3/depth?symbol=BTCUSDT&limit=1000`.
        target: String,
        /// The HTTP status.
        status: u16,
        /// The body.
        body: String,
    },
    /// A connection ended.
    Closed {
        /// See [`Content::Text`].
        connection: u32,
        /// The close code, 1006 when there was none.
        code: u16,
    },
}
