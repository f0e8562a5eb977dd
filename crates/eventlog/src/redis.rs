//! The log in Redis: the promises of the store as scripts, and nothing else.
//!
//! Histories and feeds are streams, everything that is checked together lies in one slot, and each call is one
//! script (`redis/*.lua`). Blocking readers have a connection each; everything else shares one.

mod check;
mod error;
mod feed;
mod groups;
mod keys;
mod link;
mod listing;
mod reply;
mod script;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use akis_model::{Channel, Kind, Seq, TraceContext};
use async_trait::async_trait;
use fred::types::config::Config;
use fred::types::{Resp3Frame, Value};

pub use self::error::ConnectError;
use self::error::broken;
use self::feed::{FeedReader, Source};
use self::groups::Group;
use self::keys::Keys;
use self::link::{At, Link};
use self::reply::{array, entry, feed_id, number, optional, position, seq, text, tuple};
use self::script::Scripts;
use crate::listing::{CANDLES_KEPT, ChannelHead, StoredCandle, closed_candle};
use crate::store::{
    APP_RETENTION, Append, ChannelEnd, Claim, Ends, FEED_AGE, Feed, FeedEnd, FeedStart, Fence, HANDOVER,
    IDEMPOTENCY_TTL, Identity, Lease, Marker, Partition, Range, Select, Store, StoreError, TERM_JUMP, Write,
};

/// A log in Redis.
pub struct RedisStore {
    config: Config,
    keys: Keys,
    partitions: u16,
    link: Link,
    scripts: Scripts,
}

impl RedisStore {
    /// Connects, and checks that the server can hold a log and holds none of another shape. `prefix` begins all
    /// keys: `akis` unless several logs share a server.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], which tells whether trying again is of use.
    pub async fn connect(url: &str, prefix: &str, partitions: u16) -> Result<Arc<Self>, ConnectError> {
        let config = link::parse_url(url)?;
        let keys = Keys::new(prefix);
        let link = Link::open_shared(&config).await?;
        check::check(&link, &keys, partitions).await?;
        let scripts = Scripts::load(&link).await?;
        Ok(Arc::new(Self { config, keys, partitions, link, scripts }))
    }

    fn partition_keys(&self, partition: Partition) -> Vec<String> {
        vec![self.keys.term(partition), self.keys.feed(partition)]
    }

    /// For the calls that may begin a channel.
    fn writing_keys(&self, partition: Partition) -> Vec<String> {
        vec![self.keys.term(partition), self.keys.index(partition), self.keys.feed(partition)]
    }

    async fn lease(
        &self,
        action: &'static str,
        publisher: &str,
        owner: &str,
        ttl: Duration,
    ) -> Result<Lease, StoreError> {
        let keys = vec![self.keys.lease(publisher), self.keys.lease_term(publisher)];
        let args = vec![action.into(), owner.into(), of_duration(ttl), of_duration(HANDOVER)];
        let reply = self.scripts.lease.run(&self.link, keys, args).await?;
        match &reply {
            Resp3Frame::Array { .. } => {
                let [lease, continues] = tuple(&reply)?;
                Ok(Lease { number: number(lease)?, continues: number(continues)? == 1 })
            }
            _ => Err(refusal(&reply)),
        }
    }
}

#[async_trait]
impl Store for RedisStore {
    fn partitions(&self) -> u16 {
        self.partitions
    }

    async fn ends(
        &self,
        partition: Partition,
        channels: &[Channel],
        publisher: Option<&str>,
        seen: Seq,
    ) -> Result<Ends, StoreError> {
        let mut keys = self.partition_keys(partition);
        let mut args = vec![of_seq(seen), publisher.unwrap_or_default().into(), of_u64(TERM_JUMP)];
        for channel in channels {
            keys.push(self.keys.history(partition, channel));
            args.extend([of_channel(channel), random()]);
        }
        let reply = self.scripts.ends.run(&self.link, keys, args).await?;
        let reply = array(&reply)?;
        let Some(([identity, since, top, id, n, fence], ends)) = reply.split_first_chunk() else {
            return Err(broken("the ends of a partition are too short"));
        };
        Ok(Ends {
            identity: Identity(text(identity)?.into()),
            since: seq(since)?,
            top: seq(top)?,
            feed: FeedEnd { id: feed_id(id)?, number: number(n)? },
            fence: optional(fence, |fence| Fence::parse(text(fence)?).ok_or_else(|| broken("a fence is malformed")))?,
            channels: ends.iter().map(channel_end).collect::<Result<_, _>>()?,
        })
    }

    async fn set_fence(
        &self,
        partition: Partition,
        publisher: &str,
        expected: Option<&Fence>,
        fence: &Fence,
        seen: Seq,
    ) -> Result<(), StoreError> {
        let expected = expected.map(Fence::to_string).unwrap_or_default();
        let args = vec![of_seq(seen), publisher.into(), expected.into(), fence.to_string().into()];
        done(&self.scripts.fence.run(&self.link, self.partition_keys(partition), args).await?)
    }

