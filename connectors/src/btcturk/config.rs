//! What to ask BtcTurk for, and where.

use std::time::Duration;

use akis_model::Kind;
use akis_service::backoff::Backoff;

use crate::registry::Settings;
use crate::symbols::{REFRESH_EVERY, Symbols, Wanted};

/// Where the public channels are.
pub const WS_URL: &str = "wss://ws-feed-pro.btcturk.com";

/// Where public REST is, all but candles.
pub const REST_URL: &str = "https://api.btcturk.com";

/// Where candles are.
pub const GRAPH_URL: &str = "https://graph-api.btcturk.com";

/// The kinds of channels that BtcTurk feeds.
pub const KINDS: [Kind; 4] = [Kind::Ticker, Kind::Trades, Kind::Book, Kind::Candles];

/// What to ask for, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Pairs in upper case, `BTCTRY`: the socket is silent about `btctry` and `BTC_TRY`.
    pub(super) symbols: Symbols,
    /// Some of [`KINDS`].
    pub kinds: Vec<Kind>,
    /// Address of the socket, without a slash at the end.
    pub ws_url: String,
    /// Base address of REST, without a slash at the end.
    pub rest_url: String,
    /// Base address of the candles, without a slash at the end. One REST address that was given serves both.
    pub graph_url: String,
    /// How often the list of pairs is read.
    pub(super) refresh_every: Duration,
    /// How long to wait after failures.
    pub(super) backoff: Backoff,
}

/// What is wrong with the settings, a line each.
pub fn check(settings: &Settings) -> Vec<String> {
    let is_pair = |symbol: &str| symbol.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'*'));
    let wrong = |entry: &String| match Wanted::parse(entry) {
        Err(wrong) => Some(wrong),
        Ok(Wanted::Name(pair) | Wanted::Pattern(pair)) if !is_pair(&pair) => {
            Some(format!("{entry:?} is no pair of BtcTurk, like BTCTRY or BTC_TRY, nor a pattern, like *TRY"))
        }
        Ok(Wanted::Name(_) | Wanted::Pattern(_) | Wanted::Top(_)) => None,
    };
    settings.symbols.iter().filter_map(wrong).collect()
}

impl From<&Settings> for Config {
    fn from(settings: &Settings) -> Self {
        let spelled: Vec<String> = settings.symbols.iter().map(|symbol| symbol.replace('_', "")).collect();
        let address =
            |given: &Option<String>, public: &str| given.as_deref().unwrap_or(public).trim_end_matches('/').to_owned();
        Self {
            symbols: Symbols::new(spelled.iter().map(String::as_str), settings.part),
            kinds: KINDS.into_iter().filter(|&kind| settings.wants(kind)).collect(),
            ws_url: address(&settings.ws_url, WS_URL),
            rest_url: address(&settings.rest_url, REST_URL),
            graph_url: address(&settings.rest_url, GRAPH_URL),
            refresh_every: settings.refresh_every.unwrap_or(REFRESH_EVERY),
            backoff: settings.backoff(),
        }
    }
}
