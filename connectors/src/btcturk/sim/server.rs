//! The listener: REST and WebSockets on one port.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use futures_util::stream;
use hyper::body::Incoming;
use hyper::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::Limits;
use super::clients::{Client, ClientId, QUEUE_FRAMES};
use super::connection::Connection;
use super::fault::Fault;
use super::rest::Reply;
use super::world::Command;

/// How long a client may take to send the head of a request.
const HEADER_WITHIN: Duration = Duration::from_secs(10);

/// How many sockets may be open at once; one more is dropped.
const MOST_SOCKETS: usize = 4096;

/// The largest message of a client.
const MESSAGE_BYTES: usize = 64 << 10;

/// The largest body of a fault.
const FAULT_BYTES: usize = 1 << 20;

/// Who opens too many connections within this time gets none for as long again.
const DOOR: Duration = Duration::from_secs(60);

/// Time between two bytes of a reply that drips.
const DRIP: Duration = Duration::from_millis(200);

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
        loop {
            let accepted = tokio::select! {
                () = server.cancel.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, from)) if server.connections.len() < MOST_SOCKETS => {
                    server.connections.spawn(serve_http(Arc::clone(&server), socket, from.ip()));
                }
                Ok(_) => warn!("a connection is dropped: {MOST_SOCKETS} are open"),
                // Out of file descriptors, most likely; others have to close before it gets better.
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
        server.connections.close();
        server.connections.wait().await;
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, from: IpAddr) -> Response<Body> {
        let target = request.uri().path_and_query().map(|target| target.as_str().to_owned()).unwrap_or_default();
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/") => self.upgrade(request, from),
            (&Method::GET, _) => self.rest(target).await,
            (&Method::POST, "/sim/fault") => self.fault(request).await,
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "only GET, and POST to /sim/fault"),
        }
    }

    async fn rest(&self, target: String) -> Response<Body> {
        let Some(reply) = self.ask(|reply| Command::Rest { target, reply }).await else { return stopping() };
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

    async fn fault(&self, request: Request<Incoming>) -> Response<Body> {
        let Ok(body) = to_bytes(Body::new(request.into_body()), FAULT_BYTES).await else {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "the body is cut or too large");
        };
        let fault: Fault = match serde_json::from_slice(&body) {
            Ok(fault) => fault,
            Err(error) => return text(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        match self.ask(|reply| Command::Fault { fault, reply }).await {
            Some(Ok(())) => text(StatusCode::OK, "ok"),
            Some(Err(reason)) => text(StatusCode::BAD_REQUEST, &reason),
            None => stopping(),
        }
    }

    /// Asks the world; `None` when it has stopped.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (sender, answer) = oneshot::channel();
        self.world.send(command(sender)).await.ok()?;
        answer.await.ok()
    }

    fn upgrade(self: &Arc<Self>, mut request: Request<Incoming>, from: IpAddr) -> Response<Body> {
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
        let upgrade = hyper::upgrade::on(&mut request);
        let server = Arc::clone(self);
        self.connections.spawn(async move {
            match upgrade.await {
                Ok(upgraded) => server.serve_client(upgraded).await,
                Err(error) => debug!(%error, "a client left during the handshake"),
            }
        });
        response
    }

    async fn serve_client(&self, upgraded: hyper::upgrade::Upgraded) {
        let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else { return };
        let config = WebSocketConfig::default()
            .read_buffer_size(16 << 10)
            .max_message_size(Some(MESSAGE_BYTES))
            .max_frame_size(Some(MESSAGE_BYTES));
        let socket = WebSocketStream::from_partially_read(
            parts.io.into_inner(),
            parts.read_buf.into(),
            Role::Server,
            Some(config),
        )
        .await;
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

async fn serve_http(server: Arc<Server>, socket: TcpStream, from: IpAddr) {
    // Without it, small frames would wait for the acknowledgement of the ones before; it fails on closed sockets only.
    let _ = socket.set_nodelay(true);
    let cancel = server.cancel.clone();
    let service = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(server.answer(request, from).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WITHIN)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    tokio::select! {
        () = cancel.cancelled() => {}
        outcome = connection => if let Err(error) = outcome {
            debug!(%error, "a client left in the middle of a request");
        }
    }
}

/// A body that comes byte by byte.
fn dripping(body: String) -> Body {
    let bytes = Bytes::from(body);
    Body::from_stream(stream::unfold(bytes, |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        sleep(DRIP).await;
        let byte = rest.split_to(1);
        Some((Ok::<_, Infallible>(byte), rest))
    }))
}

fn text(status: StatusCode, reason: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{reason}\n")));
    *response.status_mut() = status;
    response
}

fn stopping() -> Response<Body> {
    text(StatusCode::SERVICE_UNAVAILABLE, "the stand-in is stopping")
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
