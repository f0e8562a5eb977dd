//! All that is kept of one instrument, and what becomes of it in events.

mod telling;

use akis_connectors::bist::itch::{Equilibrium, Price, Side, TickSize};
use akis_model::{Channel, ChannelState, Decimal, Level, MarketState, MarketStatus, Trade};

use self::telling::{Quote, Teller};
use super::SOURCE;
use super::calendar::{self, Hours};
use super::candles::Candles;
use super::clock::Moment;
use super::names::segment;
use super::orders::Orders;
use super::scale::{Scale, whole};
use super::state::{is_auction, meaning};
use super::wanted::Wanted;
use crate::candles::Interval;
use crate::channels::Channels;
use crate::mapper::{Output, RESYNC_TOLD_MS, Reason, Resync};
use crate::throttle::Pace;
use crate::update::{Payload, Update};

/// The entries of a table of tick sizes that are kept; the exchange uses about ten.
const MAX_TICKS: usize = 64;

/// One instrument.
#[derive(Debug)]
pub(super) struct Instrument {
    /// As channels show it.
    pub(super) symbol: String,
    /// Of its book today. The market finds it by that.
    pub(super) number: Option<u32>,
    pub(super) orders: Orders,
    pub(super) candles: Candles,
    gave_up: GaveUp,
    channels: Channels,
    scale: Scale,
    /// By rising price.
    ticks: Vec<TickSize>,
    state: Option<MarketState>,
    /// Messages are missing, and another state may have been among them.
    may_have_changed: bool,
    venue_state: String,
    told_state: String,
    /// When the state began.
    state_moment: Moment,
    auction: Option<Equilibrium>,
    last: Option<Decimal>,
    /// `None`: whatever was told, it is to be told again.
    told_quote: Option<Quote>,
    has_told_quote: bool,
    told_book: bool,
    trust: Trust,
    /// Trades that are known to be lost and that have not been told yet.
    missing: u64,
    /// Whether this process has seen one.
    has_traded: bool,
    /// Whether its reference data has come in this session, and of which day that was last.
    has_come: bool,
    day: Option<i64>,
    news: News,
    paces: Paces,
}

/// By interval: until when the trades of its candles are not all known, which was told; [`i64::MAX`]: nobody knows yet.
type GaveUp = [Option<i64>; Interval::ALL.len()];

/// What has changed since the last events, and by which message.
#[derive(Debug, Clone, Copy)]
struct News {
    book: bool,
    quote: bool,
    candles: bool,
    sequence: u64,
    moment: Moment,
}

/// When each kind may be told next.
#[derive(Debug, Default, Clone, Copy)]
struct Paces {
    book: Pace,
    quote: Pace,
    candles: Pace,
}

/// Whether the book is what the venue's is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    Proven,
    Lost { since: i64, why: Resync, told: bool },
}

impl Instrument {
    /// `None` when no channel can hold the symbol.
    pub(super) fn new(symbol: String, hours: Hours, moment: Moment) -> Option<Self> {
        Some(Self {
            channels: Channels::new(SOURCE, &segment(&symbol))?,
            symbol,
            number: None,
            orders: Orders::default(),
            candles: Candles::new(hours),
            gave_up: GaveUp::default(),
            scale: Scale::Decimals(0),
            ticks: Vec::new(),
            state: None,
            may_have_changed: false,
            venue_state: String::new(),
            told_state: String::new(),
            state_moment: moment,
            auction: None,
            last: None,
            told_quote: Some(Quote::default()),
            has_told_quote: false,
            told_book: false,
            trust: Trust::Proven,
            missing: 0,
            has_traded: false,
            has_come: false,
            day: None,
            news: News { book: false, quote: false, candles: false, sequence: 0, moment },
            paces: Paces::default(),
        })
    }

    /// The channels of the kinds that are wanted.
    pub(super) fn channels(&self, wanted: &Wanted) -> Vec<Channel> {
        wanted.kinds().flat_map(|kind| self.channels.of(kind)).cloned().collect()
    }

