//! A stand-in for BtcTurk: the venue's own protocol, WebSocket and REST on one listener, from generated pairs or from a
//! recording.
//!
//! It is as strict as the venue (heartbeat, connections a minute, `ok` to every nonsense, a `CS` for each
//! subscription, the window of 100 levels), and it can fail on demand: `POST /sim/fault` takes a [`Fault`]. Served are
//! the channels `obdiff`, `orderbook`, `ticker`, `trade` and `tradeview`, and of REST `server/time`, `server/ping`,
//! `server/exchangeinfo`, `ticker`, `orderbook`, `trades` and the candles of the other host.

mod clients;
mod connection;
mod fault;
mod frames;
mod pair;
mod playback;
mod rest;
mod server;
mod window;
mod world;

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use fault::Fault;

use playback::Playback;
use server::Server;
use world::{Market, World};

use crate::outlet::now_ms;
use crate::sim::{SimError, Source, StandIn, check_rate, check_symbols, open_recording};

/// How many commands of connections may wait for the world; further ones wait in their connections.
const COMMANDS: usize = 1024;

/// What the stand-in plays and how strict it is.
#[derive(Debug, Clone, PartialEq)]
pub struct SimConfig {
    /// Where the frames come from.
    pub source: Source,
    /// Heartbeat and number of connections.
    pub limits: Limits,
}

/// Heartbeat and number of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How often a client is pinged.
    pub ping_every: Duration,
    /// How long a client may leave pings unanswered.
    pub pong_within: Duration,
    /// How many connections may be opened in a minute; one more is refused, and so are all for the minute after.
    pub connects_per_minute: usize,
}

impl Default for Limits {
    /// What the venue does.
    fn default() -> Self {
        Self { ping_every: Duration::from_secs(15), pong_within: Duration::from_secs(45), connects_per_minute: 15 }
    }
}

/// The first `count` pairs worth generating: well-known ones, then made-up ones.
pub fn symbols(count: usize) -> Vec<String> {
    pair::names(count)
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
    let epoch = now_ms();
    let (market, seed) = open(config.source, epoch)?;
    Ok(async move {
        let (frozen, is_frozen) = watch::channel(false);
        let world = World::new(market, seed, frozen);
        let (sender, commands) = mpsc::channel(COMMANDS);
        let server = Server::new(sender, config.limits, is_frozen, cancel.clone());
        tokio::join!(world::run(world, epoch, commands, cancel), server.run(listener));
    })
}

fn open(source: Source, now: i64) -> Result<(Market, u64), SimError> {
    match source {
        Source::Generated { symbols, rate, seed } => {
            let is_spelled = |symbol: &str| symbol.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
            check_symbols(&symbols, is_spelled, "pair", "BTCTRY")?;
            check_rate(rate)?;
            Ok((Market::generated(&symbols, rate, seed, now), seed))
        }
        Source::Recorded { file, speed } => {
            let player = open_recording(&file, speed)?;
            let header = player.header();
            if (header.venue.as_str(), header.market.as_str()) != ("btcturk", "spot") {
                let (venue, market) = (header.venue.clone(), header.market.clone());
                return Err(SimError::OtherVenue { file, venue, market, expected: "btcturk spot" });
            }
            Ok((Market::Recorded(Box::new(Playback::new(player))), 0))
        }
    }
}
