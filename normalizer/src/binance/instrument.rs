//! All that is kept of one symbol, and what its frames become.

use std::collections::BTreeMap;

use akis_connectors::Request;
use akis_model::{Book, Candle, Channel, ChannelState, Decimal, Kind, PriceTick, Provenance, Side, TimeSource, Trade};

use super::depth::{DepthBook, Diff, Hitch, Shown, Snapshot};
use super::market::Market;
use super::names::segment;
use super::series::Candles;
use super::tape::{Tape, Told, Trades};
use super::wire;
use crate::candles::Interval;
use crate::mapper::{History, Output, Reason};
use crate::trading::Trading;
use crate::update::{Payload, Update, is_believable};

/// A book that is rebuilt within this time is not worth a message.
const RESYNC_TOLD_MS: i64 = 1_000;

/// The most candles that are asked for at once.
const MOST_CANDLES: u32 = 500;

/// The clocks of the venue and of this machine may differ by so much.
const CLOSED_FOR_SURE_MS: i64 = 5_000;

/// Where a frame came from and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) connection: u32,
    pub(super) received_at: i64,
}

impl Origin {
    fn venue(self) -> Provenance {
        Provenance { ts_source: TimeSource::Venue, received_at: self.received_at }
    }
}

/// One symbol.
#[derive(Debug)]
pub(super) struct Instrument {
    /// The common form, `BTC/USDT`.
    pub(super) common: String,
    /// Whether its book is wanted.
    pub(super) asks_for_books: bool,
    /// Whether its candles are wanted.
    pub(super) wants_candles: bool,
    /// Whether the candles of the past have been asked for.
    pub(super) has_past: bool,
    symbol: String,
    trading: Trading,
    channels: Channels,
    quote: Quote,
    statistics: Statistics,
    tape: Option<Tape>,
    trades: Trades,
    candles: BTreeMap<String, Candles>,
    /// The open time of the newest candle of each interval, and whether it is known how it closed.
    reached: BTreeMap<Interval, (i64, bool)>,
    book: DepthBook,
    resync_told: bool,
}

#[derive(Debug)]
struct Channels {
    stem: String,
    ticker: Channel,
    trades: Channel,
    book: Channel,
}

/// The latest of `bookTicker`.
#[derive(Debug, Default)]
struct Quote {
    update_id: u64,
    bid: Option<(Decimal, Decimal)>,
    ask: Option<(Decimal, Decimal)>,
}

/// The latest of `24hrTicker`.
#[derive(Debug, Default)]
struct Statistics {
    last: Option<Decimal>,
    open: Option<Decimal>,
    high: Option<Decimal>,
    low: Option<Decimal>,
    volume: Option<Decimal>,
    quote_volume: Option<Decimal>,
    change_pct: Option<Decimal>,
}

impl Instrument {
    /// `None` when no channel can hold the symbol.
    pub(super) fn new(market: Market, symbol: &str, common: String) -> Option<Self> {
        let stem = format!("{}:{}", market.source, segment(symbol));
        let channel = |facet: &str| Channel::parse(&format!("{stem}:{facet}")).ok();
        let channels =
            Channels { ticker: channel("ticker")?, trades: channel("trades")?, book: channel("book")?, stem };
        Some(Self {
            common,
            asks_for_books: false,
            wants_candles: false,
            has_past: false,
            symbol: symbol.to_owned(),
            trading: Trading::default(),
            reached: BTreeMap::new(),
            channels,
            quote: Quote::default(),
            statistics: Statistics::default(),
            tape: None,
            trades: Trades::default(),
            candles: BTreeMap::new(),
            book: DepthBook::new(market.sequence),
            resync_told: false,
        })
    }

    /// The channels of a kind; none for kinds that the venue does not have.
    pub(super) fn channels(&self, kind: Kind) -> Vec<Channel> {
        match kind {
            Kind::Ticker => vec![self.channels.ticker.clone()],
            Kind::Trades => vec![self.channels.trades.clone()],
            Kind::Book => vec![self.channels.book.clone()],
            Kind::Candles => {
                Interval::ALL.into_iter().filter_map(|interval| self.candle_channel(interval.as_str())).collect()
            }
            Kind::Session | Kind::App => Vec::new(),
        }
    }

