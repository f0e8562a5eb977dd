//! Each fault, as a client meets it.

use super::*;

async fn with_book() -> (Sim, Client) {
    let sim = Sim::generated().await;
    let mut client = sim.connect().await;
    client.join("obdiff", "BTCTRY", true).await;
    client.next(431).await;
    (sim, client)
}

async fn number(client: &mut Client) -> i64 {
    client.next(432).await["CS"].as_i64().unwrap()
}

/// The differences between the numbers of the next frames, until one is not 1.
async fn first_break(client: &mut Client, mut last: i64) -> i64 {
    loop {
        let next = number(client).await;
        if next != last + 1 {
            return next - last;
        }
        last = next;
    }
}

#[tokio::test]
async fn differences_are_dropped_doubled_swapped_and_numbered_wrong() {
    let (sim, mut client) = with_book().await;
    for (fault, step) in [("drop_diff", 2), ("duplicate", 0), ("reorder", 2), ("wrong_sequence", 8)] {
        // One may still be late from the fault before.
        number(&mut client).await;
        let last = number(&mut client).await;
        assert_eq!(sim.fault(json!({"fault": fault, "symbol": "BTCTRY"})).await, 200);
        assert_eq!(first_break(&mut client, last).await, step, "{fault}");
    }
    assert_eq!(sim.fault(json!({"fault": "crossed_book", "symbol": "BTCTRY"})).await, 200);
    let price = |level: &Value| level["P"].as_str().unwrap().parse::<i64>().unwrap();
    let bid = loop {
        let difference = client.next(432).await;
        let best = difference["BO"].as_array().unwrap().iter().filter(|level| level["CP"] == 1).map(price).max();
        if let Some(best) = best.filter(|best| *best > 0) {
            let (_, book) = sim.get("/api/v2/orderbook?pairSymbol=BTCTRY&limit=1").await;
            let ask: i64 = book["data"]["asks"][0][0].as_str().unwrap().parse().unwrap();
            if best >= ask {
                break best;
            }
        }
    };
    assert!(bid > 0);
    sim.stop().await;
}

#[tokio::test]
async fn silence_loses_and_delay_keeps() {
    let (sim, mut client) = with_book().await;
    let last = number(&mut client).await;
    assert_eq!(sim.fault(json!({"fault": "silence", "ms": 2_000, "symbol": "BTCTRY"})).await, 200);
    assert!(first_break(&mut client, last).await > 1);
    let last = number(&mut client).await;
    assert_eq!(sim.fault(json!({"fault": "delay", "ms": 2_000, "symbol": null})).await, 200);
    for step in 1..6 {
        assert_eq!(number(&mut client).await, last + step, "in order and whole");
    }
    let before = std::time::Instant::now();
    assert_eq!(sim.fault(json!({"fault": "freeze", "ms": 1_000})).await, 200);
    assert_eq!(sim.get("/api/v2/server/ping").await.0, 200);
    assert!(before.elapsed() >= Duration::from_millis(900), "REST stands still too");
    assert_eq!(number(&mut client).await, last + 6, "nothing was lost");
    sim.stop().await;
}

#[tokio::test]
async fn connections_end_as_asked() {
    for (fault, code) in [
        (json!({"fault": "close", "code": 1012, "reason": "x"}), 1012),
        (json!({"fault": "cut"}), 1006),
        (json!({"fault": "half_frame"}), 1006),
    ] {
        let (sim, mut client) = with_book().await;
        assert_eq!(sim.fault(fault).await, 200);
        let ended = loop {
            if let Err(ended) = client.text().await {
                break ended;
            }
        };
        assert_eq!(ended, code);
        sim.stop().await;
    }
}

#[tokio::test]
async fn rest_fails_drips_and_tells_another_time() {
    let sim = Sim::generated().await;
    assert_eq!(sim.fault(json!({"fault": "rest_status", "status": 429, "times": 1})).await, 200);
    let refused = sim.http.get(format!("http://{}/api/v2/server/time", sim.address)).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers().contains_key("retry-after")), (429, true));
    let time = async || sim.get("/api/v2/server/time").await.1["serverTime"].as_i64().unwrap();
    let before = time().await;
    assert_eq!(sim.fault(json!({"fault": "clock_skew", "ms": -3_600_000})).await, 200);
    assert!(time().await < before - 3_500_000);
    assert_eq!(sim.fault(json!({"fault": "new_symbols", "count": 1_000})).await, 200);
    let (_, info) = sim.get("/api/v2/server/exchangeinfo").await;
    assert_eq!(info["data"]["symbols"].as_array().map(Vec::len), Some(1_002));
    assert_eq!(sim.fault(json!({"fault": "slow_loris", "times": 1})).await, 200);
    let started = std::time::Instant::now();
    sim.get("/api/v2/server/ping").await;
    assert!(started.elapsed() > Duration::from_secs(1), "byte by byte");
    sim.stop().await;
}

#[tokio::test]
async fn faults_that_cannot_be_are_refused() {
    let sim = Sim::generated().await;
    for fault in [
        json!({"fault": "drop_diff", "symbol": "NOPE"}),
        json!({"fault": "close", "code": 1006}),
        json!({"fault": "close", "code": 1000, "reason": "x".repeat(124)}),
        json!({"fault": "rest_status", "status": 200, "times": 1}),
        json!({"fault": "new_symbols", "count": 100_000}),
        json!({"fault": "unheard_of"}),
    ] {
        assert_eq!(sim.fault(fault.clone()).await, 400, "{fault}");
    }
    sim.stop().await;
}
