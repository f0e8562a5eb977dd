//! Recorded frames through the mapper, against what a plain reading of the same files gives.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::PathBuf;

use akis_normalizer::{ReplayError, Summary, replay};
use serde_json::{Value, json};

const USDM: &str = "usdm_2021-07-22.jsonl";

const FILES: [&str; 4] = ["spot_2021-10-12.jsonl", "trbinance_2023-04-10.jsonl", "binanceus_2021-10-12.jsonl", USDM];

/// The first segment of a file's channels.
fn source(file: &str) -> &'static str {
    if file == USDM { "binancef" } else { "binance" }
}

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../connectors/fixtures/binance").join(file)
}

fn play(files: &[&str], throttle: bool) -> (String, Summary) {
    let files = files.iter().map(|file| BufReader::new(File::open(path(file)).unwrap()));
    let mut out = Vec::new();
    let summary = replay(files, throttle, &mut out).unwrap();
    (String::from_utf8(out).unwrap(), summary)
}

fn play_text(text: &str) -> (Vec<Value>, Summary) {
    let mut out = Vec::new();
    let summary = replay([text.as_bytes()], false, &mut out).unwrap();
    (events(&String::from_utf8(out).unwrap()), summary)
}

fn events(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The lines of a recording behind its header, with what their texts hold.
fn lines(file: &str) -> Vec<(Value, Value)> {
    let text = fs::read_to_string(path(file)).unwrap();
    text.lines()
        .skip(1)
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let inner = serde_json::from_str(line["text"].as_str().unwrap_or("null")).unwrap();
            (line, inner)
        })
        .collect()
}

/// The frames of one kind of stream: when they were read, and their data.
fn frames(file: &str, stream: &str) -> Vec<(i64, Value)> {
    lines(file)
        .into_iter()
        .filter(|(_, inner)| inner["stream"].as_str().is_some_and(|name| name.contains(stream)))
        .map(|(line, inner)| (line["at"].as_i64().unwrap(), inner["data"].clone()))
        .collect()
}

/// In units of the eighth decimal, which is the last one in these files.
fn lots(text: &str) -> i128 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    assert!(fraction.len() <= 8, "{text}");
    format!("{whole}{fraction:0<8}").parse().unwrap()
}

fn plain(text: &str) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text.to_owned() }
}

/// One side as a list that is searched from its beginning, with the texts of the venue.
#[derive(Default, Clone)]
struct NaiveSide(Vec<(String, String)>);

impl NaiveSide {
    fn set(&mut self, levels: &Value) {
        for level in levels.as_array().unwrap() {
            let (price, qty) = (level[0].as_str().unwrap(), level[1].as_str().unwrap());
            self.0.retain(|(known, _)| known != price);
            if lots(qty) != 0 {
                self.0.push((price.to_owned(), qty.to_owned()));
            }
        }
    }

    fn best(&self, highest_first: bool) -> Value {
        let mut levels = self.0.clone();
        levels.sort_by_key(|(price, _)| if highest_first { -lots(price) } else { lots(price) });
        levels.iter().take(20).map(|(price, qty)| json!([plain(price), plain(qty)])).collect()
    }
}

