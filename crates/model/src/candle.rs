//! Candles inside events: what the log and its readers have to know of one without reading all of it.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::seq::MAX_SEQ;

/// The event that carries a candle.
pub const CANDLE_EVENT: &str = "candle_update";

/// A candle as its event shows it.
#[derive(Debug, Clone, Copy)]
pub struct CandleView<'a> {
    /// The first millisecond that belongs to it, since the epoch. Above 0.
    pub open_ms: u64,
    /// Whether nothing more will change.
    pub is_closed: bool,
    /// The event's `data`, as it was written.
    pub data: &'a RawValue,
}

#[derive(Deserialize)]
struct Fields<'a> {
    event: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Times {
    open_time: u64,
    closed: bool,
}

impl<'a> CandleView<'a> {
    /// Reads the candle of an envelope. `None` when the event is another one, or none that has a time.
    pub fn read(envelope: &'a str) -> Option<Self> {
        let fields: Fields<'a> = serde_json::from_str(envelope).ok()?;
        if fields.event != CANDLE_EVENT {
            return None;
        }
        let times: Times = serde_json::from_str(fields.data.get()).ok()?;
        let is_time = (1..=MAX_SEQ).contains(&times.open_time);
        is_time.then_some(Self { open_ms: times.open_time, is_closed: times.closed, data: fields.data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_candles_and_nothing_else() {
        let envelope = |event: &str, data: &str| format!(r#"{{"v":1,"seq":4,"event":"{event}","data":{data}}}"#);
        let text = envelope(CANDLE_EVENT, r#"{"openTime":60000,"open":"1.5","closed":true}"#);
        let candle = CandleView::read(&text).unwrap();
        assert_eq!((candle.open_ms, candle.is_closed), (60_000, true));
        assert_eq!(candle.data.get(), r#"{"openTime":60000,"open":"1.5","closed":true}"#);
        for (event, data) in [
            ("trade", r#"{"openTime":60000,"closed":true}"#),
            (CANDLE_EVENT, r#"{"openTime":0,"closed":true}"#),
            (CANDLE_EVENT, r#"{"openTime":-1,"closed":true}"#),
            (CANDLE_EVENT, r#"{"openTime":9007199254740992,"closed":true}"#),
            (CANDLE_EVENT, r#"{"openTime":60000}"#),
            (CANDLE_EVENT, "[]"),
        ] {
            assert!(CandleView::read(&envelope(event, data)).is_none(), "{event} {data}");
        }
        assert!(CandleView::read("nonsense").is_none());
    }
}
