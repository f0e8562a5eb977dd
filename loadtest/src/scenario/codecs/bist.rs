//! Borsa Istanbul: messages of orders, by the million.
//!
//! The market is as large as the real one, larger than what a cache holds: some hundred books, of which few are busy,
//! with as many orders at a time as a day has. Orders come and go near the best prices; some are matched.

use std::time::Duration;

use akis_connectors::bist::itch::{
    Add, Delete, Directory, Executed, Message, OrderKey, Price, Rank, Seconds, Side, Text,
};
use akis_connectors::bist::mold::{Builder, SessionId};
use akis_connectors::{Content, RawFrame};
use akis_model::Kind;
use anyhow::{Result, bail};
use fastrand::Rng;

use super::{BEGINS_MS, Feed, add, middle};
use crate::report::{Report, grouped, micros_each};

const BOOKS: u32 = 500;

/// Orders that rest at a time, over all books.
const RESTING: usize = 400_000;

/// Messages that are measured, behind those that build the books.
const MEASURED: usize = 2_000_000;

/// How many pass in a second: ten times the mean of a day of 100 million.
const MESSAGES_PER_MS: usize = 33;

/// How many messages are made at a time: what a cache of a core holds.
const BATCH: usize = 800;

const ROUNDS: usize = 3;

const DAY_MESSAGES: f64 = 100e6;

/// The most bytes of a packet: what fits into an Ethernet frame.
const PACKET_BYTES: usize = 1400;

pub(super) fn measure(report: &mut Report) -> Result<()> {
    let mut exchange = Exchange::new();
    let opening = exchange.opening();
    let messages: Vec<Encoded> = (0..MEASURED).map(|_| exchange.step()).collect();
    for (in_packet, name) in [(1, "one in each packet"), (8, "eight in each packet")] {
        let (cpu, _) = go_through(&opening, &messages, in_packet, &[Kind::Session])?;
        add(report, &format!("BIST order message parsed and applied, {name}"), cpu, MEASURED as u64, 0.2);
        let (cpu, updates) = go_through(&opening, &messages, in_packet, &[])?;
        report.add(
            format!("the same, and told to all channels, {name}"),
            format!(
                "{:.3} µs: {:.1} s on one core for a day of 100 million; {} updates for {} messages",
                micros_each(cpu, MEASURED as u64),
                cpu.as_secs_f64() * DAY_MESSAGES / MEASURED as f64,
                grouped(updates as f64),
                grouped(MEASURED as f64)
            ),
        );
    }
    Ok(())
}

/// Gives all messages to a market with channels of these kinds (of none but its state, only books and candles are kept), and gives
/// the time that those behind the opening took, and how many updates there were. The middle one of several rounds.
fn go_through(
    opening: &[Vec<u8>],
    messages: &[Encoded],
    in_packet: usize,
    kinds: &[Kind],
) -> Result<(Duration, usize)> {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let mut feed = Feed::new("bist", "equities", kinds)?;
        let mut packets = Packets { next: 1, frames: Vec::new() };
        for messages in opening.chunks(BATCH) {
            messages.iter().for_each(|message| packets.push(&[message.as_slice()], 0));
            feed.take(&packets.take());
            feed.forget();
        }
        feed.cpu = Duration::ZERO;
        let (mut sent, mut skipped, mut updates) = (0, 0, 0);
        for batch in messages.chunks(BATCH) {
            for messages in batch.chunks(in_packet) {
                let messages: Vec<&[u8]> = messages.iter().map(|(length, bytes)| &bytes[..*length]).collect();
                packets.push(&messages, sent / MESSAGES_PER_MS);
                sent += messages.len();
            }
            feed.take(&packets.take());
            skipped += feed.out.skipped.len() + feed.out.resyncs.len();
            updates += feed.out.updates.len();
            feed.forget();
        }
        if skipped > 0 {
            bail!("{skipped} messages did not fit");
        }
        rounds.push((feed.cpu, updates));
    }
    Ok(middle(rounds))
}

/// A message and its length.
type Encoded = (usize, [u8; 64]);

/// Packets of one session.
struct Packets {
    next: u64,
    frames: Vec<RawFrame>,
}

