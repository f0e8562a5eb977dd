//! All that is kept of one symbol, and what its frames become.

use std::collections::BTreeMap;

use akis_model::{Book, Candle, Channel, ChannelState, Decimal, Kind, PriceTick, Provenance, Side, TimeSource, Trade};

use super::depth::{DepthBook, Diff, Hitch, Shown, Snapshot};
use super::market::Market;
use super::names::segment;
use super::series::{Candles, Ids, Place, Tape};
use super::wire;
use crate::candles::Interval;
use crate::mapper::{Output, Reason};
use crate::update::{Payload, Update};

/// A book that is rebuilt within this time is not worth a message.
const RESYNC_TOLD_MS: i64 = 1_000;

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
    channels: Channels,
    quote: Quote,
    statistics: Statistics,
    tape: Option<Tape>,
    trades: Ids,
    candles: BTreeMap<String, Candles>,
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
            channels,
            quote: Quote::default(),
            statistics: Statistics::default(),
            tape: None,
            trades: Ids::default(),
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
        let missing_before = match self.trades.place(id) {
            Place::Next { missing } => missing,
            Place::Repeated => return Err(Reason::Duplicate),
            Place::Far => return Err(Reason::OutOfRange),
        };
        out.lost_trades += missing_before;
        // Liquidations by the insurance fund and the like were never in the book. Their ids count all the same.
        if trade.origin.as_deref().is_some_and(|origin| origin != "MARKET") {
            return Err(Reason::OffBook);
        }
        let side = if trade.buyer_is_maker { Side::Sell } else { Side::Buy };
        let (symbol, id, provenance) = (self.common.clone(), id.to_string(), origin.venue());
        let payload = Payload::Trade(Trade { symbol, id, price, qty, side: Some(side), provenance });
        let channel = self.channels.trades.clone();
        out.updates.push(Update { channel, ts: trade.time, missing_before, payload });
        Ok(())
    }

    pub(super) fn on_kline(
        &mut self,
        event: &wire::KlineEvent<'_>,
        origin: Origin,
        out: &mut Output,
    ) -> Result<(), Reason> {
        let kline = &event.kline;
        let channel = self.candle_channel(&kline.interval).ok_or(Reason::UnknownEvent)?;
        if kline.close_time < kline.open_time {
            return Err(Reason::OutOfRange);
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
        out.updates.push(update(&channel, event.event_time, Payload::Candle(candle)));
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
        if let Some((since, why)) = self.book.lost()
            && !self.resync_told
            && now_ms.saturating_sub(since) > RESYNC_TOLD_MS
        {
            self.resync_told = true;
            let channel = self.channels.book.clone();
            out.updates.push(Update::status(channel, ChannelState::Resyncing, since, why.as_str(), now_ms));
        }
        self.asks_for_books && self.book.asks(now_ms)
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