/// What the book channel of each symbol should show: number, time, bids and asks.
fn naive_books(file: &str) -> BTreeMap<String, Vec<Value>> {
    let mut shown: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut waiting: BTreeMap<String, Vec<(i64, Value)>> = BTreeMap::new();
    let mut books: BTreeMap<String, (NaiveSide, NaiveSide, u64)> = BTreeMap::new();
    let mut last_diffs: BTreeMap<String, u64> = BTreeMap::new();
    for (line, inner) in lines(file) {
        let at = line["at"].as_i64().unwrap();
        let symbol = if let Some(target) = line["http"].as_str().filter(|target| target.contains("/depth?")) {
            let symbol = target.split("symbol=").nth(1).unwrap().split('&').next().unwrap().to_owned();
            let (mut bids, mut asks) = (NaiveSide::default(), NaiveSide::default());
            bids.set(&inner["bids"]);
            asks.set(&inner["asks"]);
            let id = inner["lastUpdateId"].as_u64().unwrap();
            let state = json!([id.to_string(), at, at, bids.best(true), asks.best(false)]);
            shown.entry(symbol.clone()).or_default().push(state);
            assert!(books.insert(symbol.clone(), (bids, asks, id)).is_none(), "one snapshot a symbol");
            symbol
        } else if inner["data"]["e"] == "depthUpdate" {
            let symbol = inner["data"]["s"].as_str().unwrap().to_owned();
            waiting.entry(symbol.clone()).or_default().push((at, inner["data"].clone()));
            symbol
        } else {
            continue;
        };
        let Some((bids, asks, id)) = books.get_mut(&symbol) else { continue };
        for (at, diff) in waiting.remove(&symbol).unwrap_or_default() {
            let last = diff["u"].as_u64().unwrap();
            let before = last_diffs.insert(symbol.clone(), last);
            if last <= *id {
                continue;
            }
            match diff["pu"].as_u64() {
                Some(previous) => assert!(previous == *id || before == Some(previous), "the files have no gap"),
                None => assert!(diff["U"].as_u64().unwrap() <= *id + 1, "the files have no gap"),
            }
            bids.set(&diff["b"]);
            asks.set(&diff["a"]);
            *id = last;
            let state = json!([last.to_string(), diff["E"], at, bids.best(true), asks.best(false)]);
            shown.entry(symbol.clone()).or_default().push(state);
        }
    }
    shown
}

fn of_channel(events: &[Value], channel: &str) -> Vec<Value> {
    events.iter().filter(|event| event["channel"] == channel).cloned().collect()
}

#[test]
fn books_equal_a_naive_reconstruction_at_every_step() {
    let mut compared = 0;
    for file in FILES {
        let (out, summary) = play(&[file], false);
        let events = events(&out);
        assert_eq!(summary.resyncs, BTreeMap::new(), "{file}");
        for (symbol, expected) in naive_books(file) {
            let shown: Vec<Value> = of_channel(&events, &format!("{}:{symbol}:book", source(file)))
                .iter()
                .map(|event| {
                    let data = &event["data"];
                    json!([data["venueSeq"], event["ts"], data["receivedAt"], data["bids"], data["asks"]])
                })
                .collect();
            assert_eq!(shown, expected, "{file} {symbol}");
            compared += shown.len();
        }
    }
    assert!(compared > 200, "{compared} states");
}

#[test]
fn trades_come_in_order_and_complete() {
    for file in FILES {
        let (out, summary) = play(&[file], false);
        let expected: Vec<Value> = frames(file, "@aggTrade")
            .iter()
            .map(|(at, data)| {
                let side = if data["m"].as_bool().unwrap() { "sell" } else { "buy" };
                let (price, qty) = (plain(data["p"].as_str().unwrap()), plain(data["q"].as_str().unwrap()));
                json!([data["s"], data["a"].to_string(), data["T"], price, qty, side, at])
            })
            .collect();
        let told: Vec<Value> = events(&out)
            .iter()
            .filter(|event| event["event"] == "trade")
            .map(|event| {
                let data = &event["data"];
                let symbol = event["channel"].as_str().unwrap().split(':').nth(1).unwrap();
                json!([symbol, data["id"], event["ts"], data["price"], data["qty"], data["side"], data["receivedAt"]])
            })
            .collect();
        assert_eq!(told, expected, "{file}");
        assert_eq!(summary.lost_trades, 0, "{file}");
    }
}

#[test]
fn candles_equal_the_klines() {
    for file in FILES {
        let (out, _) = play(&[file], false);
        let number = |value: &Value| plain(value.as_str().unwrap());
        let expected: Vec<Value> = frames(file, "@kline_1m")
            .iter()
            .map(|(_, data)| {
                let k = &data["k"];
                let prices = [&k["o"], &k["h"], &k["l"], &k["c"], &k["v"]].map(number);
                json!([k["s"], data["E"], k["i"], k["t"], k["T"], prices, k["n"], k["x"]])
            })
            .collect();
        let told: Vec<Value> = events(&out)
            .iter()
            .filter(|event| event["event"] == "candle_update")
            .map(|event| {
                let d = &event["data"];
                let symbol = event["channel"].as_str().unwrap().split(':').nth(1).unwrap();
                let prices = [&d["open"], &d["high"], &d["low"], &d["close"], &d["volume"]];
                json!([
                    symbol,
                    event["ts"],
                    d["interval"],
                    d["openTime"],
                    d["closeTime"],
                    prices,
                    d["trades"],
                    d["closed"]
                ])
            })
            .collect();
        assert_eq!(told, expected, "{file}");
    }
}

