//! All that is kept of one instrument, and what becomes of it in events.

use akis_connectors::bist::itch::{Directory, Equilibrium, Price, Side, TickSize};
use akis_model::{
    AuctionTick, Book, Candle, Channel, ChannelState, Decimal, DecimalError, Kind, Level, MarketState, MarketStatus,
    PriceTick, Provenance, Trade,
};

use super::SOURCE;
use super::calendar::Hours;
use super::candles::Candles;
use super::clock::Moment;
use super::names::segment;
use super::orders::Orders;
use super::state::{is_auction, meaning};
use super::wanted::Wanted;
use crate::book::SHOWN_LEVELS;
use crate::candles::{Interval, Shown};
use crate::mapper::{Output, Reason, Resync};
use crate::throttle::interval_ms;
use crate::update::{Payload, Update};

/// A book that is rebuilt within this time is not worth a message.
const RESYNC_TOLD_MS: i64 = 1_000;

/// The entries of a table of tick sizes that are kept; the exchange uses about ten.
const MAX_TICKS: usize = 64;

/// One instrument.
#[derive(Debug)]
pub(super) struct Instrument {
    /// As channels show it.
    pub(super) symbol: String,
    pub(super) orders: Orders,
    pub(super) candles: Candles,
    /// By interval: whether its candles were given up, and no other has been told since.
    gave_up: [bool; Interval::ALL.len()],
    channels: Channels,
    scale: Scale,
    /// By rising price.
    ticks: Vec<TickSize>,
    state: Option<MarketState>,
    venue_state: String,
    told_state: String,
    auction: Option<Equilibrium>,
    last: Option<Decimal>,
    told_quote: Quote,
    told_book: bool,
    trust: Trust,
    /// Trades that are known to be lost and that have not been told yet.
    missing: u64,
    has_traded: bool,
    /// Whether the day's candles were begun.
    has_begun: bool,
    news: News,
    told_at: ToldAt,
}

/// What has changed since the last events, and by which message.
#[derive(Debug, Clone, Copy)]
struct News {
    book: bool,
    quote: bool,
    candles: bool,
    sequence: u64,
    moment: Moment,
}

/// When each kind was told last, milliseconds since the epoch, where it is paced.
#[derive(Debug, Clone, Copy)]
struct ToldAt {
    book: i64,
    quote: i64,
    candles: i64,
}

/// Whether the book is what the venue's is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    Proven,
    Lost { since: i64, why: Resync, told: bool },
}

#[derive(Debug)]
struct Channels {
    ticker: Channel,
    trades: Channel,
    book: Channel,
    session: Channel,
    candles: [Channel; Interval::ALL.len()],
}

/// What the integers of prices stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    /// So many digits behind the point.
    Decimals(u8),
    /// 1/256.
    Fractions,
}

/// What a tick shows.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Quote {
    last: Option<Decimal>,
    bid: Option<(Decimal, Decimal)>,
    ask: Option<(Decimal, Decimal)>,
    equilibrium: Option<(Option<Decimal>, Decimal, Decimal)>,
}

impl Instrument {
    /// `None` when no channel can hold the symbol.
    pub(super) fn new(symbol: String, hours: Hours, moment: Moment) -> Option<Self> {
        Some(Self {
            channels: Channels::new(&symbol)?,
            symbol,
            orders: Orders::default(),
            candles: Candles::new(hours),
            gave_up: [false; Interval::ALL.len()],
            scale: Scale::Decimals(0),
            ticks: Vec::new(),
            state: None,
            venue_state: String::new(),
            told_state: String::new(),
            auction: None,
            last: None,
            told_quote: Quote::default(),
            told_book: false,
            trust: Trust::Proven,
            missing: 0,
            has_traded: false,
            has_begun: false,
            news: News { book: false, quote: false, candles: false, sequence: 0, moment },
            told_at: ToldAt { book: i64::MIN, quote: i64::MIN, candles: i64::MIN },
        })
    }