    /// Takes the reference data of the day, of which nothing has been missed when it is whole. Returns whether candles wait
    /// for the next second.
    pub(super) fn on_directory(&mut self, scale: Scale, is_whole: bool, wanted: &Wanted, out: &mut Output) -> bool {
        self.scale = scale;
        self.ticks.clear();
        if std::mem::replace(&mut self.has_come, true) {
            return false;
        }
        let Moment { ts, received_at, .. } = self.news.moment;
        let day = calendar::day(ts);
        // A session that was started anew tells nothing of what the one before it has told of the same day.
        let is_first = self.day.replace(day) != Some(day);
        if is_whole && is_first {
            self.candles.begin(ts);
            self.take_up_candles(i64::MAX, received_at, wanted, out);
            return false;
        }
        self.give_up_candles(received_at, wanted, out);
        true
    }

    /// The book has become another's, or is another one: it is empty, and proven if it was.
    pub(super) fn vacate(&mut self) {
        self.orders.clear();
        self.auction = None;
        (self.news.book, self.news.quote) = (self.told_book, true);
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
        let may_have_changed = std::mem::take(&mut self.may_have_changed);
        self.state = meaning(&name, self.state.filter(|_| !may_have_changed));
        if may_have_changed || self.venue_state != name {
            // It was that of the state before.
            self.auction = None;
            self.state_moment = moment;
        }
        self.venue_state = name;
        self.note(self.news.sequence, moment);
        (self.news.book, self.news.quote) = (true, true);
    }

