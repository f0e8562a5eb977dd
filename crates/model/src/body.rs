//! The envelope without its head: what the log stores, and what becomes a frame by putting the head in front.

use std::borrow::Cow;
use std::cell::Cell;

use bytes::Bytes;
use serde::{Deserialize, Serialize, ser};
use serde_json::value::RawValue;

use crate::channel::Channel;
use crate::code::ErrorCode;
use crate::seq::Seq;
use crate::trace::Origin;

/// What rendering keeps for the next time at most.
const MAX_SCRATCH_BYTES: usize = 64 << 10;

thread_local! {
    /// Where bodies are written before it is known how long they are.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// An event's envelope from `"ts"` on: `"ts":…,"event":…,"channel":…,"ok":true,"data":{…}}`.
///
/// Always one well-formed line of JSON once [`Seq`] and the opening are put in front. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Body {
    text: Bytes,
    ts_ms: i64,
    origin: Origin,
}

/// Bodies are equal when their text is: where it came from is not part of what it says.
impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Body {}

/// The `ok` of an envelope, with the code where it is `false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// `"ok":true`.
    Ok,
    /// `"ok":false` with this code.
    Failed(ErrorCode),
}

/// What the `data` of an envelope is made of: whatever serde can write.
pub trait Data {
    /// Adds it to `out` as one line of JSON.
    ///
    /// # Errors
    ///
    /// When it cannot be that.
    fn write_json(&self, out: &mut Vec<u8>) -> Result<(), serde_json::Error>;
}