    async fn publish(&self, partition: Partition, claim: &Claim, writes: &[Write]) -> Result<(), StoreError> {
        let mut keys = self.writing_keys(partition);
        let mut numbers: HashMap<&Channel, i64> = HashMap::new();
        let mut channels = Vec::new();
        let mut events = Vec::with_capacity(6 * writes.len());
        for write in writes {
            let next = numbers.len() as i64 + 1;
            let number = *numbers.entry(&write.channel).or_insert_with(|| {
                keys.push(self.keys.history(partition, &write.channel));
                channels.push(&write.channel);
                next
            });
            events.extend([number.into(), of_seq(write.seq), of_previous(write.previous)]);
            events.extend([of_candle(&write.channel, &write.body), write.body.clone().into()]);
            events.push(of_trace(write.origin.trace));
        }
        let mut args = of_claim(claim);
        args.extend([of_u64(CANDLES_KEPT as u64), (channels.len() as i64).into()]);
        for channel in channels {
            args.push(of_channel(channel));
            args.extend(history_of(channel));
            let has_candles = channel.kind() == Kind::Candles;
            if has_candles {
                keys.push(self.keys.candles(partition, channel));
            }
            args.push(if has_candles { keys.len() as i64 } else { 0 }.into());
        }
        args.extend(events);
        done(&self.scripts.publish.run(&self.link, keys, args).await?)
    }

    async fn mark(&self, partition: Partition, claim: &Claim, markers: &[Marker]) -> Result<(), StoreError> {
        let mut keys = self.partition_keys(partition);
        let mut args = of_claim(claim);
        for marker in markers {
            keys.push(self.keys.history(partition, &marker.channel));
            args.extend([of_channel(&marker.channel), of_seq(marker.seq), of_previous(marker.previous)]);
        }
        done(&self.scripts.mark.run(&self.link, keys, args).await?)
    }

    async fn append(&self, partition: Partition, events: &[Append], seen: Seq) -> Result<Vec<Seq>, StoreError> {
        let mut keys = self.writing_keys(partition);
        let mut args = vec![of_seq(seen), of_duration(FEED_AGE), of_u64(TERM_JUMP), of_duration(IDEMPOTENCY_TTL)];
        args.push(of_u64(CANDLES_KEPT as u64));
        for event in events {
            let history = self.keys.history(partition, &event.channel);
            let id_key = event.id.as_deref().map(|id| self.keys.idempotency(partition, &event.channel, id));
            args.push(of_channel(&event.channel));
            args.extend(history_of(&event.channel));
            args.extend([i64::from(id_key.is_some()).into(), random()]);
            args.extend([of_candle(&event.channel, &event.body), event.body.clone().into(), of_trace(event.trace)]);
            let has_candles = event.channel.kind() == Kind::Candles;
            let candles = has_candles.then(|| self.keys.candles(partition, &event.channel));
            keys.extend([history.clone(), id_key.unwrap_or_else(|| history.clone()), candles.unwrap_or(history)]);
        }
        let reply = self.scripts.append.run(&self.link, keys, args).await?;
        array(&reply)?.iter().map(seq).collect()
    }

    async fn keep_candles(
        &self,
        partition: Partition,
        claim: &Claim,
        channel: &Channel,
        candles: &[StoredCandle],
    ) -> Result<(), StoreError> {
        let mut keys = self.partition_keys(partition);
        keys.push(self.keys.candles(partition, channel));
        let mut args = of_claim(claim);
        args.push(of_u64(CANDLES_KEPT as u64));
        for candle in candles {
            args.extend([of_u64(candle.open_ms), candle.body.clone().into()]);
        }
        done(&self.scripts.candles.run(&self.link, keys, args).await?)
    }

    async fn range(&self, channel: &Channel, select: Select) -> Result<Range, StoreError> {
        let partition = Partition::of(channel, self.partitions);
        let keys = vec![self.keys.term(partition), self.keys.history(partition, channel)];
        let (command, from, to, limit): (_, Value, Value, _) = match select {
            Select::Above { after, limit } => ("XRANGE", of_seq(after.next()), "+".into(), limit),
            Select::Newest { limit } => ("XREVRANGE", "+".into(), "-".into(), limit),
            Select::At(seq) => ("XRANGE", of_seq(seq), of_seq(seq), 1),
        };
        let args = vec![of_channel(channel), command.into(), from, to, of_u64(limit as u64)];
        let reply = self.scripts.range.run(&self.link, keys, args).await?;
        let [entries, first, last, proven, since] = tuple(&reply)?;
        let mut entries = array(entries)?.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        if matches!(select, Select::Newest { .. }) {
            entries.reverse();
        }
        Ok(Range {
            entries,
            first: optional(first, position)?,
            last: optional(last, seq)?,
            proven: number(proven)? == 1,
            since: seq(since)?,
        })
    }

    async fn candles(
        &self,
        channel: &Channel,
        before_ms: Option<u64>,
        limit: usize,
    ) -> Result<Vec<StoredCandle>, StoreError> {
        self.read_candles(channel, before_ms, limit).await
    }

    async fn channels(&self, prefix: &str) -> Result<Vec<ChannelHead>, StoreError> {
        self.list_channels(prefix).await
    }

