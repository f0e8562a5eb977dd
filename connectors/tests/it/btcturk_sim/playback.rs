//! A recording in the place of the pairs.

use std::path::PathBuf;

use super::*;

const FRAMES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/btcturk/frames_2022-2026.jsonl");

#[tokio::test]
async fn a_recording_is_played_byte_for_byte_and_newcomers_get_what_there_is() {
    let sim = Sim::start(Source::Recorded { file: FRAMES.into(), speed: 1_000.0 }, Limits::default()).await;
    let mut client = sim.connect().await;
    for (channel, event) in [("obdiff", "BTCUSDT"), ("trade", "BTCUSDT"), ("ticker", "ADATRY")] {
        client.join(channel, event, true).await;
    }
    let recorded = std::fs::read_to_string(FRAMES).unwrap();
    let is_ours = |text: &str| {
        [r#""channel":"obdiff","event":"BTCUSDT""#, r#""channel":"trade","event":"BTCUSDT""#, r#""event":"ADATRY""#]
            .iter()
            .any(|part| text.contains(part))
    };
    let mut played = 0;
    for line in recorded.lines().skip(1) {
        let line: Value = serde_json::from_str(line).unwrap();
        let expected = line["text"].as_str().unwrap();
        if !is_ours(expected) {
            continue;
        }
        let mut text = client.text().await.unwrap();
        while text.starts_with("[100,") {
            text = client.text().await.unwrap();
        }
        assert_eq!(text, expected);
        played += 1;
    }
    assert!(played >= 5, "{played} frames");
    let mut late = sim.connect().await;
    late.join("obdiff", "BTCUSDT", true).await;
    let whole = late.next(431).await;
    assert_eq!(whole["CS"], 7_880_291, "the number of the last difference");
    assert_eq!(sim.get("/api/v2/server/ping").await.0, 200);
    sim.stop().await;
}

#[tokio::test]
async fn a_recording_of_another_venue_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/binance/spot_2021-10-12.jsonl").into();
    let config = SimConfig { source: Source::Recorded { file, speed: 1.0 }, limits: Limits::default() };
    let refused = sim::serve(listener, config, CancellationToken::new()).await;
    assert!(matches!(refused, Err(SimError::OtherVenue { expected: "btcturk spot", .. })));
}

/// A recording of one frame a second, with replies after the first and the second one.
fn with_replies() -> PathBuf {
    let frame = |n: i64| json!([422, {"P": "1", "A": "1", "I": n.to_string(), "channel": "trade", "event": "BTCTRY", "type": 422}]);
    let klines = |minutes: i64| format!("/v1/klines/history?symbol=BTCTRY&resolution={minutes}&from=1&to=2");
    let lines = [
        json!({"akis": "recording", "v": 1, "venue": "btcturk", "market": "spot", "startedAt": 1_000}),
        json!({"at": 1_000, "conn": 1, "text": frame(1).to_string()}),
        json!({"at": 1_500, "http": klines(5), "status": 200, "text": r#"{"s":"five"}"#}),
        json!({"at": 2_000, "conn": 1, "text": frame(2).to_string()}),
        json!({"at": 2_500, "http": klines(1), "status": 200, "text": r#"{"s":"one"}"#}),
        json!({"at": 2_500, "http": "/api/v2/ticker", "status": 503, "text": "down"}),
        json!({"at": 3_000, "conn": 1, "text": frame(3).to_string()}),
    ];
    let file = std::env::temp_dir().join(format!("akis-btcturk-playback-{}.jsonl", std::process::id()));
    std::fs::write(&file, lines.map(|line| format!("{line}\n")).concat()).unwrap();
    file
}

#[tokio::test]
async fn replies_are_the_recorded_ones_and_wait_for_their_moment() {
    let file = with_replies();
    let source = Source::Recorded { file: file.clone(), speed: 5.0 };
    let sim = Sim::start(source, Limits::default()).await;
    let frames = async {
        let mut client = sim.connect().await;
        client.join("trade", "BTCTRY", true).await;
        for number in ["1", "2", "3"] {
            assert_eq!(client.next(422).await["I"], number);
        }
        client
    };
    let (one, five, ticker, never, _client) = tokio::join!(
        sim.get("/v1/klines/history?symbol=BTCTRY&resolution=1&from=7&to=8"),
        sim.get("/v1/klines/history?symbol=BTCTRY&resolution=5&from=7&to=8"),
        sim.get("/api/v2/ticker"),
        sim.get("/v1/klines/history?symbol=ETHTRY&resolution=1&from=7&to=8"),
        frames,
    );
    assert_eq!(one, (200, json!({"s": "one"})), "asked for before the recording had it");
    assert_eq!(five, (200, json!({"s": "five"})));
    assert_eq!(ticker.0, 503, "a failure that was recorded comes again");
    assert_eq!(never.0, 404, "what the recording never has is refused at its end");
    assert_eq!(sim.get("/v1/klines/history?symbol=BTCTRY&resolution=1&from=9&to=9").await, one, "and later");
    assert_eq!(sim.get("/api/v2/server/time").await.0, 404);
    sim.stop().await;
    std::fs::remove_file(&file).unwrap();
}
