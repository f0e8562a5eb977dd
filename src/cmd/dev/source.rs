//! Where `akis dev` takes each venue from: the venue itself, or a stand-in on loopback.

use std::net::Ipv4Addr;
use std::time::Duration;

use akis_connectors::sim::Source;
use akis_connectors::{Settings, Venue, is_symbol};
use anyhow::Context;
use clap::ValueEnum;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// How long a venue may take to answer before a stand-in takes its place.
const PROBE: Duration = Duration::from_secs(4);

/// Events a second that a stand-in generates: lively, and light.
const RATE: u32 = 200;

/// The same markets on every run.
const SEED: u64 = 1;

/// Which venues to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VenueMode {
    /// Live ones that can be reached, stand-ins for the rest.
    Auto,
    /// Live ones only.
    Live,
    /// Stand-ins only.
    Sim,
}

/// A venue and where it comes from.
pub(super) struct Sourced {
    pub(super) venue: &'static Venue,
    pub(super) settings: Settings,
    pub(super) stand_in: bool,
    /// Why, in words for people.
    pub(super) note: String,
}

/// All venues of a run, and the stand-ins that run for some of them.
pub(super) struct Sources {
    pub(super) venues: Vec<Sourced>,
    stand_ins: JoinSet<()>,
}

impl Sources {
    /// What to run.
    pub(super) fn settings(&self) -> Vec<(&'static Venue, Settings)> {
        self.venues.iter().map(|venue| (venue.venue, venue.settings.clone())).collect()
    }

    /// Waits for the stand-ins, which were told to stop.
    pub(super) async fn end(mut self) {
        while let Some(ended) = self.stand_ins.join_next().await {
            if let Err(failure) = ended {
                error!(%failure, "a stand-in broke down");
            }
        }
    }
}

/// Decides for each venue and starts the stand-ins, which run until `end`. `None` when `stop` came first.
pub(super) async fn choose(
    venues: Vec<(&'static Venue, Settings)>,
    mode: VenueMode,
    end: &CancellationToken,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Sources>> {
    let mut sources = Sources { venues: Vec::new(), stand_ins: JoinSet::new() };
    for (venue, settings) in venues {
        let unreachable = match mode {
            VenueMode::Live => None,
            VenueMode::Sim => Some("asked for with --venues sim".to_owned()),
            VenueMode::Auto => {
                info!(venue = venue.name, "looking for the live venue, {} s at most", PROBE.as_secs());
                tokio::select! {
                    probed = probe(venue, &settings) => probed.err().map(|why| format!("the live venue cannot be reached: {why}")),
                    () = stop.cancelled() => return Ok(None),
                }
            }
        };
        let Some(reason) = unreachable else {
            info!(venue = venue.name, "prices are live");
            let note = "prices are the venue's own".to_owned();
            sources.venues.push(Sourced { venue, settings, stand_in: false, note });
            continue;
        };
        warn!(venue = venue.name, reason, "STAND-IN: prices are generated, not real ones");
        let settings = stand_in(venue, settings, &mut sources.stand_ins, end).await?;
        sources.venues.push(Sourced { venue, settings, stand_in: true, note: reason });
    }
    Ok(Some(sources))
}

/// Whether the venue answers in time.
async fn probe(venue: &Venue, settings: &Settings) -> Result<(), String> {
    let silence = || Err(format!("no answer in {} s", PROBE.as_secs()));
    timeout(PROBE, (venue.probe)(settings)).await.unwrap_or_else(|_| silence())
}

/// Starts a stand-in and gives back the settings that lead to it.
async fn stand_in(
    venue: &Venue,
    mut settings: Settings,
    running: &mut JoinSet<()>,
    end: &CancellationToken,
) -> anyhow::Result<Settings> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("cannot listen for a stand-in")?;
    let source = Source::Generated { symbols: generated(venue, &settings.symbols), rate: RATE, seed: SEED };
    let stand_in = (venue.stand_in)(listener, source, end.clone())?;
    settings.lead_to(&stand_in.addresses);
    running.spawn(stand_in.serving);
    Ok(settings)
}

/// The symbols that a stand-in has: those that are named, and some to be found where a pattern or the busiest are asked for.
fn generated(venue: &Venue, wanted: &[String]) -> Vec<String> {
    let named = wanted.iter().filter(|entry| is_symbol(entry)).map(|name| name.to_ascii_uppercase());
    let looks_up = wanted.iter().any(|entry| !is_symbol(entry));
    let found = if looks_up { (venue.symbols)(super::SYMBOLS) } else { Vec::new() };
    let mut symbols: Vec<String> = Vec::new();
    for symbol in named.chain(found) {
        if !symbols.contains(&symbol) {
            symbols.push(symbol);
        }
    }
    symbols
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_in_has_what_is_asked_for_in_any_way() {
        let binance = akis_connectors::venue("binance").unwrap();
        let generated =
            |wanted: &[&str]| generated(binance, &wanted.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        assert_eq!(generated(&["btcusdt", "ETHUSDT", "BTCUSDT"]), ["BTCUSDT", "ETHUSDT"]);
        let found = generated(&["XYZUSDT", "top:5"]);
        assert_eq!((found.len(), found[0].as_str(), found[1].as_str()), (9, "XYZUSDT", "BTCUSDT"));
        assert_eq!(generated(&["*USDT"]).len(), 8);
    }
}
