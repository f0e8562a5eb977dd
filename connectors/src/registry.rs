//! The venues that there are, by name.

use std::future::Future;
use std::pin::Pin;

use akis_model::Kind;
use tokio_util::sync::CancellationToken;

use crate::binance;
use crate::ports::Ports;

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
}

impl Settings {
    /// Whether `kind` is wanted.
    pub fn wants(&self, kind: Kind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
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
}

/// A running session; ends when it is cancelled or when nobody takes its frames any more.
pub type Session = Pin<Box<dyn Future<Output = Result<(), StartError>> + Send>>;

/// One venue.
#[derive(Debug, Clone, Copy)]
pub struct Venue {
    /// Its name in configuration and in channels.
    pub name: &'static str,
    /// Its market, as recordings name it.
    pub market: &'static str,
    /// Makes the session with it.
    pub session: fn(&Settings, Ports, CancellationToken) -> Session,
}

/// Every venue. A new one is its own files and a line here.
pub const VENUES: &[Venue] = &[Venue {
    name: "binance",
    market: "spot",
    session: |settings, ports, cancel| Box::pin(binance::run(settings.into(), ports, cancel)),
}];

/// The venue called `name`.
pub fn venue(name: &str) -> Option<&'static Venue> {
    VENUES.iter().find(|venue| venue.name == name)
}