    async fn take_lease(&self, publisher: &str, owner: &str, ttl: Duration) -> Result<Lease, StoreError> {
        self.lease("take", publisher, owner, ttl).await
    }

    async fn renew_lease(&self, publisher: &str, owner: &str, ttl: Duration) -> Result<Lease, StoreError> {
        self.lease("renew", publisher, owner, ttl).await
    }

    async fn release_lease(&self, publisher: &str, owner: &str) -> Result<(), StoreError> {
        let keys = vec![self.keys.lease(publisher), self.keys.lease_term(publisher)];
        self.scripts.lease.run(&self.link, keys, vec!["release".into(), owner.into()]).await?;
        Ok(())
    }

    async fn open_feed(
        &self,
        partition: Partition,
        replica: &str,
        generation: u64,
        start: FeedStart,
    ) -> Result<Box<dyn Feed>, StoreError> {
        let link = Link::open_reader(&self.config).await?;
        let source = Source {
            feed: self.keys.feed(partition),
            term: self.keys.term(partition),
            look: self.scripts.look.clone(),
        };
        let group = Group { replica: replica.to_owned(), generation };
        Ok(Box::new(FeedReader::open(link, source, group, start).await?))
    }

    async fn announce_replica(&self, replica: &str, ttl: Duration, grace: Duration) -> Result<(), StoreError> {
        let args = vec![self.keys.replica(replica).into(), 1.into(), "PX".into(), of_duration(ttl)];
        self.link.call("SET", At::Argument(0), args).await?;
        for partition in Partition::all(self.partitions) {
            groups::sweep(&self.link, &self.keys, partition, grace).await?;
        }
        Ok(())
    }

    async fn forget_replica(&self, replica: &str) -> Result<(), StoreError> {
        self.link.call("DEL", At::Argument(0), vec![self.keys.replica(replica).into()]).await?;
        for partition in Partition::all(self.partitions) {
            groups::remove(&self.link, &self.keys.feed(partition), replica, None).await?;
        }
        Ok(())
    }

    /// `PING` would not do: it is answered by a replica, and out of memory.
    async fn ping(&self) -> Result<(), StoreError> {
        let args = vec![self.keys.ping().into(), 1.into(), "PX".into(), 1000.into()];
        self.link.call("SET", At::Argument(0), args).await?;
        Ok(())
    }
}

fn channel_end(frame: &Resp3Frame) -> Result<ChannelEnd, StoreError> {
    let [last, proven, term] = tuple(frame)?;
    Ok(ChannelEnd { last: optional(last, seq)?, proven: number(proven)? == 1, term: seq(term)? })
}

/// Reads the answer of a script that only says whether it did what it should.
fn done(reply: &Resp3Frame) -> Result<(), StoreError> {
    if text(reply)? == "OK" { Ok(()) } else { Err(refusal(reply)) }
}

fn refusal(reply: &Resp3Frame) -> StoreError {
    match text(reply) {
        Ok("CHANGED") => StoreError::Changed,
        Ok("FENCED") => StoreError::Fenced,
        Ok("LOW") => StoreError::TermTooLow,
        Ok("TAKEN") => StoreError::Held { by_another: true },
        Ok("FREE") => StoreError::Held { by_another: false },
        _ => broken("a script answered something unknown"),
    }
}

/// Publisher, fence, identity, what it has seen; and how long the feed is kept.
fn of_claim(claim: &Claim) -> Vec<Value> {
    vec![
        claim.publisher.as_ref().into(),
        claim.fence.to_string().into(),
        claim.identity.0.as_ref().into(),
        of_seq(claim.seen),
        of_duration(FEED_AGE),
    ]
}

/// Length and retention of a channel's history.
fn history_of(channel: &Channel) -> [Value; 2] {
    let kind = channel.kind();
    let retention = match kind {
        Kind::App => of_duration(APP_RETENTION),
        Kind::Ticker | Kind::Trades | Kind::Book | Kind::Candles | Kind::Session => 0.into(),
    };
    [of_u64(kind.history_len() as u64), retention]
}

/// A `traceparent`, or nothing.
fn of_trace(trace: Option<TraceContext>) -> Value {
    trace.map_or_else(|| "".into(), |trace| trace.to_string().into())
}

/// The open time of the candle that an event closes, or nothing.
fn of_candle(channel: &Channel, body: &[u8]) -> Value {
    closed_candle(channel, body).map_or_else(|| "".into(), of_u64)
}

fn of_channel(channel: &Channel) -> Value {
    channel.as_str().into()
}

fn of_seq(seq: Seq) -> Value {
    of_u64(seq.get())
}

/// Nothing as an empty string.
fn of_previous(previous: Option<Seq>) -> Value {
    previous.map_or_else(|| "".into(), of_seq)
}

/// Whole milliseconds.
fn of_duration(duration: Duration) -> Value {
    duration.as_millis().to_string().into()
}

fn of_u64(number: u64) -> Value {
    number.to_string().into()
}

/// How far above its lower bound a term begins.
fn random() -> Value {
    of_u64(fastrand::u64(..TERM_JUMP))
}