    /// The channels of the kinds that are wanted.
    pub(super) fn channels(&self, wanted: &Wanted) -> Vec<Channel> {
        let c = &self.channels;
        [
            (wanted.ticker, std::slice::from_ref(&c.ticker)),
            (wanted.trades, std::slice::from_ref(&c.trades)),
            (wanted.book, std::slice::from_ref(&c.book)),
            (wanted.session, std::slice::from_ref(&c.session)),
            (wanted.candles, &c.candles[..]),
        ]
        .into_iter()
        .filter(|(is_wanted, _)| *is_wanted)
        .flat_map(|(_, channels)| channels.iter().cloned())
        .collect()
    }

    /// Takes the reference data of the day.
    pub(super) fn on_directory(&mut self, directory: &Directory<'_>) -> Result<(), Reason> {
        self.scale = Scale::new(directory.price_decimals).ok_or(Reason::BadNumber)?;
        self.ticks.clear();
        Ok(())
    }

    /// Takes an entry of the table of tick sizes.
    pub(super) fn on_tick_size(&mut self, tick: TickSize) -> Result<(), Reason> {
        let at = match self.ticks.binary_search_by_key(&tick.from.0, |entry| entry.from.0) {
            Ok(at) => {
                self.ticks[at] = tick;
                return Ok(());
            }
            Err(at) => at,
        };
        if self.ticks.len() == MAX_TICKS {
            return Err(Reason::OutOfRange);
        }
        self.ticks.insert(at, tick);
        Ok(())
    }

    /// Takes the name of a state.
    pub(super) fn on_state(&mut self, name: String, moment: Moment) {
        self.state = meaning(&name, self.state);
        self.venue_state = name;
        if !is_auction(self.state) {
            self.auction = None;
        }
        self.note(self.news.sequence, moment);
        (self.news.book, self.news.quote) = (true, true);
    }

    /// Tells the state, unless it has been told.
    pub(super) fn tell_state(&mut self, wanted: &Wanted, out: &mut Output) {
        if self.told_state == self.venue_state {
            return;
        }
        self.told_state.clone_from(&self.venue_state);
        if wanted.session {
            let status = MarketStatus {
                symbol: self.symbol.clone(),
                state: self.state,
                venue_state: self.venue_state.clone(),
                ticks: self.ticks.iter().filter_map(|tick| self.tick_level(tick)).collect(),
                provenance: provenance(self.news.moment),
            };
            out.updates.push(update(&self.channels.session, self.news.moment.ts, Payload::Market(status)));
        }
    }

    /// Takes where an auction would meet.
    pub(super) fn on_equilibrium(&mut self, auction: Equilibrium) {
        self.auction = Some(auction);
        self.news.quote = true;
    }

    /// Takes note of a message of this instrument.
    pub(super) fn note(&mut self, sequence: u64, moment: Moment) {
        (self.news.sequence, self.news.moment) = (sequence, moment);
    }

    /// The levels that are shown have changed.
    pub(super) fn book_changed(&mut self) {
        (self.news.book, self.news.quote) = (true, true);
    }

    /// Whether the book is what the venue's is.
    pub(super) fn is_proven(&self) -> bool {
        self.trust == Trust::Proven
    }

    /// The book can no longer be trusted: it is empty until it is built anew.
    pub(super) fn distrust(&mut self, why: Resync, since: i64) {
        self.orders.clear();
        if self.is_proven() {
            self.trust = Trust::Lost { since, why, told: false };
        }
    }

    /// The book is what the venue's is again.
    pub(super) fn prove(&mut self, now_ms: i64, wanted: &Wanted, out: &mut Output) {
        if let Trust::Lost { why, told: true, .. } = self.trust
            && wanted.book
        {
            let channel = self.channels.book.clone();
            out.updates.push(Update::status(channel, ChannelState::Up, now_ms, why.as_str(), now_ms));
        }
        self.trust = Trust::Proven;
    }

    /// Tells that the book is not proven, when that takes long.
    pub(super) fn tell_distrust(&mut self, now_ms: i64, wanted: &Wanted, out: &mut Output) {
        if let Trust::Lost { since, why, told } = &mut self.trust
            && !*told
            && now_ms.saturating_sub(*since) > RESYNC_TOLD_MS
        {
            *told = true;
            if wanted.book {
                let channel = self.channels.book.clone();
                out.updates.push(Update::status(channel, ChannelState::Resyncing, *since, why.as_str(), now_ms));
            }
        }
    }