    /// `None` for an interval that has no channel.
    fn candle_channel(&self, interval: &str) -> Option<Channel> {
        let channel = Channel::parse(&format!("{}:{interval}", self.channels.stem)).ok()?;
        (channel.kind() == Kind::Candles).then_some(channel)
    }

    pub(super) fn on_book_ticker(
        &mut self,
        ticker: &wire::BookTicker<'_>,
        origin: Origin,
        out: &mut Output,
    ) -> Result<(), Reason> {
        let side = |price: wire::Number<'_>, qty: wire::Number<'_>| {
            let (price, qty) = (price.unsigned()?, qty.unsigned()?);
            // The venue writes an empty side with zeros.
            Ok((!price.is_zero()).then_some((price, qty)))
        };
        let bid = side(ticker.bid, ticker.bid_qty)?;
        let ask = side(ticker.ask, ticker.ask_qty)?;
        out.data = true;
        if let (Some((bid, _)), Some((ask, _))) = (bid, ask)
            && bid >= ask
        {
            return Err(Reason::Crossed);
        }
        if ticker.update_id < self.quote.update_id {
            return Err(Reason::Stale);
        }
        self.quote = Quote { update_id: ticker.update_id, bid, ask };
        match ticker.event_time {
            Some(time) => self.tick(time, origin.venue(), out),
            // The stream of spot tells no time.
            None => {
                let provenance = Provenance { ts_source: TimeSource::Received, received_at: origin.received_at };
                self.tick(origin.received_at, provenance, out);
            }
        }
        Ok(())
    }

    pub(super) fn on_ticker(
        &mut self,
        ticker: &wire::Ticker<'_>,
        origin: Origin,
        out: &mut Output,
    ) -> Result<(), Reason> {
        self.statistics = Statistics {
            last: Some(ticker.last.unsigned()?),
            open: Some(ticker.open.unsigned()?),
            high: Some(ticker.high.unsigned()?),
            low: Some(ticker.low.unsigned()?),
            volume: Some(ticker.volume.unsigned()?),
            quote_volume: Some(ticker.quote_volume.unsigned()?),
            change_pct: Some(ticker.change_pct.signed()?),
        };
        out.data = true;
        self.tick(ticker.event_time, origin.venue(), out);
        Ok(())
    }

    /// Takes the state that the venue's list has of it, `None` when it is not there.
    pub(super) fn on_listing(&mut self, state: Option<&str>, now_ms: i64, out: &mut Output) {
        let channels = [Kind::Ticker, Kind::Trades, Kind::Book, Kind::Candles].map(|kind| self.channels(kind));
        self.trading.on_listing(state, channels.into_iter().flatten(), now_ms, out);
    }

    fn tick(&self, ts: i64, provenance: Provenance, out: &mut Output) {
        let (bid, bid_qty) = self.quote.bid.unzip();
        let (ask, ask_qty) = self.quote.ask.unzip();
        let tick = PriceTick {
            symbol: self.common.clone(),
            last: self.statistics.last,
            bid,
            bid_qty,
            ask,
            ask_qty,
            open_24h: self.statistics.open,
            high_24h: self.statistics.high,
            low_24h: self.statistics.low,
            volume_24h: self.statistics.volume,
            quote_volume_24h: self.statistics.quote_volume,
            change_24h_pct: self.statistics.change_pct,
            provenance,
        };
        out.updates.push(update(&self.channels.ticker, ts, Payload::PriceTick(Box::new(tick))));
    }

    pub(super) fn on_trade(
        &mut self,
        trade: &wire::Trade<'_>,
        tape: Tape,
        id: u64,
        origin: Origin,
        out: &mut Output,
    ) -> Result<(), Reason> {
        let (price, qty) = (trade.price.positive()?, trade.qty.positive()?);
        if *self.tape.get_or_insert(tape) != tape {
            return Err(Reason::UnknownEvent);
        }
        out.data = true;
        let side = if trade.buyer_is_maker { Side::Sell } else { Side::Buy };
        let (symbol, provenance) = (self.common.clone(), origin.venue());
        let payload = Payload::Trade(Trade { symbol, id: id.to_string(), price, qty, side: Some(side), provenance });
        // Liquidations by the insurance fund and the like were never in the book. Their ids count all the same.
        let is_of_book = trade.origin.as_deref().is_none_or(|origin| origin == "MARKET");
        let update = is_of_book.then(|| update(&self.channels.trades, trade.time, payload));
        let mut told = Vec::new();
        let taken = self.trades.take(id, update, origin.received_at, &mut told);
        tell(told, out);
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
        let mut told = Vec::new();
        self.trades.on_answer(from, &mut told);
        tell(told, out);
        Ok(())
    }

