//! Recordings of any transport, turned into what a session hands on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::arbiter::{Arbiter, Step};
use super::mold::{self, Builder, SessionId};
use super::soup::{FromServer, Splitter};
use crate::recording::{FeedLine, Header, Transport};
use crate::{Content, RawFrame};

/// The most bytes in a packet that is made of other frames.
const MOST_BYTES: usize = 32 << 10;

/// The connection of the live messages. Numbers of recordings begin at 1.
const LIVE: u32 = 0;

/// Takes the frames of recordings and gives those that a session would have handed on: lines compared, TCP reads cut into
/// messages, single messages numbered. Snapshots stay what they are.
///
/// Time is only what frames and ticks say, so the same recording gives the same frames.
#[derive(Debug, Default)]
pub struct Recorded {
    /// Of connections without a note; `None`: MoldUDP64.
    transport: Option<Transport>,
    /// By connection, where it is another one.
    others: BTreeMap<u32, Transport>,
    /// `None` before the first header.
    arbiter: Option<Arbiter>,
    streams: BTreeMap<u32, SoupStream>,
    /// How many messages came without a number.
    unnumbered: u64,
    /// Packets of other sessions that were passed over and not asked for yet.
    /// A moment of the arbiter's clock, and the same one in the recording.
    began: Option<(Instant, i64)>,
}

/// One connection that carries messages over SoupBinTCP.
#[derive(Debug)]
struct SoupStream {
    splitter: Splitter,
    session: SessionId,
    next: u64,
    /// Whether the session's name and number are known.
    is_named: bool,
    broken: bool,
}

impl Recorded {
    /// Takes note of the header of the file that comes next. Several files are one run.
    pub fn on_header(&mut self, header: &Header) {
        let connections = &header.connections;
        self.transport = header.transport;
        self.others = connections.iter().filter_map(|(&number, note)| Some((number, note.transport?))).collect();
        self.streams.clear();
        let has_rewinder = connections.values().any(|note| note.line == Some(FeedLine::R));
        self.arbiter.get_or_insert_with(|| Arbiter::new(has_rewinder));
    }

    /// Takes a frame; what it gives is added to `out`.
    pub fn on_frame(&mut self, frame: &RawFrame, out: &mut Vec<RawFrame>) {
        let now = self.on_time(frame.received_at, out);
        let (connection, bytes) = match &frame.content {
            Content::Binary { connection, bytes } => (*connection, bytes),
            Content::Closed { connection, .. } => {
                self.streams.remove(connection);
                out.push(frame.clone());
                return;
            }
            Content::Text { .. } | Content::Reply { .. } => return out.push(frame.clone()),
        };
        let transport = self.others.get(&connection).copied().or(self.transport);
        match transport.unwrap_or(Transport::MoldUdp64) {
            Transport::Glimpse => return out.push(frame.clone()),
            // The recording of a session has its snapshots without a note.
            Transport::MoldUdp64 if bytes.first() == Some(&0) => return out.push(frame.clone()),
            Transport::MoldUdp64 => {
                if !self.arbitrate(bytes, now) {
                    // Whoever reads it counts it as bad.
                    out.push(frame.clone());
                }
            }
            Transport::Itch => self.on_message(bytes, now),
            Transport::SoupBinTcp => self.on_read(connection, bytes, now),
        }
        self.take_packets(frame.received_at, out);
    }

    /// Takes note of the time, milliseconds since the epoch; what it gives is added to `out`.
    pub fn on_tick(&mut self, now_ms: i64, out: &mut Vec<RawFrame>) {
        self.on_time(now_ms, out);
    }

    /// Nothing more comes: what waits for something missing is given without it.
    pub fn on_end(&mut self, now_ms: i64, out: &mut Vec<RawFrame>) {
        while let Some((arbiter, due)) =
            self.arbiter.as_mut().and_then(|arbiter| arbiter.due().map(|due| (arbiter, due)))
        {
            arbiter.on_time(due);
        }
        self.take_packets(now_ms, out);
        if let Some(arbiter) = &mut self.arbiter {
            arbiter.end();
        }
    }

