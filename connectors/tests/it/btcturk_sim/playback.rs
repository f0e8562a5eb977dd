//! A recording in the place of the pairs.

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
