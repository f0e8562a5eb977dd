mod candles;

use std::collections::BTreeMap;

use akis_model::ChannelState;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::mapper::Resync;
use crate::update::{Payload, Update};

const MINUTE: i64 = 60_000;

/// A mapper of BTCTRY and what it said.
struct Harness {
    mapper: BtcTurk,
    now: i64,
    connection: u32,
}

impl Harness {
    fn new() -> Self {
        let mut mapper = BtcTurk::default();
        mapper.admit(Some(&["btctry".to_owned()]), &[Kind::Ticker, Kind::Trades, Kind::Book, Kind::Candles]);
        Self { mapper, now: 12 * MINUTE, connection: 1 }
    }

    fn content(&mut self, content: Content) -> Output {
        let mut out = Output::default();
        self.mapper.on_frame(&RawFrame { received_at: self.now, content }, &mut out);
        out
    }

    fn frame(&mut self, kind: i64, data: &Value) -> Output {
        self.content(Content::Text { connection: self.connection, text: json!([kind, data]).to_string() })
    }

    fn book(&mut self, kind: i64, change_set: i64, bids: Value, asks: Value) -> Output {
        let data = json!({"CS": change_set, "PS": "BTCTRY", "AO": asks, "BO": bids, "channel": "obdiff", "event": "BTCTRY",
            "type": kind});
        self.frame(kind, &data)
    }

    fn trade(&mut self, time: i64, id: u64) -> Output {
        self.frame(422, &trade(time, id))
    }

    fn list(&mut self, trades: &[(i64, u64)]) -> Output {
        let items: Vec<Value> = trades.iter().map(|&(time, id)| trade(time, id)).collect();
        self.frame(
            421,
            &json!({"symbol": "BTCTRY", "items": items, "channel": "trade", "event": "BTCTRY", "type": 421}),
        )
    }

    fn candle(&mut self, open_time_s: i64, close: &str, volume: &str) -> Output {
        let data = json!({"D": open_time_s, "P": "BTCTRY", "R": "1", "O": "10", "H": "20", "L": "5", "C": close, "V": volume,
            "channel": "tradeview", "event": "BTCTRY_1", "type": 428});
        self.frame(428, &data)
    }

    fn klines(&mut self, rows: &[(i64, i64)]) -> Output {
        let column = |pick: &dyn Fn(&(i64, i64)) -> Value| rows.iter().map(pick).collect::<Vec<_>>();
        let price = |_: &(i64, i64)| json!(10);
        let body = json!({"s": "ok", "t": column(&|row| json!(row.0)), "o": column(&price), "h": column(&price),
            "l": column(&price), "c": column(&price), "v": column(&|row| json!(row.1))});
        let target = "/v1/klines/history?symbol=BTCTRY&resolution=1&from=0&to=1".to_owned();
        self.content(Content::Reply { target, status: 200, body: body.to_string() })
    }

    fn ticker_of_all(&mut self) -> Output {
        let item = json!({"B": "10", "A": "11", "BA": "1", "AA": "1", "PS": "BTCTRY", "H": "12", "L": "9", "LA": "10",
            "O": "10", "V": "1", "DP": "0"});
        self.frame(401, &json!({"channel": "ticker", "event": "all", "items": [item], "type": 401}))
    }

    fn server_time(&mut self, ahead_ms: i64) -> Output {
        let body = json!({"serverTime": self.now + ahead_ms, "serverTime2": "2026-09-23T03:20:00.0268053+00:00"});
        let target = "/api/v2/server/time".to_owned();
        self.content(Content::Reply { target, status: 200, body: body.to_string() })
    }

    fn close(&mut self) -> Output {
        let connection = self.connection;
        self.connection += 1;
        self.content(Content::Closed { connection, code: 1000 })
    }

    /// Lets time pass while frames come that are about no pair.
    fn tick(&mut self, later_ms: i64) -> Output {
        let until = self.now + later_ms;
        while self.now < until {
            self.now = until.min(self.now + 1_000);
            assert_eq!(self.frame(991, &json!({})), Output::default());
        }
        self.silent_tick(0)
    }

    /// Lets time pass in which no frame is read.
    fn silent_tick(&mut self, later_ms: i64) -> Output {
        self.now += later_ms;
        let mut out = Output::default();
        self.mapper.on_tick(self.now, &mut out);
        out
    }