#[test]
fn every_quote_becomes_a_price_tick() {
    for file in FILES {
        let (out, _) = play(&[file], false);
        let expected: Vec<Value> = frames(file, "@bookTicker")
            .iter()
            .map(|(at, data)| {
                json!([
                    data["E"].as_i64().unwrap_or(*at),
                    plain(data["b"].as_str().unwrap()),
                    plain(data["A"].as_str().unwrap())
                ])
            })
            .collect();
        let told: Vec<Value> = events(&out)
            .iter()
            .filter(|event| event["event"] == "price_tick")
            .map(|event| json!([event["ts"], event["data"]["bid"], event["data"]["askQty"]]))
            .collect();
        assert_eq!(told, expected, "{file}");
    }
}

#[test]
fn current_frames_of_futures_are_understood() {
    let frames = fs::read_to_string(path("usdm_ws_frames_2026-10-07.jsonl")).unwrap();
    let header = HEADER.replace("spot", "usdm");
    let lines: Vec<String> = frames.lines().map(|frame| text_line(1_791_383_700_000, frame)).collect();
    let (events, summary) = play_text(&format!("{header}\n{}", lines.join("\n")));
    let told: Vec<Value> = events.iter().map(|event| json!([event["channel"], event["event"], event["ts"]])).collect();
    for (facet, event) in [("trades", "trade"), ("ticker", "price_tick"), ("1m", "candle_update")] {
        let is_told = |line: &Value| line[0] == format!("binancef:BTCUSDT:{facet}") && line[1] == event;
        assert!(told.iter().any(is_told), "{facet}: {told:?}");
    }
    assert_eq!(summary.skipped.values().sum::<u64>(), 4, "prices of the mark, all-market arrays and a partial book");
}

#[test]
fn a_second_run_gives_the_same_bytes_and_positions_are_dense() {
    for throttle in [false, true] {
        let (first, summary) = play(&FILES, throttle);
        assert_eq!(play(&FILES, throttle), (first.clone(), summary));
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        for event in events(&first) {
            let seq = last.entry(event["channel"].as_str().unwrap().to_owned()).or_default();
            *seq += 1;
            assert_eq!(event["seq"], *seq);
        }
    }
}

#[test]
fn throttled_channels_end_with_the_same_event() {
    for file in FILES {
        let newest = |throttle| -> BTreeMap<String, Value> {
            let each = events(&play(&[file], throttle).0).into_iter();
            each.map(|event| (event["channel"].as_str().unwrap().to_owned(), event["data"].clone())).collect()
        };
        assert_eq!(newest(true), newest(false), "{file}");
        assert!(play(&[file], true).1.events < play(&[file], false).1.events, "{file}");
    }
}

const HEADER: &str = r#"{"akis":"recording","v":1,"venue":"binance","market":"spot","startedAt":1}"#;

fn text_line(at: i64, text: &str) -> String {
    json!({"at":at,"conn":1,"text":text}).to_string()
}

fn trade_line(at: i64, symbol: &str, id: u64) -> String {
    let data = json!({"e":"aggTrade","E":1,"s":symbol,"a":id,"p":"1.0","q":"1.0","f":1,"l":1,"T":1,"m":false,"M":true});
    text_line(at, &json!({"stream":format!("{}@aggTrade", symbol.to_lowercase()),"data":data}).to_string())
}

