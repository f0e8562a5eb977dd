//! Clients that take compressed messages, spoken to by hand: the usual client library knows no compression.

use std::io::{Read, Write};
use std::net::TcpStream;

use akis_gateway::ws::deflate::{ACCEPTED, Inflater};
use serde_json::{Value, json};

use crate::bench::{Bench, SOON, subscribe};
use crate::raw::{frame, good_upgrade};

/// Connects, subscribes to `a:b:book` and gives the socket behind the head of the answer, and that head.
fn connect(address: &str, query: &str, offer: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let request = good_upgrade(&format!("Sec-WebSocket-Extensions: {offer}\r\n"));
    stream.write_all(request.replacen("/live", &format!("/live{query}"), 1).as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let request = json!({ "type": "subscribe", "channels": ["a:b:book"] }).to_string();
    stream.write_all(&frame(0x81, request.as_bytes())).unwrap();
    (stream, String::from_utf8(head).unwrap())
}

/// The next message, and whether it was compressed.
fn next_message(stream: &mut TcpStream) -> (Value, bool) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[0] & 0xBF, 0x81, "a whole text");
    let len = match head[1] {
        126 => {
            let mut len = [0; 2];
            stream.read_exact(&mut len).unwrap();
            usize::from(u16::from_be_bytes(len))
        }
        len => usize::from(len),
    };
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).unwrap();
    let is_compressed = head[0] & 0x40 != 0;
    let text = if is_compressed { Inflater::default().inflate(&payload, 1 << 20).unwrap().to_vec() } else { payload };
    (serde_json::from_slice(&text).unwrap(), is_compressed)
}

#[tokio::test(flavor = "multi_thread")]
async fn large_events_are_compressed_for_those_who_take_that() {
    let bench = Bench::start().await;
    // The channel has to have begun: the first event of a term is told by itself.
    bench.append("a:b:book", 100).await;
    let address = bench.address.to_string();
    let data: Vec<_> =
        (0..8).map(|n| json!({ "n": n, "pad": "price ".repeat(if n == 0 { 1 } else { 200 }) })).collect();
    let sockets = tokio::task::spawn_blocking(move || {
        [
            (connect(&address, "", "permessage-deflate; client_max_window_bits"), true, false),
            (connect(&address, "?batch=1", "permessage-deflate"), true, true),
            (connect(&address, "", "permessage-deflate; server_max_window_bits=9"), false, false),
        ]
        .map(|((mut stream, head), is_taken, is_packed)| {
            assert_eq!(head.contains(ACCEPTED), is_taken, "{head}");
            while next_message(&mut stream).0.to_string().contains("\"welcome\"") {}
            (stream, is_taken, is_packed)
        })
    })
    .await
    .unwrap();
    let mut usual = bench.client().await;
    subscribe(&mut usual, json!("a:b:book")).await;
    bench.append_all("a:b:book", &data).await;
    tokio::task::spawn_blocking(move || {
        for (mut stream, is_taken, is_packed) in sockets {
            let mut seen = Vec::new();
            while seen.len() < data.len() {
                let (message, is_compressed) = next_message(&mut stream);
                let all = if let Value::Array(all) = message { all } else { vec![message] };
                let is_large = all.iter().any(|envelope| envelope.to_string().len() > 400);
                assert_eq!(is_compressed, is_taken && is_large, "{is_packed} {all:?}");
                seen.extend(all.iter().filter_map(|e| e["data"]["n"].as_u64()).filter(|n| *n != 100));
            }
            assert_eq!(seen, (0..8).collect::<Vec<_>>());
        }
    })
    .await
    .unwrap();
}