    /// A book of one bid at 10 and one ask at 11, at the change set 100.
    fn live() -> Self {
        let mut harness = Self::new();
        let out = harness.book(431, 100, json!([level("10", "1")]), json!([level("11", "1")]));
        assert_eq!(seqs(&out), ["100"]);
        harness
    }
}

fn level(price: &str, amount: &str) -> Value {
    json!({"P": price, "A": amount})
}

fn change(kind: i64, price: &str, amount: &str) -> Value {
    json!({"CP": kind, "P": price, "A": amount})
}

fn trade(time: i64, id: u64) -> Value {
    json!({"D": time.to_string(), "I": id.to_string(), "A": "0.0203373200000000", "P": "48999.0000000000", "PS": "BTCTRY",
        "S": 0, "channel": "trade", "event": "BTCTRY", "type": 422})
}

fn seqs(out: &Output) -> Vec<&str> {
    let books = out.updates.iter().filter_map(|update| match &update.payload {
        Payload::Book(book) => Some(book.venue_seq.as_str()),
        _ => None,
    });
    books.collect()
}

fn states(out: &Output) -> Vec<ChannelState> {
    let states = out.updates.iter().filter_map(|update| match &update.payload {
        Payload::Status(status) => Some(status.state),
        _ => None,
    });
    states.collect()
}

fn ids(out: &Output) -> Vec<(&str, u64)> {
    let trades = out.updates.iter().filter_map(|update| match &update.payload {
        Payload::Trade(trade) => Some((trade.id.as_str(), update.missing_before)),
        _ => None,
    });
    trades.collect()
}

/// Candles: interval, minute in which it opened, volume, whether closed.
fn candles(out: &Output) -> Vec<(&str, i64, String, bool)> {
    let candles = out.updates.iter().filter_map(|update| match &update.payload {
        Payload::Candle(c) => Some((c.interval.as_str(), c.open_time / MINUTE, c.volume.to_string(), c.closed)),
        _ => None,
    });
    candles.collect()
}

fn rendered(update: Update) -> Value {
    let event = update.into_event().unwrap();
    serde_json::from_str(&event.body.envelope(akis_model::Seq::ZERO)).unwrap()
}

#[test]
fn a_trade_becomes_an_event_without_a_side() {
    let mut out = Harness::new().trade(900, 7);
    assert_eq!(
        rendered(out.updates.remove(0)),
        json!({"v":1,"seq":0,"ts":900,"event":"trade","channel":"btcturk:BTCTRY:trades","ok":true,"data":{
            "symbol":"BTC/TRY","id":"7","price":"48999","qty":"0.02033732","tsSource":"venue","receivedAt":720000}})
    );
}

#[test]
fn a_ticker_becomes_an_event_once() {
    let data = json!({"B":"86689","A":"86699","BA":"0.00863785","AA":"0.00288357","PS":"BTCTRY","H":"86800","L":"85148",
        "LA":"86766","O":"85459","V":"16.43392495","AV":"86078.604090120000","D":"1240","DP":"-1.50","DS":"TRY","NS":"BTC",
        "PId":19,"channel":"ticker","event":"BTCTRY","type":402});
    let mut harness = Harness::new();
    let mut out = harness.frame(402, &data);
    assert_eq!(
        rendered(out.updates.remove(0)),
        json!({"v":1,"seq":0,"ts":720000,"event":"price_tick","channel":"btcturk:BTCTRY:ticker","ok":true,"data":{
            "symbol":"BTC/TRY","last":"86766","bid":"86689","bidQty":"0.00863785","ask":"86699","askQty":"0.00288357",
            "open24h":"85459","high24h":"86800","low24h":"85148","volume24h":"16.43392495","change24hPct":"-1.5",
            "tsSource":"received","receivedAt":720000}})
    );
    let repeated = harness.frame(402, &data);
    assert!(repeated.updates.is_empty() && repeated.data, "a repetition shows that the venue is there");
    assert_eq!(repeated.skipped, [Reason::Duplicate]);
    let all = json!({"channel":"ticker","event":"all","type":401,"items":[{"PS":"OTHER"}, data, {"B": 1}]});
    harness.close();
    let out = harness.frame(401, &all);
    assert_eq!((out.updates.len(), out.skipped), (1, vec![Reason::BadShape, Reason::BadShape]));
}

