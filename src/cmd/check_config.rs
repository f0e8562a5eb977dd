//! `akis check-config`: the effective configuration, or everything that is wrong with it.

use std::io::{ErrorKind, Write};

use anyhow::Context;

use super::{gateway, normalizer};
use crate::cli::{AdminFlag, ConfigFile, ListenFlag, RedisFlag};
use crate::failure::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct CheckConfigArgs {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    listen: ListenFlag,
    #[command(flatten)]
    admin: AdminFlag,
    #[command(flatten)]
    redis: RedisFlag,
}

pub(crate) fn run(args: CheckConfigArgs) -> Result<(), Failure> {
    let flags = [args.listen.flag(), args.admin.flag(), args.redis.flag()];
    let config = args.file.load_for(flags, &[], |config, _| {
        gateway::wrong_keys(config).into_iter().chain(normalizer::wrong_venues(config, true)).collect()
    })?;
    match write!(std::io::stdout(), "{}", config.to_toml()) {
        // It is in order; who asked has read enough of it.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written.context("cannot write the configuration")?),
    }
}
