//! All instruments of the feed, and what each message does to them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use akis_connectors::Request;
use akis_connectors::bist::HalfDays;
use akis_connectors::bist::itch::{DecodeError, Directory, ExecutedAtPrice, Message, OrderKey, Price, Side};
use akis_model::{Channel, Kind, TimeSource};
use foldhash::fast::RandomState;

use super::calendar::Hours;
use super::clock::{Clock, Moment};
use super::instrument::Instrument;
use super::names;
use super::orders::{IsSeen, Misfit, Orders};
use super::wanted::Wanted;
use crate::mapper::{Output, Reason, Resync};

/// How many books a day may have; the exchange has some thousands.
const MAX_BOOKS: usize = 65_536;

/// How many orders are kept, over all books: some 200 MB. A day has about a tenth of it at a time.
const MAX_ORDERS: usize = 4 << 20;

/// The products of the equity market, by their numbers in `R`.
const PRODUCT_CASH: u8 = 5;
const PRODUCT_WARRANT: u8 = 14;
const PRODUCT_CERTIFICATE: u8 = 18;

/// So long after its end a candle is closed by this machine's clock, when no message tells the time.
const GRACE_MS: i64 = 1_000;

/// Whether what a message says is news, or has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Telling {
    /// Trades and candles are told.
    News,
    /// Only the state is brought up to date.
    State,
}

/// One message and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) sequence: u64,
    pub(super) bytes: &'a [u8],
    pub(super) received_at: i64,
    pub(super) telling: Telling,
}

/// All instruments of the feed.
#[derive(Debug, Default)]
pub(super) struct Market {
    /// Every symbol of the feed is let in.
    any: bool,
    /// Those that are let in, as channels show them.
    admitted: Vec<String>,
    wanted: Wanted,
    half_days: Arc<HalfDays>,
    /// Nothing has been missed since the day began.
    is_whole: bool,
    /// Some candles wait for the next second.
    gave_up_candles: bool,
    clock: Clock,
    instruments: Vec<Instrument>,
    by_symbol: BTreeMap<String, usize>,
    /// The books of the day. `None`: of an instrument that nobody asked for.
    books: HashMap<u32, Option<usize>, RandomState>,
    /// Orders in all books.
    orders: usize,
    /// A throttle stands behind: what it would not let through is held back.
    is_paced: bool,
    /// Those that have news, in the order of their first.
    changed: Vec<usize>,
    is_changed: Vec<bool>,
    /// Those that hold something back, in the order of their first.
    held: Vec<usize>,
    is_held: Vec<bool>,
    /// No open candle ends before this moment of the venue's clock.
    next_end: i64,
    /// A book does not fit any more, so a snapshot is needed.
    needs_snapshot: bool,
}

impl Market {
    pub(super) fn admit(&mut self, symbols: Option<&[String]>, kinds: &[Kind]) {
        self.wanted = Wanted::new(kinds);
        let Some(symbols) = symbols else {
            self.any = true;
            return;
        };
        self.any |= symbols.iter().any(|symbol| symbol == "*");
        let shown = symbols.iter().filter(|symbol| *symbol != "*").filter_map(|symbol| names::shown(symbol));
        for symbol in shown {
            if !self.admitted.contains(&symbol) {
                self.admitted.push(symbol);
            }
        }
    }

    /// The channels of those that were let in by name.
    pub(super) fn channels(&self) -> Vec<Channel> {
        let moment = self.clock.at(0, 0);
        let instruments =
            self.admitted.iter().filter_map(|symbol| Instrument::new(symbol.clone(), Hours::Other, moment));
        instruments.flat_map(|instrument| instrument.channels(&self.wanted)).collect()
    }

    /// See [`crate::mapper::Mapper::pace`].
    pub(super) fn pace(&mut self) {
        self.is_paced = true;
    }

    pub(super) fn set_half_days(&mut self, half_days: HalfDays) {
        self.half_days = Arc::new(half_days);
    }

