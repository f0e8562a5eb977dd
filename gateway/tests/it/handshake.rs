//! What happens before a socket is open.

use std::time::Duration;

use akis_testkit::raw::{HANDSHAKE, upgrade};
use akis_testkit::{ConnectError, LiveClient, wait_until};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::bench::{Bench, SECRET, SOON, now_ms, token};
use crate::raw::{connect_from, good_upgrade};

/// Sends a raw request and reads until the answer's body ends or the socket does.
async fn raw(bench: &Bench, request: &str) -> String {
    let mut stream = TcpStream::connect(bench.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading = async {
        let mut chunk = [0; 1024];
        while !answer.ends_with(b"}") && !answer.ends_with(b"\r\n\r\n") {
            match stream.read(&mut chunk).await {
                Ok(0) | Err(_) => break,
                Ok(n) => answer.extend_from_slice(&chunk[..n]),
            }
        }
    };
    timeout(SOON, reading).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn requests_that_are_no_upgrade_are_told_so() {
    let bench = Bench::start().await;
    let bearer = format!("Authorization: Bearer {}\r\n", token(json!({})));
    let other_host = "Origin: https://evil.example\r\n";
    for (request, status, contains) in [
        ("GET /live HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "426", "upgrade: websocket"),
        (upgrade(&HANDSHAKE.replace("13", "8")), "426", "sec-websocket-version: 13"),
        (upgrade(&HANDSHAKE.replace("13", "8")), "426", "upgrade: websocket"),
        (upgrade(&HANDSHAKE.replace("dGhlIHNhbXBsZSBub25jZQ==", "abc")), "400", "Sec-WebSocket-Key"),
        (upgrade("Sec-WebSocket-Version: 13\r\n"), "400", "Sec-WebSocket-Key"),
        (upgrade(HANDSHAKE), "401", "TOKEN_INVALID"),
        (upgrade(HANDSHAKE), "401", "www-authenticate: Bearer"),
        (upgrade(&format!("{HANDSHAKE}{bearer}{other_host}")), "403", "origin"),
        (upgrade(&format!("{HANDSHAKE}{bearer}Origin: null\r\n")), "403", "origin"),
        (upgrade(&format!("{HANDSHAKE}{bearer}Origin: http://localhost\r\n")), "101", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        (upgrade(HANDSHAKE).replace("/live", "/live?batch=1&batch=1&token=x"), "401", "TOKEN_INVALID"),
        (
            upgrade(&format!("{HANDSHAKE}{bearer}")).replace("/live", "/live?batch=1&batch=1"),
            "400",
            "batch is given twice",
        ),
        (upgrade(HANDSHAKE).replace("/live", "/live?token=x&token=y"), "400", "token is given twice"),
        ("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "404", "application/problem+json"),
        ("DELETE /live HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "405", "application/problem+json"),
        ("DELETE /live HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "405", "allow: GET"),
    ] {
        let answer = raw(&bench, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}\n{answer}");
        assert!(answer.contains(contains), "{contains} in {answer}");
    }
    assert_eq!((bench.refusals("handshake"), bench.refusals("token"), bench.refusals("origin")), (7.0, 4.0, 2.0));
}

/// Reads until the bytes have this in them.
async fn read_until(stream: &mut TcpStream, answer: &mut Vec<u8>, end: &str) {
    let reading = async {
        let mut chunk = [0; 1024];
        while !String::from_utf8_lossy(answer).contains(end) {
            match stream.read(&mut chunk).await.unwrap() {
                0 => panic!("closed after {}", String::from_utf8_lossy(answer)),
                n => answer.extend_from_slice(&chunk[..n]),
            }
        }
    };
    tokio::time::timeout(SOON, reading).await.unwrap();
}

/// Sorted lines of an answer's head.
fn head(answer: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    let mut lines: Vec<String> = head.lines().filter(|line| !line.starts_with("date:")).map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

/// A proxy may send an upgrade over a connection that it has used before, and a client may send messages at once.
#[tokio::test]
async fn a_used_connection_becomes_a_websocket_like_a_new_one() {
    let bench = Bench::start().await;
    let offers = "Sec-WebSocket-Protocol: akis.v1\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    let request = upgrade(&format!("{HANDSHAKE}{offers}Authorization: Bearer {}\r\n", token(json!({}))));
    let mut heads = Vec::new();
    for is_used in [false, true] {
        let mut stream = TcpStream::connect(bench.address).await.unwrap();
        if is_used {
            stream.write_all(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
            read_until(&mut stream, &mut Vec::new(), "there is nothing here").await;
        }
        let mut sent = request.clone().into_bytes();
        // {"type":"ping","id":1} under a mask of zeros.
        let message = br#"{"type":"ping","id":1}"#;
        sent.extend_from_slice(&[0x81, 0x80 | message.len() as u8, 0, 0, 0, 0]);
        sent.extend_from_slice(message);
        stream.write_all(&sent).await.unwrap();
        let mut answer = Vec::new();
        read_until(&mut stream, &mut answer, "pong").await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
        assert!(text.find("welcome") < text.find("pong") && text.contains("welcome"), "{text}");
        heads.push(head(&answer));
    }
    assert_eq!(heads[0], heads[1]);
    assert!(heads[0].contains(&"sec-websocket-protocol: akis.v1".to_owned()), "{heads:?}");
}

#[tokio::test]
async fn bad_tokens_are_named_and_nothing_is_upgraded() {
    let bench = Bench::start().await;
    let key = EncodingKey::from_secret(b"another secret of thirty-two bytes");
    let claims = json!({ "sub": "alice", "exp": now_ms() / 1000 + 60, "channels": ["*"] });
    let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OX0.";
    let other_alg = Header::new(Algorithm::HS384);
    for (token, code, says) in [
        (Some("nonsense".to_owned()), "TOKEN_INVALID", "not a JWT"),
        (Some(encode(&Header::default(), &claims, &key).unwrap()), "TOKEN_INVALID", "signature"),
        (Some(none.to_owned()), "TOKEN_INVALID", "alg"),
        (
            Some(encode(&other_alg, &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()),
            "TOKEN_INVALID",
            "alg",
        ),
        (Some(token(json!({ "exp": null }))), "TOKEN_INVALID", "no exp"),
        (Some(token(json!({ "sub": null }))), "TOKEN_INVALID", "no sub"),
        (Some(token(json!({ "exp": 1 }))), "TOKEN_EXPIRED", "expired"),
        (None, "TOKEN_INVALID", "no token"),
    ] {
        match LiveClient::connect(&bench.url(), token.as_deref()).await {
            Err(ConnectError::Refused { status: 401, body }) => {
                let problem: Value = serde_json::from_str(&body).unwrap();
                assert_eq!(problem["errorCode"], code);
                assert!(problem["detail"].as_str().unwrap().contains(says), "{body} should say {says}");
            }
            Err(error) => panic!("{says}: {error}"),
            Ok(_) => panic!("{says}: connected"),
        }
    }
}

#[tokio::test]
async fn tokens_come_by_header_subprotocol_or_query() {
    let bench = Bench::start().await;
    let by_query = format!("{}?token={}", bench.url(), token(json!({})));
    let mut client = LiveClient::connect(&by_query, None).await.unwrap();
    let welcome = client.next(SOON).await.unwrap();
    assert_eq!(welcome.event(), "welcome");
    assert_eq!(welcome.channel(), "system");
    assert_eq!(welcome.data()["replica"], "test");
    assert_eq!(welcome.data()["heartbeatMs"], 5000);
    assert_eq!(welcome.data()["replay"], json!({ "maxEvents": 5000, "maxAgeMs": 86_400_000 }));
    let limits = json!({ "channels": 200, "messagesPerSecond": 20, "burst": 100, "messageBytes": 65536, "queuePerChannel": 128 });
    assert_eq!(welcome.data()["limits"], limits);

    let by_header = format!("{HANDSHAKE}Authorization: Bearer {}\r\n", token(json!({})));
    let answer = raw(&bench, &upgrade(&by_header)).await;
    assert!(answer.starts_with("HTTP/1.1 101") && !answer.contains("sec-websocket-protocol"), "not offered: {answer}");
    let offered = format!("{HANDSHAKE}Sec-WebSocket-Protocol: akis.v1, bearer.{}\r\n", token(json!({})));
    let answer = raw(&bench, &upgrade(&offered)).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(answer.contains("sec-websocket-protocol: akis.v1\r\n"), "{answer}");
}

#[tokio::test]
async fn connections_are_limited_and_places_given_back() {
    let bench = Bench::with(|config| {
        config.limits.connections = 3;
        config.limits.connections_per_subject = 2;
    })
    .await;
    let mut alice = bench.client().await;
    let _second = bench.client().await;
    let refused = |status: u16| move |error: ConnectError| matches!(error, ConnectError::Refused { status: s, .. } if s == status);
    let third = LiveClient::connect(&bench.url(), Some(&token(json!({})))).await;
    assert!(third.err().is_some_and(refused(429)), "alice has two");
    let _bob = bench.client_with(&token(json!({ "sub": "bob" }))).await;
    let carol = LiveClient::connect(&bench.url(), Some(&token(json!({ "sub": "carol" })))).await;
    assert!(carol.err().is_some_and(refused(503)), "three in all");
    for (sub, status, code) in [("alice", "503", "RATE_LIMITED"), ("dave", "503", "RATE_LIMITED")] {
        let offer = format!("{HANDSHAKE}Authorization: Bearer {}\r\n", token(json!({ "sub": sub })));
        let answer = raw(&bench, &upgrade(&offer)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(code), "{answer}");
        assert!(answer.contains("retry-after: ") && answer.contains("application/problem+json"), "{answer}");
    }
    alice.close().await.unwrap();
    wait_until(SOON, "a place is free", async || {
        LiveClient::connect(&bench.url(), Some(&token(json!({ "sub": "carol" })))).await.is_ok()
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn addresses_and_handshakes_are_limited() {
    let bench = Bench::with(|config| config.limits.connections_per_address = 1).await;
    let _first = bench.client().await;
    let answer = raw(&bench, &upgrade(HANDSHAKE)).await;
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("retry-after: "), "{answer}");

    let bench = Bench::with(|config| config.limits.handshakes_per_second = 1).await;
    let _first = bench.client().await;
    let answer = raw(&bench, &upgrade(HANDSHAKE)).await;
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("RATE_LIMITED"), "{answer}");
}

#[tokio::test]
async fn behind_a_trusted_proxy_addresses_are_those_of_its_clients() {
    let from = |said: &str| good_upgrade(&format!("X-Forwarded-For: {said}\r\n"));
    let stream_from = |said: &str| {
        let token = token(json!({}));
        format!(
            "GET /live/sse?channels=a:b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nX-Forwarded-For: {said}\r\n\r\n"
        )
    };
    let bench = Bench::with(|config| {
        config.limits.connections_per_address = 1;
        config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let begins = async |mut stream: TcpStream, request: &str| {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        timeout(SOON, stream.read_exact(&mut status)).await.unwrap().unwrap();
        (String::from_utf8_lossy(&status[9..]).into_owned(), stream)
    };
    let mut inside = Vec::new();
    for (host, request, status) in [
        (1, from("198.51.100.1"), "101"),
        (1, from("198.51.100.2"), "101"),
        (1, from("198.51.100.1"), "429"),
        // What the client said of itself stands before.
        (1, from("198.51.100.9, 198.51.100.2"), "429"),
        // The web server's way in.
        (1, stream_from("198.51.100.2"), "429"),
        (1, stream_from("198.51.100.3"), "200"),
        // Nobody else is believed.
        (2, from("198.51.100.4"), "101"),
        (2, from("198.51.100.5"), "429"),
    ] {
        let (answer, stream) = begins(connect_from(host, bench.address).await, &request).await;
        assert_eq!(answer, status, "from {host}: {request}");
        inside.push(stream);
    }
    assert_eq!(bench.refusals("address"), 4.0);

    // Many of its sockets may say nothing yet: more than an address has otherwise.
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(connect_from(1, bench.address).await);
    }
    let (answer, _stream) = begins(connect_from(1, bench.address).await, &from("198.51.100.6")).await;
    assert_eq!((answer.as_str(), bench.refusals("plain_sockets")), ("101", 0.0));
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let bench = Bench::with(|config| config.limits.header_timeout = Duration::from_millis(200)).await;
    let answer = raw(&bench, "GET /live HTTP/1.1\r\nHost: x\r\nX-").await;
    assert!(!answer.contains("200"), "{answer}");
}

#[tokio::test]
async fn the_page_needs_no_token() {
    let bench = Bench::start().await;
    let page = reqwest::get(bench.http("/")).await.unwrap();
    assert_eq!(page.status(), 200);
    assert_eq!(page.text().await.unwrap(), "<p>page</p>");
    let empty = HeaderMap::new();
    let missing = reqwest::Client::new().get(bench.http("/v1/nothing")).headers(empty).send().await.unwrap();
    assert_eq!(missing.status(), 404);
}
