//! `akis normalizer`: connectors and normalizer for the configured venues.

use std::sync::Arc;

use akis_connectors::{Own, Part, Settings, Venue};
use akis_eventlog::Store;
use akis_normalizer::Metrics;
use akis_service::config::{Config, Mistake, VenueConfig};
use akis_service::telemetry::Telemetry;
use anyhow::Context;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{block_on_threads, cores};
use crate::cli::{AdminFlag, ConfigFile, RedisFlag};
use crate::failure::Failure;
use crate::role::{self, Role};

#[derive(Debug, clap::Args)]
pub(crate) struct NormalizerArgs {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    admin: AdminFlag,
    #[command(flatten)]
    redis: RedisFlag,
}

pub(crate) fn run(args: NormalizerArgs) -> Result<(), Failure> {
    let flags = [args.admin.flag(), args.redis.flag()];
    let config = args.file.load_for(flags, &[], |config, mistakes| {
        missing_venues(config, mistakes).into_iter().chain(wrong_venues(config, true)).collect()
    })?;
    let venues = venues(&config);
    // What a venue says is one stream of work: on more threads than venues it would only be handed from one to the other.
    block_on_threads(venues.len().min(cores()), work(config, venues))
}

async fn work(config: Config, venues: Vec<(&'static Venue, Settings)>) -> Result<(), Failure> {
    let role = Role::begin(&config, "normalizer").await?;
    let stop = role.stop.clone();
    let metrics = metrics(&role.telemetry)?;
    let (reached, warm) = (CancellationToken::new(), Warm::of(&venues));
    let readiness = Arc::new({
        let (reached, warm) = (reached.clone(), warm.clone());
        move || match warm.missing() {
            _ if !reached.is_cancelled() => Err("the log has not been reached yet".to_owned()),
            Some(venue) => {
                Err(format!("{venue} is not warm yet: too little was heard, or its books are still to come"))
            }
            None => Ok(()),
        }
    });
    let work = Box::pin(async {
        let Some(store) = role::connect(&config, &stop).await? else { return Ok(()) };
        reached.cancel();
        publish(venues, warm, store, metrics, stop.clone()).await
    });
    Ok(role.run(readiness, work).await?)
}

/// Of each venue, whether this process could take over its lease, see [`akis_normalizer::run`]. Before that it is not ready: whoever
/// rolls normalizers would end the last one that could.
#[derive(Clone)]
pub(crate) struct Warm(Vec<(&'static str, CancellationToken)>);

impl Warm {
    pub(crate) fn of(venues: &[(&'static Venue, Settings)]) -> Self {
        Self(venues.iter().map(|(venue, _)| (venue.name, CancellationToken::new())).collect())
    }

    /// The first one of which it could not.
    fn missing(&self) -> Option<&'static str> {
        self.0.iter().find(|(_, warm)| !warm.is_cancelled()).map(|(venue, _)| *venue)
    }
}

/// What venues tell about themselves.
pub(crate) fn metrics(telemetry: &Telemetry) -> anyhow::Result<Metrics> {
    let metrics = Metrics::register(&telemetry.registry).context("cannot register metrics")?;
    Ok(metrics.traced(telemetry.tracer.clone()))
}

/// The venues that are enabled, with what to ask them for.
pub(crate) fn venues(config: &Config) -> Vec<(&'static Venue, Settings)> {
    let known = |(name, venue)| Some((akis_connectors::venue(name)?, settings(venue)));
    config.venues.enabled().filter_map(known).collect()
}

/// A normalizer without a venue has nothing to do.
fn missing_venues(config: &Config, mistakes: &[Mistake]) -> Option<String> {
    let has_any = config.venues.enabled().next().is_some();
    if has_any || mistakes.iter().any(|mistake| mistake.may_hide("venues")) {
        return None;
    }
    Some("no venue is enabled: add [venues.binance] with symbols to the configuration".to_owned())
}

/// What is wrong with the venues that are enabled, a line each. `live`: none of them can have a stand-in in its place.
pub(crate) fn wrong_venues(config: &Config, live: bool) -> Vec<String> {
    venues(config).iter().flat_map(|(venue, settings)| wrong(venue, settings, live)).collect()
}

/// What is wrong with the settings of one venue.
pub(crate) fn wrong(venue: &Venue, settings: &Settings, live: bool) -> Vec<String> {
    let missing = if live { (venue.missing)(settings) } else { Vec::new() };
    missing.into_iter().chain((venue.check)(settings)).map(|wrong| format!("venues.{}: {wrong}", venue.name)).collect()
}

/// Runs venues until `stop`. `warm` is theirs, in the same order. When one of them breaks down, all stop, so that the process can be started anew.
pub(crate) async fn publish(
    venues: Vec<(&'static Venue, Settings)>,
    warm: Warm,
    store: Arc<dyn Store>,
    metrics: Metrics,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut running = JoinSet::new();
    for ((venue, settings), (_, warm)) in venues.into_iter().zip(warm.0) {
        let work = akis_normalizer::run(venue, settings, Arc::clone(&store), metrics.clone(), warm, stop.clone());
        running.spawn(async move { work.await.with_context(|| format!("venue {}", venue.name)) });
    }
    let mut result = Ok(());
    while let Some(ended) = running.join_next().await {
        let ended = ended.context("a venue's task broke down").and_then(|ended| ended);
        if result.is_ok() && ended.is_err() {
            result = ended;
            stop.cancel();
        }
    }
    result
}

/// What to ask a venue for, as it is configured.
pub(crate) fn settings(config: &VenueConfig) -> Settings {
    Settings {
        symbols: config.symbols.clone(),
        kinds: config.kinds.clone(),
        ws_url: config.ws_url.clone(),
        rest_url: config.rest_url.clone(),
        part: config.part.map(|(number, of)| Part { number, of }),
        refresh_every: None,
        longest_wait: None,
        own: Own(config.own.iter().map(|(key, value)| (key.clone(), value.expose().to_owned())).collect()),
    }
}
