//! Every message of a session, by its number: what lines, rewinder and SoupBinTCP are served from.

use crate::bist::mold::{self, Builder, SessionId};

/// How many bytes of messages are kept: some hours of a lively stand-in. The oldest go first.
const MOST_BYTES: usize = 64 << 20;

/// The messages of one session.
#[derive(Debug)]
pub(super) struct Tape {
    session: SessionId,
    /// The number of the first message that is kept.
    first: u64,
    bytes: Vec<u8>,
    /// Where each message ends.
    ends: Vec<usize>,
    over: bool,
}

impl Tape {
    pub(super) fn new(session: SessionId) -> Self {
        Self { session, first: 1, bytes: Vec::new(), ends: Vec::new(), over: false }
    }

    pub(super) fn session(&self) -> SessionId {
        self.session
    }

    /// The number of the oldest message that is kept.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The number of the message to come.
    pub(super) fn next(&self) -> u64 {
        self.first + self.ends.len() as u64
    }

    /// Whether nothing comes any more.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn end(&mut self) {
        self.over = true;
    }

    /// Goes on at another number, as a recording with a hole does: what came before is forgotten.
    pub(super) fn skip_to(&mut self, number: u64) {
        *self = Self { first: number, ..Self::new(self.session) };
    }

    pub(super) fn push(&mut self, message: &[u8]) {
        if self.bytes.len() + message.len() > MOST_BYTES {
            self.forget(self.ends.len().div_ceil(4));
        }
        self.bytes.extend_from_slice(message);
        self.ends.push(self.bytes.len());
    }

    fn forget(&mut self, messages: usize) {
        let Some(&cut) = messages.checked_sub(1).and_then(|last| self.ends.get(last)) else { return };
        self.bytes.drain(..cut);
        self.ends.drain(..messages);
        self.ends.iter_mut().for_each(|end| *end -= cut);
        self.first += messages as u64;
    }

    /// The message with this number.
    pub(super) fn get(&self, number: u64) -> Option<&[u8]> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let end = *self.ends.get(at)?;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.bytes.get(start..end)
    }

    /// A packet with as many of the messages from `number` on as are there and fit.
    pub(super) fn packet(&self, number: u64, most: u64, limit: usize) -> Vec<u8> {
        let mut packet = Builder::new(self.session, number, limit);
        for number in number..number.saturating_add(most.min(mold::MOST_MESSAGES.into())) {
            if !self.get(number).is_some_and(|message| packet.push(message)) {
                break;
            }
        }
        packet.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bist::mold::Packet;

    #[test]
    fn messages_are_found_by_number_and_packed_as_they_fit() {
        let mut tape = Tape::new(SessionId::new("S"));
        (1..=100u8).for_each(|n| tape.push(&[n; 30]));
        assert_eq!((tape.first(), tape.next()), (1, 101));
        assert_eq!(tape.get(7), Some(&[7; 30][..]));
        assert_eq!((tape.get(0), tape.get(101)), (None, None));
        let bytes = tape.packet(5, 80, 1440);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.sequence, packet.count()), (5, 44));
        tape.forget(10);
        assert_eq!((tape.first(), tape.get(10), tape.get(11)), (11, None, Some(&[11; 30][..])));
        tape.skip_to(500);
        assert_eq!((tape.get(11), tape.next()), (None, 500));
    }
}
