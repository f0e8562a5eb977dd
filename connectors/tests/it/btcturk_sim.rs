//! The BtcTurk stand-in as its clients see it.

mod faults;
mod playback;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use akis_connectors::btcturk::sim::{self, Limits, SimConfig};
use akis_connectors::sim::{SimError, Source};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

/// How long anything may take before a test gives up.
const DEADLINE: Duration = Duration::from_secs(20);

/// A stand-in on a port of its own.
struct Sim {
    address: SocketAddr,
    cancel: CancellationToken,
    served: JoinHandle<Result<(), SimError>>,
    http: reqwest::Client,
}

impl Sim {
    async fn start(source: Source, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cancel = CancellationToken::new();
        let served = tokio::spawn(sim::serve(listener, SimConfig { source, limits }, cancel.clone()));
        Self { address, cancel, served, http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    async fn generated() -> Self {
        let symbols = ["BTCTRY", "ETHTRY"].map(String::from).to_vec();
        Self::start(Source::Generated { symbols, rate: 500, seed: 42 }, Limits::default()).await
    }

    /// A client that has heard the version.
    async fn connect(&self) -> Client {
        let socket = TcpStream::connect(self.address).await.unwrap();
        let (socket, _) = tokio_tungstenite::client_async(format!("ws://{}/", self.address), socket).await.unwrap();
        let mut client = Client { socket };
        assert_eq!(client.frame().await.unwrap()[0], 991, "the version comes first");
        client
    }

    async fn get(&self, target: &str) -> (u16, Value) {
        let response = self.http.get(format!("http://{}{target}", self.address)).send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap_or(Value::Null))
    }

    /// Asks for a fault and returns the status.
    async fn fault(&self, fault: Value) -> u16 {
        let url = format!("http://{}/sim/fault", self.address);
        self.http.post(url).body(fault.to_string()).send().await.unwrap().status().as_u16()
    }

    async fn stop(self) {
        self.cancel.cancel();
        tokio::time::timeout(DEADLINE, self.served).await.expect("it stops").unwrap().unwrap();
    }
}

struct Client {
    socket: WebSocketStream<TcpStream>,
}

impl Client {
    async fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    async fn join(&mut self, channel: &str, event: &str, join: bool) {
        self.send(&json!([151, {"type": 151, "channel": channel, "event": event, "join": join}]).to_string()).await;
    }

