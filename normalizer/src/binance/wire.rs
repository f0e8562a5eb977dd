//! Binance's frames and replies, borrowed from their text.
//!
//! Source: <https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams>. Fields that are not
//! mapped are left out; the venue adds new ones without notice.

use std::borrow::Cow;

use akis_model::Level;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::mapper::Reason;
pub(super) use crate::wire::{Number, parse};

/// `{"stream":"btcusdt@aggTrade","data":{…}}`. Without `stream` it is an event of a raw connection, or a reply.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow)]
    pub(super) stream: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(borrow, rename = "e")]
    pub(super) event: Option<Cow<'a, str>>,
}

/// `<symbol>@aggTrade`, and `<symbol>@trade`, which has `t` instead of `a`; and a row of the reply to `GET …/aggTrades`.
#[derive(Debug, Deserialize)]
pub(super) struct Trade<'a> {
    /// Absent in rows of `aggTrades`.
    #[serde(borrow, rename = "s", default)]
    pub(super) symbol: Cow<'a, str>,
    #[serde(rename = "a")]
    pub(super) aggregate_id: Option<u64>,
    #[serde(rename = "t")]
    pub(super) id: Option<u64>,
    #[serde(borrow, rename = "p")]
    pub(super) price: Number<'a>,
    #[serde(borrow, rename = "q")]
    pub(super) qty: Number<'a>,
    #[serde(rename = "T")]
    pub(super) time: i64,
    #[serde(rename = "m")]
    pub(super) buyer_is_maker: bool,
    /// Only in `trade` of futures: how it came about.
    #[serde(borrow, rename = "X")]
    pub(super) origin: Option<Cow<'a, str>>,
}

/// `<symbol>@bookTicker`.
#[derive(Debug, Deserialize)]
pub(super) struct BookTicker<'a> {
    #[serde(borrow, rename = "s")]
    pub(super) symbol: Cow<'a, str>,
    #[serde(rename = "u")]
    pub(super) update_id: u64,
    /// Only of futures.
    #[serde(rename = "E")]
    pub(super) event_time: Option<i64>,
    #[serde(borrow, rename = "b")]
    pub(super) bid: Number<'a>,
    #[serde(borrow, rename = "B")]
    pub(super) bid_qty: Number<'a>,
    #[serde(borrow, rename = "a")]
    pub(super) ask: Number<'a>,
    #[serde(borrow, rename = "A")]
    pub(super) ask_qty: Number<'a>,
}

/// `<symbol>@ticker`: the rolling 24 hours.
#[derive(Debug, Deserialize)]
pub(super) struct Ticker<'a> {
    #[serde(borrow, rename = "s")]
    pub(super) symbol: Cow<'a, str>,
    #[serde(rename = "E")]
    pub(super) event_time: i64,
    #[serde(borrow, rename = "c")]
    pub(super) last: Number<'a>,
    #[serde(borrow, rename = "o")]
    pub(super) open: Number<'a>,
    #[serde(borrow, rename = "h")]
    pub(super) high: Number<'a>,
    #[serde(borrow, rename = "l")]
    pub(super) low: Number<'a>,
    #[serde(borrow, rename = "v")]
    pub(super) volume: Number<'a>,
    #[serde(borrow, rename = "q")]
    pub(super) quote_volume: Number<'a>,
    #[serde(borrow, rename = "P")]
    pub(super) change_pct: Number<'a>,
}

/// `<symbol>@kline_<interval>`.
#[derive(Debug, Deserialize)]
pub(super) struct KlineEvent<'a> {
    #[serde(borrow, rename = "s")]
    pub(super) symbol: Cow<'a, str>,
    #[serde(rename = "E")]
    pub(super) event_time: i64,
    #[serde(borrow, rename = "k")]
    pub(super) kline: Kline<'a>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Kline<'a> {
    #[serde(rename = "t")]
    pub(super) open_time: i64,
    #[serde(rename = "T")]
    pub(super) close_time: i64,
    #[serde(borrow, rename = "i")]
    pub(super) interval: Cow<'a, str>,
    #[serde(borrow, rename = "o")]
    pub(super) open: Number<'a>,
    #[serde(borrow, rename = "c")]
    pub(super) close: Number<'a>,
    #[serde(borrow, rename = "h")]
    pub(super) high: Number<'a>,
    #[serde(borrow, rename = "l")]
    pub(super) low: Number<'a>,
    #[serde(borrow, rename = "v")]
    pub(super) volume: Number<'a>,
    #[serde(rename = "n")]
    pub(super) trades: u64,
    #[serde(rename = "x")]
    pub(super) closed: bool,
}

/// A row of the reply to `GET …/klines`: open time, open, high, low, close, volume, close time, quote volume, trades,
/// and what takers bought.
#[derive(Debug, Deserialize)]
pub(super) struct KlineRow<'a>(
    pub(super) i64,
    #[serde(borrow)] pub(super) Number<'a>,
    #[serde(borrow)] pub(super) Number<'a>,
    #[serde(borrow)] pub(super) Number<'a>,
    #[serde(borrow)] pub(super) Number<'a>,
    #[serde(borrow)] pub(super) Number<'a>,
    pub(super) i64,
    pub(super) IgnoredAny,
    pub(super) u64,
    pub(super) IgnoredAny,
    pub(super) IgnoredAny,
    pub(super) IgnoredAny,
);

/// `<symbol>@depth@100ms`: what changed in the book.
#[derive(Debug, Deserialize)]
pub(super) struct DepthUpdate<'a> {
    #[serde(borrow, rename = "s")]
    pub(super) symbol: Cow<'a, str>,
    #[serde(rename = "E")]
    pub(super) event_time: i64,
    #[serde(rename = "U")]
    pub(super) first_id: u64,
    #[serde(rename = "u")]
    pub(super) last_id: u64,
    /// Only of futures.
    #[serde(rename = "pu")]
    pub(super) previous_id: Option<u64>,
    #[serde(borrow, rename = "b")]
    pub(super) bids: Levels<'a>,
    #[serde(borrow, rename = "a")]
    pub(super) asks: Levels<'a>,
}

/// The reply to `GET /api/v3/depth`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DepthReply<'a> {
    pub(super) last_update_id: u64,
    #[serde(borrow)]
    pub(super) bids: Levels<'a>,
    #[serde(borrow)]
    pub(super) asks: Levels<'a>,
}

/// The reply to `GET /api/v3/time`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TimeReply {
    pub(super) server_time: i64,
}

/// The reply to `GET /api/v3/exchangeInfo`.
#[derive(Debug, Deserialize)]
pub(super) struct ExchangeInfo<'a> {
    #[serde(borrow)]
    pub(super) symbols: Vec<SymbolInfo<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SymbolInfo<'a> {
    #[serde(borrow)]
    pub(super) symbol: Cow<'a, str>,
    /// `TRADING`, or why it is not traded.
    #[serde(borrow)]
    pub(super) status: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) base_asset: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) quote_asset: Cow<'a, str>,
}

/// Levels as `["price","quantity"]`.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Levels<'a>(#[serde(borrow)] Vec<(Number<'a>, Number<'a>)>);

impl Levels<'_> {
    /// The levels, each with a price above zero.
    pub(super) fn parse(&self) -> Result<Vec<Level>, Reason> {
        self.0.iter().map(|(price, qty)| Ok(Level(price.positive()?, qty.unsigned()?))).collect()
    }
}
