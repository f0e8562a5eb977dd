//! The listener of a stand-in: sockets in, requests answered, WebSockets taken over.

use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use hyper::body::Incoming;
use hyper::http::{Method, Request, Response, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// How many sockets an HTTP listener has open at once; one more is dropped.
pub(crate) const MOST_HTTP_SOCKETS: usize = 4096;

/// How long a client may take to send the head of a request.
const HEADER_WITHIN: Duration = Duration::from_secs(10);

/// The largest body of a fault.
const FAULT_BYTES: usize = 1 << 20;

/// Time between two bytes of a reply that drips.
pub(crate) const DRIP: Duration = Duration::from_millis(200);

/// How long a client has to answer a close.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);

/// What `akis healthcheck` asks of every process, a stand-in too; no venue has it.
pub(crate) const READY_PATH: &str = "/readyz";

/// The answer to that: it is served.
pub(crate) const READY: &str = "ready";

/// Serves every socket as a task of `connections`, until cancelled; then waits for all of those to end.
pub(crate) async fn accept<F>(
    listener: TcpListener,
    most: usize,
    connections: &TaskTracker,
    cancel: &CancellationToken,
    serve: impl Fn(TcpStream, IpAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, from)) if connections.len() < most => {
                connections.spawn(serve(socket, from.ip()));
            }
            Ok(_) => warn!("a connection is dropped: {most} are open"),
            // Out of file descriptors, most likely; others have to close before it gets better.
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
}

/// Answers the requests of a socket, until cancelled; those for [`READY_PATH`] itself.
pub(crate) async fn serve_http<F>(socket: TcpStream, cancel: CancellationToken, answer: impl Fn(Request<Incoming>) -> F)
where
    F: Future<Output = Response<Body>>,
{
    // Without it, small frames would wait for the acknowledgement of the ones before; it fails on closed sockets only.
    let _ = socket.set_nodelay(true);
    let service = service_fn(|request| {
        let is_check = request.method() == Method::GET && request.uri().path() == READY_PATH;
        let answer = (!is_check).then(|| answer(request));
        async move {
            Ok::<_, Infallible>(match answer {
                Some(answer) => answer.await,
                None => text(StatusCode::OK, READY),
            })
        }
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

/// Waits until a request's socket is upgraded; `None` when the client left before. Messages have at most `most_bytes`.
pub(crate) fn websocket(
    mut request: Request<Incoming>,
    most_bytes: usize,
) -> impl Future<Output = Option<WebSocketStream<TcpStream>>> {
    let upgrade = hyper::upgrade::on(&mut request);
    let config = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .max_message_size(Some(most_bytes))
        .max_frame_size(Some(most_bytes));
    async move {
        let upgraded = upgrade.await.inspect_err(|error| debug!(%error, "a client left during the handshake")).ok()?;
        let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
        let (socket, read) = (parts.io.into_inner(), parts.read_buf.into());
        Some(WebSocketStream::from_partially_read(socket, read, Role::Server, Some(config)).await)
    }
}

/// Says goodbye and reads on until the client has answered, so that what is unread does not reset the connection. A client that
/// does not answer in time is left to itself.
pub(crate) async fn close(socket: &mut WebSocketStream<TcpStream>, code: u16, reason: String) {
    let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
    let closing = async {
        if socket.close(Some(frame)).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    let _ = tokio::time::timeout(CLOSE_WITHIN, closing).await;
}

/// Asks whoever runs the stand-in's world; `None` when it has stopped.
pub(crate) async fn ask<C, T>(world: &mpsc::Sender<C>, command: impl FnOnce(oneshot::Sender<T>) -> C) -> Option<T> {
    let (sender, answer) = oneshot::channel();
    world.send(command(sender)).await.ok()?;
    answer.await.ok()
}

/// Takes the fault out of a request and has it done.
pub(crate) async fn take_fault<C, F: DeserializeOwned>(
    world: &mpsc::Sender<C>,
    request: Request<Incoming>,
    command: impl FnOnce(F, oneshot::Sender<Result<(), String>>) -> C,
) -> Response<Body> {
    let Ok(body) = to_bytes(Body::new(request.into_body()), FAULT_BYTES).await else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "the body is cut or too large");
    };
    let fault: F = match serde_json::from_slice(&body) {
        Ok(fault) => fault,
        Err(error) => return text(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    match ask(world, |reply| command(fault, reply)).await {
        Some(Ok(())) => text(StatusCode::OK, "ok"),
        Some(Err(reason)) => text(StatusCode::BAD_REQUEST, &reason),
        None => stopping(),
    }
}

/// A line of text.
pub(crate) fn text(status: StatusCode, reason: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{reason}\n")));
    *response.status_mut() = status;
    response
}

/// What is answered when the world has stopped.
pub(crate) fn stopping() -> Response<Body> {
    text(StatusCode::SERVICE_UNAVAILABLE, "the stand-in is stopping")
}

/// A body that comes byte by byte.
pub(crate) fn dripping(body: String) -> Body {
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

/// The first half of a text frame of less than 126 bytes. Source: RFC 6455 section 5.2.
pub(crate) fn half(text: &[u8]) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap_or(125).min(125);
    let mut bytes = vec![0x81, length];
    bytes.extend(text.iter().take(usize::from(length) / 2));
    bytes
}
