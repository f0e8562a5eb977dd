//! The Binance stand-in as its clients see it.

mod book;
mod control;
mod faults;
mod playback;

use std::net::SocketAddr;
use std::time::Duration;

use akis_connectors::binance::sim::{self, Limits, SimConfig};
use akis_connectors::sim::{SimError, Source};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};
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
        Self { address, cancel, served, http: reqwest::Client::new() }
    }

    /// Busy enough that a test need not wait.
    async fn generated() -> Self {
        let symbols = ["BTCUSDT", "ETHUSDT", "币安人生USDT"].map(String::from).to_vec();
        Self::start(Source::Generated { symbols, rate: 1000, seed: 42 }, Limits::default()).await
    }

    async fn connect(&self, target: &str) -> Client {
        let socket = TcpStream::connect(self.address).await.unwrap();
        let url = format!("ws://{}{target}", self.address);
        let (socket, _) = tokio_tungstenite::client_async(url, socket).await.unwrap();
        Client { socket }
    }

    async fn response(&self, target: &str) -> reqwest::Response {
        self.http.get(format!("http://{}{target}", self.address)).send().await.unwrap()
    }

    async fn get(&self, target: &str) -> Value {
        let response = self.response(target).await;
        assert_eq!(response.status(), 200, "{target}");
        serde_json::from_str(&response.text().await.unwrap()).unwrap()
    }

    /// Asks for a fault and returns the status.
    async fn fault(&self, fault: Value) -> u16 {
        let url = format!("http://{}/sim/fault", self.address);
        let response = self.http.post(url).body(fault.to_string()).send().await.unwrap();
        response.status().as_u16()
    }

    async fn stop(self) {
        self.cancel.cancel();
        tokio::time::timeout(DEADLINE, self.served).await.expect("it stops").unwrap().unwrap();
    }
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Closed(u16, String),
    Cut,
}

struct Client {
    socket: WebSocketStream<TcpStream>,
}

impl Client {
    async fn send(&mut self, text: &str) {
        self.socket.send(Message::Text(text.into())).await.unwrap();
    }

    /// The next text frame, or how the connection ended.
    async fn text(&mut self) -> Result<String, Ended> {
        loop {
            let message =
                tokio::time::timeout(DEADLINE, self.socket.next()).await.expect("a frame before the deadline");
            match message {
                Some(Ok(Message::Text(text))) => return Ok(text.as_str().into()),
                Some(Ok(Message::Close(Some(close)))) => {
                    // Reading on answers the close.
                    while let Some(Ok(_)) = self.socket.next().await {}
                    return Err(Ended::Closed(close.code.into(), close.reason.as_str().into()));
                }
                Some(Ok(_)) => {}
                Some(Err(Error::Io(_) | Error::Protocol(_))) | None => return Err(Ended::Cut),
                Some(Err(error)) => panic!("{error}"),
            }
        }
    }

    async fn json(&mut self) -> Value {
        serde_json::from_str(&self.text().await.unwrap()).unwrap()
    }

    /// The payload of the next frame of a stream that passes.
    async fn next(&mut self, stream: &str, passes: impl Fn(&Value) -> bool) -> Value {
        loop {
            let mut frame = self.json().await;
            if frame["stream"] == stream && passes(&frame["data"]) {
                return frame["data"].take();
            }
        }
    }

    async fn end(&mut self) -> Ended {
        loop {
            if let Err(ended) = self.text().await {
                return ended;
            }
        }
    }
}

fn int(value: &Value) -> i64 {
    value.as_i64().unwrap()
}
