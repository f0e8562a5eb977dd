//! All that is kept of one pair, and what its frames become.

use akis_model::{Book, Candle, Channel, ChannelState, Kind, PriceTick, Provenance, Side, TimeSource, Trade};

use super::SOURCE;
use super::candles::Candles;
use super::depth::{BookFrame, PairBook};
use super::tape::{Key, Tape};
use super::told::Told;
use super::wire::{self, Levels};
use crate::candles::{self, Bar, Interval, Shown};
use crate::channels::Channels;
use crate::mapper::{History, Output, RESYNC_TOLD_MS, Reason};
use crate::trading::Trading;
use crate::update::{BELIEVED_AHEAD_MS, Payload, Update, is_believable};
use crate::wire::Number;

/// Where a frame came from and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) connection: u32,
    pub(super) received_at: i64,
}

/// What is wanted of the venue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// Its book, by leaving and joining again.
    pub(super) book: bool,
    /// Its minutes.
    pub(super) candles: bool,
    /// Its last trades, to compare them with what came.
    pub(super) trades: bool,
}

/// One pair.
#[derive(Debug)]
pub(super) struct Instrument {
    /// The common form, `BTC/TRY`.
    pub(super) common: String,
    /// How far the venue's clock is ahead of the one that stamps frames; `None` while it was not measured.
    pub(super) clock_offset_ms: Option<i64>,
    /// The kinds of channels that are wanted: only for those the venue is asked.
    wanted: Vec<Kind>,
    trading: Trading,
    channels: Channels,
    ticker: Option<PriceTick>,
    tape: Tape,
    /// Whether any trade was told.
    has_traded: bool,
    candles: Candles,
    told: Told,
    /// Whether what is known is to be told again, for nobody may have heard it.
    tells_again: bool,
    book: PairBook,
    /// Number of the book that was told last, and when it came.
    told_book: Option<(i64, i64)>,
    /// Whether it was told that the book is lost, and nothing else of its channel's state since.
    resync_told: bool,
}

impl Instrument {
    /// `None` when no channel can hold the pair.
    pub(super) fn new(pair: &str, common: String, wanted: Vec<Kind>) -> Option<Self> {
        let channels = Channels::new(SOURCE, pair)?;
        Some(Self {
            common,
            clock_offset_ms: None,
            wanted,
            trading: Trading::default(),
            channels,
            ticker: None,
            tape: Tape::default(),
            has_traded: false,
            candles: Candles::default(),
            told: Told::default(),
            tells_again: false,
            book: PairBook::default(),
            told_book: None,
            resync_told: false,
        })
    }

    /// The channels of a kind; none of kinds that the venue does not have.
    pub(super) fn channels(&self, kind: Kind) -> &[Channel] {
        of_kind(&self.channels, kind)
    }

    /// Takes the state that the venue's list has of it, `None` when it is not there.
    pub(super) fn on_listing(&mut self, state: Option<&str>, now_ms: i64, out: &mut Output) {
        let channels = self.wanted.iter().flat_map(|&kind| of_kind(&self.channels, kind)).cloned();
        if self.trading.on_listing(state, channels, now_ms, out) {
            self.resync_told = false;
        }
    }

