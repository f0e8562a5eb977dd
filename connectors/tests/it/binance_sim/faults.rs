//! Each fault, as a client meets it.

use serde_json::json;

use super::*;

const DEPTH: &str = "btcusdt@depth@100ms";

async fn with_depth() -> (Sim, Client) {
    let sim = Sim::generated().await;
    let mut client = sim.connect("/stream?streams=btcusdt@depth@100ms/ethusdt@depth@100ms").await;
    client.next(DEPTH, |_| true).await;
    (sim, client)
}

/// Reads diffs until one does not begin where the one before it ended, and returns by how much it is off.
async fn first_break(client: &mut Client, mut last: i64) -> i64 {
    loop {
        let diff = client.next(DEPTH, |_| true).await;
        let step = int(&diff["U"]) - last - 1;
        last = int(&diff["u"]);
        if step != 0 {
            return step;
        }
    }
}

#[tokio::test]
async fn a_dropped_diff_leaves_a_gap_and_a_duplicate_goes_back() {
    let (sim, mut client) = with_depth().await;
    let last = int(&client.next(DEPTH, |_| true).await["u"]);
    assert_eq!(sim.fault(json!({ "fault": "drop_diff", "symbol": "BTCUSDT" })).await, 200);
    assert!(first_break(&mut client, last).await > 0);
    let last = int(&client.next(DEPTH, |_| true).await["u"]);
    assert_eq!(sim.fault(json!({ "fault": "duplicate", "symbol": "BTCUSDT" })).await, 200);
    assert!(first_break(&mut client, last).await < 0);
    let mut last = int(&client.next(DEPTH, |_| true).await["u"]);
    for _ in 0..3 {
        let diff = client.next(DEPTH, |_| true).await;
        assert_eq!(int(&diff["U"]), last + 1, "each fault happens once");
        last = int(&diff["u"]);
    }
    sim.stop().await;
}

#[tokio::test]
async fn a_crossed_book_is_told_but_not_true() {
    let (sim, mut client) = with_depth().await;
    assert_eq!(sim.fault(json!({ "fault": "crossed_book", "symbol": "BTCUSDT" })).await, 200);
    let hundredths = |level: &Value| level[0].as_str().map(|price| price.replace('.', "").parse::<i64>().unwrap());
    let snapshot = sim.get("/api/v3/depth?symbol=BTCUSDT&limit=5").await;
    let ask = hundredths(&snapshot["asks"][0]).unwrap();
    let crossed = client.next(DEPTH, |diff| hundredths(&diff["b"][0]).is_some_and(|bid| bid > ask * 1005 / 1000)).await;
    let snapshot = sim.get("/api/v3/depth?symbol=BTCUSDT&limit=5000").await;
    assert!(!snapshot["bids"].as_array().unwrap().contains(&crossed["b"][0]));
    sim.stop().await;
}

#[tokio::test]
async fn silence_loses_what_would_have_been_sent() {
    let (sim, mut client) = with_depth().await;
    let before = int(&client.next(DEPTH, |_| true).await["E"]);
    assert_eq!(sim.fault(json!({ "fault": "silence", "ms": 700, "symbol": "BTCUSDT" })).await, 200);
    let (mut btc, mut eth) = (vec![before], 0);
    while btc.last().is_some_and(|&last| last < before + 1000) {
        let frame = client.json().await;
        if frame["stream"] == DEPTH { btc.push(int(&frame["data"]["E"])) } else { eth += 1 }
    }
    let longest = btc.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(longest >= Some(700), "{btc:?}");
    assert!(eth > 4, "the other symbol went on");
    sim.stop().await;
}

#[tokio::test]
async fn connections_end_as_asked() {
    let (sim, mut client) = with_depth().await;
    assert_eq!(sim.fault(json!({ "fault": "close", "code": 1012, "reason": "later" })).await, 200);
    assert_eq!(client.end().await, Ended::Closed(1012, "later".into()));
    let mut client = sim.connect("/ws/btcusdt@trade").await;
    client.text().await.unwrap();
    assert_eq!(sim.fault(json!({ "fault": "cut" })).await, 200);
    assert_eq!(client.end().await, Ended::Cut);
    sim.stop().await;
}

#[tokio::test]
async fn frames_can_be_put_in() {
    let (sim, mut combined) = with_depth().await;
    let mut raw = sim.connect("/ws/btcusdt@trade").await;
    raw.text().await.unwrap();
    assert_eq!(sim.fault(json!({ "fault": "bad_frame", "text": "{\"stream\":" })).await, 200);
    while combined.text().await.unwrap() != "{\"stream\":" {}
    while raw.text().await.unwrap() != "{\"stream\":" {}
    assert_eq!(sim.fault(json!({ "fault": "shutdown" })).await, 200);
    combined.next("!serverShutdown", |data| data["e"] == "serverShutdown").await;
    while raw.json().await["e"] != "serverShutdown" {}
    sim.stop().await;
}

#[tokio::test]
async fn rest_fails_as_often_as_asked() {
    let (sim, _client) = with_depth().await;
    for (status, code, retries) in [(429, -1003, true), (418, -1003, true), (500, -1000, false)] {
        assert_eq!(sim.fault(json!({ "fault": "rest_status", "status": status, "times": 2 })).await, 200);
        for _ in 0..2 {
            let response = sim.response("/api/v3/time").await;
            assert_eq!(response.status(), status);
            assert_eq!(response.headers().contains_key("retry-after"), retries);
            let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
            assert_eq!(body["code"], code);
        }
        sim.get("/api/v3/time").await;
    }
    sim.stop().await;
}

