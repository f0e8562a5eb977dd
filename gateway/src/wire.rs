//! The gateway's own events as envelopes. The one place that knows how they are written.

use std::time::Duration;

use akis_model::{CloseCode, ErrorCode, Seq};
use bytes::Bytes;
use serde_json::{Value, json};

/// The channel of messages about the connection itself.
const SYSTEM: &str = "system";

/// The names of the gateway's own events. Nobody else may publish events that are called so.
pub(crate) const OWN_EVENTS: [&str; 15] = [
    "welcome",
    "subscribed",
    "unsubscribed",
    "subscribe_error",
    "term",
    "gap",
    "backpressure_drop",
    "staleness",
    "heartbeat",
    "pong",
    "token_expiring",
    "authenticated",
    "draining",
    "upstream",
    "error",
];

/// Why positions are missing that cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GapReason {
    /// Known to be missing.
    Lost,
    /// History no longer reaches back so far.
    Trimmed,
    /// The log was replaced, and what lay between cannot be known.
    Unproven,
}

impl GapReason {
    /// The word on the wire and in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Trimmed => "trimmed",
            Self::Unproven => "unproven",
        }
    }
}

/// What happened to events that a client was too slow for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DropReason {
    /// The oldest were dropped.
    Dropped,
    /// They were replaced by the newest.
    Conflated,
}

impl DropReason {
    /// The word on the wire and in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Conflated => "conflated",
        }
    }
}

/// A request's `id`, as JSON.
pub(crate) type RequestId = Value;

/// Renders one envelope. `channel` is escaped: it may be what a client sent.
fn envelope(event: &str, channel: &str, seq: Seq, ts_ms: i64, error: Option<ErrorCode>, data: &Value) -> Bytes {
    let channel = Value::from(channel);
    let outcome = match error {
        None => "\"ok\":true".to_owned(),
        Some(code) => format!("\"ok\":false,\"errorCode\":\"{code}\""),
    };
    format!(r#"{{"v":1,"seq":{seq},"ts":{ts_ms},"event":"{event}","channel":{channel},{outcome},"data":{data}}}"#)
        .into()
}

fn with_id(mut data: Value, id: Option<&RequestId>) -> Value {
    if let Some(id) = id {
        data["id"] = id.clone();
    }
    data
}

/// An event about the connection that reports no failure.
pub(crate) fn system(event: &str, ts_ms: i64, data: &Value) -> Bytes {
    envelope(event, SYSTEM, Seq::ZERO, ts_ms, None, data)
}

/// `heartbeat`. `tail_age`: how far this replica is behind the log.
pub(crate) fn heartbeat(tail_age: Duration, ts_ms: i64) -> Bytes {
    let tail_age_ms = tail_age.as_millis();
    format!(
        r#"{{"v":1,"seq":0,"ts":{ts_ms},"event":"heartbeat","channel":"system","ok":true,"data":{{"serverTs":{ts_ms},"tailAgeMs":{tail_age_ms}}}}}"#
    )
    .into()
}

/// `pong`.
pub(crate) fn pong(id: Option<&RequestId>, ts_ms: i64) -> Bytes {
    system("pong", ts_ms, &with_id(json!({ "serverTs": ts_ms }), id))
}

/// `authenticated`.
pub(crate) fn authenticated(id: Option<&RequestId>, expires_at_ms: i64, ended: &[Value], ts_ms: i64) -> Bytes {
    system("authenticated", ts_ms, &with_id(json!({ "tokenExpiresAt": expires_at_ms, "ended": ended }), id))
}

/// `upstream`: whether the log can be reached.
pub(crate) fn upstream(is_reachable: bool, ts_ms: i64) -> Bytes {
    let error = (!is_reachable).then_some(ErrorCode::UpstreamUnavailable);
    envelope("upstream", SYSTEM, Seq::ZERO, ts_ms, error, &json!({}))
}

/// `error`: a request that could not be understood or is not allowed.
pub(crate) fn error(
    id: Option<&RequestId>,
    code: ErrorCode,
    message: &str,
    retry_after_ms: Option<u64>,
    ts_ms: i64,
) -> Bytes {
    let mut data = with_id(json!({ "message": message }), id);
    if let Some(retry_after_ms) = retry_after_ms {
        data["retryAfterMs"] = retry_after_ms.into();
    }
    envelope("error", SYSTEM, Seq::ZERO, ts_ms, Some(code), &data)
}

/// What a `subscribed` says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subscribed<'a> {
    /// The request's; `None` when the subscription began anew by itself.
    pub(crate) id: Option<&'a RequestId>,
    /// Only where a position or a time was asked for, and where the subscription began anew.
    pub(crate) recovered: Option<bool>,
    /// How many events come before live.
    pub(crate) replayed: usize,
    /// The oldest event kept.
    pub(crate) oldest: Option<Seq>,
    /// As granted, in milliseconds; 0 stands for every event.
    pub(crate) interval_ms: u64,
}

