//! What a venue should never send, through real processes: skipped, counted by reason, logged once with a sample, and the
//! channel goes on. A book that cannot be trusted is built anew and not published.

use std::collections::BTreeMap;

use akis_model::Decimal;
use akis_testkit::wait_until;
use serde_json::{Value, json};

use crate::crowd::assert_each_trade_once;
use crate::system::{Options, Role, SOON, System};

const TRADES: &str = "binance:BTCUSDT:trades";
const BOOK: &str = "binance:BTCUSDT:book";
const TICKER: &str = "binance:BTCUSDT:ticker";

/// Every bad frame comes so often.
const TIMES: u64 = 3;

/// A trade with one field changed, or without it.
fn trade(field: &str, value: Option<&str>) -> String {
    let mut data =
        json!({"e":"aggTrade","E":1,"s":"BTCUSDT","a":1,"p":"1.0","q":"1.0","f":1,"l":1,"T":1,"m":false,"M":true});
    match value {
        Some(value) => data[field] = value.into(),
        None => drop(data.as_object_mut().unwrap().remove(field)),
    }
    json!({"stream": "btcusdt@aggTrade", "data": data}).to_string()
}

/// Frames by the reason for which they are skipped.
fn frames() -> BTreeMap<&'static str, Vec<String>> {
    let crossed = json!({"u": 9_000_000_000_000_000_u64, "s": "BTCUSDT", "b": "11", "B": "1", "a": "10", "A": "1"});
    BTreeMap::from([
        ("not_json", vec![r#"{"stream":"btcusdt@aggTrade","data":{"e":"aggTr"#.to_owned()]),
        ("bad_shape", vec![trade("p", None), r#"{"stream":"btcusdt@aggTrade","data":[]}"#.to_owned()]),
        ("unknown_symbol", vec![trade("s", Some("NOSUCHUSDT"))]),
        ("bad_number", vec![trade("p", Some("abc")), trade("p", Some("1e400")), trade("q", Some(""))]),
        ("out_of_range", vec![trade("q", Some("-1")), trade("p", Some("0"))]),
        ("crossed", vec![json!({"stream": "btcusdt@bookTicker", "data": crossed}).to_string()]),
        ("unknown_event", vec![r#"{"stream":"btcusdt@noSuchThing","data":{}}"#.to_owned()]),
    ])
}

async fn fault(system: &System, fault: &Value) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let asked = client.post(format!("http://{}/sim/fault", system.venue)).body(fault.to_string()).send().await.unwrap();
    assert_eq!(asked.status(), 200, "{fault}");
}

/// The value of the series that a line of `/metrics` begins with.
async fn series(role: &Role, begins: &str) -> u64 {
    let (_, text) = role.ask("/metrics").await;
    text.lines().find_map(|line| line.strip_prefix(begins)).map_or(0, |value| value.trim().parse().unwrap())
}

/// Waits until the channel has more events than it has now.
async fn goes_on(system: &System, channel: &str) {
    system.wait_for_events(channel, system.history(channel).await.len() + 5).await;
}

/// Every book in the log is sorted, has levels of some size only, and is not crossed.
fn assert_books(history: &BTreeMap<u64, Value>) {
    let level =
        |level: &Value| [&level[0], &level[1]].map(|number| number.as_str().unwrap().parse::<Decimal>().unwrap());
    let side = |book: &Value, name: &str| book[name].as_array().unwrap().iter().map(level).collect::<Vec<_>>();
    let mut seen = 0;
    for event in history.values().filter(|event| event["event"] == "orderbook") {
        let (bids, asks) = (side(&event["data"], "bids"), side(&event["data"], "asks"));
        assert!(bids.is_sorted_by(|a, b| a[0] > b[0]) && asks.is_sorted_by(|a, b| a[0] < b[0]), "{event}");
        assert!(bids[0][0] < asks[0][0], "{event}");
        assert!(bids.iter().chain(&asks).flatten().all(|number| *number > Decimal::ZERO), "{event}");
        seen += 1;
    }
    assert!(seen > 10, "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_frames_of_a_venue_are_counted_told_once_and_harm_no_channel() {
    let options = Options { gateways: 0, kinds: &["ticker", "trades", "book"], ..Options::default() };
    let system = System::start(options).await;
    let normalizer = &system.normalizers[0];
    for (reason, texts) in frames() {
        for _ in 0..TIMES {
            for text in &texts {
                fault(&system, &json!({"fault": "bad_frame", "text": text})).await;
            }
        }
        let begins = format!("akis_normalizer_skipped_total{{reason=\"{reason}\",venue=\"binance\"}}");
        let counted = async || series(normalizer, &begins).await == TIMES * texts.len() as u64;
        wait_until(SOON, &format!("{reason} is counted"), counted).await.unwrap();
        let lines: Vec<Value> =
            normalizer.process.lines().iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let told = |line: &&Value| line["fields"]["reason"] == reason || line["reason"] == reason;
        let told: Vec<_> = lines.iter().filter(told).collect();
        assert_eq!(told.len(), 1, "{reason} is logged once: {told:?}");
        assert!(told[0].to_string().contains("btcusdt@"), "with a sample: {}", told[0]);
        for channel in [TRADES, BOOK, TICKER] {
            goes_on(&system, channel).await;
        }
    }
    fault(&system, &json!({"fault": "crossed_book", "symbol": "BTCUSDT"})).await;
    let begins = "akis_normalizer_book_resyncs_total{cause=\"crossed\",venue=\"binance\"}";
    let is_built_anew = async || series(normalizer, begins).await > 0;
    wait_until(SOON, "the crossed book is built anew", is_built_anew).await.unwrap();
    for channel in [TRADES, BOOK, TICKER] {
        goes_on(&system, channel).await;
    }
    assert_books(&system.history(BOOK).await);
    assert_each_trade_once(TRADES, &system.history(TRADES).await);
    assert_eq!(series(normalizer, "akis_normalizer_lost_trades_total{venue=\"binance\"}").await, 0);
}
