//! Puts events into the log as an application would, straight through the log's own append.

use std::collections::BTreeMap;
use std::sync::Arc;

use akis_eventlog::{Append, Partition, RedisStore, Store};
use akis_model::{Body, Channel, Outcome, Seq};
use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use serde_json::json;

use crate::wire::server_frame;

/// The size of an event's data; its envelope is about 110 bytes longer.
pub(crate) const DATA_BYTES: usize = 200;

/// What the data is besides its padding: `{"at":1795312345678901,"pad":""}`.
const DATA_FRAME_BYTES: usize = 32;

/// Events that go into one call, which nobody else can interrupt in Redis.
const CALL_EVENTS: usize = 500;

/// Channels that events are put into, in the order of their partitions.
pub(crate) struct Load {
    log: Arc<RedisStore>,
    channels: Vec<(Partition, Channel)>,
    pad: String,
}

/// What is put where: `count` events in the channel at this place.
pub(crate) type Put = (usize, usize);

impl Load {
    /// Events whose data has `data_bytes`, in the channels of these names.
    ///
    /// # Errors
    ///
    /// When one of them is no channel.
    pub(crate) fn new(log: Arc<RedisStore>, names: &[String], data_bytes: usize) -> Result<Self> {
        let mut channels = Vec::with_capacity(names.len());
        for name in names {
            let channel = Channel::parse(name).with_context(|| format!("{name:?} is no channel"))?;
            channels.push((Partition::of(&channel, log.partitions()), channel));
        }
        // What is put one after the other then mostly shares a call, as a venue's events do.
        channels.sort_by_key(|(partition, _)| *partition);
        Ok(Self { log, channels, pad: "x".repeat(data_bytes.saturating_sub(DATA_FRAME_BYTES)) })
    }

    /// How many channels there are.
    pub(crate) fn len(&self) -> usize {
        self.channels.len()
    }

    /// The name of the channel at a place.
    pub(crate) fn name(&self, place: usize) -> &str {
        self.channels[place].1.as_str()
    }

    /// Puts events there that say that they were sent `at_us`, with one call for each partition, all under way together.
    /// Gives the position of the last event of each put, by place.
    ///
    /// # Errors
    ///
    /// When the log refuses them.
    pub(crate) async fn put(&self, puts: &[Put], at_us: u64) -> Result<BTreeMap<usize, u64>> {
        let mut calls: Vec<(Partition, Vec<usize>, Vec<Append>)> = Vec::new();
        for &(place, count) in puts {
            let (partition, channel) = &self.channels[place];
            let event = Append {
                channel: channel.clone(),
                id: None,
                body: self.body(place, at_us)?.text().clone(),
                trace: None,
            };
            let open = calls.iter_mut().rev().find(|(of, places, _)| of == partition && places.len() < CALL_EVENTS);
            match open {
                Some((_, places, events)) => {
                    places.extend(std::iter::repeat_n(place, count));
                    events.extend(std::iter::repeat_n(event, count));
                }
                None => calls.push((*partition, vec![place; count], vec![event; count])),
            }
        }
        let under_way = calls.iter().map(|(partition, _, events)| self.log.append(*partition, events, Seq::ZERO));
        let answers = try_join_all(under_way).await.context("append to the log")?;
        let mut last = BTreeMap::new();
        for ((_, places, _), seqs) in calls.iter().zip(answers) {
            last.extend(places.iter().copied().zip(seqs.iter().map(|seq| seq.get())));
        }
        Ok(last)
    }

    /// The frame in which a client gets an event of the channel at this place.
    ///
    /// # Errors
    ///
    /// When it cannot be rendered.
    pub(crate) fn frame(&self, place: usize, seq: u64, at_us: u64) -> Result<Vec<u8>> {
        let mut envelope = format!(r#"{{"v":1,"seq":{seq},"#).into_bytes();
        envelope.extend_from_slice(self.body(place, at_us)?.text());
        Ok(server_frame(&envelope))
    }

    fn body(&self, place: usize, at_us: u64) -> Result<Body> {
        // Objects of serde_json are sorted by name, so `at` is first, where clients look for it.
        let data = json!({ "at": at_us, "pad": self.pad });
        Ok(Body::render((at_us / 1000) as i64, "bench", &self.channels[place].1, Outcome::Ok, &data)?)
    }
}
