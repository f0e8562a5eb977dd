//! BtcTurk's frames and replies, borrowed from their text.
//!
//! A frame is `[<type>, {"type": <same>, …}]`. Sources: <https://docs.btcturk.com/websocket-feed/models> and, for what
//! the documents leave open, frames recorded between 2022 and 2026 (`connectors/fixtures/btcturk`). Fields that are not
//! mapped are left out; the venue adds new ones without notice.

use std::borrow::Cow;

use akis_model::{Decimal, Level};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::mapper::Reason;
use crate::wire::{Number, parse};

/// Most levels a side that the venue tells of.
pub(super) const WINDOW: usize = 100;

/// The type of a frame and what it holds.
pub(super) fn frame(text: &str) -> Result<(i64, &str), Reason> {
    let (kind, data): (i64, &RawValue) = parse(text)?;
    Ok((kind, data.get()))
}

/// `100`: the answer to a join or a leave. `ok` proves nothing: nonsense is answered with it too.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    pub(super) ok: bool,
}

/// `402`, and an item of `401`. Has no time.
#[derive(Debug, Deserialize)]
pub(super) struct Ticker<'a> {
    #[serde(borrow, rename = "PS")]
    pub(super) pair: Cow<'a, str>,
    #[serde(borrow, rename = "B")]
    pub(super) bid: Number<'a>,
    #[serde(borrow, rename = "BA")]
    pub(super) bid_qty: Number<'a>,
    #[serde(borrow, rename = "A")]
    pub(super) ask: Number<'a>,
    #[serde(borrow, rename = "AA")]
    pub(super) ask_qty: Number<'a>,
    #[serde(borrow, rename = "LA")]
    pub(super) last: Number<'a>,
    #[serde(borrow, rename = "O")]
    pub(super) open: Number<'a>,
    #[serde(borrow, rename = "H")]
    pub(super) high: Number<'a>,
    #[serde(borrow, rename = "L")]
    pub(super) low: Number<'a>,
    #[serde(borrow, rename = "V")]
    pub(super) volume: Number<'a>,
    #[serde(borrow, rename = "DP")]
    pub(super) change_pct: Number<'a>,
}

/// `401`: every pair, each time. Items are read one by one, so that a bad one costs no other.
#[derive(Debug, Deserialize)]
pub(super) struct TickerAll<'a> {
    #[serde(borrow)]
    pub(super) items: Vec<&'a RawValue>,
}

/// `422`, and an item of `421`, which has no pair of its own. A row of `/api/v2/trades` says the same in other names.
#[derive(Debug, Deserialize)]
pub(super) struct Trade<'a> {
    #[serde(borrow, default, rename = "PS", alias = "pair")]
    pub(super) pair: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) event: Option<Cow<'a, str>>,
    /// Milliseconds since the epoch. The socket writes a string where its manual says number.
    #[serde(borrow, rename = "D", alias = "date")]
    pub(super) time: Number<'a>,
    /// Unique within the pair; numeric, but not counted by ones.
    #[serde(borrow, rename = "I", alias = "tid")]
    pub(super) id: Number<'a>,
    #[serde(borrow, rename = "P", alias = "price")]
    pub(super) price: Number<'a>,
    #[serde(borrow, rename = "A", alias = "amount")]
    pub(super) qty: Number<'a>,
    /// 0 or 1; rows of REST have a word instead.
    #[serde(default, rename = "S")]
    pub(super) side: Option<u8>,
}

/// The reply of `/api/v2/trades`: the last 50 trades.
#[derive(Debug, Deserialize)]
pub(super) struct TradeRows<'a> {
    #[serde(borrow)]
    pub(super) data: Vec<Trade<'a>>,
}

/// `421`: the last 50 trades, once after a join, in no promised order.
#[derive(Debug, Deserialize)]
pub(super) struct TradeList<'a> {
    #[serde(borrow, default)]
    pub(super) symbol: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) event: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) items: Vec<Trade<'a>>,
}