#[test]
fn bad_lines_and_frames_are_counted_and_the_rest_is_played() {
    let lines = [
        HEADER.to_owned(),
        trade_line(10, "AAAUSDT", 1),
        "nonsense".into(),
        text_line(11, ""),
        text_line(12, r#"{"stream":"aaausdt@aggTrade","data":{"s":"AAAUSDT"}}"#),
        trade_line(5, "AAAUSDT", 2),
        trade_line(13, "AAAUSDT", 2),
    ];
    let (events, summary) = play_text(&lines.join("\n"));
    assert_eq!(events.iter().map(|event| event["data"]["id"].clone()).collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(summary.to_string(), "frames 4\nevents 2\nskipped bad_line 2\nskipped not_json 1\nskipped bad_shape 1");
}

#[test]
fn symbols_of_the_header_are_the_only_ones() {
    let header = r#"{"akis":"recording","v":1,"venue":"binance","market":"spot","startedAt":1,"symbols":["AAAUSDT"]}"#;
    let lines = [header.to_owned(), trade_line(10, "BBBUSDT", 1), trade_line(10, "AAAUSDT", 1)];
    let (events, summary) = play_text(&lines.join("\n"));
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["channel"], "binance:AAAUSDT:trades");
    assert!(summary.to_string().ends_with("skipped unknown_symbol 1"));
}

#[test]
fn a_silent_venue_is_told_on_its_channels_and_so_is_its_return() {
    let lines = [HEADER.to_owned(), trade_line(1_000, "AAAUSDT", 1), trade_line(1_000_000, "AAAUSDT", 2)];
    let (events, _) = play_text(&lines.join("\n"));
    let told: Vec<Value> =
        events.iter().map(|e| json!([e["seq"], e["event"], e["ok"], e["data"]["state"], e["data"]["since"]])).collect();
    assert_eq!(
        told,
        [
            json!([1, "trade", true, null, null]),
            json!([2, "channel_status", false, "down", 1_000]),
            json!([3, "channel_status", true, "up", 1_000_000]),
            json!([4, "trade", true, null, null]),
        ]
    );
    assert_eq!(events[1]["errorCode"], "DATA_UNAVAILABLE");
    assert!(events[1]["ts"].as_i64().unwrap() < 6_200, "told when it was due, not when the next frame came");
}

#[test]
fn a_time_from_the_future_is_marked_and_not_trusted() {
    let now = 1_791_383_700_000;
    let lines = [HEADER.to_owned(), trade_line(now, "AAAUSDT", 1)];
    let (events, summary) = play_text(&lines.join("\n"));
    assert_eq!((events[0]["ts"].as_i64(), &events[0]["data"]["tsSource"]), (Some(now), &json!("received")));
    assert!(summary.to_string().ends_with("skipped bad_time 1"), "{summary}");
}

#[test]
fn a_channel_that_falls_silent_while_others_go_on_is_told() {
    let mut lines = vec![HEADER.to_owned()];
    for n in 1..=100 {
        if n <= 40 {
            lines.push(trade_line(n * 1_000, "AAAUSDT", n as u64));
        }
        lines.push(trade_line(n * 1_000, "BBBUSDT", n as u64));
    }
    lines.push(trade_line(101_000, "AAAUSDT", 41));
    let (events, _) = play_text(&lines.join("\n"));
    let told = of_channel(&events, "binance:AAAUSDT:trades");
    let statuses: Vec<&Value> = told.iter().filter(|event| event["event"] == "channel_status").collect();
    let [stale, up] = statuses.as_slice() else { panic!("{statuses:?}") };
    assert_eq!((&stale["errorCode"], &stale["data"]["since"]), (&json!("STALENESS_WARNING"), &json!(40_000)));
    assert!((70_000..72_000).contains(&stale["ts"].as_i64().unwrap()), "{stale}");
    assert_eq!((&up["data"]["state"], &told.last().unwrap()["event"]), (&json!("up"), &json!("trade")));
    let others = of_channel(&events, "binance:BBBUSDT:trades");
    assert!(others.iter().all(|event| event["event"] == "trade"), "contained to its channel");
}

#[test]
fn other_markets_are_refused_by_name() {
    let header = HEADER.replace("spot", "moon");
    let refused = replay([header.as_bytes()], false, &mut Vec::new());
    assert!(matches!(refused, Err(ReplayError::UnknownMarket { market, .. }) if market == "moon"));
}
