//! The venues that there are, by name.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use akis_model::Kind;
use akis_service::backoff::Backoff;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::binance::{self, Config, SPOT, USDM};
use crate::ports::Ports;
use crate::sim::{SimError, Source, StandIn};
use crate::{bist, btcturk};

/// What to ask a venue for, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// In the venue's spelling; letters of either case.
    pub symbols: Vec<String>,
    /// Kinds of channels to feed; those that the venue does not have are left out. Empty: all that it has.
    pub kinds: Vec<Kind>,
    /// Base address of the streams, `ws://` or `wss://`. `None`: the venue's public one.
    pub ws_url: Option<String>,
    /// Base address of REST, `http://` or `https://`. `None`: the venue's public one.
    pub rest_url: Option<String>,
    /// What only this venue has to be told.
    pub own: Own,
    /// Which of the symbols; `None`: all of them.
    pub part: Option<Part>,
    /// How often the venue's list of symbols is read; `None`: once a day, which is what every configuration gets. Tests
    /// do not wait for a day.
    pub refresh_every: Option<Duration>,
    /// The longest wait before a venue that failed is tried again; `None`: 30 s, which is what every configuration gets.
    /// Tests do not wait for as long.
    pub longest_wait: Option<Duration>,
}

/// A share of a venue's symbols, by the hash of their names: a venue can be split over several normalizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// From 1 to `of`.
    pub number: u32,
    /// How many there are.
    pub of: u32,
}

impl Part {
    /// Whether the symbol, in upper case, is in this part. FNV-1a: every process has to come to the same answer.
    pub fn has(self, symbol: &str) -> bool {
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = symbol.bytes().map(|byte| byte.to_ascii_uppercase()).fold(0xcbf2_9ce4_8422_2325, step);
        hash % u64::from(self.of.max(1)) + 1 == u64::from(self.number)
    }
}

/// The most that the first wait after a failure may be.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// The most that any wait may be, unless the settings say otherwise.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

impl Settings {
    /// How long to wait after failures, before any.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(FIRST_WAIT, self.longest_wait.unwrap_or(LONGEST_WAIT))
    }

    /// Whether `kind` is wanted.
    pub fn wants(&self, kind: Kind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }

    /// Sets the values of keys as the venue's configuration names them, so that the settings lead to a stand-in.
    pub fn lead_to(&mut self, addresses: &[(&'static str, String)]) {
        for (key, value) in addresses {
            match *key {
                "ws_url" => self.ws_url = Some(value.clone()),
                "rest_url" => self.rest_url = Some(value.clone()),
                own => {
                    self.own.0.insert(own.to_owned(), value.clone());
                }
            }
        }
    }
}

/// Values of the configuration keys that only one venue has, by their names. They may hold passwords, so only the names
/// are shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Own(pub BTreeMap<String, String>);

impl Own {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Why a session could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The HTTP client could not be made, for one because the system has no certificates.
    #[error("make the HTTP client for {venue}")]
    HttpClient {
        /// The venue.
        venue: &'static str,
        /// What was wrong.
        #[source]
        source: reqwest::Error,
    },
    /// The settings lead nowhere.
    #[error("begin with {venue}: {wrong}")]
    Config {
        /// The venue.
        venue: &'static str,
        /// What was wrong.
        wrong: String,
    },
    /// An address where the venue's datagrams come in cannot be used.
    #[error("listen for datagrams of {venue}")]
    Bind {
        /// The venue.
        venue: &'static str,
        /// What was wrong.
        #[source]
        source: std::io::Error,
    },
}

/// A running session; ends when it is cancelled or when nobody takes its frames any more.
pub type Session = Pin<Box<dyn Future<Output = Result<(), StartError>> + Send>>;

/// Looks whether a venue answers; an error says in a few words what did not.
pub type Probe = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// One market of a venue. A venue with several markets has several of these.
#[derive(Debug, Clone, Copy)]
pub struct Venue {
    /// Its name in the configuration, the first segment of its channels, and what is leased.
    pub name: &'static str,
    /// Venue and market, as recordings name them.
    pub recorded_as: (&'static str, &'static str),
    /// So many symbols worth showing, the best known first.
    pub symbols: fn(usize) -> Vec<String>,
    /// What is wrong with the settings, a line each. Nothing has been opened yet.
    pub check: fn(&Settings) -> Vec<String>,
    /// What the settings lack without which the venue itself cannot be reached, a line each; a stand-in does without.
    pub missing: fn(&Settings) -> Vec<String>,
    /// Makes the session with it.
    pub session: fn(&Settings, Ports, CancellationToken) -> Session,
    /// Looks whether everything that a session needs answers. Takes as long as it takes.
    pub probe: fn(&Settings) -> Probe,
    /// Makes its stand-in, on this listener as far as one is enough. Called inside a runtime.
    pub stand_in: fn(TcpListener, Source, CancellationToken) -> Result<StandIn, SimError>,
}

/// Every venue. A new one is its own files and an entry here.
pub const VENUES: &[Venue] = &[
    Venue {
        name: "binance",
        recorded_as: ("binance", "spot"),
        symbols: binance::sim::symbols,
        check: binance::check,
        missing: |_| Vec::new(),
        session: |settings, ports, cancel| Box::pin(binance::run(Config::new(&SPOT, settings), ports, cancel)),
        probe: |settings| Box::pin(binance::probe(Config::new(&SPOT, settings))),
        stand_in: binance::sim::stand_in,
    },
    Venue {
        name: "binancef",
        recorded_as: ("binance", "usdm"),
        symbols: binance::sim::symbols,
        check: binance::check,
        missing: |_| Vec::new(),
        session: |settings, ports, cancel| Box::pin(binance::run(Config::new(&USDM, settings), ports, cancel)),
        probe: |settings| Box::pin(binance::probe(Config::new(&USDM, settings))),
        stand_in: binance::sim::stand_in,
    },
    Venue {
        name: "bist",
        recorded_as: ("bist", "equities"),
        symbols: bist::sim::symbols,
        check: bist::check,
        missing: bist::missing,
        session: |settings, ports, cancel| Box::pin(bist::run(settings.clone(), ports, cancel)),
        probe: |settings| Box::pin(bist::probe(settings.clone())),
        stand_in: bist::sim::stand_in,
    },
    Venue {
        name: "btcturk",
        recorded_as: ("btcturk", "spot"),
        symbols: btcturk::sim::symbols,
        check: btcturk::check,
        missing: |_| Vec::new(),
        session: |settings, ports, cancel| Box::pin(btcturk::run(settings.into(), ports, cancel)),
        probe: |settings| Box::pin(btcturk::probe(settings.into())),
        stand_in: btcturk::sim::stand_in,
    },
];

/// The venue called `name`.
pub fn venue(name: &str) -> Option<&'static Venue> {
    VENUES.iter().find(|venue| venue.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_those_of_the_settings() {
        assert_eq!(Settings::default().backoff(), Backoff::new(Duration::from_millis(500), Duration::from_secs(30)));
        let mut backoff = Settings { longest_wait: Some(FIRST_WAIT), ..Settings::default() }.backoff();
        for _ in 0..9 {
            assert!(backoff.next_wait() <= FIRST_WAIT);
        }
    }
}