#[tokio::test]
async fn faults_that_cannot_be_are_refused() {
    let (sim, _client) = with_depth().await;
    for fault in [
        json!({ "fault": "drop_diff", "symbol": "NOSUCH" }),
        json!({ "fault": "drop_diff" }),
        json!({ "fault": "no_such_fault" }),
        json!({ "fault": "cut", "more": 1 }),
        json!({ "fault": "close", "code": 1006 }),
        json!({ "fault": "close", "code": 1000, "reason": "x".repeat(124) }),
        json!({ "fault": "rest_status", "status": 200, "times": 1 }),
        json!({ "fault": "reorder", "symbol": "NOSUCH" }),
        json!({ "fault": "new_symbols", "count": 100_000 }),
    ] {
        assert_eq!(sim.fault(fault.clone()).await, 400, "{fault}");
    }
    sim.stop().await;
}

#[tokio::test]
async fn diffs_are_swapped_and_numbered_wrong() {
    let (sim, mut client) = with_depth().await;
    let last = int(&client.next(DEPTH, |_| true).await["u"]);
    assert_eq!(sim.fault(json!({ "fault": "reorder", "symbol": "BTCUSDT" })).await, 200);
    assert!(first_break(&mut client, last).await > 0, "the later one comes first");
    let last = int(&client.next(DEPTH, |_| true).await["u"]);
    assert_eq!(sim.fault(json!({ "fault": "wrong_sequence", "symbol": "BTCUSDT" })).await, 200);
    // The one that was late may still be ahead.
    while first_break(&mut client, last).await < 100_000 {}
    sim.stop().await;
}

#[tokio::test]
async fn delay_and_freeze_keep_what_silence_loses() {
    let (sim, mut client) = with_depth().await;
    let mut last = int(&client.next(DEPTH, |_| true).await["u"]);
    assert_eq!(sim.fault(json!({ "fault": "delay", "ms": 1_000, "symbol": "BTCUSDT" })).await, 200);
    let started = std::time::Instant::now();
    for _ in 0..12 {
        let diff = client.next(DEPTH, |_| true).await;
        assert_eq!(int(&diff["U"]), last + 1, "in order and whole");
        last = int(&diff["u"]);
    }
    assert!(started.elapsed() >= Duration::from_millis(800));
    assert_eq!(sim.fault(json!({ "fault": "freeze", "ms": 1_000 })).await, 200);
    let started = std::time::Instant::now();
    sim.get("/api/v3/ping").await;
    assert!(started.elapsed() >= Duration::from_millis(900), "REST stands still too");
    assert_eq!(int(&client.next(DEPTH, |_| true).await["U"]), last + 1, "nothing was lost");
    sim.stop().await;
}

#[tokio::test]
async fn half_a_frame_ends_every_connection() {
    let (sim, mut client) = with_depth().await;
    assert_eq!(sim.fault(json!({ "fault": "half_frame" })).await, 200);
    assert_eq!(client.end().await, Ended::Cut);
    sim.stop().await;
}

#[tokio::test]
async fn a_stream_stops_until_it_is_asked_for_again() {
    let (sim, mut client) = with_depth().await;
    assert_eq!(sim.fault(json!({ "fault": "stall", "stream": DEPTH })).await, 200);
    // What was on its way may still come; then only the other stream does.
    let mut others = 0;
    while others < 10 {
        others = if client.json().await["stream"] == DEPTH { 0 } else { others + 1 };
    }
    client.send(&format!(r#"{{"method":"UNSUBSCRIBE","params":["{DEPTH}"],"id":1}}"#)).await;
    client.send(&format!(r#"{{"method":"SUBSCRIBE","params":["{DEPTH}"],"id":2}}"#)).await;
    client.next(DEPTH, |_| true).await;
    sim.stop().await;
}

#[tokio::test]
async fn the_clock_can_be_wrong_and_replies_can_drip() {
    let (sim, mut client) = with_depth().await;
    let time = async || int(&sim.get("/api/v3/time").await["serverTime"]);
    let before = time().await;
    assert_eq!(sim.fault(json!({ "fault": "clock_skew", "ms": -3_600_000 })).await, 200);
    assert!(time().await < before - 3_500_000);
    client.next(DEPTH, |diff| int(&diff["E"]) < before - 3_500_000).await;
    assert_eq!(sim.fault(json!({ "fault": "slow_loris", "times": 1 })).await, 200);
    let started = std::time::Instant::now();
    sim.get("/api/v3/time").await;
    assert!(started.elapsed() > Duration::from_secs(1), "byte by byte");
    sim.stop().await;
}

#[tokio::test]
async fn symbols_come_and_go() {
    let (sim, _client) = with_depth().await;
    let status = async |symbol: &str| {
        let info = sim.get("/api/v3/exchangeInfo").await;
        let found = info["symbols"].as_array().unwrap().iter().find(|listed| listed["symbol"] == symbol).cloned();
        (info["symbols"].as_array().unwrap().len(), found.map(|listed| listed["status"].clone()))
    };
    assert_eq!(sim.fault(json!({ "fault": "new_symbols", "count": 1_000 })).await, 200);
    assert_eq!(status("NEW1002USDT").await, (1_003, Some("TRADING".into())));
    let mut client = sim.connect("/stream?streams=new3usdt@depth/btcusdt@trade").await;
    client.next("new3usdt@depth", |_| true).await;
    assert_eq!(sim.fault(json!({ "fault": "delist", "symbol": "BTCUSDT" })).await, 200);
    assert_eq!(status("BTCUSDT").await, (1_002, None));
    sim.stop().await;
}
