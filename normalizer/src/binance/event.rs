//! What a frame is: an event of a stream, in either of the forms in which the venue sends them.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::tape::Tape;
use super::{scan, wire};
use crate::mapper::Reason;

/// An event of a stream.
pub(super) enum Event<'a> {
    Trade(wire::Trade<'a>, Tape),
    BookTicker(wire::BookTicker<'a>),
    Ticker(wire::Ticker<'a>),
    Depth(wire::DepthUpdate<'a>),
    Kline(wire::KlineEvent<'a>),
    /// About the connection: the connector's business.
    Notice,
}

impl<'a> Event<'a> {
    /// Reads a frame. Nearly all have one form, which is read once; what it is not is found out by reading it twice.
    pub(super) fn read(text: &'a str) -> Result<Self, Reason> {
        let usual = wire::split(text).and_then(|(stream, data)| Self::of(&stream_kind(stream), data).ok());
        usual.map_or_else(|| Self::read_any(text), Ok)
    }

    fn read_any(text: &'a str) -> Result<Self, Reason> {
        let envelope: wire::Envelope<'_> = wire::parse(text)?;
        match (&envelope.stream, envelope.data, &envelope.event) {
            (Some(stream), Some(data), _) => Self::of(&stream_kind(stream), data.get()),
            (None, None, Some(event)) => Self::of(&event_kind(event), text),
            (Some(_), None, _) => Err(Reason::BadShape),
            (None, _, _) => control(text).map(|()| Self::Notice),
        }
    }

    fn of(kind: &StreamKind, data: &'a str) -> Result<Self, Reason> {
        match kind {
            StreamKind::Trade(tape) => read(data, scan::trade).map(|trade| Self::Trade(trade, *tape)),
            StreamKind::BookTicker => read(data, scan::book_ticker).map(Self::BookTicker),
            StreamKind::Ticker => wire::parse(data).map(Self::Ticker),
            StreamKind::Depth => read(data, scan::depth_update).map(Self::Depth),
            StreamKind::Kline => wire::parse(data).map(Self::Kline),
            StreamKind::Notice => wire::parse::<IgnoredAny>(data).map(|_| Self::Notice),
            StreamKind::Unknown => Err(Reason::UnknownEvent),
        }
    }
}

/// Reads an event in its plain form, or in any.
fn read<'a, T: Deserialize<'a>>(text: &'a str, scan: fn(&'a str) -> Option<T>) -> Result<T, Reason> {
    scan(text).map_or_else(|| wire::parse(text), Ok)
}

enum StreamKind {
    Trade(Tape),
    BookTicker,
    Ticker,
    Depth,
    Kline,
    /// About the connection: the connector's business.
    Notice,
    Unknown,
}

/// What a stream holds, by its name: `btcusdt@depth@100ms`.
fn stream_kind(stream: &str) -> StreamKind {
    let Some((_, rest)) = stream.split_once('@') else {
        return if stream == "!serverShutdown" { StreamKind::Notice } else { StreamKind::Unknown };
    };
    match rest {
        "aggTrade" => StreamKind::Trade(Tape::Aggregate),
        "trade" => StreamKind::Trade(Tape::Single),
        "bookTicker" => StreamKind::BookTicker,
        "ticker" => StreamKind::Ticker,
        "depth" | "depth@100ms" => StreamKind::Depth,
        // `kline_1d@+08:00` is cut at other hours and has no channel.
        _ if rest.starts_with("kline_") && !rest.contains('@') => StreamKind::Kline,
        _ => StreamKind::Unknown,
    }
}

/// What an event of a raw connection is, by its `e`. (`bookTicker` has none and needs the combined form.)
fn event_kind(event: &str) -> StreamKind {
    match event {
        "aggTrade" => StreamKind::Trade(Tape::Aggregate),
        "trade" => StreamKind::Trade(Tape::Single),
        "24hrTicker" => StreamKind::Ticker,
        "depthUpdate" => StreamKind::Depth,
        "kline" => StreamKind::Kline,
        "serverShutdown" => StreamKind::Notice,
        _ => StreamKind::Unknown,
    }
}

/// A reply to a request of the connector's: `{"result":null,"id":1}`, or an error, flat or nested.
fn control(text: &str) -> Result<(), Reason> {
    if text.contains("\"code\"") {
        Err(Reason::Refused)
    } else if text.contains("\"result\"") {
        Ok(())
    } else {
        Err(Reason::BadShape)
    }
}
