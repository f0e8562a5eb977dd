//! Binance, spot and USD-M futures: what their frames mean.
//!
//! | stream | event |
//! |---|---|
//! | `bookTicker`, `ticker` | `price_tick`: the latest of both in one state |
//! | `aggTrade`, or `trade` where that is taken instead | `trade` |
//! | `depth@100ms` with `GET …/depth` | `orderbook` |
//! | `kline_<interval>` | `candle_update` |

mod depth;
mod instrument;
mod market;
mod names;
mod series;
mod tape;
mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use akis_connectors::{Content, RawFrame, Request, is_symbol};
use akis_model::{Channel, Kind};

use self::depth::{Diff, Snapshot};
use self::instrument::{Instrument, Origin};
use self::names::{asked_interval, asked_number, asked_symbol, guess_common};
use self::tape::Tape;
use crate::candles::Interval;
use crate::mapper::{Mapper, Output, Reason};
use crate::update::BELIEVED_AHEAD_MS;

pub(crate) use self::market::Market;

/// How many candles of each interval a chart begins with.
const PAST_CANDLES: u32 = 500;

/// A venue's clock that is further from ours than this is not believed, whatever it says of itself: one of the two is wrong by
/// more than a clock can drift.
const MOST_CLOCK_OFFSET_MS: i64 = 3_600_000;

/// The mapper of one of Binance's markets.
pub(crate) struct Binance {
    market: Market,
    /// Every symbol that comes is let in.
    any: bool,
    /// What is wanted of the symbols that come; empty in a recording, where it is what comes.
    kinds: Vec<Kind>,
    /// Whether candles of the past are to be asked for, of symbols that come later too.
    publishes: bool,
    /// In order, so that what ticks say comes in the same order on every run.
    instruments: BTreeMap<String, Instrument>,
    /// Common forms that `exchangeInfo` told.
    common: HashMap<String, String>,
    declared: Vec<Channel>,
    /// How far the venue's clock is ahead of the one that stamps frames, by what it told last.
    clock_offset_ms: i64,
}

