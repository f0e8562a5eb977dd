//! What is left of a symbol when its connections end, and when two are read at once.

use super::*;

fn closed(connection: u32) -> Content {
    Content::Closed { connection, code: 1006 }
}

/// A frame of a stream as it comes over this connection.
fn framed(connection: u32, stream: &str, data: &Value) -> Content {
    Content::Text { connection, text: json!({"stream": format!("btcusdt@{stream}"), "data": data}).to_string() }
}

fn quote(update_id: u64, bid: &str) -> Value {
    json!({"u":update_id,"s":"BTCUSDT","b":bid,"B":"1","a":"11","A":"2"})
}

fn statistics(event_time: i64, last: &str) -> Value {
    json!({"e":"24hrTicker","E":event_time,"s":"BTCUSDT","p":"1","P":"-0.50","w":"1","c":last,"Q":"1",
        "o":"1","h":"1","l":"1","v":"1","q":"1","O":1,"C":1,"F":1,"L":1,"n":1})
}

/// The bid and the last price of the ticks.
fn ticks(out: &Output) -> Vec<(Option<String>, Option<String>)> {
    let text = |price: &Option<akis_model::Decimal>| price.map(|price| price.to_string());
    let ticks = out.updates.iter().filter_map(|update| match &update.payload {
        Payload::PriceTick(tick) => Some((text(&tick.bid), text(&tick.last))),
        _ => None,
    });
    ticks.collect()
}

fn tick(bid: Option<&str>, last: Option<&str>) -> Vec<(Option<String>, Option<String>)> {
    vec![(bid.map(str::to_owned), last.map(str::to_owned))]
}

#[test]
fn a_quote_of_a_connection_that_ended_is_not_told_as_new() {
    let mut harness = Harness::new();
    harness.now = 600_000;
    harness.content(framed(1, "bookTicker", &quote(5, "10")));
    harness.content(framed(1, "ticker", &statistics(500_000, "3")));
    harness.content(closed(1));
    assert_eq!(ticks(&harness.content(framed(2, "ticker", &statistics(500_001, "4")))), tick(None, Some("4")));
    harness.content(closed(2));
    assert_eq!(ticks(&harness.content(framed(3, "bookTicker", &quote(6, "9")))), tick(Some("9"), None));
}

#[test]
fn a_quote_that_another_connection_keeps_up_to_date_stays() {
    let mut harness = Harness::new();
    harness.now = 600_000;
    harness.content(framed(1, "bookTicker", &quote(5, "10")));
    harness.content(framed(2, "bookTicker", &quote(5, "10")));
    harness.content(framed(1, "bookTicker", &quote(6, "9")));
    harness.content(closed(1));
    let out = harness.content(framed(2, "ticker", &statistics(500_000, "3")));
    assert_eq!(ticks(&out), tick(Some("9"), Some("3")));
}

#[test]
fn a_quote_that_waits_when_its_connection_ends_is_told() {
    let mut harness = Harness::new();
    harness.spot.pace();
    assert_eq!(ticks(&harness.content(framed(1, "bookTicker", &quote(5, "10")))), tick(Some("10"), None));
    harness.now += 50;
    assert_eq!(ticks(&harness.content(framed(1, "bookTicker", &quote(6, "9")))), [], "not due");
    harness.now += 10;
    assert_eq!(ticks(&harness.content(closed(1))), tick(Some("9"), None));
    assert_eq!(ticks(&harness.tick(100)), [], "and nothing without a price");
}

