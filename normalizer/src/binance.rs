//! Binance, spot and USD-M futures: what their frames mean.
//!
//! | stream | event |
//! |---|---|
//! | `bookTicker`, `ticker` | `price_tick`: the latest of both in one state |
//! | `aggTrade`, or `trade` where that is taken instead | `trade` |
//! | `depth@100ms` with `GET …/depth` | `orderbook` |
//! | `kline_<interval>` | `candle_update` |

mod book;
mod candles;
mod depth;
mod event;
mod instrument;
mod market;
mod names;
mod scan;
mod tape;
mod ticker;
mod wire;

use std::collections::{BTreeSet, HashMap};

use akis_connectors::{Content, RawFrame, Request, is_symbol};
use akis_model::{Channel, Kind};
use foldhash::fast::RandomState;

use self::depth::{Diff, Snapshot};
use self::event::Event;
use self::instrument::{Instrument, Origin};
use self::names::{asked_interval, asked_number, asked_symbol, guess_common};
use self::tape::Tape;
use crate::candles::Interval;
use crate::clock::Clock;
use crate::mapper::{Mapper, Output, Reason};

pub(crate) use self::market::Market;

/// How many candles of each interval a chart begins with.
const PAST_CANDLES: u32 = 500;

/// Of how many symbols they are asked for with each tick: all at once would not fit, and nobody would ask for the others again.
const PAST_AT_ONCE: usize = 5;

/// The mapper of one of Binance's markets.
pub(crate) struct Binance {
    market: Market,
    /// Every symbol that comes is let in.
    any: bool,
    /// What is wanted of the symbols that come; empty in a recording, where it is what comes.
    kinds: Vec<Kind>,
    /// Whether candles of the past are to be asked for, of symbols that come later too.
    publishes: bool,
    /// In the order in which they came, which is that of what ticks say.
    instruments: Vec<Instrument>,
    by_symbol: HashMap<String, usize, RandomState>,
    /// A throttle stands behind.
    is_paced: bool,
    /// Common forms that `exchangeInfo` told.
    common: HashMap<String, String>,
    declared: Vec<Channel>,
    clock: Clock,
    /// The newest connection that something came over; 0 before the first one.
    newest: u32,
    /// Whether the list of symbols has come.
    is_listed: bool,
}

impl Mapper for Binance {
    fn believed_ahead_ms(&self) -> i64 {
        self.clock.believed_ahead_ms()
    }

    fn admit(&mut self, symbols: Option<&[String]>, kinds: &[Kind]) {
        let Some(symbols) = symbols else {
            self.any = true;
            return;
        };
        self.kinds = kinds.to_vec();
        for symbol in symbols.iter().map(|symbol| symbol.to_ascii_uppercase()) {
            if !is_symbol(&symbol) {
                // The session has looked up what that means and asked for nothing else.
                self.any = true;
                continue;
            }
            if self.by_symbol.contains_key(&symbol) {
                continue;
            }
            if let Some(at) = self.add(&symbol) {
                let instrument = &self.instruments[at];
                self.declared.extend(kinds.iter().flat_map(|&kind| instrument.channels(kind)).cloned());
            }
        }
    }

    fn channels(&self) -> Vec<Channel> {
        self.declared.clone()
    }

    fn on_frame(&mut self, frame: &RawFrame, out: &mut Output) {
        let taken = match &frame.content {
            Content::Text { connection, text } => {
                self.newest = self.newest.max(*connection);
                self.on_text(text, Origin { connection: *connection, received_at: frame.received_at }, out)
            }
            Content::Binary { .. } => Err(Reason::NotText),
            Content::Reply { target, status, body } => {
                let quoted = wire::quoted(body);
                self.on_reply(target, *status, quoted.as_ref().unwrap_or(body), frame.received_at, out)
            }
            Content::Closed { connection, .. } => {
                for instrument in &mut self.instruments {
                    instrument.on_closed(*connection, frame.received_at, out);
                }
                Ok(())
            }
        };
        if let Err(reason) = taken {
            out.skipped.push(reason);
        }
    }