    /// Takes a ticker; a `carrier` has been asked for candles before.
    pub(super) fn on_ticker(
        &mut self,
        ticker: &wire::Ticker<'_>,
        at: Origin,
        carrier: Option<u32>,
        out: &mut Output,
    ) -> Result<(), Reason> {
        let side = |price: Number<'_>, qty: Number<'_>| {
            let (price, qty) = (price.unsigned()?, qty.unsigned()?);
            // An empty side has no price.
            Ok((!price.is_zero()).then_some((price, qty)))
        };
        let (bid, bid_qty) = side(ticker.bid, ticker.bid_qty)?.unzip();
        let (ask, ask_qty) = side(ticker.ask, ticker.ask_qty)?.unzip();
        let tick = PriceTick {
            symbol: self.common.clone(),
            last: Some(ticker.last.unsigned()?),
            bid,
            bid_qty,
            ask,
            ask_qty,
            open_24h: Some(ticker.open.unsigned()?),
            high_24h: Some(ticker.high.unsigned()?),
            low_24h: Some(ticker.low.unsigned()?),
            volume_24h: Some(ticker.volume.unsigned()?),
            quote_volume_24h: None,
            change_24h_pct: Some(ticker.change_pct.signed()?),
            // The frame tells no time.
            provenance: received(at.received_at),
        };
        self.flows(carrier, out);
        if bid.zip(ask).is_some_and(|(bid, ask)| bid >= ask) {
            return Err(Reason::Crossed);
        }
        // Two of three frames say what was said before.
        let repeated = |known: &PriceTick| PriceTick { provenance: tick.provenance, ..known.clone() } == tick;
        if self.ticker.as_ref().is_some_and(repeated) {
            return Err(Reason::Duplicate);
        }
        self.tell_tick(&tick, out);
        self.ticker = Some(tick);
        Ok(())
    }

    fn tell_tick(&self, tick: &PriceTick, out: &mut Output) {
        let ts = self.placed(tick.provenance.received_at);
        out.updates.push(Update::new(&self.channels.ticker, ts, Payload::PriceTick(Box::new(tick.clone()))));
    }

    /// Takes a `422`.
    pub(super) fn on_trade(&mut self, trade: &wire::Trade<'_>, at: Origin, out: &mut Output) -> Result<(), Reason> {
        let trade = self.read_trade(trade, at.received_at)?;
        self.flows(Some(at.connection), out);
        let missing = self.tape.single(trade.key, at.connection)?;
        if trade.key.time == trade.time {
            self.candles.on_venue_time(trade.time, at.received_at);
        }
        self.tell_trade(&trade, missing, at.received_at, out)
    }