impl Packets {
    /// Those that were made since.
    fn take(&mut self) -> Vec<RawFrame> {
        std::mem::take(&mut self.frames)
    }

    fn push(&mut self, messages: &[&[u8]], at_ms: usize) {
        let mut packet = Builder::new(SessionId::new("BENCH"), self.next, PACKET_BYTES);
        self.next += messages.iter().filter(|message| packet.push(message)).count() as u64;
        let content = Content::Binary { connection: 1, bytes: packet.finish() };
        self.frames.push(RawFrame { received_at: BEGINS_MS + at_ms as i64, content });
    }
}

/// An order that rests.
struct Resting {
    key: OrderKey,
    quantity: u64,
}

/// Makes messages that fit each other.
struct Exchange {
    rng: Rng,
    resting: Vec<Resting>,
    next_id: u64,
}

impl Exchange {
    fn new() -> Self {
        Self { rng: Rng::with_seed(1), resting: Vec::new(), next_id: 0x7000_0000_0000_0000 }
    }

    /// What comes before anything is measured: the instruments and the orders that rest.
    fn opening(&mut self) -> Vec<Vec<u8>> {
        let second = u32::try_from(BEGINS_MS / 1000).unwrap_or(u32::MAX);
        let mut messages = vec![encoded(&Message::Seconds(Seconds { second }))];
        messages.extend((0..BOOKS).map(|number| encoded(&directory(number, &format!("SIM{number:03}.E")))));
        while self.resting.len() < RESTING {
            messages.push(self.add());
        }
        messages
    }

    /// One of the messages of the day.
    fn step(&mut self) -> Encoded {
        let message = match self.rng.u8(..100) {
            0..=7 => self.execute(),
            // As many go as come, and those that are filled go too.
            8..=50 => self.delete(),
            _ => self.add(),
        };
        let mut bytes = [0; 64];
        bytes[..message.len()].copy_from_slice(&message);
        (message.len(), bytes)
    }

    fn add(&mut self) -> Vec<u8> {
        // The product of three makes a few books much busier than the others.
        let unit = self.rng.f64() * self.rng.f64() * self.rng.f64();
        let book = (unit * f64::from(BOOKS)) as u32;
        let side = if self.rng.bool() { Side::Buy } else { Side::Sell };
        // The lower of two is near the best price more often than not.
        let distance = self.rng.i32(1..=100).min(self.rng.i32(1..=100));
        let middle = 2_000 + (book as i32) * 40;
        let price = Price(if side == Side::Buy { middle - distance } else { middle + distance });
        let quantity = self.rng.u64(1..5_000);
        let key = OrderKey { id: self.next_id, book, side };
        self.next_id += self.rng.u64(1..9);
        self.resting.push(Resting { key, quantity });
        let rank = Rank::Time { sequence: 1, time: 0 };
        encoded(&Message::Add(Add { ns: 0, order: key, rank, quantity, price, attributes: 0, lot_type: 2 }))
    }

    fn delete(&mut self) -> Vec<u8> {
        let at = self.chosen();
        let Resting { key, .. } = self.resting.swap_remove(at);
        encoded(&Message::Delete(Delete { ns: 0, order: key }))
    }

    fn execute(&mut self) -> Vec<u8> {
        let at = self.chosen();
        let Resting { key, quantity: left } = &mut self.resting[at];
        let quantity = (*left).min(self.rng.u64(1..1_000));
        *left -= quantity;
        let message = Executed { ns: 0, order: *key, quantity, match_id: self.next_id, combo_group: 0 };
        if *left == 0 {
            self.resting.swap_remove(at);
        }
        encoded(&Message::Executed(message))
    }

    /// Half of the time one of the newest: most orders do not live long.
    fn chosen(&mut self) -> usize {
        let newest = self.resting.len().saturating_sub(2_000);
        if self.rng.bool() { self.rng.usize(newest..self.resting.len()) } else { self.rng.usize(..self.resting.len()) }
    }
}

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    message.encode(&mut bytes);
    bytes
}

fn directory(book: u32, symbol: &str) -> Message<'_> {
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
