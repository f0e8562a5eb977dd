//! Clients that mean no good: each gets its code, is counted and bounded, and nobody else notices.

use std::time::Duration;

use akis_gateway::ws::deflate::Deflater;
use akis_testkit::{LiveClient, wait_until};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::bench::{Bench, SOON, ask, next, subscribe};
use crate::raw::{connect_from, frame, good_upgrade, insist, say};

/// A client that was there before, and hears what is published.
struct Bystander(LiveClient);

impl Bystander {
    async fn of(bench: &Bench) -> Self {
        let mut client = bench.client().await;
        subscribe(&mut client, json!("by:stander")).await;
        Self(client)
    }

    /// Everything that is published still comes.
    async fn is_served(&mut self, bench: &Bench) {
        let last = bench.append("by:stander", 1).await;
        while next(&mut self.0).await.seq() != last {}
        ask(&mut self.0, json!({ "type": "ping", "id": 1 })).await;
        self.0.next_event("pong", SOON).await.unwrap();
    }
}

#[tokio::test]
async fn bytes_that_are_no_websocket_are_refused() {
    let bench = Bench::with(|config| config.limits.header_timeout = Duration::from_millis(300)).await;
    let mut bystander = Bystander::of(&bench).await;
    let huge = format!("GET /live HTTP/1.1\r\nX: {}", "x".repeat(64 << 10));
    for (bytes, status) in [
        (&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xFC, 0x03, 0x03][..], "400"),
        (&[0x81, 0x85, 1, 2, 3, 4, 0x68, 0x65, 0x6C, 0x6C, 0x6F], "400"),
        (&[0; 100], "400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
        (b"GET /live\r\n\r\n", "400"),
        (huge.as_bytes(), "431"),
        // Pipelined: the good request is answered, and what follows is not.
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n\x00\x01\x02\x03\xff\r\n\r\n", "404"),
    ] {
        let before = bench.refusals("malformed");
        let answered = say(bench.address, bytes).await;
        let is_told = answered.head.is_empty() || answered.head.starts_with(&format!("HTTP/1.1 {status}"));
        assert!(is_told, "{bytes:?}: {}", answered.head);
        let is_counted = async || bench.refusals("malformed") > before;
        wait_until(SOON, &format!("{bytes:?} is counted"), is_counted).await.unwrap();
    }
    for unfinished in [&b"GET /live HTTP/1.1\r\nHost"[..], b""] {
        say(bench.address, unfinished).await;
    }
    let is_counted = async || bench.refusals("header_timeout") == 2.0;
    wait_until(SOON, "a head that never ends is counted", is_counted).await.unwrap();
    bystander.is_served(&bench).await;
}

#[tokio::test]
async fn messages_in_pieces_without_end_are_too_large() {
    let bench = Bench::start().await;
    let mut bystander = Bystander::of(&bench).await;
    let begin = [good_upgrade("").into_bytes(), frame(0x01, b"x")].concat();
    for (piece, what) in [(frame(0x00, b"x"), "of one byte"), (frame(0x00, b""), "of none")] {
        let many = piece.repeat(1000);
        let answered = insist(connect_from(1, bench.address).await, &begin, &many, 1000).await;
        assert_eq!(answered.code, Some(1009), "pieces {what}");
    }
    assert_eq!(bench.closes(1009), 2.0);
    bystander.is_served(&bench).await;
}

#[tokio::test]
async fn a_deflate_bomb_is_too_large() {
    let bench = Bench::start().await;
    let mut bystander = Bystander::of(&bench).await;
    let bomb = Deflater::default().deflate(&vec![b' '; 4 << 20]).unwrap().to_vec();
    assert!(bomb.len() < 64 << 10, "small enough to be read: {}", bomb.len());
    let hello = good_upgrade("Sec-WebSocket-Extensions: permessage-deflate\r\n");
    let answered = say(bench.address, &[hello.as_bytes(), &frame(0xC1, &bomb)].concat()).await;
    assert!(answered.head.contains("permessage-deflate"), "{}", answered.head);
    assert_eq!((answered.code, bench.closes(1009)), (Some(1009), 1.0));
    bystander.is_served(&bench).await;
}

