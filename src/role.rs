//! What the long-running roles share: logs, signals, the admin port, and the connection to the log.

use std::sync::Arc;
use std::time::Duration;

use akis_eventlog::RedisStore;
use akis_service::admin::{self, Admin, Drain, Readiness};
use akis_service::backoff::Backoff;
use akis_service::config::Config;
use akis_service::open_files;
use akis_service::otlp::{self, Exporter, Identity, LogReceiver};
use akis_service::process::ProcessMetrics;
use akis_service::shutdown;
use akis_service::telemetry::{self, Telemetry};
use akis_service::trace::Tracer;
use anyhow::Context;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::net;

/// What a role logs unless `RUST_LOG` says otherwise. The Redis client tells of each lost connection in its own words; what
/// matters of that is told by the log's readers and writers.
const LOG_LEVEL: &str = "info,fred=off";

/// Files that a gateway opens beside its clients' sockets, at most: logs, Redis, the admin port, requests over HTTP.
const OWN_FILES: u64 = 200;

/// How long the admin port may take to write its last answers.
const ADMIN_GRACE: Duration = Duration::from_secs(2);

/// Bounds of the wait between two attempts to reach Redis at the start.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// A role that has begun: its ports are bound, and it hears signals.
pub(crate) struct Role {
    /// Where metrics are registered, and where spans go.
    pub(crate) telemetry: Telemetry,
    /// Cancelled when the role shall stop in order: by a signal, or over the admin port.
    pub(crate) stop: CancellationToken,
    admin: TcpListener,
    exporter: Option<Exporter>,
    /// How many files may be open; `None` without a limit.
    open_files: Option<u64>,
}

impl Role {
    /// Starts logging, raises the limit of open files, listens for signals and binds the admin port. `name` is the role's.
    pub(crate) async fn begin(config: &Config, name: &str) -> anyhow::Result<Self> {
        let registry = Registry::new();
        let logs = config.telemetry.logs.then(|| otlp::log_layer(&registry)).transpose();
        let (pushed, logs) = logs.context("cannot register metrics")?.unzip();
        telemetry::start(config.log_format, LOG_LEVEL, pushed);
        let open_files = open_files::raise_limit().unwrap_or_else(|error| {
            warn!(%error, "failed to raise the limit of open files");
            None
        });
        let stop = shutdown::on_signals().context("cannot listen for signals")?;
        let admin = net::bind(config.admin.listen, "--admin").await?;
        ProcessMetrics::register(&registry).context("cannot register metrics")?;
        let (tracer, exporter) = exporter(config, name, &registry, logs)?;
        Ok(Self { telemetry: Telemetry { registry, tracer }, stop, admin, exporter, open_files })
    }

    /// Warns when fewer files may be open than a gateway takes connections.
    pub(crate) fn check_open_files(&self, connections: usize) {
        let wanted = connections as u64 + OWN_FILES;
        if let Some(open_files) = self.open_files.filter(|open_files| *open_files < wanted) {
            warn!(
                open_files,
                connections,
                "clients will be refused: raise the hard limit of open files to {wanted} (LimitNOFILE of systemd, \
                 --ulimit nofile={wanted} of Docker), or lower gateway.limits.connections"
            );
        }
    }

    /// Serves the admin port while `work` lasts. A drain that was asked for is answered when `work` has ended.
    pub(crate) async fn run(
        self,
        readiness: Readiness,
        work: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        if let Ok(address) = self.admin.local_addr() {
            info!(%address, "admin port: /livez /readyz /metrics, POST /drain");
        }
        let drain = Drain { start: self.stop, done: CancellationToken::new() };
        let served = CancellationToken::new();
        let admin = Admin { telemetry: self.telemetry, readiness, drain: drain.clone() };
        let mut serving = tokio::spawn(admin::serve(self.admin, admin, served.clone()));
        let pushed = CancellationToken::new();
        let pushing = self.exporter.map(|exporter| tokio::spawn(exporter.run(pushed.clone())));
        let result = work.await;
        drain.done.cancel();
        pushed.cancel();
        if let Some(pushing) = pushing
            && let Err(failure) = pushing.await
        {
            error!(%failure, "the pushing of telemetry broke down");
        }
        served.cancel();
        match tokio::time::timeout(ADMIN_GRACE, &mut serving).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(failure))) => error!(%failure, "the admin port failed"),
            Ok(Err(failure)) => error!(%failure, "the admin port broke down"),
            Err(_) => serving.abort(),
        }
        result
    }
}

/// What pushes metrics, spans and log records, where that is configured.
fn exporter(
    config: &Config,
    name: &str,
    registry: &Registry,
    logs: Option<LogReceiver>,
) -> anyhow::Result<(Tracer, Option<Exporter>)> {
    let Some(url) = &config.telemetry.otlp else { return Ok((Tracer::off(), None)) };
    let (tracer, spans) = Tracer::new(config.telemetry.sample_one_in, registry).context("cannot register metrics")?;
    let identity = Identity { service: format!("akis-{name}"), instance: config.gateway.replica.clone() };
    let exporter = Exporter::new(url.expose(), &identity, registry.clone(), spans, logs)?;
    info!(%url, "telemetry is pushed by OTLP");
    Ok((tracer, Some(exporter)))
}

/// Connects to the log in Redis. While it cannot be reached this waits, until `stop`; `None` then.
///
/// # Errors
///
/// When trying again is of no use, with what has to be changed.
pub(crate) async fn connect(config: &Config, stop: &CancellationToken) -> anyhow::Result<Option<Arc<RedisStore>>> {
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    loop {
        let connecting = RedisStore::connect(config.redis.url.expose(), &config.log.prefix, config.log.partitions);
        let connected = tokio::select! {
            connected = connecting => connected,
            () = stop.cancelled() => return Ok(None),
        };
        let error = match connected {
            Ok(store) => return Ok(Some(store)),
            Err(error) if !error.is_retryable() => {
                return Err(anyhow::Error::new(error).context(format!("cannot use the log at {}", config.redis.url)));
            }
            Err(error) => error,
        };
        warn!(url = %config.redis.url, %error, "the log cannot be reached; trying again");
        tokio::select! {
            () = tokio::time::sleep(backoff.next_wait()) => {}
            () = stop.cancelled() => return Ok(None),
        }
    }
}
