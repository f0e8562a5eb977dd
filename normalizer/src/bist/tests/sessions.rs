//! Generated sessions against a naive market: a list of orders, added up anew at every look, and a list of all trades.

use std::collections::BTreeMap;

use akis_connectors::bist::itch::{
    BookState, ExecutedAtPrice, Flush, Message, OrderKey, Price, Seconds, Side, Text, Trade,
};
use akis_model::{Candle, Decimal, Level};
use proptest::prelude::*;

use super::feed::{Feed, MORNING, add, delete, directory, executed};
use crate::mapper::Output;
use crate::update::Payload;

/// The books of the session and what is in them.
const SYMBOLS: [(&str, u32); 2] = [("THYAO", 78_436), ("GARAN", 74_196)];

#[derive(Debug, Clone, Copy)]
struct Step {
    symbol: usize,
    what: u8,
    is_bid: bool,
    pick: usize,
    away: i32,
    quantity: u64,
    ends_packet: bool,
    fault: u8,
}

fn step() -> impl Strategy<Value = Step> {
    let what = (0..SYMBOLS.len(), 0u8..20, any::<bool>(), 0usize..50);
    (what, 1i32..40, 1u64..50, prop::bool::weighted(0.4), 0u8..60).prop_map(
        |((symbol, what, is_bid, pick), away, quantity, ends_packet, fault)| Step {
            symbol,
            what,
            is_bid,
            pick,
            away,
            quantity,
            ends_packet,
            fault,
        },
    )
}

#[derive(Debug, Clone, Copy)]
struct Order {
    id: u64,
    is_bid: bool,
    /// `None`: a market order.
    price: Option<i32>,
    quantity: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Traded {
    symbol: usize,
    id: u64,
    price: i32,
    quantity: u64,
    second: u32,
}

/// The market as it is at the venue.
#[derive(Debug, Clone, Default)]
struct World {
    books: [Vec<Order>; SYMBOLS.len()],
    ids: u64,
    second: u32,
}

impl World {
    /// What a step sends, and what is traded by it.
    fn go(&mut self, step: Step, trades: &mut Vec<Traded>) -> Vec<Message<'static>> {
        let (symbol, book) = (step.symbol, SYMBOLS[step.symbol].1);
        let side = if step.is_bid { Side::Buy } else { Side::Sell };
        let orders = &mut self.books[symbol];
        let at = (!orders.is_empty()).then(|| step.pick % orders.len());
        self.ids += 1;
        let id = self.ids;
        let traded = |price, quantity| Traded { symbol, id, price, quantity, second: self.second };
        match (step.what, at) {
            (0..=6, _) => {
                // Bids below 100, asks above, so that they never meet; sometimes the id of an order of the other side.
                let price = (step.away != 39).then(|| if step.is_bid { 1_000 - step.away } else { 1_000 + step.away });
                let reused = orders.iter().find(|order| order.is_bid != step.is_bid).map(|order| order.id);
                let taken = |id: u64| orders.iter().any(|order| order.is_bid == step.is_bid && order.id == id);
                let id = reused.filter(|&id| step.pick < 10 && !taken(id)).unwrap_or(id);
                orders.push(Order { id, is_bid: step.is_bid, price, quantity: step.quantity });
                vec![at_book(add(id, side, price.unwrap_or(i32::MIN), step.quantity, 5), book)]
            }
            (7..=10, Some(at)) => {
                let order = orders[at];
                let quantity = step.quantity.min(order.quantity);
                take(orders, at, quantity);
                let own = if order.is_bid { Side::Buy } else { Side::Sell };
                match order.price {
                    Some(price) if step.what < 9 => {
                        trades.push(traded(price, quantity));
                        vec![at_book(executed(order.id, own, quantity, id), book)]
                    }
                    _ => {
                        let printable = step.pick.is_multiple_of(2);
                        if printable {
                            trades.push(traded(1_000, quantity));
                        }
                        vec![Message::ExecutedAtPrice(ExecutedAtPrice {
                            ns: 7,
                            order: OrderKey { id: order.id, book, side: own },
                            quantity,
                            match_id: id,
                            combo_group: 0,
                            price: Price(1_000),
                            at_cross: false,
                            printable,
                        })]
                    }
                }
            }
            (11..=13, Some(at)) => {
                let order = orders.remove(at);
                let own = if order.is_bid { Side::Buy } else { Side::Sell };
                vec![at_book(delete(order.id, own), book)]
            }
            (14, Some(at)) => {
                // Changed: gone, and back with the same id.
                let order = &mut orders[at];
                let own = if order.is_bid { Side::Buy } else { Side::Sell };
                order.quantity = step.quantity;
                let price = order.price.unwrap_or(i32::MIN);
                vec![at_book(delete(order.id, own), book), at_book(add(order.id, own, price, step.quantity, 8), book)]
            }
            (15, _) if step.pick == 0 => {
                orders.clear();
                vec![Message::Flush(Flush { ns: 1, book })]
            }
            (16 | 17, _) => {
                trades.push(traded(1_003, step.quantity));
                vec![Message::Trade(Trade {
                    ns: 2,
                    match_id: id,
                    combo_group: 0,
                    side: None,
                    quantity: step.quantity,
                    book,
                    price: Price(1_003),
                    printable: true,
                    at_cross: false,
                })]
            }
            _ => {
                self.second += u32::from(step.what % 4) * u32::try_from(step.pick).unwrap();
                vec![Message::Seconds(Seconds { second: self.second })]
            }
        }
    }

