//! `GET /live/sse`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use akis_eventlog::Store;
use akis_testkit::{Envelope, wait_until};
use reqwest::Response;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::bench::{Bench, SOON, now_ms, token};

/// A stream as a browser reads it.
struct Stream {
    response: Response,
    text: String,
    comments: usize,
    retry: Option<u64>,
    last_id: Option<String>,
}

impl Stream {
    async fn open(bench: &Bench, token: &str, query: &str, last_id: Option<&str>) -> Self {
        let request = reqwest::Client::new().get(bench.http(&format!("/live/sse?{query}"))).bearer_auth(token);
        let request = if let Some(id) = last_id { request.header("last-event-id", id) } else { request };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        Self { response, text: String::new(), comments: 0, retry: None, last_id: None }
    }

    /// The next envelope; `None` at the end.
    async fn next(&mut self) -> Option<Envelope> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let mut data = None;
                for line in block.lines() {
                    match line.split_once(": ") {
                        Some(("data", text)) => data = Some(Envelope(serde_json::from_str(text).unwrap())),
                        Some(("id", id)) => self.last_id = Some(id.to_owned()),
                        Some(("retry", ms)) => self.retry = ms.parse().ok(),
                        Some(("", _)) => self.comments += 1,
                        _ => panic!("no line of a stream: {line}"),
                    }
                }
                if data.is_some() {
                    return data;
                }
            }
            let piece = timeout(SOON, self.response.chunk()).await.unwrap().unwrap()?;
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    async fn next_event(&mut self, event: &str) -> Envelope {
        loop {
            let envelope = self.next().await.unwrap_or_else(|| panic!("the stream ended before {event}"));
            if envelope.event() == event {
                return envelope;
            }
        }
    }

    /// The next events of applications.
    async fn events(&mut self, count: usize) -> Vec<u64> {
        let mut seqs = Vec::new();
        while seqs.len() < count {
            seqs.push(self.next_event("test_event").await.seq());
        }
        seqs
    }
}

#[tokio::test]
async fn a_stream_says_what_a_socket_would() {
    let bench = Bench::start().await;
    let first = bench.append("a:b", 1).await;
    let all = token(json!({ "channels": ["a:*"] }));
    let mut stream = Stream::open(&bench, &all, "channels=a:b,x:y,nope,a:c", None).await;
    let headers = stream.response.headers().clone();
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache, no-transform"),
        ("x-accel-buffering", "no"),
    ] {
        assert_eq!(headers[name], value);
    }
    assert_eq!(stream.next().await.unwrap().event(), "welcome");
    assert!(stream.retry.is_some());
    let told = stream.next_event("subscribed").await;
    assert_eq!((told.channel(), told.data()["replayed"].as_u64()), ("a:b", Some(1)));
    let refused = stream.next_event("subscribe_error").await;
    assert_eq!((refused.channel(), refused.error_code()), ("x:y", "CHANNEL_FORBIDDEN"));
    assert_eq!(stream.next_event("subscribe_error").await.error_code(), "BAD_CHANNEL");
    assert_eq!(stream.next_event("subscribed").await.channel(), "a:c");
    assert_eq!(stream.events(1).await, vec![first], "the snapshot");
    let second = bench.append("a:b", 2).await;
    assert_eq!(stream.events(1).await, vec![second]);
    assert!(stream.next_event("heartbeat").await.data()["tailAgeMs"].is_u64());
}

#[tokio::test]
async fn a_client_that_comes_back_misses_nothing_on_any_channel() {
    let bench = Bench::start().await;
    let all = token(json!({}));
    for channel in ["a:b", "a:c"] {
        bench.append(channel, 0).await;
    }
    let query = "channels=a:b,a:c,a:d&snapshot=true";
    let mut stream = Stream::open(&bench, &all, query, None).await;
    stream.events(2).await;
    let seen = bench.append("a:b", 1).await;
    assert_eq!(stream.events(1).await, vec![seen]);
    let id = stream.last_id.clone().unwrap();
    drop(stream);
    let mut missed = Vec::new();
    for n in 0..50 {
        for channel in ["a:b", "a:c", "a:d"] {
            missed.push(bench.append(channel, n).await);
        }
    }
    // The order and the number of channels may have changed.
    let mut stream = Stream::open(&bench, &all, "channels=a:e,a:d,a:c,a:b&snapshot=true", Some(&id)).await;
    let mut recovered = Vec::new();
    for _ in 0..4 {
        let told = stream.next_event("subscribed").await;
        recovered.push((told.channel().to_owned(), told.data()["recovered"].as_bool()));
    }
    assert_eq!(recovered[0], ("a:e".to_owned(), None));
    assert_eq!(recovered[1], ("a:d".to_owned(), Some(false)), "0 is resumed from, and proves nothing");
    assert_eq!(recovered[2..], [("a:c".to_owned(), Some(true)), ("a:b".to_owned(), Some(true))]);
    let mut told = stream.events(missed.len()).await;
    told.sort_unstable();
    missed.sort_unstable();
    assert_eq!(told, missed, "each once");
    let again = Stream::open(&bench, &all, query, stream.last_id.as_deref()).await;
    drop(stream);
    let last = bench.append("a:b", 99).await;
    let mut again = again;
    assert_eq!(again.events(1).await, vec![last], "nothing twice");
}

