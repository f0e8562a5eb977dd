//! Control messages, limits, heartbeat and REST refusals.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

#[tokio::test]
async fn control_messages_are_answered_as_the_venue_does() {
    let sim = Sim::generated().await;
    let mut client = sim.connect("/stream").await;
    for (sent, reply) in [
        (r#"{"method":"GET_PROPERTY","params":["combined"],"id":2}"#, r#"{"result":true,"id":2}"#),
        (
            r#"{"method":"SUBSCRIBE","params":["BTCUSDT@trade","nothing@depth@250ms"],"id":"a1"}"#,
            r#"{"result":null,"id":"a1"}"#,
        ),
        (
            r#"{"method":"LIST_SUBSCRIPTIONS","id":null}"#,
            r#"{"result":["BTCUSDT@trade","nothing@depth@250ms"],"id":null}"#,
        ),
        (r#"{"method":"UNSUBSCRIBE","params":["never@trade"],"id":4}"#, r#"{"result":null,"id":4}"#),
        ("nonsense", r#"{"code":3,"msg":"Invalid JSON: expected value at line 1 column 2"}"#),
    ] {
        client.send(sent).await;
        assert_eq!(client.text().await.unwrap(), reply, "unknown names are silent, so only replies come");
    }
    let mut client = sim.connect("/ws").await;
    client.send(r#"{"method":"GET_PROPERTY","params":["combined"],"id":1}"#).await;
    assert_eq!(client.text().await.unwrap(), r#"{"result":false,"id":1}"#);
    client.send(r#"{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":2}"#).await;
    while client.json().await["e"] != "trade" {}
    client.send(r#"{"method":"SET_PROPERTY","params":["combined",true],"id":3}"#).await;
    while client.json().await["stream"] != "btcusdt@trade" {}
    client.send(r#"{"method":"UNSUBSCRIBE","params":["btcusdt@trade"],"id":4}"#).await;
    while client.json().await["id"] != 4 {}
    client.send(r#"{"method":"LIST_SUBSCRIPTIONS","id":5}"#).await;
    assert_eq!(client.text().await.unwrap(), r#"{"result":[],"id":5}"#);
    sim.stop().await;
}

#[tokio::test]
async fn streams_can_stand_in_the_address() {
    let sim = Sim::generated().await;
    let mut raw = sim.connect("/ws/btcusdt@trade/ethusdt@trade").await;
    assert_eq!(raw.json().await["e"], "trade");
    let mut combined =
        sim.connect("/stream?streams=btcusdt@aggTrade/%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9Fusdt@bookTicker").await;
    let mut seen = std::collections::HashSet::new();
    while seen.len() < 2 {
        seen.insert(combined.json().await["stream"].as_str().unwrap().to_owned());
    }
    assert!(seen.contains("币安人生usdt@bookTicker"), "{seen:?}");
    sim.stop().await;
}

#[tokio::test]
async fn too_many_messages_or_streams_end_the_connection() {
    let sim = Sim::generated().await;
    let mut hasty = sim.connect("/ws").await;
    for _ in 0..6 {
        hasty.send(r#"{"method":"LIST_SUBSCRIPTIONS","id":1}"#).await;
    }
    assert_eq!(hasty.end().await, Ended::Closed(1008, "Too many requests".into()));
    let names: Vec<String> = (0..1025).map(|n| format!("s{n}usdt@trade")).collect();
    let mut greedy = sim.connect("/ws").await;
    greedy.send(&serde_json::json!({ "method": "SUBSCRIBE", "params": names, "id": 1 }).to_string()).await;
    assert_eq!(greedy.json().await["code"], 4);
    assert_eq!(greedy.end().await, Ended::Closed(1008, "Invalid request".into()));
    sim.stop().await;
}

#[tokio::test]
async fn pings_must_be_answered() {
    let limits =
        Limits { ping_every: Duration::from_millis(300), pong_within: Duration::from_millis(700), ..Limits::default() };
    let source = Source::Generated { symbols: vec!["BTCUSDT".into()], rate: 0, seed: 1 };
    let sim = Sim::start(source, limits).await;

    let mut polite = sim.connect("/ws").await;
    let mut pings = 0;
    while pings < 4 {
        let message = tokio::time::timeout(DEADLINE, polite.socket.next()).await.unwrap().unwrap().unwrap();
        pings += usize::from(matches!(message, Message::Ping(_)));
    }

    let mut rude = TcpStream::connect(sim.address).await.unwrap();
    let head = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    rude.write_all(head.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    tokio::time::timeout(DEADLINE, rude.read_to_end(&mut received)).await.expect("it is sent away").unwrap();
    assert!(received.windows(12).any(|bytes| bytes == b"Pong timeout"));
    sim.stop().await;
}

#[tokio::test]
async fn connections_end_with_their_lifetime_and_with_the_server() {
    let limits = Limits { lifetime: Duration::from_millis(50), ..Limits::default() };
    let source = Source::Generated { symbols: vec!["BTCUSDT".into()], rate: 0, seed: 1 };
    let sim = Sim::start(source, limits).await;
    assert!(matches!(sim.connect("/ws").await.end().await, Ended::Closed(1008, _)));
    sim.stop().await;
    let sim = Sim::generated().await;
    let mut client = sim.connect("/ws/btcusdt@trade").await;
    client.text().await.unwrap();
    sim.cancel.cancel();
    assert_eq!(client.end().await, Ended::Closed(1001, String::new()));
    sim.stop().await;
}

#[tokio::test]
async fn rest_refuses_in_the_words_of_the_venue_and_counts_weight() {
    let sim = Sim::generated().await;
    assert_eq!(sim.response("/readyz").await.status(), 200, "no venue has that: it is for health checks");
    assert_eq!(sim.get("/api/v3/ping").await, serde_json::json!({}));
    assert!(int(&sim.get("/api/v3/time").await["serverTime"]) > 1_700_000_000_000);
    let info = sim.get("/api/v3/exchangeInfo?symbols=%5B%22ETHUSDT%22%5D").await;
    assert_eq!((&info["symbols"][0]["baseAsset"], &info["symbols"][0]["quoteAsset"]), (&"ETH".into(), &"USDT".into()));
    assert_eq!(sim.get("/api/v3/exchangeInfo").await["symbols"].as_array().map(Vec::len), Some(3));
    for (target, status, code) in [
        ("/api/v3/depth?symbol=NOSUCH", 400, -1121),
        ("/api/v3/depth?symbol=btcusdt", 400, -1100),
        ("/api/v3/depth", 400, -1102),
        ("/api/v3/depth?symbol=BTCUSDT&limit=x", 400, -1102),
        ("/api/v3/klines?symbol=BTCUSDT&interval=7m", 400, -1120),
        ("/api/v3/nothing", 404, -1000),
    ] {
        let response = sim.response(target).await;
        assert_eq!(response.status(), status, "{target}");
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(body["code"], code, "{target}");
    }
    let used = |response: reqwest::Response| -> i64 {
        response.headers()["x-mbx-used-weight-1m"].to_str().unwrap().parse().unwrap()
    };
    // The count starts anew with the minute, so two requests may lie on both sides of it; then ask again.
    let mut differences = Vec::new();
    while !differences.contains(&250) && differences.len() < 3 {
        let before = used(sim.response("/api/v3/ping").await);
        differences.push(used(sim.response("/api/v3/depth?symbol=BTCUSDT&limit=5000").await) - before);
    }
    assert!(differences.contains(&250), "{differences:?}");
    for (limit, levels) in [("5", 5), ("100", 100), ("", 100)] {
        let book = sim
            .get(&format!(
                "/api/v3/depth?symbol=BTCUSDT{}",
                if limit.is_empty() { String::new() } else { format!("&limit={limit}") }
            ))
            .await;
        assert_eq!(book["bids"].as_array().map(Vec::len), Some(levels));
    }
    sim.stop().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_at_the_start() {
    let generated = |symbols: &[&str]| Source::Generated {
        symbols: symbols.iter().map(|&symbol| symbol.into()).collect(),
        rate: 1,
        seed: 1,
    };
    let recorded = |file: &str, speed| Source::Recorded { file: file.into(), speed };
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/binance/spot_2021-10-12.jsonl");
    for source in [
        generated(&[]),
        generated(&["btcusdt"]),
        generated(&["A\"B"]),
        generated(&["A", "A"]),
        recorded("/nowhere", 1.0),
        recorded(fixture, 0.0),
        recorded(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), 1.0),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = SimConfig { source: source.clone(), limits: Limits::default() };
        let outcome = tokio::time::timeout(DEADLINE, sim::serve(listener, config, CancellationToken::new())).await;
        assert!(outcome.unwrap().is_err(), "{source:?}");
    }
}