    /// Takes one message of the feed.
    pub(super) fn apply(&mut self, entry: Entry<'_>, out: &mut Output) {
        let done = match Message::decode(entry.bytes) {
            Ok(message) => self.on_message(&message, entry, out),
            Err(DecodeError::UnknownType(_)) => Err(Reason::UnknownEvent),
            Err(DecodeError::Empty | DecodeError::Length { .. } | DecodeError::Value { .. }) => Err(Reason::BadShape),
        };
        if let Err(reason) = done {
            out.skipped.push(reason);
        }
    }

    fn on_message(&mut self, message: &Message<'_>, entry: Entry<'_>, out: &mut Output) -> Result<(), Reason> {
        match message {
            Message::Add(m) => self.on_add(m.ns, m.order, m.price, m.quantity, entry, out),
            Message::AddByParticipant(m) => self.on_add(m.ns, m.order, m.price, m.quantity, entry, out),
            Message::Delete(m) => self.on_order(m.ns, m.order, entry, out, |orders| {
                orders.delete(m.order.side, m.order.id).map(|seen| ((), seen))
            }),
            Message::Executed(m) => self.on_executed(m.ns, m.order, m.quantity, m.match_id, entry, out),
            Message::ExecutedAtPrice(m) => self.on_executed_at_price(m, entry, out),
            Message::Replace(m) => self.on_order(m.ns, m.order, entry, out, |orders| {
                let (side, id) = (m.order.side, m.order.id);
                let gone = orders.delete(side, id)?;
                Ok(((), orders.add(side, id, m.price, m.quantity)? || gone))
            }),
            Message::Trade(m) if !m.printable => self.at(m.book).map(|_| ()),
            Message::Trade(m) => {
                let Some(at) = self.note(m.book, m.ns, entry)? else { return Ok(()) };
                self.trade(at, m.match_id, m.price, m.quantity, None, entry, out)
            }
            Message::Seconds(m) => {
                self.on_second(m.second, entry, out);
                Ok(())
            }
            Message::Flush(m) => self.on_flush(m.book, m.ns, entry, out),
            Message::Equilibrium(m) => {
                let Some(at) = self.note(m.book, m.ns, entry)? else { return Ok(()) };
                self.instruments[at].on_equilibrium(*m);
                self.mark(at);
                Ok(())
            }
            Message::BookState(m) => self.on_state(m.book, m.ns, m.state.to_string(), entry, out),
            Message::Directory(m) => self.on_directory(m, entry),
            Message::TickSize(m) => match self.at(m.book)? {
                Some(at) => self.instruments[at].on_tick_size(*m),
                None => Ok(()),
            },
            Message::SystemEvent(m) if entry.telling == Telling::News => {
                match m.code {
                    b'O' => self.begin_day(entry.received_at, out),
                    b'C' => self.end_day(self.clock.at(m.ns, entry.received_at), out),
                    _ => return Err(Reason::UnknownEvent),
                }
                Ok(())
            }
            // What they say has no place in an event.
            Message::SystemEvent(_)
            | Message::ShortSell(_)
            | Message::CombinationLeg(_)
            | Message::EndOfSnapshot(_) => Ok(()),
        }
    }

    fn on_add(
        &mut self,
        ns: u32,
        order: OrderKey,
        price: Price,
        quantity: u64,
        entry: Entry<'_>,
        out: &mut Output,
    ) -> Result<(), Reason> {
        if self.orders >= MAX_ORDERS {
            if let Some(at) = self.at(order.book)? {
                self.distrust(at, Resync::Overflow, entry.received_at, out);
            }
            return Err(Reason::OutOfRange);
        }
        self.on_order(ns, order, entry, out, |orders| {
            orders.add(order.side, order.id, price, quantity).map(|seen| ((), seen))
        })
    }

    /// Changes the orders of a book. A book that the change does not fit is not trusted any more.
    #[inline]
    fn on_order(
        &mut self,
        ns: u32,
        order: OrderKey,
        entry: Entry<'_>,
        out: &mut Output,
        change: impl FnOnce(&mut Orders) -> Result<((), IsSeen), Misfit>,
    ) -> Result<(), Reason> {
        let Some(at) = self.note(order.book, ns, entry)? else { return Ok(()) };
        self.change(at, entry, out, change).map(|_| ())
    }

