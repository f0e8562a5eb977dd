//! One client's WebSocket: moves frames, keeps the venue's heartbeat.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::clients::{ClientId, Outgoing};
use super::world::Command;
use crate::sim::listener::{close, half};

/// How many frames are written at once.
const WRITE_BATCH: usize = 256;

/// A client's end of things.
pub(super) struct Connection {
    pub(super) id: ClientId,
    pub(super) socket: WebSocketStream<TcpStream>,
    pub(super) queue: mpsc::Receiver<Outgoing>,
    pub(super) world: mpsc::Sender<Command>,
    pub(super) limits: Limits,
    /// True while nothing is to move.
    pub(super) frozen: watch::Receiver<bool>,
}

/// How a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// It is closed in order.
    Close(u16, String),
    /// It is reset.
    Reset,
    /// It has ended by itself.
    Gone,
}

impl Connection {
    /// Serves the client until it goes, is sent away or is cut.
    pub(super) async fn run(mut self, cut: CancellationToken, cancel: CancellationToken) {
        let end = tokio::select! {
            // A cut client's queue has ended too, and so has everyone's when the world has stopped.
            biased;
            () = cut.cancelled() => End::Reset,
            () = cancel.cancelled() => End::Close(1001, String::new()),
            end = self.serve() => end,
        };
        // The world may have stopped first; then there is nobody to tell.
        let _ = self.world.send(Command::Leave { id: self.id }).await;
        match end {
            End::Close(code, reason) => close(&mut self.socket, code, reason).await,
            // Without lingering, dropping the socket resets the connection.
            End::Reset => _ = self.socket.get_ref().set_zero_linger(),
            End::Gone => {}
        }
    }

    async fn serve(&mut self) -> End {
        let mut pings = tokio::time::interval(self.limits.ping_every);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings.reset();
        let mut pong_by = Instant::now() + self.limits.pong_within;
        let mut batch = Vec::with_capacity(WRITE_BATCH);
        loop {
            if *self.frozen.borrow() && self.frozen.wait_for(|frozen| !frozen).await.is_err() {
                return End::Gone;
            }
            let outcome = tokio::select! {
                _ = self.frozen.changed() => Ok(()),
                message = self.socket.next() => match message {
                    Some(Ok(Message::Pong(_))) => {
                        pong_by = Instant::now() + self.limits.pong_within;
                        Ok(())
                    }
                    Some(Ok(message)) => self.take(message).await,
                    _ => Err(End::Gone),
                },
                _ = self.queue.recv_many(&mut batch, WRITE_BATCH) => self.write(&mut batch).await,
                _ = pings.tick() => self.socket.send(Message::Ping(Bytes::new())).await.map_err(|_| End::Gone),
                () = sleep_until(pong_by) => Err(End::Close(1000, String::new())),
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    async fn take(&mut self, message: Message) -> Result<(), End> {
        match message {
            Message::Text(text) => {
                let command = Command::Text { id: self.id, text: text.as_str().into() };
                self.world.send(command).await.map_err(|_| End::Gone)
            }
            // The answer to a ping is already on its way out.
            Message::Ping(_) => self.socket.flush().await.map_err(|_| End::Gone),
            // Passed over in silence, as everything that is not understood.
            Message::Binary(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
            Message::Close(_) => Err(End::Gone),
        }
    }

    async fn write(&mut self, batch: &mut Vec<Outgoing>) -> Result<(), End> {
        if batch.is_empty() {
            return Err(End::Gone);
        }
        for outgoing in batch.drain(..) {
            match outgoing {
                Outgoing::Text(text) => self.socket.feed(Message::Text(text)).await.map_err(|_| End::Gone)?,
                Outgoing::Half(text) => {
                    self.socket.flush().await.map_err(|_| End::Gone)?;
                    let bytes = half(text.as_bytes());
                    self.socket.get_mut().write_all(&bytes).await.map_err(|_| End::Gone)?;
                    return Err(End::Gone);
                }
                Outgoing::Close(code, reason) => return Err(End::Close(code, reason)),
            }
        }
        self.socket.flush().await.map_err(|_| End::Gone)
    }
}
