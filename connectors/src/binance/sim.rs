//! A stand-in for Binance: the venue's own protocol, WebSocket and REST on one listener, from generated markets or
//! from a recording. Spot and USD-M futures are told apart by their paths, and nothing happens in a market before
//! somebody has asked for something of it.
//!
//! It is as strict as the venue (limits, heartbeats, silence on unknown names), and it can fail on demand:
//! `POST /sim/fault` takes a [`Fault`], for futures with `?market=usdm`. Served are the streams `trade`, `aggTrade`, `bookTicker`, `ticker`,
//! `miniTicker`, `kline_<interval>` from a minute to a week, `depth`, `depth@100ms` and the partial books, and of
//! the REST routes `ping`, `time`, `exchangeInfo`, `depth`, `klines`, `aggTrades` and `ticker/24hr`.

mod book;
mod candles;
mod connection;
mod control;
mod fault;
mod frames;
mod generator;
mod hub;
mod instrument;
mod market;
mod playback;
mod query;
mod rest;
mod server;
mod world;

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use fault::Fault;

use playback::Playback;
use server::{Server, World, Worlds};
use world::Opening;

use super::market::{Market as Venue, SPOT, USDM};
use crate::outlet::now_ms;
use crate::sim::{SimError, Source, StandIn, check_rate, check_symbols, open_recording};

/// How many commands of connections may wait for the world; further ones wait in their connections.
const COMMANDS: usize = 1024;

/// What the stand-in plays and how strict it is.
#[derive(Debug, Clone, PartialEq)]
pub struct SimConfig {
    /// Where the frames come from.
    pub source: Source,
    /// Heartbeat and lifetime of connections.
    pub limits: Limits,
}

/// Heartbeat and lifetime of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How often a client is pinged.
    pub ping_every: Duration,
    /// How long a client may leave pings unanswered.
    pub pong_within: Duration,
    /// After how long every connection is closed.
    pub lifetime: Duration,
}

impl Default for Limits {
    /// What the venue does: 20 s, 1 min, 24 h.
    fn default() -> Self {
        Self {
            ping_every: Duration::from_secs(20),
            pong_within: Duration::from_secs(60),
            lifetime: Duration::from_secs(24 * 3600),
        }
    }
}

/// The first `count` symbols worth generating: well-known ones, then made-up ones.
pub fn symbols(count: usize) -> Vec<String> {
    instrument::names(count)
}

/// Makes the stand-in as strict as the venue is.
///
/// # Errors
///
/// [`SimError`] when the listener has no port, or the source cannot be played.
pub fn stand_in(listener: TcpListener, source: Source, cancel: CancellationToken) -> Result<StandIn, SimError> {
    let address = listener.local_addr()?;
    let config = SimConfig { source, limits: Limits::default() };
    Ok(StandIn::of_one_port(address, prepare(listener, config, cancel)?))
}

/// Serves until cancelled, then closes every connection and waits for it to end.
///
/// # Errors
///
/// [`SimError`] when it cannot start; nothing has been accepted then.
pub async fn serve(listener: TcpListener, config: SimConfig, cancel: CancellationToken) -> Result<(), SimError> {
    prepare(listener, config, cancel)?.await;
    Ok(())
}

/// Opens the source, and gives back what serves.
fn prepare(
    listener: TcpListener,
    config: SimConfig,
    cancel: CancellationToken,
) -> Result<impl Future<Output = ()> + Send, SimError> {
    let openings = openings(config.source)?;
    Ok(async move {
        let epoch = now_ms();
        let mut worlds = Worlds::default();
        let mut running = JoinSet::new();
        for (venue, opening) in openings {
            let (sender, commands) = mpsc::channel(COMMANDS);
            let (freeze, frozen) = watch::channel(false);
            worlds.add(venue, World { commands: sender, frozen });
            running.spawn(world::run(opening, freeze, epoch, commands, cancel.clone()));
        }
        Server::new(worlds, config.limits, epoch, cancel).run(listener).await;
        running.join_all().await;
    })
}

/// Both markets are generated; a recording is of one.
fn openings(source: Source) -> Result<Vec<(&'static Venue, Opening)>, SimError> {
    match source {
        Source::Generated { symbols, rate, seed } => {
            let is_spelled = |symbol: &str| symbol.chars().all(|c| c.is_alphanumeric() && !c.is_ascii_lowercase());
            check_symbols(&symbols, is_spelled, "symbol", "BTCUSDT")?;
            check_rate(rate)?;
            let generated = |venue| (venue, Opening::Generated { venue, symbols: symbols.clone(), rate, seed });
            Ok([&SPOT, &USDM].map(generated).into())
        }
        Source::Recorded { file, speed } => {
            let player = open_recording(&file, speed)?;
            let header = player.header();
            let (venue, market) = (header.venue.clone(), header.market.clone());
            match [&SPOT, &USDM].into_iter().find(|known| venue == "binance" && market == known.recorded_as) {
                Some(known) => Ok(vec![(known, Opening::Recorded(Box::new(Playback::new(player))))]),
                None => Err(SimError::OtherVenue { file, venue, market, expected: "binance spot or usdm" }),
            }
        }
    }
}

/// Reads a line as what a client may say: a control message, the target of a request, a fault.
#[cfg(any(fuzzing, test))]
pub(super) fn fuzz_request(line: &str) {
    let _ = control::parse(line);
    let _ = query::Target::parse(line);
    let _ = serde_json::from_str::<Fault>(line);
}
