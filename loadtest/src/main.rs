//! `akis-bench`: the native load generator, and the benchmark behind `make bench`.
//!
//! Starts the binary under test as its users do, a Redis of its own beside it, and as many clients as a scenario asks for;
//! reads CPU and memory of the processes from `/proc`, and prints tables. What the figures mean is told in
//! `docs/PERFORMANCE.md`.

mod bed;
mod client;
mod flood;
mod floor;
mod load;
mod report;
mod scenario;
mod swarm;
mod tally;
mod usage;
mod watch;
mod wire;

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use mimalloc::MiMalloc;

use crate::scenario::{Scenario, Settings};
use crate::watch::WatchArgs;

/// As in `akis`, whose plain code some scenarios run in this process.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Files that a process needs beside its clients' sockets.
const SPARE_FILES: usize = 200;

/// Measures one gateway, and the whole path to it, on this machine.
#[derive(Debug, Parser)]
#[command(name = "akis-bench", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    /// What to measure [default: fan-out trading-page idle connecting everyone-back tail churn].
    scenarios: Vec<Scenario>,
    /// Measure everything.
    #[arg(long, conflicts_with = "scenarios")]
    all: bool,
    /// The binary under test.
    #[arg(long, value_name = "FILE", default_value = "target/release/akis")]
    akis: PathBuf,
    /// Connections of the idle scenario.
    #[arg(long, value_name = "N", default_value_t = 15_000)]
    connections: usize,
    /// How long each figure is measured.
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    seconds: u64,
    /// How long clients come and go in the churn scenario [default: as long as any figure].
    #[arg(long, value_name = "N")]
    minutes: Option<u64>,
}

/// What this program is beside the benchmark.
#[derive(Debug, Subcommand)]
enum Role {
    /// The process that does what the kernel alone takes. Scenarios start it themselves.
    Floor,
    Watch(WatchArgs),
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.role {
        Some(Role::Floor) => floor::run(),
        Some(Role::Watch(args)) => watch::run(args),
        None => measure(cli),
    }
}

#[tokio::main]
async fn measure(cli: Cli) -> Result<()> {
    if !cli.akis.exists() {
        bail!("{} is not there: cargo build --release, or name another one with --akis", cli.akis.display());
    }
    let needed = cli.connections + SPARE_FILES;
    if usage::max_open_files()? < needed {
        bail!("{} connections need {needed} open files: ulimit -n {needed}", cli.connections);
    }
    let settings = Settings {
        akis: cli.akis,
        connections: cli.connections,
        measured: Duration::from_secs(cli.seconds.max(1)),
        churn: cli.minutes.map(|minutes| Duration::from_secs(minutes * 60)),
    };
    let scenarios = match (cli.all, cli.scenarios) {
        (true, _) => Scenario::value_variants().to_vec(),
        (false, named) if named.is_empty() => Scenario::QUICK.to_vec(),
        (false, named) => named,
    };
    say(&format!("{}\n", report::machine(&settings.akis)))?;
    for scenario in scenarios {
        let report = scenario.run(&settings).await.with_context(|| format!("scenario {scenario:?}"))?;
        say(&report.to_string())?;
    }
    Ok(())
}

fn say(text: &str) -> Result<()> {
    writeln!(stdout(), "{text}").context("write to stdout")
}