    /// The book of a symbol: price and quantity, best first.
    fn levels(&self, symbol: usize, is_bid: bool) -> Vec<(i32, u64)> {
        let mut sums: BTreeMap<i32, u64> = BTreeMap::new();
        for order in self.books[symbol].iter().filter(|order| order.is_bid == is_bid) {
            if let Some(price) = order.price {
                *sums.entry(price).or_default() += order.quantity;
            }
        }
        let mut levels: Vec<(i32, u64)> = sums.into_iter().collect();
        if is_bid {
            levels.reverse();
        }
        levels.truncate(20);
        levels
    }

    fn snapshot(&self) -> Vec<Message<'static>> {
        let mut messages = vec![Message::Seconds(Seconds { second: self.second })];
        for (symbol, (name, book)) in SYMBOLS.into_iter().enumerate() {
            messages.push(directory(name, book));
            messages.push(Message::BookState(BookState { ns: 0, book, state: Text::new(b"P_SUREKLI_ISLEM") }));
            messages.extend(self.books[symbol].iter().map(|order| {
                let side = if order.is_bid { Side::Buy } else { Side::Sell };
                at_book(add(order.id, side, order.price.unwrap_or(i32::MIN), order.quantity, 3), book)
            }));
        }
        messages
    }
}

fn take(orders: &mut Vec<Order>, at: usize, quantity: u64) {
    orders[at].quantity -= quantity;
    if orders[at].quantity == 0 {
        orders.remove(at);
    }
}

