//! A stand-in for Borsa Istanbul: a little exchange whose orders match by price and time, and everything that carries
//! its messages: lines A and B and the rewinder of MoldUDP64, SoupBinTCP, and GLIMPSE.
//!
//! Its day has an opening auction, continuous trading, a listing and a halt in the middle of it, a closing auction and
//! trades at the closing price. Orders are told in both layouts of `A`, ids come on both sides, prices have two or
//! three decimals, auctions are told with and without their orders, and now and then comes a type that nobody knows.
//! It fails on demand: `POST /sim/fault` on the control port takes a [`Fault`].

mod book;
mod day;
mod exchange;
mod fault;
mod flow;
mod listing;
mod playback;
mod server;
mod soup;
mod tape;
mod world;

use std::net::SocketAddr;
use std::time::Instant;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use fault::{Fault, Line, RefusalReason};
pub use server::{Addresses, Sockets};

use playback::Playback;
use server::Shared;
use world::World;

use crate::sim::{SimError, Source, StandIn};

/// Most events a second that are generated: far more than one task can serve.
const MOST_RATE: u32 = 100_000;

/// The instruments that are generated when nothing is said, without the market behind them.
const SYMBOLS: [&str; 10] = ["THYAO", "GARAN", "ASELS", "AKBNK", "BIMAS", "EREGL", "ISCTR", "KCHOL", "SISE", "TUPRS"];

/// What the stand-in plays, and to whom.
#[derive(Debug, Clone, PartialEq)]
pub struct SimConfig {
    /// Where the messages come from. Symbols are given with the market behind them or without, `THYAO.E` or `THYAO`.
    pub source: Source,
    /// Which days are generated.
    pub day: Day,
    /// Where the packets of line A are sent.
    pub line_a: Vec<SocketAddr>,
    /// Where the packets of line B are sent.
    pub line_b: Vec<SocketAddr>,
}

/// Which days are played, and how fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Day {
    /// One that begins now, at the pace of the clock: a short opening, then continuous trading without an end.
    Present,
    /// Whole trading days of the past, from 09:40 to 18:10, one after the other.
    Whole {
        /// How much faster than the clock: 510.0 plays a day in a minute. As many things happen in a second of the
        /// clock as the source says, however fast the day passes.
        speed: f64,
    },
}

impl Day {
    fn speed(self) -> f64 {
        match self {
            Self::Present => 1.0,
            Self::Whole { speed } => speed,
        }
    }
}

/// The first `count` instruments worth generating: well-known ones, then made-up ones.
pub fn symbols(count: usize) -> Vec<String> {
    let made_up = (SYMBOLS.len()..count).map(|number| format!("SIM{number:03}"));
    SYMBOLS.iter().map(|symbol| (*symbol).to_owned()).chain(made_up).take(count).collect()
}

/// Makes the stand-in for a session over SoupBinTCP: datagrams would need to know where it listens.
///
/// # Errors
///
/// [`SimError`] when there are no ports for it, or the source cannot be played.
pub fn stand_in(listener: TcpListener, source: Source, cancel: CancellationToken) -> Result<StandIn, SimError> {
    let config = SimConfig { source, day: Day::Present, line_a: Vec::new(), line_b: Vec::new() };
    stand_in_of(listener, config, cancel)
}

/// Makes the stand-in. The keys that lead to it are those of MoldUDP64 when line A is sent anywhere.
///
/// # Errors
///
/// [`SimError`] when there are no ports for it, or the source cannot be played.
pub fn stand_in_of(listener: TcpListener, config: SimConfig, cancel: CancellationToken) -> Result<StandIn, SimError> {
    let sockets = Sockets::above(listener)?;
    let Addresses { control, soup, glimpse, rewinder } = sockets.addresses()?;
    let mut addresses =
        vec![("rest_url", format!("http://{control}")), ("soup", soup.to_string()), ("glimpse", glimpse.to_string())];
    let (transport, lines) = match config.line_a.first() {
        Some(line_a) => ("moldudp64", vec![Some(("line_a", line_a)), config.line_b.first().map(|b| ("line_b", b))]),
        None => ("soupbintcp", Vec::new()),
    };
    addresses.push(("transport", transport.to_owned()));
    addresses.extend(lines.into_iter().flatten().map(|(key, line)| (key, line.to_string())));
    addresses.push(("rewinder", rewinder.to_string()));
    Ok(StandIn { addresses, serving: Box::pin(prepare(sockets, config, cancel)?) })
}

/// Serves until cancelled.
///
/// # Errors
///
/// [`SimError`] when it cannot start; nothing has been sent or accepted then.
pub async fn serve(sockets: Sockets, config: SimConfig, cancel: CancellationToken) -> Result<(), SimError> {
    prepare(sockets, config, cancel)?.await;
    Ok(())
}

/// Opens the source, and gives back what serves.
fn prepare(
    sockets: Sockets,
    config: SimConfig,
    cancel: CancellationToken,
) -> Result<impl Future<Output = ()> + Send, SimError> {
    let world = open(config.source, config.day)?;
    Ok(server::run(sockets, [config.line_a, config.line_b], Shared::new(world), cancel))
}

fn open(source: Source, day: Day) -> Result<World, SimError> {
    let check_speed = |speed: f64| {
        let is_sound = speed.is_finite() && speed > 0.0 && speed <= 1e6;
        if is_sound { Ok(()) } else { Err(SimError::Config(format!("a speed of {speed} is not within 0 and 1000000"))) }
    };
    match source {
        Source::Generated { symbols, rate, seed } => {
            check_speed(day.speed())?;
            if rate == 0 || rate > MOST_RATE {
                return Err(SimError::Config(format!(
                    "a rate of {rate} is not within 1 and {MOST_RATE} events a second"
                )));
            }
            let symbols = market_symbols(&symbols)?;
            Ok(World::generated(symbols, rate, seed, day, Instant::now()))
        }
        Source::Recorded { file, speed } => {
            check_speed(speed)?;
            let playback = match Playback::open(&file, speed) {
                Ok(playback) => playback,
                Err(source) => return Err(SimError::Recording { file, source }),
            };
            let header = playback.header();
            if header.venue != "bist" {
                let (venue, market) = (header.venue.clone(), header.market.clone());
                return Err(SimError::OtherVenue { file, venue, market, expected: "bist" });
            }
            Ok(World::recorded(playback, Instant::now()))
        }
    }
}

/// The symbols with the market behind them, each once.
fn market_symbols(symbols: &[String]) -> Result<Vec<String>, SimError> {
    let mut named: Vec<String> = Vec::new();
    for symbol in symbols {
        let name = if symbol.contains('.') { symbol.clone() } else { format!("{symbol}.E") };
        let is_sound = symbol.is_ascii() && !symbol.is_empty() && name.len() <= 32;
        if !is_sound || named.contains(&name) {
            return Err(SimError::Config(format!("{symbol:?} is given twice, or is no symbol like THYAO.E")));
        }
        named.push(name);
    }
    if named.is_empty() { Err(SimError::Config("no symbols are given".into())) } else { Ok(named) }
}
