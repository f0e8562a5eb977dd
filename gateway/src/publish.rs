//! `POST /v1/publish`: events of applications, one or many, in this protocol's form or as CloudEvents.

mod cloudevent;
mod event;
mod trace;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use akis_eventlog::{Append, StoreError};
use akis_model::{Channel, ErrorCode, Seq, TraceContext};
use axum::extract::{Request, State};
#[cfg(any(fuzzing, test))]
use axum::http::HeaderName;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::Instrument;

use self::event::{Refused, Sent};
pub(crate) use self::trace::PublishTraces;
use crate::auth::Grant;
use crate::body;
use crate::clock::Now;
use crate::limits::TokenBucket;
use crate::problem::Problem;
use crate::server::{App, authorize_request};

/// How long the log may take, so that the answer comes within 5 s.
const APPEND_WITHIN: Duration = Duration::from_millis(4500);

/// Seconds after which a publisher may try again when the log is away.
const RETRY_AFTER_S: u64 = 1;

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

/// Reads an event in each of the forms of CloudEvents. For the fuzz target alone.
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz_cloud_event(text: &str) {
    if let Ok(item) = serde_json::from_str(text) {
        let _ = cloudevent::structured(item);
    }
    let Some((attributes, data)) = text.split_once("\n\n") else { return };
    let Ok(data) = serde_json::from_str(data) else { return };
    let named = attributes.lines().filter_map(|line| line.split_once(": "));
    let headers: HeaderMap = named
        .filter_map(|(name, value)| Some((name.parse::<HeaderName>().ok()?, value.parse::<HeaderValue>().ok()?)))
        .collect();
    let _ = cloudevent::binary(&headers, data);
}

/// How events are written in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// This protocol's own: an object, or an array of them.
    Own,
    /// One CloudEvent as an object.
    Structured,
    /// An array of CloudEvents.
    Batch,
    /// One CloudEvent with its attributes in headers and its data as the body.
    Binary,
}

impl Form {
    /// The form that the headers name, if it is one of those that are understood.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "application/cloudevents+json" => Some(Self::Structured),
            "application/cloudevents-batch+json" => Some(Self::Batch),
            other if !cloudevent::is_json(other) => None,
            _ if cloudevent::is_binary(headers) => Some(Self::Binary),
            "application/json" => Some(Self::Own),
            _ => None,
        }
    }

    /// The events of a body, and whether they are answered one by one.
    fn items<'a>(self, text: &'a str, headers: &HeaderMap) -> Result<(Vec<Result<Sent<'a>, Refused>>, bool), Problem> {
        let is_array = match self {
            Self::Own => text.trim_start().starts_with('['),
            Self::Batch => true,
            Self::Structured | Self::Binary => false,
        };
        let items: Vec<&RawValue> = if is_array {
            serde_json::from_str(text).map_err(|error| Problem::bad_request(format!("not a JSON array: {error}")))?
        } else {
            let item = serde_json::from_str(text);
            vec![item.map_err(|error| Problem::bad_request(format!("not a JSON object: {error}")))?]
        };
        let read = |item| match self {
            Self::Own => Sent::read(item),
            Self::Structured | Self::Batch => cloudevent::structured(item),
            Self::Binary => cloudevent::binary(headers, item),
        };
        Ok((items.into_iter().map(read).collect(), is_array))
    }
}

/// Answers `POST /v1/publish`.
pub(crate) async fn publish(State(app): State<Arc<App>>, request: Request) -> Response {
    let traced = app.publish_traces.sample(request.headers());
    let span = traced.as_ref().map_or_else(tracing::Span::none, |traced| traced.log_span());
    let trace = traced.as_ref().map(|traced| traced.context());
    let accepted = accept(&app, request, trace).instrument(span).await;
    let response = accepted.unwrap_or_else(|problem| {
        app.context.surroundings.metrics.refused("publish");
        problem.into_response()
    });
    if let Some(traced) = traced {
        app.publish_traces.record(traced, response.status());
    }
    response
}

async fn accept(app: &App, request: Request, trace: Option<TraceContext>) -> Result<Response, Problem> {
    let now = Now::read();
    let (head, body) = request.into_parts();
    let grant = authorize_request(app, &head.headers, &head.uri, now)?;
    let Some(form) = Form::of(&head.headers) else {
        let detail = "events are application/json, application/cloudevents+json or application/cloudevents-batch+json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::BadRequest, detail));
    };
    check_encoding(&head.headers)?;
    let mut bytes = Vec::new();
    body::read(&app.context.surroundings.config.limits, body, |chunk| bytes.extend_from_slice(chunk)).await?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Problem::bad_request("the body is not UTF-8"))?;
    let (items, is_array) = form.items(text, &head.headers)?;
    check_rate(app, &grant, items.len(), now)?;
    let event_bytes = app.context.surroundings.config.limits.event_bytes;
    let check = |item: Result<Sent<'_>, Refused>| item?.check(&grant, event_bytes, now.unix_ms);
    let checked: Vec<_> = items.into_iter().map(check).collect();
    let results = append(app, checked, trace).await?;
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

/// Refuses what is compressed, and says so (RFC 9110 section 15.5.16).
fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let is_plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().all(is_plain) {
        return Ok(());
    }
    let problem =
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::BadRequest, "the body is to be sent as it is");
    Err(problem.with_header(ACCEPT_ENCODING, HeaderValue::from_static("identity")))
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

/// Appends what may be, and puts the results where the events were. The first event carries the trace of the request: one
/// that is sampled has one event followed, however many it brings.
async fn append(
    app: &App,
    checked: Vec<Result<Append, Refused>>,
    trace: Option<TraceContext>,
) -> Result<Vec<Result<(Channel, Seq), Refused>>, Problem> {
    let mut events: Vec<Append> = checked.iter().filter_map(|item| item.as_ref().ok().cloned()).collect();
    if let Some(first) = events.first_mut() {
        first.trace = trace;
    }
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
