//! One client's WebSocket: moves frames, keeps the venue's heartbeat.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::world::Command;
use crate::sim::client::{ClientId, End, Outgoing, WRITE_BATCH, write};

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
        end.carry_out(self.socket).await;
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
                _ = self.queue.recv_many(&mut batch, WRITE_BATCH) => write(&mut self.socket, &mut batch).await,
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
}
