//! One replica, put together.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use akis_eventlog::{Replica, ReplicaConfig, Sink, Store, Upstream};
use akis_service::config::{AuthConfig, GatewayConfig};
use akis_service::telemetry::Telemetry;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{Authenticator, Follower};
use crate::context::Context;
use crate::hub::Hub;
use crate::listing::Listing;
use crate::metrics::Metrics;
use crate::server::Server;
use crate::session::Surroundings;
use crate::shard::{Seed, Shards};

/// A replica that is further behind the log is not ready.
const MAX_TAIL_AGE: Duration = Duration::from_secs(10);

/// How often the tail's age is measured for the metrics.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// Why a gateway cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// There is nothing to check tokens with.
    #[error("nothing to check tokens with: set auth.secret (AKIS_AUTH__SECRET) or auth.keys")]
    NoKeys,
    /// Keys that cannot be used; the text names them.
    #[error("{0}")]
    Keys(String),
    /// The registry has metrics of these names already.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The system gives no threads or selectors.
    #[error("cannot start the threads that serve clients: {0}")]
    Shards(#[from] io::Error),
}

/// A gateway replica. It follows the log from the moment it is made.
pub struct Gateway {
    context: Arc<Context>,
    shards: Arc<Shards>,
    page: Option<&'static str>,
    /// Whether the revocations that the log holds have been read.
    knows_revocations: Arc<AtomicBool>,
    /// Ends the reading of the log.
    end: CancellationToken,
    /// What runs beside it until then.
    background: TaskTracker,
}

impl Gateway {
    /// Makes a replica and starts to follow the log. `page` is what `GET /` serves.
    ///
    /// Must be called inside a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`GatewayError`] names what is missing.
    pub fn new(
        store: Arc<dyn Store>,
        config: GatewayConfig,
        auth: &AuthConfig,
        telemetry: &Telemetry,
        page: Option<&'static str>,
    ) -> Result<Self, GatewayError> {
        let auth = Authenticator::new(auth, &config.limits)?;
        let metrics = Metrics::register(&telemetry.registry)?.traced(telemetry.tracer.clone());
        metrics.connections_max.set(i64::try_from(config.limits.connections).unwrap_or(i64::MAX));
        let surroundings = Arc::new(Surroundings { config, auth, metrics });
        let seeds = Seed::for_each_core()?;
        let inboxes = seeds.iter().map(Seed::inbox).collect();
        let hub = Hub::new(store.partitions(), inboxes, Arc::clone(&surroundings));
        let end = CancellationToken::new();
        let replica_config = ReplicaConfig::new(&surroundings.config.replica);
        let knows_revocations = Arc::new(AtomicBool::new(false));
        let background = TaskTracker::new();
        if let Some(follower) = Follower::new(Arc::clone(&store), Arc::clone(&knows_revocations)) {
            let (surroundings, end) = (Arc::clone(&surroundings), end.clone());
            background.spawn(async move {
                let Surroundings { auth, metrics, .. } = &*surroundings;
                end.run_until_cancelled(async {
                    tokio::join!(follower.run(auth, metrics), auth.keep_keys_fetched(metrics))
                })
                .await
            });
        }
        background.close();
        let replica = Replica::start(store, replica_config, Arc::clone(&hub) as Arc<dyn Sink>, end.clone());
        let context = Arc::new(Context {
            surroundings,
            listing: Listing::new(Arc::clone(&replica)),
            replica,
            hub,
            drain: CancellationToken::new(),
            stop: CancellationToken::new(),
            next_id: AtomicU64::new(1),
        });
        let shards = Arc::new(Shards::start(seeds, &context)?);
        Ok(Self { context, shards, page, knows_revocations, end, background })
    }

    /// Serves clients until `drain` has been cancelled and all of them have left, at the latest when the drain time is
    /// over; or until `stop`, at once. Ends the reading of the log.
    ///
    /// # Errors
    ///
    /// When the listener's address cannot be told.
    pub async fn serve(
        &self,
        listener: TcpListener,
        drain: CancellationToken,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let server = Server::new(Arc::clone(&self.context), Arc::clone(&self.shards), self.page);
        let result = tokio::select! {
            result = server.run(listener, drain, stop) => result,
            () = self.measure() => Ok(()),
            () = self.tell_upstream() => Ok(()),
            () = self.tell_revocations() => Ok(()),
        };
        self.end.cancel();
        self.context.replica.stopped().await;
        self.background.wait().await;
        result
    }

    /// Whether this replica should be given clients; the text says why not.
    ///
    /// # Errors
    ///
    /// Draining, the log out of reach, or too far behind it; no key to check tokens with yet.
    pub fn readiness(&self) -> Result<(), String> {
        if self.context.drain.is_cancelled() || self.context.stop.is_cancelled() {
            return Err("draining".to_owned());
        }
        let replica = &self.context.replica;
        if let Upstream::Down { since } = *replica.upstream().borrow() {
            return Err(format!("the log cannot be reached for {} s", since.elapsed().as_secs()));
        }
        if !replica.is_warm() {
            return Err("the log is being read from before the start".to_owned());
        }
        if !self.knows_revocations.load(Ordering::Relaxed) {
            return Err("the revocations have not been read yet".to_owned());
        }
        if !self.context.surroundings.auth.has_keys() {
            return Err("no key set has been fetched yet".to_owned());
        }
        let age = replica.tail_age();
        if age >= MAX_TAIL_AGE {
            return Err(format!("{} s behind the log", age.as_secs()));
        }
        Ok(())
    }

    /// Tells the shards' clients when the log goes away and comes back.
    async fn tell_upstream(&self) {
        let mut upstream = self.context.replica.upstream();
        let mut was_up = true;
        loop {
            let is_up = matches!(*upstream.borrow_and_update(), Upstream::Up);
            self.context.surroundings.metrics.log_up.set(i64::from(is_up));
            if is_up != was_up {
                self.shards.tell_upstream(is_up);
                was_up = is_up;
            }
            if upstream.changed().await.is_err() {
                // The log is no longer followed, so there is nothing more to tell.
                return std::future::pending().await;
            }
        }
    }

    /// Lets the shards' sessions look at their tokens when some have been revoked.
    async fn tell_revocations(&self) {
        let mut revocations = self.context.surroundings.auth.revocations().watch();
        while revocations.changed().await.is_ok() {
            self.shards.tell_revoked();
        }
        std::future::pending().await
    }

    async fn measure(&self) {
        let mut every = interval(MEASURE_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let metrics = &self.context.surroundings.metrics;
            metrics.set_tail_age(self.context.replica.tail_age());
            metrics.refresh(self.context.replica.counts());
        }
    }
}
