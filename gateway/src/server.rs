//! Lets sockets in: the accept loop, the routes, and the end of all of it.

mod admission;
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
use crate::publish::{self, PublishRates};
use crate::shard::Shards;

pub(crate) use self::admission::Seat;
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
    /// Upgraded sockets: each holds a token until it has ended.
    sockets: TaskTracker,
    /// Who serves them.
    shards: Arc<Shards>,
}

/// The address of the other side, as an extension of requests.
#[derive(Debug, Clone, Copy)]
struct Remote(SocketAddr);

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
        let admissions = Admissions::new(&context.surroundings.config.limits);
        let (publish_rates, sockets) = (PublishRates::default(), TaskTracker::new());
        let app = Arc::new(App { context, admissions, publish_rates, sockets, shards });
        let mut router = Router::new()
            .route("/live", any(upgrade::live))
            .route("/v1/publish", post(publish::publish).options(publish::preflight))
            .layer(DefaultBodyLimit::disable())
            .method_not_allowed_fallback(method_not_allowed)
            .fallback(not_found);
        if let Some(page) = page {
            router = router.route("/", get(move || async move { Html(page) }));
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
        self.plain.close();
        let ended = async {
            self.app.sockets.wait().await;
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
        info!(connections = self.app.sockets.len(), ?period, "gateway drains");
        context.drain.cancel();
        self.app.shards.drain();
        self.app.sockets.close();
        if timeout(period + DRAIN_MARGIN, self.app.sockets.wait()).await.is_err() {
            warn!(connections = self.app.sockets.len(), "clients are left after the drain time");
        }
    }

    async fn accept(&self, listener: &TcpListener) {
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
        if self.plain.len() >= MAX_PLAIN {
            self.app.context.surroundings.metrics.refused("plain_sockets");
            return;
        }
        // Only a matter of latency and memory: a socket that refuses is served all the same.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES);
        let (app, router) = (Arc::clone(&self.app), self.router.clone());
        let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(Remote(remote));
            let (app, router) = (Arc::clone(&app), router.clone());
            async move {
                upgrade::settle_key(&app, request.headers(), request.uri()).await;
                router.oneshot(request.map(Body::new)).await as Result<Response, Infallible>
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.app.context.surroundings.config.limits.header_timeout)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let stop = self.app.context.stop.clone();
        self.plain.spawn(async move {
            tokio::select! {
                // What goes wrong here is the other side's: nothing to be told to anybody.
                _ = connection => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, ErrorCode::BadRequest, "there is nothing here")
}

async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::BadRequest, "not with this method")
}