#[test]
fn a_book_follows_its_change_sets() {
    let mut harness = Harness::live();
    let asks = json!([change(1, "10.8", "2.50"), change(3, "11", "9")]);
    let mut out = harness.book(432, 101, json!([change(0, "10", "7")]), asks);
    assert_eq!(
        rendered(out.updates.remove(0)),
        json!({"v":1,"seq":0,"ts":720000,"event":"orderbook","channel":"btcturk:BTCTRY:book","ok":true,"data":{
            "symbol":"BTC/TRY","bids":[["10","7"]],"asks":[["10.8","2.5"]],"venueSeq":"101","tsSource":"received",
            "receivedAt":720000}})
    );
    let out = harness.book(432, 101, json!([]), json!([]));
    assert_eq!((seqs(&out).len(), out.skipped), (0, vec![Reason::Duplicate]));
    let unknown = json!([change(3, "3", "1")]);
    assert_eq!(
        seqs(&harness.book(432, 102, unknown, json!([]))),
        ["102"],
        "deleting what is not there changes nothing"
    );
}

#[test]
fn a_gap_is_asked_for_once_and_nothing_is_shown_until_the_book_is_whole() {
    let mut harness = Harness::live();
    let out = harness.book(432, 102, json!([change(1, "9", "1")]), json!([]));
    assert_eq!((seqs(&out).len(), out.resyncs), (0, vec![Resync::Gap]));
    assert_eq!(harness.tick(50).requests[..1], [Request::Book { symbol: "BTCTRY".into() }]);
    assert!(!harness.tick(50).requests.contains(&Request::Book { symbol: "BTCTRY".into() }));
    assert_eq!(harness.book(432, 103, json!([change(1, "9", "1")]), json!([])).skipped, [Reason::Stale]);
    assert_eq!(states(&harness.tick(1_000)), [ChannelState::Resyncing]);
    let out = harness.book(431, 7, json!([level("9", "1")]), json!([level("12", "1")]));
    assert_eq!((states(&out), seqs(&out)), (vec![ChannelState::Up], vec!["7"]));
}

#[test]
fn a_book_that_is_crossed_or_cannot_be_read_is_built_anew() {
    let mut harness = Harness::live();
    let out = harness.book(432, 101, json!([change(1, "11", "1")]), json!([]));
    assert_eq!((seqs(&out).len(), out.resyncs), (0, vec![Resync::Crossed]));
    let mut harness = Harness::live();
    let out = harness.book(432, 101, json!([change(2, "9", "1")]), json!([]));
    assert_eq!((out.resyncs, out.skipped), (vec![Resync::Gap], vec![Reason::BadShape]));
    let out = harness.book(431, 9, json!([level("12", "1")]), json!([level("12", "1")]));
    assert_eq!((seqs(&out).len(), out.skipped), (0, vec![Reason::Crossed]));
}

#[test]
fn a_book_that_falls_behind_for_good_is_asked_for_again() {
    let mut harness = Harness::live();
    let resyncs: usize = (0..20).map(|_| harness.book(432, 3, json!([]), json!([])).resyncs.len()).sum();
    assert_eq!(resyncs, 1);
}

#[test]
fn who_begins_to_publish_tells_the_price_and_the_book_that_it_heard_before() {
    let mut harness = Harness::live();
    assert_eq!(harness.ticker_of_all().updates.len(), 1);
    harness.book(432, 101, json!([change(0, "10", "7")]), json!([]));
    let heard_at = harness.now;
    let taken_over = |harness: &mut Harness| {
        harness.mapper.backfill(&mut Output::default());
        let out = harness.tick(1_000);
        let mut values = out.updates.iter().filter(|update| !update.payload.is_status());
        assert!(values.all(|update| update.is_again), "no sign that it speaks");
        let prices = out.updates.iter().filter(|update| matches!(update.payload, Payload::PriceTick(_))).count();
        (prices, seqs(&out).join(" "), out.updates.iter().all(|update| update.received_at() == heard_at))
    };
    assert_eq!(taken_over(&mut harness), (1, "101".to_owned(), true), "when it came is when it came");
    assert_eq!(harness.tick(1_000).updates, [], "once");
    harness.book(432, 103, json!([]), json!([]));
    assert_eq!(taken_over(&mut harness).1, "", "a book that is not proven is not told");
    harness.close();
    assert_eq!(taken_over(&mut harness).0, 0, "nor what is not known any more");
}

