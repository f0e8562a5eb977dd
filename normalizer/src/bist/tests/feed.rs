//! A feed to a mapper, and looks at what comes out.

use akis_connectors::bist::itch::{
    Add, BookState, Delete, Directory, EndOfSnapshot, Executed, Flush, Message, OrderKey, Price, Rank, Seconds, Side,
    Text,
};
use akis_connectors::bist::mold::{self, Builder, SessionId};
use akis_connectors::{Content, RawFrame};
use akis_model::{Book, Level, MarketStatus};

use crate::bist::Bist;
use crate::mapper::{Mapper as _, Output};
use crate::update::Payload;

/// The book of most tests, with two decimals.
pub(super) const THYAO: u32 = 78_436;

/// 2026-01-01 10:00 in Istanbul.
pub(super) const MORNING: u32 = 1_767_250_800;

pub(super) struct Feed {
    pub(super) mapper: Bist,
    /// The number of the next message.
    pub(super) next: u64,
    pub(super) now: i64,
    session: SessionId,
    snapshots: u32,
}

impl Feed {
    /// With every symbol let in, before the first message.
    pub(super) fn new() -> Self {
        let mut mapper = Bist::default();
        mapper.admit(None, &[]);
        Self::of(mapper)
    }

    /// The same, early enough for the constructed day to be no replay.
    pub(super) fn before_the_day() -> Self {
        let mut feed = Self::new();
        feed.now -= 3 * 3_600_000;
        feed
    }

    pub(super) fn of(mapper: Bist) -> Self {
        let now = i64::from(MORNING) * 1_000;
        Self { mapper, next: 1, now, session: SessionId::new("DAY1"), snapshots: 100 }
    }

    /// The same, with one book.
    pub(super) fn open() -> Self {
        let mut feed = Self::new();
        let out = feed.packet(&[Message::Seconds(Seconds { second: MORNING }), directory("THYAO.E", THYAO)]);
        assert_eq!(out, Output { data: true, ..Output::default() });
        feed
    }

    pub(super) fn new_session(&mut self, name: &str) {
        (self.session, self.next) = (SessionId::new(name), 1);
    }

    pub(super) fn frame(&mut self, connection: u32, bytes: Vec<u8>) -> Output {
        let mut out = Output::default();
        let frame = RawFrame { received_at: self.now, content: Content::Binary { connection, bytes } };
        self.mapper.on_frame(&frame, &mut out);
        out
    }

    pub(super) fn packet_of(&mut self, messages: &[&[u8]], out: &mut Output) {
        let mut builder = Builder::new(self.session, self.next, usize::MAX);
        messages.iter().for_each(|message| assert!(builder.push(message)));
        self.next += messages.len() as u64;
        let content = Content::Binary { connection: 1, bytes: builder.finish() };
        self.mapper.on_frame(&RawFrame { received_at: self.now, content }, out);
    }

    /// A packet of one message, which is not read before the second that it names.
    pub(super) fn message(&mut self, message: &[u8], out: &mut Output) {
        self.read_after(message);
        self.packet_of(&[message], out);
    }

    fn read_after(&mut self, message: &[u8]) {
        if let Ok(Message::Seconds(m)) = Message::decode(message) {
            self.now = self.now.max(i64::from(m.second) * 1_000);
        }
    }