impl<T: Serialize> Data for T {
    fn write_json(&self, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let from = out.len();
        serde_json::to_writer(&mut *out, self)?;
        // Only what was JSON before, and is written as it is, can have several.
        if out[from..].contains(&b'\n') {
            return Err(ser::Error::custom("more than one line"));
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    ts: i64,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    channel: Cow<'a, str>,
    ok: bool,
    #[serde(borrow)]
    error_code: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl Body {
    /// Renders a body. `ts_ms` is milliseconds since the epoch at the event's source.
    ///
    /// # Errors
    ///
    /// [`BodyError::Data`] when `data` does not serialise to a JSON object.
    pub fn render(
        ts_ms: i64,
        event: &str,
        channel: &Channel,
        outcome: Outcome,
        data: &impl Data,
    ) -> Result<Self, BodyError> {
        // Written where the one before was written, then copied to a piece of its own length.
        let mut text = SCRATCH.take();
        text.clear();
        let rendered = write(&mut text, ts_ms, event, channel, outcome, data).map(|()| Bytes::copy_from_slice(&text));
        if text.capacity() <= MAX_SCRATCH_BYTES {
            SCRATCH.set(text);
        }
        rendered.map(|text| Self { text, ts_ms, origin: Origin::default() })
    }

    /// Checks a stored body, once, where it enters a process.
    ///
    /// # Errors
    ///
    /// [`BodyError::Malformed`] when it is no well-formed end of an envelope, [`BodyError::OtherChannel`]
    /// when it belongs to another channel.
    pub fn parse(text: Bytes, channel: &Channel) -> Result<Self, BodyError> {
        if text.first() != Some(&b'"') || text.contains(&b'\n') {
            return Err(BodyError::Malformed);
        }
        let mut whole = Vec::with_capacity(text.len() + 1);
        whole.push(b'{');
        whole.extend_from_slice(&text);
        let fields: Fields<'_> = serde_json::from_slice(&whole).map_err(|_| BodyError::Malformed)?;
        if fields.channel != channel.as_str() {
            return Err(BodyError::OtherChannel);
        }
        let code_fits = fields.ok == fields.error_code.is_none();
        if fields.event.is_empty() || !fields.data.get().starts_with('{') || !code_fits {
            return Err(BodyError::Malformed);
        }
        let ts_ms = fields.ts;
        Ok(Self { text, ts_ms, origin: Origin::default() })
    }

    /// The text as the log stores it.
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// When the event happened at its source, milliseconds since the epoch.
    pub fn ts_ms(&self) -> i64 {
        self.ts_ms
    }

    /// Where it came from; nothing is known of one that was parsed.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The same, with what is known of where it came from.
    #[must_use]
    pub fn with_origin(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }

    /// The whole envelope of the event at `seq`: one line of JSON.
    pub fn envelope(&self, seq: Seq) -> String {
        let mut line = Vec::with_capacity(self.text.len() + 32);
        line.extend_from_slice(b"{\"v\":1,\"seq\":");
        line.extend_from_slice(itoa::Buffer::new().format(seq.get()).as_bytes());
        line.push(b',');
        line.extend_from_slice(&self.text);
        // Both constructors made sure of it: rendered from JSON, or parsed as JSON.
        String::from_utf8(line).expect("a body is UTF-8")
    }
}

/// Writes a body to the end of `text`, which is empty.
fn write(
    text: &mut Vec<u8>,
    ts_ms: i64,
    event: &str,
    channel: &Channel,
    outcome: Outcome,
    data: &impl Data,
) -> Result<(), BodyError> {
    text.extend_from_slice(b"\"ts\":");
    text.extend_from_slice(itoa::Buffer::new().format(ts_ms).as_bytes());
    text.extend_from_slice(b",\"event\":");
    serde_json::to_writer(&mut *text, event).map_err(|_| BodyError::Data)?;
    text.extend_from_slice(b",\"channel\":\"");
    text.extend_from_slice(channel.as_str().as_bytes());
    match outcome {
        Outcome::Ok => text.extend_from_slice(b"\",\"ok\":true,\"data\":"),
        Outcome::Failed(code) => {
            text.extend_from_slice(b"\",\"ok\":false,\"errorCode\":\"");
            text.extend_from_slice(code.as_str().as_bytes());
            text.extend_from_slice(b"\",\"data\":");
        }
    }
    let data_at = text.len();
    data.write_json(text).map_err(|_| BodyError::Data)?;
    if text.get(data_at) != Some(&b'{') {
        return Err(BodyError::Data);
    }
    text.push(b'}');
    Ok(())
}

/// Why something is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The payload is not a JSON object.
    #[error("data is not a JSON object")]
    Data,
    /// The text is not the end of an envelope.
    #[error("not a well-formed envelope")]
    Malformed,
    /// The text names another channel.
    #[error("envelope of another channel")]
    OtherChannel,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn channel() -> Channel {
        Channel::parse("job:1").unwrap()
    }

    #[test]
    fn renders_the_envelope_of_the_protocol() {
        let body = Body::render(5, "job_progress", &channel(), Outcome::Ok, &json!({"progress": 7})).unwrap();
        assert_eq!(
            body.envelope(Seq::new(9).unwrap()),
            r#"{"v":1,"seq":9,"ts":5,"event":"job_progress","channel":"job:1","ok":true,"data":{"progress":7}}"#
        );
        let failed = Outcome::Failed(ErrorCode::DataUnavailable);
        let body = Body::render(5, "channel_status", &channel(), failed, &json!({})).unwrap();
        assert_eq!(
            body.envelope(Seq::ZERO),
            r#"{"v":1,"seq":0,"ts":5,"event":"channel_status","channel":"job:1","ok":false,"errorCode":"DATA_UNAVAILABLE","data":{}}"#
        );
    }

    #[test]
    fn refuses_what_is_no_body() {
        assert_eq!(Body::render(0, "e", &channel(), Outcome::Ok, &json!([1])), Err(BodyError::Data));
        for (text, is_taken) in [("{\"a\":\n1}", false), ("{\"a\": \"\\n\"}", true)] {
            let data = RawValue::from_string(text.into()).unwrap();
            assert_eq!(Body::render(0, "e", &channel(), Outcome::Ok, &data).is_ok(), is_taken, "{text}");
        }
        for bad in [
            "",
            "\"ts\":1}",
            "\"ts\":1,\"event\":\"e\",\"channel\":\"job:1\",\"ok\":true,\"data\":[]}",
            "\"ts\":1,\"event\":\"\",\"channel\":\"job:1\",\"ok\":true,\"data\":{}}",
            "\"ts\":1,\"event\":\"e\",\"channel\":\"job:1\",\"ok\":false,\"data\":{}}",
            "\"ts\":1,\"event\":\"e\",\"channel\":\"job:1\",\"ok\":true,\"data\":{}}}",
            "\"ts\":1e400,\"event\":\"e\",\"channel\":\"job:1\",\"ok\":true,\"data\":{}}",
            " \"ts\":1,\"event\":\"e\",\"channel\":\"job:1\",\"ok\":true,\"data\":{}}",
            "\"ts\":1,\"event\":\"e\",\"channel\":\"job:1\",\"ok\":true,\n\"data\":{}}",
        ] {
            assert_eq!(Body::parse(bad.into(), &channel()), Err(BodyError::Malformed), "{bad}");
        }
        let other = "\"ts\":1,\"event\":\"e\",\"channel\":\"job:2\",\"ok\":true,\"data\":{}}";
        assert_eq!(Body::parse(other.into(), &channel()), Err(BodyError::OtherChannel));
        assert_eq!(Body::parse(Bytes::from_static(b"\"ts\xff"), &channel()), Err(BodyError::Malformed));
    }

    proptest! {
        #[test]
        fn rendered_bodies_parse_and_make_json(ts in any::<i64>(), event in "\\PC{1,20}", text in "\\PC{0,40}", seq in 0..crate::seq::MAX_SEQ) {
            let body = Body::render(ts, &event, &channel(), Outcome::Ok, &json!({"text": text})).unwrap();
            prop_assert_eq!(Body::parse(body.text().clone(), &channel()), Ok(body.clone()));
            let value: Value = serde_json::from_str(&body.envelope(Seq::new(seq).unwrap())).unwrap();
            prop_assert_eq!(value["seq"].as_u64(), Some(seq));
            prop_assert_eq!(value["event"].as_str(), Some(event.as_str()));
            prop_assert_eq!(value["data"]["text"].as_str(), Some(text.as_str()));
        }
    }
}
