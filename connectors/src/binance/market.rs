//! What differs between Binance's markets, as data.
//!
//! Sources: <https://developers.binance.com/docs/binance-spot-api-docs> and
//! <https://developers.binance.com/docs/derivatives/usds-margined-futures/general-info>.

use std::time::Duration;

/// A market of Binance.
#[derive(Debug, PartialEq, Eq)]
pub struct Market {
    /// Its name in the configuration and in channels.
    pub(super) name: &'static str,
    /// Its name in recordings.
    pub(super) recorded_as: &'static str,
    /// Base address of the public streams.
    pub(super) ws_url: &'static str,
    /// Base address of public REST.
    pub(super) rest_url: &'static str,
    /// Where the streams of books and best prices are.
    pub(super) book_path: &'static str,
    /// Where all other streams are. On USD-M futures what is asked for at the wrong path is acknowledged and silent.
    pub(super) tape_path: &'static str,
    /// What the paths of REST routes begin with.
    pub(super) rest: &'static str,
    /// At least so long between two messages to the venue.
    pub(super) pace: Duration,
    /// What may be used of the request weight of a minute; others may share the address.
    pub(super) weight_limit: u32,
    /// What a book of 1,000 levels weighs.
    pub(super) book_weight: u32,
    /// What a call for trades weighs.
    pub(super) trades_weight: u32,
    /// What a call for up to 500 candles weighs.
    pub(super) candles_weight: u32,
    /// What the last 24 hours of every symbol weigh.
    pub(super) days_weight: u32,
    /// What `exchangeInfo` weighs.
    pub(super) info_weight: u32,
    /// Whether `exchangeInfo` can be asked for some symbols only.
    pub(super) info_by_symbol: bool,
}

/// Spot.
pub static SPOT: Market = Market {
    name: "binance",
    recorded_as: "spot",
    ws_url: "wss://stream.binance.com:9443",
    rest_url: "https://api.binance.com",
    book_path: "/stream",
    tape_path: "/stream",
    rest: "/api/v3",
    // The venue allows 5 messages a second, pongs included; one every 250 ms has been seen to be cut off.
    pace: Duration::from_millis(500),
    // Of 6,000.
    weight_limit: 5_000,
    book_weight: 50,
    trades_weight: 4,
    days_weight: 80,
    candles_weight: 2,
    info_weight: 20,
    info_by_symbol: true,
};

/// USD-M futures.
pub static USDM: Market = Market {
    name: "binancef",
    recorded_as: "usdm",
    ws_url: "wss://fstream.binance.com",
    rest_url: "https://fapi.binance.com",
    book_path: "/public/stream",
    tape_path: "/market/stream",
    rest: "/fapi/v1",
    // 10 messages a second.
    pace: Duration::from_millis(250),
    // Of 2,400.
    weight_limit: 2_000,
    book_weight: 20,
    trades_weight: 20,
    days_weight: 40,
    candles_weight: 2,
    info_weight: 1,
    info_by_symbol: false,
};
