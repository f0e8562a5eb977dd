//! Channel names: the grammar, and the kind that follows from a name.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest channel name, in bytes.
pub const MAX_CHANNEL_BYTES: usize = 128;

/// How many segments a channel has.
const SEGMENTS: std::ops::RangeInclusive<usize> = 2..=5;

/// The last segments that name a candle interval.
const CANDLE_INTERVALS: [&str; 6] = ["1m", "5m", "15m", "1h", "4h", "1d"];

/// The source of the system's own channels.
const OWN_SOURCE: &str = "akis";

/// Sources that are venues: only a normalizer publishes their channels.
const VENUE_SOURCES: [&str; 4] = ["binance", "binancef", "btcturk", "bist"];

/// A named, ordered series of events: `binance:BTCUSDT:ticker`.
///
/// 2 to 5 segments of `[A-Za-z0-9_.-]` joined by `:`, at most [`MAX_CHANNEL_BYTES`] long, case-sensitive.
/// Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Arc<str>);

impl Channel {
    /// Parses a channel name.
    ///
    /// # Errors
    ///
    /// The [`ChannelError`] that names the broken rule.
    pub fn parse(name: &str) -> Result<Self, ChannelError> {
        if name.len() > MAX_CHANNEL_BYTES {
            return Err(ChannelError::TooLong(name.len()));
        }
        let mut segments = 0;
        for segment in name.split(':') {
            if !is_segment(segment) {
                return Err(ChannelError::BadSegment);
            }
            segments += 1;
        }
        if !SEGMENTS.contains(&segments) {
            return Err(ChannelError::Segments(segments));
        }
        Ok(Self(name.into()))
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments of the name, in order.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split(':')
    }

    /// The first segment: who the channel belongs to.
    pub fn source(&self) -> &str {
        self.segments().next().unwrap_or_default()
    }

    /// Whether the source is a venue, so that only a normalizer may publish here.
    pub fn is_venue(&self) -> bool {
        VENUE_SOURCES.contains(&self.source())
    }

    /// Whether it is the system's own: what it says holds for everybody.
    pub fn is_own(&self) -> bool {
        self.source() == OWN_SOURCE
    }

    /// The kind, which follows from the last segment, whoever publishes.
    pub fn kind(&self) -> Kind {
        match self.0.rsplit(':').next().unwrap_or_default() {
            "ticker" => Kind::Ticker,
            "trades" => Kind::Trades,
            "book" => Kind::Book,
            "session" => Kind::Session,
            last if CANDLE_INTERVALS.contains(&last) => Kind::Candles,
            _ => Kind::App,
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Channel {
    type Err = ChannelError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::parse(name)
    }
}

impl std::borrow::Borrow<str> for Channel {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Whether `text` can be a segment of a channel: one or more of `[A-Za-z0-9_.-]`.
pub fn is_segment(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// Why a text is no channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// More than [`MAX_CHANNEL_BYTES`].
    #[error("channel name has {0} bytes, at most {MAX_CHANNEL_BYTES} are allowed")]
    TooLong(usize),
    /// An empty segment, or a character outside the grammar.
    #[error("a segment is one or more of A-Z a-z 0-9 _ . -")]
    BadSegment,
    /// Fewer than two or more than five segments.
    #[error("channel name has {0} segments, 2 to 5 are allowed")]
    Segments(usize),
}

/// What a channel holds. Sets history length, throttling, and what happens to a slow client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Best prices and the last price of a symbol.
    Ticker,
    /// Each trade.
    Trades,
    /// The whole book to 20 levels.
    Book,
    /// Candles of one interval.
    Candles,
    /// The state of a market: session, auction, halt.
    Session,
    /// Whatever an application publishes.
    App,
}

impl Kind {
    /// Every kind, for tables and metrics.
    pub const ALL: [Self; 6] = [Self::Ticker, Self::Trades, Self::Book, Self::Candles, Self::Session, Self::App];

    /// Whether the newest event replaces the one before it.
    pub fn is_newest_wins(self) -> bool {
        match self {
            Self::Ticker | Self::Book | Self::Candles | Self::Session => true,
            Self::Trades | Self::App => false,
        }
    }

    /// How many events history keeps at least, per channel.
    pub fn history_len(self) -> usize {
        match self {
            Self::Ticker | Self::Session => 500,
            Self::Book => 200,
            Self::Candles => 1000,
            Self::Trades | Self::App => 5000,
        }
    }

    /// The name used in metrics and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ticker => "ticker",
            Self::Trades => "trades",
            Self::Book => "book",
            Self::Candles => "candles",
            Self::Session => "session",
            Self::App => "app",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn grammar_accepts_and_refuses() {
        for good in ["a:b", "binance:BTCUSDT:ticker", "a:b:c:d:e", "job:back-test_1.2"] {
            assert_eq!(Channel::parse(good).map(|c| c.to_string()), Ok(good.to_owned()));
        }
        let long = format!("a:{}", "x".repeat(MAX_CHANNEL_BYTES));
        for (bad, why) in [
            ("", ChannelError::BadSegment),
            ("system", ChannelError::Segments(1)),
            ("a:b:c:d:e:f", ChannelError::Segments(6)),
            ("a::b", ChannelError::BadSegment),
            ("a:b ", ChannelError::BadSegment),
            ("a:b\n", ChannelError::BadSegment),
            ("a:{b}", ChannelError::BadSegment),
            ("a:*", ChannelError::BadSegment),
            ("a:ı", ChannelError::BadSegment),
            (long.as_str(), ChannelError::TooLong(MAX_CHANNEL_BYTES + 2)),
        ] {
            assert_eq!(Channel::parse(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn kind_follows_from_the_last_segment() {
        for (name, kind) in [
            ("binance:BTCUSDT:ticker", Kind::Ticker),
            ("x:trades", Kind::Trades),
            ("x:y:z:book", Kind::Book),
            ("bist:THYAO:session", Kind::Session),
            ("binance:BTCUSDT:15m", Kind::Candles),
            ("binance:BTCUSDT:1M", Kind::App),
            ("ticker:x", Kind::App),
        ] {
            assert_eq!(Channel::parse(name).unwrap().kind(), kind, "{name}");
        }
    }

    proptest! {
        #[test]
        fn parse_then_render_is_the_identity(name in "[a-zA-Z0-9_.:-]{0,140}") {
            if let Ok(channel) = Channel::parse(&name) {
                prop_assert_eq!(channel.as_str(), name.as_str());
                prop_assert_eq!(channel.segments().collect::<Vec<_>>().join(":"), name);
            }
        }

        #[test]
        fn any_text_gives_a_value_or_an_error(name in "\\PC{0,200}") {
            let parsed = Channel::parse(&name);
            let legal = name.len() <= MAX_CHANNEL_BYTES
                && (2..=5).contains(&name.split(':').count())
                && name.split(':').all(|s| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)));
            prop_assert_eq!(parsed.is_ok(), legal);
        }
    }
}
