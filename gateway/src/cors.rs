//! What pages of other origins may do (the Fetch standard's CORS protocol, <https://fetch.spec.whatwg.org/#http-cors-protocol>).

use std::sync::Arc;

use akis_model::ErrorCode;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::origin;
use crate::problem::Problem;
use crate::server::App;

/// Headers that a page may send.
const REQUEST_HEADERS: &str = "authorization, content-type, if-none-match, last-event-id, cache-control, \
    ce-specversion, ce-id, ce-source, ce-type, ce-subject, ce-time, traceparent, tracestate";

/// Headers that a page may read beside the common ones.
const RESPONSE_HEADERS: &str = "etag, retry-after";

/// How long a browser may remember what it was allowed, in seconds.
const MAX_AGE_S: u64 = 600;

/// Refuses pages of origins that may not connect, answers browsers that ask beforehand, and lets pages read the answers.
pub(crate) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let surroundings = &app.context.surroundings;
    let (origin, is_allowed) =
        (headers.get(ORIGIN).cloned(), origin::is_allowed(headers, &surroundings.config.origins));
    let mut response = if !is_allowed {
        surroundings.metrics.refused("origin");
        Problem::new(StatusCode::FORBIDDEN, ErrorCode::BadRequest, "the origin is not allowed").into_response()
    } else if request.method() == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        preflight()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin.filter(|_| is_allowed) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(RESPONSE_HEADERS));
    }
    response
}

fn preflight() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(REQUEST_HEADERS));
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_S.into());
    response
}