    fn on_tick(&mut self, now_ms: i64, out: &mut Output) {
        let mut past_left = PAST_AT_ONCE;
        for instrument in &mut self.instruments {
            if instrument.on_tick(now_ms, self.newest, out) {
                out.requests.push(Request::Book { symbol: instrument.symbol.clone() });
            }
            if self.publishes && instrument.wants_candles && !instrument.has_past && past_left > 0 {
                instrument.has_past = true;
                past_left -= 1;
                let ask = |interval| candles::request(&instrument.symbol, interval, PAST_CANDLES);
                out.requests.extend(Interval::ALL.map(ask));
            }
            if let Some(from_id) = instrument.missing_trades(now_ms) {
                out.requests.push(Request::Trades { symbol: instrument.symbol.clone(), from_id });
            }
        }
    }

    fn backfill(&mut self, out: &mut Output) {
        self.publishes = true;
        for instrument in &mut self.instruments {
            instrument.has_past = false;
            instrument.tell_again(out);
        }
    }

    fn is_whole(&self) -> bool {
        self.is_listed && !self.instruments.iter().any(Instrument::awaits_book)
    }

    fn finish(&mut self, out: &mut Output) {
        self.instruments.iter_mut().for_each(|instrument| instrument.finish(out));
    }

    fn pace(&mut self) {
        self.is_paced = true;
        self.instruments.iter_mut().for_each(|instrument| instrument.is_paced = true);
    }
}

impl Binance {
    /// Lets nothing in yet.
    pub(crate) fn new(market: Market) -> Self {
        Self {
            market,
            any: false,
            kinds: Vec::new(),
            publishes: false,
            instruments: Vec::new(),
            by_symbol: HashMap::default(),
            is_paced: false,
            common: HashMap::new(),
            declared: Vec::new(),
            clock: Clock::default(),
            newest: 0,
            is_listed: false,
        }
    }

    fn on_text(&mut self, text: &str, origin: Origin, out: &mut Output) -> Result<(), Reason> {
        match Event::read(text) {
            Ok(event) => self.on_event(event, origin, out),
            Err(reason) => match wire::quoted(text) {
                Some(text) => self.on_event(Event::read(&text)?, origin, out),
                None => Err(reason),
            },
        }
    }

    fn on_event(&mut self, event: Event<'_>, origin: Origin, out: &mut Output) -> Result<(), Reason> {
        match event {
            Event::Trade(trade, tape) => self.on_trade(&trade, tape, origin, out),
            Event::BookTicker(ticker) => self.instrument(&ticker.symbol)?.on_book_ticker(&ticker, origin, out),
            Event::Ticker(ticker) => {
                let believed_ahead_ms = self.believed_ahead_ms();
                self.instrument(&ticker.symbol)?.on_ticker(&ticker, origin, believed_ahead_ms, out)
            }
            Event::Depth(update) => self.on_depth(update, origin, out),
            Event::Kline(event) => {
                let believed_ahead_ms = self.believed_ahead_ms();
                self.instrument(&event.symbol)?.on_kline(&event, origin, believed_ahead_ms, out)
            }
            Event::Notice => Ok(()),
        }
    }

    fn on_trade(
        &mut self,
        trade: &wire::Trade<'_>,
        tape: Tape,
        origin: Origin,
        out: &mut Output,
    ) -> Result<(), Reason> {
        let id = match tape {
            Tape::Aggregate => trade.aggregate_id,
            Tape::Single => trade.id,
        };
        self.instrument(&trade.symbol)?.on_trade(trade, tape, id.ok_or(Reason::BadShape)?, origin, out)
    }

    fn on_depth(&mut self, update: wire::DepthUpdate<'_>, origin: Origin, out: &mut Output) -> Result<(), Reason> {
        let diff = Diff {
            first_id: update.first_id,
            last_id: update.last_id,
            previous_id: update.previous_id,
            event_time: update.event_time,
            received_at: origin.received_at,
            bids: update.bids.0?,
            asks: update.asks.0?,
        };
        self.instrument(&update.symbol)?.on_diff(diff, origin, out)
    }