#[tokio::test]
async fn floods_of_small_messages_are_closed() {
    let bench = Bench::start().await;
    let mut bystander = Bystander::of(&bench).await;
    let subscribe = frame(0x81, br#"{"type":"subscribe","id":1,"channels":["a:b","a:c"]}"#);
    let unsubscribe = frame(0x81, br#"{"type":"unsubscribe","id":2,"channels":["a:b","a:c"]}"#);
    let hello = good_upgrade("");
    for (message, what) in [
        (frame(0x89, b"x"), "pings"),
        (frame(0x8A, b"x"), "pongs"),
        ([subscribe, unsubscribe].concat(), "subscriptions"),
        (frame(0x81, b"{}"), "nonsense"),
        (frame(0x82, b"x"), "binary"),
    ] {
        let before = bench.closes(4429) + bench.closes(4400);
        let stream = connect_from(1, bench.address).await;
        let answered = insist(stream, hello.as_bytes(), &message, 100_000).await;
        let expected = if matches!(what, "nonsense" | "binary") { 4400 } else { 4429 };
        assert_eq!(answered.code, Some(expected), "{what}");
        assert_eq!(bench.closes(4429) + bench.closes(4400), before + 1.0, "{what}");
        assert!(answered.pongs <= 110 && answered.texts.len() <= 450, "{what}: {} answers", answered.texts.len());
    }
    assert_eq!(bench.metric("subscriptions", |_| true), 1.0, "the bystander's");
    bystander.is_served(&bench).await;
}

#[tokio::test]
async fn two_hundred_channels_in_every_message_are_answered_beside_others() {
    let bench = Bench::start().await;
    let mut bystander = Bystander::of(&bench).await;
    let channels: Vec<String> = (0..200).map(|n| format!("a:{n}")).collect();
    let message = json!({ "type": "subscribe", "channels": channels }).to_string();
    let mut greedy = bench.client().await;
    for _ in 0..20 {
        greedy.send_raw(message.as_str().into()).await.unwrap();
    }
    let answers = async {
        for n in 0..20 * 200 {
            let answer = next(&mut greedy).await;
            assert_eq!((answer.event(), answer.channel()), ("subscribed", channels[n % 200].as_str()));
        }
    };
    let served = async {
        for _ in 0..10 {
            bystander.is_served(&bench).await;
        }
    };
    timeout(SOON * 2, async { tokio::join!(answers, served) }).await.unwrap();
    assert_eq!(bench.metric("subscriptions", |_| true), 201.0);
}

#[tokio::test]
async fn one_address_cannot_keep_others_out() {
    let bench = Bench::with(|config| {
        config.limits.connections_per_address = 20;
        config.limits.header_timeout = Duration::from_secs(60);
    })
    .await;
    // Those that ask.
    let hello = good_upgrade("");
    let mut inside = Vec::new();
    for n in 0..60 {
        let mut stream = connect_from(1, bench.address).await;
        stream.write_all(hello.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        timeout(SOON, stream.read_exact(&mut status)).await.unwrap().unwrap();
        assert_eq!(&status, if n < 20 { b"HTTP/1.1 101" } else { b"HTTP/1.1 429" }, "{n}");
        if n < 20 {
            inside.push(stream);
        }
    }
    assert_eq!(bench.refusals("address"), 40.0);
    // Those that say nothing.
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(connect_from(1, bench.address).await);
    }
    let is_counted = async || bench.refusals("plain_sockets") >= 200.0;
    wait_until(SOON, "most of them are refused at once", is_counted).await.unwrap();
    let mut other = connect_from(2, bench.address).await;
    other.write_all(hello.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    timeout(SOON, other.read_exact(&mut status)).await.unwrap().unwrap();
    assert_eq!(&status, b"HTTP/1.1 101");
    // Their places are given back.
    drop((silent, inside));
    wait_until(SOON, "the address is let in again", async || {
        let Ok(mut stream) = TcpStream::connect(bench.address).await else { return false };
        let mut status = [0; 12];
        stream.write_all(hello.as_bytes()).await.is_ok()
            && timeout(SOON, stream.read_exact(&mut status)).await.is_ok_and(|read| read.is_ok())
            && &status == b"HTTP/1.1 101"
    })
    .await
    .unwrap();
}
