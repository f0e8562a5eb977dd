//! What to ask Binance for, and where.

use std::time::Duration;

use akis_model::Kind;
use akis_service::backoff::Backoff;

use super::market::Market;
use crate::registry::Settings;
use crate::symbols::{REFRESH_EVERY, Symbols, Wanted};

/// The kinds of channels that Binance feeds.
pub const KINDS: [Kind; 4] = [Kind::Ticker, Kind::Trades, Kind::Book, Kind::Candles];

/// What to ask for, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Of which market.
    pub market: &'static Market,
    /// What is asked for.
    pub(super) symbols: Symbols,
    /// Some of [`KINDS`].
    pub kinds: Vec<Kind>,
    /// Base address of the streams, without a slash at the end.
    pub ws_url: String,
    /// Base address of REST, without a slash at the end.
    pub rest_url: String,
    /// How often the list of symbols is read.
    pub(super) refresh_every: Duration,
    /// How long to wait after failures.
    pub(super) backoff: Backoff,
}

/// What is wrong with the settings, a line each.
pub fn check(settings: &Settings) -> Vec<String> {
    settings.symbols.iter().filter_map(|symbol| Wanted::parse(symbol).err()).collect()
}

impl Config {
    /// What the settings say of a market.
    pub fn new(market: &'static Market, settings: &Settings) -> Self {
        let address =
            |given: &Option<String>, public: &str| given.as_deref().unwrap_or(public).trim_end_matches('/').to_owned();
        Self {
            market,
            symbols: Symbols::new(settings.symbols.iter().map(String::as_str), settings.part),
            kinds: KINDS.into_iter().filter(|&kind| settings.wants(kind)).collect(),
            ws_url: address(&settings.ws_url, market.ws_url),
            rest_url: address(&settings.rest_url, market.rest_url),
            refresh_every: settings.refresh_every.unwrap_or(REFRESH_EVERY),
            backoff: settings.backoff(),
        }
    }
}
