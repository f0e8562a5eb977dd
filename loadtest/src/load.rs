//! Puts events into the log as an application would, straight through the log's own append.

use std::sync::Arc;

use akis_eventlog::{Append, Partition, RedisStore, Store};
use akis_model::{Body, Channel, Outcome, Seq};
use anyhow::{Context, Result};
use serde_json::json;

use crate::client::now_us;

/// The size of an event's data; its envelope is about 110 bytes longer.
pub(crate) const DATA_BYTES: usize = 200;

/// What the data is besides its padding: `{"at":1795312345678901,"pad":""}`.
const DATA_FRAME_BYTES: usize = 32;

/// A channel that events are put into.
pub(crate) struct Load {
    log: Arc<RedisStore>,
    channel: Channel,
    pad: String,
}

impl Load {
    /// Events of [`DATA_BYTES`] in the channel of this name.
    ///
    /// # Errors
    ///
    /// When the name is no channel.
    pub(crate) fn new(log: Arc<RedisStore>, channel: &str) -> Result<Self> {
        let channel = Channel::parse(channel).with_context(|| format!("{channel:?} is no channel"))?;
        Ok(Self { log, channel, pad: "x".repeat(DATA_BYTES - DATA_FRAME_BYTES) })
    }

    /// Puts `count` events there in one call, stamped with the present time.
    ///
    /// # Errors
    ///
    /// When the log refuses them.
    pub(crate) async fn put(&self, count: usize) -> Result<()> {
        let at = now_us();
        // Objects of serde_json are sorted by name, so `at` is first, where clients look for it.
        let data = json!({ "at": at, "pad": self.pad });
        let body = Body::render((at / 1000) as i64, "bench", &self.channel, Outcome::Ok, &data)?;
        let event = Append { channel: self.channel.clone(), id: None, body: body.text().clone() };
        let partition = Partition::of(&self.channel, self.log.partitions());
        self.log.append(partition, &vec![event; count], Seq::ZERO).await.context("append to the log")?;
        Ok(())
    }
}