#[test]
fn a_whole_book_begins_its_connections_series_anew() {
    let mut harness = Harness::live();
    let book = |harness: &mut Harness, change_set: i64| {
        harness.book(431, change_set, json!([level("10.2", "7")]), json!([level("10.8", "7")]))
    };
    assert_eq!(seqs(&book(&mut harness, 98)), ["98"], "a lower number is that of another subscription");
    assert_eq!(book(&mut harness, 98).skipped, [Reason::UnusedSnapshot], "a repetition changes nothing");
    assert_eq!(seqs(&harness.book(432, 99, json!([change(3, "10.2", "0")]), json!([]))), ["99"]);
    assert_eq!(seqs(&harness.book(432, 100, json!([change(1, "10.1", "5")]), json!([]))), ["100"]);
    let out = harness.book(432, 101, json!([change(1, "10.15", "6")]), json!([]));
    let texts = |levels: &[(&str, &str)]| levels.iter().map(|l| (l.0.to_owned(), l.1.to_owned())).collect::<Vec<_>>();
    let expected = (texts(&[("10.15", "6"), ("10.1", "5")]), texts(&[("10.8", "7")]));
    assert_eq!(published(&out), Some(expected), "nothing of the book before is left");
    assert_eq!(seqs(&book(&mut harness, -9_000)), ["-9000"]);
    assert_eq!(seqs(&book(&mut harness, 4_000)), ["4000"]);
    assert_eq!(seqs(&harness.book(432, 4_001, json!([]), json!([]))), ["4001"]);
}

#[test]
fn a_whole_book_that_is_of_no_use_ends_the_one_before_on_its_connection() {
    let (same, worse) = (json!([level("12", "1")]), json!([level("12", "x")]));
    for (asks, why, reasons) in [(&same, Resync::Crossed, vec![]), (&worse, Resync::Gap, vec![Reason::BadNumber])] {
        let mut harness = Harness::live();
        let out = harness.book(431, 90, same.clone(), asks.clone());
        assert_eq!((seqs(&out).len(), out.resyncs, out.skipped), (0, vec![why], reasons));
        assert_eq!(harness.book(432, 101, json!([]), json!([])).skipped, [Reason::Stale], "no mix of two books");
        let mut harness = Harness::live();
        harness.connection = 2;
        assert_eq!(harness.book(431, 90, same.clone(), asks.clone()).resyncs, []);
        harness.connection = 1;
        assert_eq!(seqs(&harness.book(432, 101, json!([]), json!([]))), ["101"], "the other connection goes on");
    }
}

#[test]
fn the_next_connection_takes_over_with_its_own_numbers() {
    let mut harness = Harness::live();
    harness.connection = 2;
    let book = (json!([level("10", "3")]), json!([level("11", "3")]));
    assert_eq!(seqs(&harness.book(431, 5, book.0, book.1)), ["5"]);
    harness.connection = 1;
    assert_eq!(seqs(&harness.book(432, 101, json!([]), json!([]))).len(), 0, "what is left of the old one");
    let late = harness.book(431, 102, json!([level("10", "1")]), json!([level("11", "1")]));
    assert_eq!(late.skipped, [Reason::UnusedSnapshot], "also a whole one");
    assert!(harness.close().resyncs.is_empty(), "the old one costs nothing");
    assert_eq!(seqs(&harness.book(432, 6, json!([]), json!([]))), ["6"]);
    assert_eq!(harness.close().resyncs, [Resync::Connection]);
}

#[test]
fn the_pair_is_that_of_the_subscription_when_the_frame_has_none() {
    let mut harness = Harness::new();
    let data =
        json!({"CS": -5, "PS": null, "AO": [level("11", "1")], "BO": null, "channel": "obdiff", "event": "BTCTRY"});
    assert_eq!(seqs(&harness.frame(431, &data)), ["-5"]);
    let other = json!({"CS": 1, "PS": "BTCTRY", "AO": [], "BO": [], "channel": "orderbook", "event": "BTCTRY"});
    assert_eq!(harness.frame(431, &other).skipped, [Reason::UnknownEvent], "another series of numbers");
}

