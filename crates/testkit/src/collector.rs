//! An OpenTelemetry collector that keeps what it is sent.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use crate::wait::wait_until;

/// What has come in, each push with the name of the service that sent it.
#[derive(Debug, Default)]
struct Received {
    spans: Vec<(String, Span)>,
    metrics: Vec<(String, Vec<Metric>)>,
    logs: Vec<(String, LogRecord)>,
}

/// Takes OTLP over gRPC on a port of loopback. Ends with the value.
pub struct Collector {
    scheme: &'static str,
    address: SocketAddr,
    received: Kept,
    serving: JoinHandle<()>,
}

#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Received>>);

impl Kept {
    fn with<T>(&self, look: impl FnOnce(&mut Received) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Collector {
    /// Starts one.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub fn start() -> io::Result<Self> {
        Self::serve("http", Server::builder())
    }

    /// Starts one that speaks TLS, with the certificate `name` of `fixtures/tls`: `known` or `unknown`.
    ///
    /// # Errors
    ///
    /// When no port can be had, or there is no such certificate.
    pub fn start_tls(name: &str) -> io::Result<Self> {
        let read = |file: String| std::fs::read(tls_fixture(&file));
        let identity = Identity::from_pem(read(format!("{name}.pem"))?, read(format!("{name}.key.pem"))?);
        let server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity));
        Self::serve("https", server.map_err(io::Error::other)?)
    }

    fn serve(scheme: &'static str, mut server: Server) -> io::Result<Self> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let incoming = TcpIncoming::bind(any).map_err(io::Error::other)?;
        let address = incoming.local_addr()?;
        let received = Kept::default();
        let server = server
            .add_service(MetricsServiceServer::new(received.clone()))
            .add_service(TraceServiceServer::new(received.clone()))
            .add_service(LogsServiceServer::new(received.clone()));
        let serving = tokio::spawn(async move { _ = server.serve_with_incoming(incoming).await });
        Ok(Self { scheme, address, received, serving })
    }

    /// Where it listens, as `telemetry.otlp` wants it.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The spans that have come in, each with the name of its service.
    pub fn spans(&self) -> Vec<(String, Span)> {
        self.received.with(|received| received.spans.clone())
    }

    /// The log records that have come in, each with the name of its service.
    pub fn logs(&self) -> Vec<(String, LogRecord)> {
        self.received.with(|received| received.logs.clone())
    }

    /// The metrics of the latest push of a service.
    pub fn metrics(&self, service: &str) -> Option<Vec<Metric>> {
        self.received.with(|received| {
            received.metrics.iter().rev().find(|(name, _)| name == service).map(|(_, metrics)| metrics.clone())
        })
    }

    /// Waits until `is_there`, for `within` at most.
    ///
    /// # Errors
    ///
    /// With `what`, when it is not.
    pub async fn wait_for(&self, within: Duration, what: &str, is_there: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        wait_until(within, what, async || is_there(self)).await?;
        Ok(())
    }
}

/// Where a file of `fixtures/tls` is: `known-ca.pem` for example, the authority behind the certificate `known`.
pub fn tls_fixture(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tls").join(file)
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[tonic::async_trait]
impl MetricsService for Kept {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        for of in request.into_inner().resource_metrics {
            let metrics = of.scope_metrics.into_iter().flat_map(|of| of.metrics).collect();
            let service = service(of.resource.as_ref());
            self.with(|received| received.metrics.push((service, metrics)));
        }
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of in request.into_inner().resource_spans {
            let service = service(of.resource.as_ref());
            let spans = of.scope_spans.into_iter().flat_map(|of| of.spans).map(|span| (service.clone(), span));
            self.with(|received| received.spans.extend(spans));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Kept {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        for of in request.into_inner().resource_logs {
            let service = service(of.resource.as_ref());
            let records = of.scope_logs.into_iter().flat_map(|of| of.log_records);
            let records = records.map(|record| (service.clone(), record));
            self.with(|received| received.logs.extend(records));
        }
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

/// `service.name` of whoever sent something.
fn service(resource: Option<&opentelemetry_proto::tonic::resource::v1::Resource>) -> String {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let attributes = resource.map(|resource| resource.attributes.as_slice()).unwrap_or_default();
    let name = attributes.iter().find(|attribute| attribute.key == "service.name");
    match name.and_then(|name| name.value.as_ref()).and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(name)) => name.clone(),
        _ => String::new(),
    }
}
