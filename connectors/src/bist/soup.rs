//! SoupBinTCP: packets as bytes, and the client's side of a connection.
//!
//! A packet is a `u16` length (of type and payload, big-endian), a type byte and a payload.
//! Source: SoupBinTCP protocol specification 3.00.

mod client;

use std::fmt;

pub(crate) use client::{Client, Event};

use super::mold::SessionId;

/// Why bytes are no packets. Nothing that follows on the connection can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SoupError {
    /// A packet without a type.
    #[error("a packet has the length 0")]
    Empty,
    /// The payload of a login answer or refusal has the wrong length or is no number.
    #[error("a packet of the type {:?} is malformed", char::from(*.0))]
    Malformed(u8),
}

/// Cuts the bytes of a connection into packets.
#[derive(Debug, Default)]
pub struct Splitter {
    bytes: Vec<u8>,
    /// What lies before it has been given out.
    at: usize,
}

impl Splitter {
    /// Adds what was read. The packets that are whole have to be taken before more is added: then no more than one
    /// packet and one read are held.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole packet: its type and its payload. `None`: more has to be read first.
    ///
    /// # Errors
    ///
    /// [`SoupError::Empty`], and again on every further call.
    pub fn next_packet(&mut self) -> Result<Option<(u8, &[u8])>, SoupError> {
        let Some((length, rest)) = self.bytes[self.at..].split_first_chunk::<2>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes(*length));
        if length == 0 {
            return Err(SoupError::Empty);
        }
        let Some((packet, _)) = rest.split_at_checked(length) else { return Ok(None) };
        self.at += 2 + length;
        Ok(packet.split_first().map(|(&kind, payload)| (kind, payload)))
    }
}

/// Why a login was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// User and password are not known, or may not do this.
    NotAuthorised,
    /// There is no such session.
    NoSession,
}

/// What a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromServer<'a> {
    /// `+`: text for people.
    Debug,
    /// `A`: the login is accepted, and the next message has this number.
    Accepted {
        /// The session that is served.
        session: SessionId,
        /// Of the next message.
        next: u64,
    },
    /// `J`: the login is refused; the server closes.
    Refused(Refusal),
    /// `S`: a message; its number is the one before it plus 1.
    Sequenced(&'a [u8]),
    /// `U`: a message without a number.
    Unsequenced,
    /// `H`: nothing was said for a second.
    Heartbeat,
    /// `Z`: the session is over; the server closes.
    End,
    /// A type that is not in the specification.
    Unknown(u8),
}

impl<'a> FromServer<'a> {
    /// Reads a packet.
    ///
    /// # Errors
    ///
    /// [`SoupError::Malformed`] when an `A` or a `J` is not what it has to be.
    pub fn parse(kind: u8, payload: &'a [u8]) -> Result<Self, SoupError> {
        let malformed = SoupError::Malformed(kind);
        Ok(match (kind, payload) {
            (b'+', _) => Self::Debug,
            (b'A', _) => {
                let (session, number) = payload.split_first_chunk::<10>().ok_or(malformed)?;
                let next = number_from(number).ok_or(malformed)?;
                Self::Accepted { session: SessionId(*session).aligned(), next }
            }
            (b'J', b"A") => Self::Refused(Refusal::NotAuthorised),
            (b'J', b"S") => Self::Refused(Refusal::NoSession),
            (b'J', _) => return Err(malformed),
            (b'S', message) => Self::Sequenced(message),
            (b'U', _) => Self::Unsequenced,
            (b'H', _) => Self::Heartbeat,
            (b'Z', _) => Self::End,
            (unknown, _) => Self::Unknown(unknown),
        })
    }
}

/// What a client asks for when it logs in.
#[derive(Clone, PartialEq, Eq)]
pub struct LoginRequest {
    /// At most 6 characters.
    pub user: String,
    /// At most 10 characters.
    pub password: String,
    /// Blank: the running one.
    pub session: SessionId,
    /// The number of the first message wanted; 0: the next one that is new.
    pub next: u64,
}

/// Without the password.
impl fmt::Debug for LoginRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginRequest")
            .field("user", &self.user)
            .field("session", &self.session)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl LoginRequest {
    /// As it is sent, type `L`.
    pub fn encode(&self) -> Vec<u8> {
        let Self { user, password, session, next } = self;
        let mut payload = format!("{user:<6.6}{password:<10.10}").into_bytes();
        payload.extend_from_slice(&session.0);
        payload.extend_from_slice(format!("{next:>20}").as_bytes());
        packet(b'L', &payload)
    }

    /// Reads the payload of an `L`; `None` when it is not one.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (user, rest) = payload.split_at_checked(6)?;
        let (password, rest) = rest.split_at_checked(10)?;
        let (session, next) = rest.split_first_chunk::<10>()?;
        let text = |bytes: &[u8]| std::str::from_utf8(bytes.trim_ascii_end()).ok().map(str::to_owned);
        Some(Self {
            user: text(user)?,
            password: text(password)?,
            session: SessionId(*session).aligned(),
            next: number_from(next)?,
        })
    }
}

/// Twenty characters, filled up with spaces.
fn number_from(text: &[u8]) -> Option<u64> {
    if text.len() != 20 {
        return None;
    }
    std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

/// Writes a packet. A payload that is too long for one is cut; no message of ITCH comes near that.
pub fn packet(kind: u8, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(usize::from(u16::MAX) - 1)];
    let length = u16::try_from(payload.len() + 1).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(payload.len() + 3);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(payload);
    bytes
}

/// Writes an `A`.
pub fn accepted(session: SessionId, next: u64) -> Vec<u8> {
    let session = String::from_utf8_lossy(session.trimmed()).into_owned();
    packet(b'A', format!("{session:>10}{next:>20}").as_bytes())
}

/// Reads pieces as the bytes of one connection, until one of them ends it.
#[cfg(any(fuzzing, test))]
pub(super) fn fuzz_client(pieces: &[&[u8]]) {
    let now = std::time::Instant::now();
    let mut client = Client::new(now);
    for piece in pieces {
        client.on_bytes(piece, now);
        loop {
            match client.event() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests;
