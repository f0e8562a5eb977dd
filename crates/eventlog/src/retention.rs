//! What is kept for how long.

use std::time::Duration;

use akis_model::{Channel, Kind};

/// How long the answer to an idempotency id is remembered.
pub const IDEMPOTENCY_TTL: Duration = Duration::from_secs(600);

/// How long the feed of a partition is kept.
pub const FEED_AGE: Duration = Duration::from_secs(120);

/// A day.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long an application channel that nobody publishes to is kept.
pub const APP_RETENTION: Duration = DAY;

/// How long one of candles is: candles of a day come once a day, and not while a market rests.
const CANDLES_RETENTION: Duration = DAY.saturating_mul(30);

/// How long a channel of the system is: for good. Each write puts the end off, which also makes up for one that was set near by a version
/// that let these channels expire: a Redis stream keeps the end that it has.
const OWN_RETENTION: Duration = DAY.saturating_mul(3650);

/// How many entries the history of a channel of the system keeps: revocations hold until they are over.
const OWN_LENGTH: usize = 100_000;

/// How long a channel that nobody publishes to is kept; zero: for good. Venues have so many channels and no more, and what the system's
/// own say holds until it is over.
pub(crate) fn retention(channel: &Channel) -> Duration {
    match channel.kind() {
        _ if channel.is_venue() => Duration::ZERO,
        _ if channel.is_own() => OWN_RETENTION,
        Kind::Candles => CANDLES_RETENTION,
        Kind::Ticker | Kind::Trades | Kind::Book | Kind::Session | Kind::App => APP_RETENTION,
    }
}

/// How many entries a channel's history keeps, about.
pub(crate) fn history_len(channel: &Channel) -> usize {
    if channel.is_own() { OWN_LENGTH } else { channel.kind().history_len() }
}
