//! `GET /live`: from an HTTP request to a WebSocket, or to a problem document that says why not.

use std::borrow::Cow;
use std::sync::Arc;

use akis_model::ErrorCode;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ALLOW, AUTHORIZATION, CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::warn;

use super::App;
use super::admission::Seat;
use super::entry::admit_to_stay;
use crate::auth::{AuthError, Grant};
use crate::clock::Now;
use crate::origin;
use crate::problem::Problem;
use crate::query::Query;
use crate::shard::Newcomer;
use crate::ws::deflate;

/// The subprotocol that is spoken.
const PROTOCOL: &str = "akis.v1";

/// What stands before a token that is offered as a subprotocol, because browsers cannot set headers.
const TOKEN_PROTOCOL: &str = "bearer.";

/// A request that becomes a WebSocket.
pub(super) struct Accepted {
    grant: Grant,
    seat: Seat,
    takes_batches: bool,
    takes_compressed: bool,
    has_protocol: bool,
    /// The value of `Sec-WebSocket-Accept`.
    accept_key: String,
}

impl Accepted {
    /// The headers of the answer, whose status is 101.
    pub(super) fn headers(&self) -> impl Iterator<Item = (HeaderName, &str)> {
        let always = [(CONNECTION, "upgrade"), (UPGRADE, "websocket"), (SEC_WEBSOCKET_ACCEPT, &*self.accept_key)];
        let compressed = self.takes_compressed.then_some((SEC_WEBSOCKET_EXTENSIONS, deflate::ACCEPTED));
        let protocol = self.has_protocol.then_some((SEC_WEBSOCKET_PROTOCOL, PROTOCOL));
        always.into_iter().chain(compressed).chain(protocol)
    }

    /// Gives the socket to a shard. `greeting` has not been written yet, `already_read` has been read.
    pub(super) fn hand_over(self, app: &App, stream: TcpStream, greeting: Vec<u8>, already_read: Bytes) {
        match stream.into_std() {
            Ok(stream) => {
                let Self { grant, seat, takes_batches, takes_compressed, .. } = self;
                let newcomer =
                    Newcomer { stream, greeting, already_read, grant, takes_batches, takes_compressed, seat };
                app.shards.adopt(newcomer);
            }
            Err(error) => warn!(%error, "failed to take a socket out of the runtime"),
        }
    }
}

/// Answers a request to `/live` that the web server has read.
pub(super) async fn live(State(app): State<Arc<App>>, mut head: Parts) -> Response {
    let accepted = match accept(&app, &head) {
        Ok(accepted) => accepted,
        Err(problem) => return problem.into_response(),
    };
    let Some(upgrade) = head.extensions.remove::<OnUpgrade>() else {
        return upgrade_required("the connection cannot be upgraded").into_response();
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in accepted.headers() {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    let sockets = app.sockets.clone();
    sockets.spawn(async move {
        // The client may be gone before it is upgraded; nobody is left to be told.
        let Ok(upgraded) = upgrade.await else { return };
        let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else { return };
        accepted.hand_over(&app, parts.io.into_inner(), Vec::new(), parts.read_buf);
    });
    response
}

/// Lets a request become a WebSocket.
///
/// # Errors
///
/// The [`Problem`] that the client is answered with.
pub(super) fn accept(app: &App, head: &Parts) -> Result<Accepted, Problem> {
    let surroundings = &app.context.surroundings;
    let accept_key = check_handshake(&head.method, &head.headers).inspect_err(|_| {
        surroundings.metrics.refused("handshake");
    })?;
    if !origin::is_allowed(&head.headers, &surroundings.config.origins) {
        surroundings.metrics.refused("origin");
        return Err(Problem::new(StatusCode::FORBIDDEN, ErrorCode::BadRequest, "the origin is not allowed"));
    }
    let visitor = admit_to_stay(app, head, Now::read())?;
    let has_protocol = offered_protocols(&head.headers).any(|protocol| protocol == PROTOCOL);
    let takes_batches = Query::of(&head.uri)?.one("batch")? == Some("1");
    let offers = head.headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|value| value.to_str().ok());
    let takes_compressed = offers.into_iter().any(deflate::is_acceptable);
    let (grant, seat) = visitor.into_seat(app.sockets.token());
    Ok(Accepted { grant, seat, takes_batches, takes_compressed, has_protocol, accept_key })
}

/// Checks what RFC 6455 section 4.2.1 asks for. Gives the value of `Sec-WebSocket-Accept`.
fn check_handshake(method: &Method, headers: &HeaderMap) -> Result<String, Problem> {
    if method != Method::GET {
        let problem =
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::BadRequest, "a WebSocket begins with GET");
        return Err(problem.with_header(ALLOW, HeaderValue::from_static("GET")));
    }
    if !has_token(headers, &CONNECTION, "upgrade") || !has_token(headers, &UPGRADE, "websocket") {
        return Err(upgrade_required("this is a WebSocket: connect with an upgrade"));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(upgrade_required("only version 13 of WebSocket is spoken")
            .with_header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    match (keys.next(), keys.next()) {
        (Some(key), None) if BASE64_STANDARD.decode(key).is_ok_and(|key| key.len() == 16) => {
            Ok(derive_accept_key(key.as_bytes()))
        }
        _ => Err(Problem::bad_request("Sec-WebSocket-Key is not 16 bytes in base64")),
    }
}

fn upgrade_required(detail: &str) -> Problem {
    Problem::new(StatusCode::UPGRADE_REQUIRED, ErrorCode::BadRequest, detail)
        .with_header(UPGRADE, HeaderValue::from_static("websocket"))
}

/// Whether a header that is a list of tokens has this one.
fn has_token(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case(wanted))
}

fn offered_protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Checks the token of a request that may have it in its query.
///
/// # Errors
///
/// The [`Problem`] that the client is answered with.
pub(crate) fn authorize_request(app: &App, headers: &HeaderMap, uri: &Uri, now: Now) -> Result<Grant, Problem> {
    let missing = || Problem::from(&AuthError::Invalid("there is no token".to_owned()));
    let token = token_of(headers, uri)?.ok_or_else(missing)?;
    app.context.surroundings.auth.check_settled(&token, now.unix_ms).map_err(|error| Problem::from(&error))
}

/// Waits while the key of a request's token is being fetched. Comes before everything that checks tokens.
pub(super) async fn settle_key(app: &App, headers: &HeaderMap, uri: &Uri) {
    let auth = &app.context.surroundings.auth;
    if auth.fetches_keys()
        && let Ok(Some(token)) = token_of(headers, uri)
    {
        auth.settle(&token).await;
    }
}

/// The token of a request. The query is looked at where it is in no header.
fn token_of<'a>(headers: &'a HeaderMap, uri: &Uri) -> Result<Option<Cow<'a, str>>, Problem> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let offered = || offered_protocols(headers).find_map(|protocol| protocol.strip_prefix(TOKEN_PROTOCOL));
    if let Some(token) = bearer.or_else(offered) {
        return Ok(Some(token.into()));
    }
    Ok(Query::of(uri)?.one("token")?.map(|token| token.to_owned().into()))
}