    /// Trades may be lost, or are.
    pub(super) fn lose_trade(&mut self) {
        // Before the first trade nobody has seen anything that could have a hole.
        if self.has_traded {
            self.missing += 1;
        }
    }

    /// Takes a trade. `taker` is the side that took, where it is known.
    pub(super) fn on_trade(
        &mut self,
        match_id: u64,
        price: Price,
        quantity: u64,
        taker: Option<Side>,
        wanted: &Wanted,
        out: &mut Output,
    ) -> Result<(), Reason> {
        let price = price.get().ok_or(Reason::BadNumber).and_then(|price| self.decimal(price))?;
        if quantity == 0 {
            return Err(Reason::OutOfRange);
        }
        let (qty, moment) = (whole(quantity), self.news.moment);
        self.last = Some(price);
        self.has_traded = true;
        (self.news.quote, self.news.candles) = (true, true);
        let missing_before = std::mem::take(&mut self.missing);
        out.lost_trades += missing_before;
        if wanted.trades {
            let side = taker.map(|side| match side {
                Side::Buy => akis_model::Side::Buy,
                Side::Sell => akis_model::Side::Sell,
            });
            let (symbol, id) = (self.symbol.clone(), match_id.to_string());
            let trade = Trade { symbol, id, price, qty, side, provenance: provenance(moment) };
            let channel = self.channels.trades.clone();
            out.updates.push(Update { channel, ts: moment.ts, missing_before, payload: Payload::Trade(trade) });
        }
        let trade = crate::candles::Trade { time: moment.ts, price, qty };
        let teller = Teller { channels: &self.channels, symbol: &self.symbol, moment, is_wanted: wanted.candles };
        let done = self.candles.on_trade(&trade, |shown| teller.tell(shown, &mut self.gave_up, out));
        done.map_err(|_| Reason::OutOfRange)
    }

    /// The instrument has come, or has come again: of what is open now every trade will come.
    pub(super) fn begin_candles(&mut self, ts: i64) {
        if !std::mem::replace(&mut self.has_begun, true) {
            self.candles.begin(ts);
        }
    }

    /// Closes the candles that have ended by `moment`, and all of them when the day is over.
    pub(super) fn close_candles(&mut self, moment: Moment, day_over: bool, wanted: &Wanted, out: &mut Output) {
        let teller = Teller { channels: &self.channels, symbol: &self.symbol, moment, is_wanted: wanted.candles };
        let ts = if day_over { i64::MAX } else { moment.ts };
        let done = self.candles.on_time(ts, |shown| teller.tell(shown, &mut self.gave_up, out));
        if done.is_err() {
            out.skipped.push(Reason::OutOfRange);
        }
    }

    /// Trades may be missing in the candles that are open: they are given up, and that is told.
    pub(super) fn give_up_candles(&mut self, now_ms: i64, wanted: &Wanted, out: &mut Output) {
        for interval in self.candles.forget() {
            let at = interval as usize;
            if wanted.candles && !std::mem::replace(&mut self.gave_up[at], true) {
                let channel = self.channels.candles[at].clone();
                let why = Resync::Gap.as_str();
                out.updates.push(Update::status(channel, ChannelState::Resyncing, now_ms, why, now_ms));
            }
        }
    }

    /// The day is over, or another one begins: what it told is over too.
    pub(super) fn begin_day(&mut self, received_at: i64) {
        self.orders.clear();
        (self.state, self.auction, self.last, self.has_begun) = (None, None, None, false);
        self.venue_state.clear();
        self.told_state.clear();
        self.news.moment = Moment { source: akis_model::TimeSource::Received, received_at, ..self.news.moment };
        self.news.moment.ts = received_at;
        self.news.book = self.told_book;
    }

