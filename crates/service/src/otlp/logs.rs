//! Log records on their way to the collector: the same lines as on stderr, with the same level.
//!
//! What pushing itself is logged with stays on stderr, as do the libraries under it: a record of a push would be pushed, and
//! be the next record.

use std::fmt;
use std::time::SystemTime;

use akis_model::TraceContext;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use prometheus::Registry;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::queue::{self, Entrance, Queue};
use crate::trace::unix_ns;

/// Crates that a push goes through.
const BENEATH: [&str; 8] = ["h2", "hyper", "hyper_util", "mio", "rustls", "tokio_util", "tonic", "tower"];

/// Makes a record of each line that is logged. See the module's documentation.
#[derive(Debug)]
pub struct LogLayer(Entrance<LogRecord>);

/// Where log records come out.
#[derive(Debug)]
pub struct LogReceiver(pub(super) Queue<LogRecord>);

/// A layer for the log, and where what it hears comes out.
///
/// # Errors
///
/// When the registry has `akis_telemetry_logs_total` already.
pub fn log_layer(registry: &Registry) -> Result<(LogLayer, LogReceiver), prometheus::Error> {
    let (entrance, queue) = queue::bounded("akis_telemetry_logs_total", "What became of log records.", registry)?;
    Ok((LogLayer(entrance), LogReceiver(queue)))
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut ids = Ids::default();
        attributes.record(&mut ids);
        let trace = TraceContext::parse(format!("00-{}-{}-01", ids.trace, ids.span).as_bytes());
        if let (Some(trace), Some(span)) = (trace, context.span(id)) {
            span.extensions_mut().insert(trace);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Line { target: metadata.target().to_owned(), ..Line::default() };
        event.record(&mut line);
        if !is_pushing(&line.target) {
            let trace = context.lookup_current().and_then(|span| span.extensions().get::<TraceContext>().copied());
            self.0.put(line.record(*metadata.level(), trace));
        }
    }
}

/// Whether something is logged by a push, or may be.
fn is_pushing(target: &str) -> bool {
    let name = target.split("::").next().unwrap_or(target);
    BENEATH.contains(&name) || target == super::PUSHING
}

/// The ids that [`crate::telemetry::log_span`] writes.
#[derive(Default)]
struct Ids {
    trace: String,
    span: String,
}

impl Visit for Ids {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "trace_id" => self.trace = format!("{value:?}"),
            "span_id" => self.span = format!("{value:?}"),
            _ => {}
        }
    }
}

/// What is said in one line.
#[derive(Default)]
struct Line {
    target: String,
    message: String,
    fields: Vec<KeyValue>,
}

impl Line {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::StringValue(text)) => self.message = text,
            // Libraries that log by the crate `log` have their own names in a field.
            ("log.target", Value::StringValue(text)) => self.target = text,
            (name, value) => self.fields.push(key_value(name, value)),
        }
    }

    fn record(self, level: Level, trace: Option<TraceContext>) -> LogRecord {
        let now_ns = unix_ns(SystemTime::now());
        let mut attributes = self.fields;
        attributes.push(key_value("target", Value::StringValue(self.target)));
        LogRecord {
            time_unix_nano: now_ns,
            observed_time_unix_nano: now_ns,
            severity_number: severity(level).into(),
            severity_text: level.to_string(),
            body: Some(AnyValue { value: Some(Value::StringValue(self.message)) }),
            attributes,
            // The W3C's flag: sampled.
            flags: trace.map_or(0, |_| 1),
            trace_id: trace.map(|trace| trace.trace_id.into()).unwrap_or_default(),
            span_id: trace.map(|trace| trace.span_id.into()).unwrap_or_default(),
            ..LogRecord::default()
        }
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, Value::DoubleValue(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Value::IntValue(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, i64::try_from(value).map_or_else(|_| Value::StringValue(value.to_string()), Value::IntValue));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Value::BoolValue(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Value::StringValue(value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, Value::StringValue(format!("{value:?}")));
    }
}

fn key_value(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// Source: <https://opentelemetry.io/docs/specs/otel/logs/data-model/#field-severitynumber>.
fn severity(level: Level) -> SeverityNumber {
    match level {
        Level::TRACE => SeverityNumber::Trace,
        Level::DEBUG => SeverityNumber::Debug,
        Level::INFO => SeverityNumber::Info,
        Level::WARN => SeverityNumber::Warn,
        Level::ERROR => SeverityNumber::Error,
    }
}
