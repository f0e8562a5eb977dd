//! A client that does not read, beside one that does.

use std::time::{Duration, Instant};

use akis_testkit::wait_until;
use serde_json::json;

use crate::bench::{Bench, SOON, next, subscribe};

/// More than a socket takes on its own: 600 events of 16 KiB.
const EVENTS: usize = 600;

async fn flood(bench: &Bench, channel: &str) -> u64 {
    let pad = "x".repeat(16 << 10);
    let mut last = 0;
    for n in 0..EVENTS {
        last = bench.append_data(channel, &json!({ "n": n, "pad": pad })).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    last
}

#[tokio::test]
async fn a_slow_client_is_told_what_it_missed_and_others_keep_up() {
    let bench = Bench::start().await;
    for (channel, reason) in [("a:b:ticker", "conflated"), ("a:b:trades", "dropped")] {
        let mut slow = bench.client().await;
        let mut quick = bench.client().await;
        let begun = subscribe(&mut slow, json!(channel)).await.seq();
        subscribe(&mut quick, json!(channel)).await;
        let reading = async {
            let mut events = 0;
            while events < EVENTS {
                let envelope = next(&mut quick).await;
                assert_ne!(envelope.event(), "backpressure_drop", "{envelope:?}");
                events += usize::from(envelope.event() == "test_event");
            }
        };
        let (last, ()) = tokio::join!(flood(&bench, channel), reading);
        let mut position = begun;
        let mut missed = 0;
        while position < last {
            let envelope = next(&mut slow).await;
            match envelope.event() {
                "test_event" => assert_eq!(envelope.seq(), position + 1),
                "backpressure_drop" => {
                    assert_eq!(envelope.data()["from"], position + 1);
                    assert_eq!(envelope.data()["reason"], reason);
                    missed += envelope.data()["count"].as_u64().unwrap();
                }
                "term" => assert_eq!(envelope.data()["previous"], position),
                other => panic!("unexpected {other}"),
            }
            position = envelope.seq();
        }
        assert!(missed > 0, "{channel} was never too much");
    }
}

#[tokio::test]
async fn a_slow_client_of_an_application_is_closed() {
    let bench = Bench::start().await;
    let mut slow = bench.client().await;
    subscribe(&mut slow, json!("job:1")).await;
    let events = vec![json!({ "pad": "x".repeat(16 << 10) }); 20];
    // It reads as soon as it is closed, because the code has only a few seconds to leave.
    let is_closed = async || {
        bench.append_all("job:1", &events).await;
        bench.closes(4413) == 1.0
    };
    wait_until(SOON, "it is closed", is_closed).await.unwrap();
    assert_eq!(slow.closed(SOON).await.unwrap(), 4413);
}

#[tokio::test]
async fn what_waits_for_all_clients_together_is_bounded() {
    const TOTAL: usize = 2 << 20;
    let bench = Bench::with(|config| config.limits.queue_bytes_total = TOTAL).await;
    let mut slow = Vec::new();
    for _ in 0..12 {
        let mut client = bench.client().await;
        subscribe(&mut client, json!("a:b:trades")).await;
        slow.push(client);
    }
    let mut quick = bench.client().await;
    subscribe(&mut quick, json!("a:b:trades")).await;
    let mut most = 0.0;
    let reading = async {
        let mut events = 0;
        while events < EVENTS {
            let envelope = next(&mut quick).await;
            assert_ne!(envelope.event(), "backpressure_drop", "{envelope:?}");
            events += usize::from(envelope.event() == "test_event");
            most = bench.metric("queued_bytes", |_| true).max(most);
        }
    };
    let (_, ()) = tokio::join!(flood(&bench, "a:b:trades"), reading);
    let closed = bench.metric("closes_total", |code| code == "4413");
    assert!(closed >= 6.0, "12 clients with 1 MiB each do not fit: {closed}");
    // What one turn of the shards brings is counted before the slowest give way.
    assert!(most < 1.5 * TOTAL as f64, "{most} bytes waited");
    wait_until(SOON, "connections are counted by state", async || {
        bench.metric("connection_states", |state| state == "open" || state == "blocked") == 13.0 - closed
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_burst_is_no_reason_to_close_a_client_that_reads() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    subscribe(&mut client, json!("job:1")).await;
    let data: Vec<_> = (0..1000).map(|n| json!({ "n": n })).collect();
    let last = bench.append_all("job:1", &data).await;
    while next(&mut client).await.seq() < last {}
}

#[tokio::test]
async fn many_short_connections_leave_nothing_behind() {
    let bench = Bench::with(|config| config.limits.connections_per_subject = 100).await;
    let started = Instant::now();
    for _ in 0..50 {
        let mut client = bench.client().await;
        subscribe(&mut client, json!("a:b")).await;
    }
    let last = bench.append("a:b", 1).await;
    let mut client = bench.client().await;
    subscribe(&mut client, json!("a:b")).await;
    assert_eq!(next(&mut client).await.seq(), last);
    assert!(started.elapsed() < SOON);
}
