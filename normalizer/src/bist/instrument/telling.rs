//! What an instrument tells of its book, its best prices and its candles.

use akis_connectors::bist::itch::Side;
use akis_model::{AuctionTick, Book, Candle, ChannelState, Decimal, Kind, Level, PriceTick};

use super::super::clock::Moment;
use super::super::scale::whole;
use super::super::state::is_auction;
use super::super::wanted::Wanted;
use super::{GaveUp, Instrument, News, Trust, gap_status};
use crate::book::SHOWN_LEVELS;
use crate::candles::Shown;
use crate::channels::Channels;
use crate::mapper::{History, Output, Reason};
use crate::update::{Payload, Update};

/// What a tick shows.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quote {
    last: Option<Decimal>,
    bid: Option<(Decimal, Decimal)>,
    ask: Option<(Decimal, Decimal)>,
    equilibrium: Option<(Option<Decimal>, Decimal, Decimal)>,
}

impl Instrument {
    /// Tells what has changed. Paced, at the moment `paced_ms`, a kind that was told a short while before is held back,
    /// as a throttle would hold it; whether something is.
    pub(in crate::bist) fn tell_news(&mut self, paced_ms: Option<i64>, wanted: &Wanted, out: &mut Output) -> bool {
        if self.news.book && self.paces.book.is_due(paced_ms) {
            self.news.book = false;
            if wanted.book && self.is_proven() && self.tell_book(out) {
                self.paces.book.note(Kind::Book, paced_ms);
            }
        }
        if self.news.quote && self.paces.quote.is_due(paced_ms) {
            self.news.quote = false;
            if wanted.ticker && self.tell_quote(out) {
                self.paces.quote.note(Kind::Ticker, paced_ms);
            }
        }
        if self.news.candles && self.paces.candles.is_due(paced_ms) {
            self.news.candles = false;
            if wanted.candles {
                self.paces.candles.note(Kind::Candles, paced_ms);
                self.tell_candles(out);
            }
        }
        self.news.book || self.news.quote || self.news.candles
    }

    /// What was told until now may have been heard by nobody: tells the state, how candles closed and what is not known, and has
    /// the rest told with the next news.
    pub(in crate::bist) fn tell_again(&mut self, now_ms: i64, wanted: &Wanted, out: &mut Output) {
        self.told_state.clear();
        self.tell_state(wanted, out);
        if let Trust::Lost { told, .. } = &mut self.trust {
            *told = false;
        }
        self.news.book |= self.told_book;
        if self.has_told_quote {
            (self.news.quote, self.told_quote) = (true, None);
        }
        if wanted.candles {
            self.candles.tell_again();
            self.news.candles = true;
            let teller =
                Teller { channels: &self.channels, symbol: &self.symbol, moment: self.news.moment, is_wanted: true };
            for shown in self.candles.closed() {
                let (channel, candle) = (&self.channels.candles[shown.interval as usize], teller.candle(shown));
                out.history.push(History { channel: channel.clone(), candles: vec![candle.clone()] });
                // Who published before may not have come to its end.
                out.updates.push(Update::new(channel, self.news.moment.ts, Payload::Candle(candle)));
            }
            let given_up = self.channels.candles.iter().zip(self.gave_up).filter(|(_, gave_up)| gave_up.is_some());
            out.updates.extend(given_up.map(|(channel, _)| gap_status(channel, ChannelState::Resyncing, now_ms)));
        }
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
        let book = Book { symbol, bids, asks, venue_seq, provenance: moment.provenance() };
        self.told_book = true;
        out.updates.push(Update::new(&self.channels.book, moment.ts, Payload::Book(book)));
        true
    }

    /// Tells the best prices and the last one, unless they have been told; whether it did.
    fn tell_quote(&mut self, out: &mut Output) -> bool {
        match self.quote() {
            Ok(quote) if Some(quote) != self.told_quote => {
                (self.told_quote, self.has_told_quote) = (Some(quote), true);
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
        let done = self.candles.tell_news(|shown| teller.tell(shown, &mut self.gave_up, out));
        if done.is_err() {
            out.skipped.push(Reason::OutOfRange);
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
            provenance: moment.provenance(),
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
        Update::new(&self.channels.ticker, moment.ts, payload)
    }
}

/// What is needed to tell a candle.
pub(super) struct Teller<'a> {
    pub(super) channels: &'a Channels,
    pub(super) symbol: &'a str,
    pub(super) moment: Moment,
    pub(super) is_wanted: bool,
}

impl Teller<'_> {
    /// Tells a candle, and before it that candles are told again, when some were given up.
    pub(super) fn tell(&self, shown: &Shown, gave_up: &mut GaveUp, out: &mut Output) {
        if !self.is_wanted {
            return;
        }
        let at = shown.interval as usize;
        let (channel, moment) = (&self.channels.candles[at], self.moment);
        if gave_up[at].take().is_some() {
            out.updates.push(gap_status(channel, ChannelState::Up, moment.received_at));
        }
        out.updates.push(Update::new(channel, moment.ts, Payload::Candle(self.candle(shown))));
    }

    fn candle(&self, shown: &Shown) -> Candle {
        let Shown { interval, span, bar, closed } = *shown;
        Candle {
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
            provenance: self.moment.provenance(),
        }
    }
}
