//! What is measured, one file per scenario.

mod abuse;
mod busy_day;
mod churn;
mod codecs;
mod connecting;
mod everyone_back;
mod fan_out;
mod idle;
mod path;
mod slow_clients;
mod tail;
mod trading_page;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::bed::token;
use crate::client::{Plan, Start, Wish};
use crate::report::Report;
use crate::swarm::Swarm;

/// A scenario by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// One channel, many subscribers.
    FanOut,
    /// Many channels at a steady rate, each client with some of them.
    TradingPage,
    /// Memory and heartbeats of connections on which nothing happens.
    Idle,
    /// Upgrade, token, subscription, first snapshot.
    Connecting,
    /// Clients that come back all at once, with their positions.
    EveryoneBack,
    /// Clients that do not read, among others that do.
    SlowClients,
    /// A log of which the clients want little.
    Tail,
    /// Clients that come and go.
    Churn,
    /// From a venue's stand-in to clients.
    Path,
    /// Hundreds of symbols in one normalizer.
    BusyDay,
    /// The normalizer's plain code, message by message.
    Codecs,
    /// Clients that mean no good, and what they cost in memory.
    Abuse,
}

/// How much load.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The binary under test.
    pub(crate) akis: PathBuf,
    /// Connections of `idle`.
    pub(crate) connections: usize,
    /// How long each figure is measured.
    pub(crate) measured: Duration,
    /// How long clients come and go, when it is not that long.
    pub(crate) churn: Option<Duration>,
}

impl Scenario {
    /// Those of a gateway that end in about two minutes together.
    pub(crate) const QUICK: [Self; 7] =
        [Self::FanOut, Self::TradingPage, Self::Idle, Self::Connecting, Self::EveryoneBack, Self::Tail, Self::Churn];

    /// Starts what it needs, measures and stops it again.
    ///
    /// # Errors
    ///
    /// When something does not start, or a client loses an event where none may be lost.
    pub(crate) async fn run(self, settings: &Settings) -> Result<Report> {
        match self {
            Self::FanOut => fan_out::run(settings).await,
            Self::TradingPage => trading_page::run(settings).await,
            Self::Idle => idle::run(settings).await,
            Self::Connecting => connecting::run(settings).await,
            Self::EveryoneBack => everyone_back::run(settings).await,
            Self::SlowClients => slow_clients::run(settings).await,
            Self::Tail => tail::run(settings).await,
            Self::Churn => churn::run(settings).await,
            Self::Path => path::run(settings).await,
            Self::BusyDay => busy_day::run(settings).await,
            Self::Codecs => codecs::run(settings),
            Self::Abuse => abuse::run(settings).await,
        }
    }
}

/// One client for each list of channels, all with the same token.
fn plans(clients: Vec<Vec<String>>, start: Start) -> Result<Vec<Plan>> {
    let token = token("bench")?;
    let wishes = |names: Vec<String>| names.iter().map(|name| Wish::new(name, start)).collect();
    Ok(clients.into_iter().map(|names| Plan { token: token.clone(), wishes: wishes(names), stalls: false }).collect())
}

/// Fails when a client was closed, missed something or got it twice.
fn check_whole(swarm: &Swarm) -> Result<()> {
    if let Some(failure) = swarm.tally().failure() {
        bail!("a client failed: {failure}");
    }
    match (swarm.tally().losses(), swarm.tally().duplicates()) {
        (0, 0) => Ok(()),
        (losses, duplicates) => bail!("clients missed something {losses} times, and got {duplicates} events twice"),
    }
}
