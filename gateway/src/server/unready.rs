//! What clients are told before a gateway can serve them.

use std::convert::Infallible;
use std::future::ready;
use std::time::Duration;

use akis_model::ErrorCode;
use axum::response::IntoResponse;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::warn;

use crate::problem::Problem;

/// Sockets at a time; those beyond are closed without a word.
const MAX_SOCKETS: usize = 1024;

/// How long a socket may take for its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// When a client may try again, in seconds.
const RETRY_AFTER_S: u64 = 1;

/// Answers every request with 503 and `UPSTREAM_UNAVAILABLE`, for as long as this is polled: a client that is not answered waits until its
/// own patience is over, and a load balancer sends it nowhere else. `why` is told.
pub async fn turn_away(listener: &TcpListener, why: &'static str) -> Infallible {
    let mut sockets = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if sockets.len() < MAX_SOCKETS => {
                    sockets.spawn(answer(stream, why));
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

async fn answer(stream: TcpStream, why: &'static str) {
    let refuse = |_| {
        let problem = Problem::unavailable(ErrorCode::UpstreamUnavailable, why, RETRY_AFTER_S);
        ready(Ok::<_, Infallible>(problem.into_response()))
    };
    // What goes wrong on the socket is the other side's.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service_fn(refuse))
        .await;
}
