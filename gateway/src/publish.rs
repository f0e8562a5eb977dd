//! `POST /v1/publish`: events of applications, one or many.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use akis_eventlog::{Append, StoreError};
use akis_model::{Body as EventBody, Channel, ErrorCode, Outcome, Seq};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_TYPE, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::auth::{Grant, check_event};
use crate::clock::Now;
use crate::limits::TokenBucket;
use crate::origin;
use crate::problem::Problem;
use crate::server::{App, authorize_request};
use crate::wire::OWN_EVENTS;

/// How long the log may take, so that the answer comes within 5 s.
const APPEND_WITHIN: Duration = Duration::from_millis(4500);

/// Seconds after which a publisher may try again when the log is away.
const RETRY_AFTER_S: u64 = 1;

/// Longest name of an event and longest idempotency id, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// Levels of nesting in `data`. Common readers stop at 128, and the envelope is one of them.
const MAX_DEPTH: usize = 100;

/// A body may be so many times too large and is still read to its end.
const DISCARD_TIMES: usize = 16;

/// Subjects whose rate is remembered before those with a full bucket are forgotten.
const MAX_SUBJECTS: usize = 10_000;

/// How fast each subject publishes.
#[derive(Default)]
pub(crate) struct PublishRates(Mutex<HashMap<Arc<str>, TokenBucket, foldhash::fast::RandomState>>);

impl PublishRates {
    fn take(&self, subject: &Arc<str>, events: u32, per_second: u32, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.0.lock();
        if buckets.len() >= MAX_SUBJECTS {
            buckets.retain(|_, bucket| !bucket.is_full(now));
        }
        let fresh = || TokenBucket::new(per_second, per_second.saturating_mul(2), now);
        buckets.entry(Arc::clone(subject)).or_insert_with(fresh).take(events, now)
    }
}

/// One event as it is sent. Unknown fields are ignored.
#[derive(Deserialize)]
struct Sent<'a> {
    channel: String,
    event: String,
    #[serde(borrow)]
    data: &'a RawValue,
    ts: Option<u64>,
    id: Option<String>,
}

/// Why one event is refused; the status is for a request that has only this one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refused {
    channel: Option<String>,
    status: StatusCode,
    code: ErrorCode,
    message: String,
}

impl Refused {
    fn new(channel: &str, status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { channel: Some(channel.to_owned()), status, code, message: message.into() }
    }

    fn bad(channel: &str, message: impl Into<String>) -> Self {
        Self::new(channel, StatusCode::BAD_REQUEST, ErrorCode::BadRequest, message)
    }

    fn to_json(&self) -> Value {
        let mut value = json!({ "errorCode": self.code.as_str(), "message": self.message });
        if let Some(channel) = &self.channel {
            value["channel"] = channel.as_str().into();
        }
        value
    }
}

/// Answers `POST /v1/publish`.
pub(crate) async fn publish(State(app): State<Arc<App>>, request: Request) -> Response {
    let headers = request.headers().clone();
    let answered = match check_origin(&app, &headers) {
        Ok(()) => accept(&app, request).await,
        Err(problem) => Err(problem),
    };
    let mut response = answered.unwrap_or_else(|problem| {
        app.context.surroundings.metrics.refused("publish");
        problem.into_response()
    });
    allow_origin(&headers, &mut response);
    response
}

