//! What the venue writes: frames of the socket and bodies of replies.
//!
//! Shapes: <https://docs.btcturk.com/websocket-feed/models> and frames recorded in September 2026. Amounts and prices are
//! strings on the socket, those of trades with trailing zeros, and JSON numbers in some replies.

use std::fmt::Write;

use super::pair::{Candle, Pair, Trade};
use super::window::{Change, Difference, Level, Window};

/// The first frame of every connection.
pub(super) const VERSION: &str = r#"[991,{"type":991,"current":"6.0.0","min":"2.3.0"}]"#;

/// The answer to a join or a leave.
pub(super) fn answer(ok: bool, join: bool, channel: &str, event: &str) -> String {
    let verb = if join { "join" } else { "leave" };
    let message = serde_json::Value::from(format!("{verb}|{channel}:{event}"));
    format!(r#"[100,{{"type":100,"ok":{ok},"message":{message}}}]"#)
}

/// A number as it is: without trailing zeros.
pub(super) fn plain(mantissa: i64, decimals: u32) -> String {
    let text = padded(mantissa, decimals, decimals);
    if decimals == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
}

/// A number with `places` decimals, at least its own.
fn padded(mantissa: i64, decimals: u32, places: u32) -> String {
    let one = 10u64.pow(decimals);
    let (whole, fraction) = (mantissa.unsigned_abs() / one, mantissa.unsigned_abs() % one);
    let sign = if mantissa < 0 { "-" } else { "" };
    let fill = "0".repeat(places.saturating_sub(decimals) as usize);
    match decimals {
        0 if places == 0 => format!("{sign}{whole}"),
        0 => format!("{sign}{whole}.{fill}"),
        _ => format!("{sign}{whole}.{fraction:0width$}{fill}", width = decimals as usize),
    }
}

/// `431`.
pub(super) fn whole(pair: &Pair, channel: &str, change_set: i64, window: &Window) -> String {
    let mut out = format!(r#"[431,{{"CS":{change_set},"PS":"{}","AO":["#, pair.symbol);
    push_levels(&mut out, pair, &window.asks);
    out.push_str(r#"],"BO":["#);
    push_levels(&mut out, pair, &window.bids);
    let _ = write!(out, r#"],"channel":"{channel}","event":"{}","type":431}}]"#, pair.symbol);
    out
}

fn push_levels(out: &mut String, pair: &Pair, levels: &[Level]) {
    for (i, &(tick, lots)) in levels.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let (amount, price) = (plain(lots, pair.lot_decimals), plain(tick, pair.price_decimals));
        // Writing to a `String` cannot fail.
        let _ = write!(out, r#"{comma}{{"A":"{amount}","P":"{price}"}}"#);
    }
}

/// `432`.
pub(super) fn difference(pair: &Pair, change_set: i64, difference: &Difference) -> String {
    let mut out = format!(r#"[432,{{"CS":{change_set},"PS":"{}","AO":["#, pair.symbol);
    push_changes(&mut out, pair, &difference.asks);
    out.push_str(r#"],"BO":["#);
    push_changes(&mut out, pair, &difference.bids);
    let _ = write!(out, r#"],"channel":"obdiff","event":"{}","type":432}}]"#, pair.symbol);
    out
}

fn push_changes(out: &mut String, pair: &Pair, changes: &[(Change, Level)]) {
    for (i, &(change, (tick, lots))) in changes.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let (amount, price) = (plain(lots, pair.lot_decimals), plain(tick, pair.price_decimals));
        // As above.
        let _ = write!(out, r#"{comma}{{"CP":{},"P":"{price}","A":"{amount}"}}"#, change as i32);
    }
}

/// An item of `421`, and the beginning of a `422`.
fn trade_fields(pair: &Pair, trade: &Trade, skew: i64) -> String {
    format!(
        r#""D":"{}","I":"{}","A":"{}","P":"{}""#,
        trade.time + skew,
        trade.id,
        padded(trade.lots, pair.lot_decimals, 10),
        padded(trade.price, pair.price_decimals, 10)
    )
}

/// `422`.
pub(super) fn trade(pair: &Pair, trade: &Trade, skew: i64) -> String {
    let (fields, symbol, side) = (trade_fields(pair, trade, skew), &pair.symbol, i32::from(!trade.taker_buys));
    format!(r#"[422,{{{fields},"PS":"{symbol}","S":{side},"channel":"trade","event":"{symbol}","type":422}}]"#)
}

/// `421`: the last trades, newest first.
pub(super) fn trades(pair: &Pair, skew: i64) -> String {
    let item =
        |trade: &Trade| format!(r#"{{{},"S":{}}}"#, trade_fields(pair, trade, skew), i32::from(!trade.taker_buys));
    let items: Vec<String> = pair.trades().iter().rev().map(item).collect();
    let symbol = &pair.symbol;
    format!(
        r#"[421,{{"symbol":"{symbol}","items":[{}],"channel":"trade","event":"{symbol}","type":421}}]"#,
        items.join(",")
    )
}

/// The fields of `402` that do not say where it goes.
fn ticker_fields(pair: &Pair, now: i64) -> Option<String> {
    let (day, [bid, ask]) = (pair.day(now)?, pair.best());
    let price = |ticks| plain(ticks, pair.price_decimals);
    let amount = |lots| plain(lots, pair.lot_decimals);
    let change = day.close - day.open;
    let percent = i64::try_from(i128::from(change) * 10_000 / i128::from(day.open.max(1))).unwrap_or(0);
    Some(format!(
        concat!(
            r#""B":"{}","A":"{}","BA":"{}","AA":"{}","PS":"{}","H":"{}","L":"{}","LA":"{}","O":"{}","V":"{}","#,
            r#""AV":"{}","D":"{}","DP":"{}","DS":"{}","NS":"{}","PId":{}"#
        ),
        price(bid.0),
        price(ask.0),
        amount(bid.1),
        amount(ask.1),
        pair.symbol,
        price(day.high),
        price(day.low),
        price(day.close),
        price(day.open),
        amount(day.lots),
        padded((day.high + day.low) / 2, pair.price_decimals, 12),
        price(change),
        plain(percent, 2),
        pair.quote,
        pair.base,
        pair.symbol.len(),
    ))
}

/// `402`.
pub(super) fn ticker(pair: &Pair, now: i64) -> Option<String> {
    let (fields, symbol) = (ticker_fields(pair, now)?, &pair.symbol);
    Some(format!(r#"[402,{{{fields},"channel":"ticker","event":"{symbol}","type":402}}]"#))
}

/// `401`.
pub(super) fn tickers<'a>(pairs: impl Iterator<Item = &'a Pair>, now: i64) -> String {
    let items: Vec<String> = pairs.filter_map(|pair| Some(format!("{{{}}}", ticker_fields(pair, now)?))).collect();
    format!(r#"[401,{{"channel":"ticker","event":"all","items":[{}],"type":401}}]"#, items.join(","))
}

/// `428`.
pub(super) fn candle(pair: &Pair, resolution: &str, candle: &Candle, skew: i64) -> String {
    let price = |ticks| plain(ticks, pair.price_decimals);
    let symbol = &pair.symbol;
    format!(
        concat!(
            r#"[428,{{"D":{},"P":"{symbol}","R":"{resolution}","O":"{}","H":"{}","L":"{}","C":"{}","V":"{}","#,
            r#""channel":"tradeview","event":"{symbol}_{resolution}","type":428}}]"#
        ),
        seconds(candle.open_time, skew),
        price(candle.open),
        price(candle.high),
        price(candle.low),
        price(candle.close),
        plain(candle.lots, pair.lot_decimals),
        symbol = symbol,
        resolution = resolution,
    )
}

/// Candles open on the minute whatever the clock says.
fn seconds(open_time: i64, skew: i64) -> i64 {
    (open_time + skew - skew.rem_euclid(super::pair::MINUTE_MS)).div_euclid(1_000)
}

/// The body of `/v1/klines/history`: numbers, times in seconds.
pub(super) fn klines(pair: &Pair, candles: &[Candle], skew: i64) -> String {
    let column = |text: &dyn Fn(&Candle) -> String| candles.iter().map(text).collect::<Vec<_>>().join(",");
    let price = |ticks| plain(ticks, pair.price_decimals);
    format!(
        r#"{{"s":"{}","t":[{}],"h":[{}],"o":[{}],"l":[{}],"c":[{}],"v":[{}]}}"#,
        if candles.is_empty() { "no_data" } else { "ok" },
        column(&|candle| seconds(candle.open_time, skew).to_string()),
        column(&|candle| price(candle.high)),
        column(&|candle| price(candle.open)),
        column(&|candle| price(candle.low)),
        column(&|candle| price(candle.close)),
        column(&|candle| plain(candle.lots, pair.lot_decimals)),
    )
}

/// The envelope of `api.btcturk.com`.
pub(super) fn envelope(data: &str) -> String {
    format!(r#"{{"data":{data},"success":true,"message":null,"code":0}}"#)
}

/// The data of `/api/v2/orderbook`: strings, as on the socket.
pub(super) fn orderbook(pair: &Pair, limit: usize, now: i64) -> String {
    let window = pair.window();
    let side = |levels: &[Level]| {
        let level = |&(tick, lots): &Level| {
            format!(r#"["{}","{}"]"#, plain(tick, pair.price_decimals), padded(lots, pair.lot_decimals, 8))
        };
        levels.iter().take(limit).map(level).collect::<Vec<_>>().join(",")
    };
    format!(r#"{{"timestamp":{now}.0,"bids":[{}],"asks":[{}]}}"#, side(&window.bids), side(&window.asks))
}

/// A row of `/api/v2/trades`.
pub(super) fn trade_row(pair: &Pair, trade: &Trade, skew: i64) -> String {
    let Pair { symbol, base, quote, .. } = pair;
    format!(
        concat!(
            r#"{{"pair":"{symbol}","pairNormalized":"{base}_{quote}","numerator":"{base}","denominator":"{quote}","#,
            r#""date":{},"tid":"{}","price":"{}","amount":"{}","side":"{}"}}"#
        ),
        trade.time + skew,
        trade.id,
        plain(trade.price, pair.price_decimals),
        plain(trade.lots, pair.lot_decimals),
        if trade.taker_buys { "buy" } else { "sell" },
        symbol = symbol,
        base = base,
        quote = quote,
    )
}

/// A row of `/api/v2/ticker`: numbers.
pub(super) fn ticker_row(pair: &Pair, now: i64) -> Option<String> {
    let (day, [bid, ask]) = (pair.day(now)?, pair.best());
    let price = |ticks| plain(ticks, pair.price_decimals);
    Some(format!(
        concat!(
            r#"{{"pair":"{}","pairNormalized":"{base}_{quote}","timestamp":{now},"last":{},"high":{},"low":{},"bid":{},"#,
            r#""ask":{},"open":{},"volume":{},"denominatorSymbol":"{quote}","numeratorSymbol":"{base}"}}"#
        ),
        pair.symbol,
        price(day.close),
        price(day.high),
        price(day.low),
        price(bid.0),
        price(ask.0),
        price(day.open),
        plain(day.lots, pair.lot_decimals),
        base = pair.base,
        quote = pair.quote,
        now = now,
    ))
}

/// An entry of `symbols` in `/api/v2/server/exchangeinfo`.
pub(super) fn symbol_info(symbol: &str, base: &str, quote: &str, tick: &str) -> String {
    format!(
        concat!(
            r#"{{"id":1,"name":"{symbol}","nameNormalized":"{base}_{quote}","status":"TRADING","numerator":"{base}","#,
            r#""denominator":"{quote}","numeratorScale":8,"denominatorScale":2,"hasFraction":false,"filters":["#,
            r#"{{"filterType":"PRICE_FILTER","minPrice":"0.0000000000001","maxPrice":"10000000","tickSize":"{tick}","#,
            r#""minExchangeValue":"99.91","minAmount":null,"maxAmount":null}}],"orderMethods":["MARKET","LIMIT"]}}"#
        ),
        symbol = symbol,
        base = base,
        quote = quote,
        tick = tick
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_venue_does() {
        for (mantissa, decimals, text) in
            [(40_670, 0, "40670"), (123_450, 3, "123.45"), (1_000, 3, "1"), (7, 8, "0.00000007"), (-173, 3, "-0.173")]
        {
            assert_eq!(plain(mantissa, decimals), text);
        }
        assert_eq!(padded(40_670, 0, 10), "40670.0000000000");
        assert_eq!(padded(10_113, 1, 10), "1011.3000000000");
    }
}