    /// The first trade that is missing, when it is to be asked for now.
    pub(super) fn missing_trades(&mut self, now_ms: i64) -> Option<u64> {
        self.trades.asks(now_ms).filter(|_| self.tape == Some(Tape::Aggregate))
    }

    /// Tells what waits for trades that are missing.
    pub(super) fn finish(&mut self, out: &mut Output) {
        let mut told = Vec::new();
        self.trades.give_up(&mut told);
        tell(told, out);
    }

    pub(super) fn on_kline(
        &mut self,
        event: &wire::KlineEvent<'_>,
        origin: Origin,
        believed_ahead_ms: i64,
        out: &mut Output,
    ) -> Result<(), Reason> {
        let kline = &event.kline;
        let channel = self.candle_channel(&kline.interval).ok_or(Reason::UnknownEvent)?;
        if kline.close_time < kline.open_time {
            return Err(Reason::OutOfRange);
        }
        // One that lies far ahead would hold up all that follow.
        if !is_believable(kline.open_time, origin.received_at, believed_ahead_ms) {
            return Err(Reason::BadTime);
        }
        let candle = Candle {
            symbol: self.common.clone(),
            interval: kline.interval.clone().into_owned(),
            open_time: kline.open_time,
            close_time: kline.close_time,
            open: kline.open.unsigned()?,
            high: kline.high.unsigned()?,
            low: kline.low.unsigned()?,
            close: kline.close.unsigned()?,
            volume: kline.volume.unsigned()?,
            trades: Some(kline.trades),
            closed: kline.closed,
            provenance: origin.venue(),
        };
        out.data = true;
        let candles = self.candles.entry(candle.interval.clone()).or_default();
        if !candles.advance(kline.open_time, kline.closed, event.event_time) {
            return Err(Reason::Stale);
        }
        self.ask_hole(kline, out);
        out.updates.push(update(&channel, event.event_time, Payload::Candle(candle)));
        Ok(())
    }

    /// Asks for the candles between the one that was seen last and this one, and for the last one itself when it is not
    /// known how it closed.
    fn ask_hole(&mut self, kline: &wire::Kline<'_>, out: &mut Output) {
        let Some(interval) = Interval::ALL.into_iter().find(|interval| interval.as_str() == kline.interval) else {
            return;
        };
        let before = self.reached.insert(interval, (kline.open_time, kline.closed));
        let Some((open_time, closed)) = before.filter(|(open_time, _)| *open_time < kline.open_time) else { return };
        let passed = (kline.open_time - open_time) / interval.length_ms();
        if self.wants_candles && (passed > 1 || !closed) {
            // One more than are missing, for meanwhile another may begin.
            let count = u32::try_from(passed + 2).unwrap_or(MOST_CANDLES).min(MOST_CANDLES);
            out.requests.push(self.ask_candles(&self.symbol, interval, count));
        }
    }

    /// The request for the latest candles.
    pub(super) fn ask_candles(&self, symbol: &str, interval: Interval, count: u32) -> Request {
        Request::Candles { symbol: symbol.to_owned(), interval: interval.as_str(), count }
    }

    /// Takes the reply to a call for candles. The running one, which comes last, is left out.
    pub(super) fn on_past_candles(
        &mut self,
        interval: Interval,
        rows: &[wire::KlineRow<'_>],
        received_at: i64,
        out: &mut Output,
    ) -> Result<(), Reason> {
        let channel = self.candle_channel(interval.as_str()).ok_or(Reason::UnknownEvent)?;
        let provenance = Provenance { ts_source: TimeSource::Venue, received_at };
        let candle = |row: &wire::KlineRow<'_>| {
            let wire::KlineRow(open_time, open, high, low, close, volume, close_time, _, trades, ..) = *row;
            Ok(Candle {
                symbol: self.common.clone(),
                interval: interval.as_str().to_owned(),
                open_time,
                close_time,
                open: open.unsigned()?,
                high: high.unsigned()?,
                low: low.unsigned()?,
                close: close.unsigned()?,
                volume: volume.unsigned()?,
                trades: Some(trades),
                closed: true,
                provenance,
            })
        };
        let closed = match rows.split_last() {
            Some((last, before)) if last.6.saturating_add(CLOSED_FOR_SURE_MS) >= received_at => before,
            _ => rows,
        };
        let candles = closed.iter().map(candle).collect::<Result<Vec<_>, Reason>>()?;
        if !candles.is_empty() {
            out.history.push(History { channel, candles });
        }
        Ok(())
    }