    /// A packet, which is not read before the seconds that it names.
    pub(super) fn packet(&mut self, messages: &[Message<'_>]) -> Output {
        let bytes: Vec<Vec<u8>> = messages.iter().map(encoded).collect();
        bytes.iter().for_each(|message| self.read_after(message));
        let mut out = Output::default();
        self.packet_of(&bytes.iter().map(Vec::as_slice).collect::<Vec<_>>(), &mut out);
        out
    }

    pub(super) fn heartbeat(&mut self) -> Output {
        self.frame(1, mold::heartbeat(self.session, self.next).to_vec())
    }

    /// The session ends in order.
    pub(super) fn end(&mut self) -> Output {
        self.frame(1, mold::end_of_session(self.session, self.next).to_vec())
    }

    pub(super) fn tick(&mut self, later_ms: i64) -> Output {
        self.now += later_ms;
        let mut out = Output::default();
        self.mapper.on_tick(self.now, &mut out);
        out
    }

    /// A whole snapshot of these messages, in pieces.
    pub(super) fn snapshot(&mut self, messages: &[Message<'_>], next_sequence: u64) -> Output {
        self.snapshot_during(messages, next_sequence, |_| {})
    }

    /// The same, and what happens before its second piece.
    pub(super) fn snapshot_during(
        &mut self,
        messages: &[Message<'_>],
        next_sequence: u64,
        meanwhile: impl FnOnce(&mut Self),
    ) -> Output {
        let end = Message::EndOfSnapshot(EndOfSnapshot { next_sequence });
        let bytes = snapshot_bytes(messages.iter().chain([&end]));
        self.snapshots += 1;
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let before = self.frame(self.snapshots, first.to_vec());
        assert_eq!(before, Output::default());
        meanwhile(self);
        let out = self.frame(self.snapshots, second.to_vec());
        self.close_snapshot();
        out
    }

    pub(super) fn dying_snapshot(&mut self, messages: &[Message<'_>]) -> Output {
        self.snapshots += 1;
        let out = self.frame(self.snapshots, snapshot_bytes(messages.iter()));
        self.close_snapshot();
        out
    }

    fn close_snapshot(&mut self) {
        let content = Content::Closed { connection: self.snapshots, code: 1006 };
        self.mapper.on_frame(&RawFrame { received_at: self.now, content }, &mut Output::default());
    }
}

/// A login that is accepted, and messages behind it.
fn snapshot_bytes<'a>(messages: impl Iterator<Item = &'a Message<'a>>) -> Vec<u8> {
    let mut bytes = b"\x00\x1fADAY1                         1".to_vec();
    for message in messages {
        let message = encoded(message);
        bytes.extend_from_slice(&u16::try_from(message.len() + 1).unwrap().to_be_bytes());
        bytes.push(b'S');
        bytes.extend_from_slice(&message);
    }
    bytes
}

pub(super) fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

fn key(id: u64, side: Side) -> OrderKey {
    OrderKey { id, book: THYAO, side }
}

pub(super) fn add(id: u64, side: Side, price: i32, quantity: u64, ns: u32) -> Message<'static> {
    let (rank, price) = (Rank::Time { sequence: 1, time: 0 }, Price(price));
    Message::Add(Add { ns, order: key(id, side), rank, quantity, price, attributes: 0, lot_type: 2 })
}

pub(super) fn executed(id: u64, side: Side, quantity: u64, match_id: u64) -> Message<'static> {
    Message::Executed(Executed { ns: 0, order: key(id, side), quantity, match_id, combo_group: 0 })
}

pub(super) fn delete(id: u64, side: Side) -> Message<'static> {
    Message::Delete(Delete { ns: 0, order: key(id, side) })
}

pub(super) fn flush(ns: u32) -> Message<'static> {
    Message::Flush(Flush { ns, book: THYAO })
}

pub(super) fn state(name: &'static str) -> Message<'static> {
    Message::BookState(BookState { ns: 0, book: THYAO, state: Text::new(name.as_bytes()) })
}

pub(super) fn directory(symbol: &'static str, book: u32) -> Message<'static> {
    Message::Directory(Directory {
        ns: 0,
        book,
        symbol: Text::new(symbol.as_bytes()),
        long_name: Text::new(b""),
        isin: Text::new(b""),
        product: 5,
        currency: Text::new(b"TRY"),
        price_decimals: 2,
        nominal_decimals: 0,
        odd_lot: 0,
        round_lot: 1,
        block_lot: 0,
        nominal_value: 1,
        legs: 0,
        underlying: 0,
        strike: Price(0),
        expiration: 0,
        strike_decimals: 0,
        put_or_call: 0,
        ranking: 1,
    })
}

pub(super) fn books(out: &Output) -> Vec<Book> {
    out.updates
        .iter()
        .filter_map(|update| match &update.payload {
            Payload::Book(book) => Some(book.clone()),
            _ => None,
        })
        .collect()
}

pub(super) fn statuses(out: &Output) -> Vec<MarketStatus> {
    out.updates
        .iter()
        .filter_map(|update| match &update.payload {
            Payload::Market(status) => Some(status.clone()),
            _ => None,
        })
        .collect()
}

/// Id, price, quantity, side.
pub(super) fn trades(out: &Output) -> Vec<(String, String, String, Option<&'static str>)> {
    out.updates
        .iter()
        .filter_map(|update| match &update.payload {
            Payload::Trade(trade) => {
                let side = trade.side.map(|side| match side {
                    akis_model::Side::Buy => "buy",
                    akis_model::Side::Sell => "sell",
                });
                Some((trade.id.clone(), trade.price.to_string(), trade.qty.to_string(), side))
            }
            _ => None,
        })
        .collect()
}

pub(super) fn prices(levels: &[Level]) -> Vec<(String, String)> {
    levels.iter().map(|level| (level.0.to_string(), level.1.to_string())).collect()
}