    /// The next text, or the code with which the connection ended (1006 without one).
    async fn text(&mut self) -> Result<String, u16> {
        loop {
            let message = tokio::time::timeout(DEADLINE, self.socket.next()).await.expect("a frame in time");
            match message {
                Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
                Some(Ok(Message::Close(frame))) => return Err(frame.map_or(1006, |frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(1006),
            }
        }
    }

    async fn frame(&mut self) -> Result<Value, u16> {
        self.text().await.map(|text| serde_json::from_str(&text).unwrap())
    }

    /// What the next frame of a type holds.
    async fn next(&mut self, kind: i64) -> Value {
        loop {
            let mut frame = self.frame().await.unwrap();
            if frame[0] == kind {
                assert_eq!(frame[1]["type"], kind);
                return frame[1].take();
            }
        }
    }
}

#[tokio::test]
async fn nonsense_is_acknowledged_and_silent() {
    let sim = Sim::generated().await;
    let mut client = sim.connect().await;
    for sent in ["nonsense", "{}", "[999,{}]", r#"[151,{"channel":"obdiff","event":["BTCTRY"],"join":true}]"#] {
        client.send(sent).await;
    }
    for event in ["NOPETRY", "btctry", "all"] {
        client.join("obdiff", event, true).await;
        let answer = client.frame().await.unwrap();
        assert_eq!(answer, json!([100, {"type": 100, "ok": true, "message": format!("join|obdiff:{event}")}]));
    }
    client.join("obdiff", "BTCTRY", true).await;
    assert_eq!(client.next(100).await["ok"], true);
    assert_eq!(client.next(431).await["PS"], "BTCTRY");
    client.join("obdiff", "BTCTRY", true).await;
    assert_eq!(client.next(100).await["ok"], false, "joined already");
    client.next(432).await;
    client.join("obdiff", "BTCTRY", false).await;
    assert_eq!(client.next(100).await["message"], "leave|obdiff:BTCTRY");
    sim.stop().await;
}

/// A side by price, as the venue's texts.
type Side = BTreeMap<u64, String>;

fn set(side: &mut Side, levels: &Value) {
    for level in levels.as_array().unwrap() {
        let price = level["P"].as_str().unwrap().parse().unwrap();
        if level["CP"] == 3 {
            side.remove(&price);
        } else {
            side.insert(price, level["A"].as_str().unwrap().to_owned());
        }
    }
}

#[tokio::test]
async fn differences_build_the_window_of_another_subscription_with_its_own_numbers() {
    let sim = Sim::generated().await;
    let (mut client, mut other) = (sim.connect().await, sim.connect().await);
    client.join("obdiff", "BTCTRY", true).await;
    let whole = client.next(431).await;
    let (mut bids, mut asks, mut number) = (Side::new(), Side::new(), whole["CS"].as_i64().unwrap());
    set(&mut bids, &whole["BO"]);
    set(&mut asks, &whole["AO"]);
    assert_eq!((bids.len(), asks.len()), (100, 100));
    let mut pushed_out = 0;
    for _ in 0..12 {
        let difference = client.next(432).await;
        number += 1;
        assert_eq!(difference["CS"], number);
        let worst = *bids.first_key_value().unwrap().0;
        let gone = difference["BO"].as_array().unwrap().iter().filter(|level| level["CP"] == 3);
        pushed_out += gone.filter(|level| level["P"].as_str() == Some(&worst.to_string())).count();
        set(&mut bids, &difference["BO"]);
        set(&mut asks, &difference["AO"]);
        assert!(bids.len() <= 100 && asks.len() <= 100, "the window is never wider");
    }
    assert!(pushed_out > 0, "levels that enter push others out");
    other.join("orderbook", "BTCTRY", true).await;
    let seen = other.next(431).await;
    assert_ne!(seen["CS"], number, "it counts on its own");
    // The next difference may already be on its way to this client: then the one after it is the same state.
    let is_equal = |bids: &Side| {
        let mut expected = Side::new();
        set(&mut expected, &seen["BO"]);
        *bids == expected
    };
    for _ in 0..2 {
        if is_equal(&bids) {
            break;
        }
        let difference = client.next(432).await;
        set(&mut bids, &difference["BO"]);
    }
    assert!(is_equal(&bids));
    sim.stop().await;
}

#[tokio::test]
async fn tickers_trades_and_candles_have_the_venues_shapes() {
    let sim = Sim::generated().await;
    let mut client = sim.connect().await;
    for (channel, event) in [("ticker", "all"), ("ticker", "BTCTRY"), ("trade", "BTCTRY"), ("tradeview", "BTCTRY_1")] {
        client.join(channel, event, true).await;
    }
    let list = client.next(421).await;
    assert_eq!((list["symbol"].as_str(), list["items"].as_array().map(Vec::len)), (Some("BTCTRY"), Some(50)));
    let trade = client.next(422).await;
    assert!(trade["D"].is_string() && trade["I"].is_string() && trade["S"].is_i64(), "{trade}");
    assert!(trade["P"].as_str().unwrap().ends_with(".0000000000"), "trailing zeros: {trade}");
    let candle = client.next(428).await;
    assert_eq!(candle["D"].as_i64().unwrap() % 60, 0, "seconds: {candle}");
    assert_eq!(client.next(401).await["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(client.next(402).await["DS"], "TRY");
    sim.stop().await;
}

#[tokio::test]
async fn rest_answers_as_the_venue_does() {
    let sim = Sim::generated().await;
    assert_eq!(sim.get("/readyz").await.0, 200, "the venue does not have that: it is for health checks");
    let (status, book) = sim.get("/api/v2/orderbook?pairSymbol=btc_try&limit=5").await;
    assert_eq!((status, book["data"]["bids"].as_array().map(Vec::len)), (200, Some(5)));
    let (status, refusal) = sim.get("/api/v2/orderbook?pairSymbol=NOPEUSDT").await;
    assert_eq!((status, refusal["message"].as_str()), (400, Some("Pair NOPEUSDT does not exists.")));
    assert_eq!(sim.get("/api/v2/orderbook").await.1["message"], "INVALID_REQUEST_ERROR");
    assert_eq!(sim.get("/api/v2/ticker?pairSymbol=NOPEUSDT").await.1["data"], json!([]));
    assert!(sim.get("/api/v2/ticker?pairSymbol=BTCTRY").await.1["data"][0]["last"].is_number());
    assert_eq!(sim.get("/api/v2/server/exchangeinfo").await.1["data"]["symbols"][1]["nameNormalized"], "ETH_TRY");
    let (_, klines) = sim.get("/v1/klines/history?symbol=BTCTRY&resolution=60&from=0&to=99999999999").await;
    assert_eq!((klines["s"].as_str(), klines["o"][0].is_number()), (Some("ok"), true));
    assert_eq!(sim.get("/nothing").await.0, 404);
    for _ in 0..175 {
        sim.get("/api/v2/orderbook?pairSymbol=BTCTRY").await;
    }
    let (status, body) = sim.get("/api/v2/orderbook?pairSymbol=BTCTRY").await;
    assert_eq!((status, body["message"].as_str()), (200, None));
    while sim.get("/api/v2/orderbook?pairSymbol=BTCTRY").await.0 == 200 {}
    sim.stop().await;
}

#[tokio::test]
async fn pings_must_be_answered_and_connections_are_counted() {
    let limits = Limits {
        ping_every: Duration::from_millis(100),
        pong_within: Duration::from_millis(700),
        connects_per_minute: 2,
    };
    let source = Source::Generated { symbols: vec!["BTCTRY".into()], rate: 0, seed: 1 };
    let sim = Sim::start(source, limits).await;
    let mut polite = sim.connect().await;
    // A client that only reads: it answers no ping.
    let mut rude = TcpStream::connect(sim.address).await.unwrap();
    let head = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    rude.write_all(head.as_bytes()).await.unwrap();
    let heard = tokio::spawn(async move {
        let mut bytes = Vec::new();
        rude.read_to_end(&mut bytes).await.unwrap();
        bytes
    });
    let mut pings = 0;
    while pings < 12 {
        let message = tokio::time::timeout(DEADLINE, polite.socket.next()).await.unwrap().unwrap().unwrap();
        pings += usize::from(matches!(message, Message::Ping(_)));
    }
    let heard = tokio::time::timeout(DEADLINE, heard).await.expect("it is sent away").unwrap();
    assert!(heard.ends_with(&[0x88, 2, 0x03, 0xe8]), "closed with 1000 and no reason");
    let third = TcpStream::connect(sim.address).await.unwrap();
    let refused = tokio_tungstenite::client_async(format!("ws://{}/", sim.address), third).await;
    assert!(refused.is_err(), "one too many in a minute");
    sim.stop().await;
}