#[test]
fn a_quote_that_stands_still_while_connections_change_over_stays() {
    let depth = json!({"e":"depthUpdate","E":900,"s":"BTCUSDT","U":101,"u":101,"b":[],"a":[]});
    for (stream, data, bid, last) in
        [("depth@100ms", &depth, Some("10"), None), ("aggTrade", &trade(7), None, Some("3"))]
    {
        let mut harness = Harness::new();
        harness.now = 600_000;
        harness.content(framed(1, "bookTicker", &quote(5, "10")));
        harness.content(framed(1, "ticker", &statistics(500_000, "3")));
        // What the venue has in one place comes over one connection; futures have the two in different places.
        harness.content(framed(2, stream, data));
        harness.content(closed(1));
        let out = if bid.is_some() {
            harness.content(framed(2, "ticker", &statistics(500_000, "4")))
        } else {
            harness.content(framed(2, "bookTicker", &quote(5, "9")))
        };
        assert_eq!(ticks(&out), tick(bid.or(Some("9")), last.or(Some("4"))), "{stream}");
        harness.content(closed(2));
        let out = harness.content(framed(3, "bookTicker", &quote(6, "8")));
        assert_eq!(ticks(&out), tick(Some("8"), None), "no other connection has it: {stream}");
    }
}

#[test]
fn the_day_never_goes_back() {
    let mut harness = Harness::new();
    harness.now = 600_000;
    harness.content(framed(1, "ticker", &statistics(500_000, "3")));
    assert_eq!(harness.content(framed(2, "ticker", &statistics(499_999, "2"))).skipped, [Reason::Stale]);
    let put_back = harness.content(framed(1, "ticker", &statistics(450_000, "6")));
    assert_eq!(ticks(&put_back), tick(None, Some("6")), "the venue's clock was put right");
    // A time that cannot be true holds up nothing.
    harness.content(framed(1, "ticker", &statistics(i64::MAX, "4")));
    assert_eq!(ticks(&harness.content(framed(1, "ticker", &statistics(500_000, "5")))), tick(None, Some("5")));
}

#[test]
fn a_book_without_a_diff_is_built_anew_after_any_connection() {
    let mut harness = Harness::live();
    assert_eq!(harness.content(closed(1)).resyncs, [Resync::Connection]);
    assert_eq!(seqs(&harness.snapshot(200, json!([["9", "1"]]), json!([["11", "1"]]))), ["200"]);
}

#[test]
fn a_book_that_is_replaced_never_goes_back() {
    let mut harness = Harness::new();
    harness.snapshot_of(100, 100, levels(901..=1_000, "1"), levels(1_001..=1_020, "1"));
    harness.depth(101, 101, levels(925..=1_000, "0"), json!([]));
    let out = harness.snapshot_of(100, 100, levels(901..=1_000, "1"), levels(1_001..=1_020, "1"));
    assert_eq!((seqs(&out), &out.skipped[..]), (vec![], &[Reason::UnusedSnapshot][..]));
    let out = harness.depth(102, 102, json!([["500", "1"]]), json!([]));
    let Payload::Book(book) = &out.updates[0].payload else { panic!("a book") };
    assert_eq!(book.bids[0].0.to_string(), "924");
}

/// The candles of a minute that were told: open time, high, whether closed.
fn candles(out: &Output) -> Vec<(i64, String, bool)> {
    let candles = out.updates.iter().filter_map(|update| match &update.payload {
        Payload::Candle(candle) => Some((candle.open_time, candle.high.to_string(), candle.closed)),
        _ => None,
    });
    candles.collect()
}

fn candle(open_time: i64, event_time: i64, high: &str, closed: bool) -> Value {
    let mut event = minute(open_time, closed);
    event["E"] = json!(event_time);
    event["k"]["h"] = json!(high);
    event
}

fn told(open_time: i64, high: &str, closed: bool) -> (i64, String, bool) {
    (open_time, high.to_owned(), closed)
}

#[test]
fn a_candle_that_was_told_open_is_told_closed_when_the_venue_says_so_late() {
    let mut harness = Harness::new();
    harness.now = 130_000;
    harness.content(framed(1, "kline_1m", &candle(0, 59_000, "3", false)));
    let out = harness.content(framed(2, "kline_1m", &candle(60_000, 60_100, "4", false)));
    assert_eq!(candles(&out), [told(60_000, "4", false)]);
    let out = harness.content(framed(1, "kline_1m", &candle(0, 60_050, "9", true)));
    assert_eq!(candles(&out), [told(0, "9", true), told(60_000, "4", false)], "the newest stays the newest");
    let out = harness.content(framed(2, "kline_1m", &candle(0, 60_050, "9", true)));
    assert_eq!((candles(&out), &out.skipped[..]), (vec![], &[Reason::Stale][..]), "once");
}

