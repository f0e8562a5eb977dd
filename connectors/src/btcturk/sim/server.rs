//! The listener: REST and WebSockets on one port.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Limits;
use super::clients::Client;
use super::connection::Connection;
use super::rest::Reply;
use super::world::Command;
use crate::sim::client::{ClientId, QUEUE_FRAMES};
use crate::sim::listener::{
    MOST_HTTP_SOCKETS, accept, ask, dripping, serve_http, stopping, take_fault, text, websocket,
};

/// The largest message of a client.
const MESSAGE_BYTES: usize = 64 << 10;

/// Who opens too many connections within this time gets none for as long again.
const DOOR: Duration = Duration::from_secs(60);

/// What every request needs.
pub(super) struct Server {
    world: mpsc::Sender<Command>,
    limits: Limits,
    frozen: watch::Receiver<bool>,
    next_client: AtomicU64,
    doors: Mutex<BTreeMap<IpAddr, Door>>,
    connections: TaskTracker,
    cancel: CancellationToken,
}

/// The connections that an address has opened lately.
#[derive(Debug, Default)]
struct Door {
    opened: VecDeque<Instant>,
    shut_until: Option<Instant>,
}

impl Door {
    /// Takes note of a connection; when it is one too many, says for how long there will be none.
    fn open(&mut self, most: usize, now: Instant) -> Result<(), Duration> {
        if let Some(until) = self.shut_until.filter(|until| *until > now) {
            return Err(until - now);
        }
        while self.opened.front().is_some_and(|&at| now.duration_since(at) >= DOOR) {
            self.opened.pop_front();
        }
        if self.opened.len() >= most {
            self.shut_until = Some(now + DOOR);
            return Err(DOOR);
        }
        self.opened.push_back(now);
        Ok(())
    }
}

impl Server {
    pub(super) fn new(
        world: mpsc::Sender<Command>,
        limits: Limits,
        frozen: watch::Receiver<bool>,
        cancel: CancellationToken,
    ) -> Self {
        let (next_client, doors) = (AtomicU64::new(1), Mutex::default());
        Self { world, limits, frozen, next_client, doors, connections: TaskTracker::new(), cancel }
    }

    /// Accepts until cancelled, then waits for all connections to end.
    pub(super) async fn run(self, listener: TcpListener) {
        let server = Arc::new(self);
        let serve = |socket, from| {
            let (answering, cancel) = (Arc::clone(&server), server.cancel.clone());
            serve_http(socket, cancel, move |request| Arc::clone(&answering).answer(request, from))
        };
        accept(listener, MOST_HTTP_SOCKETS, &server.connections, &server.cancel, serve).await;
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, from: IpAddr) -> Response<Body> {
        let target = request.uri().path_and_query().map(|target| target.as_str().to_owned()).unwrap_or_default();
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/") => self.upgrade(request, from),
            (&Method::GET, _) => self.rest(target).await,
            (&Method::POST, "/sim/fault") => {
                take_fault(&self.world, request, |fault, reply| Command::Fault { fault, reply }).await
            }
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "only GET, and POST to /sim/fault"),
        }
    }

    async fn rest(&self, target: String) -> Response<Body> {
        let Some(reply) = ask(&self.world, |reply| Command::Rest { target, reply }).await else { return stopping() };
        let Reply { status, body, retry_after, dripped } = reply;
        let mut response = Response::new(if dripped { dripping(body) } else { Body::from(body) });
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }

    fn upgrade(self: &Arc<Self>, request: Request<Incoming>, from: IpAddr) -> Response<Body> {
        let response = match create_response_with_body(&request, Body::empty) {
            Ok(response) => response,
            Err(error) => return text(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        let opened = {
            let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
            doors.entry(from).or_default().open(self.limits.connects_per_minute, Instant::now())
        };
        if let Err(shut_for) = opened {
            let mut refusal = text(StatusCode::TOO_MANY_REQUESTS, "too many connections");
            refusal.headers_mut().insert(header::RETRY_AFTER, (shut_for.as_secs() + 1).into());
            return refusal;
        }
        let (socket, server) = (websocket(request, MESSAGE_BYTES), Arc::clone(self));
        self.connections.spawn(async move {
            if let Some(socket) = socket.await {
                server.serve_client(socket).await;
            }
        });
        response
    }

    async fn serve_client(&self, socket: WebSocketStream<TcpStream>) {
        let id: ClientId = self.next_client.fetch_add(1, Ordering::Relaxed);
        let (sender, queue) = mpsc::channel(QUEUE_FRAMES);
        let cut = CancellationToken::new();
        let client = Client { queue: sender, cut: cut.clone(), joined: BTreeMap::new() };
        if self.world.send(Command::Add { id, client }).await.is_err() {
            return;
        }
        let (world, limits, frozen) = (self.world.clone(), self.limits, self.frozen.clone());
        Connection { id, socket, queue, world, limits, frozen }.run(cut, self.cancel.clone()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sixteenth_connection_of_a_minute_shuts_the_door_for_another_one() {
        let start = Instant::now();
        let mut door = Door::default();
        for second in 0..15 {
            assert_eq!(door.open(15, start + Duration::from_secs(second)), Ok(()));
        }
        assert_eq!(door.open(15, start + Duration::from_secs(15)), Err(DOOR));
        assert_eq!(door.open(15, start + Duration::from_secs(61)), Err(Duration::from_secs(14)));
        assert_eq!(door.open(15, start + Duration::from_secs(75)), Ok(()));
    }
}