    /// How many packets of another session than the one that is followed were passed over since this was asked last.
    pub fn take_passed_over(&mut self) -> usize {
        self.arbiter.as_mut().map_or(0, |arbiter| arbiter.take_passed_over().packets)
    }

    fn on_time(&mut self, now_ms: i64, out: &mut Vec<RawFrame>) -> Instant {
        let (began, at) = *self.began.get_or_insert_with(|| (Instant::now(), now_ms));
        let now = began + Duration::from_millis(now_ms.saturating_sub(at).try_into().unwrap_or(0));
        if let Some(arbiter) = &mut self.arbiter {
            arbiter.on_time(now);
        }
        self.take_packets(now_ms, out);
        now
    }

    fn on_message(&mut self, message: &[u8], now: Instant) {
        let mut packet = Builder::new(SessionId::new("ITCH"), self.unnumbered + 1, usize::MAX);
        if packet.push(message) {
            self.unnumbered += 1;
            self.arbitrate(&packet.finish(), now);
        }
    }

    fn on_read(&mut self, connection: u32, bytes: &[u8], now: Instant) {
        let mut packets = Vec::new();
        self.streams.entry(connection).or_insert_with(SoupStream::new).read(bytes, &mut packets);
        for packet in packets {
            self.arbitrate(&packet, now);
        }
    }

    /// `false` when the packet is none.
    fn arbitrate(&mut self, packet: &[u8], now: Instant) -> bool {
        self.arbiter.as_mut().is_some_and(|arbiter| arbiter.on_datagram(packet, now).is_ok())
    }

    fn take_packets(&mut self, received_at: i64, out: &mut Vec<RawFrame>) {
        while let Some(step) = self.arbiter.as_mut().and_then(Arbiter::step) {
            match step {
                Step::Packet(bytes) => {
                    let content = Content::Binary { connection: LIVE, bytes };
                    out.push(RawFrame { received_at, content });
                }
                // A recording holds what the rewinder said; what is lost shows in the next packet's number.
                Step::Ask(_) | Step::Lost(_) => {}
            }
        }
    }
}

impl SoupStream {
    fn new() -> Self {
        // A recording that begins behind the login has no number either.
        Self { splitter: Splitter::default(), session: SessionId::new("SOUP"), next: 1, is_named: false, broken: false }
    }

    /// Adds the packets that the read completes to `out`.
    fn read(&mut self, bytes: &[u8], out: &mut Vec<Vec<u8>>) {
        if self.broken {
            return;
        }
        self.splitter.push(bytes);
        let mut packet = Builder::new(self.session, self.next, MOST_BYTES);
        loop {
            let read = match self.splitter.next_packet() {
                Ok(None) => break,
                Ok(Some((kind, payload))) => FromServer::parse(kind, payload),
                Err(error) => Err(error),
            };
            match read {
                Ok(FromServer::Accepted { session, next }) => {
                    (self.session, self.next, self.is_named) = (session, next, true);
                    packet = Builder::new(session, next, MOST_BYTES);
                }
                Ok(FromServer::Sequenced(message)) => {
                    if !packet.push(message) {
                        let next = Builder::new(self.session, self.next, MOST_BYTES);
                        out.push(std::mem::replace(&mut packet, next).finish());
                        packet.push(message);
                    }
                    self.next += 1;
                }
                Ok(FromServer::End) => {
                    let next = Builder::new(self.session, self.next, MOST_BYTES);
                    out.push(std::mem::replace(&mut packet, next).finish());
                    out.push(mold::end_of_session(self.session, self.next).to_vec());
                }
                Ok(_) => {}
                Err(_) => {
                    self.broken = true;
                    break;
                }
            }
        }
        // Without a message it is a heartbeat, which says that nothing is missing.
        if self.is_named || packet.count() > 0 {
            out.push(packet.finish());
        }
    }
}
