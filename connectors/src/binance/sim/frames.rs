//! What the venue writes: the payloads of its streams and the bodies of its replies.
//!
//! Shapes: <https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams> and `rest-api` beside it.

use std::fmt::Write;

use super::book::Level;
use super::candles::{Candle, Interval};
use super::instrument::{Fixed, Instrument, JUMP};
use super::market::{AggTrade, Day, Diff, Snapshot};

/// The frames of `<symbol>@trade` for one taker's order, one per maker.
pub(super) fn trades(instrument: &Instrument, trade: &AggTrade) -> Vec<String> {
    let AggTrade { taker_buys, first_id, .. } = trade;
    let (symbol, price, time) = (&instrument.symbol, instrument.price(trade.price), instrument.time(trade.time));
    (*first_id..)
        .zip(&trade.fills)
        .map(|(id, &lots)| {
            let amount = instrument.amount(lots);
            format!(
                r#"{{"e":"trade","E":{time},"s":"{symbol}","t":{id},"p":"{price}","q":"{amount}","T":{time},"m":{},{}}}"#,
                !taker_buys,
                if instrument.is_future() { r#""X":"MARKET","st":1"# } else { r#""M":true"# }
            )
        })
        .collect()
}

pub(super) fn agg_trade(instrument: &Instrument, trade: &AggTrade) -> String {
    format!(
        r#"{{"e":"aggTrade","E":{},"s":"{}",{}"#,
        instrument.time(trade.time),
        instrument.symbol,
        agg_trade_fields(instrument, trade)
    )
}

/// A row of `/api/v3/aggTrades`.
pub(super) fn agg_trade_row(instrument: &Instrument, trade: &AggTrade) -> String {
    format!("{{{}", agg_trade_fields(instrument, trade))
}

fn agg_trade_fields(instrument: &Instrument, trade: &AggTrade) -> String {
    let amount = instrument.amount(trade.lots());
    // Futures also tell the quantity without retail price improvement, of which there is none here.
    let rest = if instrument.is_future() { format!(r#""nq":"{amount}","st":1"#) } else { r#""M":true"#.into() };
    format!(
        r#""a":{},"p":"{}","q":"{amount}","f":{},"l":{},"T":{},"m":{},{rest}}}"#,
        trade.id,
        instrument.price(trade.price),
        trade.first_id,
        trade.last_id(),
        instrument.time(trade.time),
        !trade.taker_buys
    )
}

pub(super) fn book_ticker(instrument: &Instrument, update_id: i64, [bid, ask]: [Level; 2], now: i64) -> String {
    let (symbol, id, now) = (&instrument.symbol, instrument.book_id(update_id), instrument.time(now));
    let (before, behind) = if instrument.is_future() {
        (r#""e":"bookTicker","#, format!(r#","ps":"{symbol}","T":{now},"E":{now},"st":1"#))
    } else {
        ("", String::new())
    };
    format!(
        r#"{{{before}"u":{id},"s":"{symbol}","b":"{}","B":"{}","a":"{}","A":"{}"{behind}}}"#,
        instrument.price(bid.0),
        instrument.amount(bid.1),
        instrument.price(ask.0),
        instrument.amount(ask.1)
    )
}

pub(super) fn diff(instrument: &Instrument, diff: &Diff, now: i64) -> String {
    let (symbol, now) = (&instrument.symbol, instrument.time(now));
    let last = instrument.book_id(diff.last);
    let mut out = if instrument.is_future() {
        // The id before it, and the first one of its own, with those of other symbols between them.
        let previous = instrument.book_id(diff.first - 1);
        let first = previous + JUMP / 2;
        format!(
            r#"{{"e":"depthUpdate","E":{now},"T":{now},"s":"{symbol}","ps":"{symbol}","st":1,"U":{first},"u":{last},"pu":{previous},"b":"#
        )
    } else {
        format!(r#"{{"e":"depthUpdate","E":{now},"s":"{symbol}","U":{},"u":{last},"b":"#, diff.first)
    };
    push_levels(&mut out, instrument, &diff.bids);
    out.push_str(r#","a":"#);
    push_levels(&mut out, instrument, &diff.asks);
    out.push('}');
    out
}

/// A partial book of a stream: at the futures market in the shape of a diff.
pub(super) fn partial(instrument: &Instrument, snapshot: &Snapshot, now: i64) -> String {
    if !instrument.is_future() {
        return self::snapshot(instrument, snapshot, now);
    }
    let (bids, asks) = (snapshot.bids.clone(), snapshot.asks.clone());
    diff(instrument, &Diff { first: snapshot.last, last: snapshot.last, bids, asks }, now)
}

/// A partial book of a stream of spot, and the reply of `depth`.
pub(super) fn snapshot(instrument: &Instrument, snapshot: &Snapshot, now: i64) -> String {
    let now = instrument.time(now);
    let times = if instrument.is_future() { format!(r#""E":{now},"T":{now},"#) } else { String::new() };
    let mut out = format!(r#"{{"lastUpdateId":{},{times}"bids":"#, instrument.book_id(snapshot.last));
    push_levels(&mut out, instrument, &snapshot.bids);
    out.push_str(r#","asks":"#);
    push_levels(&mut out, instrument, &snapshot.asks);
    out.push('}');
    out
}

fn push_levels(out: &mut String, instrument: &Instrument, levels: &[Level]) {
    out.push('[');
    for (i, &(tick, lots)) in levels.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        // Writing to a `String` cannot fail.
        let _ = write!(out, r#"{comma}["{}","{}"]"#, instrument.price(tick), instrument.amount(lots));
    }
    out.push(']');
}

pub(super) fn kline(instrument: &Instrument, interval: Interval, candle: &Candle, closed: bool, now: i64) -> String {
    let (symbol, close_time) = (&instrument.symbol, candle.open_time + interval.length_ms - 1);
    let now = instrument.time(now);
    format!(
        concat!(
            r#"{{"e":"kline","E":{now},"s":"{symbol}","k":{{"t":{},"T":{close_time},"s":"{symbol}","i":"{}","f":{},"L":{},"#,
            r#""o":"{}","c":"{}","h":"{}","l":"{}","v":"{}","n":{},"x":{closed},"q":"{}","V":"{}","Q":"{}","B":"0"}}}}"#
        ),
        candle.open_time,
        interval.name,
        candle.first_id,
        candle.last_id,
        instrument.price(candle.open),
        instrument.price(candle.close),
        instrument.price(candle.high),
        instrument.price(candle.low),
        instrument.amount(candle.lots),
        candle.trades(),
        instrument.value(candle.value),
        instrument.amount(candle.taker_lots),
        instrument.value(candle.taker_value),
        now = now,
        symbol = symbol,
        close_time = close_time,
        closed = closed,
    )
}

/// A row of `/api/v3/klines`.
pub(super) fn kline_row(instrument: &Instrument, interval: Interval, candle: &Candle) -> String {
    format!(
        r#"[{},"{}","{}","{}","{}","{}",{},"{}",{},"{}","{}","0"]"#,
        candle.open_time,
        instrument.price(candle.open),
        instrument.price(candle.high),
        instrument.price(candle.low),
        instrument.price(candle.close),
        instrument.amount(candle.lots),
        candle.open_time + interval.length_ms - 1,
        instrument.value(candle.value),
        candle.trades(),
        instrument.amount(candle.taker_lots),
        instrument.value(candle.taker_value)
    )
}

pub(super) fn mini_ticker(instrument: &Instrument, day: &Day, now: i64) -> String {
    let (total, now) = (&day.total, instrument.time(now));
    format!(
        r#"{{"e":"24hrMiniTicker","E":{now},"s":"{}","c":"{}","o":"{}","h":"{}","l":"{}","v":"{}","q":"{}"}}"#,
        instrument.symbol,
        instrument.price(total.close),
        instrument.price(total.open),
        instrument.price(total.high),
        instrument.price(total.low),
        instrument.amount(total.lots),
        instrument.value(total.value)
    )
}

pub(super) fn ticker(instrument: &Instrument, day: &Day, now: i64) -> String {
    let names = ["p", "P", "w", "x", "c", "Q", "b", "B", "a", "A", "o", "h", "l", "v", "q", "O", "C", "F", "L", "n"];
    format!(
        r#"{{"e":"24hrTicker","E":{},"s":"{}"{}}}"#,
        instrument.time(now),
        instrument.symbol,
        ticker_fields(instrument, day, now, &names)
    )
}

/// The reply of `/api/v3/ticker/24hr` for a symbol.
pub(super) fn ticker_row(instrument: &Instrument, day: &Day, now: i64) -> String {
    let names = [
        "priceChange",
        "priceChangePercent",
        "weightedAvgPrice",
        "prevClosePrice",
        "lastPrice",
        "lastQty",
        "bidPrice",
        "bidQty",
        "askPrice",
        "askQty",
        "openPrice",
        "highPrice",
        "lowPrice",
        "volume",
        "quoteVolume",
        "openTime",
        "closeTime",
        "firstId",
        "lastId",
        "count",
    ];
    format!(r#"{{"symbol":"{}"{}}}"#, instrument.symbol, ticker_fields(instrument, day, now, &names))
}

/// The fields that stream and reply share, each with a comma before it.
fn ticker_fields(instrument: &Instrument, day: &Day, now: i64, names: &[&str; 20]) -> String {
    let total = &day.total;
    let change = total.close - total.open;
    let percent = Fixed { mantissa: i128::from(change) * 100_000 / i128::from(total.open.max(1)), scale: 3 };
    let mean = total.value * 10i128.pow(8) / i128::from(total.lots.max(1));
    let texts = [
        instrument.price(change),
        percent,
        Fixed { mantissa: mean, scale: 8 + instrument.price_decimals },
        instrument.price(total.open),
        instrument.price(total.close),
        instrument.amount(day.last_lots),
        instrument.price(day.bid.0),
        instrument.amount(day.bid.1),
        instrument.price(day.ask.0),
        instrument.amount(day.ask.1),
        instrument.price(total.open),
        instrument.price(total.high),
        instrument.price(total.low),
        instrument.amount(total.lots),
        instrument.value(total.value),
    ];
    let integers = [total.open_time, now, total.first_id, total.last_id, total.trades()];
    let texts = texts.iter().map(|text| format!("\"{text}\""));
    let values = texts.chain(integers.iter().map(i64::to_string));
    // Futures tell neither the price before the window nor the best ones.
    let is_told = |place: &usize| !(instrument.is_future() && (place == &3 || (6..10).contains(place)));
    let told = names.iter().zip(values).enumerate().filter(|(place, _)| is_told(place));
    told.map(|(_, (name, value))| format!(r#","{name}":{value}"#)).collect()
}

/// An entry of `symbols` in `/api/v3/exchangeInfo`.
pub(super) fn symbol_info(instrument: &Instrument, status: &str) -> String {
    let Instrument { symbol, base, quote, .. } = instrument;
    let (tick, step) = (instrument.price(1), instrument.amount(1));
    let contract = match instrument.is_future() {
        true => format!(r#""pair":"{symbol}","contractType":"PERPETUAL","#),
        false => String::new(),
    };
    format!(
        concat!(
            r#"{{"symbol":"{symbol}",{contract}"status":"{status}","baseAsset":"{base}","baseAssetPrecision":8,"#,
            r#""quoteAsset":"{quote}","quotePrecision":8,"quoteAssetPrecision":8,"orderTypes":["LIMIT","MARKET"],"#,
            r#""isSpotTradingAllowed":true,"filters":["#,
            r#"{{"filterType":"PRICE_FILTER","minPrice":"{tick}","maxPrice":"100000000.00000000","tickSize":"{tick}"}},"#,
            r#"{{"filterType":"LOT_SIZE","minQty":"{step}","maxQty":"9000.00000000","stepSize":"{step}"}}],"#,
            r#""permissions":[],"permissionSets":[["SPOT"]]}}"#
        ),
        symbol = symbol,
        contract = contract,
        status = status,
        base = base,
        quote = quote,
        tick = tick,
        step = step
    )
}
