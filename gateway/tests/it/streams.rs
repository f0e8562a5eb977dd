//! Events from the log to clients: live, resumed, and across the end of a replica.

use std::time::{Duration, Instant};

use akis_testkit::{ConnectError, Envelope, LiveClient};
use serde_json::json;

use crate::bench::{Bench, SOON, ask, next, now_ms, subscribe, token};

async fn event(client: &mut LiveClient) -> Envelope {
    client.next_event("test_event", SOON).await.unwrap()
}

#[tokio::test]
async fn live_events_follow_a_snapshot_without_a_hole() {
    let bench = Bench::start().await;
    let first = bench.append("a:b", 1).await;
    let mut client = bench.client().await;
    let told = subscribe(&mut client, json!("a:b")).await;
    assert_eq!(told.seq(), first - 1);
    assert_eq!(told.data()["replayed"], 1);
    assert_eq!(told.data()["oldest"], first);
    assert_eq!(told.data().get("recovered"), None);
    assert_eq!(event(&mut client).await.seq(), first);
    for n in 2..50 {
        bench.append("a:b", n).await;
    }
    for n in 1..49 {
        let live = event(&mut client).await;
        assert_eq!(live.seq(), first + n);
        assert_eq!(live.data()["n"], n + 1);
    }
}

#[tokio::test]
async fn a_channel_that_begins_tells_its_term() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    assert_eq!(subscribe(&mut client, json!("a:new")).await.seq(), 0);
    let first = bench.append("a:new", 1).await;
    let term = next(&mut client).await;
    assert_eq!((term.event(), term.seq()), ("term", first - 1));
    assert_eq!(term.data()["previous"], 0);
    assert_eq!(next(&mut client).await.seq(), first);
}

#[tokio::test]
async fn a_client_resumes_by_position_and_by_time_and_misses_nothing() {
    let bench = Bench::start().await;
    let data: Vec<_> = (0..2500).map(|n| json!({ "n": n })).collect();
    let last = bench.append_all("a:b", &data).await;
    let first = last - 2499;
    let mut client = bench.client().await;
    let told = subscribe(&mut client, json!({ "channel": "a:b", "after": first + 9 })).await;
    assert_eq!((told.seq(), &told.data()["recovered"]), (first + 9, &json!(true)));
    assert_eq!(told.data()["replayed"], 2490);
    let after_last = bench.append("a:b", 2500).await;
    for seq in first + 10..=after_last {
        assert_eq!(next(&mut client).await.seq(), seq);
    }
    let mut other = bench.client().await;
    let told = subscribe(&mut other, json!({ "channel": "a:b", "since": now_ms() + 60_000 })).await;
    assert_eq!(told.data()["replayed"], 0);
    ask(&mut other, json!({ "type": "unsubscribe", "channels": ["a:b"] })).await;
    next(&mut other).await;
    subscribe(&mut other, json!({ "channel": "a:b", "since": 0 })).await;
    assert_eq!(event(&mut other).await.seq(), first);
}

#[tokio::test]
async fn clients_that_come_while_events_flow_see_each_once() {
    let bench = Bench::start().await;
    let publishing = async {
        for n in 0..400 {
            bench.append("a:b", n).await;
            tokio::task::yield_now().await;
        }
    };
    let watching = async {
        let mut seen = Vec::new();
        for round in 0..8 {
            let mut client = bench.client().await;
            let entry = match seen.last() {
                None => json!({ "channel": "a:b", "after": 0 }),
                Some(last) => json!({ "channel": "a:b", "after": last }),
            };
            let told = subscribe(&mut client, entry).await;
            assert_eq!(told.data()["recovered"], round > 0 && !seen.is_empty());
            for _ in 0..40 {
                seen.push(event(&mut client).await.seq());
            }
            assert!(client.received().iter().all(|e| e.event() != "gap"));
        }
        seen
    };
    let ((), seen) = tokio::join!(publishing, watching);
    assert_eq!(seen.len(), 320);
    assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 1), "dense over all connections");
}