/// `subscribed`: the next event of the channel follows `seq`.
pub(crate) fn subscribed(channel: &str, seq: Seq, said: &Subscribed<'_>, ts_ms: i64) -> Bytes {
    let mut data = with_id(json!({ "replayed": said.replayed, "interval": said.interval_ms }), said.id);
    if let Some(recovered) = said.recovered {
        data["recovered"] = recovered.into();
    }
    if let Some(oldest) = said.oldest {
        data["oldest"] = oldest.get().into();
    }
    envelope("subscribed", channel, seq, ts_ms, None, &data)
}

/// `unsubscribed`, as the answer to a request.
pub(crate) fn unsubscribed(channel: &str, id: Option<&RequestId>, ts_ms: i64) -> Bytes {
    envelope("unsubscribed", channel, Seq::ZERO, ts_ms, None, &with_id(json!({}), id))
}

/// `unsubscribed`, when the server ended the subscription.
pub(crate) fn ended(channel: &str, code: ErrorCode, ts_ms: i64) -> Bytes {
    envelope("unsubscribed", channel, Seq::ZERO, ts_ms, Some(code), &json!({}))
}

/// `subscribe_error`.
pub(crate) fn subscribe_error(
    channel: &str,
    id: Option<&RequestId>,
    code: ErrorCode,
    message: &str,
    ts_ms: i64,
) -> Bytes {
    let data = with_id(json!({ "message": message }), id);
    envelope("subscribe_error", channel, Seq::ZERO, ts_ms, Some(code), &data)
}

/// `term`: positions go on from `seq`, and nothing was lost.
pub(crate) fn term(channel: &str, seq: Seq, previous: Seq, ts_ms: i64) -> Bytes {
    envelope("term", channel, seq, ts_ms, None, &json!({ "previous": previous.get() }))
}

/// `gap`: `from` to `to` cannot be had. With `error` the gateway itself could not read what was there.
pub(crate) fn gap(channel: &str, from: Seq, to: Seq, reason: GapReason, error: Option<ErrorCode>, ts_ms: i64) -> Bytes {
    let data = json!({ "from": from.get(), "to": to.get(), "reason": reason.as_str() });
    envelope("gap", channel, to, ts_ms, error, &data)
}

/// `staleness`: a channel that should speak has been silent for too long, or speaks again.
pub(crate) fn staleness(channel: &str, seq: Seq, silent_for: Option<Duration>, ts_ms: i64) -> Bytes {
    let error = silent_for.map(|_| ErrorCode::StalenessWarning);
    let data = silent_for.map_or_else(|| json!({}), |silent| json!({ "silentMs": silent.as_millis() as u64 }));
    envelope("staleness", channel, seq, ts_ms, error, &data)
}

/// `backpressure_drop`: this client was too slow for `count` events.
pub(crate) fn backpressure_drop(
    channel: &str,
    from: Seq,
    to: Seq,
    count: u64,
    reason: DropReason,
    ts_ms: i64,
) -> Bytes {
    let data = json!({ "from": from.get(), "to": to.get(), "count": count, "reason": reason.as_str() });
    envelope("backpressure_drop", channel, to, ts_ms, None, &data)
}

/// The word for a close code in metrics.
pub(crate) fn close_label(code: CloseCode) -> &'static str {
    match code {
        CloseCode::Normal => "1000",
        CloseCode::GoingAway => "1001",
        CloseCode::Protocol => "1002",
        CloseCode::NotUtf8 => "1007",
        CloseCode::TooLarge => "1009",
        CloseCode::BadRequests => "4400",
        CloseCode::Token => "4401",
        CloseCode::Silent => "4408",
        CloseCode::Slow => "4413",
        CloseCode::RateLimit => "4429",
        CloseCode::Unavailable => "4503",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_have_the_shape_of_the_protocol() {
        let seq = Seq::new(9).unwrap();
        assert_eq!(
            term("job:1", seq, Seq::new(3).unwrap(), 5),
            r#"{"v":1,"seq":9,"ts":5,"event":"term","channel":"job:1","ok":true,"data":{"previous":3}}"#
        );
        let told: Value = serde_json::from_slice(&heartbeat(Duration::from_millis(3), 5)).unwrap();
        let said: Value =
            serde_json::from_slice(&system("heartbeat", 5, &json!({ "serverTs": 5, "tailAgeMs": 3 }))).unwrap();
        assert_eq!(told, said);
        let id = json!("a\"b");
        let refused = subscribe_error("a\"\n", Some(&id), ErrorCode::BadChannel, "no \"channel\"", 5);
        let value: Value = serde_json::from_slice(&refused).unwrap();
        assert_eq!(value["channel"], "a\"\n");
        assert_eq!(value["errorCode"], "BAD_CHANNEL");
        assert_eq!(value["ok"], false);
        assert_eq!(value["data"], json!({ "id": "a\"b", "message": "no \"channel\"" }));
    }
}
