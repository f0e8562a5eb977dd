//! Pushes metrics, spans and log records to an OpenTelemetry collector, by OTLP over gRPC.
//!
//! The metrics are those of the registry, as `/metrics` shows them: there is one set of instruments. One task pushes;
//! everything that it can wait for has a deadline, and what it does not take in time is dropped and counted, so that a
//! collector which hangs holds nobody up.

mod convert;
mod logs;

use std::collections::BTreeSet;
use std::error::Error;
use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tracing::{info, warn};

pub use self::convert::otlp_name;
pub use self::logs::{LogLayer, LogReceiver, log_layer};
use crate::telemetry::registered;
use crate::trace::SpanReceiver;

/// How often metrics are pushed.
const METRICS_EVERY: Duration = Duration::from_secs(10);

/// How long spans and log records gather before they are pushed.
const GATHERED_EVERY: Duration = Duration::from_secs(1);

/// How long a push may take.
const PUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the end of the process waits for the last push.
const LAST_PUSH: Duration = Duration::from_secs(1);

/// Spans or log records of one push.
const BATCH: usize = 512;

/// By whose name a push is logged.
const PUSHING: &str = module_path!();

/// Who tells.
#[derive(Debug, Clone)]
pub struct Identity {
    /// `service.name`: `akis-gateway` for example.
    pub service: String,
    /// `service.instance.id`: tells this process from others.
    pub instance: String,
}