/// The same message about another book.
fn at_book(message: Message<'static>, book: u32) -> Message<'static> {
    match message {
        Message::Add(mut m) => {
            m.order.book = book;
            Message::Add(m)
        }
        Message::Executed(mut m) => {
            m.order.book = book;
            Message::Executed(m)
        }
        Message::Delete(mut m) => {
            m.order.book = book;
            Message::Delete(m)
        }
        other => other,
    }
}

/// A session that was played, and everything that was told of it.
struct Played {
    /// The market after each message, by its number; the first is that before the session.
    worlds: Vec<World>,
    trades: Vec<Traded>,
    told: Output,
    feed: Feed,
    is_lossless: bool,
}

fn play(steps: &[Step], with_losses: bool) -> Played {
    let mut feed = Feed::new();
    let mut world = World { second: MORNING, ..World::default() };
    let mut told = Output::default();
    let mut trades = Vec::new();
    let mut worlds = vec![world.clone()];
    let mut packet = vec![Message::Seconds(Seconds { second: MORNING })];
    packet.extend(SYMBOLS.map(|(name, book)| directory(name, book)));
    packet.extend(SYMBOLS.map(|(_, book)| at_state(book)));
    worlds.resize(1 + packet.len(), world.clone());
    let mut is_lossless = true;
    let mut wants_snapshot = false;
    gather(&mut told, feed.packet(&packet));
    packet.clear();
    for &step in steps {
        let messages = world.go(step, &mut trades);
        for message in messages {
            packet.push(message);
            worlds.push(world.clone());
        }
        if !step.ends_packet {
            continue;
        }
        match step.fault {
            0..=3 if with_losses => {
                feed.next += packet.len() as u64;
                (is_lossless, wants_snapshot) = (false, true);
            }
            _ => gather(&mut told, feed.packet(&packet)),
        }
        match step.fault {
            10 | 11 => {
                feed.next -= packet.len() as u64;
                gather(&mut told, feed.packet(&packet));
            }
            12..=25 if wants_snapshot => {
                gather(&mut told, feed.snapshot(&world.snapshot(), feed.next));
                wants_snapshot = false;
            }
            26 => gather(&mut told, feed.tick(11_000)),
            _ => {}
        }
        packet.clear();
    }
    gather(&mut told, feed.packet(&packet));
    gather(&mut told, feed.heartbeat());
    gather(&mut told, feed.snapshot(&world.snapshot(), feed.next));
    Played { worlds, trades, told, feed, is_lossless }
}

fn at_state(book: u32) -> Message<'static> {
    Message::BookState(BookState { ns: 0, book, state: Text::new(b"P_SUREKLI_ISLEM") })
}

fn gather(told: &mut Output, out: Output) {
    told.updates.extend(out.updates);
    told.skipped.extend(out.skipped);
    told.resyncs.extend(out.resyncs);
    told.lost_trades += out.lost_trades;
}

/// One side of a book: price and quantity, best first.
type Rendered = Vec<(String, String)>;

fn levels(levels: &[Level]) -> Rendered {
    levels.iter().map(|level| (level.0.to_string(), level.1.to_string())).collect()
}

fn decimal(price: i32) -> Decimal {
    Decimal::from_parts(price.into(), 2).unwrap()
}

impl Played {
    /// Every book that was told is the market's after the message that it names.
    fn check_books(&self) -> Result<(), TestCaseError> {
        let mut last: [Option<[Rendered; 2]>; SYMBOLS.len()] = [None, None];
        for update in &self.told.updates {
            let Payload::Book(book) = &update.payload else { continue };
            let symbol = SYMBOLS.iter().position(|(name, _)| *name == book.symbol).unwrap();
            let sequence: usize = book.venue_seq.parse().unwrap();
            let world = &self.worlds[sequence];
            let told = [levels(&book.bids), levels(&book.asks)];
            prop_assert_eq!(&told, &world.rendered(symbol), "{} at {}", book.symbol, sequence);
            last[symbol] = Some(told);
        }
        let end = self.worlds.last().unwrap();
        for (symbol, last) in last.into_iter().enumerate() {
            prop_assert_eq!(last.unwrap_or_default(), end.rendered(symbol), "the last book");
        }
        Ok(())
    }

