//! Faults on demand: what `POST /sim/fault` takes, and what they do to packets.

use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::bist::mold::HEADER_BYTES;

/// How far off a wrong sequence is.
const WRONG_BY: u64 = 1 << 40;

/// A session that there never was.
const WRONG_SESSION: &[u8; 10] = b"WRONGWRONG";

/// A fault, as the body of `POST /sim/fault` names it: `{"fault":"loss","line":"both","packets":3}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// The next packets with messages are not sent.
    Loss {
        /// On which line.
        line: Line,
        /// How many.
        packets: u32,
    },
    /// The next packets with messages are sent twice.
    Duplicate {
        /// On which line.
        line: Line,
        /// How many.
        packets: u32,
    },
    /// The next packets with messages are sent together, the last one first.
    Reorder {
        /// On which line.
        line: Line,
        /// How many.
        packets: u32,
    },
    /// The next packets with messages are sent late.
    Delay {
        /// On which line.
        line: Line,
        /// How many.
        packets: u32,
        /// How late, in milliseconds.
        ms: u64,
    },
    /// Of the next packet with messages only half is sent.
    HalfPacket {
        /// On which line.
        line: Line,
    },
    /// The next packet with messages has a sequence far ahead.
    WrongSequence {
        /// On which line.
        line: Line,
    },
    /// The next packet with messages names a session that there is not.
    WrongSession {
        /// On which line.
        line: Line,
    },
    /// A line sends nothing for a while, heartbeats included; absent: nor does anything else.
    Silence {
        /// Which line.
        line: Option<Line>,
        /// How long, in milliseconds.
        ms: u64,
    },
    /// The next requests are not answered by the rewinder.
    RewinderLoss {
        /// How many.
        requests: u32,
    },
    /// The next logins are refused, at SoupBinTCP and at GLIMPSE.
    RefuseLogin {
        /// How many.
        times: u32,
        /// Whether for the session, or for who asks.
        reason: RefusalReason,
    },
    /// The next snapshots end without their last message.
    GlimpseDies {
        /// How many snapshots.
        times: u32,
        /// After how many messages.
        messages: usize,
    },
    /// The next snapshots come byte by byte.
    SlowLoris {
        /// How many snapshots.
        times: u32,
    },
    /// Every SoupBinTCP connection is cut.
    Cut {},
    /// Every SoupBinTCP connection is cut in the middle of a message.
    HalfMessage {},
    /// The next message is of a type that no specification has: exchanges add types without asking. A recording is played
    /// as it is.
    UnknownMessage {},
    /// The session ends now and the next one begins.
    NewSession {},
    /// From now on the exchange's clock is off by this much: the seconds that it tells.
    ClockSkew {
        /// Milliseconds to add.
        ms: i64,
    },
    /// So many instruments more are listed, in the middle of the day.
    NewSymbols {
        /// How many.
        count: usize,
    },
}

/// A line, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The first copy.
    A,
    /// The second copy.
    B,
    /// Both at once.
    Both,
}

impl Line {
    /// The places of the lines that are meant, A before B.
    pub(super) fn places(self) -> &'static [usize] {
        match self {
            Self::A => &[0],
            Self::B => &[1],
            Self::Both => &[0, 1],
        }
    }
}

/// Why a login is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// `A`
    NotAuthorised,
    /// `S`
    NoSession,
}

/// What is wrong with one line.
#[derive(Debug, Default)]
pub(super) struct Faulty {
    pub(super) loss: u32,
    pub(super) duplicate: u32,
    /// How many packets are held back until they are sent in the wrong order.
    pub(super) reorder: u32,
    pub(super) delay: (u32, Duration),
    pub(super) half: bool,
    pub(super) wrong_sequence: bool,
    pub(super) wrong_session: bool,
    pub(super) silent_until: Option<Instant>,
    turned: Vec<Vec<u8>>,
    late: Vec<(Instant, Vec<u8>)>,
}