/// `428`: the running candle. Nothing in it says that it is closed.
#[derive(Debug, Deserialize)]
pub(super) struct TradingView<'a> {
    /// **Seconds** since the epoch: when it opened.
    #[serde(rename = "D")]
    pub(super) open_time_s: i64,
    #[serde(borrow, rename = "P")]
    pub(super) pair: Cow<'a, str>,
    /// Minutes, or `1D`, `1W`, `1M`.
    #[serde(borrow, rename = "R")]
    pub(super) resolution: Cow<'a, str>,
    #[serde(borrow, rename = "O")]
    pub(super) open: Number<'a>,
    #[serde(borrow, rename = "H")]
    pub(super) high: Number<'a>,
    #[serde(borrow, rename = "L")]
    pub(super) low: Number<'a>,
    #[serde(borrow, rename = "C")]
    pub(super) close: Number<'a>,
    #[serde(borrow, rename = "V")]
    pub(super) volume: Number<'a>,
}

/// `431` and `432`. `PS` has been seen to be null in a `431`; the pair is then that of the subscription.
#[derive(Debug, Deserialize)]
pub(super) struct Book<'a> {
    /// The number of the state after this frame, counted within a subscription; has been seen to be negative.
    #[serde(rename = "CS")]
    pub(super) change_set: i64,
    #[serde(borrow, default, rename = "PS")]
    pub(super) pair: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) channel: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) event: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "AO")]
    pub(super) asks: Option<Vec<BookLevel<'a>>>,
    #[serde(borrow, default, rename = "BO")]
    pub(super) bids: Option<Vec<BookLevel<'a>>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct BookLevel<'a> {
    /// In a `432`: 0 another amount, 1 a new level, 3 deleted. There is no 2.
    #[serde(default, rename = "CP")]
    change: Option<i64>,
    #[serde(borrow, rename = "P")]
    price: Number<'a>,
    #[serde(borrow, rename = "A")]
    amount: Number<'a>,
}

/// Bids and asks.
pub(super) type Levels = (Vec<Level>, Vec<Level>);

impl Book<'_> {
    /// The levels of a whole book.
    pub(super) fn whole(&self) -> Result<Levels, Reason> {
        self.levels(|level| level.amount.unsigned())
    }

    /// The levels of a difference. A deleted one has no quantity, whatever amount it still carries.
    pub(super) fn changes(&self) -> Result<Levels, Reason> {
        self.levels(|level| match level.change {
            Some(0 | 1) => level.amount.unsigned(),
            Some(3) => Ok(Decimal::ZERO),
            _ => Err(Reason::BadShape),
        })
    }

    fn levels(&self, qty: impl Fn(&BookLevel<'_>) -> Result<Decimal, Reason>) -> Result<Levels, Reason> {
        let read = |levels: &Option<Vec<BookLevel<'_>>>| -> Result<Vec<Level>, Reason> {
            levels.iter().flatten().map(|level| Ok(Level(level.price.positive()?, qty(level)?))).collect()
        };
        Ok((read(&self.bids)?, read(&self.asks)?))
    }
}

/// The reply of `/api/v2/server/exchangeinfo`.
#[derive(Debug, Deserialize)]
pub(super) struct ExchangeInfo<'a> {
    #[serde(borrow)]
    pub(super) data: Symbols<'a>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Symbols<'a> {
    #[serde(borrow)]
    pub(super) symbols: Vec<SymbolInfo<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct SymbolInfo<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    /// `TRADING`, or why not.
    #[serde(borrow)]
    pub(super) status: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) numerator: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) denominator: Cow<'a, str>,
}

/// The reply of `/v1/klines/history`: columns of JSON numbers, times in **seconds**.
#[derive(Debug, Deserialize)]
pub(super) struct Klines<'a> {
    #[serde(borrow)]
    pub(super) s: Cow<'a, str>,
    #[serde(default)]
    pub(super) t: Vec<i64>,
    #[serde(borrow, default)]
    pub(super) o: Vec<Number<'a>>,
    #[serde(borrow, default)]
    pub(super) h: Vec<Number<'a>>,
    #[serde(borrow, default)]
    pub(super) l: Vec<Number<'a>>,
    #[serde(borrow, default)]
    pub(super) c: Vec<Number<'a>>,
    #[serde(borrow, default)]
    pub(super) v: Vec<Number<'a>>,
}