/// Answers a browser that asks whether its page may publish.
pub(crate) async fn preflight(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if let Err(problem) = check_origin(&app, &headers) {
        return problem.into_response();
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    allow_origin(&headers, &mut response);
    let allowed = response.headers_mut();
    allowed.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
    allowed.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, content-type"));
    response
}

fn check_origin(app: &App, headers: &HeaderMap) -> Result<(), Problem> {
    if origin::is_allowed(headers, &app.context.surroundings.config.origins) {
        Ok(())
    } else {
        Err(Problem::new(StatusCode::FORBIDDEN, ErrorCode::BadRequest, "the origin is not allowed"))
    }
}

/// Lets the page read the answer; its origin has been checked.
fn allow_origin(asked: &HeaderMap, response: &mut Response) {
    if let Some(origin) = asked.get(ORIGIN)
        && response.status() != StatusCode::FORBIDDEN
    {
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        response.headers_mut().insert(VARY, HeaderValue::from_static("Origin"));
    }
}

async fn accept(app: &App, request: Request) -> Result<Response, Problem> {
    let now = Now::read();
    let (head, body) = request.into_parts();
    let grant = authorize_request(app, &head.headers, &head.uri, now).map_err(|error| Problem::from(&error))?;
    if !is_json(&head.headers) {
        let detail = "events are published as application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::BadRequest, detail));
    }
    let body = read_body(app, body).await?;
    let text = std::str::from_utf8(&body).map_err(|_| Problem::bad_request("the body is not UTF-8"))?;
    let is_array = text.trim_start().starts_with('[');
    let items: Vec<&RawValue> = if is_array {
        serde_json::from_str(text).map_err(|error| Problem::bad_request(format!("not a JSON array: {error}")))?
    } else {
        vec![serde_json::from_str(text).map_err(|error| Problem::bad_request(format!("not a JSON object: {error}")))?]
    };
    check_rate(app, &grant, items.len(), now)?;
    let event_bytes = app.context.surroundings.config.limits.event_bytes;
    let checked: Vec<_> = items.into_iter().map(|item| check(item, &grant, event_bytes, now.unix_ms)).collect();
    let results = append(app, checked).await?;
    if is_array {
        let results: Vec<Value> = results.iter().map(to_json).collect();
        return Ok(json_response(&json!({ "results": results })));
    }
    match results.into_iter().next() {
        Some(Err(refused)) => Err(Problem::new(refused.status, refused.code, refused.message)),
        Some(published) => Ok(json_response(&to_json(&published))),
        None => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::InternalError, "no answer")),
    }
}

fn to_json(result: &Result<(Channel, Seq), Refused>) -> Value {
    match result {
        Ok((channel, seq)) => json!({ "channel": channel.as_str(), "seq": seq.get() }),
        Err(refused) => refused.to_json(),
    }
}

fn json_response(value: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/json")
}

/// Reads the body as far as it may be. What is too much is read and thrown away, within reason: a client that is still
/// sending when the connection closes would not see why.
async fn read_body(app: &App, body: Body) -> Result<Vec<u8>, Problem> {
    let limits = &app.context.surroundings.config.limits;
    let mut chunks = body.into_data_stream();
    let reading = async {
        let mut collected = Vec::new();
        let mut seen: usize = 0;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| Problem::bad_request("the body ended early"))?;
            seen = seen.saturating_add(chunk.len());
            if seen > limits.publish_bytes.saturating_mul(DISCARD_TIMES) {
                break;
            }
            if seen <= limits.publish_bytes {
                collected.extend_from_slice(&chunk);
            }
        }
        if seen <= limits.publish_bytes {
            return Ok(collected);
        }
        let detail = format!("the body is larger than {} bytes", limits.publish_bytes);
        Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::BadRequest, detail))
    };
    timeout(limits.header_timeout, reading).await.unwrap_or_else(|_| {
        Err(Problem::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::BadRequest, "the body did not come in time"))
    })
}

fn check_rate(app: &App, grant: &Grant, events: usize, now: Now) -> Result<(), Problem> {
    let per_second = app.context.surroundings.config.limits.publish_per_second;
    let most = per_second.saturating_mul(2);
    let events = u32::try_from(events).unwrap_or(u32::MAX);
    if events > most {
        let detail = format!("more events than the {most} that may be published at once");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::RateLimited, detail));
    }
    app.publish_rates
        .take(&grant.subject, events, per_second, now.instant)
        .map_err(|wait| Problem::too_many("more events than allowed", wait.as_secs() + 1))
}

