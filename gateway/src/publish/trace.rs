//! Which requests to publish are traced, and the span of one.
//!
//! The sampling rate alone decides. A `traceparent` that comes along says which trace a request belongs to that is sampled
//! anyway; it makes none be sampled, or whoever may publish could have everything traced.

use std::time::SystemTime;

use akis_model::TraceContext;
use akis_service::telemetry::log_span;
use akis_service::trace::{Sampler, Span, SpanKind, Tracer, child_of, unix_ns};
use axum::http::{HeaderMap, StatusCode};
use parking_lot::Mutex;

/// Source: <https://www.w3.org/TR/trace-context/#traceparent-header>.
const TRACEPARENT: &str = "traceparent";

/// Samples requests to publish.
pub(crate) struct PublishTraces {
    tracer: Tracer,
    sampler: Mutex<Sampler>,
}

/// A request that is traced.
pub(super) struct TracedRequest {
    context: TraceContext,
    parent: Option<TraceContext>,
    began: SystemTime,
}

impl PublishTraces {
    /// Samples at the tracer's rate.
    pub(crate) fn new(tracer: Tracer) -> Self {
        let sampler = Mutex::new(tracer.sampler());
        Self { tracer, sampler }
    }

    /// Decides whether a request that has just come is traced.
    pub(super) fn sample(&self, headers: &HeaderMap) -> Option<TracedRequest> {
        let fresh = self.sampler.lock().sample()?;
        let parent = parent(headers);
        let context = parent.map_or(fresh, child_of);
        Some(TracedRequest { context, parent, began: SystemTime::now() })
    }

    /// Records a request that has been answered.
    pub(super) fn record(&self, request: TracedRequest, status: StatusCode) {
        let TracedRequest { context, parent, began } = request;
        self.tracer.record(Span {
            name: "publish",
            kind: SpanKind::Server,
            context,
            parent: parent.map(|parent| parent.span_id),
            start_ns: unix_ns(began),
            end_ns: unix_ns(SystemTime::now()),
            attributes: vec![
                ("http.request.method", "POST".to_owned()),
                ("http.route", "/v1/publish".to_owned()),
                ("http.response.status_code", status.as_u16().to_string()),
            ],
            // What a client did wrong is no failure of a server's span:
            // <https://opentelemetry.io/docs/specs/semconv/http/http-spans/#status>.
            is_failed: status.is_server_error(),
        });
    }
}

impl TracedRequest {
    /// What hangs from it names it by this.
    pub(super) fn context(&self) -> TraceContext {
        self.context
    }

    /// What is logged in it carries its ids.
    pub(super) fn log_span(&self) -> tracing::Span {
        log_span(self.context)
    }
}

/// What the request names as its parent; nothing when that is malformed, not sampled, or said twice.
fn parent(headers: &HeaderMap) -> Option<TraceContext> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { TraceContext::parse(value.as_bytes()) }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (TRACEPARENT.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_client_says_where_a_trace_belongs_and_not_that_there_is_one() {
        let (tracer, _spans) = Tracer::new(10, &Registry::new()).unwrap();
        let traces = PublishTraces::new(tracer);
        let with_parent = headers(&[PARENT]);
        let sampled: Vec<TracedRequest> = (0..100).filter_map(|_| traces.sample(&with_parent)).collect();
        assert_eq!(sampled.len(), 10, "the rate is kept, whatever a client wants");
        let parent = TraceContext::parse(PARENT.as_bytes());
        for request in sampled {
            assert_eq!(request.parent, parent);
            assert_eq!(Some(request.context.trace_id), parent.map(|parent| parent.trace_id));
            assert_ne!(Some(request.context.span_id), parent.map(|parent| parent.span_id));
        }
    }

    #[test]
    fn what_names_no_parent_begins_a_trace() {
        let (tracer, _spans) = Tracer::new(1, &Registry::new()).unwrap();
        let traces = PublishTraces::new(tracer);
        let unsampled = PARENT.replace("-01", "-00");
        for values in [&[][..], &["nonsense"], &[&unsampled], &[PARENT, PARENT]] {
            let request = traces.sample(&headers(values)).unwrap();
            assert_eq!(request.parent, None, "{values:?}");
        }
        assert!(PublishTraces::new(Tracer::off()).sample(&headers(&[PARENT])).is_none());
    }
}
