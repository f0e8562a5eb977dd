//! One event as its publisher sent it, and what has to be right about it.

use akis_eventlog::Append;
use akis_model::{Body, Channel, ErrorCode, Outcome, Seq};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::auth::{Grant, check_event};
use crate::wire::OWN_EVENTS;

/// Longest name of an event and longest idempotency id, in bytes.
pub(super) const MAX_NAME_BYTES: usize = 128;

/// Levels of nesting in `data`. Common readers stop at 128, and the envelope is one of them.
const MAX_DEPTH: usize = 100;

/// One event as it is sent. Unknown fields are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct Sent<'a> {
    pub(super) channel: String,
    pub(super) event: String,
    #[serde(borrow)]
    pub(super) data: &'a RawValue,
    /// Milliseconds since the epoch.
    pub(super) ts: Option<u64>,
    /// Makes a repetition harmless.
    pub(super) id: Option<String>,
}

/// Why one event is refused; the status is for a request that has only this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) channel: Option<String>,
    pub(super) status: StatusCode,
    pub(super) code: ErrorCode,
    pub(super) message: String,
}

impl Refused {
    pub(super) fn new(channel: &str, status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { channel: Some(channel.to_owned()), status, code, message: message.into() }
    }

    /// Not as it should be, and perhaps not even a channel is known.
    pub(super) fn malformed(channel: Option<String>, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { channel, status: StatusCode::BAD_REQUEST, code: ErrorCode::BadRequest, message }
    }

    pub(super) fn bad(channel: &str, message: impl Into<String>) -> Self {
        Self::malformed(Some(channel.to_owned()), message)
    }

    pub(super) fn to_json(&self) -> Value {
        let mut value = json!({ "errorCode": self.code.as_str(), "message": self.message });
        if let Some(channel) = &self.channel {
            value["channel"] = channel.as_str().into();
        }
        value
    }
}

impl<'a> Sent<'a> {
    /// Reads an event in this protocol's own form.
    pub(super) fn read(item: &'a RawValue) -> Result<Self, Refused> {
        let sent: Self = object(item)
            .map_err(|error| Refused::malformed(text_field(item, "channel"), format!("not an event: {error}")))?;
        if sent.id.as_ref().is_some_and(|id| id.is_empty() || id.len() > MAX_NAME_BYTES) {
            return Err(Refused::bad(&sent.channel, "id is a string of up to 128 bytes"));
        }
        Ok(sent)
    }

    /// Checks the event and renders its body.
    pub(super) fn check(self, grant: &Grant, event_bytes: usize, now_ms: i64) -> Result<Append, Refused> {
        let name = self.channel.as_str();
        let channel = Channel::parse(name)
            .map_err(|error| Refused::new(name, StatusCode::BAD_REQUEST, ErrorCode::BadChannel, error.to_string()))?;
        if channel.is_venue() || !grant.publish.allows(&channel) {
            let message = if channel.is_venue() {
                "channels of a venue are its own"
            } else {
                "the token does not allow the channel"
            };
            return Err(Refused::new(name, StatusCode::FORBIDDEN, ErrorCode::ChannelForbidden, message));
        }
        let event = self.event.as_str();
        if event.is_empty() || event.len() > MAX_NAME_BYTES || OWN_EVENTS.contains(&event) {
            return Err(Refused::bad(name, "event is a name of up to 128 bytes, and none of the gateway's own"));
        }
        let ts_ms = match self.ts.map(Seq::new) {
            None => now_ms,
            Some(Ok(ts)) => i64::try_from(ts.get()).unwrap_or(now_ms),
            Some(Err(_)) => return Err(Refused::bad(name, "ts is milliseconds since the epoch")),
        };
        check_event(name, event, self.data.get()).map_err(|why| Refused::bad(name, why))?;
        let data = compact(self.data.get()).and_then(|data| RawValue::from_string(data).ok());
        let data = data.ok_or_else(|| Refused::bad(name, "data is nested too deeply"))?;
        let body = Body::render(ts_ms, event, &channel, Outcome::Ok, &data)
            .map_err(|error| Refused::bad(name, error.to_string()))?;
        if body.text().len() > event_bytes {
            let message = format!("the event is larger than {event_bytes} bytes");
            return Err(Refused::new(name, StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::BadRequest, message));
        }
        Ok(Append { channel, id: self.id, body: body.text().clone(), trace: None })
    }
}

/// Reads an object. serde would take an array for one too, with the fields in their order.
pub(super) fn object<'a, T: Deserialize<'a>>(item: &'a RawValue) -> Result<T, String> {
    if !item.get().starts_with('{') {
        return Err("not an object".to_owned());
    }
    serde_json::from_str(item.get()).map_err(|error| error.to_string())
}

/// A field of an object that could not be read as a whole, to name what is refused.
pub(super) fn text_field(item: &RawValue, name: &str) -> Option<String> {
    let value = serde_json::from_str::<Value>(item.get()).ok()?;
    value.get(name).and_then(Value::as_str).map(str::to_owned)
}

/// Removes the space between the tokens of well-formed JSON, so that an envelope is one line and numbers stay as they were
/// written. `None` when it is nested too deeply.
fn compact(json: &str) -> Option<String> {
    let mut out = String::with_capacity(json.len());
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    for c in json.chars() {
        if in_string {
            in_string = is_escaped || c != '"';
            is_escaped = !is_escaped && c == '\\';
        } else {
            match c {
                ' ' | '\n' | '\r' | '\t' => continue,
                '"' => in_string = true,
                '{' | '[' => depth += 1,
                '}' | ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        if depth > MAX_DEPTH {
            return None;
        }
        out.push(c);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compacting_changes_nothing_but_space() {
        let json = "{ \"a b\" : [ 1.50 ,\n 1e400 ], \"c\\\" \" : \"x \\\\\" , \"d\":{ } }";
        assert_eq!(compact(json).unwrap(), r#"{"a b":[1.50,1e400],"c\" ":"x \\","d":{}}"#);
        let deep = format!("{}{}", "[".repeat(101), "]".repeat(101));
        assert_eq!(compact(&deep), None);
        assert!(compact(&deep[1..201]).is_some());
    }
}
