//! BtcTurk: what its frames mean.
//!
//! | frame | event |
//! |---|---|
//! | `402`, items of `401` | `price_tick`, unless it repeats what was said |
//! | `422`, and what a `421` or `GET /api/v2/trades` has that was missed | `trade` |
//! | `431` and `432` of `obdiff` | `orderbook` |
//! | `428` of a minute, with `GET /v1/klines/history` | `candle_update`: the minute, and what is rolled up from it |

mod candles;
mod depth;
mod instrument;
mod names;
mod tape;
mod told;
mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use akis_connectors::{Content, RawFrame, Request, is_symbol};
use akis_model::{Channel, Kind};

use self::instrument::{Instrument, Origin};
use self::names::{guess_common, parameter};
use crate::clock::Clock;
use crate::mapper::{Mapper, Output, Reason};
use crate::wire::parse;

/// The first segment of the channels.
const SOURCE: &str = "btcturk";

/// The channel whose books are taken; `orderbook` counts `CS` on its own and sends whole books only.
const BOOK_CHANNEL: &str = "obdiff";

/// The mapper of BtcTurk.
#[derive(Default)]
pub(crate) struct BtcTurk {
    /// Every pair that comes is let in.
    any: bool,
    /// What is wanted of the pairs that come; nothing in a recording, where it is what comes.
    kinds: Vec<Kind>,
    /// In order, so that what ticks say comes in the same order on every run.
    instruments: BTreeMap<String, Instrument>,
    /// Common forms that `exchangeinfo` told.
    common: HashMap<String, String>,
    declared: Vec<Channel>,
    clock: Clock,
    heard: Heard,
    /// Whether the list of pairs has come.
    is_listed: bool,
}

/// How frames have come lately, from whichever connection.
#[derive(Default)]
struct Heard {
    /// Since when without a pause.
    since: i64,
    /// The moment of the last one.
    at: i64,
}

impl Mapper for BtcTurk {
    fn believed_ahead_ms(&self) -> i64 {
        self.clock.believed_ahead_ms()
    }

    fn admit(&mut self, symbols: Option<&[String]>, kinds: &[Kind]) {
        let Some(symbols) = symbols else {
            self.any = true;
            return;
        };
        self.kinds = kinds.to_vec();
        for symbol in symbols.iter().map(|symbol| symbol.replace('_', "").to_ascii_uppercase()) {
            if !is_symbol(&symbol) {
                // The session has looked up what that means and asked for nothing else.
                self.any = true;
                continue;
            }
            if self.instruments.contains_key(&symbol) {
                continue;
            }
            let Some(instrument) = self.new_instrument(&symbol) else { continue };
            self.declared.extend(kinds.iter().flat_map(|&kind| instrument.channels(kind)).cloned());
            self.instruments.insert(symbol, instrument);
        }
    }

    fn channels(&self) -> Vec<Channel> {
        self.declared.clone()
    }

    fn on_frame(&mut self, frame: &RawFrame, out: &mut Output) {
        let taken = match &frame.content {
            Content::Text { connection, text } => {
                self.heard.note(frame.received_at);
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
        let read_until = self.heard.read_until();
        for (symbol, instrument) in &mut self.instruments {
            let wish = instrument.on_tick(now_ms, read_until, out);
            if wish.book {
                out.requests.push(Request::Book { symbol: symbol.clone() });
            }
            if wish.candles {
                let (interval, count) = (candles::MINUTE, candles::BACKFILL);
                out.requests.push(Request::Candles { symbol: symbol.clone(), interval, count });
            }
            if wish.trades {
                // The venue gives the last ones, whatever their ids are.
                out.requests.push(Request::Trades { symbol: symbol.clone(), from_id: 0 });
            }
        }
    }

    fn backfill(&mut self, _out: &mut Output) {
        // They are asked for, and what is known is told again, with the next tick.
        self.instruments.values_mut().for_each(Instrument::backfill);
    }

    fn is_whole(&self) -> bool {
        self.is_listed
    }
}

impl BtcTurk {
    fn on_text(&mut self, text: &str, at: Origin, out: &mut Output) -> Result<(), Reason> {
        let (kind, data) = wire::frame(text)?;
        match kind {
            100 => match parse::<wire::Answer>(data)?.ok {
                true => Ok(()),
                false => Err(Reason::Refused),
            },
            401 => self.on_tickers(&parse(data)?, at, out),
            402 => {
                let ticker: wire::Ticker<'_> = parse(data)?;
                self.instrument(&ticker.pair)?.on_ticker(&ticker, at, Some(at.connection), out)
            }
            421 => {
                let list: wire::TradeList<'_> = parse(data)?;
                let pair = list.symbol.as_ref().or(list.event.as_ref()).ok_or(Reason::BadShape)?;
                self.instrument(pair)?.on_trades(&list.items, Some(at.connection), at.received_at, out);
                Ok(())
            }
            422 => {
                let trade: wire::Trade<'_> = parse(data)?;
                let pair = trade.pair.as_ref().or(trade.event.as_ref()).ok_or(Reason::BadShape)?;
                self.instrument(pair)?.on_trade(&trade, at, out)
            }
            428 => self.on_candle(&parse(data)?, at, out),
            431 | 432 => self.on_book(kind, &parse(data)?, at, out),
            // About the connection or to everybody: a request of the manual's, messages of the system, the version.
            101 | 801 | 802 | 991 => Ok(()),
            _ => Err(Reason::UnknownEvent),
        }
    }

    /// Takes every ticker of a pair that is wanted. A bad one costs no other.
    fn on_tickers(&mut self, all: &wire::TickerAll<'_>, at: Origin, out: &mut Output) -> Result<(), Reason> {
        out.data = true;
        for item in &all.items {
            let taken = parse::<wire::Ticker<'_>>(item.get()).and_then(|ticker| match self.instrument(&ticker.pair) {
                // The tickers of all pairs are asked for before candles.
                Ok(instrument) => instrument.on_ticker(&ticker, at, None, out),
                // The frame has all pairs, whoever asked for how many.
                Err(_) => Ok(()),
            });
            if let Err(reason) = taken {
                out.skipped.push(reason);
            }
        }
        Ok(())
    }

