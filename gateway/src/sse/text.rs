//! Envelopes as server-sent events.

use std::borrow::Cow;

use akis_model::Seq;
use serde::Deserialize;

use super::cursor::Cursor;

/// What a client waits before it comes back by itself.
pub(super) const RETRY: &[u8] = b"retry: 2000\n\n";

/// Says that the stream is alive to whatever stands between.
pub(super) const COMMENT: &[u8] = b": alive\n\n";

/// What says where an envelope stands.
#[derive(Deserialize)]
struct Head<'a> {
    seq: u64,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    channel: Cow<'a, str>,
}

/// Adds an envelope, with the cursor before it where it moves that.
pub(super) fn put(out: &mut Vec<u8>, envelope: &[u8], cursor: &mut Cursor) {
    if let Some((channel, seq)) = position(envelope) {
        cursor.reach(&channel, seq);
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(cursor.text().as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"data: ");
    // A carriage return can only stand between tokens, and would end the line.
    out.extend(envelope.iter().map(|byte| if *byte == b'\r' { b' ' } else { *byte }));
    out.extend_from_slice(b"\n\n");
}

/// The position that an envelope says its channel has reached.
fn position(envelope: &[u8]) -> Option<(Cow<'_, str>, Seq)> {
    let head: Head<'_> = serde_json::from_slice(envelope).ok()?;
    let has_position = head.channel != "system" && !matches!(&*head.event, "unsubscribed" | "subscribe_error");
    Some((head.channel, Seq::new(head.seq).ok()?)).filter(|_| has_position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_a_position_moves_the_cursor() {
        let mut cursor = Cursor::default();
        let mut text = |envelope: &str| {
            let mut out = Vec::new();
            put(&mut out, envelope.as_bytes(), &mut cursor);
            String::from_utf8(out).unwrap()
        };
        let system = r#"{"v":1,"seq":0,"event":"heartbeat","channel":"system","data":{}}"#;
        assert_eq!(text(system), format!("data: {system}\n\n"));
        let ended = r#"{"v":1,"seq":0,"event":"unsubscribed","channel":"a:b","data":{}}"#;
        assert_eq!(text(ended), format!("data: {ended}\n\n"));
        let event = "{\"v\":1,\"seq\":7,\r\"event\":\"e\",\"channel\":\"a:b\",\"data\":{}}";
        let told = text(event);
        let (id, data) = told.split_once('\n').unwrap();
        let resumed = Cursor::parse(id.strip_prefix("id: ").unwrap()).unwrap();
        assert_eq!(resumed.position("a:b"), Seq::new(7).ok());
        assert_eq!(data, format!("data: {}\n\n", event.replace('\r', " ")));
    }
}
