//! What to ask Binance for, and where.

use akis_model::Kind;

use super::market::Market;
use super::symbols::Wanted;
use crate::registry::{Part, Settings};

/// The kinds of channels that Binance feeds.
pub const KINDS: [Kind; 4] = [Kind::Ticker, Kind::Trades, Kind::Book, Kind::Candles];

/// What to ask for, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Of which market.
    pub market: &'static Market,
    /// What is asked for, each once.
    pub(super) wanted: Vec<Wanted>,
    /// Which of it.
    pub(super) part: Option<Part>,
    /// Some of [`KINDS`].
    pub kinds: Vec<Kind>,
    /// Base address of the streams, without a slash at the end.
    pub ws_url: String,
    /// Base address of REST, without a slash at the end.
    pub rest_url: String,
}

/// What is wrong with the settings, a line each.
pub fn check(settings: &Settings) -> Vec<String> {
    settings.symbols.iter().filter_map(|symbol| Wanted::parse(symbol).err()).collect()
}

impl Config {
    /// The symbols that are asked for by name; the others have to be looked up.
    pub(super) fn names(&self) -> Vec<String> {
        let name = |wanted: &Wanted| match wanted {
            Wanted::Name(name) => Some(name.clone()),
            Wanted::Pattern(_) | Wanted::Top(_) => None,
        };
        self.wanted.iter().filter_map(name).filter(|name| self.takes(name)).collect()
    }

    /// Whether some symbols have to be looked up.
    pub(super) fn looks_up(&self) -> bool {
        self.wanted.iter().any(|wanted| !matches!(wanted, Wanted::Name(_)))
    }

    /// Whether a symbol is in the part that is asked for.
    pub(super) fn takes(&self, symbol: &str) -> bool {
        self.part.is_none_or(|part| part.has(symbol))
    }

    /// What the settings say of a market.
    pub fn new(market: &'static Market, settings: &Settings) -> Self {
        let mut wanted: Vec<Wanted> = Vec::new();
        // What makes no sense was told by `check`.
        for entry in settings.symbols.iter().filter_map(|symbol| Wanted::parse(symbol).ok()) {
            if !wanted.contains(&entry) {
                wanted.push(entry);
            }
        }
        let address =
            |given: &Option<String>, public: &str| given.as_deref().unwrap_or(public).trim_end_matches('/').to_owned();
        Self {
            market,
            wanted,
            part: settings.part,
            kinds: KINDS.into_iter().filter(|&kind| settings.wants(kind)).collect(),
            ws_url: address(&settings.ws_url, market.ws_url),
            rest_url: address(&settings.rest_url, market.rest_url),
        }
    }
}