impl Faulty {
    /// What is sent in place of a packet, now.
    pub(super) fn pass(&mut self, packet: Vec<u8>, now: Instant) -> Vec<Vec<u8>> {
        let has_messages = packet.get(18..HEADER_BYTES).is_some_and(|count| count != [0, 0] && count != [255, 255]);
        if self.silent_until.is_some_and(|until| now < until) {
            return Vec::new();
        }
        if !has_messages {
            return vec![packet];
        }
        if take(&mut self.loss) {
            return Vec::new();
        }
        let packet = self.damaged(packet);
        if take(&mut self.delay.0) {
            self.late.push((now + self.delay.1, packet));
            return Vec::new();
        }
        if take(&mut self.reorder) {
            self.turned.push(packet);
            if self.reorder > 0 {
                return Vec::new();
            }
            self.turned.reverse();
            return std::mem::take(&mut self.turned);
        }
        if take(&mut self.duplicate) { vec![packet.clone(), packet] } else { vec![packet] }
    }

    fn damaged(&mut self, mut packet: Vec<u8>) -> Vec<u8> {
        if std::mem::take(&mut self.half) {
            packet.truncate(packet.len() / 2);
        } else if std::mem::take(&mut self.wrong_sequence) {
            let (_, sequence) = packet.split_at_mut(10);
            if let Some(sequence) = sequence.first_chunk_mut::<8>() {
                *sequence = u64::from_be_bytes(*sequence).wrapping_add(WRONG_BY).to_be_bytes();
            }
        } else if std::mem::take(&mut self.wrong_session) {
            packet[..10].copy_from_slice(WRONG_SESSION);
        }
        packet
    }

    /// What was delayed until now.
    pub(super) fn late(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let (due, later) = std::mem::take(&mut self.late).into_iter().partition(|(at, _)| *at <= now);
        self.late = later;
        let due: Vec<(Instant, Vec<u8>)> = due;
        due.into_iter().map(|(_, packet)| packet).collect()
    }
}

/// Takes one off, if there is one.
pub(super) fn take(count: &mut u32) -> bool {
    let has_one = *count > 0;
    *count -= u32::from(has_one);
    has_one
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bist::mold::{Builder, Packet, SessionId, heartbeat};

    const SESSION: SessionId = SessionId(*b"TR26112401");

    fn packet(sequence: u64) -> Vec<u8> {
        let mut packet = Builder::new(SESSION, sequence, 1440);
        packet.push(b"hello");
        packet.finish()
    }

    fn sequences(packets: &[Vec<u8>]) -> Vec<u64> {
        packets.iter().map(|packet| Packet::parse(packet).unwrap().sequence).collect()
    }

    #[test]
    fn each_fault_does_what_it_says_once() {
        let now = Instant::now();
        let mut line = Faulty { loss: 1, ..Faulty::default() };
        assert_eq!(line.pass(heartbeat(SESSION, 1).to_vec(), now).len(), 1, "heartbeats are not counted");
        assert!(sequences(&line.pass(packet(1), now)).is_empty());
        line.duplicate = 1;
        assert_eq!(sequences(&line.pass(packet(2), now)), [2, 2]);
        line.reorder = 2;
        assert!(sequences(&line.pass(packet(3), now)).is_empty());
        assert_eq!(sequences(&line.pass(packet(4), now)), [4, 3]);
        line.delay = (1, Duration::from_secs(1));
        assert!(sequences(&line.pass(packet(5), now)).is_empty());
        assert!(sequences(&line.late(now)).is_empty());
        assert_eq!(sequences(&line.late(now + Duration::from_secs(1))), [5]);
        line.half = true;
        assert!(Packet::parse(&line.pass(packet(6), now)[0]).is_err());
        line.wrong_sequence = true;
        assert_eq!(sequences(&line.pass(packet(7), now)), [WRONG_BY + 7]);
        line.wrong_session = true;
        assert_eq!(Packet::parse(&line.pass(packet(8), now)[0]).unwrap().session, SessionId(*WRONG_SESSION));
        line.silent_until = Some(now + Duration::from_secs(1));
        assert_eq!(line.pass(heartbeat(SESSION, 9).to_vec(), now).len(), 0);
        assert_eq!(sequences(&line.pass(packet(9), now + Duration::from_secs(1))), [9]);
    }
}