    fn on_candle(&mut self, candle: &wire::TradingView<'_>, at: Origin, out: &mut Output) -> Result<(), Reason> {
        if candle.resolution != candles::MINUTE {
            return Err(Reason::UnknownEvent);
        }
        self.instrument(&candle.pair)?.on_candle(candle, at, out)
    }

    fn on_book(&mut self, kind: i64, book: &wire::Book<'_>, at: Origin, out: &mut Output) -> Result<(), Reason> {
        if book.channel.as_ref().is_some_and(|channel| channel != BOOK_CHANNEL) {
            return Err(Reason::UnknownEvent);
        }
        let pair = book.pair.as_ref().or(book.event.as_ref()).ok_or(Reason::BadShape)?;
        let instrument = self.instrument(pair)?;
        match kind {
            431 => instrument.on_whole(book, at, out),
            _ => instrument.on_change(book, at, out),
        }
    }

    fn on_reply(
        &mut self,
        target: &str,
        status: u16,
        body: &str,
        received_at: i64,
        out: &mut Output,
    ) -> Result<(), Reason> {
        match target.split('?').next().unwrap_or_default() {
            _ if status != 200 => Err(Reason::Refused),
            "/v1/klines/history" => {
                let rows: wire::Klines<'_> = parse(body)?;
                if parameter(target, "resolution") != Some(candles::MINUTE) {
                    return Err(Reason::UnknownEvent);
                }
                // A stretch without any trade is answered with `no_data`.
                if !matches!(&*rows.s, "ok" | "no_data") {
                    return Err(Reason::Refused);
                }
                let pair = parameter(target, "symbol").ok_or(Reason::UnknownSymbol)?;
                self.instrument(pair)?.on_klines(&rows, received_at, out)
            }
            "/api/v2/trades" => {
                let list: wire::TradeRows<'_> = parse(body)?;
                let pair = parameter(target, "pairSymbol").ok_or(Reason::UnknownSymbol)?;
                self.instrument(pair)?.on_trades(&list.data, None, received_at, out);
                Ok(())
            }
            "/api/v2/server/exchangeinfo" => {
                let info: wire::ExchangeInfo<'_> = parse(body)?;
                self.on_info(info.data.symbols, received_at, out);
                Ok(())
            }
            "/api/v2/server/time" => {
                self.clock.take(body, received_at)?;
                let offset_ms = self.clock.offset_ms();
                self.instruments.values_mut().for_each(|instrument| instrument.clock_offset_ms = offset_ms);
                Ok(())
            }
            // The session selects pairs by it.
            "/api/v2/ticker" => Ok(()),
            _ => Err(Reason::UnknownEvent),
        }
    }

    /// Takes what the pairs are made of, and whether they are traded.
    fn on_info(&mut self, symbols: Vec<wire::SymbolInfo<'_>>, now_ms: i64, out: &mut Output) {
        let mut listed = BTreeSet::new();
        for symbol in symbols {
            let common = format!("{}/{}", symbol.numerator, symbol.denominator);
            if let Some(instrument) = self.instruments.get_mut(&*symbol.name) {
                instrument.common = common;
                instrument.on_listing(Some(&symbol.status), now_ms, out);
            } else if self.any {
                self.common.insert(symbol.name.clone().into_owned(), common);
            }
            listed.insert(symbol.name);
        }
        self.is_listed |= !listed.is_empty();
        // A venue that is being repaired may list nothing.
        if !listed.is_empty() {
            let delisted = self.instruments.iter_mut().filter(|(pair, _)| !listed.contains(pair.as_str()));
            delisted.for_each(|(_, instrument)| instrument.on_listing(None, now_ms, out));
        }
    }

    fn instrument(&mut self, pair: &str) -> Result<&mut Instrument, Reason> {
        if self.any && !self.instruments.contains_key(pair) {
            let instrument = self.new_instrument(pair).ok_or(Reason::UnknownSymbol)?;
            self.instruments.insert(pair.to_owned(), instrument);
        }
        self.instruments.get_mut(pair).ok_or(Reason::UnknownSymbol)
    }

    fn new_instrument(&self, pair: &str) -> Option<Instrument> {
        let common = self.common.get(pair).cloned().unwrap_or_else(|| guess_common(pair));
        let mut instrument = Instrument::new(pair, common, self.kinds.clone())?;
        instrument.clock_offset_ms = self.clock.offset_ms();
        Some(instrument)
    }
}

impl Heard {
    fn note(&mut self, received_at: i64) {
        if received_at.saturating_sub(self.at) >= candles::GRACE_MS {
            self.since = received_at;
        }
        self.at = received_at;
    }

    /// All that was sent before this moment has been read. Behind a pause there may be more that was held up with what has come,
    /// so `None` until frames have come for a while again.
    fn read_until(&self) -> Option<i64> {
        let until = self.at.saturating_sub(candles::GRACE_MS);
        (self.since <= until).then_some(until)
    }
}

#[cfg(test)]
mod tests;
