//! Clients that do not read: what they are told, and what they cost the gateway and the others.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use akis_testkit::{LiveClient, wait_until};
use serde_json::{Value, json};

use crate::system::{Door, Options, SOON, System, token};

/// One channel of each kind that has its own way with slow clients.
const CHANNELS: [&str; 3] = ["flood:a:ticker", "flood:a:trades", "flood:a:job"];
const PROBE: &str = "probe:a";

/// Clients of each channel that do not read.
const SLOW: usize = 3;

/// One request of a flood, and how many there are for each channel: together more than a gateway remembers of a channel.
const BATCH: usize = 20;
const BATCHES: usize = 26;
const EVENT_BYTES: usize = 16 << 10;

/// What a gateway may grow by for clients that do not read: their queues, what is being written to them, and slack.
/// A flood is twice as much.
const GROWTH_BYTES: u64 = 12 << 20;

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// Publishes to a channel, and a probe with the present time behind each request.
async fn flood(door: &Door, token: &str, channel: &str) {
    let item = json!({ "channel": channel, "event": "e", "data": { "pad": "x".repeat(EVENT_BYTES) } });
    let batch = Value::Array(vec![item; BATCH]);
    for _ in 0..BATCHES {
        let (status, answer) = door.publish(token, &batch).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        let probe = json!({ "channel": PROBE, "event": "probe", "data": { "sent_us": now_us() } });
        assert_eq!(door.publish(token, &probe).await.unwrap().0, 200);
    }
}

/// Floods a channel while a client reads that has nothing to do with it: adds how late its events came.
async fn probe(door: &Door, token: &str, channel: &str, reader: &mut LiveClient, latencies: &mut Vec<Duration>) {
    let reading = async {
        for _ in 0..BATCHES {
            let probe = reader.find(SOON, |envelope| envelope.event() == "probe").await.unwrap();
            let late_us = now_us() - probe.data()["sent_us"].as_u64().unwrap();
            latencies.push(Duration::from_micros(late_us));
        }
    };
    tokio::join!(reading, flood(door, token, channel));
}

fn describe(mut latencies: Vec<Duration>) -> String {
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    format!("p50 {:?}, p90 {:?}, p99 {:?}", at(50), at(90), at(99))
}

/// Resident memory of a process.
fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

async fn subscribed(door: &Door, token: &str, channel: &str) -> LiveClient {
    let mut client = door.connect(token).await.unwrap();
    client
        .send(&json!({ "type": "subscribe", "channels": [{ "channel": channel, "snapshot": false }] }))
        .await
        .unwrap();
    client.next_event("subscribed", SOON).await.unwrap();
    client
}

/// Reads what is left for a client that was slow, up to `last`: it is told of everything that it misses.
async fn assert_told(client: &mut LiveClient, last: u64, reason: &str) {
    let channel = client.received().last().unwrap().channel().to_owned();
    let mut position = client.position(&channel).unwrap();
    let mut drops = 0;
    while position < last {
        let envelope = client.find(SOON, |envelope| envelope.channel() == channel).await.unwrap();
        match envelope.event() {
            "backpressure_drop" => {
                assert_eq!(
                    (&envelope.data()["from"], &envelope.data()["reason"]),
                    (&json!(position + 1), &json!(reason))
                );
                drops += 1;
            }
            "term" => assert_eq!(envelope.data()["previous"], position),
            _ => assert_eq!(envelope.seq(), position + 1, "{channel}: {reason}"),
        }
        position = envelope.seq();
    }
    assert!(drops > 0, "{channel} was never too much");
}

#[tokio::test]
async fn clients_that_do_not_read_are_told_or_closed_and_cost_little() {
    let config = "[gateway.limits]\nqueue_bytes = \"256KiB\"\npublish_per_second = 100000\n".to_owned();
    let system = System::start(Options { rate: 20, config, ..Options::default() }).await;
    let token = token("a", &["*"], &["flood:*", "probe:*"]);
    let gateway = &system.gateways[0];
    let door = &gateway.door;
    let mut reader = subscribed(door, &token, PROBE).await;
    // The first flood fills what the gateway remembers of each channel, clients or not.
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for channel in CHANNELS {
        probe(door, &token, channel, &mut reader, &mut alone).await;
    }
    let resident_before = resident_bytes(gateway.role.process.id());

    let mut never_read = Vec::new();
    for channel in CHANNELS {
        let mut slow = subscribed(door, &token, channel).await;
        for _ in 1..SLOW {
            never_read.push(subscribed(door, &token, channel).await);
        }
        probe(door, &token, channel, &mut reader, &mut beside).await;
        let last = system.history(channel).await.into_keys().last().unwrap();
        match channel.rsplit(':').next() {
            Some("ticker") => assert_told(&mut slow, last, "conflated").await,
            Some("trades") => assert_told(&mut slow, last, "dropped").await,
            // An application's events are never thinned: whoever does not take them has to come back for them.
            _ => assert_closed(&mut slow).await,
        }
    }
    let grown = resident_bytes(gateway.role.process.id()).saturating_sub(resident_before);
    println!("latency alone: {}; beside {} that do not read: {}", describe(alone), 3 * SLOW, describe(beside));
    println!("resident: {} KiB before, {} KiB more after", resident_before >> 10, grown >> 10);
    assert!(grown < GROWTH_BYTES, "the gateway has grown by {grown} bytes");

    let others = 1.0 + never_read.len() as f64;
    wait_until(SOON, "whoever never reads is closed, whatever the kind", async || {
        gateway.role.metric("akis_gateway_closes_total").await >= others
    })
    .await
    .unwrap();
    for client in &mut never_read {
        assert_closed(client).await;
    }
    assert_eq!(reader.close_code(), None);
}

/// Reads to the end. A machine that is busy may notice first that nothing came from the client either.
async fn assert_closed(client: &mut LiveClient) {
    let code = client.closed(SOON).await.unwrap();
    assert!([4413, 4408, 1006].contains(&code), "closed with {code}");
}