    /// The same, for an instrument that was found; `None` when the change did not fit a book that is not trusted anyway.
    #[inline]
    fn change<T>(
        &mut self,
        at: usize,
        entry: Entry<'_>,
        out: &mut Output,
        change: impl FnOnce(&mut Orders) -> Result<(T, IsSeen), Misfit>,
    ) -> Result<Option<T>, Reason> {
        let instrument = &mut self.instruments[at];
        let before = instrument.orders.len();
        let done = change(&mut instrument.orders);
        self.orders = self.orders + instrument.orders.len() - before;
        match done {
            Ok((value, is_seen)) => {
                if is_seen {
                    instrument.book_changed();
                    self.mark(at);
                }
                Ok(Some(value))
            }
            Err(Misfit) if !instrument.is_proven() => Ok(None),
            Err(Misfit) => {
                self.distrust(at, Resync::Misfit, entry.received_at, out);
                Err(Reason::Misfit)
            }
        }
    }

    fn on_executed(
        &mut self,
        ns: u32,
        order: OrderKey,
        quantity: u64,
        match_id: u64,
        entry: Entry<'_>,
        out: &mut Output,
    ) -> Result<(), Reason> {
        let Some(at) = self.note(order.book, ns, entry)? else { return Ok(()) };
        let price = self.change(at, entry, out, |orders| orders.execute(order.side, order.id, quantity));
        match price {
            // A market order has no price of its own: nobody can tell what it was matched at.
            Ok(Some(price)) if price != Price::NONE => {
                self.trade(at, match_id, price, quantity, Some(other(order.side)), entry, out)
            }
            // Its price was the order's, and the order is not known.
            Ok(_) | Err(_) => {
                if entry.telling == Telling::News {
                    let instrument = &mut self.instruments[at];
                    instrument.lose_trade();
                    instrument.give_up_candles(entry.received_at, &self.wanted, out);
                    self.gave_up_candles = true;
                }
                price.map(|_| ())
            }
        }
    }

    fn on_executed_at_price(&mut self, m: &ExecutedAtPrice, entry: Entry<'_>, out: &mut Output) -> Result<(), Reason> {
        let Some(at) = self.note(m.order.book, m.ns, entry)? else { return Ok(()) };
        let done = self.change(at, entry, out, |orders| orders.execute(m.order.side, m.order.id, m.quantity));
        if m.printable {
            // In an auction nobody takes.
            let taker = (!m.at_cross).then(|| other(m.order.side));
            self.trade(at, m.match_id, m.price, m.quantity, taker, entry, out)?;
        }
        done.map(|_| ())
    }

    #[expect(clippy::too_many_arguments, reason = "a trade is what two messages say of it in other words")]
    fn trade(
        &mut self,
        at: usize,
        match_id: u64,
        price: Price,
        quantity: u64,
        taker: Option<Side>,
        entry: Entry<'_>,
        out: &mut Output,
    ) -> Result<(), Reason> {
        if entry.telling == Telling::State {
            return Ok(());
        }
        let done = self.instruments[at].on_trade(match_id, price, quantity, taker, &self.wanted, out);
        if let Some(end) = self.instruments[at].candles.next_end() {
            self.next_end = self.next_end.min(end);
        }
        self.mark(at);
        done
    }

    fn on_second(&mut self, second: u32, entry: Entry<'_>, out: &mut Output) {
        self.clock.on_second(second, entry.received_at);
        if entry.telling == Telling::News {
            let moment = self.clock.at(0, entry.received_at);
            self.close_candles(moment, out);
            if std::mem::take(&mut self.gave_up_candles) {
                self.instruments.iter_mut().for_each(|instrument| instrument.candles.resume(moment.ts));
            }
        }
    }

    fn on_flush(&mut self, book: u32, ns: u32, entry: Entry<'_>, out: &mut Output) -> Result<(), Reason> {
        let Some(at) = self.note(book, ns, entry)? else { return Ok(()) };
        let instrument = &mut self.instruments[at];
        self.orders -= instrument.orders.len();
        instrument.orders.clear();
        instrument.book_changed();
        // An empty book is known without what came before.
        instrument.prove(entry.received_at, &self.wanted, out);
        self.mark(at);
        Ok(())
    }

