//! Envelopes as server-sent events.

use std::borrow::Cow;
use std::sync::Arc;

use akis_eventlog::LogEvent;
use akis_model::Seq;
use bytes::Bytes;
use serde::Deserialize;

use super::cursor::Cursor;
use crate::run::Run;
use crate::session::Output;

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

/// Where a session's envelopes become events of a stream, each with the cursor where it moves that.
pub(super) struct Page<'a> {
    /// What is written next.
    pub(super) piece: &'a mut Vec<u8>,
    /// Where the client is when it has that.
    pub(super) cursor: &'a mut Cursor,
}

impl Page<'_> {
    fn put_id(&mut self, channel: &str, seq: Seq) {
        self.cursor.reach(channel, seq);
        self.piece.extend_from_slice(b"id: ");
        self.piece.extend_from_slice(self.cursor.text().as_bytes());
        self.piece.push(b'\n');
    }

    fn put_data(&mut self, envelope: &[u8]) {
        self.piece.extend_from_slice(b"data: ");
        // A carriage return can only stand between tokens, and would end the line.
        let before = self.piece.len();
        self.piece.extend_from_slice(envelope);
        self.piece.iter_mut().skip(before).filter(|byte| **byte == b'\r').for_each(|byte| *byte = b' ');
        self.piece.extend_from_slice(b"\n\n");
    }
}

impl Output for Page<'_> {
    fn envelope(&mut self, envelope: &Bytes) {
        if let Some((channel, seq)) = position(envelope) {
            self.put_id(&channel, seq);
        }
        self.put_data(envelope);
    }

    /// Its position is known, so that no client's stream reads it out of the envelope again.
    fn event(&mut self, event: &LogEvent) {
        self.put_id(event.channel.as_str(), event.seq);
        self.put_data(&event.envelope);
    }

    fn run(&mut self, run: &Arc<Run>) {
        run.events().iter().for_each(|event| self.event(event));
    }
}

/// The position that an envelope says its channel has reached.
fn position(envelope: &[u8]) -> Option<(Cow<'_, str>, Seq)> {
    let head: Head<'_> = serde_json::from_slice(envelope).ok()?;
    let has_position = head.channel != "system" && !matches!(&*head.event, "unsubscribed" | "subscribe_error");
    Some((head.channel, Seq::new(head.seq).ok()?)).filter(|_| has_position)
}

#[cfg(test)]
mod tests {
    use akis_model::Channel;

    use super::*;
    use crate::run::RunBuilder;

    fn text(cursor: &mut Cursor, put: impl FnOnce(&mut Page<'_>)) -> String {
        let mut piece = Vec::new();
        put(&mut Page { piece: &mut piece, cursor });
        String::from_utf8(piece).unwrap()
    }

    #[test]
    fn only_what_has_a_position_moves_the_cursor() {
        let mut cursor = Cursor::default();
        for event in ["heartbeat\",\"channel\":\"system", "unsubscribed\",\"channel\":\"a:b"] {
            let envelope = format!(r#"{{"v":1,"seq":0,"event":"{event}","data":{{}}}}"#);
            let told = text(&mut cursor, |page| page.envelope(&Bytes::from(envelope.clone())));
            assert_eq!(told, format!("data: {envelope}\n\n"));
        }
        let gap = r#"{"v":1,"seq":6,"event":"gap","channel":"a:b","data":{}}"#;
        let told = text(&mut cursor, |page| page.envelope(&Bytes::from(gap)));
        assert_eq!(read(&told), (Seq::new(6).ok(), gap));
    }

    /// The position in the `id:` line, and the data.
    fn read(told: &str) -> (Option<Seq>, &str) {
        let (id, data) = told.split_once('\n').unwrap();
        let resumed = Cursor::parse(id.strip_prefix("id: ").unwrap()).unwrap();
        (resumed.position("a:b"), data.strip_prefix("data: ").unwrap().trim_end())
    }

    #[test]
    fn events_stand_on_one_line_behind_their_position() {
        let envelope = "{\"v\":1,\"seq\":7,\r\"event\":\"e\",\"channel\":\"a:b\",\"data\":{}}";
        let event = Arc::new(LogEvent {
            channel: Channel::parse("a:b").unwrap(),
            seq: Seq::new(7).unwrap(),
            previous: None,
            ts_ms: 1,
            envelope: Bytes::from(envelope),
            trace: None,
        });
        let run = Arc::new(RunBuilder::new(&event).finish());
        let expected = (Seq::new(7).ok(), &*envelope.replace('\r', " "));
        let puts: [&dyn Fn(&mut Page<'_>); 3] =
            [&|page| page.event(&event), &|page| page.run(&run), &|page| page.envelope(&event.envelope)];
        for put in puts {
            assert_eq!(read(&text(&mut Cursor::default(), put)), expected, "the same by each way");
        }
    }
}
