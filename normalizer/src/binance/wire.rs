//! Binance's frames and replies, borrowed from their text.
//!
//! Source: <https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams>. Fields that are not
//! mapped are left out; the venue adds new ones without notice.

use std::borrow::Cow;
use std::fmt;

use akis_model::{Decimal, Level};
use serde::de::{Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::mapper::Reason;
pub(super) use crate::wire::parse;

/// Room for the levels of a side that most differences have.
pub(super) const USUAL_LEVELS: usize = 16;

/// The stream and the data of a frame in the form that the venue writes: `{"stream":"btcusdt@aggTrade","data":{…}}`, and
/// nothing else. The data has been looked at by nobody; when it is one JSON value, the frame is whole too.
pub(super) fn split(text: &str) -> Option<(&str, &str)> {
    let (stream, rest) = text.strip_prefix(r#"{"stream":""#)?.split_once('"')?;
    let data = rest.strip_prefix(r#","data":"#)?.strip_suffix('}')?;
    let is_plain = stream.bytes().all(|byte| byte >= b' ' && byte != b'\\');
    is_plain.then_some((stream, data))
}

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
    #[serde(rename = "b")]
    pub(super) bids: Levels,
    #[serde(rename = "a")]
    pub(super) asks: Levels,
}

/// The reply to `GET /api/v3/depth`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DepthReply {
    pub(super) last_update_id: u64,
    pub(super) bids: Levels,
    pub(super) asks: Levels,
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

/// A price or quantity. The venue writes them in quotes; see [`quoted`] for what is done should it not.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number<'a> {
    Text(&'a str),
    Whole(i64),
}

impl Number<'_> {
    /// Any number.
    pub(super) fn signed(self) -> Result<Decimal, Reason> {
        match self {
            Self::Text(text) => text.parse(),
            Self::Whole(whole) => Decimal::from_parts(whole.into(), 0),
        }
        .map_err(|_| Reason::BadNumber)
    }

    /// Zero or above.
    pub(super) fn unsigned(self) -> Result<Decimal, Reason> {
        self.signed().and_then(|value| if value.is_negative() { Err(Reason::OutOfRange) } else { Ok(value) })
    }

    /// Above zero.
    pub(super) fn positive(self) -> Result<Decimal, Reason> {
        self.unsigned().and_then(|value| if value.is_zero() { Err(Reason::OutOfRange) } else { Ok(value) })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Number<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'a> Visitor<'a> for Any {
            type Value = Number<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number in quotes")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'a str) -> Result<Number<'a>, E> {
                Ok(Number::Text(text))
            }

            /// One with an escape in it, which no number needs.
            fn visit_str<E: Error>(self, _: &str) -> Result<Number<'a>, E> {
                Ok(Number::Text(""))
            }

            fn visit_u64<E: Error>(self, whole: u64) -> Result<Number<'a>, E> {
                i64::try_from(whole).map(Number::Whole).map_err(E::custom)
            }

            fn visit_i64<E: Error>(self, whole: i64) -> Result<Number<'a>, E> {
                Ok(Number::Whole(whole))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// The same with quotes around its numbers that have a fraction or an exponent, when there are any without: such a number
/// stays exact only as a text.
pub(super) fn quoted(text: &str) -> Option<String> {
    let (mut out, bytes) = (String::new(), text.as_bytes());
    let (mut at, mut done) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at),
            b'-' | b'0'..=b'9' => {
                let is_behind = |c: char| !matches!(c, '0'..='9' | '.' | '-' | '+' | 'e' | 'E');
                let end = text[at..].find(is_behind).map_or(text.len(), |length| at + length);
                let number = &text[at..end];
                if number.contains(['.', 'e', 'E']) && parse::<IgnoredAny>(number).is_ok() {
                    out.extend([&text[done..at], "\"", number, "\""]);
                    done = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    (done > 0).then(|| out + &text[done..])
}

/// Behind the string that begins at `at`.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    loop {
        at += 1;
        match bytes.get(at) {
            Some(b'\\') => at += 1,
            Some(b'"') => return at + 1,
            Some(_) => {}
            None => return at,
        }
    }
}

/// Levels as `["price","quantity"]`: each has a price above zero, or there is the reason why one has not.
#[derive(Debug)]
pub(super) struct Levels(pub(super) Result<Vec<Level>, Reason>);

impl<'a> Deserialize<'a> for Levels {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rows;
        impl<'a> Visitor<'a> for Rows {
            type Value = Levels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("levels")
            }

            fn visit_seq<A: SeqAccess<'a>>(self, mut rows: A) -> Result<Levels, A::Error> {
                let mut levels = Ok(Vec::with_capacity(USUAL_LEVELS));
                while let Some((price, qty)) = rows.next_element::<(Number<'a>, Number<'a>)>()? {
                    if let Ok(known) = &mut levels {
                        match level(price, qty) {
                            Ok(level) => known.push(level),
                            Err(reason) => levels = Err(reason),
                        }
                    }
                }
                Ok(Levels(levels))
            }
        }
        deserializer.deserialize_seq(Rows)
    }
}

fn level(price: Number<'_>, qty: Number<'_>) -> Result<Level, Reason> {
    Ok(Level(price.positive()?, qty.unsigned()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_a_fraction_are_put_in_quotes() {
        for (text, expected) in [
            (r#"[1,-2,"3.5","\"4.5",true]"#, None),
            (r#"{"a":1.5,"b":[-2e-3,7],"1.5":"x"}"#, Some(r#"{"a":"1.5","b":["-2e-3",7],"1.5":"x"}"#)),
            ("01.5", None),
            ("1e400", Some(r#""1e400""#)),
            (r#"{"ş":0.10"#, Some(r#"{"ş":"0.10""#)),
            (r#""1.5\"#, None),
        ] {
            assert_eq!(quoted(text).as_deref(), expected, "{text}");
        }
    }
}