    /// Whether nobody need wonder at its silence: the day has not told its state yet, or orders are not matched when they come.
    pub(super) fn rests(&self) -> bool {
        match self.state {
            None => self.venue_state.is_empty(),
            Some(MarketState::Continuous) => false,
            Some(
                MarketState::PreOpen
                | MarketState::OpeningAuction
                | MarketState::ClosingAuction
                | MarketState::SinglePrice
                | MarketState::Halted
                | MarketState::Break
                | MarketState::AtClose
                | MarketState::Closed,
            ) => true,
        }
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
                provenance: self.state_moment.provenance(),
            };
            out.updates.push(Update::new(&self.channels.session, self.state_moment.ts, Payload::Market(status)));
        }
    }

    /// Takes where an auction would meet. Where none is on, that says nothing; where one may be, a price says that it is.
    pub(super) fn on_equilibrium(&mut self, auction: Equilibrium) {
        if is_auction(self.state) || (self.may_have_changed && auction.price.get().is_some()) {
            self.auction = Some(auction);
            self.news.quote = true;
        }
    }

    /// Takes note of a message of this instrument.
    pub(super) fn note(&mut self, sequence: u64, moment: Moment) {
        (self.news.sequence, self.news.moment) = (sequence, moment);
    }

    /// The levels that are shown have changed.
    pub(super) fn book_changed(&mut self) {
        (self.news.book, self.news.quote) = (true, true);
        // Whether an auction is on in a state that is not known, only the book tells: the newer of the two holds, and orders
        // that cross are those of an auction.
        let is_known = self.state.is_some() && !self.may_have_changed;
        if self.auction.is_some() && !is_known && !self.orders.is_crossed() {
            self.auction = None;
        }
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

    /// That it cannot has been told already.
    pub(super) fn distrust_is_told(&mut self) {
        if let Trust::Lost { told, .. } = &mut self.trust {
            *told = true;
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

    /// Tells that the book is not proven, when that takes long; whether it did. Best prices of it are news then: there are none.
    pub(super) fn tell_distrust(&mut self, now_ms: i64, wanted: &Wanted, out: &mut Output) -> bool {
        if let Trust::Lost { since, why, told } = &mut self.trust
            && !*told
            && now_ms.saturating_sub(*since) > RESYNC_TOLD_MS
        {
            *told = true;
            if wanted.book {
                let channel = self.channels.book.clone();
                out.updates.push(Update::status(channel, ChannelState::Resyncing, *since, why.as_str(), now_ms));
            }
            self.news.quote = true;
            return true;
        }
        false
    }

    /// Messages are missing: trades may be lost, and the auction may be over.
    pub(super) fn lose_messages(&mut self) {
        self.lose_trade();
        self.auction = None;
        self.may_have_changed = true;
    }

    /// Trades may be lost, or are. Also before the first one that this process sees: the log may have others.
    pub(super) fn lose_trade(&mut self) {
        self.missing += 1;
    }

    /// Takes a trade. `taker` is the side that took, where it is known. [`Reason::BadNumber`]: its price is not.
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
        (self.news.quote, self.news.candles) = (true, true);
        let missing = std::mem::take(&mut self.missing);
        out.lost_trades += missing;
        let is_first = !std::mem::replace(&mut self.has_traded, true);
        // With a hole before the first one the log may have others than those that were seen; without, the session was seen from its start.
        let missing_before = missing + u64::from(is_first && missing > 0);
        if wanted.trades {
            let side = taker.map(|side| match side {
                Side::Buy => akis_model::Side::Buy,
                Side::Sell => akis_model::Side::Sell,
            });
            let (symbol, id) = (self.symbol.clone(), match_id.to_string());
            let trade = Trade { symbol, id, price, qty, side, provenance: moment.provenance() };
            let payload = Payload::Trade(trade);
            out.updates.push(Update { missing_before, ..Update::new(&self.channels.trades, moment.ts, payload) });
        }
        let trade = crate::candles::Trade { time: moment.ts, price, qty };
        let teller = Teller { channels: &self.channels, symbol: &self.symbol, moment, is_wanted: wanted.candles };
        let done = self.candles.on_trade(&trade, |shown| teller.tell(shown, &mut self.gave_up, out));
        done.map_err(|_| Reason::OutOfRange)
    }

    /// Closes the candles that have ended by `moment`, and all of them when the day is over.
    pub(super) fn close_candles(&mut self, moment: Moment, day_over: bool, wanted: &Wanted, out: &mut Output) {
        let teller = Teller { channels: &self.channels, symbol: &self.symbol, moment, is_wanted: wanted.candles };
        let ts = if day_over { i64::MAX } else { moment.ts };
        let done = self.candles.on_time(ts, |shown| teller.tell(shown, &mut self.gave_up, out));
        if done.is_err() {
            out.skipped.push(Reason::OutOfRange);
        }
        self.take_up_candles(moment.ts, moment.received_at, wanted, out);
    }

    /// Trades may be missing in the candles of now, also where none was seen: they are given up, and that is told.
    pub(super) fn give_up_candles(&mut self, now_ms: i64, wanted: &Wanted, out: &mut Output) {
        self.candles.forget();
        for (at, gave_up) in self.gave_up.iter_mut().enumerate() {
            if gave_up.replace(i64::MAX).is_none() && wanted.candles {
                out.updates.push(gap_status(&self.channels.candles[at], ChannelState::Resyncing, now_ms));
            }
        }
    }

    /// From `ts` on no trade is missing.
    pub(super) fn resume_candles(&mut self, ts: i64) {
        self.candles.resume(ts);
        for (interval, gave_up) in Interval::ALL.into_iter().zip(&mut self.gave_up) {
            if *gave_up == Some(i64::MAX) {
                *gave_up = self.candles.end_of(interval, ts).or(*gave_up);
            }
        }
    }

    /// Tells that every trade is known again in the intervals whose span that was given up is over by `ts`.
    fn take_up_candles(&mut self, ts: i64, now_ms: i64, wanted: &Wanted, out: &mut Output) {
        for (at, gave_up) in self.gave_up.iter_mut().enumerate() {
            if gave_up.take_if(|until| *until <= ts).is_some() && wanted.candles {
                out.updates.push(gap_status(&self.channels.candles[at], ChannelState::Up, now_ms));
            }
        }
    }

    /// When something of its candles ends first.
    pub(super) fn next_end(&self) -> Option<i64> {
        self.candles.next_end().into_iter().chain(self.gave_up.iter().copied().flatten()).min()
    }

    /// The day is over, or another one begins: what it told is over too.
    pub(super) fn begin_day(&mut self, received_at: i64) {
        self.orders.clear();
        self.number = None;
        (self.state, self.auction, self.last, self.has_come) = (None, None, None, false);
        self.venue_state.clear();
        self.told_state.clear();
        self.news.moment = Moment { source: akis_model::TimeSource::Received, received_at, ..self.news.moment };
        self.news.moment.ts = received_at;
        (self.news.book, self.news.quote) = (self.told_book, true);
    }

    fn tick_level(&self, tick: &TickSize) -> Option<Level> {
        let size = i32::try_from(tick.tick).ok()?;
        Some(Level(self.decimal(tick.from.get()?).ok()?, self.decimal(size).ok()?))
    }

    fn decimal(&self, price: i32) -> Result<Decimal, Reason> {
        self.scale.decimal(price).map_err(|_| Reason::BadNumber)
    }
}

/// Whether messages that are missing leave a channel without what it needs.
pub(super) fn gap_status(channel: &Channel, state: ChannelState, now_ms: i64) -> Update {
    Update::status(channel.clone(), state, now_ms, Resync::Gap.as_str(), now_ms)
}
