//! A client of a stand-in: what waits for it, and how its connection ends.

use futures_util::SinkExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::listener::{close, half};

/// How many frames may wait for a client; one that is further behind is cut.
pub(crate) const QUEUE_FRAMES: usize = 8192;

/// How many frames are written at once.
pub(crate) const WRITE_BATCH: usize = 256;

/// Names a client.
pub(crate) type ClientId = u64;

/// What a client's connection has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// Send a text frame.
    Text(Utf8Bytes),
    /// Send the first half of this text's frame, and end.
    Half(Utf8Bytes),
    /// Close with this code and reason.
    Close(u16, String),
}

/// How a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// It is closed in order.
    Close(u16, String),
    /// It is reset.
    Reset,
    /// It has ended by itself.
    Gone,
}

impl End {
    /// Ends the connection.
    pub(crate) async fn carry_out(self, mut socket: WebSocketStream<TcpStream>) {
        match self {
            Self::Close(code, reason) => close(&mut socket, code, reason).await,
            // Without lingering, dropping the socket resets the connection.
            Self::Reset => _ = socket.get_ref().set_zero_linger(),
            Self::Gone => {}
        }
    }
}

/// Writes what waits for a client; nothing does when nobody sends to it any more.
pub(crate) async fn write(socket: &mut WebSocketStream<TcpStream>, batch: &mut Vec<Outgoing>) -> Result<(), End> {
    if batch.is_empty() {
        return Err(End::Gone);
    }
    for outgoing in batch.drain(..) {
        match outgoing {
            Outgoing::Text(text) => socket.feed(Message::Text(text)).await.map_err(|_| End::Gone)?,
            Outgoing::Half(text) => {
                socket.flush().await.map_err(|_| End::Gone)?;
                socket.get_mut().write_all(&half(text.as_bytes())).await.map_err(|_| End::Gone)?;
                return Err(End::Gone);
            }
            Outgoing::Close(code, reason) => return Err(End::Close(code, reason)),
        }
    }
    socket.flush().await.map_err(|_| End::Gone)
}