    /// The trades that were told are the market's, in order; where some are missing that is said right behind the hole.
    fn check_trades(&self) -> Result<(), TestCaseError> {
        for (symbol, (name, _)) in SYMBOLS.into_iter().enumerate() {
            let mut all = self.trades.iter().filter(|trade| trade.symbol == symbol);
            for update in &self.told.updates {
                let Payload::Trade(trade) = &update.payload else { continue };
                if trade.symbol != name {
                    continue;
                }
                let mut skipped = 0;
                let found = loop {
                    let Some(next) = all.next() else { return Err(TestCaseError::fail("no such trade")) };
                    if next.id.to_string() == trade.id {
                        break next;
                    }
                    skipped += 1;
                };
                prop_assert_eq!(
                    (trade.price, trade.qty.to_string()),
                    (decimal(found.price), found.quantity.to_string())
                );
                prop_assert!(skipped == 0 || update.missing_before > 0, "a hole that nobody was told of");
                prop_assert!(skipped == 0 || !self.is_lossless);
            }
            prop_assert!(all.next().is_none() || !self.is_lossless, "trades at the end were not told");
        }
        Ok(())
    }

    /// The candles told last, by symbol, interval and open time, against those of all trades.
    fn check_candles(&self) -> Result<(), TestCaseError> {
        let mut told: BTreeMap<(String, String, i64), Candle> = BTreeMap::new();
        for update in &self.told.updates {
            let Payload::Candle(candle) = &update.payload else { continue };
            let key = (candle.symbol.clone(), candle.interval.clone(), candle.open_time);
            let before = told.insert(key, candle.clone());
            let is_new = before.is_none_or(|before| !before.closed);
            prop_assert!(is_new || update.is_again, "a closed candle was told again");
        }
        for (symbol, (name, _)) in SYMBOLS.into_iter().enumerate() {
            for (interval, length) in
                [("1m", 60), ("5m", 300), ("15m", 900), ("1h", 3_600), ("4h", 14_400), ("1d", 86_400)]
            {
                let mut expected: BTreeMap<i64, Vec<&Traded>> = BTreeMap::new();
                for trade in self.trades.iter().filter(|trade| trade.symbol == symbol) {
                    let open = i64::from(trade.second) / length * length * 1_000;
                    expected.entry(open).or_default().push(trade);
                }
                let found = told.iter().filter(|((s, i, _), _)| s == name && i == interval);
                for ((.., open), candle) in found.clone() {
                    // With losses some candles are given up, but what was closed is right.
                    if !self.is_lossless && !candle.closed {
                        continue;
                    }
                    let Some(trades) = expected.get(open) else { return Err(TestCaseError::fail("no such candle")) };
                    let prices = || trades.iter().map(|trade| trade.price);
                    let volume: u64 = trades.iter().map(|trade| trade.quantity).sum();
                    let (high, low) = (prices().max().unwrap(), prices().min().unwrap());
                    let rows = [candle.open, candle.high, candle.low, candle.close];
                    let (first, last) = (trades[0].price, trades[trades.len() - 1].price);
                    prop_assert_eq!(rows, [first, high, low, last].map(decimal), "{} {}", name, interval);
                    prop_assert_eq!(candle.volume.to_string(), volume.to_string());
                    prop_assert_eq!(candle.trades, Some(trades.len() as u64));
                }
                prop_assert!(!self.is_lossless || found.count() == expected.len(), "{interval} candles are missing");
            }
        }
        Ok(())
    }
}

impl World {
    fn rendered(&self, symbol: usize) -> [Rendered; 2] {
        [true, false].map(|is_bid| {
            let levels = self.levels(symbol, is_bid).into_iter();
            levels.map(|(price, quantity)| (decimal(price).to_string(), quantity.to_string())).collect()
        })
    }
}

proptest! {
    #[test]
    fn everything_that_is_told_is_so(steps in prop::collection::vec(step(), 1..200)) {
        let played = play(&steps, false);
        prop_assert!(played.told.resyncs.is_empty());
        prop_assert!(played.feed.next > 5);
        played.check_books()?;
        played.check_trades()?;
        played.check_candles()?;
    }

    #[test]
    fn what_is_told_in_spite_of_losses_is_so(steps in prop::collection::vec(step(), 1..200)) {
        let played = play(&steps, true);
        played.check_books()?;
        played.check_trades()?;
        played.check_candles()?;
    }
}
