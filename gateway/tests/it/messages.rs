//! What clients say, good and bad.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::bench::{Bench, SOON, ask, next, subscribe, token};
use crate::raw::{frame, good_upgrade, say};

#[tokio::test]
async fn bad_messages_are_answered_counted_and_closed_and_nobody_else_notices() {
    let bench = Bench::with(|config| config.limits.bad_requests = 6).await;
    let mut other = bench.client().await;
    subscribe(&mut other, json!("a:b")).await;
    let mut client = bench.client().await;
    let many: Vec<String> = (0..201).map(|n| format!("a:{n}")).collect();
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    for (frame, code) in [
        (Message::text("not json"), "BAD_REQUEST"),
        (Message::text(r#"{"type":"nope"}"#), "UNKNOWN_TYPE"),
        (Message::text(r#"{"type":"subscribe","channels":7}"#), "BAD_REQUEST"),
        (Message::text(json!({ "type": "subscribe", "channels": many }).to_string()), "BAD_REQUEST"),
        (Message::binary(vec![1, 2, 3]), "BAD_REQUEST"),
        (Message::text(deep), "BAD_REQUEST"),
    ] {
        client.send_raw(frame).await.unwrap();
        let error = next(&mut client).await;
        assert_eq!((error.event(), error.error_code()), ("error", code));
    }
    assert_eq!(client.closed(SOON).await.unwrap(), 4400);
    bench.append("a:b", 1).await;
    let event = next(&mut other).await;
    assert!(matches!(event.event(), "term" | "test_event"));
}

#[tokio::test]
async fn entries_are_refused_alone_and_in_order() {
    let bench = Bench::with(|config| config.limits.channels = 3).await;
    let mut client = bench.client_with(&token(json!({ "channels": ["a:*"], "roles": ["desk"] }))).await;
    let channels =
        json!(["a:1", "b:1", "a:*", "system", { "channel": "a:2", "after": -1 }, "desk:x", "a:3", "a:4", "a:1"]);
    ask(&mut client, json!({ "type": "subscribe", "id": "q", "channels": channels })).await;
    for (channel, expected) in [
        ("a:1", ""),
        ("b:1", "CHANNEL_FORBIDDEN"),
        ("a:*", "BAD_CHANNEL"),
        ("system", "BAD_CHANNEL"),
        ("a:2", "BAD_REQUEST"),
        ("desk:x", ""),
        ("a:3", ""),
        ("a:4", "CHANNEL_LIMIT"),
    ] {
        let answer = next(&mut client).await;
        assert_eq!((answer.channel(), answer.error_code()), (channel, expected));
        assert_eq!(answer.data()["id"], "q");
    }
}

#[tokio::test]
async fn positions_that_cannot_be_resumed_from_are_never_recovered() {
    let bench = Bench::start().await;
    let last = bench.append("a:b", 1).await;
    let elsewhere = bench.append("a:c", 1).await;
    let mut client = bench.client().await;
    for after in [0, 1, elsewhere + 1, last + 1000, (1 << 53) - 1] {
        let told = subscribe(&mut client, json!({ "channel": "a:b", "after": after })).await;
        assert_eq!(told.data()["recovered"], false, "{after}");
        assert_eq!(next(&mut client).await.seq(), last, "the latest event comes all the same");
        ask(&mut client, json!({ "type": "unsubscribe", "channels": ["a:b"] })).await;
        assert_eq!(next(&mut client).await.event(), "unsubscribed");
    }
    for after in [json!(-1), json!(1_u64 << 53), json!("5"), json!(1.5)] {
        ask(&mut client, json!({ "type": "subscribe", "channels": [{ "channel": "a:b", "after": after }] })).await;
        let refused = next(&mut client).await;
        assert_eq!((refused.event(), refused.error_code()), ("subscribe_error", "BAD_REQUEST"));
    }
}

#[tokio::test]
async fn a_flood_is_limited_and_then_closed() {
    let bench = Bench::with(|config| {
        config.limits.messages_per_second = 1;
        config.limits.burst = 10;
    })
    .await;
    let mut client = bench.client().await;
    for id in 0..19 {
        ask(&mut client, json!({ "type": "ping", "id": id })).await;
    }
    for id in 0..19 {
        let answer = next(&mut client).await;
        assert_eq!(answer.event(), if id < 10 { "pong" } else { "error" });
        assert_eq!(answer.data()["id"], id);
        if id >= 10 {
            assert_eq!(answer.error_code(), "RATE_LIMITED");
            assert!(answer.data()["retryAfterMs"].as_u64().unwrap() > 0);
        }
    }
    client.send_raw(Message::Ping("x".into())).await.unwrap();
    assert_eq!(client.closed(SOON).await.unwrap(), 4429);
}

#[tokio::test]
async fn too_large_messages_close() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    client.send_raw(Message::text("x".repeat(64 * 1024 + 1))).await.unwrap();
    assert_eq!(client.closed(SOON).await.unwrap(), 1009);
    let mut client = bench.client().await;
    client.send_raw(Message::text("x".repeat(64 * 1024))).await.unwrap();
    assert_eq!(next(&mut client).await.error_code(), "BAD_REQUEST", "the limit itself is allowed");
    client.close().await.unwrap();
    assert_eq!(client.closed(SOON).await.unwrap(), 1000);
}

#[tokio::test]
async fn broken_framing_has_its_code() {
    let bench = Bench::start().await;
    let mut other = bench.client().await;
    for (bytes, code) in [
        (&[0x81, 0x01, b'x'][..], 1002),
        (&[0xC1, 0x80, 0, 0, 0, 0], 1002),
        (&[0x83, 0x80, 0, 0, 0, 0], 1002),
        (&[0x81, 0xFE, 0, 1, 0, 0, 0, 0, b'x'], 1002),
        // Control frames of 126 bytes.
        (&[0x89, 0xFE, 0, 126], 1002),
        (&[0x88, 0xFE, 0, 126], 1002),
        (&[0x09, 0x80, 0, 0, 0, 0], 1002),
        (&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xED], 1002),
        // 2^63 bytes are no length, and one less is too many.
        (&[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1002),
        (&[0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0], 1009),
        (&[0x81, 0x81, 0, 0, 0, 0, 0xFF], 1007),
        // The rest of the text does not have to come.
        (&[0x81, 0x8A, 0, 0, 0, 0, b'x', 0xFF], 1007),
        (b"GET / HTTP/1.1\r\n\r\n", 1002),
        (&[0x88, 0x80, 0, 0, 0, 0], 1000),
    ] {
        let before = bench.closes(code);
        // In one segment with the request: what was read before the upgrade must not be lost.
        let answered = say(bench.address, &[good_upgrade("").as_bytes(), bytes].concat()).await;
        assert_eq!(answered.code, Some(code), "{bytes:?}");
        assert_eq!(bench.closes(code), before + 1.0, "{bytes:?}");
    }
    ask(&mut other, json!({ "type": "ping" })).await;
    assert_eq!(next(&mut other).await.event(), "pong");
}

#[tokio::test]
async fn frames_are_packed_for_those_who_take_batches_and_nobody_else() {
    let bench = Bench::with(|config| config.limits.bad_requests = 1).await;
    let channels: Vec<String> = (0..50).map(|n| format!("a:{n}")).collect();
    let leave = json!({ "type": "unsubscribe", "channels": channels }).to_string();
    // What has been answered when a connection is closed is still said.
    let said = [frame(0x81, leave.as_bytes()), frame(0x81, b"nonsense")].concat();
    for (query, is_packed) in [("?batch=1", true), ("", false), ("?batch=0", false)] {
        let hello = good_upgrade("").replacen("GET /live", &format!("GET /live{query}"), 1);
        let answered = say(bench.address, &[hello.as_bytes(), &said].concat()).await;
        assert_eq!(answered.code, Some(4400), "{query}");
        let texts: Vec<Value> = answered.texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        assert_eq!(texts.iter().any(Value::is_array), is_packed, "{query}");
        let flat = texts.into_iter().flat_map(|text| match text {
            Value::Array(all) => all,
            one => vec![one],
        });
        let told: Vec<Value> = flat.filter(|envelope| envelope["event"] == "unsubscribed").collect();
        let names: Vec<_> = told.iter().map(|envelope| envelope["channel"].as_str().unwrap()).collect();
        assert_eq!(names, channels, "in order");
    }
}

#[tokio::test]
async fn heartbeats_come_without_being_asked_for() {
    let bench = Bench::with(|config| config.heartbeat = Duration::from_millis(50)).await;
    let mut client = bench.client().await;
    for _ in 0..2 {
        let beat = client.next_event("heartbeat", SOON).await.unwrap();
        assert!(beat.data()["tailAgeMs"].as_u64().unwrap() < 10_000);
    }
}

#[tokio::test]
async fn a_pattern_stands_for_the_channels_that_exist_where_the_server_allows_it() {
    let bench = Bench::with(|config| config.patterns = true).await;
    for name in ["desk:2", "desk:1", "job:1", "shop:1"] {
        bench.append(name, 1).await;
    }
    let mut client = bench.client_with(&token(json!({ "channels": ["desk:*", "job:*"] }))).await;
    let mut answers = async |kind: &str, names: Value, count: usize| {
        ask(&mut client, json!({ "type": kind, "id": 1, "channels": names })).await;
        let mut told = Vec::new();
        while told.len() < count {
            let answer = next(&mut client).await;
            if !answer.data()["id"].is_null() {
                told.push((answer.event().to_owned(), answer.channel().to_owned()));
            }
        }
        told
    };
    let pairs = |of: &[(&str, &str)]| of.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect::<Vec<_>>();
    let expected = pairs(&[("subscribed", "desk:1"), ("subscribed", "desk:2"), ("subscribe_error", "shop:*")]);
    assert_eq!(answers("subscribe", json!(["desk:*", "shop:*"]), 3).await, expected);
    let expected = pairs(&[("unsubscribed", "desk:1"), ("unsubscribed", "desk:2")]);
    assert_eq!(answers("unsubscribe", json!(["*"]), 2).await, expected);
    let expected = pairs(&[("subscribed", "desk:2"), ("subscribed", "job:1")]);
    let silent = |name: &str| json!({ "channel": name, "snapshot": false });
    assert_eq!(answers("subscribe", json!([silent("desk:2"), silent("job:*")]), 2).await, expected);
    let seq = bench.append("job:1", 1).await;
    assert_eq!(client.next_event("test_event", SOON).await.unwrap().seq(), seq);
}

#[tokio::test]
async fn two_hundred_channels_in_one_message_are_answered_in_order() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    let names: Vec<String> = (0..200).map(|n| format!("a:{n}")).collect();
    for n in [3, 150] {
        bench.append(&names[n], n).await;
    }
    ask(&mut client, json!({ "type": "subscribe", "id": "all", "channels": names })).await;
    for name in &names {
        let told = client.next_event("subscribed", SOON).await.unwrap();
        assert_eq!((told.channel(), &told.data()["id"]), (name.as_str(), &json!("all")));
    }
    ask(&mut client, json!({ "type": "subscribe", "channels": ["b:1"] })).await;
    let refused = client.next_event("subscribe_error", SOON).await.unwrap();
    assert_eq!(refused.error_code(), "CHANNEL_LIMIT");
    ask(&mut client, json!({ "type": "unsubscribe", "id": 2, "channels": names })).await;
    for name in &names {
        assert_eq!(client.next_event("unsubscribed", SOON).await.unwrap().channel(), name);
    }
}
