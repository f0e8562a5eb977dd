//! What to ask Binance for, and where.

use akis_model::Kind;

use super::market::Market;
use crate::registry::Settings;

/// The kinds of channels that Binance feeds.
pub const KINDS: [Kind; 4] = [Kind::Ticker, Kind::Trades, Kind::Book, Kind::Candles];

/// What to ask for, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Of which market.
    pub market: &'static Market,
    /// Upper case, `BTCUSDT`; each once.
    pub symbols: Vec<String>,
    /// Some of [`KINDS`].
    pub kinds: Vec<Kind>,
    /// Base address of the streams, without a slash at the end.
    pub ws_url: String,
    /// Base address of REST, without a slash at the end.
    pub rest_url: String,
}

impl Config {
    /// What the settings say of a market.
    pub fn new(market: &'static Market, settings: &Settings) -> Self {
        let mut symbols: Vec<String> = Vec::new();
        // Only ASCII letters have a case at Binance.
        for symbol in settings.symbols.iter().map(|symbol| symbol.to_ascii_uppercase()) {
            if !symbols.contains(&symbol) {
                symbols.push(symbol);
            }
        }
        let address =
            |given: &Option<String>, public: &str| given.as_deref().unwrap_or(public).trim_end_matches('/').to_owned();
        Self {
            market,
            symbols,
            kinds: KINDS.into_iter().filter(|&kind| settings.wants(kind)).collect(),
            ws_url: address(&settings.ws_url, market.ws_url),
            rest_url: address(&settings.rest_url, market.rest_url),
        }
    }
}