    /// Tells what has changed. Paced, at the moment `paced_ms`, a kind that was told a short while before is held back,
    /// as a throttle would hold it; whether something is.
    pub(super) fn tell_news(&mut self, paced_ms: Option<i64>, wanted: &Wanted, out: &mut Output) -> bool {
        let is_due = |kind, told_at: i64| {
            let interval_ms = interval_ms(kind).unwrap_or_default();
            paced_ms.is_none_or(|now_ms| now_ms >= told_at.saturating_add(interval_ms))
        };
        if self.news.book && is_due(Kind::Book, self.told_at.book) {
            self.news.book = false;
            if wanted.book && self.is_proven() && self.tell_book(out) {
                self.told_at.book = paced_ms.unwrap_or_default();
            }
        }
        if self.news.quote && is_due(Kind::Ticker, self.told_at.quote) {
            self.news.quote = false;
            if wanted.ticker && self.tell_quote(out) {
                self.told_at.quote = paced_ms.unwrap_or_default();
            }
        }
        if self.news.candles && is_due(Kind::Candles, self.told_at.candles) {
            self.news.candles = false;
            if wanted.candles {
                self.told_at.candles = paced_ms.unwrap_or_default();
                self.tell_candles(out);
            }
        }
        self.news.book || self.news.quote || self.news.candles
    }

    /// Tells the book, unless it must not be shown; whether it did.
    fn tell_book(&mut self, out: &mut Output) -> bool {
        if self.orders.is_crossed() {
            // In an auction that is how it should be; it is not shown then either.
            if !is_auction(self.state) {
                out.skipped.push(Reason::Crossed);
            }
            return false;
        }
        let side = |side| {
            let levels = self.orders.levels(side).take(SHOWN_LEVELS);
            levels.map(|(price, quantity)| Ok(Level(self.decimal(price)?, whole(quantity)))).collect()
        };
        let (bids, asks) = match (side(Side::Buy), side(Side::Sell)) {
            (Ok(bids), Ok(asks)) => (bids, asks),
            (Err(reason), _) | (_, Err(reason)) => {
                out.skipped.push(reason);
                return false;
            }
        };
        let News { sequence, moment, .. } = self.news;
        let (symbol, venue_seq) = (self.symbol.clone(), sequence.to_string());
        let book = Book { symbol, bids, asks, venue_seq, provenance: provenance(moment) };
        self.told_book = true;
        out.updates.push(update(&self.channels.book, moment.ts, Payload::Book(book)));
        true
    }

    /// Tells the best prices and the last one, unless they have been told; whether it did.
    fn tell_quote(&mut self, out: &mut Output) -> bool {
        match self.quote() {
            Ok(quote) if quote != self.told_quote => {
                self.told_quote = quote;
                out.updates.push(self.tick(quote));
                true
            }
            Ok(_) => false,
            Err(_) => {
                out.skipped.push(Reason::BadNumber);
                false
            }
        }
    }

    fn tell_candles(&mut self, out: &mut Output) {
        let moment = self.news.moment;
        let teller = Teller { channels: &self.channels, symbol: &self.symbol, moment, is_wanted: true };
        for shown in self.candles.news() {
            teller.tell(&shown, &mut self.gave_up, out);
        }
    }

    fn quote(&self) -> Result<Quote, Reason> {
        let priced = |(price, quantity): (i32, u64)| Ok((self.decimal(price)?, whole(quantity)));
        let best = |side| self.orders.levels(side).next().filter(|_| self.is_proven());
        let (mut bid, mut ask) = (best(Side::Buy), best(Side::Sell));
        if let Some(auction) = &self.auction {
            bid = auction.best_bid.get().map(|price| (price, auction.best_bid_quantity));
            ask = auction.best_ask.get().map(|price| (price, auction.best_ask_quantity));
        }
        if let (Some((best_bid, _)), Some((best_ask, _))) = (bid, ask)
            && best_bid >= best_ask
        {
            (bid, ask) = (None, None);
        }
        let equilibrium = match &self.auction {
            Some(auction) => {
                let price = auction.price.get().map(|price| self.decimal(price)).transpose()?;
                Some((price, whole(auction.bid_quantity), whole(auction.ask_quantity)))
            }
            None => None,
        };
        Ok(Quote { last: self.last, bid: bid.map(priced).transpose()?, ask: ask.map(priced).transpose()?, equilibrium })
    }