    /// Takes a list of trades, that of a `421` or, without a connection, that of REST. A bad item costs no other.
    pub(super) fn on_trades(
        &mut self,
        items: &[wire::Trade<'_>],
        connection: Option<u32>,
        received_at: i64,
        out: &mut Output,
    ) {
        self.flows(connection, out);
        let mut trades = Vec::new();
        for item in items {
            match self.read_trade(item, received_at) {
                Ok(trade) => trades.push(trade),
                Err(reason) => out.skipped.push(reason),
            }
        }
        trades.sort_unstable_by_key(|trade| trade.key);
        trades.dedup_by_key(|trade| trade.key);
        let keys = trades.iter().map(|trade| trade.key).collect();
        let (mut new, mut missing) = self.tape.list(keys, connection);
        if let (true, Some(newest)) = (new.is_empty(), trades.last()) {
            self.candles.on_trades_known_until(newest.key.time);
            // The last one from before us is told too: where the log ends with it, nothing was lost in between.
            if !self.has_traded && self.wanted.contains(&Kind::Trades) {
                new.push(newest.key);
            }
        }
        for trade in trades.iter().filter(|trade| new.binary_search(&trade.key).is_ok()) {
            if let Err(reason) = self.tell_trade(trade, std::mem::take(&mut missing), received_at, out) {
                out.skipped.push(reason);
            }
        }
    }

    fn tell_trade(
        &mut self,
        trade: &ReadTrade,
        missing: u64,
        received_at: i64,
        out: &mut Output,
    ) -> Result<(), Reason> {
        out.lost_trades += missing;
        let channels = self.wanted.iter().flat_map(|&kind| of_kind(&self.channels, kind)).cloned();
        let traded_at = trade.key.time.saturating_sub(self.clock_offset_ms.unwrap_or_default());
        if self.trading.on_trade(traded_at, channels, received_at, out) {
            self.resync_told = false;
        }
        let provenance = Provenance { ts_source: TimeSource::Venue, received_at };
        let payload = Payload::Trade(Trade {
            symbol: self.common.clone(),
            id: trade.key.id.to_string(),
            price: trade.price,
            qty: trade.qty,
            side: trade.side,
            provenance,
        });
        // The log may have others than those that were heard from the start on.
        let is_first = !std::mem::replace(&mut self.has_traded, true);
        let missing_before = missing + u64::from(is_first);
        out.updates.push(Update { missing_before, ..Update::new(&self.channels.trades, trade.time, payload) });
        let mut shown = Vec::new();
        let taken = candles::Trade { time: trade.key.time, price: trade.price, qty: trade.qty };
        let done = self.candles.on_trade(&taken, missing, &mut shown);
        self.tell_candles(shown, received_at, out);
        done
    }

    /// Takes a `428` of a minute.
    pub(super) fn on_candle(
        &mut self,
        candle: &wire::TradingView<'_>,
        at: Origin,
        out: &mut Output,
    ) -> Result<(), Reason> {
        let bar = bar([candle.open, candle.high, candle.low, candle.close, candle.volume])?;
        let open_time = candle.open_time_s.checked_mul(1_000).ok_or(Reason::OutOfRange)?;
        self.flows(Some(at.connection), out);
        // A candle has no place but that of its time.
        if !self.believes(open_time, at.received_at) {
            return Err(Reason::BadTime);
        }
        let mut shown = Vec::new();
        let done = self.candles.on_running(open_time, bar, at, &mut shown);
        self.tell_candles(shown, at.received_at, out);
        done
    }

    /// Takes the minutes that REST tells of.
    pub(super) fn on_klines(
        &mut self,
        rows: &wire::Klines<'_>,
        received_at: i64,
        out: &mut Output,
    ) -> Result<(), Reason> {
        let columns = [&rows.o, &rows.h, &rows.l, &rows.c, &rows.v];
        if columns.iter().any(|column| column.len() != rows.t.len()) {
            return Err(Reason::BadShape);
        }
        let mut minutes = Vec::with_capacity(rows.t.len());
        for (row, open_time_s) in rows.t.iter().enumerate() {
            let open_time = open_time_s.checked_mul(1_000).ok_or(Reason::OutOfRange)?;
            let [Some(o), Some(h), Some(l), Some(c), Some(v)] = columns.map(|column| column.get(row).copied()) else {
                return Err(Reason::BadShape);
            };
            if !self.believes(open_time, received_at) {
                return Err(Reason::BadTime);
            }
            minutes.push((open_time, bar([o, h, l, c, v])?));
        }
        let (mut past, mut shown) = (Vec::new(), Vec::new());
        let done = self.candles.on_history(&minutes, &mut past, &mut shown);
        for (interval, channel) in Interval::ALL.iter().zip(&self.channels.candles) {
            let own = past.iter().filter(|shown| shown.interval == *interval);
            let candles: Vec<Candle> = own.map(|shown| self.candle(shown, received_at)).collect();
            if !candles.is_empty() {
                out.history.push(History { channel: channel.clone(), candles });
            }
        }
        let late = self.told.late(&past, &shown);
        late.iter().for_each(|late| self.tell_candle(late, received_at, out));
        self.tell_candles(shown, received_at, out);
        done
    }

    /// The candles of the past are wanted.
    pub(super) fn backfill(&mut self) {
        self.candles.backfill();
        self.tells_again = true;
    }

    fn tell_again(&mut self, now_ms: i64, out: &mut Output) {
        let from = out.updates.len();
        if let Some(tick) = &self.ticker {
            self.tell_tick(tick, out);
        }
        if let Some((change_set, received_at)) = self.told_book.filter(|_| self.book.is_live()) {
            self.show(change_set, received_at, out);
        }
        self.told.again().iter().for_each(|shown| self.tell_candle(shown, now_ms, out));
        out.mark_again(from);
    }

    fn tell_candles(&mut self, shown: Vec<Shown>, received_at: i64, out: &mut Output) {
        for shown in shown {
            if !self.told.has_ended(&shown) {
                self.tell_candle(&shown, received_at, out);
            }
        }
    }

    fn tell_candle(&mut self, shown: &Shown, received_at: i64, out: &mut Output) {
        self.told.note(shown);
        // The order of `Interval::ALL` is that of the variants.
        let channel = &self.channels.candles[shown.interval as usize];
        let candle = self.candle(shown, received_at);
        out.updates.push(Update::new(channel, self.placed(received_at), Payload::Candle(candle)));
    }

    fn candle(&self, shown: &Shown, received_at: i64) -> Candle {
        let Bar { open, high, low, close, volume, trades } = shown.bar;
        Candle {
            symbol: self.common.clone(),
            interval: shown.interval.as_str().to_owned(),
            open_time: shown.span.open_time,
            close_time: shown.span.close_time(),
            open,
            high,
            low,
            close,
            volume,
            trades,
            closed: shown.closed,
            // Neither frames nor replies tell when they were made.
            provenance: received(received_at),
        }
    }

    /// Takes a `431`.
    pub(super) fn on_whole(&mut self, book: &wire::Book<'_>, at: Origin, out: &mut Output) -> Result<(), Reason> {
        self.flows(Some(at.connection), out);
        let (bids, asks) = self.levels(book.whole(), at, out)?;
        let lost = self.book.lost();
        let frame = BookFrame {
            change_set: book.change_set,
            connection: at.connection,
            received_at: at.received_at,
            bids,
            asks,
        };
        let resyncs = out.resyncs.len();
        out.note(self.book.on_whole(&frame))?;
        if out.resyncs.len() > resyncs {
            return Ok(());
        }
        if let (true, Some((_, why))) = (std::mem::take(&mut self.resync_told), lost) {
            let (channel, now) = (self.channels.book.clone(), at.received_at);
            out.updates.push(Update::status(channel, ChannelState::Up, now, why.as_str(), now));
        }
        self.show(frame.change_set, frame.received_at, out);
        Ok(())
    }

    /// Takes a `432`.
    pub(super) fn on_change(&mut self, book: &wire::Book<'_>, at: Origin, out: &mut Output) -> Result<(), Reason> {
        self.flows(Some(at.connection), out);
        let (bids, asks) = self.levels(book.changes(), at, out)?;
        let frame = BookFrame {
            change_set: book.change_set,
            connection: at.connection,
            received_at: at.received_at,
            bids,
            asks,
        };
        let resyncs = out.resyncs.len();
        out.note(self.book.on_change(&frame))?;
        if out.resyncs.len() == resyncs {
            self.show(frame.change_set, frame.received_at, out);
        }
        Ok(())
    }

    /// The levels of a frame; after one that cannot be read the book is not known.
    fn levels(&mut self, read: Result<Levels, Reason>, at: Origin, out: &mut Output) -> Result<Levels, Reason> {
        if read.is_err() {
            out.note(self.book.on_unreadable(at.connection, at.received_at))?;
        }
        read
    }

    fn show(&mut self, change_set: i64, received_at: i64, out: &mut Output) {
        self.told_book = Some((change_set, received_at));
        let book = Book {
            symbol: self.common.clone(),
            bids: self.book.sides().best_bids(),
            asks: self.book.sides().best_asks(),
            venue_seq: change_set.to_string(),
            // The frame tells no time.
            provenance: received(received_at),
        };
        let ts = self.placed(received_at);
        out.updates.push(Update::new(&self.channels.book, ts, Payload::Book(book)));
    }

    pub(super) fn on_closed(&mut self, connection: u32, now_ms: i64, out: &mut Output) {
        self.ticker = None;
        self.tape.on_closed(connection);
        self.candles.on_closed(connection);
        if let Err(reason) = out.note(self.book.on_closed(connection, now_ms)) {
            out.skipped.push(reason);
        }
    }

    /// What is to be asked of the venue now. All that it sent until `read_until` has been read.
    pub(super) fn on_tick(&mut self, now_ms: i64, read_until: Option<i64>, out: &mut Output) -> Wish {
        if self.trading.is_delisted() {
            return Wish::default();
        }
        if let Some((since, why)) = self.book.lost()
            && !self.resync_told
            && !self.trading.is_halted()
            && now_ms.saturating_sub(since) > RESYNC_TOLD_MS
        {
            self.resync_told = true;
            let channel = self.channels.book.clone();
            out.updates.push(Update::status(channel, ChannelState::Resyncing, since, why.as_str(), now_ms));
        }
        if std::mem::take(&mut self.tells_again) {
            self.tell_again(now_ms, out);
        }
        let mut shown = Vec::new();
        let asks = self.candles.on_tick(now_ms, read_until, self.clock_offset_ms, &mut shown);
        self.tell_candles(shown, now_ms, out);
        let wants = |kind| self.wanted.contains(&kind);
        Wish {
            book: wants(Kind::Book) && self.book.asks(now_ms),
            candles: asks && wants(Kind::Candles),
            trades: wants(Kind::Trades) && self.tape.asks(now_ms),
        }
    }

    /// When something came of which the venue does not tell when it was, by its clock.
    fn placed(&self, received_at: i64) -> i64 {
        received_at.saturating_add(self.clock_offset_ms.unwrap_or_default())
    }

    fn believes(&self, time: i64, received_at: i64) -> bool {
        is_believable(time, self.placed(received_at), BELIEVED_AHEAD_MS)
    }

    fn read_trade(&self, trade: &wire::Trade<'_>, received_at: i64) -> Result<ReadTrade, Reason> {
        let time: i64 = trade.time.text().parse().map_err(|_| Reason::BadNumber)?;
        let id: u128 = trade.id.text().parse().map_err(|_| Reason::BadNumber)?;
        let (price, qty) = (trade.price.positive()?, trade.qty.positive()?);
        if time < 0 {
            return Err(Reason::OutOfRange);
        }
        let place = if self.believes(time, received_at) { time } else { self.placed(received_at) };
        Ok(ReadTrade { key: Key { time: place, id }, time, price, qty, side: taker_side(trade.side) })
    }

    /// Takes note that the pair's data comes, of use or not.
    fn flows(&mut self, carrier: Option<u32>, out: &mut Output) {
        out.data = true;
        self.candles.on_flow(carrier);
    }
}

fn of_kind(channels: &Channels, kind: Kind) -> &[Channel] {
    match kind {
        Kind::Ticker | Kind::Trades | Kind::Book | Kind::Candles => channels.of(kind),
        Kind::Session | Kind::App => &[],
    }
}

/// A trade whose values have been read.
#[derive(Debug, Clone, Copy)]
struct ReadTrade {
    /// Its place among the others. A time that cannot be true is not trusted to tell it: then it is that of receiving.
    key: Key,
    /// The venue's time as it came.
    time: i64,
    price: akis_model::Decimal,
    qty: akis_model::Decimal,
    side: Option<Side>,
}

/// The taker's side by a trade's `S`, 0 or 1.
///
/// The venue's documents say that 0 is a buy; a comparison of live trades with `/api/v2/trades` in August 2026 found
/// 0 to be a sell. Until that is settled nobody is told a side that may be the wrong one.
fn taker_side(_code: Option<u8>) -> Option<Side> {
    None
}

fn bar(numbers: [Number<'_>; 5]) -> Result<Bar, Reason> {
    let [open, high, low, close, volume] = numbers;
    let (open, high) = (open.unsigned()?, high.unsigned()?);
    let (low, close) = (low.unsigned()?, close.unsigned()?);
    if low > open.min(close) || high < open.max(close) {
        return Err(Reason::OutOfRange);
    }
    Ok(Bar { open, high, low, close, volume: volume.unsigned()?, trades: None })
}

fn received(received_at: i64) -> Provenance {
    Provenance { ts_source: TimeSource::Received, received_at }
}
