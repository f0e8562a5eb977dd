//! Clients that fall silent, each in its own way, beside one that does not. The times are the protocol's, so these tests take as long.

use std::time::{Duration, Instant};

use akis_testkit::{Direction, LiveClient, Proxy, wait_until};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{interval, timeout};

use crate::bench::{Bench, SOON, ask, next, subscribe, token};
use crate::raw::{Answered, connect_from, frame, good_upgrade, insist};

/// Longer than a silent client is kept.
const LONG: Duration = Duration::from_secs(60);

/// Writes a byte at a time, slowly, and reads until the end.
async fn drip(bench: &Bench, bytes: &[u8]) -> Answered {
    let mut stream = connect_from(1, bench.address).await;
    stream.write_all(good_upgrade("").as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let writing = async {
        let mut pace = interval(Duration::from_millis(50));
        for byte in bytes {
            pace.tick().await;
            if writer.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    };
    let mut all = Vec::new();
    let ((), read) = tokio::join!(writing, timeout(LONG, reader.read_to_end(&mut all)));
    read.unwrap().unwrap();
    Answered::read(&all)
}

#[tokio::test]
async fn half_a_frame_without_end_is_silence() {
    let bench = Bench::start().await;
    let began = Instant::now();
    let half = [good_upgrade("").into_bytes(), vec![0x81, 0x80 | 100, 0, 0, 0, 0, b'x']].concat();
    let at_once = insist(connect_from(1, bench.address).await, &half, &[], 0);
    // A message that would take a minute, and whose client never pauses.
    let endless = frame(0x81, &[b'x'; 1200]);
    let (at_once, slowly) = tokio::join!(at_once, drip(&bench, &endless));
    assert_eq!((at_once.code, slowly.code), (Some(4408), Some(4408)));
    assert_eq!(bench.closes(4408), 2.0);
    assert!(began.elapsed() >= Duration::from_secs(20), "not before the time that is promised");
}

#[tokio::test]
async fn a_slow_writer_is_understood() {
    let bench = Bench::start().await;
    let request = frame(0x81, br#"{"type":"ping","id":7}"#);
    let answered = drip(&bench, &[request, frame(0x88, &[])].concat()).await;
    assert_eq!((answered.code, answered.count(r#""event":"pong""#)), (Some(1000), 1));
}

#[tokio::test]
async fn clients_that_vanish_are_given_up_and_others_stay() {
    let bench = Bench::start().await;
    let mut healthy = bench.client().await;
    subscribe(&mut healthy, json!("a:b")).await;
    let proxy = Proxy::start(bench.address).await.unwrap();
    let url = format!("ws://{}/live", proxy.address());
    // Gone without a word, while its subscription is served.
    let mut vanishing = LiveClient::connect(&url, Some(&token(json!({ "sub": "bob" })))).await.unwrap();
    subscribe(&mut vanishing, json!("a:b")).await;
    // Half-open: it hears everything, and nothing of it arrives.
    let half_proxy = Proxy::start(bench.address).await.unwrap();
    let half_url = format!("ws://{}/live", half_proxy.address());
    let mut half_open = LiveClient::connect(&half_url, Some(&token(json!({ "sub": "carol" })))).await.unwrap();
    subscribe(&mut half_open, json!("a:b")).await;
    proxy.blackhole(Direction::Both, true);
    half_proxy.blackhole(Direction::ToServer, true);
    let publishing = async {
        let given_up = async || {
            bench.append("a:b", 1).await;
            bench.metric("connections", |_| true) == 1.0
        };
        wait_until(LONG, "both are given up", given_up).await.unwrap();
        bench.append("a:b", 2).await
    };
    let told = async { half_open.closed(LONG).await.unwrap() };
    let staying = async {
        while healthy.find(SOON, |envelope| envelope.event() == "test_event").await.unwrap().data()["n"] != 2 {}
    };
    let (last, told, ()) = tokio::join!(publishing, told, staying);
    assert!(last > 0);
    assert_eq!((told, bench.closes(4408)), (4408, 2.0));
    assert_eq!(bench.metric("subscriptions", |_| true), 1.0);
    ask(&mut healthy, json!({ "type": "ping", "id": 1 })).await;
    assert_eq!(next(&mut healthy).await.event(), "pong");
}

#[tokio::test]
async fn one_that_asks_and_never_reads_is_bounded_and_closed() {
    let bench = Bench::start().await;
    let channels: Vec<String> = (0..200).map(|n| format!("a:{n}")).collect();
    let request = json!({ "type": "subscribe", "channels": channels }).to_string();
    let mut stream = connect_from(1, bench.address).await;
    stream.write_all(good_upgrade("").as_bytes()).await.unwrap();
    let asking = async {
        let message = frame(0x81, request.as_bytes());
        // Until it is cut off: what it asks for is not read any more at some point, and then waits here.
        while stream.write_all(&message).await.is_ok() {}
    };
    timeout(LONG, asking).await.unwrap();
    let has_left_nothing =
        async || ["connections", "queued_bytes"].iter().all(|name| bench.metric(name, |_| true) == 0.0);
    wait_until(LONG, "it is gone, and nothing is left behind", has_left_nothing).await.unwrap();
    assert_eq!(bench.closes(4413) + bench.closes(4429), 1.0);
}
