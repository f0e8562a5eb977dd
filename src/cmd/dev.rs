//! `akis dev`: everything in one process, for whoever wants to see it run or builds a client.

mod page;
mod source;

use std::io::{Read, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use akis_eventlog::{MemoryStore, Store};
use akis_gateway::Gateway;
use akis_service::config::{Config, Secret, VenueConfig};
use anyhow::Context;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{gateway, normalizer, token};
use crate::cli::{AdminFlag, ConfigFile, ListenFlag, redis_flag};
use crate::failure::Failure;
use crate::net;
use crate::role::{self, Role};
use source::VenueMode;
use token::Signer;

/// How many symbols of each venue are shown unless venues are configured.
pub(crate) const SYMBOLS: usize = 8;

/// Nobody can go elsewhere when the only process stops, so it does not take its time.
const DEFAULTS: [(&str, &str); 1] = [("gateway.drain", "1s")];

/// The page is left open for days; its token dies with the process anyway, unless a secret is configured.
const TOKEN_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

#[derive(Debug, clap::Args)]
pub(crate) struct DevArgs {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    listen: ListenFlag,
    #[command(flatten)]
    admin: AdminFlag,
    /// Keep the log in this Redis [default: in memory].
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// auto: live venues that can be reached, stand-ins for the rest; live: those that are configured, or that have a public
    /// address; sim.
    #[arg(long, value_enum, default_value_t = VenueMode::Auto)]
    venues: VenueMode,
}

pub(crate) async fn run(args: DevArgs) -> Result<(), Failure> {
    let flags = [args.listen.flag(), args.admin.flag(), redis_flag(args.redis.as_ref())];
    let live = args.venues == VenueMode::Live;
    let mut config = args.file.load_for(flags, &DEFAULTS, |config, _| {
        gateway::wrong_keys(config).into_iter().chain(normalizer::wrong_venues(config, live)).collect()
    })?;
    settle(&mut config, live)?;
    let venues = normalizer::venues(&config);
    let role = Role::begin(&config, "dev").await?;
    let listener = net::bind(config.gateway.listen, "--listen").await?;
    let address = net::reachable(listener.local_addr().context("cannot read the port")?);
    let stop = role.stop.clone();
    let telemetry = role.telemetry.clone();
    let running: Arc<OnceLock<Arc<Gateway>>> = Arc::default();
    let readiness = gateway::readiness(&running, "starting");
    let work = Box::pin(async {
        let Some(store) = store(&config, args.redis.is_some(), &stop).await? else { return Ok(()) };
        let stand_ins = CancellationToken::new();
        let Some(sourced) = source::choose(venues, args.venues, &stand_ins, &stop).await? else { return Ok(()) };
        let jwt = reader_token(&config)?;
        if jwt.is_none() {
            warn!("auth.keys is set: tokens come from whoever has the private keys; open the page with #token=<jwt>");
        }
        // One page for the whole run of the process: it may stay for ever.
        let page = Box::leak(page::render(jwt.as_deref().unwrap_or_default(), &sourced.venues).into_boxed_str());
        let metrics = normalizer::metrics(&telemetry)?;
        let gateway = Gateway::new(Arc::clone(&store), config.gateway.clone(), &config.auth, &telemetry, Some(page))?;
        let gateway = running.get_or_init(|| Arc::new(gateway));
        let token_line = jwt.map(|jwt| format!("token: {jwt}\n")).unwrap_or_default();
        write!(std::io::stdout(), "page: http://{address}/\n{token_line}").context("cannot write to stdout")?;
        let venues = sourced.settings();
        let warm = normalizer::Warm::of(&venues);
        let publishing = normalizer::publish(venues, warm, store, metrics, stop.clone());
        let serving = async {
            let served = gateway.serve(listener, stop.clone(), CancellationToken::new()).await;
            stop.cancel();
            served.context("the gateway failed")
        };
        let (published, served) = tokio::join!(publishing, serving);
        stand_ins.cancel();
        sourced.end().await;
        published.and(served)
    });
    Ok(role.run(readiness, work).await?)
}

/// Fills in what only a real deployment has to say. `live`: no stand-in takes the place of a venue that nobody has access to.
fn settle(config: &mut Config, live: bool) -> anyhow::Result<()> {
    if config.auth.secret.is_none() && config.auth.keys.is_empty() {
        config.auth.secret = Some(generated_secret()?);
    }
    if config.venues.enabled().next().is_none() {
        for venue in akis_connectors::VENUES {
            let shown = VenueConfig::of_symbols((venue.symbols)(SYMBOLS));
            if !live || (venue.missing)(&normalizer::settings(&shown)).is_empty() {
                config.venues.add(venue.name, shown);
            }
        }
    }
    Ok(())
}

async fn store(config: &Config, in_redis: bool, stop: &CancellationToken) -> anyhow::Result<Option<Arc<dyn Store>>> {
    if !in_redis {
        return Ok(Some(MemoryStore::new(config.log.partitions)));
    }
    let store = role::connect(config, stop).await?;
    Ok(store.map(|store| store as Arc<dyn Store>))
}

/// A token that may read everything and publish nothing; none where only others can sign.
fn reader_token(config: &Config) -> anyhow::Result<Option<String>> {
    let Some(secret) = &config.auth.secret else { return Ok(None) };
    let terms = token::Terms {
        sub: "dev",
        issuer: config.auth.issuer.as_deref(),
        audience: config.auth.audience.as_deref(),
        channels: &["*".to_owned()],
        publish: &[],
        ttl: TOKEN_TTL,
    };
    token::sign(&Signer::from_secret(secret), &terms).map(Some)
}

/// 32 bytes that nobody can guess, for this run only.
fn generated_secret() -> anyhow::Result<Secret> {
    let mut bytes = [0_u8; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("cannot read random bytes")?;
    Ok(Secret::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}