impl Mapper for Binance {
    /// By the venue's clock, not by this machine's.
    fn believed_ahead_ms(&self) -> i64 {
        BELIEVED_AHEAD_MS + self.clock_offset_ms
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
            if self.instruments.contains_key(&symbol) {
                continue;
            }
            let common = self.common_form(&symbol);
            let Some(mut instrument) = Instrument::new(self.market, &symbol, common) else { continue };
            instrument.asks_for_books = kinds.contains(&Kind::Book);
            instrument.wants_candles = kinds.contains(&Kind::Candles);
            self.declared.extend(kinds.iter().flat_map(|&kind| instrument.channels(kind)));
            self.instruments.insert(symbol, instrument);
        }
    }

    fn channels(&self) -> Vec<Channel> {
        self.declared.clone()
    }

    fn on_frame(&mut self, frame: &RawFrame, out: &mut Output) {
        let taken = match &frame.content {
            Content::Text { connection, text } => {
                self.on_text(text, Origin { connection: *connection, received_at: frame.received_at }, out)
            }
            Content::Binary { .. } => Err(Reason::NotText),
            Content::Reply { target, status, body } => self.on_reply(target, *status, body, frame.received_at, out),
            Content::Closed { connection, .. } => {
                for instrument in self.instruments.values_mut() {
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
        for (symbol, instrument) in &mut self.instruments {
            if instrument.on_tick(now_ms, out) {
                out.requests.push(Request::Book { symbol: symbol.clone() });
            }
            if self.publishes && instrument.wants_candles && !instrument.has_past {
                instrument.has_past = true;
                let ask = |interval| instrument.ask_candles(symbol, interval, PAST_CANDLES);
                out.requests.extend(Interval::ALL.map(ask));
            }
            if let Some(from_id) = instrument.missing_trades(now_ms) {
                out.requests.push(Request::Trades { symbol: symbol.clone(), from_id });
            }
        }
    }

    fn backfill(&mut self, _out: &mut Output) {
        self.publishes = true;
        self.instruments.values_mut().for_each(|instrument| instrument.has_past = false);
    }

    fn finish(&mut self, out: &mut Output) {
        self.instruments.values_mut().for_each(|instrument| instrument.finish(out));
    }
}

impl Binance {
    /// Lets nothing in yet.
    pub(crate) fn new(market: Market) -> Self {
        let (instruments, common, declared) = (BTreeMap::new(), HashMap::new(), Vec::new());
        let (any, kinds, publishes, clock_offset_ms) = (false, Vec::new(), false, 0);
        Self { market, any, kinds, publishes, instruments, common, declared, clock_offset_ms }
    }

    fn on_text(&mut self, text: &str, origin: Origin, out: &mut Output) -> Result<(), Reason> {
        let envelope: wire::Envelope<'_> = wire::parse(text)?;
        let (name, data) = match (&envelope.stream, envelope.data, &envelope.event) {
            (Some(stream), Some(data), _) => (stream_kind(stream), data.get()),
            (None, None, Some(event)) => (event_kind(event), text),
            (Some(_), None, _) => return Err(Reason::BadShape),
            (None, _, _) => return control(text),
        };
        match name {
            StreamKind::Trade(tape) => self.on_trade(wire::parse(data)?, tape, origin, out),
            StreamKind::BookTicker => {
                let ticker: wire::BookTicker<'_> = wire::parse(data)?;
                self.instrument(&ticker.symbol)?.on_book_ticker(&ticker, origin, out)
            }
            StreamKind::Ticker => {
                let ticker: wire::Ticker<'_> = wire::parse(data)?;
                self.instrument(&ticker.symbol)?.on_ticker(&ticker, origin, out)
            }
            StreamKind::Depth => self.on_depth(wire::parse(data)?, origin, out),
            StreamKind::Kline => {
                let event: wire::KlineEvent<'_> = wire::parse(data)?;
                let believed_ahead_ms = self.believed_ahead_ms();
                self.instrument(&event.symbol)?.on_kline(&event, origin, believed_ahead_ms, out)
            }
            StreamKind::Notice => Ok(()),
            StreamKind::Unknown => Err(Reason::UnknownEvent),
        }
    }

    fn on_trade(&mut self, trade: wire::Trade<'_>, tape: Tape, origin: Origin, out: &mut Output) -> Result<(), Reason> {
        let id = match tape {
            Tape::Aggregate => trade.aggregate_id,
            Tape::Single => trade.id,
        };
        self.instrument(&trade.symbol)?.on_trade(&trade, tape, id.ok_or(Reason::BadShape)?, origin, out)
    }

    fn on_depth(&mut self, update: wire::DepthUpdate<'_>, origin: Origin, out: &mut Output) -> Result<(), Reason> {
        let diff = Diff {
            first_id: update.first_id,
            last_id: update.last_id,
            previous_id: update.previous_id,
            event_time: update.event_time,
            received_at: origin.received_at,
            bids: update.bids.parse()?,
            asks: update.asks.parse()?,
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
                let reply: wire::DepthReply<'_> = wire::parse(body)?;
                let (bids, asks) = (reply.bids.parse()?, reply.asks.parse()?);
                let snapshot = Snapshot { last_id: reply.last_update_id, received_at, bids, asks };
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
                self.on_info(info, target.contains("symbols="), received_at, out);
                Ok(())
            }
            "/time" => {
                let reply: wire::TimeReply = wire::parse(body)?;
                // The way back is not taken off: it is short against what is believed.
                let offset = reply.server_time.saturating_sub(received_at);
                if offset.saturating_abs() > MOST_CLOCK_OFFSET_MS {
                    return Err(Reason::BadTime);
                }
                self.clock_offset_ms = offset;
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
            if let Some(instrument) = self.instruments.get_mut(&*symbol.symbol) {
                instrument.common = common;
                instrument.on_listing(Some(&symbol.status), now_ms, out);
            } else if self.any {
                self.common.insert(symbol.symbol.clone().into_owned(), common);
            }
            listed.insert(symbol.symbol);
        }
        let delisted = self.instruments.iter_mut().filter(|(symbol, _)| !partly && !listed.contains(symbol.as_str()));
        delisted.for_each(|(_, instrument)| instrument.on_listing(None, now_ms, out));
    }

    fn instrument(&mut self, symbol: &str) -> Result<&mut Instrument, Reason> {
        if self.any && !self.instruments.contains_key(symbol) {
            let common = self.common_form(symbol);
            let mut instrument = Instrument::new(self.market, symbol, common).ok_or(Reason::UnknownSymbol)?;
            instrument.asks_for_books = self.kinds.is_empty() || self.kinds.contains(&Kind::Book);
            instrument.wants_candles = self.kinds.contains(&Kind::Candles);
            self.instruments.insert(symbol.to_owned(), instrument);
        }
        self.instruments.get_mut(symbol).ok_or(Reason::UnknownSymbol)
    }

    fn common_form(&self, symbol: &str) -> String {
        self.common.get(symbol).cloned().unwrap_or_else(|| guess_common(symbol))
    }
}

enum StreamKind {
    Trade(Tape),
    BookTicker,
    Ticker,
    Depth,
    Kline,
    /// About the connection: the connector's business.
    Notice,
    Unknown,
}

/// What a stream holds, by its name: `btcusdt@depth@100ms`.
fn stream_kind(stream: &str) -> StreamKind {
    let Some((_, rest)) = stream.split_once('@') else {
        return if stream == "!serverShutdown" { StreamKind::Notice } else { StreamKind::Unknown };
    };
    match rest {
        "aggTrade" => StreamKind::Trade(Tape::Aggregate),
        "trade" => StreamKind::Trade(Tape::Single),
        "bookTicker" => StreamKind::BookTicker,
        "ticker" => StreamKind::Ticker,
        "depth" | "depth@100ms" => StreamKind::Depth,
        // `kline_1d@+08:00` is cut at other hours and has no channel.
        _ if rest.starts_with("kline_") && !rest.contains('@') => StreamKind::Kline,
        _ => StreamKind::Unknown,
    }
}

/// What an event of a raw connection is, by its `e`. (`bookTicker` has none and needs the combined form.)
fn event_kind(event: &str) -> StreamKind {
    match event {
        "aggTrade" => StreamKind::Trade(Tape::Aggregate),
        "trade" => StreamKind::Trade(Tape::Single),
        "24hrTicker" => StreamKind::Ticker,
        "depthUpdate" => StreamKind::Depth,
        "kline" => StreamKind::Kline,
        "serverShutdown" => StreamKind::Notice,
        _ => StreamKind::Unknown,
    }
}

/// A reply to a request of the connector's: `{"result":null,"id":1}`, or an error, flat or nested.
fn control(text: &str) -> Result<(), Reason> {
    if text.contains("\"code\"") {
        Err(Reason::Refused)
    } else if text.contains("\"result\"") {
        Ok(())
    } else {
        Err(Reason::BadShape)
    }
}

#[cfg(test)]
mod tests;