    fn on_state(&mut self, book: u32, ns: u32, name: String, entry: Entry<'_>, out: &mut Output) -> Result<(), Reason> {
        let Some(at) = self.note(book, ns, entry)? else { return Ok(()) };
        let moment = self.clock.at(ns, entry.received_at);
        let instrument = &mut self.instruments[at];
        instrument.on_state(name, moment);
        if entry.telling == Telling::News {
            instrument.tell_state(&self.wanted, out);
        }
        self.mark(at);
        Ok(())
    }

    fn on_directory(&mut self, directory: &Directory<'_>, entry: Entry<'_>) -> Result<(), Reason> {
        let symbol = names::shown(&directory.symbol.to_string()).ok_or(Reason::UnknownSymbol)?;
        if !self.any && !self.admitted.contains(&symbol) {
            if self.books.len() < MAX_BOOKS {
                self.books.insert(directory.book, None);
            }
            return Ok(());
        }
        let moment = self.clock.at(directory.ns, entry.received_at);
        let known = self.by_symbol.get(&symbol).copied();
        let is_new = known.is_none();
        let at = match known {
            Some(at) => at,
            None if self.instruments.len() >= MAX_BOOKS => return Err(Reason::OutOfRange),
            None => {
                let hours = match directory.product {
                    PRODUCT_CASH | PRODUCT_WARRANT | PRODUCT_CERTIFICATE => {
                        Hours::Equities(Arc::clone(&self.half_days))
                    }
                    _ => Hours::Other,
                };
                let instrument = Instrument::new(symbol.clone(), hours, moment).ok_or(Reason::UnknownSymbol)?;
                self.instruments.push(instrument);
                self.is_changed.push(false);
                self.is_held.push(false);
                self.by_symbol.insert(symbol, self.instruments.len() - 1);
                self.instruments.len() - 1
            }
        };
        if let Some(Some(old)) = self.books.insert(directory.book, Some(at))
            && old != at
        {
            // The number belongs to another instrument now.
            self.orders -= self.instruments[old].orders.len();
            self.instruments[old].orders.clear();
        }
        let instrument = &mut self.instruments[at];
        instrument.note(entry.sequence, moment);
        let known = instrument.on_directory(directory);
        if self.is_whole {
            instrument.begin_candles(moment.ts);
        } else if is_new {
            // Nobody has seen what it did before.
            instrument.candles.forget();
            self.gave_up_candles = true;
        }
        if known.is_err() {
            // Without decimals its prices mean nothing.
            self.books.insert(directory.book, None);
        }
        known
    }

    /// The instrument of a book; `None` when nobody asked for it.
    #[inline]
    fn at(&self, book: u32) -> Result<Option<usize>, Reason> {
        self.books.get(&book).copied().ok_or(Reason::UnknownSymbol)
    }

    /// The same, and takes note of the message there.
    #[inline]
    fn note(&mut self, book: u32, ns: u32, entry: Entry<'_>) -> Result<Option<usize>, Reason> {
        let at = self.at(book)?;
        if let Some(at) = at {
            self.instruments[at].note(entry.sequence, self.clock.at(ns, entry.received_at));
        }
        Ok(at)
    }

    #[inline]
    fn mark(&mut self, at: usize) {
        if !std::mem::replace(&mut self.is_changed[at], true) {
            self.changed.push(at);
        }
    }

    /// Tells what has changed since this was called last, unless it is held back.
    pub(super) fn tell_news(&mut self, now_ms: i64, out: &mut Output) {
        let paced_ms = self.is_paced.then_some(now_ms);
        for at in self.changed.drain(..) {
            self.is_changed[at] = false;
            let holds = self.instruments[at].tell_news(paced_ms, &self.wanted, out);
            if holds && !std::mem::replace(&mut self.is_held[at], true) {
                self.held.push(at);
            }
        }
    }

    /// The same, and tells what is held back and is due.
    pub(super) fn tell_held(&mut self, now_ms: i64, out: &mut Output) {
        for at in std::mem::take(&mut self.held) {
            self.is_held[at] = false;
            self.mark(at);
        }
        self.tell_news(now_ms, out);
    }