/// Checks one event and renders its body.
fn check(item: &RawValue, grant: &Grant, event_bytes: usize, now_ms: i64) -> Result<Append, Refused> {
    let sent: Sent<'_> = serde_json::from_str(item.get()).map_err(|error| {
        let named = serde_json::from_str::<Value>(item.get()).ok();
        let channel = named.and_then(|value| value.get("channel").and_then(Value::as_str).map(str::to_owned));
        let message = format!("not an event: {error}");
        Refused { channel, status: StatusCode::BAD_REQUEST, code: ErrorCode::BadRequest, message }
    })?;
    let name = sent.channel.as_str();
    let channel = Channel::parse(name)
        .map_err(|error| Refused::new(name, StatusCode::BAD_REQUEST, ErrorCode::BadChannel, error.to_string()))?;
    if channel.is_venue() || !grant.publish.allows(&channel) {
        let message =
            if channel.is_venue() { "channels of a venue are its own" } else { "the token does not allow the channel" };
        return Err(Refused::new(name, StatusCode::FORBIDDEN, ErrorCode::ChannelForbidden, message));
    }
    let event = sent.event.as_str();
    if event.is_empty() || event.len() > MAX_NAME_BYTES || OWN_EVENTS.contains(&event) {
        return Err(Refused::bad(name, "event is a name of up to 128 bytes, and none of the gateway's own"));
    }
    if sent.id.as_ref().is_some_and(|id| id.is_empty() || id.len() > MAX_NAME_BYTES) {
        return Err(Refused::bad(name, "id is a string of up to 128 bytes"));
    }
    let ts_ms = match sent.ts.map(Seq::new) {
        None => now_ms,
        Some(Ok(ts)) => i64::try_from(ts.get()).unwrap_or(now_ms),
        Some(Err(_)) => return Err(Refused::bad(name, "ts is milliseconds since the epoch")),
    };
    check_event(name, event, sent.data.get()).map_err(|why| Refused::bad(name, why))?;
    let data = compact(sent.data.get()).and_then(|data| RawValue::from_string(data).ok());
    let data = data.ok_or_else(|| Refused::bad(name, "data is nested too deeply"))?;
    let body = EventBody::render(ts_ms, event, &channel, Outcome::Ok, &data)
        .map_err(|error| Refused::bad(name, error.to_string()))?;
    if body.text().len() > event_bytes {
        let message = format!("the event is larger than {event_bytes} bytes");
        return Err(Refused::new(name, StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::BadRequest, message));
    }
    Ok(Append { channel, id: sent.id, body: body.text().clone() })
}

/// Removes the space between the tokens of well-formed JSON, so that an envelope is one line and numbers stay as they were
/// written. `None` when it is nested too deeply.
fn compact(json: &str) -> Option<String> {
    let mut out = String::with_capacity(json.len());
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    for c in json.chars() {
        if in_string {
            in_string = is_escaped || c != '"';
            is_escaped = !is_escaped && c == '\\';
        } else {
            match c {
                ' ' | '\n' | '\r' | '\t' => continue,
                '"' => in_string = true,
                '{' | '[' => depth += 1,
                '}' | ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        if depth > MAX_DEPTH {
            return None;
        }
        out.push(c);
    }
    Some(out)
}

/// Appends what may be, and puts the results where the events were.
async fn append(
    app: &App,
    checked: Vec<Result<Append, Refused>>,
) -> Result<Vec<Result<(Channel, Seq), Refused>>, Problem> {
    let events: Vec<Append> = checked.iter().filter_map(|item| item.as_ref().ok().cloned()).collect();
    let away = || {
        let detail = "the log cannot be reached; the outcome is unknown, so repeat with the same id";
        Problem::unavailable(ErrorCode::UpstreamUnavailable, detail, RETRY_AFTER_S)
    };
    let count = events.len();
    let answers = if events.is_empty() {
        Vec::new()
    } else {
        timeout(APPEND_WITHIN, app.context.replica.append(events)).await.map_err(|_| away())?
    };
    if answers.iter().any(|answer| matches!(answer, Err(error) if !matches!(error, StoreError::Broken(_)))) {
        return Err(away());
    }
    app.context.surroundings.metrics.published.inc_by(count as u64);
    let mut answers = answers.into_iter();
    let place = |item: Result<Append, Refused>| {
        let Append { channel, .. } = item?;
        match answers.next() {
            Some(Ok(seq)) => Ok((channel, seq)),
            Some(Err(_)) | None => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Err(Refused::new(channel.as_str(), status, ErrorCode::InternalError, "the log did not take the event"))
            }
        }
    };
    Ok(checked.into_iter().map(place).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compacting_changes_nothing_but_space() {
        let json = "{ \"a b\" : [ 1.50 ,\n 1e400 ], \"c\\\" \" : \"x \\\\\" , \"d\":{ } }";
        assert_eq!(compact(json).unwrap(), r#"{"a b":[1.50,1e400],"c\" ":"x \\","d":{}}"#);
        let deep = format!("{}{}", "[".repeat(101), "]".repeat(101));
        assert_eq!(compact(&deep), None);
        assert!(compact(&deep[1..201]).is_some());
    }
}