#[test]
fn what_is_listed_is_told_when_it_changes() {
    let mut harness = Harness::live();
    let list = |harness: &mut Harness, pairs: &[(&str, &str)]| {
        let symbols: Vec<Value> = pairs
            .iter()
            .map(|(name, status)| json!({"name": name, "status": status, "numerator": "BTC", "denominator": "TRY"}))
            .collect();
        let body = json!({"data": {"symbols": symbols}, "success": true}).to_string();
        let target = "/api/v2/server/exchangeinfo".to_owned();
        harness.content(Content::Reply { target, status: 200, body })
    };
    assert_eq!(states(&list(&mut harness, &[("BTCTRY", "TRADING"), ("ETHTRY", "HALT")])), []);
    let out = list(&mut harness, &[("BTCTRY", "CANCEL_ONLY")]);
    // Ticker, trades, book and six lengths of candles.
    assert_eq!(states(&out), [ChannelState::Down; 9]);
    assert_eq!(states(&list(&mut harness, &[("BTCTRY", "CANCEL_ONLY")])), []);
    assert_eq!(states(&list(&mut harness, &[("BTCTRY", "TRADING")])), [ChannelState::Up; 9]);
    assert_eq!(states(&list(&mut harness, &[])), [], "a list of nothing says nothing");
    let mut out = list(&mut harness, &[("ETHTRY", "TRADING")]);
    let told = rendered(out.updates.remove(0));
    assert_eq!((told["ok"].as_bool(), told["data"]["reason"].as_str()), (Some(false), Some("the venue says DELISTED")));
    harness.close();
    for _ in 0..3 {
        assert_eq!(harness.tick(60_000), Output::default(), "nothing is asked for of a pair that is gone");
    }
    assert_eq!(states(&harness.trade(harness.now, 1)), [ChannelState::Up; 9], "it was not");
}

#[test]
fn a_book_that_is_lost_does_not_hide_that_its_pair_is_halted() {
    let mut harness = Harness::live();
    let list = |harness: &mut Harness, status: &str| {
        let symbols = json!([{"name": "BTCTRY", "status": status, "numerator": "BTC", "denominator": "TRY"}]);
        let (target, body) =
            ("/api/v2/server/exchangeinfo".to_owned(), json!({"data": {"symbols": symbols}}).to_string());
        states(&harness.content(Content::Reply { target, status: 200, body })).first().copied()
    };
    harness.book(432, 109, json!([]), json!([]));
    assert_eq!(states(&harness.tick(1_001)), [ChannelState::Resyncing]);
    assert_eq!(list(&mut harness, "HALT"), Some(ChannelState::Down));
    assert_eq!(states(&harness.tick(1_001)), [], "it is halted all the same");
    assert_eq!(states(&harness.book(431, 110, json!([["10", "5"]]), json!([["11", "5"]]))), [], "also with a book");
    harness.book(432, 119, json!([]), json!([]));
    harness.tick(1_001);
    assert_eq!(list(&mut harness, "TRADING"), Some(ChannelState::Up));
    assert_eq!(states(&harness.tick(50)), [ChannelState::Resyncing], "what is lost still is told behind it");
}

#[test]
fn pairs_that_were_looked_up_are_let_in_as_they_come() {
    let mut harness = Harness::new();
    harness.mapper = BtcTurk::default();
    harness.mapper.admit(Some(&["*TRY".to_owned(), "top:5".to_owned()]), &[Kind::Trades, Kind::Candles]);
    assert_eq!(harness.mapper.channels(), []);
    assert_eq!(harness.trade(900, 7).updates[0].channel.as_str(), "btcturk:BTCTRY:trades");
    let asked = Request::Candles { symbol: "BTCTRY".into(), interval: "1", count: 1_500 };
    assert_eq!(harness.tick(50).requests, [asked], "and their minutes of the past are wanted");
}