    fn tick(&self, quote: Quote) -> Update {
        let moment = self.news.moment;
        let (bid, bid_qty) = quote.bid.unzip();
        let (ask, ask_qty) = quote.ask.unzip();
        let tick = PriceTick {
            symbol: self.symbol.clone(),
            last: quote.last,
            bid,
            bid_qty,
            ask,
            ask_qty,
            // The feed has the day, not the last 24 hours.
            open_24h: None,
            high_24h: None,
            low_24h: None,
            volume_24h: None,
            quote_volume_24h: None,
            change_24h_pct: None,
            provenance: provenance(moment),
        };
        let payload = match quote.equilibrium {
            Some((equilibrium, bid_qty, ask_qty)) => Payload::Auction(Box::new(AuctionTick {
                tick,
                equilibrium,
                equilibrium_bid_qty: Some(bid_qty),
                equilibrium_ask_qty: Some(ask_qty),
            })),
            None => Payload::PriceTick(Box::new(tick)),
        };
        update(&self.channels.ticker, moment.ts, payload)
    }

    fn tick_level(&self, tick: &TickSize) -> Option<Level> {
        let size = i32::try_from(tick.tick).ok()?;
        Some(Level(self.decimal(tick.from.get()?).ok()?, self.decimal(size).ok()?))
    }

    fn decimal(&self, price: i32) -> Result<Decimal, Reason> {
        self.scale.decimal(price).map_err(|_| Reason::BadNumber)
    }
}

impl Channels {
    fn new(symbol: &str) -> Option<Self> {
        let stem = format!("{SOURCE}:{}", segment(symbol));
        let channel = |facet: &str| Channel::parse(&format!("{stem}:{facet}")).ok();
        let [a, b, c, d, e, f] = Interval::ALL.map(|interval| channel(interval.as_str()));
        Some(Self {
            ticker: channel("ticker")?,
            trades: channel("trades")?,
            book: channel("book")?,
            session: channel("session")?,
            candles: [a?, b?, c?, d?, e?, f?],
        })
    }
}

impl Scale {
    /// `None` for more digits than a decimal has.
    fn new(decimals: u16) -> Option<Self> {
        match decimals {
            256 => Some(Self::Fractions),
            0..=38 => u8::try_from(decimals).ok().map(Self::Decimals),
            _ => None,
        }
    }

    fn decimal(self, price: i32) -> Result<Decimal, DecimalError> {
        match self {
            Self::Decimals(decimals) => Decimal::from_parts(price.into(), decimals),
            // 1/256 is 0.00390625.
            Self::Fractions => Decimal::from_parts(i128::from(price) * 390_625, 8),
        }
    }
}

/// What is needed to tell a candle.
struct Teller<'a> {
    channels: &'a Channels,
    symbol: &'a str,
    moment: Moment,
    is_wanted: bool,
}

impl Teller<'_> {
    /// Tells a candle, and before it that candles are told again, when some were given up.
    fn tell(&self, shown: &Shown, gave_up: &mut [bool; Interval::ALL.len()], out: &mut Output) {
        if !self.is_wanted {
            return;
        }
        let at = shown.interval as usize;
        let (channel, moment) = (&self.channels.candles[at], self.moment);
        if std::mem::take(&mut gave_up[at]) {
            let (why, now) = (Resync::Gap.as_str(), moment.received_at);
            out.updates.push(Update::status(channel.clone(), ChannelState::Up, now, why, now));
        }
        let Shown { interval, span, bar, closed } = *shown;
        let candle = Candle {
            symbol: self.symbol.to_owned(),
            interval: interval.as_str().to_owned(),
            open_time: span.open_time,
            close_time: span.close_time(),
            open: bar.open,
            high: bar.high,
            low: bar.low,
            close: bar.close,
            volume: bar.volume,
            trades: bar.trades,
            closed,
            provenance: provenance(moment),
        };
        out.updates.push(update(channel, moment.ts, Payload::Candle(candle)));
    }
}

/// A quantity: shares come whole.
fn whole(quantity: u64) -> Decimal {
    // 20 digits at most, where 38 are possible.
    Decimal::from_parts(quantity.into(), 0).unwrap_or_default()
}

fn provenance(moment: Moment) -> Provenance {
    Provenance { ts_source: moment.source, received_at: moment.received_at }
}

fn update(channel: &Channel, ts: i64, payload: Payload) -> Update {
    Update { channel: channel.clone(), ts, missing_before: 0, payload }
}