#[test]
fn a_clock_that_is_put_back_freezes_no_candle() {
    let mut harness = Harness::new();
    harness.now = 1_900_000;
    let hour = |event_time: i64, high: &str| {
        let mut event = candle(0, event_time, high, false);
        (event["k"]["T"], event["k"]["i"]) = (json!(3_599_999), json!("1h"));
        event
    };
    harness.content(framed(1, "kline_1h", &hour(1_800_000, "3")));
    let out = harness.content(framed(1, "kline_1h", &hour(1_200_000, "4")));
    assert_eq!(candles(&out), [told(0, "4", false)], "one connection keeps its order");
    let late = harness.content(framed(2, "kline_1h", &hour(1_100_000, "3")));
    assert_eq!(late.skipped, [Reason::Stale], "another one may be behind");
    harness.content(closed(1));
    let out = harness.content(framed(2, "kline_1h", &hour(1_150_000, "5")));
    assert_eq!(candles(&out), [told(0, "5", false)]);
}

#[test]
fn who_begins_to_publish_tells_how_the_last_candle_closed() {
    let mut harness = Harness::new();
    harness.now = 130_000;
    harness.content(framed(1, "kline_1m", &candle(0, 60_000, "3", true)));
    harness.content(framed(1, "kline_1m", &candle(60_000, 119_000, "4", false)));
    let taken_over = |harness: &mut Harness| {
        let mut out = Output::default();
        harness.spot.backfill(&mut out);
        candles(&out)
    };
    assert_eq!(taken_over(&mut harness), [told(0, "3", true), told(60_000, "4", false)]);
    harness.content(framed(1, "kline_1m", &candle(60_000, 120_000, "5", true)));
    assert_eq!(taken_over(&mut harness), [told(60_000, "5", true)]);
}

#[test]
fn who_begins_to_publish_tells_the_price_and_the_book_that_it_heard_before() {
    let mut harness = Harness::live();
    harness.spot.pace();
    let taken_over = |harness: &mut Harness| {
        let mut out = Output::default();
        harness.spot.backfill(&mut out);
        (ticks(&out), seqs(&out).join(" "), out.updates.iter().map(Update::received_at).collect::<Vec<_>>())
    };
    harness.content(framed(1, "bookTicker", &quote(5, "10")));
    harness.depth(101, 101, json!([["10", "2"]]), json!([]));
    harness.now += 600;
    let told = (tick(Some("10"), None), "101".to_owned(), vec![1_000; 2]);
    assert_eq!(taken_over(&mut harness), told, "when it came is when it came");
    harness.depth(103, 103, json!([["10", "3"]]), json!([]));
    assert_eq!(taken_over(&mut harness).1, "", "a book that is not proven is not told");
    harness.content(closed(1));
    assert_eq!(taken_over(&mut harness), (vec![], String::new(), vec![]), "nor what is not known any more");
}

#[test]
fn a_candle_that_was_told_open_is_told_closed_when_rest_says_so() {
    let mut harness = Harness::new();
    harness.now = 51_000;
    harness.content(framed(1, "kline_1m", &candle(0, 50_000, "3", false)));
    harness.content(closed(1));
    harness.now = 183_000;
    harness.content(framed(2, "kline_1m", &candle(180_000, 183_000, "4", false)));
    let row = |open: i64| json!([open, "1", "9", "1", "1", "1", open + 59_999, "1", 1, "1", "1", "0"]);
    let rows: Vec<Value> = (0..4).map(|n| row(n * 60_000)).collect();
    let mut reply = || {
        let target = "/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=4".to_owned();
        harness.content(Content::Reply { target, status: 200, body: json!(rows).to_string() })
    };
    let out = reply();
    assert_eq!(candles(&out), [told(0, "9", true), told(180_000, "4", false)]);
    assert_eq!(out.history[0].candles.len(), 3, "charts get those that nobody was told of too");
    assert_eq!(candles(&reply()), [], "once");
}