#[test]
fn trades_are_told_once_and_missed_ones_are_found() {
    let mut harness = Harness::new();
    let out = harness.list(&[(20, 2), (10, 1)]);
    assert_eq!(
        (ids(&out), out.lost_trades),
        (vec![("2", 1)], 0),
        "of the past the last one, behind which the log may end"
    );
    assert_eq!(ids(&harness.trade(30, 3)), [("3", 0)]);
    assert_eq!(harness.trade(30, 3).skipped, [Reason::Duplicate]);
    harness.close();
    assert_eq!(ids(&harness.list(&[(50, 5), (40, 4), (30, 3)])), [("4", 0), ("5", 0)]);
    harness.close();
    let out = harness.list(&[(90, 9), (80, 8)]);
    assert_eq!((ids(&out), out.lost_trades), (vec![("8", 1), ("9", 0)], 1), "nothing that was known: some are lost");
}

#[test]
fn the_first_trade_that_is_heard_proves_nothing() {
    let mut harness = Harness::new();
    assert_eq!(harness.list(&[]), Output { data: true, ..Output::default() });
    let out = harness.trade(30, 3);
    assert_eq!((ids(&out), out.lost_trades), (vec![("3", 1)], 0), "the log may have trades of before");
    assert_eq!(ids(&harness.trade(40, 4)), [("4", 0)]);
    let mut cut = Harness::new();
    cut.list(&[]);
    cut.close();
    assert_eq!(ids(&cut.trade(30, 3)), [("3", 2)], "and one that was missed since");
    let mut recorded = Harness::new();
    recorded.mapper = BtcTurk::default();
    recorded.mapper.admit(None, &[]);
    assert_eq!(ids(&recorded.list(&[(20, 2), (10, 1)])).len(), 0, "a recording is no more than what happened in it");
}

#[test]
fn a_trade_that_was_lost_is_told_as_missing_and_what_rest_has_first_is_told() {
    let mut harness = Harness::new();
    harness.list(&[(10, 1)]);
    harness.trade(20, 2);
    harness.trade(40, 4);
    assert!(!harness.tick(50).requests.iter().any(|request| matches!(request, Request::Trades { .. })));
    let asked = Request::Trades { symbol: "BTCTRY".into(), from_id: 0 };
    assert!(harness.tick(60_000).requests.contains(&asked));
    let row = |time: i64, id: u64| {
        json!({"pair": "BTCTRY", "pairNormalized": "BTC_TRY", "numerator": "BTC", "denominator": "TRY", "date": time,
            "tid": id.to_string(), "price": "48999", "amount": "0.02", "side": "sell"})
    };
    let body = json!({"data": [row(50, 5), row(40, 4), row(30, 3), row(20, 2)], "success": true}).to_string();
    let target = "/api/v2/trades?pairSymbol=BTCTRY&last=50".to_owned();
    let out = harness.content(Content::Reply { target, status: 200, body });
    assert_eq!((ids(&out), out.lost_trades), (vec![("5", 1)], 1), "3 comes too late to be told");
    assert_eq!(harness.trade(50, 5).skipped, [Reason::Duplicate]);
    assert_eq!(ids(&harness.trade(60, 6)), [("6", 0)]);
}

#[test]
fn a_time_that_cannot_be_true_places_nothing() {
    let (mut harness, now, hour) = (Harness::new(), 1_800_000_000_000, 3_600_000);
    harness.now = now;
    harness.list(&[(now - 10, 1)]);
    for (time, id) in [(now + hour, 2), (5, 3), (now, 4)] {
        assert_eq!(ids(&harness.trade(time, id)), [(id.to_string().as_str(), 0)], "it is told all the same");
        assert_eq!(harness.trade(time, id).skipped, [Reason::Duplicate]);
        harness.now += 1;
    }
    harness.close();
    let out = harness.list(&[(now + hour, 2), (5, 3), (now, 4), (now + 2, 5)]);
    assert_eq!(ids(&out), [("5", 0)]);
    harness.klines(&[]);
    let second = now / 60_000 * 60;
    for far in [second + 3_600, 60] {
        let out = harness.candle(far, "10", "1");
        assert_eq!((candles(&out).len(), out.skipped), (0, vec![Reason::BadTime]));
    }
    let told = ("1m", second / 60, "1".into(), false);
    assert_eq!(candles(&harness.candle(second, "10", "1"))[0], told, "what comes in time is not held up by it");
    assert_eq!(harness.klines(&[(second + 3_600, 1)]).skipped, [Reason::BadTime]);
}