#[tokio::test]
async fn what_cannot_be_understood_is_refused() {
    let bench = Bench::start().await;
    let all = token(json!({}));
    let open = async |query: &str, id: &str| {
        let request = reqwest::Client::new().get(bench.http(&format!("/live/sse?{query}"))).bearer_auth(&all);
        request.header("last-event-id", id).send().await.unwrap()
    };
    for (query, id, status) in [
        ("channels=a:b", "nonsense", 400),
        ("channels=a:b", "17", 400),
        ("channels=a:b", "", 200),
        ("channels=", "", 400),
        ("channels=a:b&interval=x", "", 400),
        ("channels=a:b&interval=86400001", "", 400),
        ("channels=a:b&snapshot=maybe", "", 400),
    ] {
        assert_eq!(open(query, id).await.status().as_u16(), status, "{query} {id}");
    }
}

#[tokio::test]
async fn a_stream_takes_no_patterns_and_goes_on_with_what_it_takes() {
    let bench = Bench::with(|config| config.patterns = true).await;
    bench.append("a:1", 1).await;
    let mut stream = Stream::open(&bench, &token(json!({})), "channels=a:*,a:1", None).await;
    let refused = stream.next_event("subscribe_error").await;
    assert_eq!((refused.channel(), refused.error_code()), ("a:*", "BAD_CHANNEL"));
    assert_eq!(stream.next_event("subscribed").await.channel(), "a:1");
}