    pub(super) fn on_diff(&mut self, diff: Diff, origin: Origin, out: &mut Output) -> Result<(), Reason> {
        out.data = true;
        let (channel, common) = (&self.channels.book, &self.common);
        let updates = &mut out.updates;
        let done = self.book.on_diff(diff, origin.connection, &mut |shown| updates.push(book(channel, common, &shown)));
        note(done, out)
    }

    pub(super) fn on_snapshot(&mut self, snapshot: &Snapshot, out: &mut Output) -> Result<(), Reason> {
        let (channel, common) = (&self.channels.book, &self.common);
        let lost = self.book.lost();
        let mut shown_before = false;
        let (told, updates) = (&mut self.resync_told, &mut out.updates);
        let done = self.book.on_snapshot(snapshot, &mut |shown| {
            if let (false, true, Some((_, why))) = (shown_before, *told, lost) {
                let now = snapshot.received_at;
                updates.push(Update::status(channel.clone(), ChannelState::Up, now, why.as_str(), now));
                *told = false;
            }
            shown_before = true;
            updates.push(book(channel, common, &shown));
        });
        note(done, out)
    }

    pub(super) fn on_closed(&mut self, connection: u32, now_ms: i64, out: &mut Output) {
        // The venue's numbers are compared within what is connected now: one bad frame must not silence a stream
        // for longer than its connection lasts.
        self.quote.update_id = 0;
        self.candles.clear();
        if let Err(reason) = note(self.book.on_closed(connection, now_ms), out) {
            out.skipped.push(reason);
        }
    }

    /// Whether a snapshot of the book is to be asked for.
    pub(super) fn on_tick(&mut self, now_ms: i64, out: &mut Output) -> bool {
        let mut told = Vec::new();
        self.trades.on_tick(now_ms, &mut told);
        tell(told, out);
        if let Some((since, why)) = self.book.lost()
            && !self.resync_told
            && now_ms.saturating_sub(since) > RESYNC_TOLD_MS
        {
            self.resync_told = true;
            let channel = self.channels.book.clone();
            out.updates.push(Update::status(channel, ChannelState::Resyncing, since, why.as_str(), now_ms));
        }
        self.asks_for_books && !self.trading.is_delisted() && self.book.asks(now_ms)
    }
}

fn note(done: Result<(), Hitch>, out: &mut Output) -> Result<(), Reason> {
    match done {
        Ok(()) => Ok(()),
        Err(Hitch::Skipped(reason)) => Err(reason),
        Err(Hitch::Resync(why)) => {
            out.resyncs.push(why);
            Ok(())
        }
    }
}

fn tell(told: Vec<Told>, out: &mut Output) {
    for Told { missing, update } in told {
        out.lost_trades += missing;
        out.updates.extend(update.map(|update| Update { missing_before: missing, ..update }));
    }
}

fn book(channel: &Channel, common: &str, shown: &Shown<'_>) -> Update {
    let (ts, ts_source) = match shown.event_time {
        Some(time) => (time, TimeSource::Venue),
        None => (shown.received_at, TimeSource::Received),
    };
    let book = Book {
        symbol: common.to_owned(),
        bids: shown.sides.best_bids(),
        asks: shown.sides.best_asks(),
        venue_seq: shown.id.to_string(),
        provenance: Provenance { ts_source, received_at: shown.received_at },
    };
    update(channel, ts, Payload::Book(book))
}

fn update(channel: &Channel, ts: i64, payload: Payload) -> Update {
    Update { channel: channel.clone(), ts, missing_before: 0, payload }
}
