//! The listener: REST and WebSockets on one port.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
use super::connection::Connection;
use super::hub::{Client, Route};
use super::query::Target;
use super::rest::Reply;
use super::world::Command;
use crate::binance::market::Market;
use crate::sim::client::{ClientId, QUEUE_FRAMES};
use crate::sim::listener::{
    MOST_HTTP_SOCKETS, accept, ask, dripping, serve_http, stopping, take_fault, text, websocket,
};

/// The largest message of a client: 1024 names fit.
const MESSAGE_BYTES: usize = 256 << 10;

/// Who runs which market.
#[derive(Default)]
pub(super) struct Worlds(Vec<(&'static Market, World)>);

/// How a world is spoken to.
#[derive(Clone)]
pub(super) struct World {
    pub(super) commands: mpsc::Sender<Command>,
    /// True while nothing is to move.
    pub(super) frozen: watch::Receiver<bool>,
}

impl Worlds {
    pub(super) fn add(&mut self, market: &'static Market, world: World) {
        self.0.push((market, world));
    }

    fn of(&self, target: &Target) -> Option<World> {
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
        let serve = |socket, _| {
            let (answering, cancel) = (Arc::clone(&server), server.cancel.clone());
            serve_http(socket, cancel, move |request| Arc::clone(&answering).answer(request))
        };
        accept(listener, MOST_HTTP_SOCKETS, &server.connections, &server.cancel, serve).await;
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
            (&Method::GET, _) => rest(&world.commands, target).await,
            (&Method::POST, "/sim/fault") => {
                take_fault(&world.commands, request, |fault, reply| Command::Fault { fault, reply }).await
            }
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "only GET, and POST to /sim/fault"),
        }
    }

    fn upgrade(
        self: &Arc<Self>,
        request: Request<Incoming>,
        target: &Target,
        route: Route,
        world: World,
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
        let (socket, server) = (websocket(request, MESSAGE_BYTES), Arc::clone(self));
        self.connections.spawn(async move {
            if let Some(socket) = socket.await {
                server.serve_client(socket, Asked { world, route, combined, streams }).await;
            }
        });
        response
    }

    async fn serve_client(&self, socket: WebSocketStream<TcpStream>, asked: Asked) {
        let id: ClientId = self.next_client.fetch_add(1, Ordering::Relaxed);
        let (sender, queue) = mpsc::channel(QUEUE_FRAMES);
        let cut = CancellationToken::new();
        let Asked { world, route, combined, streams } = asked;
        let client = Client { combined, queue: sender, cut: cut.clone(), streams: Vec::new(), route };
        let World { commands, frozen } = world;
        if commands.send(Command::Join { id, client, streams }).await.is_err() {
            return;
        }
        let connection = Connection {
            id,
            socket,
            queue,
            world: commands,
            limits: route.limits(self.limits),
            messages_per_second: route.messages_per_second(),
            epoch: self.epoch,
            started: self.started,
            frozen,
        };
        connection.run(cut, self.cancel.clone()).await;
    }
}

/// What the address of a client says.
struct Asked {
    world: World,
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
    let Reply { status, body, used_weight, retry_after, dripped } = reply;
    let mut response = Response::new(if dripped { dripping(body) } else { Body::from(body) });
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json;charset=UTF-8"));
    headers.insert("x-mbx-used-weight-1m", used_weight.into());
    if let Some(seconds) = retry_after {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    response
}
