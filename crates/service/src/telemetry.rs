//! Structured logs on stderr (stdout is for results), and what metrics and traces go through.

use std::fmt;
use std::io::IsTerminal;

use akis_model::TraceContext;
use prometheus::Registry;
use prometheus::core::Collector;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::{Format, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogFormat;
use crate::otlp::LogLayer;
use crate::trace::Tracer;

/// What a role tells about itself.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    /// Where metrics are registered.
    pub registry: Registry,
    /// Where spans go.
    pub tracer: Tracer,
}

/// Registers a metric, and gives it back.
///
/// # Errors
///
/// When it could not be made, or the registry has its name already.
pub fn registered<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: Result<M, prometheus::Error>,
) -> Result<M, prometheus::Error> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Starts logging. `format` as configured; `level` applies unless `RUST_LOG` says otherwise; `pushed` hears the same lines.
///
/// Does nothing when logging was started before, as in tests.
pub fn start(format: Option<LogFormat>, level: &str, pushed: Option<LogLayer>) {
    let terminal = std::io::stderr().is_terminal();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal)
        // It would say on stderr that a line could not be written there, and panic: whoever logs would be gone.
        .log_internal_errors(false);
    // The only failure is a subscriber that is already there.
    let _ = match format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json }) {
        LogFormat::Text => {
            let lines = builder.with_target(false).finish();
            lines.with(pushed).with(filter_fn(is_harmless)).try_init()
        }
        LogFormat::Json => {
            let lines = builder.json().map_event_format(|_| WithTrace::default()).finish();
            lines.with(pushed).with(filter_fn(is_harmless)).try_init()
        }
    };
}

/// Whether something may be logged at all, whatever `RUST_LOG` says: the WebSocket client traces its whole request, and with it
/// the token.
fn is_harmless(metadata: &Metadata<'_>) -> bool {
    *metadata.level() < Level::TRACE || metadata.target() != "tungstenite::handshake::client"
}

/// A span of the log, so that what is logged in it carries the ids of the trace.
pub fn log_span(context: TraceContext) -> tracing::Span {
    // As loud as can be: at `RUST_LOG=warn` what is told of the trace has its ids, too.
    tracing::error_span!("trace", trace_id = %context.trace_hex(), span_id = %context.span_hex())
}

/// JSON lines in which what is logged inside a trace begins with `trace_id` and `span_id`, where collectors look for them.
struct WithTrace(Format<Json>);

impl Default for WithTrace {
    fn default() -> Self {
        Self(
            tracing_subscriber::fmt::format().json().flatten_event(true).with_current_span(false).with_span_list(false),
        )
    }
}

impl<S, N> FormatEvent<S, N> for WithTrace
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let ids = context.lookup_current().and_then(|span| {
            let extensions = span.extensions();
            let fields = &extensions.get::<FormattedFields<N>>()?.fields;
            Some(fields.strip_prefix('{')?.strip_suffix('}')?.to_owned())
        });
        let Some(ids) = ids.filter(|ids| !ids.is_empty()) else { return self.0.format_event(context, writer, event) };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        write!(writer, "{{{ids},{}", line.strip_prefix('{').unwrap_or(&line))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn lines_inside_a_trace_carry_its_ids_and_others_do_not() {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(lines.clone())
            .with_env_filter("warn")
            .json()
            .map_event_format(|_| WithTrace::default())
            .finish();
        let context = TraceContext::parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        tracing::subscriber::with_default(subscriber, || {
            log_span(context).in_scope(|| tracing::warn!(n = 1, "inside"));
            tracing::warn!("outside");
        });
        let text = String::from_utf8(lines.0.lock().clone()).unwrap();
        let (inside, outside) = text.split_once('\n').unwrap();
        let start = r#"{"span_id":"00f067aa0ba902b7","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","timestamp":"#;
        assert!(inside.starts_with(start) && inside.contains(r#""message":"inside""#), "{inside}");
        assert!(!outside.contains("trace_id") && outside.ends_with("}\n"), "{outside}");
    }
}
