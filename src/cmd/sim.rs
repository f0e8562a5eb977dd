//! `akis sim`: a venue's stand-in on a port of its own.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use akis_connectors::Venue;
use akis_connectors::bist::sim::{Day, SimConfig};
use akis_connectors::sim::{SimError, Source, StandIn};
use akis_service::{shutdown, telemetry};
use anyhow::Context;

use crate::failure::Failure;
use crate::net;

/// How many symbols are generated when nothing is said.
const DEFAULT_SYMBOLS: usize = 10;

#[derive(Debug, clap::Args)]
pub(crate) struct SimArgs {
    /// Whose protocol to speak.
    #[arg(value_parser = super::venue)]
    venue: &'static Venue,
    /// Where to listen, WebSocket and REST on the one port; bist has its other ports above it.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9443")]
    listen: SocketAddr,
    /// Play a recording instead of generating.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["symbols", "rate", "seed"])]
    from: Option<PathBuf>,
    /// How much faster than it was recorded [default: 1]. For bist without a recording: whole trading days of the past,
    /// so much faster than the clock; 510 plays one in a minute.
    #[arg(long, value_name = "FACTOR")]
    speed: Option<f64>,
    /// bist only: where the datagrams of line A are sent.
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    line_a: Vec<SocketAddr>,
    /// bist only: where the datagrams of line B are sent.
    #[arg(long, value_name = "ADDR", value_delimiter = ',', requires = "line_a")]
    line_b: Vec<SocketAddr>,
    /// Symbols to generate, or how many [default: 10].
    #[arg(long, value_name = "SYMBOL|COUNT", value_delimiter = ',')]
    symbols: Vec<String>,
    /// Events a second in all symbols together.
    #[arg(long, value_name = "N", default_value_t = 200)]
    rate: u32,
    /// Decides everything that is random.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

pub(crate) async fn run(mut args: SimArgs) -> Result<(), Failure> {
    let is_bist = args.venue.name == "bist";
    if !is_bist && !args.line_a.is_empty() {
        return Err(Failure::usage("--line-a and --line-b are for bist"));
    }
    if !is_bist && args.speed.is_some() && args.from.is_none() {
        return Err(Failure::usage("--speed needs --from"));
    }
    telemetry::start(None, super::QUIET, None);
    let stop = shutdown::on_signals().context("cannot listen for signals")?;
    let listener = net::bind(args.listen, "--listen").await?;
    let venue = args.venue;
    let stand_in = if is_bist {
        let day = args.speed.map_or(Day::Present, |speed| Day::Whole { speed });
        let (line_a, line_b) = (std::mem::take(&mut args.line_a), std::mem::take(&mut args.line_b));
        let config = SimConfig { source: source(args)?, day, line_a, line_b };
        akis_connectors::bist::sim::stand_in_of(listener, config, stop)
    } else {
        (venue.stand_in)(listener, source(args)?, stop)
    };
    let stand_in: StandIn = stand_in.map_err(failure)?;
    let mut lines = String::new();
    for (key, value) in &stand_in.addresses {
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "{key}: {value}");
    }
    std::io::stdout().write_all(lines.as_bytes()).context("cannot write to stdout")?;
    stand_in.serving.await;
    Ok(())
}

fn failure(error: SimError) -> Failure {
    if error.is_wrong_usage() { Failure::usage(error.to_string()) } else { anyhow::Error::new(error).into() }
}

fn source(args: SimArgs) -> Result<Source, Failure> {
    if let Some(file) = args.from {
        return Ok(Source::Recorded { file, speed: args.speed.unwrap_or(1.0) });
    }
    let count = match args.symbols.as_slice() {
        [] => Some(DEFAULT_SYMBOLS),
        [one] => one.parse().ok(),
        _ => None,
    };
    match count {
        Some(0) => Err(Failure::usage("--symbols must be at least one")),
        Some(count) => Ok(Source::Generated { symbols: (args.venue.symbols)(count), rate: args.rate, seed: args.seed }),
        None => Ok(Source::Generated { symbols: args.symbols, rate: args.rate, seed: args.seed }),
    }
}
