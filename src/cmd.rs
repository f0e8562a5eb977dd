//! One file for each subcommand.

pub(crate) mod check_config;
pub(crate) mod dev;
pub(crate) mod drain;
pub(crate) mod gateway;
pub(crate) mod healthcheck;
pub(crate) mod normalize;
pub(crate) mod normalizer;
pub(crate) mod publish;
pub(crate) mod record;
pub(crate) mod sim;
pub(crate) mod tail;
pub(crate) mod token;

use akis_connectors::Venue;
use anyhow::Context;

use crate::cli::{Cli, Command};
use crate::failure::Failure;

/// What `RUST_LOG` stands at for tools, whose own words on stderr are enough.
const QUIET: &str = "warn";

/// Runs the subcommand to its end.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Dev(args) => block_on(dev::run(args)),
        Command::Gateway(args) => block_on(gateway::run(args)),
        Command::Normalizer(args) => normalizer::run(args),
        Command::Token(args) => token::run(args),
        Command::Publish(args) => block_on(publish::run(args)),
        Command::Tail(args) => block_on(tail::run(args)),
        Command::Sim(args) => block_on(sim::run(args)),
        Command::Record(args) => block_on(record::run(args)),
        Command::Normalize(args) => normalize::run(args),
        Command::CheckConfig(args) => check_config::run(args),
        Command::Healthcheck(args) => block_on(healthcheck::run(args)),
        Command::Drain(args) => block_on(drain::run(args)),
    }
}

/// A venue by its name on the command line.
fn venue(name: &str) -> Result<&'static Venue, String> {
    akis_connectors::venue(name).ok_or_else(|| {
        let known: Vec<&str> = akis_connectors::VENUES.iter().map(|venue| venue.name).collect();
        format!("there is no such venue, known are: {}", known.join(", "))
    })
}

/// Does work on as many threads as there are cores.
fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    block_on_threads(cores(), work)
}

/// Does work on so many threads.
fn block_on_threads(threads: usize, work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(threads).enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(work)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
