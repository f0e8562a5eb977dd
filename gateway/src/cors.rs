//! What pages of other origins may do (the Fetch standard's CORS protocol, <https://fetch.spec.whatwg.org/#http-cors-protocol>).

use std::sync::Arc;

use akis_model::ErrorCode;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
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
    let surroundings = &app.context.surroundings;
    let page = Page::of(request.method(), request.headers(), &surroundings.config.origins);
    if !page.is_allowed {
        surroundings.metrics.refused("origin");
    }
    let response = match page.answer() {
        Some(answer) => answer,
        None => next.run(request).await,
    };
    page.let_read(response)
}

/// The page that sent a request, if one did.
pub(crate) struct Page {
    origin: Option<HeaderValue>,
    is_allowed: bool,
    /// It is its browser that asks, before it sends the request itself.
    asks_beforehand: bool,
}

impl Page {
    /// Looks who sent a request. `configured` are the origins that may connect beside the same one.
    pub(crate) fn of(method: &Method, headers: &HeaderMap, configured: &[String]) -> Self {
        Self {
            origin: headers.get(ORIGIN).cloned(),
            is_allowed: origin::is_allowed(headers, configured),
            asks_beforehand: method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD),
        }
    }

    /// The answer, where the request need not be looked at.
    pub(crate) fn answer(&self) -> Option<Response> {
        if !self.is_allowed {
            let problem = Problem::new(StatusCode::FORBIDDEN, ErrorCode::BadRequest, "the origin is not allowed");
            return Some(problem.into_response());
        }
        self.asks_beforehand.then(preflight)
    }

    /// Lets the page read an answer, when its origin may connect.
    pub(crate) fn let_read(self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        headers.append(VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = self.origin.filter(|_| self.is_allowed) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(RESPONSE_HEADERS));
        }
        response
    }
}

fn preflight() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(REQUEST_HEADERS));
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_S.into());
    response
}
