//! All that is kept of one symbol, and what its frames become.

use akis_model::{Channel, Kind, Provenance, Side, TimeSource, Trade};

use super::book::BookEvents;
use super::candles::Candles;
use super::depth::{Diff, Snapshot};
use super::market::Market;
use super::names::segment;
use super::tape::{Tape, Told, Trades};
use super::ticker::Ticker;
use super::wire;
use crate::candles::Interval;
use crate::channels::Channels;
use crate::mapper::{Output, Reason};
use crate::trading::Trading;
use crate::update::{Payload, Update};

/// Where a frame came from and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) connection: u32,
    pub(super) received_at: i64,
}

impl Origin {
    pub(super) fn venue(self) -> Provenance {
        Provenance { ts_source: TimeSource::Venue, received_at: self.received_at }
    }
}

/// In whose name something is told, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Teller<'a> {
    /// The common form, `BTC/USDT`.
    pub(super) common: &'a str,
    /// The moment by which a throttle behind would judge; `None` without one.
    pub(super) paced_ms: Option<i64>,
    /// How far the venue's clock is ahead of the one that stamps frames.
    pub(super) clock_offset_ms: i64,
}

impl Teller<'_> {
    /// When something happened that came at `received_at`: by the venue's clock, whether or not the venue tells it.
    pub(super) fn placed(self, event_time: Option<i64>, received_at: i64) -> (i64, Provenance) {
        match event_time {
            Some(time) => (time, Provenance { ts_source: TimeSource::Venue, received_at }),
            None => {
                let provenance = Provenance { ts_source: TimeSource::Received, received_at };
                (received_at.saturating_add(self.clock_offset_ms), provenance)
            }
        }
    }
}

/// One symbol.
#[derive(Debug)]
pub(super) struct Instrument {
    /// The common form, `BTC/USDT`.
    pub(super) common: String,
    /// The venue's form.
    pub(super) symbol: String,
    /// A throttle stands behind.
    pub(super) is_paced: bool,
    /// How far the venue's clock is ahead of the one that stamps frames.
    pub(super) clock_offset_ms: i64,
    /// Whether its book is wanted.
    pub(super) asks_for_books: bool,
    /// Whether its candles are wanted.
    pub(super) wants_candles: bool,
    /// The kinds whose channels are told whether it is traded.
    pub(super) states_of: Vec<Kind>,
    /// Whether the candles of the past have been asked for.
    pub(super) has_past: bool,
    trading: Trading,
    channels: Channels,
    ticker: Ticker,
    tape: Option<Tape>,
    trades: Trades,
    /// What may be missing before the next trade that is told. One at the start: the log may have others than those that were heard.
    missing: u64,
    candles: Candles,
    book: BookEvents,
    /// Emptied after each use.
    told: Vec<Told>,
}

impl Instrument {
    /// `None` when no channel can hold the symbol.
    pub(super) fn new(market: Market, symbol: &str, common: String, is_paced: bool) -> Option<Self> {
        let channels = Channels::new(market.source, &segment(symbol))?;
        Some(Self {
            common,
            symbol: symbol.to_owned(),
            asks_for_books: false,
            wants_candles: false,
            states_of: vec![Kind::Ticker, Kind::Trades, Kind::Book, Kind::Candles],
            has_past: false,
            trading: Trading::default(),
            is_paced,
            clock_offset_ms: 0,
            ticker: Ticker::new(channels.ticker.clone()),
            tape: None,
            trades: Trades::default(),
            missing: 1,
            candles: Candles::new(&channels.candles),
            book: BookEvents::new(channels.book.clone(), market.sequence),
            channels,
            told: Vec::new(),
        })
    }

    /// The channels of a kind; none for kinds that the venue does not have.
    pub(super) fn channels(&self, kind: Kind) -> &[Channel] {
        of_kind(&self.channels, kind)
    }

    pub(super) fn on_book_ticker(
        &mut self,
        ticker: &wire::BookTicker<'_>,
        origin: Origin,
        out: &mut Output,
    ) -> Result<(), Reason> {
        self.ticker.on_quote_carrier(origin.connection);
        let teller = teller(&self.common, self.is_paced, self.clock_offset_ms, origin.received_at);
        self.ticker.on_quote(ticker, origin, teller, out)
    }