#[tokio::test]
async fn an_interval_is_granted_and_kept() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    let told = subscribe(&mut client, json!({ "channel": "a:b:ticker", "interval": 300 })).await;
    assert_eq!(told.data()["interval"], 300);
    let started = Instant::now();
    let mut last = 0;
    for n in 0..100 {
        last = bench.append("a:b:ticker", n).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut count = 0;
    while event(&mut client).await.seq() < last {
        count += 1;
    }
    let most = started.elapsed().as_millis() / 300 + 1;
    assert!(count <= most, "{count} events in {:?}", started.elapsed());
}

#[tokio::test]
async fn a_drain_sends_everybody_away_and_refuses_newcomers() {
    let bench = Bench::with(|config| config.drain = Duration::from_secs(2)).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = bench.client().await;
        subscribe(&mut client, json!("a:b")).await;
        clients.push(client);
    }
    let started = Instant::now();
    bench.drain.cancel();
    let mut moments = Vec::new();
    for client in &mut clients {
        let draining = client.next_event("draining", SOON).await.unwrap();
        assert_eq!(draining.data()["deadlineMs"], 2000);
        moments.push(draining.data()["reconnectAfterMs"].as_u64().unwrap());
    }
    moments.sort_unstable();
    moments.dedup();
    assert!(moments.len() > 5 && moments.iter().all(|at| *at <= 2000), "{moments:?}");
    assert_eq!(bench.gateway.readiness(), Err("draining".to_owned()));
    let refused = LiveClient::connect(&bench.url(), Some(&token(json!({})))).await;
    assert!(matches!(refused.err(), Some(ConnectError::Refused { status: 503, .. })));
    let last = bench.append("a:b", 1).await;
    for client in &mut clients {
        assert_eq!(event(client).await.seq(), last, "what is published meanwhile still comes");
        assert_eq!(client.closed(SOON).await.unwrap(), 1001);
    }
    bench.served.await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_stop_ends_at_once() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    let started = Instant::now();
    bench.stop.cancel();
    bench.served.await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(client.closed(SOON).await.unwrap(), 1001);
}

#[tokio::test]
async fn those_who_share_an_interval_are_given_the_same_events() {
    let bench = Bench::start().await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = bench.client().await;
        subscribe(&mut client, json!({ "channel": "a:b:ticker", "interval": 300 })).await;
        clients.push(client);
    }
    let mut last = 0;
    for n in 0..200 {
        last = bench.append("a:b:ticker", n).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut given = std::collections::BTreeMap::<u64, usize>::new();
    for client in &mut clients {
        let mut position = 0;
        while position < last {
            let seq = event(client).await.seq();
            assert!(seq > position, "positions rise");
            position = seq;
            *given.entry(seq).or_default() += 1;
        }
    }
    // A shard for each core keeps a group of its own.
    let shards = std::thread::available_parallelism().map_or(1, usize::from);
    let events = given.len();
    let deliveries: usize = given.values().sum();
    assert!(events * clients.len() <= deliveries * shards, "{events} events for {deliveries} deliveries");
    assert_eq!(given.get(&last), Some(&clients.len()), "the last one reaches everybody");
}

#[tokio::test]
async fn every_position_that_was_told_can_be_resumed_from() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    subscribe(&mut client, json!("a:b")).await;
    let first = bench.append("a:b", 1).await;
    let term = next(&mut client).await;
    assert_eq!(term.event(), "term");
    let last = bench.append("a:b", 2).await;
    let told = subscribe(&mut bench.client().await, json!("a:b")).await;
    let oldest = told.data()["oldest"].as_u64().unwrap();
    for (after, why) in [
        (oldest - 1, "below the oldest that is kept"),
        (term.seq(), "of a term"),
        (told.seq(), "of subscribed"),
        (first, "of an event"),
        (last, "of the last event"),
    ] {
        let mut client = bench.client().await;
        let resumed = subscribe(&mut client, json!({ "channel": "a:b", "after": after })).await;
        assert_eq!((resumed.seq(), &resumed.data()["recovered"]), (after, &json!(true)), "{why}");
        assert_eq!(resumed.data()["replayed"], last - after, "{why}");
        for seq in after + 1..=last {
            assert_eq!(event(&mut client).await.seq(), seq, "{why}");
        }
    }
}

