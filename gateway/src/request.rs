//! What a client may ask: its messages as types. Any text gives a request or a named refusal.

use std::collections::HashSet;

use akis_model::{Channel, ErrorCode, Pattern, Seq};
use akis_service::config::Secret;
use serde_json::{Map, Value};

use crate::wire::RequestId;

/// Channels in one message.
const MAX_CHANNELS: usize = 200;

/// Longest `id` that is a string, in bytes.
const MAX_ID_BYTES: usize = 64;

/// Longest `interval`: a day. Beyond it a subscription would be as good as none.
pub(crate) const MAX_INTERVAL_MS: u64 = 86_400_000;

/// One message of a client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    /// Echoed in every answer.
    pub(crate) id: Option<RequestId>,
    /// What is asked.
    pub(crate) ask: Ask,
}

/// What a message asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ask {
    /// `subscribe`: each channel once, in the order named first.
    Subscribe(Vec<Wish>),
    /// `unsubscribe`: names as they were sent, each once.
    Unsubscribe(Vec<String>),
    /// `auth`, with the token.
    Auth(Secret),
    /// `ping`.
    Ping,
}

/// One entry of a `subscribe`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wish {
    /// The channel's name as it was sent.
    pub(crate) name: String,
    /// What to do, or why this entry alone is refused.
    pub(crate) wanted: Result<Wanted, Refusal>,
}

/// What a name in a request stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// One channel.
    Channel(Channel),
    /// Every channel that it covers.
    Pattern(Pattern),
}

/// What an entry of a `subscribe` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// One channel.
    One(Terms),
    /// Every channel that there is and that a pattern covers.
    Every(Terms<Pattern>),
}

/// A subscription as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms<C = Channel> {
    /// The channel.
    pub(crate) channel: C,
    /// Where to begin.
    pub(crate) start: Start,
    /// Begin with the channel's latest event.
    pub(crate) snapshot: bool,
    /// At most one event per so many milliseconds; 0 asks for every event.
    pub(crate) interval_ms: u64,
}

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Live from now.
    Now,
    /// Everything above this position.
    After(Seq),
    /// Everything with `ts` at or above this, in milliseconds since the epoch.
    Since(i64),
}

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What the client's code looks at.
    pub(crate) code: ErrorCode,
    /// What its developer reads.
    pub(crate) message: String,
}

impl Refusal {
    /// A refusal with this code.
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    fn bad(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }
}

/// A message that is refused as a whole.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BadRequest {
    /// The message's `id`, where it has a good one.
    pub(crate) id: Option<RequestId>,
    /// Why.
    pub(crate) refusal: Refusal,
}

impl Target {
    /// Reads a name. One that could be both is a channel's.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::BadChannel`], with what is wrong with it as a channel.
    pub(crate) fn parse(name: &str) -> Result<Self, Refusal> {
        let channel = Channel::parse(name).map(Self::Channel);
        channel.or_else(|error| {
            let refuse = |_| Refusal::new(ErrorCode::BadChannel, error.to_string());
            Pattern::parse(name).map(Self::Pattern).map_err(refuse)
        })
    }
}

impl Terms<Pattern> {
    /// The same for one of the channels.
    pub(crate) fn of(&self, channel: Channel) -> Terms {
        let Self { start, snapshot, interval_ms, .. } = *self;
        Terms { channel, start, snapshot, interval_ms }
    }
}

impl Request {
    /// Reads a message.
    ///
    /// # Errors
    ///
    /// [`BadRequest`] when nothing of it can be carried out. Mistakes in one entry of `channels` are
    /// in that entry's [`Wish::wanted`].
    pub(crate) fn parse(text: &str) -> Result<Self, BadRequest> {
        let refuse = |id, refusal| BadRequest { id, refusal };
        // The reader's own limit of 128 levels answers deep nesting.
        let value: Value = serde_json::from_str(text)
            .map_err(|error| refuse(None, Refusal::bad(format!("not a JSON message: {error}"))))?;
        let Value::Object(message) = value else {
            return Err(refuse(None, Refusal::bad("a message is a JSON object")));
        };
        let id = read_id(&message).map_err(|refusal| refuse(None, refusal))?;
        match read_ask(&message) {
            Ok(ask) => Ok(Self { id, ask }),
            Err(refusal) => Err(refuse(id, refusal)),
        }
    }

    /// The `id` of a message that is not carried out, as far as it can be found.
    pub(crate) fn id_of(text: &str) -> Option<RequestId> {
        match serde_json::from_str(text) {
            Ok(Value::Object(message)) => read_id(&message).ok().flatten(),
            _ => None,
        }
    }
}

