//! A recording in the place of the venue.

use std::fs::File;
use std::io::BufReader;

use akis_connectors::recording::Reader;
use akis_connectors::{Content, RawFrame};
use serde_json::json;

use super::*;

const SPOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/binance/spot_2021-10-12.jsonl");

fn recorded() -> Vec<Content> {
    let (_, reader) = Reader::open(BufReader::new(File::open(SPOT).unwrap())).unwrap();
    reader.map(|frame: Result<RawFrame, _>| frame.unwrap().content).collect()
}

fn recorded_texts() -> Vec<String> {
    let text = |content| match content {
        Content::Text { text, .. } => Some(text),
        _ => None,
    };
    recorded().into_iter().filter_map(text).collect()
}

/// Every stream that the recording has.
fn streams() -> String {
    let mut streams: Vec<String> = recorded_texts()
        .iter()
        .map(|text| serde_json::from_str::<Value>(text).unwrap()["stream"].as_str().unwrap().into())
        .collect();
    streams.sort();
    streams.dedup();
    streams.join("/")
}

async fn playing(speed: f64) -> Sim {
    Sim::start(Source::Recorded { file: SPOT.into(), speed }, Limits::default()).await
}

#[tokio::test]
async fn a_client_gets_what_was_recorded_byte_for_byte() {
    let sim = playing(200.0).await;
    let mut client = sim.connect(&format!("/stream?streams={}", streams())).await;
    for expected in recorded_texts() {
        assert_eq!(client.text().await.unwrap(), expected);
    }
    sim.stop().await;
}

#[tokio::test]
async fn bare_clients_get_the_payloads() {
    let sim = playing(200.0).await;
    let mut client = sim.connect("/ws/nknusdt@depth@100ms").await;
    for expected in recorded_texts().iter().filter(|text| text.starts_with(r#"{"stream":"nknusdt@depth@100ms""#)) {
        let data = expected.split_once(r#","data":"#).unwrap().1.strip_suffix('}').unwrap();
        assert_eq!(client.text().await.unwrap(), data);
    }
    sim.stop().await;
}

#[tokio::test]
async fn replies_are_the_recorded_ones_and_wait_for_their_moment() {
    let sim = playing(200.0).await;
    let last = recorded().into_iter().rev().find_map(|content| match content {
        Content::Reply { target, body, .. } => Some((target, body)),
        _ => None,
    });
    let (target, body) = last.unwrap();
    // Nothing plays before somebody subscribes, so this request has to wait.
    let (reply, mut client) = tokio::join!(sim.response(&target), sim.connect("/ws/nknusdt@depth@100ms"));
    assert_eq!(reply.text().await.unwrap(), body);
    client.text().await.unwrap();
    let smaller = sim.response("/api/v3/depth?limit=5&symbol=RUNEEUR").await;
    assert_eq!(smaller.text().await.unwrap(), body, "whatever the limit is");
    let info = sim.get("/api/v3/exchangeInfo").await;
    assert_eq!(info["symbols"][2]["symbol"], "LRCBTC");
    assert_eq!(info["symbols"][2]["quoteAsset"], "BTC");
    sim.stop().await;
}

#[tokio::test]
async fn what_the_recording_never_has_is_refused_at_its_end() {
    let sim = playing(1000.0).await;
    let (reply, client) =
        tokio::join!(sim.response("/api/v3/depth?symbol=BTCUSDT"), sim.connect("/ws/nknusdt@depth@100ms"));
    assert_eq!(reply.status(), 404);
    drop(client);
    sim.stop().await;
}

#[tokio::test]
async fn what_was_looked_up_before_a_subscription_is_there_before_one() {
    let trade = json!({"stream": "btcusdt@trade", "data": {"e": "trade", "s": "BTCUSDT", "t": 1}});
    let lines = [
        json!({"akis": "recording", "v": 1, "venue": "binance", "market": "spot", "startedAt": 1_000, "symbols": ["top:1"]}),
        json!({"at": 1_000, "http": "/api/v3/exchangeInfo", "status": 200, "text": r#"{"symbols":["recorded"]}"#}),
        json!({"at": 2_000, "http": "/api/v3/ticker/24hr", "status": 200, "text": r#"[{"symbol":"BTCUSDT"}]"#}),
        json!({"at": 3_000, "conn": 1, "text": trade.to_string()}),
    ];
    let file = std::env::temp_dir().join(format!("akis-binance-playback-{}.jsonl", std::process::id()));
    std::fs::write(&file, lines.map(|line| format!("{line}\n")).concat()).unwrap();
    let sim = Sim::start(Source::Recorded { file: file.clone(), speed: 1.0 }, Limits::default()).await;
    assert_eq!(sim.get("/api/v3/ticker/24hr").await, json!([{"symbol": "BTCUSDT"}]));
    assert_eq!(sim.get("/api/v3/exchangeInfo").await, json!({"symbols": ["recorded"]}));
    let mut client = sim.connect("/stream?streams=btcusdt@trade").await;
    assert_eq!(client.text().await.unwrap(), trade.to_string(), "a pattern in the header refuses no symbol");
    sim.stop().await;
    std::fs::remove_file(&file).unwrap();
}
