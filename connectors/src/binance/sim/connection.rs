//! One client's WebSocket: moves frames, keeps the venue's limits and heartbeat.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::world::Command;
use crate::sim::client::{ClientId, End, Outgoing, WRITE_BATCH, write};

/// How many pings are remembered that were not answered.
const MOST_UNANSWERED: usize = 16;

/// A client's end of things.
pub(super) struct Connection {
    pub(super) id: ClientId,
    pub(super) socket: WebSocketStream<TcpStream>,
    pub(super) queue: mpsc::Receiver<Outgoing>,
    pub(super) world: mpsc::Sender<Command>,
    pub(super) limits: Limits,
    pub(super) messages_per_second: usize,
    /// The present at `started`, in milliseconds: the payload of pings.
    pub(super) epoch: i64,
    pub(super) started: Instant,
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
        let mut pace = Pace::new(self.messages_per_second);
        let mut heartbeat = Heartbeat::new(Instant::now());
        let mut pings = tokio::time::interval(self.limits.ping_every);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings.reset();
        let lifetime = tokio::time::sleep(self.limits.lifetime);
        tokio::pin!(lifetime);
        let mut batch = Vec::with_capacity(WRITE_BATCH);
        loop {
            if *self.frozen.borrow() && self.frozen.wait_for(|frozen| !frozen).await.is_err() {
                return End::Gone;
            }
            let outcome = tokio::select! {
                _ = self.frozen.changed() => Ok(()),
                message = self.socket.next() => match message {
                    Some(Ok(message)) => self.take(message, &mut pace, &mut heartbeat).await,
                    _ => Err(End::Gone),
                },
                _ = self.queue.recv_many(&mut batch, WRITE_BATCH) => write(&mut self.socket, &mut batch).await,
                _ = pings.tick() => self.ping(&mut heartbeat).await,
                () = &mut lifetime => Err(End::Close(1008, "disconnected after its lifetime".into())),
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    async fn take(&mut self, message: Message, pace: &mut Pace, heartbeat: &mut Heartbeat) -> Result<(), End> {
        let now = Instant::now();
        if !pace.allows(now) {
            return Err(End::Close(1008, "Too many requests".into()));
        }
        match message {
            Message::Text(text) => {
                let control = Command::Control { id: self.id, text: text.as_str().into() };
                self.world.send(control).await.map_err(|_| End::Gone)
            }
            Message::Pong(payload) => {
                heartbeat.answered(&payload, now);
                Ok(())
            }
            // The answer to a ping is already on its way out.
            Message::Ping(_) => self.socket.flush().await.map_err(|_| End::Gone),
            Message::Binary(_) | Message::Frame(_) => Err(End::Close(1008, "Invalid request".into())),
            Message::Close(_) => Err(End::Gone),
        }
    }

    async fn ping(&mut self, heartbeat: &mut Heartbeat) -> Result<(), End> {
        let now = Instant::now();
        if now.duration_since(heartbeat.last_answer) >= self.limits.pong_within {
            return Err(End::Close(1008, "Pong timeout".into()));
        }
        let clock = self.epoch + i64::try_from(now.duration_since(self.started).as_millis()).unwrap_or_default();
        let payload = Bytes::from(clock.to_string());
        heartbeat.asked(payload.clone());
        self.socket.send(Message::Ping(payload)).await.map_err(|_| End::Gone)
    }
}

/// Counts the messages of the last second.
#[derive(Debug)]
struct Pace {
    per_second: usize,
    recent: VecDeque<Instant>,
}

impl Pace {
    fn new(per_second: usize) -> Self {
        Self { per_second, recent: VecDeque::new() }
    }

    fn allows(&mut self, now: Instant) -> bool {
        if self.recent.len() >= self.per_second {
            let oldest = self.recent.pop_front();
            if oldest.is_some_and(|at| now.duration_since(at) < Duration::from_secs(1)) {
                return false;
            }
        }
        self.recent.push_back(now);
        true
    }
}

/// Knows when the client last answered a ping.
#[derive(Debug)]
struct Heartbeat {
    last_answer: Instant,
    /// Payloads that wait for an answer, oldest first.
    unanswered: VecDeque<Bytes>,
}

impl Heartbeat {
    fn new(now: Instant) -> Self {
        Self { last_answer: now, unanswered: VecDeque::new() }
    }

    fn asked(&mut self, payload: Bytes) {
        if self.unanswered.len() == MOST_UNANSWERED {
            self.unanswered.pop_front();
        }
        self.unanswered.push_back(payload);
    }

    /// A pong that copies no ping's payload was not asked for and does not count.
    fn answered(&mut self, payload: &Bytes, now: Instant) {
        if let Some(at) = self.unanswered.iter().position(|asked| asked == payload) {
            self.unanswered.drain(..=at);
            self.last_answer = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sixth_message_of_a_second_is_too_many() {
        let start = Instant::now();
        let mut pace = Pace::new(5);
        for ms in [0, 10, 20, 30, 999, 1000, 1011] {
            assert!(pace.allows(start + Duration::from_millis(ms)), "{ms}");
        }
        assert!(!pace.allows(start + Duration::from_millis(1019)));
    }

    #[test]
    fn only_a_pong_with_the_payload_of_a_ping_counts() {
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        let mut heartbeat = Heartbeat::new(start);
        heartbeat.asked(Bytes::from_static(b"1"));
        heartbeat.asked(Bytes::from_static(b"2"));
        heartbeat.answered(&Bytes::new(), later);
        assert_eq!(heartbeat.last_answer, start);
        heartbeat.answered(&Bytes::from_static(b"2"), later);
        assert_eq!((heartbeat.last_answer, heartbeat.unanswered.len()), (later, 0));
    }
}