fn read_id(message: &Map<String, Value>) -> Result<Option<RequestId>, Refusal> {
    match message.get("id") {
        None => Ok(None),
        Some(id @ Value::Number(number)) if number.is_i64() || number.is_u64() => Ok(Some(id.clone())),
        Some(id @ Value::String(text)) if text.len() <= MAX_ID_BYTES => Ok(Some(id.clone())),
        Some(_) => Err(Refusal::bad("id is an integer or a string of up to 64 bytes")),
    }
}

fn read_ask(message: &Map<String, Value>) -> Result<Ask, Refusal> {
    let Some(Value::String(kind)) = message.get("type") else {
        return Err(Refusal::bad("type is missing or not a string"));
    };
    match kind.as_str() {
        "subscribe" => {
            let entries = read_channels(message)?;
            let wish = |(name, fields): Entry<'_>| Wish { name: name.to_owned(), wanted: read_wanted(name, fields) };
            Ok(Ask::Subscribe(entries.into_iter().map(wish).collect()))
        }
        "unsubscribe" => {
            let entries = read_channels(message)?;
            Ok(Ask::Unsubscribe(entries.into_iter().map(|(name, _)| name.to_owned()).collect()))
        }
        "auth" => match message.get("token") {
            Some(Value::String(token)) => Ok(Ask::Auth(Secret::new(token))),
            _ => Err(Refusal::bad("token is missing or not a string")),
        },
        "ping" => Ok(Ask::Ping),
        _ => Err(Refusal::new(ErrorCode::UnknownType, "type is one of subscribe, unsubscribe, auth, ping")),
    }
}

/// One entry of `channels`: the name and, of an object, all of it.
type Entry<'a> = (&'a str, Option<&'a Map<String, Value>>);

/// The entries of `channels`. A channel named twice counts once.
fn read_channels(message: &Map<String, Value>) -> Result<Vec<Entry<'_>>, Refusal> {
    let Some(Value::Array(list)) = message.get("channels") else {
        return Err(Refusal::bad("channels is missing or not an array"));
    };
    let mut seen = HashSet::new();
    let mut entries = Vec::new();
    for entry in list {
        let (name, fields) = match entry {
            Value::String(name) => (name.as_str(), None),
            Value::Object(fields) => match fields.get("channel") {
                Some(Value::String(name)) => (name.as_str(), Some(fields)),
                _ => return Err(Refusal::bad("an entry of channels has no channel, or one that is not a string")),
            },
            _ => return Err(Refusal::bad("an entry of channels is a name or an object")),
        };
        if seen.insert(name) {
            entries.push((name, fields));
        }
    }
    match entries.len() {
        0 => Err(Refusal::bad("channels is empty")),
        n if n > MAX_CHANNELS => Err(Refusal::bad(format!("{n} channels in one message, at most 200 are allowed"))),
        _ => Ok(entries),
    }
}

fn read_wanted(name: &str, fields: Option<&Map<String, Value>>) -> Result<Wanted, Refusal> {
    let terms = match Target::parse(name)? {
        Target::Channel(channel) => return read_terms(channel, fields).map(Wanted::One),
        Target::Pattern(pattern) => read_terms(pattern, fields)?,
    };
    if matches!(terms.start, Start::After(after) if after != Seq::ZERO) {
        return Err(Refusal::bad("a position belongs to one channel: with a pattern, after is 0"));
    }
    Ok(Wanted::Every(terms))
}

