mod books;
mod connections;

use std::collections::BTreeMap;

use akis_model::{ChannelState, Level, Side, TimeSource};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::mapper::Resync;
use crate::pipeline::{Pipeline, Step};
use crate::update::{Payload, Update};

/// A mapper of BTCUSDT and what it said.
struct Harness {
    spot: Binance,
    now: i64,
    out: Output,
}

impl Harness {
    fn new() -> Self {
        let mut spot = Binance::new(Market::SPOT);
        spot.admit(Some(&["btcusdt".to_owned()]), &[Kind::Ticker, Kind::Trades, Kind::Book, Kind::Candles]);
        Self { spot, now: 1_000, out: Output::default() }
    }

    fn content(&mut self, content: Content) -> Output {
        self.spot.on_frame(&RawFrame { received_at: self.now, content }, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn text(&mut self, text: &str) -> Output {
        self.content(Content::Text { connection: 1, text: text.into() })
    }

    fn stream(&mut self, stream: &str, data: &Value) -> Output {
        self.text(&json!({ "stream": format!("btcusdt@{stream}"), "data": data }).to_string())
    }

    fn depth(&mut self, first: u64, last: u64, bids: Value, asks: Value) -> Output {
        let data = json!({"e":"depthUpdate","E":900,"s":"BTCUSDT","U":first,"u":last,"b":bids,"a":asks});
        self.stream("depth@100ms", &data)
    }

    fn snapshot(&mut self, last: u64, bids: Value, asks: Value) -> Output {
        self.snapshot_of(1_000, last, bids, asks)
    }

    /// One that was asked for with this limit.
    fn snapshot_of(&mut self, most: usize, last: u64, bids: Value, asks: Value) -> Output {
        let body = json!({"lastUpdateId":last,"bids":bids,"asks":asks}).to_string();
        let target = format!("/api/v3/depth?symbol=BTCUSDT&limit={most}");
        self.content(Content::Reply { target, status: 200, body })
    }

    fn tick(&mut self, later_ms: i64) -> Output {
        self.now += later_ms;
        self.spot.on_tick(self.now, &mut self.out);
        std::mem::take(&mut self.out)
    }

    /// A book of one bid at 10 and one ask at 11, at id 100.
    fn live() -> Self {
        let mut harness = Self::new();
        assert_eq!(seqs(&harness.snapshot(100, json!([["10", "1"]]), json!([["11", "1"]]))), ["100"]);
        harness
    }
}

fn seqs(out: &Output) -> Vec<&str> {
    out.updates
        .iter()
        .filter_map(|update| match &update.payload {
            Payload::Book(book) => Some(book.venue_seq.as_str()),
            _ => None,
        })
        .collect()
}

fn states(out: &Output) -> Vec<ChannelState> {
    out.updates
        .iter()
        .filter_map(|update| match &update.payload {
            Payload::Status(status) => Some(status.state),
            _ => None,
        })
        .collect()
}

fn rendered(update: Update) -> Value {
    let event = update.into_event().unwrap();
    serde_json::from_str(&event.body.envelope(akis_model::Seq::ZERO)).unwrap()
}

fn trade(id: u64) -> Value {
    json!({"e":"aggTrade","E":5,"s":"BTCUSDT","a":id,"p":"67000.50","q":"0.100","f":1,"l":2,"T":4,"m":true,"M":true})
}

#[test]
fn a_trade_becomes_an_event() {
    let mut out = Harness::new().stream("aggTrade", &trade(7));
    assert_eq!(out.lost_trades, 0, "nobody knows of any");
    assert_eq!(
        rendered(out.updates.remove(0)),
        json!({"v":1,"seq":0,"ts":4,"event":"trade","channel":"binance:BTCUSDT:trades","ok":true,"data":{
            "symbol":"BTC/USDT","id":"7","price":"67000.5","qty":"0.1","side":"sell","tsSource":"venue","receivedAt":1000}})
    );
}

#[test]
fn trades_are_told_once_and_holes_are_filled_or_marked() {
    let mut harness = Harness::new();
    let mut seen = Vec::new();
    let mut note = |out: Output| {
        seen.extend(out.updates.iter().map(|update| match &update.payload {
            Payload::Trade(trade) => (trade.id.clone(), update.missing_before),
            other => panic!("{other:?}"),
        }));
    };
    // The log may have trades from before the first one that is heard.
    for id in [5, 6, 6, 5, 9, 10] {
        note(harness.stream("aggTrade", &trade(id)));
    }
    let asked = |out: &Output| out.requests.iter().find(|request| matches!(request, Request::Trades { .. })).cloned();
    let request = |from_id| Some(Request::Trades { symbol: "BTCUSDT".into(), from_id });
    assert_eq!(asked(&harness.tick(50)), request(7));
    let answer = |harness: &mut Harness, from: u64, ids: &[u64]| {
        let rows: Vec<Value> = ids.iter().map(|&id| trade(id)).collect();
        let target = format!("/api/v3/aggTrades?symbol=BTCUSDT&fromId={from}&limit=1000");
        harness.content(Content::Reply { target, status: 200, body: json!(rows).to_string() })
    };
    note(answer(&mut harness, 7, &[7]));
    assert_eq!(asked(&harness.tick(50)), request(8));
    note(answer(&mut harness, 8, &[9, 10, 11]));
    let expected = [("5", 1), ("6", 0), ("7", 0), ("9", 1), ("10", 0), ("11", 0)];
    assert_eq!(seen, expected.map(|(id, missing)| (id.to_owned(), missing)));
    let other = json!({"e":"trade","E":5,"s":"BTCUSDT","t":11,"p":"1","q":"1","T":4,"m":false,"M":true});
    assert_eq!(harness.stream("trade", &other).skipped, [Reason::UnknownEvent], "never both series");
}

#[test]
fn a_tape_of_single_trades_is_taken_too() {
    let data = json!({"e":"trade","E":5,"s":"BTCUSDT","t":11,"p":"1","q":"1","T":4,"m":false,"M":true});
    let out = Harness::new().stream("trade", &data);
    assert!(
        matches!(&out.updates[0].payload, Payload::Trade(trade) if trade.id == "11" && trade.side == Some(Side::Buy))
    );
}

#[test]
fn a_trade_that_was_never_in_the_book_counts_whatever_it_says() {
    let mut harness = Harness::new();
    let trade = |id: u64, price: &str, origin: &str| json!({"e":"trade","E":5,"T":4,"s":"BTCUSDT","t":id,"p":price,"q":"1","X":origin,"m":false});
    harness.stream("trade", &trade(11, "1", "MARKET"));
    assert_eq!(harness.stream("trade", &trade(12, "0", "NA")).skipped, [Reason::OffBook]);
    let out = harness.stream("trade", &trade(13, "1", "MARKET"));
    assert_eq!((out.updates.len(), out.updates[0].missing_before), (1, 0), "at once, and nothing is missing");
    harness.stream("trade", &trade(15, "0", "NA"));
    harness.tick(0);
    let out = harness.tick(6_000);
    assert!(out.updates.iter().all(|update| update.payload.is_status()));
    assert_eq!(out.lost_trades, 1);
    assert_eq!(
        harness.stream("trade", &trade(16, "1", "MARKET")).updates[0].missing_before,
        1,
        "14, which lay before it"
    );
}

#[test]
fn a_snapshot_whose_call_names_no_limit_has_as_many_levels_as_the_market_gives() {
    let snapshot = |market: Market, path: &str| {
        let mut mapper = Binance::new(market);
        mapper.admit(Some(&["BTCUSDT".to_owned()]), &[Kind::Book]);
        let body = json!({"lastUpdateId":100,"bids":levels(81..=100, "1"),"asks":levels(101..=120, "1")});
        let target = format!("{path}/depth?symbol=BTCUSDT");
        let mut out = Output::default();
        let content = Content::Reply { target, status: 200, body: body.to_string() };
        mapper.on_frame(&RawFrame { received_at: 1_000, content }, &mut out);
        assert_eq!(seqs(&out), ["100"]);
        let data = json!({"e":"depthUpdate","E":900,"s":"BTCUSDT","U":101,"u":101,"pu":100,"b":[["100","0"]],"a":[]});
        let text = json!({"stream":"btcusdt@depth@100ms","data":data}).to_string();
        out = Output::default();
        mapper.on_frame(&RawFrame { received_at: 1_000, content: Content::Text { connection: 1, text } }, &mut out);
        (seqs(&out).len(), out.resyncs)
    };
    // Fewer than it may have, so there are no others.
    assert_eq!(snapshot(Market::USDM, "/fapi/v1"), (1, vec![]));
    assert_eq!(snapshot(Market::SPOT, "/api/v3"), (1, vec![]));
}

#[test]
fn a_price_tick_merges_quote_and_statistics() {
    let mut harness = Harness::new();
    let quote = |u: u64, bid: &str| json!({"u":u,"s":"BTCUSDT","b":bid,"B":"1.0","a":"11.0","A":"2"});
    let mut out = harness.stream("bookTicker", &quote(5, "10.50"));
    assert_eq!(
        rendered(out.updates.remove(0))["data"],
        json!({"symbol":"BTC/USDT","bid":"10.5","bidQty":"1","ask":"11","askQty":"2","tsSource":"received","receivedAt":1000})
    );
    let statistics = json!({"e":"24hrTicker","E":77,"s":"BTCUSDT","p":"1","P":"-0.50","w":"1","c":"10.70","Q":"1",
        "b":"1","B":"1","a":"2","A":"1","o":"10","h":"12","l":"9","v":"100.0","q":"1000","O":0,"C":1,"F":0,"L":1,"n":2});
    let mut out = harness.stream("ticker", &statistics);
    assert_eq!(
        rendered(out.updates.remove(0)),
        json!({"v":1,"seq":0,"ts":77,"event":"price_tick","channel":"binance:BTCUSDT:ticker","ok":true,"data":{
            "symbol":"BTC/USDT","last":"10.7","bid":"10.5","bidQty":"1","ask":"11","askQty":"2","open24h":"10",
            "high24h":"12","low24h":"9","volume24h":"100","quoteVolume24h":"1000","change24hPct":"-0.5",
            "tsSource":"venue","receivedAt":1000}})
    );
    assert_eq!(harness.stream("bookTicker", &quote(4, "10.6")).skipped, [Reason::Stale]);
    assert_eq!(harness.stream("bookTicker", &quote(6, "11")).skipped, [Reason::Crossed]);
    let mut out = harness.stream("bookTicker", &quote(6, "0.00000000"));
    assert_eq!(rendered(out.updates.remove(0))["data"].get("bid"), None, "an empty side is absent");
}

#[test]
fn a_candle_becomes_an_event() {
    let kline = |interval: &str| {
        json!({"e":"kline","E":61000,"s":"BTCUSDT","k":{"t":0,"T":59999,"s":"BTCUSDT","i":interval,"f":1,"L":2,"o":"1.0",
            "c":"2.0","h":"2.5","l":"0.5","v":"10.0","n":3,"x":true,"q":"1","V":"5","Q":"1","B":"0"}})
    };
    let mut harness = Harness::new();
    let mut out = harness.stream("kline_1m", &kline("1m"));
    assert_eq!(
        rendered(out.updates.remove(0)),
        json!({"v":1,"seq":0,"ts":61000,"event":"candle_update","channel":"binance:BTCUSDT:1m","ok":true,"data":{
            "symbol":"BTC/USDT","interval":"1m","openTime":0,"closeTime":59999,"open":"1","high":"2.5","low":"0.5",
            "close":"2","volume":"10","trades":3,"closed":true,"tsSource":"venue","receivedAt":1000}})
    );
    assert_eq!(harness.stream("kline_1m", &kline("1m")).skipped, [Reason::Stale], "closed is the last word");
    assert_eq!(harness.stream("kline_3m", &kline("3m")).skipped, [Reason::UnknownEvent]);
    assert_eq!(harness.stream("kline_1d@+08:00", &kline("1d")).skipped, [Reason::UnknownEvent]);
}

/// A candle of a minute with this open time.
fn minute(open_time: i64, closed: bool) -> Value {
    json!({"e":"kline","E":open_time + 5,"s":"BTCUSDT","k":{"t":open_time,"T":open_time + 59_999,"s":"BTCUSDT","i":"1m","f":1,
        "L":2,"o":"1","c":"1","h":"1","l":"1","v":"1","n":1,"x":closed,"q":"1","V":"1","Q":"1","B":"0"}})
}

#[test]
fn candles_that_were_missed_while_the_connection_was_cut_are_fetched() {
    let mut harness = Harness::new();
    let asked = |out: Output| {
        out.requests.iter().find_map(|request| match request {
            Request::Candles { interval: "1m", count, .. } => Some(*count),
            _ => None,
        })
    };
    assert_eq!(asked(harness.stream("kline_1m", &minute(0, true))), None);
    harness.now = 70_000;
    assert_eq!(asked(harness.stream("kline_1m", &minute(60_000, false))), None, "nothing is missing");
    harness.content(Content::Closed { connection: 1, code: 1006 });
    harness.now = 310_000;
    let count = asked(harness.stream("kline_1m", &minute(300_000, false)));
    assert!(count >= Some(5), "how 60,000 closed, three whole ones, and the one that runs: {count:?}");
    let row = |open: i64| json!([open, "1", "1", "1", "1", "1", open + 59_999, "1", 1, "1", "1", "0"]);
    let rows: Vec<Value> = (0..6).map(|n| row(n * 60_000)).collect();
    let target = "/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=6".to_owned();
    let out = harness.content(Content::Reply { target, status: 200, body: json!(rows).to_string() });
    let kept: Vec<i64> = out.history.iter().flat_map(|past| &past.candles).map(|candle| candle.open_time).collect();
    assert_eq!(kept, [0, 60_000, 120_000, 180_000, 240_000], "no hole, and not the one that runs");
    harness.now = 365_000;
    assert!(asked(harness.stream("kline_1m", &minute(360_000, false))).is_some(), "nobody saw how the last one closed");
}

#[test]
fn candles_of_the_past_are_asked_for_a_few_symbols_at_a_time() {
    let symbols: Vec<String> = (0..12).map(|n| format!("S{n}USDT")).collect();
    let mut harness = Harness::new();
    harness.spot = Binance::new(Market::SPOT);
    harness.spot.admit(Some(&symbols), &[Kind::Candles]);
    harness.spot.backfill(&mut Output::default());
    let asked = [(); 4].map(|()| harness.tick(50).requests.len() / Interval::ALL.len());
    assert_eq!(asked, [5, 5, 2, 0]);
}

#[test]
fn a_time_from_the_future_or_from_1970_is_marked_by_the_clock_that_was_measured() {
    let now = 1_790_133_600_000;
    let mut mapper = Binance::new(Market::SPOT);
    mapper.admit(Some(&["BTCUSDT".to_owned()]), &[Kind::Trades, Kind::Candles]);
    let mut pipeline = Pipeline::new(Box::new(mapper), false);
    let mut take = |content: Content| {
        let mut step = Step::default();
        pipeline.on_frame(&RawFrame { received_at: now, content }, &mut step);
        let event = step.events.last().map(|event| event.body.envelope(akis_model::Seq::ZERO));
        let event = event.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap());
        (event["ts"].as_i64(), event["data"]["tsSource"].as_str().map(str::to_owned), step.skipped)
    };
    let framed = |stream: &str, data: Value| {
        let text = json!({"stream": format!("btcusdt@{stream}"), "data": data}).to_string();
        Content::Text { connection: 1, text }
    };
    let at = |id: u64, time: i64| {
        let mut data = trade(id);
        data["T"] = json!(time);
        framed("aggTrade", data)
    };
    let clock = |server_time: i64| {
        let body = json!({"serverTime": server_time}).to_string();
        Content::Reply { target: "/api/v3/time".into(), status: 200, body }
    };
    let believed = |time| (Some(time), Some("venue".to_owned()), vec![]);
    let marked = || (Some(now), Some("received".to_owned()), vec![Reason::BadTime]);
    assert_eq!(take(at(1, now + 60_000)), believed(now + 60_000));
    assert_eq!(take(at(2, now + 60_001)), marked());
    assert_eq!(take(at(3, 5)), marked());
    assert_eq!(take(clock(now + 300_000)).2, [], "this machine's clock is late");
    assert_eq!(take(at(4, now + 300_000)), believed(now + 300_000));
    assert_eq!(take(at(5, now + 360_001)), marked());
    assert_eq!(take(clock(now - 300_000)).2, [], "or early");
    assert_eq!(take(at(6, now - 300_000)), believed(now - 300_000));
    assert_eq!(take(at(7, now)), marked(), "five minutes ahead for the venue");
    assert_eq!(take(clock(now - 304_000)).2, [], "a reply that took four seconds");
    let quote = framed("bookTicker", json!({"u":1,"s":"BTCUSDT","b":"10","B":"1","a":"11","A":"2"}));
    let received = (Some(now - 300_000), Some("received".to_owned()), vec![]);
    assert_eq!(take(quote), received, "what has no time is placed by the same clock");
    assert_eq!(take(clock(now + 86_400_000)).2, [Reason::BadTime], "a clock that is a day off is not believed");
    assert_eq!(take(at(8, now + 86_400_000)), marked());
    let ahead = now - now % 60_000 + 86_400_000;
    assert_eq!(take(framed("kline_1m", minute(ahead, false))).2, [Reason::BadTime]);
    assert_eq!(take(framed("kline_1m", minute(i64::MIN / 2, false))).2, [Reason::BadTime]);
    let open = now - 360_000 - now % 60_000;
    assert_eq!(take(framed("kline_1m", minute(open, false))), believed(open + 5), "it held up nothing");
}

#[test]
fn data_that_flows_again_does_not_say_that_a_book_is_proven_or_a_symbol_traded() {
    let mut mapper = Binance::new(Market::SPOT);
    let symbols = ["BTCUSDT", "ETHUSDT"].map(str::to_owned);
    mapper.admit(Some(&symbols), &[Kind::Ticker, Kind::Book]);
    let mut pipeline = Pipeline::new(Box::new(mapper), false);
    pipeline.admit(Some(&symbols), None, &[Kind::Ticker, Kind::Book]);
    let mut now = 600_000;
    let mut step = |later_ms: i64, content: Option<Content>| {
        now += later_ms;
        let mut step = Step::default();
        if let Some(content) = content {
            pipeline.on_frame(&RawFrame { received_at: now, content }, &mut step);
        }
        pipeline.on_tick(now, &mut step);
        let told = step.events.iter().map(|event| {
            let told: Value = serde_json::from_str(&event.body.envelope(akis_model::Seq::ZERO)).unwrap();
            (event.channel.as_str().to_owned(), told["data"]["state"].as_str().unwrap_or_default().to_owned())
        });
        told.filter(|(_, state)| !state.is_empty()).collect::<BTreeMap<String, String>>()
    };
    let reply =
        |target: &str, body: Value| Content::Reply { target: target.into(), status: 200, body: body.to_string() };
    let quote =
        json!({"stream": "btcusdt@bookTicker", "data": {"u":1,"s":"BTCUSDT","b":"10","B":"1","a":"11","A":"2"}});
    let quote = Content::Text { connection: 1, text: quote.to_string() };
    let book = json!({"lastUpdateId":100,"bids":[["10","1"]],"asks":[["11","1"]]});
    step(0, Some(quote.clone()));
    step(0, Some(reply("/api/v3/depth?symbol=BTCUSDT&limit=1000", book)));
    let traded = |symbol: &str, status: &str| json!({"symbol":symbol,"status":status,"baseAsset":"A","quoteAsset":"B"});
    let list = json!({"symbols":[traded("BTCUSDT", "TRADING"), traded("ETHUSDT", "BREAK")]});
    step(0, Some(reply("/api/v3/exchangeInfo", list)));
    step(0, Some(Content::Closed { connection: 1, code: 1006 }));
    assert_eq!(step(1_001, None)["binance:BTCUSDT:book"], "resyncing");
    assert_eq!(step(5_000, None)["binance:BTCUSDT:book"], "down");
    let told = step(0, Some(quote));
    assert_eq!(told["binance:BTCUSDT:ticker"], "up");
    assert_eq!(told["binance:BTCUSDT:book"], "resyncing", "it is not proven yet");
    assert_eq!(told["binance:ETHUSDT:ticker"], "down", "and this one is not traded");
}

/// Levels at these prices, with the quantity 1, or 0 to remove them.
fn levels(prices: impl Iterator<Item = u32>, qty: &str) -> Value {
    prices.map(|price| json!([price.to_string(), qty])).collect()
}

#[test]
fn a_book_is_proven_only_as_far_as_its_snapshot_reaches() {
    for (most, is_lost) in [(100, true), (101, false)] {
        let mut harness = Harness::new();
        harness.snapshot_of(most, 100, levels(901..=1_000, "1"), levels(1_001..=1_020, "1"));
        // Behind a hundred levels there may be others that nobody has told of.
        let out = harness.depth(101, 101, levels(921..=1_000, "0"), json!([]));
        assert_eq!((seqs(&out), &out.resyncs[..]), (vec!["101"], &[][..]), "twenty are left");
        let out = harness.depth(102, 102, json!([["920", "0"], ["700", "5"]]), json!([]));
        let lost = if is_lost { vec![Resync::Range] } else { vec![] };
        assert_eq!((seqs(&out).is_empty(), out.resyncs), (is_lost, lost), "{most}");
    }
}

#[test]
fn a_fresh_snapshot_takes_the_place_of_one_that_is_used_up_before_it_is() {
    let mut harness = Harness::new();
    harness.snapshot_of(100, 100, levels(901..=1_000, "1"), levels(1_001..=1_020, "1"));
    assert_eq!(harness.tick(50).requests, []);
    harness.depth(101, 101, levels(925..=1_000, "0"), json!([]));
    assert_eq!(seqs(&harness.depth(102, 102, json!([["924", "2"]]), json!([]))), ["102"]);
    assert_eq!(harness.tick(50).requests, [Request::Book { symbol: "BTCUSDT".into() }], "24 of 100 are left");
    assert_eq!(seqs(&harness.depth(103, 103, json!([["924", "0"]]), json!([]))), ["103"], "it goes on meanwhile");
    let out = harness.snapshot_of(100, 102, levels(825..=924, "3"), levels(1_001..=1_020, "1"));
    assert_eq!((seqs(&out), &out.skipped[..]), (vec![], &[][..]), "what it says has been told");
    // Twenty more are gone, and what lies behind them is known.
    let mut out = harness.depth(104, 104, levels(901..=923, "0"), json!([]));
    assert_eq!((seqs(&out), &out.resyncs[..]), (vec!["104"], &[][..]));
    let Payload::Book(book) = out.updates.remove(0).payload else { panic!("a book") };
    let best = book.bids.first().map(|level| (level.0.to_string(), level.1.to_string()));
    assert_eq!(best, Some(("900".to_owned(), "3".to_owned())));
    assert_eq!(harness.tick(50).requests, [], "nothing more is asked for");
}

#[test]
fn changes_from_before_any_answer_that_may_come_are_not_kept() {
    let mut harness = Harness::new();
    harness.depth(101, 103, json!([["10", "5"]]), json!([]));
    harness.tick(20_000);
    harness.depth(104, 106, json!([["10", "6"]]), json!([]));
    let out = harness.snapshot(102, json!([["10", "1"]]), json!([["11", "1"]]));
    assert_eq!((seqs(&out), &out.skipped[..]), (vec![], &[Reason::UnusedSnapshot][..]));
    assert_eq!(seqs(&harness.snapshot(105, json!([["10", "1"]]), json!([["11", "1"]]))), ["105", "106"]);
}

#[test]
fn a_symbol_that_is_delisted_is_told_and_not_asked_for() {
    let mut harness = Harness::live();
    let body = json!({"symbols":[{"symbol":"ETHUSDT","status":"TRADING","baseAsset":"ETH","quoteAsset":"USDT"}]});
    let target = "/api/v3/exchangeInfo".to_owned();
    let out = harness.content(Content::Reply { target, status: 200, body: body.to_string() });
    assert_eq!(states(&out), [ChannelState::Down; 9], "three channels, and six of candles");
    let mut harness = Harness::live();
    let nothing =
        Content::Reply { target: "/api/v3/exchangeInfo".into(), status: 200, body: r#"{"symbols":[]}"#.into() };
    assert_eq!(states(&harness.content(nothing)), [], "a list of nothing says nothing");
    for query in ["symbol=ETHUSDT", "symbols=%5B%22ETHUSDT%22%5D", "permissions=SPOT", "symbolStatus=TRADING"] {
        let target = format!("/api/v3/exchangeInfo?{query}");
        let out = harness.content(Content::Reply { target, status: 200, body: body.to_string() });
        assert_eq!(states(&out), [], "some were asked for: {query}");
    }
    harness.content(Content::Reply { target: "/api/v3/exchangeInfo".into(), status: 200, body: body.to_string() });
    harness.depth(101, 101, json!([]), json!([]));
    harness.content(Content::Closed { connection: 1, code: 1006 });
    harness.tick(10_000);
    assert_eq!(harness.tick(60_000).requests, [], "there is no book to ask for");
}

#[test]
fn a_symbol_that_is_halted_is_told_on_wanted_channels_until_it_is_traded() {
    let mut harness = Harness::new();
    harness.spot = Binance::new(Market::SPOT);
    harness.spot.admit(Some(&["BTCUSDT".to_owned()]), &[Kind::Trades, Kind::Book]);
    harness.now = 1_000_000;
    let list = |harness: &mut Harness| {
        let body = json!({"symbols":[{"symbol":"BTCUSDT","status":"BREAK","baseAsset":"BTC","quoteAsset":"USDT"}]});
        let target = "/api/v3/exchangeInfo".to_owned();
        states(&harness.content(Content::Reply { target, status: 200, body: body.to_string() }))
    };
    let traded = |harness: &mut Harness, id: u64, time: i64| {
        let mut trade = trade(id);
        trade["T"] = json!(time);
        states(&harness.stream("aggTrade", &trade))
    };
    assert_eq!(list(&mut harness), [ChannelState::Down; 2]);
    harness.now += 5_000;
    assert_eq!(list(&mut harness), []);
    assert_eq!(traded(&mut harness, 1, 1_000_000), [], "one that happened before");
    assert_eq!(traded(&mut harness, 2, 1_000_001), [ChannelState::Up; 2]);
    assert_eq!(traded(&mut harness, 3, 1_000_002), []);
}

#[test]
fn a_book_is_joined_by_the_numbered_steps() {
    let mut harness = Harness::new();
    assert_eq!(harness.depth(101, 103, json!([["10", "5"]]), json!([])), data());
    assert_eq!(harness.depth(104, 106, json!([]), json!([["11", "0"], ["12", "1"]])), data());
    let requests = harness.tick(50).requests;
    assert_eq!(requests, [Request::Book { symbol: "BTCUSDT".into() }]);
    assert_eq!(harness.tick(50).requests, [], "asked once");
    let out = harness.snapshot(100, json!([["10", "1"]]), json!([["11", "1"]]));
    assert_eq!((seqs(&out), &out.skipped[..]), (vec![], &[Reason::UnusedSnapshot][..]), "step 3");
    assert_eq!(harness.tick(250).requests.len(), 1, "another one is asked for");
    let out = harness.snapshot(104, json!([["10", "5"]]), json!([["11", "1"], ["13", "2"]]));
    assert_eq!(seqs(&out), ["104", "106"], "the snapshot, then the buffered diff behind it");
    let [first, second] = &out.updates[..] else { panic!("two updates") };
    let (Payload::Book(shown), Payload::Book(next)) = (&first.payload, &second.payload) else { panic!("books") };
    assert_eq!((shown.provenance.ts_source, first.ts), (TimeSource::Received, 1_350));
    assert_eq!((next.provenance.ts_source, second.ts), (TimeSource::Venue, 900));
    let level = |price: &str, qty: &str| Level(price.parse().unwrap(), qty.parse().unwrap());
    assert_eq!(next.asks, [level("12", "1"), level("13", "2")]);
    assert_eq!(seqs(&harness.depth(107, 107, json!([["9", "1"]]), json!([["99", "0"]]))), ["107"], "step 7");
}

fn data() -> Output {
    Output { data: true, ..Output::default() }
}

#[test]
fn a_quiet_symbol_gets_its_book_without_a_diff() {
    let mut harness = Harness::new();
    assert_eq!((harness.tick(0).requests, harness.tick(4_000).requests), (vec![], vec![]), "nothing is connected");
    harness.text(&json!({ "result": null, "id": 1 }).to_string());
    assert_eq!(harness.tick(0).requests, []);
    assert_eq!(harness.tick(3_000).requests.len(), 1);
    assert_eq!(seqs(&harness.snapshot(100, json!([]), json!([["11", "1"]]))), ["100"]);
    assert_eq!(seqs(&harness.depth(90, 100, json!([["10", "1"]]), json!([]))), [""; 0], "what the snapshot holds");
    assert_eq!(seqs(&harness.depth(95, 101, json!([["10", "1"]]), json!([]))), ["101"]);
}

#[test]
fn a_gap_builds_the_book_anew_and_says_so_when_it_lasts() {
    let mut harness = Harness::live();
    let out = harness.depth(102, 103, json!([["10", "5"]]), json!([]));
    assert_eq!((seqs(&out), &out.resyncs[..]), (vec![], &[Resync::Gap][..]));
    let out = harness.tick(0);
    assert_eq!((out.requests.len(), states(&out)), (1, vec![]));
    assert_eq!(states(&harness.tick(1_001)), [ChannelState::Resyncing]);
    assert_eq!(states(&harness.tick(1_001)), [], "once");
    let out = harness.snapshot(103, json!([["10", "5"]]), json!([["11", "1"]]));
    assert_eq!((states(&out), seqs(&out)), (vec![ChannelState::Up], vec!["103"]));
}

#[test]
fn a_book_that_is_lost_does_not_hide_that_its_symbol_is_halted() {
    let info = |harness: &mut Harness, status: &str| {
        let symbols = json!([{"symbol":"BTCUSDT","status":status,"baseAsset":"BTC","quoteAsset":"USDT"}]);
        let (target, body) = ("/api/v3/exchangeInfo".to_owned(), json!({ "symbols": symbols }).to_string());
        let out = harness.content(Content::Reply { target, status: 200, body });
        states(&out).first().copied()
    };
    for lost_before in [true, false] {
        let mut harness = Harness::live();
        if lost_before {
            harness.depth(102, 103, json!([["10", "5"]]), json!([]));
            assert_eq!(states(&harness.tick(1_001)), [ChannelState::Resyncing]);
        }
        assert_eq!(info(&mut harness, "BREAK"), Some(ChannelState::Down));
        if !lost_before {
            harness.depth(102, 103, json!([["10", "5"]]), json!([]));
            assert_eq!(states(&harness.tick(1_001)), [], "it is halted all the same");
        }
        let out = harness.snapshot(103, json!([["10", "5"]]), json!([["11", "1"]]));
        assert_eq!((states(&out), seqs(&out)), (vec![], vec!["103"]), "and is so with a book");
        harness.depth(105, 106, json!([["10", "5"]]), json!([]));
        harness.tick(1_001);
        assert_eq!(info(&mut harness, "TRADING"), Some(ChannelState::Up));
        assert_eq!(states(&harness.tick(50)), [ChannelState::Resyncing], "what is lost still is told behind it");
        assert_eq!(states(&harness.snapshot(106, json!([["10", "5"]]), json!([["11", "1"]]))), [ChannelState::Up]);
    }
}

#[test]
fn a_crossed_book_is_not_published() {
    let mut harness = Harness::live();
    let out = harness.depth(101, 101, json!([["11", "5"]]), json!([]));
    assert_eq!((seqs(&out), &out.resyncs[..]), (vec![], &[Resync::Crossed][..]));
    let out = harness.snapshot(101, json!([["11", "1"]]), json!([["11", "1"]]));
    assert_eq!((seqs(&out), &out.skipped[..]), (vec![], &[Reason::Crossed][..]), "nor a crossed snapshot");
    assert_eq!(seqs(&harness.snapshot(102, json!([["11", "1"]]), json!([["12", "1"]]))), ["102"]);
}

#[test]
fn a_lost_connection_builds_its_books_anew() {
    let mut harness = Harness::live();
    harness.depth(101, 101, json!([]), json!([]));
    let closed = |connection| Content::Closed { connection, code: 1006 };
    assert_eq!(harness.content(closed(2)).resyncs, [], "no diff came from it");
    assert_eq!(harness.content(closed(1)).resyncs, [Resync::Connection]);
    assert_eq!(seqs(&harness.snapshot(90, json!([]), json!([["11", "1"]]))), [""; 0], "the book never goes back");
}

#[test]
fn two_connections_at_once_make_one_book() {
    let mut harness = Harness::live();
    let mut shown = Vec::new();
    for (connection, first, last) in [(1, 101, 101), (2, 101, 101), (2, 102, 103), (1, 102, 103), (1, 104, 104)] {
        let data = json!({"e":"depthUpdate","E":1,"s":"BTCUSDT","U":first,"u":last,"b":[],"a":[]});
        let text = json!({"stream":"btcusdt@depth@100ms","data":data}).to_string();
        let out = harness.content(Content::Text { connection, text });
        shown.extend(seqs(&out).into_iter().map(str::to_owned));
    }
    assert_eq!(shown, ["101", "103", "104"]);
}

#[test]
fn bad_frames_are_skipped_by_reason_and_the_book_goes_on() {
    let mut harness = Harness::live();
    let depth = |bids: Value| json!({"e":"depthUpdate","E":1,"s":"BTCUSDT","U":101,"u":101,"b":bids,"a":[]});
    let framed = |data: Value| json!({"stream":"btcusdt@depth@100ms","data":data}).to_string();
    let agg = |field: &str, value: Value| {
        let mut data = trade(1);
        data[field] = value;
        json!({"stream":"btcusdt@aggTrade","data":data}).to_string()
    };
    let big = r#"{"stream":"btcusdt@aggTrade","data":{"s":"BTCUSDT","a":1,"p":1e400,"q":"1","T":4,"m":true}}"#;
    for (text, reason) in [
        (String::new(), Reason::NotJson),
        ("nonsense".into(), Reason::NotJson),
        (framed(depth(json!([])))[..40].to_owned(), Reason::NotJson),
        ("[1]".into(), Reason::BadShape),
        ("7".into(), Reason::BadShape),
        ("{}".into(), Reason::BadShape),
        (r#"{"stream":"btcusdt@depth@100ms"}"#.into(), Reason::BadShape),
        (r#"{"stream":"btcusdt@depth@100ms","data":{"s":"BTCUSDT","u":1}}"#.into(), Reason::BadShape),
        (framed(depth(json!([["10"]]))), Reason::BadShape),
        (framed(depth(json!([["abc", "1"]]))), Reason::BadNumber),
        (framed(depth(json!([["1e400", "1"]]))), Reason::BadNumber),
        (framed(depth(json!([[null, "1"]]))), Reason::BadShape),
        (framed(depth(json!([["10", true]]))), Reason::BadShape),
        (framed(depth(json!([["10", "-1"]]))), Reason::OutOfRange),
        (framed(depth(json!([["-10", "1"]]))), Reason::OutOfRange),
        (framed(depth(json!([["0", "1"]]))), Reason::OutOfRange),
        (agg("p", json!("abc")), Reason::BadNumber),
        (agg("q", json!("-1")), Reason::OutOfRange),
        (agg("q", json!("0")), Reason::OutOfRange),
        (agg("a", json!(-1)), Reason::BadShape),
        (agg("a", json!(null)), Reason::BadShape),
        (agg("s", json!("DOGEUSDT")), Reason::UnknownSymbol),
        (big.into(), Reason::BadNumber),
        (r#"{"stream":"btcusdt@somethingNew","data":{}}"#.into(), Reason::UnknownEvent),
        (r#"{"stream":"!ticker@arr","data":[]}"#.into(), Reason::UnknownEvent),
        (r#"{"code":2,"msg":"Invalid request"}"#.into(), Reason::Refused),
        (r#"{"error":{"code":4,"msg":"Too many subscriptions"}}"#.into(), Reason::Refused),
    ] {
        let out = harness.text(&text);
        assert_eq!((&out.updates[..], &out.skipped[..]), (&[][..], &[reason][..]), "{text}");
    }
    let refused = Content::Reply { target: "/api/v3/depth?symbol=BTCUSDT".into(), status: 400, body: "{}".into() };
    assert_eq!(harness.content(refused).skipped, [Reason::Refused]);
    assert_eq!(harness.content(Content::Binary { connection: 1, bytes: vec![1] }).skipped, [Reason::NotText]);
    for fine in [r#"{"result":null,"id":1}"#, r#"{"e":"serverShutdown","E":1}"#] {
        assert_eq!(harness.text(fine), Output::default(), "{fine}");
    }
    let out = harness.depth(101, 101, json!([["10", 2.5], ["9.5", "1"]]), json!([]));
    assert_eq!(seqs(&out), ["101"], "nothing of them touched the book");
}

#[test]
fn foreign_letters_are_encoded_in_the_channel_and_kept_in_the_payload() {
    let mut harness = Harness::new();
    harness.spot.admit(None, &[]);
    let mut data = trade(1);
    data["s"] = json!("币安USDT");
    let out = harness.stream("aggTrade", &data);
    let Payload::Trade(trade) = &out.updates[0].payload else { panic!("a trade") };
    assert_eq!(out.updates[0].channel.as_str(), "binance:.E5.B8.81.E5.AE.89USDT:trades");
    assert_eq!(trade.symbol, "币安/USDT");
}

#[test]
fn exchange_info_names_the_assets() {
    let mut harness = Harness::new();
    let body = json!({"symbols":[{"symbol":"BTCUSDT","status":"TRADING","baseAsset":"BT","quoteAsset":"CUSDT"}]});
    let target = "/api/v3/exchangeInfo?symbols=x".to_owned();
    harness.content(Content::Reply { target, status: 200, body: body.to_string() });
    let out = harness.stream("aggTrade", &trade(1));
    assert!(matches!(&out.updates[0].payload, Payload::Trade(trade) if trade.symbol == "BT/CUSDT"));
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "\\PC{0,80}", stream in "[a-z]{0,6}@(aggTrade|depth|ticker|kline_1m|bookTicker)?", data in "[\\[\\]{}\",:a-zA-Z0-9.-]{0,60}") {
        let mut harness = Harness::live();
        harness.text(&text);
        harness.text(&format!(r#"{{"stream":"{stream}","data":{data}}}"#));
        harness.content(Content::Reply { target: text.clone(), status: 200, body: data.clone() });
        harness.content(Content::Reply { target: format!("/api/v3/depth?symbol={text}"), status: 200, body: data });
    }

    #[test]
    fn what_is_shown_is_sorted_positive_and_not_crossed(
        steps in prop::collection::vec((0u64..3, 1u64..3, 0u8..6, -1i32..30, 0i32..4, any::<bool>()), 1..80)
    ) {
        let mut harness = Harness::live();
        let mut id = 100;
        for (skip, span, what, price, qty, bid) in steps {
            let level = json!([[price.to_string(), qty.to_string()]]);
            let (bids, asks) = if bid { (level, json!([])) } else { (json!([]), level) };
            let out = match what {
                0 => harness.snapshot(id, json!([["10", "1"]]), json!([["11", "1"], [price.to_string(), "1"]])),
                1 => harness.content(Content::Closed { connection: 1, code: 1006 }),
                _ => {
                    let first = if skip == 2 { id + 2 } else { id + 1 };
                    id = first + span - 1;
                    harness.depth(first, id, bids, asks)
                }
            };
            for update in out.updates {
                let Payload::Book(book) = update.payload else { continue };
                prop_assert!(book.bids.windows(2).all(|w| w[0].0 > w[1].0));
                prop_assert!(book.asks.windows(2).all(|w| w[0].0 < w[1].0));
                prop_assert!(book.bids.iter().chain(&book.asks).all(|l| !l.0.is_negative() && !l.1.is_negative() && !l.1.is_zero()));
                if let (Some(bid), Some(ask)) = (book.bids.first(), book.asks.first()) {
                    prop_assert!(bid.0 < ask.0);
                }
                prop_assert!(book.bids.len() <= 20 && book.asks.len() <= 20);
            }
        }
    }
}