    fn distrust(&mut self, at: usize, why: Resync, received_at: i64, out: &mut Output) {
        let instrument = &mut self.instruments[at];
        if !instrument.is_proven() {
            return;
        }
        self.orders -= instrument.orders.len();
        instrument.distrust(why, received_at);
        out.resyncs.push(why);
        self.needs_snapshot = true;
    }

    /// Whether a book stopped fitting since this was asked last.
    pub(super) fn takes_snapshot(&mut self) -> bool {
        std::mem::take(&mut self.needs_snapshot)
    }

    /// Messages are missing: no book can be trusted, and trades may be lost.
    pub(super) fn lose_messages(&mut self, received_at: i64, out: &mut Output) {
        self.clock.forget_second();
        self.gave_up_candles = true;
        for at in 0..self.instruments.len() {
            self.distrust(at, Resync::Gap, received_at, out);
            self.instruments[at].lose_trade();
            self.instruments[at].give_up_candles(received_at, &self.wanted, out);
        }
        (self.needs_snapshot, self.is_whole) = (false, false);
    }

    /// Builds every book anew from the messages of a snapshot, which holds all below `next`.
    pub(super) fn load<'a>(
        &mut self,
        messages: impl Iterator<Item = &'a [u8]>,
        next: u64,
        received_at: i64,
        out: &mut Output,
    ) {
        self.orders = 0;
        for at in 0..self.instruments.len() {
            let instrument = &mut self.instruments[at];
            instrument.orders.clear();
            instrument.prove(received_at, &self.wanted, out);
            instrument.note(next.saturating_sub(1), self.clock.at(0, received_at));
            instrument.book_changed();
            self.mark(at);
        }
        // Its times are those of the orders, and end before the live ones.
        let live = std::mem::take(&mut self.clock);
        let sequence = next.saturating_sub(1);
        for bytes in messages {
            self.apply(Entry { sequence, bytes, received_at, telling: Telling::State }, out);
        }
        self.clock = live;
    }

    /// Tells the states that were not told while only the state was brought up to date.
    pub(super) fn tell_states(&mut self, out: &mut Output) {
        for instrument in &mut self.instruments {
            instrument.tell_state(&self.wanted, out);
        }
    }

    /// Asks for a snapshot, when a book needs one.
    pub(super) fn ask(&self, out: &mut Output) {
        if let Some(instrument) = self.instruments.iter().find(|instrument| !instrument.is_proven()) {
            out.requests.push(Request::Book { symbol: instrument.symbol.clone() });
        }
    }

    pub(super) fn on_tick(&mut self, now_ms: i64, out: &mut Output) {
        for instrument in &mut self.instruments {
            instrument.tell_distrust(now_ms, &self.wanted, out);
        }
    }

    /// Nothing was said for a while, and nothing of before is missing: candles whose time is over have all their trades.
    pub(super) fn on_silence(&mut self, received_at: i64, out: &mut Output) {
        let ts = self.clock.estimate(received_at).saturating_sub(GRACE_MS);
        self.close_candles(Moment { ts, source: TimeSource::Received, received_at }, out);
    }

    /// Closes what has ended.
    fn close_candles(&mut self, moment: Moment, out: &mut Output) {
        if moment.ts < self.next_end {
            return;
        }
        self.next_end = i64::MAX;
        for instrument in &mut self.instruments {
            instrument.close_candles(moment, false, &self.wanted, out);
            self.next_end = self.next_end.min(instrument.candles.next_end().unwrap_or(i64::MAX));
        }
    }

    fn end_day(&mut self, moment: Moment, out: &mut Output) {
        for instrument in &mut self.instruments {
            instrument.close_candles(moment, true, &self.wanted, out);
        }
    }

    /// Another day begins: of the one before only channels and their candles are left.
    pub(super) fn begin_day(&mut self, received_at: i64, out: &mut Output) {
        self.end_day(self.clock.at(0, received_at), out);
        self.books.clear();
        self.orders = 0;
        (self.needs_snapshot, self.is_whole) = (false, true);
        for at in 0..self.instruments.len() {
            self.instruments[at].begin_day(received_at);
            self.instruments[at].prove(received_at, &self.wanted, out);
            self.mark(at);
        }
    }
}

fn other(side: Side) -> Side {
    match side {
        Side::Buy => Side::Sell,
        Side::Sell => Side::Buy,
    }
}
