//! The client's side of a connection, plain and synchronous: bytes and the time in, events and bytes out.

use std::time::{Duration, Instant};

use super::{FromServer, Refusal, SoupError, Splitter, packet};
use crate::bist::mold::SessionId;

/// A client that said nothing for so long sends a heartbeat. The server waits for 15 s.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A server that said nothing for so long is gone: it sends a heartbeat after every second of silence.
const SILENCE: Duration = Duration::from_secs(3);

/// What happens on a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The login was accepted; the next message has this number.
    Accepted { session: SessionId, next: u64 },
    /// The login was refused.
    Refused(Refusal),
    /// A message with its number.
    Message(u64, Vec<u8>),
    /// The server has nothing to say; the next message has this number.
    Heartbeat(u64),
    /// The session is over; the next message would have had this number.
    End(u64),
}

/// One connection, from the login on.
#[derive(Debug)]
pub(crate) struct Client {
    splitter: Splitter,
    /// The number of the next message; `None` before the login is accepted.
    next: Option<u64>,
    heard_at: Instant,
    said_at: Instant,
}

impl Client {
    /// A connection on which the login has just been sent.
    pub(crate) fn new(now: Instant) -> Self {
        Self { splitter: Splitter::default(), next: None, heard_at: now, said_at: now }
    }

    /// Takes what was read. [`Client::event`] has to be asked until it gives nothing.
    pub(crate) fn on_bytes(&mut self, bytes: &[u8], now: Instant) {
        self.heard_at = now;
        self.splitter.push(bytes);
    }

    /// What happened next.
    pub(crate) fn event(&mut self) -> Result<Option<Event>, SoupError> {
        while let Some((kind, payload)) = self.splitter.next_packet()? {
            let event = match (FromServer::parse(kind, payload)?, self.next) {
                (FromServer::Accepted { session, next }, None) => {
                    self.next = Some(next);
                    Event::Accepted { session, next }
                }
                (FromServer::Refused(refusal), None) => Event::Refused(refusal),
                (FromServer::Sequenced(message), Some(number)) => {
                    self.next = Some(number.saturating_add(1));
                    Event::Message(number, message.to_vec())
                }
                (FromServer::Heartbeat, Some(number)) => Event::Heartbeat(number),
                (FromServer::End, next) => Event::End(next.unwrap_or(0)),
                // A second answer to a login, or a message before it, is none that could be right.
                (FromServer::Accepted { .. } | FromServer::Refused(_), Some(_)) | (FromServer::Sequenced(_), None) => {
                    return Err(SoupError::Malformed(kind));
                }
                (FromServer::Debug | FromServer::Unsequenced | FromServer::Unknown(_), _)
                | (FromServer::Heartbeat, None) => continue,
            };
            return Ok(Some(event));
        }
        Ok(None)
    }

    /// What to send now, if anything.
    pub(crate) fn say(&mut self, now: Instant) -> Option<Vec<u8>> {
        (now >= self.said_at + HEARTBEAT).then(|| {
            self.said_at = now;
            packet(b'R', &[])
        })
    }

    /// Whether the server has been silent for too long.
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        now >= self.heard_at + SILENCE
    }

    /// Forgives the silence of a server that nobody listened to.
    pub(crate) fn listened(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// When to ask [`Client::say`] and [`Client::is_silent`] again.
    pub(crate) fn due(&self) -> Instant {
        (self.said_at + HEARTBEAT).min(self.heard_at + SILENCE)
    }
}
