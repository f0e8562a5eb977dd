//! `akis gateway`: one replica.

use std::sync::{Arc, OnceLock};

use akis_gateway::{Gateway, turn_away};
use akis_service::admin::Readiness;
use akis_service::config::{Config, Mistake};
use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::cli::{AdminFlag, ConfigFile, ListenFlag, RedisFlag};
use crate::failure::Failure;
use crate::net;
use crate::role::{self, Role};

/// What is said at the start, until Redis has been reached.
const UNREACHED: &str = "the log has not been reached yet";

#[derive(Debug, clap::Args)]
pub(crate) struct GatewayArgs {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    listen: ListenFlag,
    #[command(flatten)]
    admin: AdminFlag,
    #[command(flatten)]
    redis: RedisFlag,
}

pub(crate) async fn run(args: GatewayArgs) -> Result<(), Failure> {
    let flags = [args.listen.flag(), args.admin.flag(), args.redis.flag()];
    let config = args.file.load_for(flags, &[], |config, mistakes| {
        missing_keys(config, mistakes).into_iter().chain(wrong_keys(config)).collect()
    })?;
    let role = Role::begin(&config, "gateway").await?;
    let listener = net::bind(config.gateway.listen, "--listen").await?;
    role.check_open_files(config.gateway.limits.connections);
    let stop = role.stop.clone();
    let telemetry = role.telemetry.clone();
    let running: Arc<OnceLock<Arc<Gateway>>> = Arc::default();
    let readiness = readiness(&running, UNREACHED);
    let work = Box::pin(async {
        let connected = tokio::select! {
            connected = role::connect(&config, &stop) => connected?,
            never = turn_away(&listener, &config.gateway, UNREACHED) => match never {},
        };
        let Some(store) = connected else { return Ok(()) };
        let gateway = Gateway::new(store, config.gateway.clone(), &config.auth, &telemetry, None)?;
        let gateway = Arc::new(gateway);
        let gateway = running.get_or_init(|| gateway);
        gateway.serve(listener, stop.clone(), CancellationToken::new()).await.context("the gateway failed")
    });
    Ok(role.run(readiness, work).await?)
}

/// Whether the gateway should be given clients: what it says itself, and `before` until it is there.
pub(crate) fn readiness(running: &Arc<OnceLock<Arc<Gateway>>>, before: &'static str) -> Readiness {
    let running = Arc::clone(running);
    Arc::new(move || running.get().map_or_else(|| Err(before.to_owned()), |gateway| gateway.readiness()))
}

/// A gateway that could not believe anybody's token is of no use.
fn missing_keys(config: &Config, mistakes: &[Mistake]) -> Option<String> {
    let has_any = config.auth.secret.is_some() || !config.auth.keys.is_empty();
    if has_any || mistakes.iter().any(|mistake| mistake.may_hide("auth")) {
        return None;
    }
    Some(
        "neither auth.secret (AKIS_AUTH__SECRET: 32 bytes or more, shared with whoever makes tokens) nor auth.keys is set"
            .to_owned(),
    )
}

/// What is wrong in the key files, which the configuration only names, a line each.
pub(crate) fn wrong_keys(config: &Config) -> Vec<String> {
    akis_gateway::check_keys(&config.auth)
}
