//! Reading what is kept beside histories.

use std::collections::BTreeMap;

use akis_model::{Channel, Seq};

use super::RedisStore;
use super::call::Call;
use super::link::At;
use super::reply::{array, bytes, entry, position, text, tuple};
use crate::listing::{ChannelHead, HEAD_BYTES, LISTED, StoredCandle, head};
use crate::store::{Partition, StoreError};

/// Names that one call looks at, so that no call keeps others waiting.
const PART: u64 = 500;

impl RedisStore {
    /// See [`Store::candles`](crate::Store::candles).
    pub(super) async fn read_candles(
        &self,
        channel: &Channel,
        before_ms: Option<u64>,
        limit: usize,
    ) -> Result<Vec<StoredCandle>, StoreError> {
        if before_ms == Some(0) {
            // No range of Redis ends before its first id.
            return Ok(Vec::new());
        }
        let key = self.keys.candles(Partition::of(channel, self.partitions), channel);
        let end = before_ms.map_or_else(|| "+".to_owned(), |before| format!("({before}-0"));
        let args = vec![key.into(), end.into(), "-".into(), "COUNT".into(), limit.to_string().into()];
        let reply = self.link.call("XREVRANGE", At::Argument(0), args).await?;
        let candle = |frame| entry(frame).map(|entry| StoredCandle { open_ms: entry.seq.get(), body: entry.body });
        array(&reply)?.iter().rev().map(candle).collect()
    }

    /// See [`Store::channels`](crate::Store::channels).
    pub(super) async fn list_channels(&self, prefix: &str) -> Result<Vec<ChannelHead>, StoreError> {
        // A channel can be met twice while the index is being resized.
        let mut heads = BTreeMap::new();
        for partition in Partition::all(self.partitions) {
            let mut cursor = "0".to_owned();
            loop {
                cursor = self.list_part(partition, prefix, &cursor, &mut heads).await?;
                if cursor == "0" || heads.len() >= LISTED {
                    break;
                }
            }
        }
        Ok(heads.into_values().take(LISTED).collect())
    }

    /// Lists what the index has at `cursor`; gives the next one.
    async fn list_part(
        &self,
        partition: Partition,
        prefix: &str,
        cursor: &str,
        heads: &mut BTreeMap<Channel, ChannelHead>,
    ) -> Result<String, StoreError> {
        let mut call = Call::on([self.keys.index(partition)]);
        call.args.push(self.keys.histories(partition));
        call.args.push(prefix);
        call.args.push(cursor);
        call.args.push(PART);
        call.args.push(HEAD_BYTES);
        let reply = self.scripts.channels.run(&self.link, &call).await?;
        let mut parts = array(&reply)?.iter();
        let next = parts.next().map(text).transpose()?.unwrap_or("0").to_owned();
        for part in parts {
            let [name, id, body] = tuple(part)?;
            let Ok(channel) = Channel::parse(text(name)?) else { continue };
            let seq: Seq = position(id)?;
            if let Some(head) = bytes(body).and_then(|body| head(&channel, seq, body)) {
                heads.insert(channel, head);
            }
        }
        Ok(next)
    }
}