    pub(super) fn on_ticker(
        &mut self,
        ticker: &wire::Ticker<'_>,
        origin: Origin,
        believed_ahead_ms: i64,
        out: &mut Output,
    ) -> Result<(), Reason> {
        self.ticker.on_statistics_carrier(origin.connection);
        let teller = teller(&self.common, self.is_paced, self.clock_offset_ms, origin.received_at);
        self.ticker.on_statistics(ticker, origin, believed_ahead_ms, teller, out)
    }

    /// Takes the state that the venue's list has of it, `None` when it is not there.
    pub(super) fn on_listing(&mut self, state: Option<&str>, now_ms: i64, out: &mut Output) {
        // A state of the channel comes behind what was in it.
        self.tell_waiting(out);
        let channels = self.states_of.iter().flat_map(|&kind| of_kind(&self.channels, kind)).cloned();
        if self.trading.on_listing(state, channels, now_ms, out) {
            self.book.forget_told_lost();
        }
    }

    pub(super) fn on_trade(
        &mut self,
        trade: &wire::Trade<'_>,
        tape: Tape,
        id: u64,
        origin: Origin,
        out: &mut Output,
    ) -> Result<(), Reason> {
        if *self.tape.get_or_insert(tape) != tape {
            return Err(Reason::UnknownEvent);
        }
        // Liquidations by the insurance fund and the like were never in the book. Their ids count all the same.
        let is_of_book = trade.origin.as_deref().is_none_or(|origin| origin == "MARKET");
        let update = if is_of_book {
            let (price, qty) = (trade.price.positive()?, trade.qty.positive()?);
            let side = if trade.buyer_is_maker { Side::Sell } else { Side::Buy };
            let (symbol, provenance) = (self.common.clone(), origin.venue());
            let trade_told = Trade { symbol, id: id.to_string(), price, qty, side: Some(side), provenance };
            Some(Update::new(&self.channels.trades, trade.time, Payload::Trade(trade_told)))
        } else {
            None
        };
        out.data = true;
        self.ticker.on_statistics_carrier(origin.connection);
        let channels = self.states_of.iter().flat_map(|&kind| of_kind(&self.channels, kind)).cloned();
        let traded_at = trade.time.saturating_sub(self.clock_offset_ms);
        if self.trading.on_trade(traded_at, channels, origin.received_at, out) {
            self.book.forget_told_lost();
        }
        let taken = self.trades.take(id, update, origin.received_at, &mut self.told);
        self.tell_trades(out);
        taken?;
        if is_of_book { Ok(()) } else { Err(Reason::OffBook) }
    }