#[test]
fn nonsense_is_skipped_with_a_reason() {
    for (text, reason) in [
        ("", Reason::NotJson),
        (r#"[431,{"CS":"#, Reason::NotJson),
        ("{}", Reason::BadShape),
        ("[431]", Reason::BadShape),
        (r#"[422,{"PS":"BTCTRY","D":"x","I":"1","P":"1","A":"1","S":0}]"#, Reason::BadNumber),
        (r#"[422,{"PS":"BTCTRY","D":"1","I":"1","P":"-1","A":"1","S":0}]"#, Reason::OutOfRange),
        (r#"[422,{"PS":"NOPE","D":"1","I":"1","P":"1","A":"1","S":0}]"#, Reason::UnknownSymbol),
        (r#"[100,{"ok":false,"message":"join|obdiff:BTCTRY"}]"#, Reason::Refused),
        ("[453,{}]", Reason::UnknownEvent),
    ] {
        let out = Harness::new().content(Content::Text { connection: 1, text: text.into() });
        assert_eq!(out.skipped, [reason], "{text}");
    }
    let known = ["[991,{}]", r#"[100,{"ok":true}]"#, "[801,{}]"];
    for text in known {
        assert!(
            Harness::new().content(Content::Text { connection: 1, text: text.into() }).skipped.is_empty(),
            "{text}"
        );
    }
}

/// Price and quantity of each level, best first: bids and asks.
type Levels = (Vec<(String, String)>, Vec<(String, String)>);

/// What a reader of the venue would know: integers by price, and whether it can be sure.
#[derive(Debug, Default, Clone, PartialEq)]
struct Model {
    bids: BTreeMap<i64, i64>,
    asks: BTreeMap<i64, i64>,
}

impl Model {
    fn start() -> Self {
        Self { bids: (1..=100).map(|n| (1_000 - n, n)).collect(), asks: (1..=100).map(|n| (1_000 + n, n)).collect() }
    }

    fn shown(&self) -> Levels {
        let text = |(price, qty): (&i64, &i64)| (price.to_string(), qty.to_string());
        (self.bids.iter().rev().take(20).map(text).collect(), self.asks.iter().take(20).map(text).collect())
    }

    fn whole(&self) -> (Value, Value) {
        let side = |levels: &mut dyn Iterator<Item = (&i64, &i64)>| {
            levels.map(|(price, qty)| level(&price.to_string(), &qty.to_string())).collect::<Vec<_>>()
        };
        (json!(side(&mut self.bids.iter().rev())), json!(side(&mut self.asks.iter())))
    }

    /// Sets an amount and pushes out the 101st level; gives back what the venue says of that.
    fn set(&mut self, is_bid: bool, distance: i64, qty: i64) -> Vec<Value> {
        let price = if is_bid { 1_000 - distance } else { 1_000 + distance };
        let side = if is_bid { &mut self.bids } else { &mut self.asks };
        let known = side.contains_key(&price);
        if qty == 0 {
            side.remove(&price);
            return vec![change(3, &price.to_string(), "5")];
        }
        side.insert(price, qty);
        let mut told = vec![change(i64::from(!known), &price.to_string(), &qty.to_string())];
        if side.len() > 100 {
            let out = if is_bid { side.pop_first() } else { side.pop_last() };
            told.extend(out.map(|(price, qty)| change(3, &price.to_string(), &qty.to_string())));
        }
        told
    }
}

/// The levels of the book that was published last.
fn published(out: &Output) -> Option<Levels> {
    let texts = |levels: &[akis_model::Level]| levels.iter().map(|l| (l.0.to_string(), l.1.to_string())).collect();
    out.updates.iter().rev().find_map(|update| match &update.payload {
        Payload::Book(book) => Some((texts(&book.bids), texts(&book.asks))),
        _ => None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is lost, doubled, swapped, numbered wrong or cut: a book that is published is the venue's.
    #[test]
    fn every_published_book_is_the_venues(
        steps in prop::collection::vec((0u8..40, any::<bool>(), 1i64..130, 0i64..4), 1..120)
    ) {
        let mut harness = Harness::new();
        let mut model = Model::start();
        let mut change_set = 500;
        let (bids, asks) = model.whole();
        harness.book(431, change_set, bids, asks);
        // The venue's book by its number: what was true when.
        let mut truth = BTreeMap::from([(change_set, model.shown())]);
        let mut held: Option<(i64, Value, Value)> = None;
        for (fault, is_bid, distance, qty) in steps {
            let told = json!(model.set(is_bid, distance, qty));
            change_set += 1;
            truth.insert(change_set, model.shown());
            let (bids, asks) = if is_bid { (told, json!([])) } else { (json!([]), told) };
            let mut outs = Vec::new();
            match fault {
                0 => {}
                1 => outs.extend((0..2).map(|_| harness.book(432, change_set, bids.clone(), asks.clone()))),
                2 if held.is_none() => held = Some((change_set, bids, asks)),
                3 => outs.push(harness.book(432, change_set + 7, bids, asks)),
                4 => {
                    harness.close();
                }
                5 => outs.push(harness.content(Content::Text { connection: harness.connection, text: "[432,{\"CS".into() })),
                6 => {
                    let crossed = json!([change(1, "5000", "1")]);
                    outs.push(harness.book(432, change_set, crossed, asks));
                }
                _ => outs.push(harness.book(432, change_set, bids, asks)),
            }
            if fault != 2 && let Some((number, bids, asks)) = held.take() {
                outs.push(harness.book(432, number, bids, asks));
            }
            let wants_book = harness.tick(60).requests.contains(&Request::Book { symbol: "BTCTRY".into() });
            if wants_book || fault == 4 {
                // Leaving and joining again, or another connection: the numbers begin elsewhere.
                change_set += 1_000;
                truth.insert(change_set, model.shown());
                let (bids, asks) = model.whole();
                outs.push(harness.book(431, change_set, bids, asks));
            }
            for out in &outs {
                let Some(shown) = published(out) else { continue };
                let numbers = seqs(out);
                let number: i64 = numbers.last().unwrap().parse().unwrap();
                prop_assert_eq!(Some(&shown), truth.get(&number), "at {}", number);
            }
        }
        // And it always comes back.
        let (bids, asks) = model.whole();
        for _ in 0..40 {
            if harness.tick(1_000).requests.contains(&Request::Book { symbol: "BTCTRY".into() }) {
                change_set += 1_000;
                harness.book(431, change_set, bids.clone(), asks.clone());
            }
        }
        let told = json!(model.set(true, 1, 9));
        let out = harness.book(432, change_set + 1, told, json!([]));
        prop_assert!(published(&out).is_none_or(|shown| shown == model.shown()));
    }

    /// Frames that were cut, doubled or scribbled into end nothing, and what they leave behind is still a book.
    #[test]
    fn scribbled_frames_are_survived(edits in prop::collection::vec((0usize..64, 0usize..4_000, any::<u8>()), 1..60)) {
        let corpus: Vec<String> = ["frames_2022-2026.jsonl", "shapes_constructed.jsonl"]
            .iter()
            .flat_map(|file| {
                let path = format!("{}/../connectors/fixtures/btcturk/{file}", env!("CARGO_MANIFEST_DIR"));
                let text = std::fs::read_to_string(path).unwrap();
                let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>();
                lines.into_iter().filter_map(|line| line["text"].as_str().map(str::to_owned))
            })
            .collect();
        let mut mapper = BtcTurk::default();
        mapper.admit(None, &[]);
        let (mut out, mut now) = (Output::default(), 1_000);
        for (which, at, byte) in edits {
            let mut bytes = corpus[which % corpus.len()].clone().into_bytes();
            let at = at % bytes.len();
            match byte % 4 {
                0 => bytes.truncate(at),
                1 => bytes[at] = byte / 2,
                2 => bytes.insert(at, b'0' + byte % 10),
                _ => {}
            }
            now += 500;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let frame = RawFrame { received_at: now, content: Content::Text { connection: 1, text } };
            mapper.on_frame(&frame, &mut out);
            mapper.on_tick(now, &mut out);
        }
        for update in &out.updates {
            let Payload::Book(book) = &update.payload else { continue };
            prop_assert!(book.bids.first().zip(book.asks.first()).is_none_or(|(bid, ask)| bid.0 < ask.0));
            prop_assert!(book.bids.iter().chain(&book.asks).all(|level| !level.1.is_zero()));
        }
    }
}
