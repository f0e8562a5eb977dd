//! What each message does.

use std::sync::Arc;

use akis_connectors::bist::itch::{DecodeError, Directory, ExecutedAtPrice, Message, OrderKey, Price, Side};

use super::super::calendar::Hours;
use super::super::clock::Moment;
use super::super::instrument::Instrument;
use super::super::names;
use super::super::orders::{IsSeen, Misfit, Orders};
use super::super::scale::Scale;
use super::{Entry, Market, Telling};
use crate::mapper::{Output, Reason, Resync};

/// How many books a day may have; the exchange has some thousands.
const MAX_BOOKS: usize = 65_536;

/// How many orders are kept, over all books: some 300 MB. A day has about a tenth of it at a time.
const MAX_ORDERS: usize = 4 << 20;

/// The products of the equity market, by their numbers in `R`.
const PRODUCT_CASH: u8 = 5;
const PRODUCT_WARRANT: u8 = 14;
const PRODUCT_CERTIFICATE: u8 = 18;

impl Market {
    /// Takes one message of the feed.
    pub(in crate::bist) fn apply(&mut self, entry: Entry<'_>, out: &mut Output) {
        let done = match Message::decode(entry.bytes) {
            Ok(message) => self.on_message(message, entry, out),
            Err(DecodeError::UnknownType(_)) => Err(Reason::UnknownEvent),
            Err(DecodeError::Empty | DecodeError::Length { .. } | DecodeError::Value { .. }) => Err(Reason::BadShape),
        };
        if let Err(reason) = done {
            out.skipped.push(reason);
        }
    }

    // See `Message::decode`.
    #[inline(always)]
    fn on_message(&mut self, message: Message<'_>, entry: Entry<'_>, out: &mut Output) -> Result<(), Reason> {
        match message {
            Message::Add(m) => self.on_add(m.ns, m.order, m.price, m.quantity, entry, out),
            Message::AddByParticipant(m) => self.on_add(m.ns, m.order, m.price, m.quantity, entry, out),
            Message::Delete(m) => self.on_order(m.ns, m.order, entry, out, |orders| {
                orders.delete(m.order.side, m.order.id).map(|seen| ((), seen))
            }),
            Message::Executed(m) => self.on_executed(m.ns, m.order, m.quantity, m.match_id, entry, out),
            Message::ExecutedAtPrice(m) => self.on_executed_at_price(&m, entry, out),
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
            Message::Seconds(m) => self.on_second(m.second, entry, out),
            Message::Flush(m) => self.on_flush(m.book, m.ns, entry, out),
            Message::Equilibrium(m) => {
                let Some(at) = self.note(m.book, m.ns, entry)? else { return Ok(()) };
                self.instruments[at].on_equilibrium(m);
                self.mark(at);
                Ok(())
            }
            Message::BookState(m) => self.on_state(m.book, m.ns, m.state.to_string(), entry, out),
            Message::Directory(m) => self.on_directory(&m, entry, out),
            Message::TickSize(m) => match self.at(m.book)? {
                Some(at) => self.instruments[at].on_tick_size(m),
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
                self.lose_trade(at, entry, out);
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
        if done == Err(Reason::BadNumber) {
            self.lose_trade(at, entry, out);
        }
        if let Some(end) = self.instruments[at].candles.next_end() {
            self.next_end = self.next_end.min(end);
        }
        self.mark(at);
        done
    }

    /// A trade happened, and nobody can tell at which price.
    fn lose_trade(&mut self, at: usize, entry: Entry<'_>, out: &mut Output) {
        if entry.telling == Telling::News {
            let instrument = &mut self.instruments[at];
            instrument.lose_trade();
            instrument.give_up_candles(entry.received_at, &self.wanted, out);
            self.gave_up_candles = true;
        }
    }

    fn on_second(&mut self, second: u32, entry: Entry<'_>, out: &mut Output) -> Result<(), Reason> {
        let lag_before = self.clock.lag();
        // Every candle that is open would be closed by it, or all that is traded until the next one left out.
        let goes_back = entry.telling == Telling::News && self.clock.goes_back(second, entry.received_at);
        if goes_back || !self.clock.on_second(second, entry.received_at, self.believed_ahead_ms()) {
            self.clock.forget_second();
            return Err(Reason::BadTime);
        }
        if entry.telling == Telling::News {
            let moment = self.clock.at(0, entry.received_at);
            self.catch_up.on_second(moment.ts, entry.received_at, lag_before);
            self.close_candles(moment, out);
            if std::mem::take(&mut self.gave_up_candles) {
                self.instruments.iter_mut().for_each(|instrument| instrument.resume_candles(moment.ts));
                // What was given up ends too.
                self.next_end = i64::MIN;
            }
        }
        Ok(())
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

    fn on_directory(&mut self, directory: &Directory<'_>, entry: Entry<'_>, out: &mut Output) -> Result<(), Reason> {
        let symbol = names::shown(&directory.symbol.to_string()).ok_or(Reason::UnknownSymbol)?;
        if self.books.len() >= MAX_BOOKS && self.books.get(directory.book).is_none() {
            return Err(Reason::OutOfRange);
        }
        let moment = self.clock.at(directory.ns, entry.received_at);
        if !self.is_admitted(&symbol) {
            self.assign(directory.book, None, entry.sequence, moment);
            return Ok(());
        }
        let Some(scale) = Scale::new(directory.price_decimals) else {
            // Without decimals its prices mean nothing.
            self.assign(directory.book, None, entry.sequence, moment);
            return Err(Reason::BadNumber);
        };
        let known = self.by_symbol.get(&symbol).copied();
        let is_new = known.is_none();
        let at = match known {
            Some(at) => at,
            None => {
                let at = u16::try_from(self.instruments.len()).map_err(|_| Reason::OutOfRange)?;
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
                self.by_symbol.insert(symbol, at);
                at
            }
        };
        self.assign(directory.book, Some(at), entry.sequence, moment);
        let instrument = &mut self.instruments[usize::from(at)];
        instrument.note(entry.sequence, moment);
        self.gave_up_candles |= instrument.on_directory(scale, self.is_whole, &self.wanted, out);
        if is_new && !self.is_whole {
            // Nobody has seen what it did before.
            instrument.lose_trade();
        }
        if is_new && self.lacks_orders && entry.telling == Telling::News {
            self.distrust(at.into(), Resync::Gap, entry.received_at, out);
        }
        self.meet(at.into(), entry.received_at, out);
        Ok(())
    }

    /// The number of a book belongs to this instrument from now on; `None`: to one of which nothing is told. Neither the one
    /// that had the number nor the one that had another has anything left of the book before.
    fn assign(&mut self, book: u32, to: Option<u16>, sequence: u64, moment: Moment) {
        let before = self.books.replace(book, to).flatten();
        if before == to {
            return;
        }
        if let Some(at) = before {
            self.instruments[usize::from(at)].number = None;
            self.vacate(at.into(), sequence, moment);
        }
        if let Some(at) = to
            && let Some(other) = self.instruments[usize::from(at)].number.replace(book)
        {
            self.books.replace(other, None);
            self.vacate(at.into(), sequence, moment);
        }
    }

    fn vacate(&mut self, at: usize, sequence: u64, moment: Moment) {
        let instrument = &mut self.instruments[at];
        self.orders -= instrument.orders.len();
        instrument.note(sequence, moment);
        instrument.vacate();
        self.mark(at);
    }
}

fn other(side: Side) -> Side {
    match side {
        Side::Buy => Side::Sell,
        Side::Sell => Side::Buy,
    }
}
