//! What is measured, one file per scenario.

mod fan_out;
mod idle;
mod latency;
mod path;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::report::Report;
use crate::swarm::Swarm;

/// A scenario by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Memory and heartbeats of connections on which nothing happens.
    Idle,
    /// One channel, many subscribers.
    FanOut,
    /// From publishing to receiving at a steady rate.
    Latency,
    /// From a venue's stand-in to clients.
    Path,
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
}

impl Scenario {
    /// Starts what it needs, measures and stops it again.
    ///
    /// # Errors
    ///
    /// When something does not start, or a client loses an event where none may be lost.
    pub(crate) async fn run(self, settings: &Settings) -> Result<Report> {
        match self {
            Self::Idle => idle::run(settings).await,
            Self::FanOut => fan_out::run(settings).await,
            Self::Latency => latency::run(settings).await,
            Self::Path => path::run(settings).await,
        }
    }
}

/// Fails when a client was closed or missed something.
fn check_whole(swarm: &Swarm) -> Result<()> {
    if let Some(failure) = swarm.tally().failure() {
        bail!("a client failed: {failure}");
    }
    match swarm.tally().losses() {
        0 => Ok(()),
        losses => bail!("clients missed something {losses} times"),
    }
}