#[tokio::test]
async fn an_interval_and_no_snapshot_are_kept() {
    let bench = Bench::start().await;
    bench.append("a:b:ticker", 0).await;
    let query = "channels=a:b:ticker&interval=200&snapshot=false";
    let mut stream = Stream::open(&bench, &token(json!({})), query, None).await;
    let told = stream.next_event("subscribed").await;
    assert_eq!((&told.data()["interval"], &told.data()["replayed"]), (&json!(200), &json!(0)));
    let started = Instant::now();
    let mut last = 0;
    for n in 0..60 {
        last = bench.append("a:b:ticker", n).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut count = 0;
    while stream.events(1).await != vec![last] {
        count += 1;
    }
    assert!(count <= started.elapsed().as_millis() / 200 + 1, "{count} events");
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let bench = Bench::start().await;
    let short = token(json!({ "exp": now_ms() / 1000 + 2 }));
    let mut stream = Stream::open(&bench, &short, "channels=a:b", None).await;
    let ended = stream.next_event("unsubscribed").await;
    assert_eq!(ended.error_code(), "TOKEN_EXPIRED");
    let id = stream.last_id.clone().unwrap();
    while stream.next().await.is_some() {}
    let seq = bench.append("a:b", 1).await;
    let mut again = Stream::open(&bench, &token(json!({})), "channels=a:b", Some(&id)).await;
    assert_eq!(again.events(1).await, vec![seq]);
}

#[tokio::test]
async fn a_drain_is_told_and_ends_streams() {
    let bench = Bench::with(|config| config.drain = Duration::from_secs(1)).await;
    let mut stream = Stream::open(&bench, &token(json!({})), "channels=a:b", None).await;
    stream.next_event("subscribed").await;
    bench.drain.cancel();
    assert_eq!(stream.next_event("draining").await.data()["deadlineMs"], 1000);
    let last = bench.append("a:b", 1).await;
    assert_eq!(stream.events(1).await, vec![last], "what is published meanwhile still comes");
    while stream.next().await.is_some() {}
    bench.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_reader_that_reads_nothing_is_cut_off_and_others_are_not() {
    let bench = Bench::start().await;
    let all = token(json!({}));
    let stuck = Stream::open(&bench, &all, "channels=a:b", None).await;
    let mut healthy = Stream::open(&bench, &all, "channels=a:b", None).await;
    healthy.next_event("subscribed").await;
    let big: Vec<Value> = (0..20).map(|n| json!({ "n": n, "big": "x".repeat(50_000) })).collect();
    let mut told = 0;
    let started = Instant::now();
    // An application's channel is never thinned, so a reader that leaves this much waiting has to come back.
    for _ in 0..20 {
        bench.append_all("a:b", &big).await;
        told += healthy.events(big.len()).await.len();
    }
    assert_eq!(told, 400);
    let mut stuck = stuck;
    let mut seen = 0;
    loop {
        match timeout(SOON, stuck.response.chunk()).await.unwrap() {
            Ok(Some(piece)) => seen += piece.len(),
            Ok(None) => panic!("a stream that is cut off does not end in order"),
            Err(_) => break,
        }
    }
    assert!(seen < 15_000_000, "{seen} bytes");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[tokio::test]
async fn what_waits_for_streams_is_counted_and_bounded() {
    const TOTAL: usize = 4 << 20;
    let bench = Bench::with(|config| config.limits.queue_bytes_total = TOTAL).await;
    let all = token(json!({}));
    let mut stuck = Vec::new();
    for _ in 0..12 {
        stuck.push(Stream::open(&bench, &all, "channels=a:b:trades", None).await);
    }
    let mut healthy = Stream::open(&bench, &all, "channels=a:b:trades", None).await;
    healthy.next_event("subscribed").await;
    let big: Vec<Value> = (0..5).map(|n| json!({ "n": n, "big": "x".repeat(50_000) })).collect();
    let mut most = 0.0;
    let started = Instant::now();
    while bench.closes(4413) < 6.0 {
        assert!(started.elapsed() < 2 * SOON, "nobody gives way: {most} bytes waited");
        bench.append_all("a:b:trades", &big).await;
        healthy.events(big.len()).await;
        most = bench.metric("queued_bytes", |_| true).max(most);
    }
    assert!((2 << 20..2 * TOTAL).contains(&(most as usize)), "{most} bytes waited");
    assert!(bench.metric("deliveries_total", |_| true) > 100.0, "they count while the streams are open");
    bench.append_all("a:b:trades", &big).await;
    healthy.events(big.len()).await;
    drop((stuck, healthy));
    let all_left = async || bench.metric("connections", |_| true) == 0.0;
    wait_until(SOON, "the streams end", all_left).await.unwrap();
    let is_given_back = async || bench.metric("queued_bytes", |_| true) == 0.0;
    wait_until(SOON, "nothing is left of them", is_given_back).await.unwrap();
}

#[tokio::test]
async fn a_comment_comes_every_fifteen_seconds() {
    let bench = Bench::with(|config| config.heartbeat = Duration::from_secs(60)).await;
    let mut stream = Stream::open(&bench, &token(json!({})), "channels=a:b", None).await;
    stream.next_event("subscribed").await;
    let asked = Instant::now();
    let piece = timeout(SOON, stream.response.chunk()).await.unwrap().unwrap().unwrap();
    assert!(piece.starts_with(b":"), "{piece:?}");
    assert!(asked.elapsed() > Duration::from_secs(13), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_cursor_is_good_on_every_replica() {
    let here = Bench::start().await;
    let there = Bench::on(Arc::clone(&here.store), Arc::clone(&here.store) as Arc<dyn Store>, |_| {}).await;
    let all = token(json!({}));
    here.append("a:b", 1).await;
    let mut stream = Stream::open(&here, &all, "channels=a:b", None).await;
    stream.events(1).await;
    let id = stream.last_id.clone().unwrap();
    drop(stream);
    let missed = here.append("a:b", 2).await;
    let mut stream = Stream::open(&there, &all, "channels=a:b", Some(&id)).await;
    assert_eq!(stream.next_event("subscribed").await.data()["recovered"], true);
    assert_eq!(stream.events(1).await, vec![missed]);
}

#[tokio::test]
async fn a_revoked_token_ends_its_streams() {
    let bench = Bench::start().await;
    let mut stream = Stream::open(&bench, &token(json!({ "jti": "t1" })), "channels=a:b", None).await;
    stream.next_event("subscribed").await;
    let data = json!({ "jti": "t1", "until": now_ms() + 60_000 });
    bench.append_event("akis:control:revoke", "revoke", &data).await;
    let ended = stream.next_event("unsubscribed").await;
    assert_eq!((ended.channel(), ended.error_code()), ("a:b", "TOKEN_INVALID"));
    bench.append("a:b", 1).await;
    while let Some(envelope) = stream.next().await {
        assert_eq!(envelope.channel(), "system", "nothing of the channel comes any more");
    }
}

#[tokio::test]
async fn a_stream_counts_as_a_connection_that_was_opened() {
    let bench = Bench::start().await;
    let mut stream = Stream::open(&bench, &token(json!({})), "channels=a:b", None).await;
    assert_eq!(stream.next().await.unwrap().event(), "welcome");
    let counted = ["connections", "opened_total"].map(|name| bench.metric(name, |_| true));
    assert_eq!(counted, [1.0, 1.0]);
}