    /// Takes the reply to a call for the trades from `from` on.
    pub(super) fn on_trades(
        &mut self,
        trades: &[wire::Trade<'_>],
        from: u64,
        received_at: i64,
        out: &mut Output,
    ) -> Result<(), Reason> {
        let origin = Origin { connection: 0, received_at };
        for trade in trades {
            let id = trade.aggregate_id.ok_or(Reason::BadShape)?;
            match self.on_trade(trade, Tape::Aggregate, id, origin, out) {
                // What came over the stream meanwhile.
                Ok(()) | Err(Reason::Duplicate) => {}
                Err(reason) => return Err(reason),
            }
        }
        self.trades.on_answer(from, &mut self.told);
        self.tell_trades(out);
        Ok(())
    }

    /// The first trade that is missing, when it is to be asked for now.
    pub(super) fn missing_trades(&mut self, now_ms: i64) -> Option<u64> {
        self.trades.asks(now_ms).filter(|_| self.tape == Some(Tape::Aggregate))
    }

    /// Tells what is held back: trades that wait for others, and what was not due.
    pub(super) fn finish(&mut self, out: &mut Output) {
        self.trades.give_up(&mut self.told);
        self.tell_trades(out);
        self.tell_waiting(out);
    }

    pub(super) fn on_kline(
        &mut self,
        event: &wire::KlineEvent<'_>,
        origin: Origin,
        believed_ahead_ms: i64,
        out: &mut Output,
    ) -> Result<(), Reason> {
        self.ticker.on_statistics_carrier(origin.connection);
        let teller = teller(&self.common, self.is_paced, self.clock_offset_ms, origin.received_at);
        let symbol = self.wants_candles.then_some(self.symbol.as_str());
        self.candles.on_kline(event, origin, believed_ahead_ms, teller, symbol, out)
    }

    /// What was told until now may have been heard by nobody: tells how things are.
    pub(super) fn tell_again(&mut self, out: &mut Output) {
        let from = out.updates.len();
        let teller = Teller { common: &self.common, paced_ms: None, clock_offset_ms: self.clock_offset_ms };
        self.ticker.tell_again(teller, out);
        self.book.tell_again(teller, out);
        self.candles.tell_again(out);
        out.mark_again(from);
    }

    /// Takes the reply to a call for candles.
    pub(super) fn on_past_candles(
        &mut self,
        interval: Interval,
        rows: &[wire::KlineRow<'_>],
        received_at: i64,
        out: &mut Output,
    ) -> Result<(), Reason> {
        let teller = teller(&self.common, self.is_paced, self.clock_offset_ms, received_at);
        self.candles.on_past(interval, rows, received_at, teller, out)
    }

    pub(super) fn on_diff(&mut self, diff: Diff, origin: Origin, out: &mut Output) -> Result<(), Reason> {
        out.data = true;
        self.ticker.on_quote_carrier(origin.connection);
        let teller = teller(&self.common, self.is_paced, self.clock_offset_ms, origin.received_at);
        self.book.on_diff(diff, origin.connection, teller, out)
    }

    pub(super) fn on_snapshot(&mut self, snapshot: &Snapshot, out: &mut Output) -> Result<(), Reason> {
        let teller = teller(&self.common, self.is_paced, self.clock_offset_ms, snapshot.received_at);
        self.book.on_snapshot(snapshot, teller, out)
    }

    pub(super) fn on_closed(&mut self, connection: u32, now_ms: i64, out: &mut Output) {
        self.candles.on_closed();
        let teller = teller(&self.common, self.is_paced, self.clock_offset_ms, now_ms);
        self.ticker.on_closed(connection, teller, out);
        self.book.on_closed(connection, now_ms, teller, out);
    }

    /// Whether its book is wanted and is to come: a symbol that never speaks has none.
    pub(super) fn awaits_book(&self) -> bool {
        self.asks_for_books && self.book.is_to_come()
    }

    /// Whether a snapshot of the book is to be asked for; `newest` is the newest connection.
    pub(super) fn on_tick(&mut self, now_ms: i64, newest: u32, out: &mut Output) -> bool {
        self.trades.on_tick(now_ms, &mut self.told);
        self.tell_trades(out);
        let teller = teller(&self.common, self.is_paced, self.clock_offset_ms, now_ms);
        self.ticker.on_tick(teller, out);
        self.book.on_tick(teller, out);
        if !self.trading.is_halted() {
            self.book.tell_lost(now_ms, out);
        }
        self.asks_for_books && !self.trading.is_delisted() && self.book.asks(now_ms, newest)
    }

    fn tell_waiting(&mut self, out: &mut Output) {
        let teller = Teller { common: &self.common, paced_ms: None, clock_offset_ms: self.clock_offset_ms };
        self.ticker.tell_waiting(teller, out);
        self.book.tell_waiting(teller, out);
    }

    fn tell_trades(&mut self, out: &mut Output) {
        for Told { missing, update } in self.told.drain(..) {
            out.lost_trades += missing;
            self.missing = self.missing.saturating_add(missing);
            if let Some(update) = update {
                out.updates.push(Update { missing_before: std::mem::take(&mut self.missing), ..update });
            }
        }
    }
}

fn of_kind(channels: &Channels, kind: Kind) -> &[Channel] {
    match kind {
        Kind::Ticker | Kind::Trades | Kind::Book | Kind::Candles => channels.of(kind),
        Kind::Session | Kind::App => &[],
    }
}

fn teller(common: &str, is_paced: bool, clock_offset_ms: i64, now_ms: i64) -> Teller<'_> {
    Teller { common, paced_ms: is_paced.then_some(now_ms), clock_offset_ms }
}
