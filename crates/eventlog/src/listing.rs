//! What is kept beside histories: closed candles, and the list of channels that exist.

use akis_model::{CandleView, Channel, Kind, Seq};
use bytes::Bytes;

/// Closed candles kept of a channel: a day of minutes and somewhat more.
pub const CANDLES_KEPT: usize = 1500;

/// How much of a body is looked at to list its channel. The head is within it whatever the event is called.
pub(crate) const HEAD_BYTES: usize = 1024;

/// Channels that a listing gives at most.
pub const LISTED: usize = 50_000;

/// A closed candle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCandle {
    /// The first millisecond that belongs to it, since the epoch.
    pub open_ms: u64,
    /// The body of the event that closed it. Has not been checked.
    pub body: Bytes,
}

/// The newest event of a channel, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelHead {
    /// The channel.
    pub channel: Channel,
    /// The event's position.
    pub seq: Seq,
    /// When it happened at its source, milliseconds since the epoch.
    pub ts_ms: i64,
    /// What it is called.
    pub event: String,
}

/// The open time of the candle that an event closes, when it does: then the event is kept as a candle too.
pub(crate) fn closed_candle(channel: &Channel, body: &[u8]) -> Option<u64> {
    if channel.kind() != Kind::Candles {
        return None;
    }
    let envelope = format!("{{{}", std::str::from_utf8(body).ok()?);
    let candle = CandleView::read(&envelope)?;
    candle.is_closed.then_some(candle.open_ms)
}

/// Reads the head of a body: `"ts":…,"event":…`. `None` when it does not begin like this.
pub(crate) fn head(channel: &Channel, seq: Seq, body: &[u8]) -> Option<ChannelHead> {
    let body = body.get(..HEAD_BYTES).unwrap_or(body);
    // A cut may have gone through a character, behind the head.
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(body.get(..error.valid_up_to())?).ok()?,
    };
    let (ts_ms, rest) = text.strip_prefix("\"ts\":")?.split_once(',')?;
    let mut values = serde_json::Deserializer::from_str(rest.strip_prefix("\"event\":")?).into_iter::<String>();
    let event = values.next()?.ok()?;
    Some(ChannelHead { channel: channel.clone(), seq, ts_ms: ts_ms.parse().ok()?, event })
}

#[cfg(test)]
mod tests {
    use akis_model::{Body, Outcome};
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_closes_a_candle_is_one() {
        let candles = Channel::parse("v:X:1m").unwrap();
        let closes = |channel: &Channel, event: &str, closed: bool| {
            let data = json!({ "openTime": 60_000, "closed": closed });
            closed_candle(channel, Body::render(1, event, channel, Outcome::Ok, &data).unwrap().text())
        };
        assert_eq!(closes(&candles, "candle_update", true), Some(60_000));
        assert_eq!(closes(&candles, "candle_update", false), None);
        assert_eq!(closes(&candles, "channel_status", true), None);
        assert_eq!(closes(&Channel::parse("v:X:trades").unwrap(), "candle_update", true), None);
        assert_eq!(closed_candle(&candles, b"\xff"), None);
    }

    #[test]
    fn heads_are_read_however_long_the_body_is() {
        let channel = Channel::parse("job:1").unwrap();
        let data = json!({ "text": "ş".repeat(2000) });
        for event in ["job_progress", "a \"b\" \\ ş", &"x".repeat(128), &"\u{1}".repeat(128)] {
            let body = Body::render(-5, event, &channel, Outcome::Ok, &data).unwrap();
            let head = head(&channel, Seq::ZERO, body.text()).expect(event);
            assert_eq!((head.ts_ms, head.event.as_str()), (-5, event));
        }
        for body in ["", "\"ts\":1", "\"ts\":x,\"event\":\"e\",", "\"ts\":1,\"event\":7,", "\"event\":\"e\",\"ts\":1,"]
        {
            assert_eq!(head(&channel, Seq::ZERO, body.as_bytes()), None, "{body}");
        }
    }
}