/// Why nothing can be pushed.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The address cannot be used, or the system trusts nobody.
    #[error("telemetry.otlp: {}", deepest(.0))]
    Address(#[from] tonic::transport::Error),
    /// The registry has metrics of these names already.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Pushes until it is stopped. See the module's documentation.
pub struct Exporter {
    registry: Registry,
    spans: SpanReceiver,
    /// None: log records stay here.
    logs: Option<LogReceiver>,
    resource: Resource,
    metrics: MetricsServiceClient<Channel>,
    traces: TraceServiceClient<Channel>,
    records: LogsServiceClient<Channel>,
    exports: IntCounterVec,
    started_ns: u64,
    /// The signals whose last push failed: only turns are logged.
    failing: BTreeSet<&'static str>,
}

impl Exporter {
    /// Connects when there is something to push, and again whenever it has to.
    ///
    /// Must be called inside a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`OtlpError`] says what cannot be used.
    pub fn new(
        url: &str,
        identity: &Identity,
        registry: Registry,
        spans: SpanReceiver,
        logs: Option<LogReceiver>,
    ) -> Result<Self, OtlpError> {
        let mut endpoint = Endpoint::from_shared(url.to_owned())?.connect_timeout(PUSH_TIMEOUT);
        if url.starts_with("https:") {
            endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots())?;
        }
        let channel = endpoint.connect_lazy();
        let help = "Pushes of telemetry to the collector.";
        let exports = IntCounterVec::new(Opts::new("akis_telemetry_exports_total", help), &["signal", "result"]);
        let exports = registered(&registry, exports)?;
        for signal in ["metrics", "traces"].into_iter().chain(logs.as_ref().map(|_| "logs")) {
            ["ok", "failed"].into_iter().for_each(|result| _ = exports.with_label_values(&[signal, result]));
        }
        Ok(Self {
            registry,
            spans,
            logs,
            resource: convert::resource(identity),
            metrics: MetricsServiceClient::new(channel.clone()),
            traces: TraceServiceClient::new(channel.clone()),
            records: LogsServiceClient::new(channel),
            exports,
            started_ns: crate::trace::unix_ns(SystemTime::now()),
            failing: BTreeSet::new(),
        })
    }

    /// Pushes until `stop`, and once more then, for a second at most.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.push()).await;
        // A push that was cut off.
        self.spans.spans.settle(false);
        self.settle_logs(false);
        let last = async {
            self.push_spans(LAST_PUSH).await;
            self.push_logs(LAST_PUSH).await;
            self.push_metrics(LAST_PUSH).await;
        };
        if timeout(LAST_PUSH, last).await.is_err() {
            warn!("the last telemetry could not be pushed in time");
        }
    }

    async fn push(&mut self) {
        let mut metrics = interval(METRICS_EVERY);
        metrics.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut gathered = interval(GATHERED_EVERY);
        gathered.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = metrics.tick() => self.push_metrics(PUSH_TIMEOUT).await,
                _ = gathered.tick() => {
                    self.push_spans(PUSH_TIMEOUT).await;
                    self.push_logs(PUSH_TIMEOUT).await;
                }
            }
        }
    }

    async fn push_spans(&mut self, limit: Duration) {
        loop {
            let batch = self.spans.spans.take(BATCH);
            if batch.is_empty() {
                return;
            }
            let scope_spans = vec![ScopeSpans {
                scope: Some(convert::scope()),
                spans: batch.into_iter().map(convert::span).collect(),
                ..ScopeSpans::default()
            }];
            let resource_spans =
                vec![ResourceSpans { resource: Some(self.resource.clone()), scope_spans, ..ResourceSpans::default() }];
            let pushed = timeout(limit, self.traces.export(ExportTraceServiceRequest { resource_spans })).await;
            let is_sent = self.note("traces", pushed.map(|answer| answer.map(|_| ())));
            self.spans.spans.settle(is_sent);
            if !is_sent {
                return;
            }
        }
    }

    async fn push_logs(&mut self, limit: Duration) {
        loop {
            let log_records = self.logs.as_mut().map(|logs| logs.0.take(BATCH)).unwrap_or_default();
            if log_records.is_empty() {
                return;
            }
            let scope_logs = vec![ScopeLogs { scope: Some(convert::scope()), log_records, ..ScopeLogs::default() }];
            let resource_logs =
                vec![ResourceLogs { resource: Some(self.resource.clone()), scope_logs, ..ResourceLogs::default() }];
            let pushed = timeout(limit, self.records.export(ExportLogsServiceRequest { resource_logs })).await;
            let is_sent = self.note("logs", pushed.map(|answer| answer.map(|_| ())));
            self.settle_logs(is_sent);
            if !is_sent {
                return;
            }
        }
    }

    /// Counts the log records that were taken.
    fn settle_logs(&mut self, have_arrived: bool) {
        if let Some(logs) = &mut self.logs {
            logs.0.settle(have_arrived);
        }
    }

    async fn push_metrics(&mut self, limit: Duration) {
        let now_ns = crate::trace::unix_ns(SystemTime::now());
        let exemplars = self.spans.tracer.exemplars();
        let families = self.registry.gather();
        let metrics = families.iter().map(|family| convert::metric(family, self.started_ns, now_ns, &exemplars));
        let scope_metrics =
            vec![ScopeMetrics { scope: Some(convert::scope()), metrics: metrics.collect(), ..ScopeMetrics::default() }];
        let resource_metrics = vec![ResourceMetrics {
            resource: Some(self.resource.clone()),
            scope_metrics,
            ..ResourceMetrics::default()
        }];
        let pushed = timeout(limit, self.metrics.export(ExportMetricsServiceRequest { resource_metrics })).await;
        self.note("metrics", pushed.map(|answer| answer.map(|_| ())));
    }

    /// Counts a push. Gives whether it succeeded.
    fn note(
        &mut self,
        signal: &'static str,
        pushed: Result<Result<(), tonic::Status>, tokio::time::error::Elapsed>,
    ) -> bool {
        let failure = match pushed {
            Ok(Ok(())) => None,
            Ok(Err(status)) => Some(why(&status)),
            Err(_) => Some("no answer in time".to_owned()),
        };
        let result = if failure.is_some() { "failed" } else { "ok" };
        self.exports.with_label_values(&[signal, result]).inc();
        if let Some(failure) = &failure {
            if self.failing.insert(signal) {
                warn!(signal, failure, "telemetry cannot be pushed; what waits is dropped");
            }
        } else if self.failing.remove(signal) {
            info!(signal, "telemetry is pushed again");
        }
        failure.is_none()
    }
}

/// What a collector answered, or what kept it from answering.
fn why(status: &tonic::Status) -> String {
    match status.source() {
        None => format!("{}: {}", status.code(), status.message()),
        Some(source) => deepest(source),
    }
}

/// The cause that says most: those around it say "transport error" of all that can happen to a connection.
fn deepest(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