fn read_terms<C>(channel: C, fields: Option<&Map<String, Value>>) -> Result<Terms<C>, Refusal> {
    let field = |key: &str| fields.and_then(|fields| fields.get(key));
    let start = match (field("after"), field("since")) {
        (None, None) => Start::Now,
        (Some(after), None) => {
            let position = after.as_u64().and_then(|after| Seq::new(after).ok());
            Start::After(position.ok_or_else(|| Refusal::bad("after is an integer from 0 to 2^53 - 1"))?)
        }
        (None, Some(since)) => {
            let time = since.as_u64().and_then(|since| Seq::new(since).ok());
            let time = time.ok_or_else(|| Refusal::bad("since is an integer from 0 to 2^53 - 1"))?;
            Start::Since(i64::try_from(time.get()).unwrap_or(i64::MAX))
        }
        (Some(_), Some(_)) => return Err(Refusal::bad("after and since exclude each other")),
    };
    let snapshot = match field("snapshot") {
        None => start == Start::Now,
        Some(Value::Bool(snapshot)) => *snapshot,
        Some(_) => return Err(Refusal::bad("snapshot is true or false")),
    };
    let interval_ms = match field("interval").map(Value::as_u64) {
        None => 0,
        Some(Some(interval)) if interval <= MAX_INTERVAL_MS => interval,
        Some(_) => return Err(Refusal::bad("interval is an integer of milliseconds, up to a day")),
    };
    Ok(Terms { channel, start, snapshot, interval_ms })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn one(wanted: Wanted) -> Terms {
        match wanted {
            Wanted::One(terms) => terms,
            Wanted::Every(terms) => panic!("one channel, not {}", terms.channel),
        }
    }

    fn code(text: &str) -> ErrorCode {
        Request::parse(text).unwrap_err().refusal.code
    }

    #[test]
    fn reads_the_examples_of_the_protocol() {
        let text = r#"{"type":"subscribe","id":7,"channels":["binance:BTCUSDT:1m",{"channel":"binance:BTCUSDT:book","interval":250},{"channel":"job:backtest_123","after":1795312345678901}]}"#;
        let request = Request::parse(text).unwrap();
        assert_eq!(request.id, Some(json!(7)));
        let Ask::Subscribe(wishes) = request.ask else { panic!("a subscribe") };
        let terms: Vec<_> = wishes.into_iter().map(|wish| one(wish.wanted.unwrap())).collect();
        assert_eq!(terms[0].start, Start::Now);
        assert!(terms[0].snapshot);
        assert_eq!(terms[1].interval_ms, 250);
        assert_eq!(terms[2].start, Start::After(Seq::new(1_795_312_345_678_901).unwrap()));
        assert!(!terms[2].snapshot);
        let request = Request::parse(r#"{"type":"ping","id":"x"}"#).unwrap();
        assert_eq!(request, Request { id: Some(json!("x")), ask: Ask::Ping });
    }

    #[test]
    fn refuses_messages_as_a_whole() {
        let many: Vec<String> = (0..201).map(|n| format!("a:{n}")).collect();
        let long_id = "x".repeat(65);
        let deep = format!(r#"{{"type":"ping","x":{}{}}}"#, "[".repeat(5000), "]".repeat(5000));
        for bad in [
            "",
            "nope",
            "[]",
            "7",
            "{}",
            r#"{"type":7}"#,
            r#"{"type":"ping","id":1.5}"#,
            r#"{"type":"ping","id":null}"#,
            &format!(r#"{{"type":"ping","id":"{long_id}"}}"#),
            r#"{"type":"subscribe"}"#,
            r#"{"type":"subscribe","channels":"a:b"}"#,
            r#"{"type":"subscribe","channels":[]}"#,
            r#"{"type":"subscribe","channels":[7]}"#,
            r#"{"type":"subscribe","channels":[{"after":7}]}"#,
            r#"{"type":"unsubscribe","channels":[null]}"#,
            r#"{"type":"auth","token":5}"#,
            &json!({ "type": "subscribe", "channels": many }).to_string(),
            &deep,
        ] {
            assert_eq!(code(bad), ErrorCode::BadRequest, "{}", &bad[..bad.len().min(80)]);
        }
        assert_eq!(code(r#"{"type":"SUBSCRIBE"}"#), ErrorCode::UnknownType);
        let refused = Request::parse(r#"{"type":"nope","id":3}"#).unwrap_err();
        assert_eq!(refused.id, Some(json!(3)), "a refusal names the request");
    }

    #[test]
    fn refuses_one_entry_and_keeps_the_others() {
        let text = json!({ "type": "subscribe", "channels": [
            "a:b", "a:b", "a", "a:*b", { "channel": "a:c", "after": -1 }, { "channel": "a:d", "after": "7" },
            { "channel": "a:e", "after": 9_007_199_254_740_992_u64 }, { "channel": "a:f", "after": 1.0 },
            { "channel": "a:g", "after": null }, { "channel": "a:h", "after": 1, "since": 1 },
            { "channel": "a:i", "interval": -5 }, { "channel": "a:j", "snapshot": 1 }, { "channel": "a:k", "since": -1 },
            { "channel": "a:*", "after": 1 },
        ] });
        let Ask::Subscribe(wishes) = Request::parse(&text.to_string()).unwrap().ask else { panic!("a subscribe") };
        let codes: Vec<_> = wishes.iter().map(|wish| wish.wanted.as_ref().err().map(|refusal| refusal.code)).collect();
        let mut expected = vec![None, Some(ErrorCode::BadChannel), Some(ErrorCode::BadChannel)];
        expected.extend([Some(ErrorCode::BadRequest); 10]);
        assert_eq!(codes, expected);
    }

    proptest! {
        #[test]
        fn any_text_gives_a_request_or_a_refusal(text in "\\PC{0,200}") {
            let _ = Request::parse(&text);
        }

        #[test]
        fn any_json_gives_a_request_or_a_refusal(kind in "subscribe|unsubscribe|auth|ping|x", value in "[\\[\\]{}\",:0-9a-z.-]{0,40}") {
            let _ = Request::parse(&format!(r#"{{"type":"{kind}","channels":{value},"token":{value}}}"#));
        }
    }
}
