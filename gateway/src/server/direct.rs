//! The short way in: a socket whose first bytes are the whole request for a WebSocket.
//!
//! That is how nearly all clients come, and all of them at once after a roll. They need no web server: the request is read where it lies, and the
//! answer leaves with the first message. Whatever looks different in the least, or comes in pieces, is left in the socket for the web server to read.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::task::{Poll, ready};
use std::time::Duration;

use axum::body::to_bytes;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::io::{AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::upgrade::{Accepted, accept, settle_key};
use super::{App, Remote};

/// Longest request that is taken this way. A token in it may have 8 KiB, few have one.
const MAX_HEAD_BYTES: usize = 4 << 10;

/// Most headers that are taken this way; browsers send about fifteen.
const MAX_HEADERS: usize = 32;

/// A problem document is a few hundred bytes.
const MAX_PROBLEM_BYTES: usize = 16 << 10;

/// Serves a socket that begins as a WebSocket. Gives back any other one, from which nothing has been taken.
pub(super) async fn serve(app: &App, stream: TcpStream, remote: SocketAddr, within: Duration) -> Option<TcpStream> {
    let mut head = match timeout(within, peek(&stream)).await {
        Ok(Ok(Some(head))) => head,
        // It is the web server's to say what is wrong, and to wait for the rest.
        Ok(Ok(None)) => return Some(stream),
        // The client has gone.
        Ok(Err(_)) => return None,
        // Nothing came.
        Err(_) => {
            app.context.surroundings.metrics.refused("header_timeout");
            return None;
        }
    };
    head.parts.extensions.insert(Remote(remote));
    settle_key(app, &head.parts.headers, &head.parts.uri).await;
    match accept(app, &head.parts) {
        Ok(accepted) => {
            let answer = switching_protocols(&accepted);
            accepted.hand_over(app, stream, answer, Bytes::new());
        }
        Err(problem) => refuse(stream, problem.into_response()).await,
    }
    None
}

/// Waits for the first bytes. When they are a whole request for a WebSocket, takes it, and nothing behind it, out of the socket.
async fn peek(stream: &TcpStream) -> io::Result<Option<Head>> {
    let head = poll_fn(|context| {
        let mut bytes = [MaybeUninit::uninit(); MAX_HEAD_BYTES];
        let mut peeked = ReadBuf::uninit(&mut bytes);
        match ready!(stream.poll_peek(context, &mut peeked)) {
            Ok(0) => Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof))),
            Ok(_) => Poll::Ready(Ok(Head::parse(peeked.filled()))),
            Err(error) => Poll::Ready(Err(error)),
        }
    })
    .await?;
    let Some(head) = head else { return Ok(None) };
    let mut taken = vec![0; head.bytes];
    if stream.try_read(&mut taken)? < head.bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(head))
}

/// The head of a request.
struct Head {
    parts: Parts,
    /// Its length.
    bytes: usize,
}

impl Head {
    /// Reads a whole head that asks `/live` for an upgrade; `None` is anything else.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(length) = request.parse(bytes).ok()? else { return None };
        let target = request.path.filter(|path| path.split('?').next() == Some("/live"))?;
        if request.method != Some("GET") || request.version != Some(1) {
            return None;
        }
        let mut parts = Request::new(()).into_parts().0;
        (parts.method, parts.version) = (Method::GET, Version::HTTP_11);
        parts.uri = Uri::try_from(target).ok()?;
        parts.headers = HeaderMap::with_capacity(request.headers.len());
        for header in request.headers.iter() {
            let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
            parts.headers.append(name, HeaderValue::from_bytes(header.value).ok()?);
        }
        // A request with a body is not one for a WebSocket.
        let is_bare = ["content-length", "transfer-encoding"].iter().all(|name| !parts.headers.contains_key(*name));
        (is_bare && parts.headers.contains_key("upgrade")).then_some(Self { parts, bytes: length })
    }
}

/// The answer of RFC 6455 section 4.2.2.
fn switching_protocols(accepted: &Accepted) -> Vec<u8> {
    let mut answer = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
    for (name, value) in accepted.headers() {
        put_header(&mut answer, name.as_str(), value.as_bytes());
    }
    answer.extend_from_slice(b"\r\n");
    answer
}

/// Answers with a problem document, and closes.
async fn refuse(mut stream: TcpStream, response: Response) {
    let (head, body) = response.into_parts();
    let Ok(body) = to_bytes(body, MAX_PROBLEM_BYTES).await else { return };
    let reason = head.status.canonical_reason().unwrap_or_default();
    let mut answer = format!("HTTP/1.1 {} {reason}\r\n", StatusCode::as_str(&head.status)).into_bytes();
    for (name, value) in &head.headers {
        put_header(&mut answer, name.as_str(), value.as_bytes());
    }
    put_header(&mut answer, "content-length", body.len().to_string().as_bytes());
    put_header(&mut answer, "connection", b"close");
    answer.extend_from_slice(b"\r\n");
    answer.extend_from_slice(&body);
    // The client may be gone; nobody is left to be told.
    if stream.write_all(&answer).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}

fn put_header(answer: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        answer.extend_from_slice(part);
    }
}
