//! What the log says last of how a channel is, so that nobody is told again what they know.

use serde_json::Value;

use crate::store::Entry;

/// What a `channel_status` says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Of one that is not well.
    error: Option<String>,
    name: String,
}

impl State {
    /// Reads the text of a body; `None` for events of another kind.
    pub(super) fn of(body: &[u8]) -> Option<Self> {
        let envelope: Value = serde_json::from_str(&format!("{{{}", std::str::from_utf8(body).ok()?)).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        if envelope.get("event")? != "channel_status" {
            return None;
        }
        Some(Self { error: envelope.get("errorCode").and_then(text), name: text(envelope.get("data")?.get("state")?)? })
    }

    /// Whether it is news behind `latest`, the channel's newest events in order. Where none of them is a status, all is well.
    pub(super) fn is_news(&self, latest: &[Entry]) -> bool {
        match latest.iter().rev().find_map(|entry| Self::of(&entry.body)) {
            Some(told) => told != *self,
            None => self.error.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use akis_model::Seq;
    use bytes::Bytes;

    use super::*;

    #[test]
    fn only_what_the_log_does_not_say_is_news() {
        let up = r#""ts":1,"event":"channel_status","ok":true,"data":{"state":"up"}}"#;
        let down =
            r#""ts":1,"event":"channel_status","ok":false,"errorCode":"DATA_UNAVAILABLE","data":{"state":"down"}}"#;
        let stale =
            r#""ts":1,"event":"channel_status","ok":false,"errorCode":"STALENESS_WARNING","data":{"state":"down"}}"#;
        let trade = r#""ts":1,"event":"trade","ok":true,"data":{"id":"7"}}"#;
        for (state, latest, is_news) in [
            (up, &[][..], false),
            (up, &[trade], false),
            (up, &[down], true),
            (up, &[down, trade], true),
            (up, &[down, up, trade], false),
            (down, &[], true),
            (down, &[trade], true),
            (down, &[up, down], false),
            (down, &[stale], true),
        ] {
            let entry = |body: &&'static str| Entry {
                seq: Seq::ZERO,
                previous: None,
                body: Bytes::from_static(body.as_bytes()),
            };
            let latest: Vec<Entry> = latest.iter().map(entry).collect();
            assert_eq!(State::of(state.as_bytes()).unwrap().is_news(&latest), is_news, "{state} behind {latest:?}");
        }
        assert_eq!(State::of(trade.as_bytes()), None);
    }
}
