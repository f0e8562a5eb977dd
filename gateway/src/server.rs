//! Lets sockets in: the accept loop, the routes, and the end of all of it.

mod admission;
mod direct;
mod entry;
mod proxies;
mod unready;
mod upgrade;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use akis_model::ErrorCode;
use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::http::{Request, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{Html, Response};
use axum::routing::{any, get, post};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{info, warn};

use self::admission::Admissions;
use crate::context::Context;
use crate::problem::Problem;
use crate::publish::{self, PublishRates, PublishTraces};
use crate::rest::{self, Source};
use crate::shard::Shards;
use crate::{cors, sse};

pub(crate) use self::admission::Seat;
pub(crate) use self::entry::{admit, admit_to_stay};
pub use self::unready::turn_away;
pub(crate) use self::upgrade::authorize_request;

/// Head of a request, at most.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// Sockets that are not (yet) WebSockets, of this replica.
const MAX_PLAIN: usize = 4096;

/// What the kernel holds for one client on top of its queue. Without a bound it grows to megabytes before a slow client is noticed.
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// How much longer than the drain time the end may take.
const DRAIN_MARGIN: Duration = Duration::from_secs(2);

/// How long sockets may take to say why, when everything stops at once.
const STOP_WITHIN: Duration = Duration::from_millis(500);

/// What handlers share.
pub(crate) struct App {
    /// What connections share.
    pub(crate) context: Arc<Context>,
    /// Who may come in.
    admissions: Admissions,
    /// Rates of publishers.
    pub(crate) publish_rates: PublishRates,
    /// Which of their requests are traced.
    pub(crate) publish_traces: PublishTraces,
    /// What is read without subscribing.
    pub(crate) source: Source,
    /// Upgraded sockets: each holds a token until it has ended.
    sockets: TaskTracker,
    /// Event streams. Their sockets are not upgraded.
    pub(crate) streams: TaskTracker,
    /// Who serves them.
    shards: Arc<Shards>,
}

impl App {
    /// Clients that are being served.
    fn connections(&self) -> usize {
        self.sockets.len() + self.streams.len()
    }
}

/// The address of the other side, as an extension of requests.
#[derive(Debug, Clone, Copy)]
struct Remote(SocketAddr);

/// Cuts the socket that a request came by, as an extension of requests.
#[derive(Debug, Clone)]
pub(crate) struct Cut(pub(crate) CancellationToken);

/// The HTTP side of a gateway.
pub(crate) struct Server {
    app: Arc<App>,
    router: Router,
    /// Sockets that are not upgraded.
    plain: TaskTracker,
}

impl Server {
    /// A server whose `GET /` serves `page`.
    pub(crate) fn new(context: Arc<Context>, shards: Arc<Shards>, page: Option<&'static str>) -> Self {
        let config = &context.surroundings.config;
        let admissions = Admissions::new(&config.limits, &config.trusted_proxies);
        let app = Arc::new(App {
            admissions,
            publish_rates: PublishRates::default(),
            publish_traces: PublishTraces::new(context.surroundings.metrics.tracer.clone()),
            source: Source::new(Arc::clone(&context)),
            sockets: TaskTracker::new(),
            streams: TaskTracker::new(),
            shards,
            context,
        });
        let pages = Router::new()
            .route("/live/sse", get(sse::stream))
            .route("/v1/snapshot", get(rest::snapshot))
            .route("/v1/history/{channel}", get(rest::history))
            .route("/v1/candles/{channel}", get(rest::candles))
            .route("/v1/channels", get(rest::channels))
            .route("/v1/publish", post(publish::publish))
            .method_not_allowed_fallback(method_not_allowed)
            // Around everything: a browser asks beforehand with a method that no route has.
            .layer(from_fn_with_state(Arc::clone(&app), cors::guard));
        let mut router = Router::new()
            .route("/live", any(upgrade::live))
            .merge(pages)
            .layer(DefaultBodyLimit::disable())
            .fallback(not_found);
        if let Some(page) = page {
            router = router.route("/", get(move || async move { Html(page) }).fallback(method_not_allowed));
        }
        Self { router: router.with_state(Arc::clone(&app)), app, plain: TaskTracker::new() }
    }

    /// Serves until drained or stopped.
    pub(crate) async fn run(
        self,
        listener: TcpListener,
        drain: CancellationToken,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let context = &self.app.context;
        info!(address = %listener.local_addr()?, replica = context.surroundings.config.replica, "gateway listens");
        let drained = async {
            drain.cancelled().await;
            self.drain().await;
        };
        tokio::select! {
            () = self.accept(&listener) => {}
            () = drained => info!("gateway has drained"),
            () = stop.cancelled() => info!("gateway stops at once"),
        }
        context.drain.cancel();
        context.stop.cancel();
        self.app.shards.stop();
        self.app.sockets.close();
        self.app.streams.close();
        self.plain.close();
        let ended = async {
            self.app.sockets.wait().await;
            self.app.streams.wait().await;
            self.plain.wait().await;
        };
        if timeout(STOP_WITHIN, ended).await.is_err() {
            warn!("some sockets did not end in time and are cut off");
        }
        Ok(())
    }

    /// Sends all clients away and waits for them. New ones are still answered, with a refusal.
    async fn drain(&self) {
        let context = &self.app.context;
        let period = context.surroundings.config.drain;
        info!(connections = self.app.connections(), ?period, "gateway drains");
        context.drain.cancel();
        self.app.shards.drain();
        self.app.sockets.close();
        self.app.streams.close();
        let left = async {
            self.app.sockets.wait().await;
            self.app.streams.wait().await;
        };
        if timeout(period + DRAIN_MARGIN, left).await.is_err() {
            warn!(connections = self.app.connections(), "clients are left after the drain time");
        }
    }

    async fn accept(&self, listener: &TcpListener) {
        // Sockets inherit both. Only a matter of latency and memory: one that refuses is served all the same.
        let options = SockRef::from(listener);
        let _ = options.set_tcp_nodelay(true);
        let _ = options.set_send_buffer_size(SEND_BUFFER_BYTES);
        loop {
            match listener.accept().await {
                Ok((stream, remote)) => self.take(stream, remote),
                Err(error) => {
                    // Out of descriptors, most likely: others have to be closed first.
                    warn!(%error, "failed to accept a connection");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn take(&self, stream: TcpStream, remote: SocketAddr) {
        let refuse = || self.app.context.surroundings.metrics.refused("plain_sockets");
        // A stream is bounded by the limits on connections, and must not keep others from asking.
        if self.plain.len() >= MAX_PLAIN + self.app.streams.len() {
            return refuse();
        }
        // One address must not take what all have.
        let Some(place) = self.app.admissions.enter_plain(remote.ip()) else { return refuse() };
        let (app, router) = (Arc::clone(&self.app), self.router.clone());
        let stop = self.app.context.stop.clone();
        self.plain.spawn(async move {
            let _place = place;
            let header_timeout = app.context.surroundings.config.limits.header_timeout;
            let served = async {
                if let Some(stream) = direct::serve(&app, stream, remote, header_timeout).await {
                    // On the heap, because few need it and it is large.
                    Box::pin(serve_http(&app, router, stream, remote)).await;
                }
            };
            tokio::select! {
                biased;
                () = served => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

/// Serves a socket with the web server.
async fn serve_http(app: &Arc<App>, router: Router, stream: TcpStream, remote: SocketAddr) {
    let cut = CancellationToken::new();
    let service = service_fn(|mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Remote(remote));
        request.extensions_mut().insert(Cut(cut.clone()));
        let (app, router) = (Arc::clone(app), router.clone());
        async move {
            upgrade::settle_key(&app, request.headers(), request.uri()).await;
            router.oneshot(request.map(Body::new)).await as Result<Response, Infallible>
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(app.context.surroundings.config.limits.header_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            count_failure(app, &error);
        },
        () = cut.cancelled() => {}
    }
}

/// What goes wrong on a plain socket is the other side's: nothing to be told to anybody.
fn count_failure(app: &App, error: &hyper::Error) {
    let metrics = &app.context.surroundings.metrics;
    if error.is_parse() {
        metrics.refused("malformed");
    } else if error.is_timeout() {
        metrics.refused("header_timeout");
    }
}

async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, ErrorCode::BadRequest, "there is nothing here")
}

async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::BadRequest, "not with this method")
}
