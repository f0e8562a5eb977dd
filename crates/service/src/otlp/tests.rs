use akis_testkit::{Collector, wait_until};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric, number_data_point};
use prometheus::{Histogram, HistogramOpts, IntCounterVec};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::queue::CAPACITY;
use crate::telemetry::log_span;
use crate::trace::{Span, SpanKind, Tracer};

/// Longer than anything here may take; a failing test says so instead of hanging.
const PATIENCE: Duration = Duration::from_secs(30);

struct Process {
    registry: Registry,
    tracer: Tracer,
    layer: Option<LogLayer>,
    stop: CancellationToken,
    exporting: JoinHandle<()>,
}

fn process(url: &str) -> Process {
    let (registry, stop) = (Registry::new(), CancellationToken::new());
    let (tracer, spans) = Tracer::new(1, &registry).unwrap();
    let identity = Identity { service: "akis-test".to_owned(), instance: "one".to_owned() };
    let (layer, logs) = log_layer(&registry).unwrap();
    let exporter = Exporter::new(url, &identity, registry.clone(), spans, Some(logs)).unwrap();
    let exporting = tokio::spawn(exporter.run(stop.clone()));
    Process { registry, tracer, layer: Some(layer), stop, exporting }
}

/// Where somebody accepts, and never says a word. Ends with the runtime.
async fn hanging() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            held.push(socket);
        }
    });
    url
}

impl Process {
    fn record(&self, count: usize) {
        let mut sampler = self.tracer.sampler();
        for _ in 0..count {
            let (context, attributes) = (sampler.sample().unwrap(), vec![("akis.venue", "bist".to_owned())]);
            let kind = SpanKind::Producer;
            self.tracer.record(Span {
                name: "append",
                kind,
                context,
                parent: None,
                start_ns: 5,
                end_ns: 9,
                attributes,
                is_failed: false,
            });
        }
    }

    /// From now on all that this thread logs is pushed, whatever its level.
    fn log(&mut self) -> DefaultGuard {
        tracing::subscriber::set_default(tracing_subscriber::registry().with(self.layer.take().unwrap()))
    }

    fn count(&self, name: &str, label: &str) -> u64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let has = |m: &&prometheus::proto::Metric| m.get_label().iter().any(|pair| pair.value() == label);
        family.get_metric().iter().filter(has).map(|m| m.get_counter().get_value() as u64).sum()
    }

    /// Stops, and gives how long that took.
    async fn end(self) -> Duration {
        let asked = Instant::now();
        self.stop.cancel();
        timeout(PATIENCE, self.exporting).await.expect("the exporter does not end").unwrap();
        asked.elapsed()
    }
}

fn find<'a>(metrics: &'a [Metric], name: &str) -> &'a Metric {
    metrics.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("no {name}"))
}

#[tokio::test]
async fn a_collector_gets_the_spans_and_what_the_registry_has() {
    let collector = Collector::start().unwrap();
    let process = process(&collector.url());
    let ages = Histogram::with_opts(HistogramOpts::new("akis_x_age_seconds", "help").buckets(vec![0.1, 1.0])).unwrap();
    let counts = IntCounterVec::new(Opts::new("akis_x_events_total", "events"), &["venue"]).unwrap();
    process.registry.register(Box::new(ages.clone())).unwrap();
    process.registry.register(Box::new(counts.clone())).unwrap();
    [0.05, 0.5, 0.5, 7.0].into_iter().for_each(|age| ages.observe(age));
    counts.with_label_values(&["bist"]).inc_by(3);
    let context = process.tracer.sampler().sample().unwrap();
    process.tracer.exemplar("akis_x_age_seconds", &[], 7.0, context);
    process.record(3);
    process.end().await;

    let spans = collector.spans();
    assert_eq!(spans.len(), 3);
    let (service, span) = &spans[0];
    assert_eq!((service.as_str(), span.name.as_str()), ("akis-test", "append"));
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (5, 9));
    assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));

    let metrics = collector.metrics("akis-test").unwrap();
    let age = find(&metrics, "akis.x.age");
    assert_eq!(age.unit, "s");
    let Some(metric::Data::Histogram(histogram)) = &age.data else { panic!("{age:?}") };
    let point = &histogram.data_points[0];
    assert_eq!((point.count, point.sum), (4, Some(8.05)));
    assert_eq!((&point.bucket_counts, &point.explicit_bounds), (&vec![1, 2, 1], &vec![0.1, 1.0]));
    assert_eq!(point.exemplars[0].trace_id, context.trace_id);
    let Some(metric::Data::Sum(sum)) = &find(&metrics, "akis.x.events").data else { panic!("no sum") };
    assert_eq!(sum.data_points[0].value, Some(number_data_point::Value::AsDouble(3.0)));
    assert_eq!((sum.is_monotonic, sum.data_points[0].attributes[0].key.as_str()), (true, "venue"));
}

