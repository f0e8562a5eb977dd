//! MoldUDP64: downstream packets and requests, as bytes.
//!
//! A packet is a header of 20 bytes (session 10, sequence 8, count 2; big-endian) and `count` blocks of a `u16`
//! length and a message. Source: MoldUDP64 protocol specification 1.00.

use std::fmt;

/// What every packet begins with; a request is nothing else.
pub const HEADER_BYTES: usize = 20;

/// The count of a packet that ends the session.
const END: u16 = u16::MAX;

/// The most messages in a packet.
pub const MOST_MESSAGES: u16 = END - 1;

/// The name of a session, such as `TR29620650`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub [u8; 10]);

impl SessionId {
    /// A name of at most ten characters, filled up with spaces; what is longer is cut.
    pub fn new(name: &str) -> Self {
        let mut bytes = [b' '; 10];
        bytes.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        Self(bytes)
    }

    /// The name with its spaces behind it, as MoldUDP64 has it: SoupBinTCP fills up from the left.
    pub fn aligned(self) -> Self {
        let mut bytes = [b' '; 10];
        bytes.iter_mut().zip(self.trimmed()).for_each(|(to, from)| *to = *from);
        Self(bytes)
    }

    /// The name without the spaces around it.
    pub fn trimmed(&self) -> &[u8] {
        self.0.trim_ascii()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.trimmed().escape_ascii())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// Why bytes are no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoldError {
    /// Shorter than a header.
    #[error("{0} bytes are no MoldUDP64 header")]
    Short(usize),
    /// The blocks end before the count is reached.
    #[error("the packet is cut in message {0}")]
    Cut(u16),
    /// Something follows the last block.
    #[error("{0} bytes follow the last message")]
    Trailing(usize),
    /// The last sequence would be beyond what a `u64` holds.
    #[error("the sequence is out of range")]
    Sequence,
}

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No messages; the sequence is that of the next one.
    Heartbeat,
    /// So many messages, at least one.
    Messages(u16),
    /// The session is over; the sequence is one above its last message's.
    End,
}

/// A downstream packet that was checked: its blocks are whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The session.
    pub session: SessionId,
    /// Of the first message, or of the next one where there is none.
    pub sequence: u64,
    /// What it is.
    pub kind: Kind,
    blocks: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Checks a whole packet.
    ///
    /// # Errors
    ///
    /// [`MoldError`] when it is not one, exactly as long as it says.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, MoldError> {
        let Some((header, blocks)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(MoldError::Short(bytes.len()));
        };
        let (session, sequence, count) = split_header(header);
        let kind = match count {
            0 => Kind::Heartbeat,
            END => Kind::End,
            count => Kind::Messages(count),
        };
        let packet = Self { session, sequence, kind, blocks };
        sequence.checked_add(packet.count().into()).ok_or(MoldError::Sequence)?;
        let mut rest = blocks;
        for number in 0..packet.count() {
            rest = split_block(rest).ok_or(MoldError::Cut(number))?.1;
        }
        if rest.is_empty() { Ok(packet) } else { Err(MoldError::Trailing(rest.len())) }
    }

    /// How many messages it has.
    pub fn count(&self) -> u16 {
        match self.kind {
            Kind::Heartbeat | Kind::End => 0,
            Kind::Messages(count) => count,
        }
    }

    /// The sequence after its last message.
    pub fn next_sequence(&self) -> u64 {
        self.sequence + u64::from(self.count())
    }

    /// Its messages in order.
    pub fn messages(&self) -> Messages<'a> {
        Messages { blocks: self.blocks }
    }

    /// The same packet without its messages below `sequence`, as bytes; `None` when nothing is left.
    pub fn from_sequence(&self, sequence: u64) -> Option<Vec<u8>> {
        let skip = sequence.saturating_sub(self.sequence);
        let left = u64::from(self.count()).checked_sub(skip).filter(|&left| left > 0)?;
        let rest = (0..skip).try_fold(self.blocks, |rest, _| Some(split_block(rest)?.1))?;
        let mut bytes = header(self.session, self.sequence + skip, u16::try_from(left).ok()?).to_vec();
        bytes.extend_from_slice(rest);
        Some(bytes)
    }

    /// The same packet without its messages from `sequence` on, as bytes; `None` when nothing is left.
    pub fn until_sequence(&self, sequence: u64) -> Option<Vec<u8>> {
        let keep = sequence.saturating_sub(self.sequence).min(self.count().into());
        let keep = u16::try_from(keep).ok().filter(|&keep| keep > 0)?;
        let rest = (0..keep).try_fold(self.blocks, |rest, _| Some(split_block(rest)?.1))?;
        let mut bytes = header(self.session, self.sequence, keep).to_vec();
        bytes.extend_from_slice(&self.blocks[..self.blocks.len() - rest.len()]);
        Some(bytes)
    }
}

