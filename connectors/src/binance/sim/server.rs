//! The listener: REST and WebSockets on one port.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use hyper::body::Incoming;
use hyper::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::Limits;
use super::connection::Connection;
use super::fault::Fault;
use super::hub::{Client, ClientId, QUEUE_FRAMES, Route};
use super::query::Target;
use super::rest::Reply;
use super::world::Command;
use crate::binance::market::Market;

/// How long a client may take to send the head of a request.
const HEADER_WITHIN: Duration = Duration::from_secs(10);

/// How many sockets may be open at once; one more is dropped.
const MOST_SOCKETS: usize = 4096;

/// The largest message of a client: 1024 names fit.
const MESSAGE_BYTES: usize = 256 << 10;

/// The largest body of a fault.
const FAULT_BYTES: usize = 1 << 20;

/// Who runs which market.
#[derive(Default)]
pub(super) struct Worlds(Vec<(&'static Market, mpsc::Sender<Command>)>);

impl Worlds {
    pub(super) fn add(&mut self, market: &'static Market, world: mpsc::Sender<Command>) {
        self.0.push((market, world));
    }

    fn of(&self, target: &Target) -> Option<mpsc::Sender<Command>> {
        let market = target.market();
        self.0.iter().find(|(known, _)| *known == market).map(|(_, world)| world.clone())
    }
}

/// What every request needs.
pub(super) struct Server {
    worlds: Worlds,
    limits: Limits,
    /// The present at `started`, in milliseconds.
    epoch: i64,
    started: Instant,
    next_client: AtomicU64,
    connections: TaskTracker,
    cancel: CancellationToken,
}

impl Server {
    pub(super) fn new(worlds: Worlds, limits: Limits, epoch: i64, cancel: CancellationToken) -> Self {
        Self {
            worlds,
            limits,
            epoch,
            started: Instant::now(),
            next_client: AtomicU64::new(1),
            connections: TaskTracker::new(),
            cancel,
        }
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
                Ok((socket, _)) if server.connections.len() < MOST_SOCKETS => {
                    server.connections.spawn(serve_http(Arc::clone(&server), socket));
                }
                Ok(_) => warn!("a connection is dropped: {MOST_SOCKETS} are open"),
                // Out of file descriptors, most likely; others have to close before it gets better.
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        server.connections.close();
        server.connections.wait().await;
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let target = request.uri().path_and_query().and_then(|target| Target::parse(target.as_str()));
        let Some(target) = target else {
            return text(StatusCode::BAD_REQUEST, "the address is not text in percent-encoding");
        };
        let Some(world) = self.worlds.of(&target) else {
            return text(StatusCode::NOT_FOUND, "the recording is of another market");
        };
        let (route, path) = route(&target.path);
        match (request.method(), path) {
            (&Method::GET, "/ws" | "/stream") => self.upgrade(request, &target, route, world),
            (&Method::GET, path) if path.starts_with("/ws/") => self.upgrade(request, &target, route, world),
            (&Method::GET, _) => rest(&world, target).await,
            (&Method::POST, "/sim/fault") => fault(&world, request).await,
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "only GET, and POST to /sim/fault"),
        }
    }

    fn upgrade(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        target: &Target,
        route: Route,
        world: mpsc::Sender<Command>,
    ) -> Response<Body> {
        let response = match create_response_with_body(&request, Body::empty) {
            Ok(response) => response,
            Err(error) => return text(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        let path = self::route(&target.path).1;
        let combined = path == "/stream";
        let named = if combined { target.parameter("streams") } else { path.strip_prefix("/ws/") };
        let streams = named.unwrap_or_default().split('/').filter(|name| !name.is_empty()).map(str::to_owned);
        let streams = streams.collect();
        let upgrade = hyper::upgrade::on(&mut request);
        let server = Arc::clone(self);
        self.connections.spawn(async move {
            match upgrade.await {
                Ok(upgraded) => {
                    let asked = Asked { world, route, combined, streams };
                    server.serve_client(upgraded, asked).await;
                }
                Err(error) => debug!(%error, "a client left during the handshake"),
            }
        });
        response
    }

    async fn serve_client(&self, upgraded: hyper::upgrade::Upgraded, asked: Asked) {
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
        let Asked { world, route, combined, streams } = asked;
        let client = Client { combined, queue: sender, cut: cut.clone(), streams: Vec::new(), route };
        if world.send(Command::Join { id, client, streams }).await.is_err() {
            return;
        }
        let connection = Connection {
            id,
            socket,
            queue,
            world,
            limits: route.limits(self.limits),
            messages_per_second: route.messages_per_second(),
            epoch: self.epoch,
            started: self.started,
        };
        connection.run(cut, self.cancel.clone()).await;
    }
}

/// What the address of a client says.
struct Asked {
    world: mpsc::Sender<Command>,
    route: Route,
    combined: bool,
    streams: Vec<String>,
}

/// Which streams a path carries, and the path without saying so.
fn route(path: &str) -> (Route, &str) {
    match (path.strip_prefix("/public"), path.strip_prefix("/market")) {
        (Some(rest), _) => (Route::Book, rest),
        (None, Some(rest)) => (Route::Tape, rest),
        (None, None) => (Route::All, path),
    }
}

async fn rest(world: &mpsc::Sender<Command>, target: Target) -> Response<Body> {
    let Some(reply) = ask(world, |reply| Command::Rest { target, reply }).await else { return stopping() };
    let Reply { status, body, used_weight, retry_after } = reply;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json;charset=UTF-8"));
    headers.insert("x-mbx-used-weight-1m", used_weight.into());
    if let Some(seconds) = retry_after {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

async fn fault(world: &mpsc::Sender<Command>, request: Request<Incoming>) -> Response<Body> {
    let Ok(body) = to_bytes(Body::new(request.into_body()), FAULT_BYTES).await else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "the body is cut or too large");
    };
    let fault: Fault = match serde_json::from_slice(&body) {
        Ok(fault) => fault,
        Err(error) => return text(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    match ask(world, |reply| Command::Fault { fault, reply }).await {
        Some(Ok(())) => text(StatusCode::OK, "ok"),
        Some(Err(reason)) => text(StatusCode::BAD_REQUEST, &reason),
        None => stopping(),
    }
}

/// Asks the world; `None` when it has stopped.
async fn ask<T>(world: &mpsc::Sender<Command>, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
    let (sender, answer) = oneshot::channel();
    world.send(command(sender)).await.ok()?;
    answer.await.ok()
}

async fn serve_http(server: Arc<Server>, socket: TcpStream) {
    // Without it, small frames would wait for the acknowledgement of the ones before; it fails on closed sockets only.
    let _ = socket.set_nodelay(true);
    let cancel = server.cancel.clone();
    let service = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(server.answer(request).await) }
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

fn text(status: StatusCode, reason: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{reason}\n")));
    *response.status_mut() = status;
    response
}

fn stopping() -> Response<Body> {
    text(StatusCode::SERVICE_UNAVAILABLE, "the stand-in is stopping")
}
