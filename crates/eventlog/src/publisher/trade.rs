//! Which trade an event tells of, and which of two was first.

use std::sync::Arc;

use akis_model::Channel;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::store::{Select, Store, StoreError};

/// How many of a channel's last entries are searched for its last trade, one after the other, before all of them are: others
/// tell only of the channel's state.
const LAST_ENTRIES: [usize; 2] = [16, 256];

/// Of one trade two processes may tell times that are this far apart: where a venue's clock is not believed, each tells when the
/// trade came to it.
const APART_MS: i64 = 5_000;

/// A trade, as far as it is told from others of its channel.
#[derive(Debug, Clone)]
pub(super) struct Trade {
    /// The venue's id.
    pub(super) id: String,
    /// When it happened, milliseconds since the epoch: by the venue's clock, as a rule.
    ts_ms: i64,
}

impl Trade {
    /// Reads the text of a body; `None` for events that are no trades.
    pub(super) fn of(body: &[u8]) -> Option<Self> {
        let envelope: Value = serde_json::from_str(&format!("{{{}", std::str::from_utf8(body).ok()?)).ok()?;
        let id = envelope.get("data")?.get("id")?.as_str()?.to_owned();
        Some(Self { id, ts_ms: envelope.get("ts")?.as_i64()? })
    }

    /// Whether it is the same trade, told once more.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.id == other.id && self.ts_ms.abs_diff(other.ts_ms) <= APART_MS.unsigned_abs()
    }

    /// Whether nothing fits between `last` and this one: ids are numbers, and this is the next.
    pub(super) fn follows(&self, last: &Self) -> bool {
        let id = |trade: &Self| trade.id.parse::<u128>().ok();
        id(last).and_then(|last| last.checked_add(1)).is_some_and(|next| id(self) == Some(next))
    }

    /// Whether it is `last`, or came before it.
    ///
    /// Ids are numbers that rise, as far as they are numbers at all. At Borsa Istanbul they may start again with a day, and
    /// anywhere when a venue is set up anew: what happened later is another trade, whatever its id is.
    pub(super) fn is_up_to(&self, last: &Self) -> bool {
        let is_number_up_to =
            || matches!((self.id.parse::<u128>(), last.id.parse::<u128>()), (Ok(id), Ok(last)) if id <= last);
        self.ts_ms <= last.ts_ms.saturating_add(APART_MS) && (self.id == last.id || is_number_up_to())
    }
}

/// The last trade of each of `channels`, all read at once.
pub(super) async fn last(
    store: &Arc<dyn Store>,
    channels: &[&Channel],
) -> Result<Vec<(Channel, Option<Trade>)>, StoreError> {
    let mut reads = JoinSet::new();
    for &channel in channels {
        let (store, channel) = (Arc::clone(store), channel.clone());
        reads.spawn(async move { Ok((channel.clone(), last_of(&*store, &channel).await?)) });
    }
    reads.join_all().await.into_iter().collect()
}

async fn last_of(store: &dyn Store, channel: &Channel) -> Result<Option<Trade>, StoreError> {
    for limit in LAST_ENTRIES.into_iter().chain([channel.kind().history_len()]) {
        let entries = store.range(channel, Select::Newest { limit }).await?.entries;
        let last = entries.iter().rev().find_map(|entry| Trade::of(&entry.body));
        if last.is_some() || entries.len() < limit {
            return Ok(last);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trade(id: &str, ts_ms: i64) -> Trade {
        Trade::of(format!(r#""ts":{ts_ms},"event":"trade","data":{{"id":"{id}"}}}}"#).as_bytes()).unwrap()
    }

    #[test]
    fn a_trade_is_old_when_neither_its_id_nor_its_time_is_above() {
        let last = trade("100", 1_000);
        for (id, ts_ms, is_old) in [
            ("100", 1_000, true),
            ("99", 1_000, true),
            ("9", 10, true),
            ("100", 3_000, true),
            ("99", 6_000, true),
            ("101", 1_000, false),
            ("101", 999, false),
            ("1", 6_001, false),
            ("100", 90_000, false),
            ("x", 10, false),
        ] {
            assert_eq!(trade(id, ts_ms).is_up_to(&last), is_old, "{id} at {ts_ms}");
        }
        assert!(trade("101", 1).follows(&last) && !trade("102", 1).follows(&last) && !trade("x", 1).follows(&last));
        assert!(trade("x", 10).is_up_to(&trade("x", 10)));
        assert!(trade("100", 990).is(&last) && !trade("100", 6_001).is(&last) && !trade("99", 1_000).is(&last));
        assert!(Trade::of(br#""ts":1,"event":"channel_status","data":{}}"#).is_none());
    }
}