    fn on_reply(
        &mut self,
        target: &str,
        status: u16,
        body: &str,
        received_at: i64,
        out: &mut Output,
    ) -> Result<(), Reason> {
        let path = target.split('?').next().unwrap_or_default();
        match path.strip_prefix(self.market.rest).unwrap_or_default() {
            _ if status != 200 => Err(Reason::Refused),
            "/depth" => {
                let symbol = asked_symbol(target).ok_or(Reason::UnknownSymbol)?;
                let reply: wire::DepthReply = wire::parse(body)?;
                let (bids, asks) = (reply.bids.0?, reply.asks.0?);
                let most = asked_number(target, "limit").unwrap_or(self.market.depth_limit);
                let most = usize::try_from(most).unwrap_or(0);
                let snapshot = Snapshot { last_id: reply.last_update_id, received_at, bids, asks, most };
                self.instrument(&symbol)?.on_snapshot(&snapshot, out)
            }
            "/klines" => {
                let symbol = asked_symbol(target).ok_or(Reason::UnknownSymbol)?;
                let interval = asked_interval(target).ok_or(Reason::UnknownEvent)?;
                let rows: Vec<wire::KlineRow<'_>> = wire::parse(body)?;
                self.instrument(&symbol)?.on_past_candles(interval, &rows, received_at, out)
            }
            "/aggTrades" => {
                let symbol = asked_symbol(target).ok_or(Reason::UnknownSymbol)?;
                let from = asked_number(target, "fromId").ok_or(Reason::BadShape)?;
                let trades: Vec<wire::Trade<'_>> = wire::parse(body)?;
                // Trades of a recording that nobody asked for are in its stream too.
                self.instrument(&symbol)?.on_trades(&trades, from, received_at, out)
            }
            "/exchangeInfo" => {
                let info: wire::ExchangeInfo<'_> = wire::parse(body)?;
                self.on_info(info, names::asks_for_some(target), received_at, out);
                Ok(())
            }
            "/time" => {
                self.clock.take(body, received_at)?;
                let offset_ms = self.clock.offset_ms().unwrap_or_default();
                self.instruments.iter_mut().for_each(|instrument| instrument.clock_offset_ms = offset_ms);
                Ok(())
            }
            // The session selects symbols by it.
            "/ticker/24hr" => Ok(()),
            _ => Err(Reason::UnknownEvent),
        }
    }

    /// Takes what the symbols are made of, and whether they are traded. `partly`: only some of them were asked for.
    fn on_info(&mut self, info: wire::ExchangeInfo<'_>, partly: bool, now_ms: i64, out: &mut Output) {
        let mut listed = BTreeSet::new();
        for symbol in info.symbols {
            let common = format!("{}/{}", symbol.base_asset, symbol.quote_asset);
            if let Some(&at) = self.by_symbol.get(&*symbol.symbol) {
                let instrument = &mut self.instruments[at];
                instrument.common = common;
                instrument.on_listing(Some(&symbol.status), now_ms, out);
            } else if self.any {
                self.common.insert(symbol.symbol.clone().into_owned(), common);
            }
            listed.insert(symbol.symbol);
        }
        self.is_listed |= !listed.is_empty();
        // A venue that is being repaired may list nothing.
        if !partly && !listed.is_empty() {
            let delisted =
                self.instruments.iter_mut().filter(|instrument| !listed.contains(instrument.symbol.as_str()));
            delisted.for_each(|instrument| instrument.on_listing(None, now_ms, out));
        }
    }

    fn instrument(&mut self, symbol: &str) -> Result<&mut Instrument, Reason> {
        let known = self.by_symbol.get(symbol).copied();
        let at = known.or_else(|| if self.any { self.add(symbol) } else { None });
        at.map(|at| &mut self.instruments[at]).ok_or(Reason::UnknownSymbol)
    }

    /// Lets in a symbol that is not known; `None` when no channel can hold it.
    fn add(&mut self, symbol: &str) -> Option<usize> {
        let mut instrument = Instrument::new(self.market, symbol, self.common_form(symbol), self.is_paced)?;
        // What a recording does not hold is not missing.
        instrument.asks_for_books = self.kinds.contains(&Kind::Book);
        instrument.wants_candles = self.kinds.contains(&Kind::Candles);
        if !self.kinds.is_empty() {
            instrument.states_of.clone_from(&self.kinds);
        }
        instrument.clock_offset_ms = self.clock.offset_ms().unwrap_or_default();
        self.instruments.push(instrument);
        self.by_symbol.insert(symbol.to_owned(), self.instruments.len() - 1);
        Some(self.instruments.len() - 1)
    }

    fn common_form(&self, symbol: &str) -> String {
        self.common.get(symbol).cloned().unwrap_or_else(|| guess_common(symbol))
    }
}

#[cfg(test)]
mod tests;