#[tokio::test]
async fn a_collector_that_refuses_costs_what_was_told_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let process = process(&format!("http://{address}"));
    process.record(10);
    let is_counted = async || process.count("akis_telemetry_spans_total", "dropped") >= 10;
    wait_until(PATIENCE, "spans that cannot be sent are counted", is_counted).await.unwrap();
    assert!(process.count("akis_telemetry_exports_total", "failed") > 0);
    assert!(process.end().await < 3 * LAST_PUSH);
}

#[tokio::test]
async fn a_collector_that_hangs_holds_nobody_up_and_fills_nothing() {
    let process = process(&hanging().await);
    let began = Instant::now();
    process.record(10 * CAPACITY);
    assert!(began.elapsed() < Duration::from_secs(2), "recording waits");
    let dropped = process.count("akis_telemetry_spans_total", "dropped");
    assert!(dropped >= 9 * CAPACITY as u64 - BATCH as u64, "{dropped}");
    let has_failed = async || process.count("akis_telemetry_exports_total", "failed") > 0;
    wait_until(PATIENCE, "a push that hangs is given up", has_failed).await.unwrap();
    let took = process.end().await;
    assert!(took < 3 * LAST_PUSH, "{took:?}");
}

fn body(record: &LogRecord) -> String {
    match record.body.as_ref().and_then(|body| body.value.clone()) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn log_records_arrive_with_their_trace_and_pushing_makes_none() {
    let collector = Collector::start().unwrap();
    let mut process = process(&collector.url());
    let context = process.tracer.sampler().sample().unwrap();
    let logging = process.log();
    log_span(context).in_scope(|| tracing::warn!(n = 1_u64, venue = %"bist", is_late = true, "the feed is late"));
    tracing::debug!("outside");
    let has_come = |text| move |collector: &Collector| collector.logs().iter().any(|(_, record)| body(record) == text);
    collector.wait_for(PATIENCE, "the first records come", has_come("outside")).await.unwrap();
    tracing::info!("later");
    collector.wait_for(PATIENCE, "what is logged later comes", has_come("later")).await.unwrap();
    let is_counted = async || process.count("akis_telemetry_logs_total", "sent") == 3;
    wait_until(PATIENCE, "what has come is counted", is_counted).await.unwrap();
    drop(logging);
    process.end().await;

    let logs = collector.logs();
    let bodies: Vec<String> = logs.iter().map(|(_, record)| body(record)).collect();
    assert_eq!(bodies, ["the feed is late", "outside", "later"], "{logs:#?}");
    let (service, record) = &logs[0];
    assert_eq!((service.as_str(), record.severity_number, record.severity_text.as_str()), ("akis-test", 13, "WARN"));
    assert_eq!((record.trace_id.as_slice(), record.span_id.as_slice()), (&context.trace_id[..], &context.span_id[..]));
    let value = |name: &str| {
        let field = record.attributes.iter().find(|field| field.key == name);
        field.and_then(|field| field.value.clone()?.value).unwrap_or_else(|| panic!("no {name}"))
    };
    assert_eq!((value("n"), value("is_late")), (Value::IntValue(1), Value::BoolValue(true)));
    assert_eq!(value("venue"), Value::StringValue("bist".to_owned()));
    assert_eq!(value("target"), Value::StringValue("akis_service::otlp::tests".to_owned()));
    assert!(logs[1].1.trace_id.is_empty() && logs[1].1.time_unix_nano > 0, "{logs:#?}");
}

#[tokio::test]
async fn whoever_logs_waits_for_no_collector() {
    let mut process = process(&hanging().await);
    let logging = process.log();
    let began = Instant::now();
    (0..10 * CAPACITY).for_each(|n| tracing::info!(n, "a line"));
    assert!(began.elapsed() < Duration::from_secs(5), "logging waits");
    drop(logging);
    let dropped = process.count("akis_telemetry_logs_total", "dropped");
    assert!(dropped >= 9 * CAPACITY as u64 - BATCH as u64, "{dropped}");
    let is_given_up = async || process.count("akis_telemetry_logs_total", "dropped") > dropped;
    wait_until(PATIENCE, "a push that hangs is given up", is_given_up).await.unwrap();
    let took = process.end().await;
    assert!(took < 3 * LAST_PUSH, "{took:?}");
}