#[tokio::test]
async fn a_time_is_resumed_from_with_the_event_of_that_very_moment() {
    let bench = Bench::start().await;
    let publish =
        json!([1000, 2000, 3000].map(|ts| json!({ "channel": "a:b", "event": "test_event", "data": {}, "ts": ts })));
    let request = reqwest::Client::new().post(bench.http("/v1/publish")).bearer_auth(token(json!({})));
    let request = request.header("content-type", "application/json").body(publish.to_string());
    assert_eq!(request.send().await.unwrap().status(), 200);
    for (since, expected) in [(0, &[1000, 2000, 3000][..]), (2000, &[2000, 3000]), (2001, &[3000]), (3001, &[])] {
        let mut client = bench.client().await;
        let told = subscribe(&mut client, json!({ "channel": "a:b", "since": since })).await;
        assert_eq!(told.data()["replayed"], expected.len(), "{since}");
        for ts in expected {
            assert_eq!(event(&mut client).await.0["ts"], *ts, "{since}");
        }
    }
}

/// Section 1 of the protocol, for everything that a client of a busy life is told.
#[tokio::test]
async fn every_message_has_the_shape_of_an_envelope() {
    let bench = Bench::with(|config| {
        config.drain = Duration::from_secs(1);
        config.heartbeat = Duration::from_millis(100);
        config.limits.messages_per_second = 1;
        config.limits.burst = 5;
    })
    .await;
    let short = token(json!({ "channels": ["a:*"], "exp": now_ms() / 1000 + 30 }));
    let mut client = bench.client_with(&short).await;
    subscribe(&mut client, json!("a:b")).await;
    bench.append("a:b", 1).await;
    event(&mut client).await;
    ask(&mut client, json!({ "type": "subscribe", "channels": ["x:y", "no\"pe\n", "a:c"] })).await;
    ask(&mut client, json!({ "type": "unsubscribe", "channels": ["a:c"] })).await;
    ask(&mut client, json!({ "type": "auth", "token": token(json!({ "channels": ["b:*"] })) })).await;
    for id in 0..3 {
        ask(&mut client, json!({ "type": "ping", "id": id })).await;
    }
    client.next_event("heartbeat", SOON).await.unwrap();
    bench.drain.cancel();
    assert_eq!(client.closed(SOON).await.unwrap(), 1001);
    let mut seen = std::collections::BTreeSet::new();
    for Envelope(told) in client.received() {
        let (event, ok) = (told["event"].as_str().unwrap(), told["ok"].as_bool().unwrap());
        seen.insert(event.to_owned());
        assert_eq!(told["v"], 1, "{told}");
        assert!(told["channel"].is_string() && told["data"].is_object(), "{told}");
        assert!(told["ts"].as_i64().unwrap() > 1_700_000_000_000, "{told}");
        assert_eq!(told.get("errorCode").is_some_and(|code| code.is_string()), !ok, "{told}");
        assert_eq!(told.as_object().unwrap().len(), if ok { 7 } else { 8 }, "{told}");
        let has_position = told["channel"] != "system" && !matches!(event, "unsubscribed" | "subscribe_error");
        let seq = told["seq"].as_u64().unwrap();
        assert!(seq < 1 << 53 && (has_position || seq == 0), "{told}");
    }
    let own =
        ["welcome", "subscribed", "unsubscribed", "subscribe_error", "term", "heartbeat", "pong", "token_expiring"];
    for event in own.into_iter().chain(["authenticated", "draining", "error"]) {
        assert!(seen.contains(event), "{event} is missing in {seen:?}");
    }
}