/// The messages of a packet.
#[derive(Debug, Clone)]
pub struct Messages<'a> {
    blocks: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (message, rest) = split_block(self.blocks)?;
        self.blocks = rest;
        Some(message)
    }
}

fn split_block(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(u16::from_be_bytes(*length).into())
}

fn split_header(bytes: &[u8; HEADER_BYTES]) -> (SessionId, u64, u16) {
    let (mut session, mut sequence, mut count) = ([0; 10], [0; 8], [0; 2]);
    session.copy_from_slice(&bytes[..10]);
    sequence.copy_from_slice(&bytes[10..18]);
    count.copy_from_slice(&bytes[18..]);
    (SessionId(session), u64::from_be_bytes(sequence), u16::from_be_bytes(count))
}

fn header(session: SessionId, sequence: u64, count: u16) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..10].copy_from_slice(&session.0);
    bytes[10..18].copy_from_slice(&sequence.to_be_bytes());
    bytes[18..].copy_from_slice(&count.to_be_bytes());
    bytes
}

/// A packet without messages: `next_sequence` is the one to come.
pub fn heartbeat(session: SessionId, next_sequence: u64) -> [u8; HEADER_BYTES] {
    header(session, next_sequence, 0)
}

/// The packet that ends a session: `next_sequence` is one above its last message's.
pub fn end_of_session(session: SessionId, next_sequence: u64) -> [u8; HEADER_BYTES] {
    header(session, next_sequence, END)
}

/// A request to the rewinder; the answer is one downstream packet with as many of the messages as fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The session.
    pub session: SessionId,
    /// The first message that is wanted.
    pub sequence: u64,
    /// How many are wanted.
    pub count: u16,
}

impl Request {
    /// As it is sent.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        header(self.session, self.sequence, self.count)
    }

    /// Reads what a client sent.
    ///
    /// # Errors
    ///
    /// [`MoldError`] when it is not exactly a header.
    pub fn parse(bytes: &[u8]) -> Result<Self, MoldError> {
        match bytes.split_first_chunk::<HEADER_BYTES>() {
            None => Err(MoldError::Short(bytes.len())),
            Some((header, [])) => {
                let (session, sequence, count) = split_header(header);
                Ok(Self { session, sequence, count })
            }
            Some((_, rest)) => Err(MoldError::Trailing(rest.len())),
        }
    }
}

/// Fills one packet with messages.
#[derive(Debug)]
pub struct Builder {
    bytes: Vec<u8>,
    count: u16,
    limit: usize,
}

impl Builder {
    /// A packet of at most `limit` bytes whose first message is `sequence`.
    pub fn new(session: SessionId, sequence: u64, limit: usize) -> Self {
        Self { bytes: header(session, sequence, 0).to_vec(), count: 0, limit }
    }

    /// Adds a message; `false` when it does not fit any more. A first message always fits.
    pub fn push(&mut self, message: &[u8]) -> bool {
        let Ok(length) = u16::try_from(message.len()) else { return false };
        let is_full = self.count == MOST_MESSAGES || self.bytes.len() + 2 + message.len() > self.limit;
        if self.count > 0 && is_full {
            return false;
        }
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(message);
        self.count += 1;
        true
    }

    /// How many messages it has.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// The packet; a heartbeat when nothing was added.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes[18..HEADER_BYTES].copy_from_slice(&self.count.to_be_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests;
