//! What clients are told before a gateway can serve them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use akis_model::ErrorCode;
use akis_service::config::GatewayConfig;
use axum::body::Body;
use axum::http::Request;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::warn;

use crate::body;
use crate::cors::Page;
use crate::problem::Problem;

/// Sockets at a time; those beyond are closed without a word.
const MAX_SOCKETS: usize = 1024;

/// When a client may try again, in seconds.
const RETRY_AFTER_S: u64 = 1;

/// Answers every request with 503 and `UPSTREAM_UNAVAILABLE`, for as long as this is polled: a client that is not answered waits until its
/// own patience is over, and a load balancer sends it nowhere else. `why` is told.
pub async fn turn_away(listener: &TcpListener, config: &GatewayConfig, why: &'static str) -> Infallible {
    let config = Arc::new(config.clone());
    let mut sockets = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if sockets.len() < MAX_SOCKETS => {
                    sockets.spawn(serve(stream, Arc::clone(&config), why));
                }
                Ok(_) => {}
                Err(error) => {
                    warn!(%error, "failed to accept a connection");
                    sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = sockets.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, config: Arc<GatewayConfig>, why: &'static str) {
    let refuse = |request: Request<Incoming>| {
        let config = Arc::clone(&config);
        async move { Ok::<_, Infallible>(answer(request.map(Body::new), &config, why).await) }
    };
    // What goes wrong on the socket is the other side's.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.limits.header_timeout)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service_fn(refuse))
        .await;
}

async fn answer(request: Request<Body>, config: &GatewayConfig, why: &'static str) -> Response {
    let (head, body) = request.into_parts();
    let page = Page::of(&head.method, &head.headers, &config.origins);
    let response = match page.answer() {
        Some(answer) => answer,
        None => {
            // Whatever is wrong with it, the client is told the same.
            let _ = body::read(&config.limits, body, |_| {}).await;
            Problem::unavailable(ErrorCode::UpstreamUnavailable, why, RETRY_AFTER_S).into_response()
        }
    };
    page.let_read(response)
}
