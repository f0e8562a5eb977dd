//! `GET /live/sse`: the live protocol as server-sent events, for where WebSockets cannot go.
//!
//! A stream is a session whose one message is made from the query. What differs from a socket is only that nothing more
//! can be asked, and that the position of all channels goes with each event, so that a client that comes back by
//! `Last-Event-ID` misses nothing. Format: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.

mod cursor;
mod text;
mod writer;

use std::convert::Infallible;
use std::sync::Arc;

use akis_eventlog::Upstream;
use akis_model::ErrorCode;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) use self::cursor::Cursor;
use self::writer::{Outlet, Writer};
use crate::clock::Now;
use crate::guest::Guest;
use crate::problem::Problem;
use crate::query::Query;
use crate::request::MAX_INTERVAL_MS;
use crate::server::{App, Cut, admit_to_stay};
use crate::session::Session;

/// The header by which a client says where it was.
const LAST_EVENT_ID: &str = "last-event-id";

/// Tells nginx, and those that do as it does, to pass on what comes at once.
const NO_BUFFERING: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// What a stream is asked for.
struct Wanted {
    /// The one message of its session.
    message: String,
    /// Where the client was.
    cursor: Cursor,
}

/// Answers `GET /live/sse`.
pub(crate) async fn stream(State(app): State<Arc<App>>, head: Parts) -> Response {
    open(&app, &head).unwrap_or_else(IntoResponse::into_response)
}

fn open(app: &Arc<App>, head: &Parts) -> Result<Response, Problem> {
    let now = Now::read();
    let visitor = admit_to_stay(app, head, now)?;
    let wanted = Wanted::of(head)?;
    let Some(Cut(cut)) = head.extensions.get().cloned() else {
        return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::InternalError, "no socket"));
    };
    let context = &app.context;
    let (id, name) = context.new_connection();
    let expires_at_ms = visitor.grant.expires_at_ms;
    let mut session = Session::new(Arc::clone(&context.surroundings), visitor.grant.clone(), &name, now);
    // Right after `welcome`: answers follow.
    let mut upstream = context.replica.upstream();
    if matches!(*upstream.borrow_and_update(), Upstream::Down { .. }) {
        session.on_upstream(false, now);
    }
    session.on_text(&wanted.message, now);
    let guest = Guest::new(Arc::clone(context), id, session);
    // One piece waits; the next is made when the socket has taken it.
    let (pieces, taken) = mpsc::channel(1);
    let ended = CancellationToken::new();
    let outlet = Outlet { pieces, ended: ended.clone(), cut };
    let writer = Writer::new(Arc::clone(context), guest, wanted.cursor, expires_at_ms, outlet, upstream);
    app.streams.spawn(async move {
        let _visitor = visitor;
        writer.run().await;
    });
    let state = (taken, ended.drop_guard());
    let body = stream::unfold(state, |(mut taken, guard)| async move {
        let piece: Vec<u8> = taken.recv().await?;
        Some((Ok::<_, Infallible>(piece), (taken, guard)))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(NO_BUFFERING.0, NO_BUFFERING.1);
    Ok(response)
}

impl Wanted {
    fn of(head: &Parts) -> Result<Self, Problem> {
        let query = Query::of(&head.uri)?;
        let names = query.names()?;
        let interval = query.number("interval", 0..=MAX_INTERVAL_MS)?;
        let snapshot = match query.one("snapshot")? {
            None => None,
            Some("true" | "1") => Some(true),
            Some("false" | "0") => Some(false),
            Some(_) => return Err(Problem::bad_request("snapshot is true or false")),
        };
        let mut cursor = last_event_id(&head.headers)?;
        cursor.retain(&names);
        let entry = |name: &&str| {
            let mut entry = json!({ "channel": name });
            // Whoever comes back has had the snapshot; the same URL is asked for again.
            match (cursor.position(name), snapshot) {
                (Some(after), _) => entry["after"] = after.get().into(),
                (None, Some(snapshot)) => entry["snapshot"] = snapshot.into(),
                (None, None) => {}
            }
            if let Some(interval) = interval {
                entry["interval"] = interval.into();
            }
            entry
        };
        let channels: Vec<Value> = names.iter().map(entry).collect();
        let message = json!({ "type": "subscribe", "channels": channels }).to_string();
        Ok(Self { message, cursor })
    }
}

fn last_event_id(headers: &HeaderMap) -> Result<Cursor, Problem> {
    let Some(id) = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) else { return Ok(Cursor::default()) };
    let cursor = id.to_str().ok().and_then(Cursor::parse);
    cursor.ok_or_else(|| Problem::bad_request("Last-Event-ID is no position of this stream"))
}
