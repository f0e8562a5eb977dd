//! Traces of the few events and subscriptions that are sampled: who is, and a bounded queue of spans that have ended.
//!
//! Nothing here waits. Without an exporter the tracer is off: nothing is sampled and nothing is kept.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use akis_model::TraceContext;
use parking_lot::Mutex;
use prometheus::Registry;
use prometheus::proto::LabelPair;

use crate::queue::{self, Entrance, Queue};

/// Exemplars kept, the newest of each series; those of further series are left out.
const EXEMPLARS: usize = 256;

/// What a span does for the spans beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// Work inside a process.
    Internal,
    /// Hands something to a queue: the log.
    Producer,
    /// Takes something from a queue.
    Consumer,
    /// Serves a request.
    Server,
}

/// Something that took time and has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// What it was: a fixed word.
    pub name: &'static str,
    /// See [`SpanKind`].
    pub kind: SpanKind,
    /// Its own name.
    pub context: TraceContext,
    /// The span that it hangs from; none for the first of a trace.
    pub parent: Option<[u8; 8]>,
    /// When it began, nanoseconds since the epoch.
    pub start_ns: u64,
    /// When it ended, nanoseconds since the epoch.
    pub end_ns: u64,
    /// What else is known of it, by names of OpenTelemetry's conventions where there is one.
    pub attributes: Vec<(&'static str, String)>,
    /// Whether it failed.
    pub is_failed: bool,
}

/// A sampled value of a histogram.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Exemplar {
    pub(crate) metric: &'static str,
    /// Values of the metric's labels, in the order of their names.
    pub(crate) labels: Vec<String>,
    pub(crate) value: f64,
    pub(crate) time_ns: u64,
    pub(crate) context: TraceContext,
}

impl Exemplar {
    /// Whether it is of the series with these labels, which are in the order of their names.
    pub(crate) fn is_of(&self, metric: &str, labels: &[LabelPair]) -> bool {
        self.metric == metric && self.labels.iter().map(String::as_str).eq(labels.iter().map(LabelPair::value))
    }
}

#[derive(Debug)]
struct Inner {
    one_in: u32,
    spans: Entrance<Span>,
    exemplars: Mutex<Vec<Exemplar>>,
}

/// Takes spans. Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<Arc<Inner>>);

impl Tracer {
    /// Traces nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// Traces one in `one_in`, none for 0; the spans come out of the receiver.
    ///
    /// # Errors
    ///
    /// When the registry has `akis_telemetry_spans_total` already.
    pub fn new(one_in: u32, registry: &Registry) -> Result<(Self, SpanReceiver), prometheus::Error> {
        let (entrance, spans) = queue::bounded("akis_telemetry_spans_total", "What became of spans.", registry)?;
        let tracer = Self(Some(Arc::new(Inner { one_in, spans: entrance, exemplars: Mutex::default() })));
        Ok((tracer.clone(), SpanReceiver { spans, tracer }))
    }

    /// Decides for one thread who is traced.
    pub fn sampler(&self) -> Sampler {
        let one_in = self.0.as_ref().map_or(0, |inner| inner.one_in);
        // Not all threads and processes at the same moment.
        Sampler { one_in, left: if one_in == 0 { 0 } else { fastrand::u32(..one_in) } }
    }

    /// Takes a span that has ended.
    pub fn record(&self, span: Span) {
        if let Some(inner) = &self.0 {
            inner.spans.put(span);
        }
    }

    /// Shows a trace beside the histogram `metric`, whose labels have the values `labels` in the order of their names.
    pub fn exemplar(&self, metric: &'static str, labels: &[&str], value: f64, context: TraceContext) {
        let Some(inner) = &self.0 else { return };
        let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        let mut exemplars = inner.exemplars.lock();
        exemplars.retain(|kept| kept.metric != metric || kept.labels != labels);
        if exemplars.len() < EXEMPLARS {
            exemplars.push(Exemplar { metric, labels, value, time_ns: unix_ns(SystemTime::now()), context });
        }
    }

    /// The newest exemplar of each series.
    pub(crate) fn exemplars(&self) -> Vec<Exemplar> {
        self.0.as_ref().map(|inner| inner.exemplars.lock().clone()).unwrap_or_default()
    }
}

/// Where spans come out.
#[derive(Debug)]
pub struct SpanReceiver {
    pub(crate) spans: Queue<Span>,
    /// Where they came in.
    pub(crate) tracer: Tracer,
}

/// Samples one in so many.
#[derive(Debug, Clone)]
pub struct Sampler {
    one_in: u32,
    left: u32,
}

impl Sampler {
    /// A new trace, when this one is traced.
    pub fn sample(&mut self) -> Option<TraceContext> {
        if self.left > 0 {
            self.left -= 1;
            return None;
        }
        if self.one_in == 0 {
            return None;
        }
        self.left = self.one_in - 1;
        Some(TraceContext { trace_id: fastrand::u128(1..).to_be_bytes(), span_id: new_span_id() })
    }
}

/// A context for a span that hangs from `parent`.
pub fn child_of(parent: TraceContext) -> TraceContext {
    TraceContext { span_id: new_span_id(), ..parent }
}

/// Nanoseconds since the epoch.
pub fn unix_ns(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The same of milliseconds since the epoch; 0 for what lies before.
pub fn ns_of_ms(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or_default().saturating_mul(1_000_000)
}

fn new_span_id() -> [u8; 8] {
    fastrand::u64(1..).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_so_many_is_sampled() {
        for (one_in, expected) in [(1, 1000), (10, 100), (1000, 1), (0, 0)] {
            let (tracer, _receiver) = Tracer::new(one_in, &Registry::new()).unwrap();
            let mut sampler = tracer.sampler();
            let sampled = (0..1000).filter_map(|_| sampler.sample()).count();
            assert_eq!(sampled, expected, "one in {one_in}");
        }
        assert_eq!(Tracer::off().sampler().sample(), None);
    }

    #[test]
    fn exemplars_are_bounded_and_the_newest_of_each_series_is_kept() {
        let (tracer, _receiver) = Tracer::new(1, &Registry::new()).unwrap();
        let context = tracer.sampler().sample().unwrap();
        for n in 0..2 * EXEMPLARS {
            tracer.exemplar("m", &[&n.to_string()], 1.0, context);
        }
        tracer.exemplar("m", &["7"], 2.0, context);
        let exemplars = tracer.exemplars();
        assert_eq!(exemplars.len(), EXEMPLARS);
        assert_eq!(exemplars.iter().filter(|e| e.labels == ["7"]).map(|e| e.value).collect::<Vec<_>>(), [2.0]);
    }
}
