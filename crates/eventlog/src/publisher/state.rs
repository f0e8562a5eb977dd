//! What the log says last of how a channel is, so that nobody is told again what they know.

use std::sync::Arc;

use serde_json::Value;
use tokio::task::JoinSet;

use super::Event;
use crate::store::{Entry, Select, Store, StoreError};

/// How many of a channel's last entries are searched for what they say of its state: one, and what came right behind it.
const LAST_STATES: usize = 4;

/// What a `channel_status` says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Of one that is not well.
    error: Option<String>,
    name: String,
    reason: Option<String>,
}

/// Whether a body, as [`akis_model::Body::render`] writes it, is a `channel_status`.
pub(super) fn is_status(body: &[u8]) -> bool {
    let behind_time = body.iter().position(|&byte| byte == b',').and_then(|at| body.get(at..));
    behind_time.is_some_and(|rest| rest.starts_with(br#","event":"channel_status""#))
}

impl State {
    /// Reads the text of a body; `None` for events of another kind.
    pub(super) fn of(body: &[u8]) -> Option<Self> {
        let envelope: Value = serde_json::from_str(&format!("{{{}", std::str::from_utf8(body).ok()?)).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        if envelope.get("event")? != "channel_status" {
            return None;
        }
        let data = envelope.get("data")?;
        Some(Self {
            error: envelope.get("errorCode").and_then(text),
            name: text(data.get("state")?)?,
            reason: data.get("reason").and_then(text),
        })
    }

    /// Whether it is news behind `latest`, the channel's newest events in order. Where none of them is a status, all is well. Another
    /// reason is none: two processes may see one thing differently.
    pub(super) fn is_news(&self, latest: &[Entry]) -> bool {
        match latest.iter().rev().find_map(|entry| Self::of(&entry.body)) {
            Some(told) => (&told.error, &told.name) != (&self.error, &self.name),
            None => self.error.is_some(),
        }
    }
}

/// Which of `states` the log does not say already, all read at once.
pub(super) async fn are_news(store: &Arc<dyn Store>, states: &[Event]) -> Result<Vec<bool>, StoreError> {
    let mut reads: JoinSet<Result<(usize, bool), StoreError>> = JoinSet::new();
    for (at, event) in states.iter().enumerate() {
        let (store, event) = (Arc::clone(store), event.clone());
        reads.spawn(async move {
            let latest = store.range(&event.channel, Select::Newest { limit: LAST_STATES }).await?.entries;
            Ok((at, State::of(event.body.text()).is_some_and(|state| state.is_news(&latest))))
        });
    }
    let mut news: Vec<(usize, bool)> = reads.join_all().await.into_iter().collect::<Result<_, _>>()?;
    news.sort_unstable();
    Ok(news.into_iter().map(|(_, is_news)| is_news).collect())
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
        let gone = r#""ts":1,"event":"channel_status","ok":false,"errorCode":"DATA_UNAVAILABLE","data":{"state":"down","reason":"x"}}"#;
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
            (down, &[gone], false),
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
        assert!(is_status(up.as_bytes()) && !is_status(trade.as_bytes()) && !is_status(b""));
    }
}
