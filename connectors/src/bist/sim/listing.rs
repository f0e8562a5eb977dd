//! One instrument: what it is, its book, and what is told of it.

use super::book::{Book, Order};
use crate::bist::itch::{
    Add, BookState, Delete, Directory, Flush, Message, OrderKey, Price, Rank, ShortSell, Side, Text, TickSize,
};

/// Real order ids are of this size.
const FIRST_ID: u64 = 7_800_000_000_000_000_000;

/// From which price on which tick holds, in thousandths of a lira; since 28 August 2023.
const TICKS: [(i32, i32); 8] = [
    (0, 10),
    (20_000, 20),
    (50_000, 50),
    (100_000, 100),
    (250_000, 250),
    (500_000, 500),
    (1_000_000, 1_000),
    (2_500_000, 2_500),
];

/// An instrument.
#[derive(Debug, Clone)]
pub(super) struct Listing {
    pub(super) book_id: u32,
    /// `THYAO.E`.
    pub(super) symbol: String,
    /// 2 or 3.
    decimals: u16,
    /// Orders are told in the layout before January 2025.
    old_layout: bool,
    /// Yesterday's closing price, then the price of the last trade.
    pub(super) last: i32,
    /// Yesterday's closing price: no order is further away from it than a tenth.
    base: i32,
    pub(super) book: Book,
    /// Whether orders are told one by one.
    pub(super) shown: bool,
    pub(super) state: &'static str,
    /// Whether it has been told of.
    pub(super) listed: bool,
    pub(super) halted: bool,
    /// How many ids each side has given out: both count alone, so ids come on both sides.
    ids: [u64; 2],
    sequence: u32,
}

impl Listing {
    pub(super) fn new(number: usize, symbol: String, thousandths: i32) -> Self {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let decimals = if number.is_multiple_of(2) { 3 } else { 2 };
        let mut listing = Self {
            book_id: 70_736 + number * 60,
            symbol,
            decimals,
            old_layout: number % 4 == 3,
            last: thousandths,
            base: thousandths,
            book: Book::default(),
            shown: true,
            state: "",
            listed: true,
            halted: false,
            ids: [0; 2],
            sequence: 0,
        };
        listing.base = listing.aligned(thousandths / listing.unit());
        listing.last = listing.base;
        listing
    }

    /// How many thousandths the last digit of a price is.
    fn unit(&self) -> i32 {
        if self.decimals == 3 { 1 } else { 10 }
    }

    pub(super) fn tick(&self, price: i32) -> i32 {
        let thousandths = price.saturating_mul(self.unit());
        let tick = TICKS.iter().rev().find(|(from, _)| *from <= thousandths).map_or(10, |&(_, tick)| tick);
        tick / self.unit()
    }

    /// The price of an order: on a tick and within a tenth of the base price.
    pub(super) fn aligned(&self, price: i32) -> i32 {
        let reach = self.base / 10;
        let price = price.clamp(self.base - reach, self.base + reach);
        price - price % self.tick(price)
    }

    /// A new order of a side, not yet in the book.
    pub(super) fn order(&mut self, side: Side, price: Option<i32>, quantity: u64, time: u64) -> Order {
        let ids = &mut self.ids[usize::from(side == Side::Sell)];
        *ids += 1;
        let id = FIRST_ID + *ids;
        self.renewed(Order { id, price, quantity, time, sequence: 0 }, time)
    }

    /// The order as if it came now: it has lost its place.
    pub(super) fn renewed(&mut self, order: Order, time: u64) -> Order {
        self.sequence += 1;
        Order { time, sequence: self.sequence, ..order }
    }

    pub(super) fn key(&self, side: Side, id: u64) -> OrderKey {
        OrderKey { id, book: self.book_id, side }
    }

    pub(super) fn add(&self, ns: u32, side: Side, order: &Order, place: usize) -> Message<'static> {
        let rank = if self.old_layout {
            Rank::Position(u32::try_from(place).unwrap_or(u32::MAX))
        } else {
            Rank::Time { sequence: order.sequence, time: order.time }
        };
        Message::Add(Add {
            ns,
            order: self.key(side, order.id),
            rank,
            quantity: order.quantity,
            price: order.price.map_or(Price::NONE, Price),
            attributes: 0,
            lot_type: 2,
        })
    }

    pub(super) fn delete(&self, ns: u32, side: Side, id: u64) -> Message<'static> {
        Message::Delete(Delete { ns, order: self.key(side, id) })
    }

    pub(super) fn flush(&self, ns: u32) -> Message<'static> {
        Message::Flush(Flush { ns, book: self.book_id })
    }

    pub(super) fn state(&self, ns: u32) -> Message<'static> {
        Message::BookState(BookState { ns, book: self.book_id, state: Text::new(self.state.as_bytes()) })
    }

    /// `R`, `L` and `V`.
    pub(super) fn directory(&self, ns: u32) -> Vec<Message<'_>> {
        let mut messages = vec![Message::Directory(Directory {
            ns,
            book: self.book_id,
            symbol: Text::new(self.symbol.as_bytes()),
            long_name: Text::new(b"GENERATED EQUITY"),
            isin: Text::new(b"TRXGENERATE0"),
            product: 5,
            currency: Text::new(b"TRY"),
            price_decimals: self.decimals,
            nominal_decimals: 0,
            odd_lot: 0,
            round_lot: 1,
            block_lot: 0,
            nominal_value: 1_000,
            legs: 0,
            underlying: 0,
            strike: Price(0),
            expiration: 0,
            strike_decimals: 0,
            put_or_call: 0,
            ranking: 1,
        })];
        for (at, &(from, tick)) in TICKS.iter().enumerate() {
            let to = TICKS.get(at + 1).map_or(0, |&(next, _)| (next - tick) / self.unit());
            messages.push(Message::TickSize(TickSize {
                ns,
                book: self.book_id,
                tick: u64::from((tick / self.unit()).unsigned_abs()),
                from: Price((from / self.unit()).max(tick / self.unit())),
                to: Price(to),
            }));
        }
        messages.push(Message::ShortSell(ShortSell { ns, book: self.book_id, restriction: 2 }));
        messages
    }

    /// Everything that a reader has to know now.
    pub(super) fn snapshot(&self, ns: u32) -> Vec<Message<'_>> {
        let mut messages = self.directory(ns);
        messages.push(self.state(ns));
        if self.shown {
            for side in [Side::Buy, Side::Sell] {
                let orders = self.book.side(side).iter().zip(1..);
                messages.extend(orders.map(|(order, place)| self.add(ns, side, order, place)));
            }
        }
        messages
    }
}
