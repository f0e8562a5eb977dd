//! The log in Redis: the promises of the store as scripts, and nothing else.
//!
//! Histories and feeds are streams, everything that is checked together lies in one slot, and each call is one
//! script (`redis/*.lua`). Blocking readers have a connection each; everything else shares one.

mod call;
mod check;
mod error;
mod feed;
mod groups;
mod joined;
mod keys;
mod lease;
mod link;
mod listing;
mod presence;
mod reply;
mod script;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use akis_model::{Channel, Kind, Seq};
use async_trait::async_trait;
use foldhash::fast::RandomState;
use fred::types::Resp3Frame;
use fred::types::config::Config;
use tracing::error;

use self::call::{Call, Texts};
pub use self::error::ConnectError;
use self::error::broken;
use self::feed::{FeedReader, Source};
use self::groups::Group;
use self::joined::Joined;
use self::keys::Keys;
use self::link::{At, Link};
use self::presence::Presence;
use self::reply::{array, entry, feed_id, number, optional, position, seq, text, tuple};
use self::script::Scripts;
use crate::hearing::Hearing;
use crate::listing::{CANDLES_KEPT, ChannelHead, StoredCandle, closed_candle};
use crate::retention::{FEED_AGE, IDEMPOTENCY_TTL, history_len, retention};
use crate::store::{
    Append, ChannelEnd, Claim, Ends, Feed, FeedEnd, FeedStart, Fence, Identity, Lease, Marker, Partition, RANGE_BYTES,
    Range, Select, Store, StoreError, TERM_JUMP, Write,
};

/// A log in Redis.
pub struct RedisStore {
    config: Config,
    keys: Keys,
    partitions: u16,
    link: Link,
    scripts: Scripts,
    joined: Joined,
    presence: Presence,
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
        let (joined, presence) = (Joined::default(), Presence::new(&config));
        Ok(Arc::new(Self { config, keys, partitions, link, scripts, joined, presence }))
    }

    /// Looks whether a URL is one that [`Self::connect`] can use, without connecting.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Url`].
    pub fn check_url(url: &str) -> Result<(), ConnectError> {
        link::parse_url(url).map(drop)
    }

    /// A call that looks at a partition, or at the ends of its channels.
    fn call_on(&self, partition: Partition) -> Call {
        Call::on([self.keys.term(partition), self.keys.feed(partition)])
    }

    /// A call that may begin a channel.
    fn writing_call_on(&self, partition: Partition) -> Call {
        Call::on([self.keys.term(partition), self.keys.index(partition), self.keys.feed(partition)])
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
        let mut call = self.call_on(partition);
        call.args.push(seen);
        call.args.push_some(publisher);
        call.args.push(TERM_JUMP);
        for channel in channels {
            call.keys.push(self.keys.history(partition, channel));
            call.args.push(channel);
            call.args.push(random());
        }
        let reply = self.scripts.ends.run(&self.link, &call).await?;
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
        let mut call = self.call_on(partition);
        call.args.push(seen);
        call.args.push(publisher);
        call.args.push_some(expected);
        call.args.push(fence);
        done(&self.scripts.fence.run(&self.link, &call).await?)
    }

    async fn publish(&self, partition: Partition, claim: &Claim, writes: &[Write]) -> Result<(), StoreError> {
        let mut call = self.writing_call_on(partition);
        // At most; the bytes are a guess. Growing step by step costs as much as all the rest.
        let (mut events, count) = (Texts::default(), writes.len());
        events.reserve(6 * count, 32 * count);
        call.keys.reserve(2 * count, 64 * count);
        call.args.reserve(8 + 10 * count, 128 + 64 * count);
        let mut numbers: HashMap<&Channel, usize, RandomState> = HashMap::default();
        let mut channels = Vec::new();
        for write in writes {
            let next = numbers.len() + 1;
            let number = *numbers.entry(&write.channel).or_insert_with(|| {
                call.keys.push(self.keys.history(partition, &write.channel));
                channels.push(&write.channel);
                next
            });
            events.push(number);
            events.push(write.seq);
            events.push_some(write.previous);
            events.push_some(closed_candle(&write.channel, &write.body));
            events.push_body(write.body.clone());
            events.push_some(write.origin.trace);
        }
        push_claim(claim, &mut call.args);
        call.args.push(CANDLES_KEPT);
        call.args.push(channels.len());
        for channel in channels {
            push_channel(channel, &mut call.args);
            if channel.kind() == Kind::Candles {
                call.keys.push(self.keys.candles(partition, channel));
                call.args.push(call.keys.len());
            } else {
                call.args.push(0);
            }
        }
        call.args.extend(&events);
        self.joined.publish(&self.link, &self.scripts.publish, call, count).await
    }

    async fn mark(&self, partition: Partition, claim: &Claim, markers: &[Marker]) -> Result<(), StoreError> {
        let mut call = self.call_on(partition);
        push_claim(claim, &mut call.args);
        for marker in markers {
            call.keys.push(self.keys.history(partition, &marker.channel));
            call.args.push(&marker.channel);
            call.args.push(marker.seq);
            call.args.push_some(marker.previous);
        }
        done(&self.scripts.mark.run(&self.link, &call).await?)
    }

    async fn append(&self, partition: Partition, events: &[Append], seen: Seq) -> Result<Vec<Seq>, StoreError> {
        let mut call = self.writing_call_on(partition);
        call.args.push(seen);
        call.args.push(FEED_AGE.as_millis());
        call.args.push(TERM_JUMP);
        call.args.push(IDEMPOTENCY_TTL.as_millis());
        call.args.push(CANDLES_KEPT);
        for event in events {
            let history = self.keys.history(partition, &event.channel);
            let id_key = event.id.as_deref().map(|id| self.keys.idempotency(partition, &event.channel, id));
            push_channel(&event.channel, &mut call.args);
            call.args.push(u8::from(id_key.is_some()));
            call.args.push(random());
            call.args.push_some(closed_candle(&event.channel, &event.body));
            call.args.push_body(event.body.clone());
            call.args.push_some(event.trace);
            let has_candles = event.channel.kind() == Kind::Candles;
            let candles = has_candles.then(|| self.keys.candles(partition, &event.channel));
            call.keys.push(&history);
            call.keys.push(id_key.as_ref().unwrap_or(&history));
            call.keys.push(candles.as_ref().unwrap_or(&history));
        }
        let reply = self.scripts.append.run(&self.link, &call).await?;
        array(&reply)?.iter().map(seq).collect()
    }

    async fn keep_candles(
        &self,
        partition: Partition,
        claim: &Claim,
        channel: &Channel,
        candles: &[StoredCandle],
    ) -> Result<(), StoreError> {
        let mut call = self.call_on(partition);
        call.keys.push(self.keys.candles(partition, channel));
        push_claim(claim, &mut call.args);
        call.args.push(CANDLES_KEPT);
        for candle in candles {
            call.args.push(candle.open_ms);
            call.args.push_body(candle.body.clone());
        }
        done(&self.scripts.candles.run(&self.link, &call).await?)
    }

    async fn range(&self, channel: &Channel, select: Select) -> Result<Range, StoreError> {
        let partition = Partition::of(channel, self.partitions);
        let mut call = Call::on([self.keys.term(partition), self.keys.history(partition, channel)]);
        call.args.push(channel);
        let (command, ends, limit) = match select {
            Select::Above { after, limit } => ("XRANGE", [after.next().to_string(), "+".to_owned()], limit),
            Select::Newest { limit } => ("XREVRANGE", ["+", "-"].map(str::to_owned), limit),
            Select::Below { before, limit } => ("XREVRANGE", [before.before().to_string(), "-".to_owned()], limit),
            Select::At(seq) => ("XRANGE", [seq, seq].map(|seq| seq.to_string()), 1),
        };
        call.args.push(command);
        ends.iter().for_each(|end| call.args.push(end));
        call.args.push(limit);
        call.args.push(RANGE_BYTES);
        let reply = self.scripts.range.run(&self.link, &call).await?;
        let [entries, first, last, proven, since, told, rest, length] = tuple(&reply)?;
        let mut entries = array(entries)?.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        if matches!(select, Select::Newest { .. } | Select::Below { .. }) {
            entries.reverse();
        }
        Ok(Range {
            entries,
            first: optional(first, position)?,
            last: optional(last, seq)?,
            proven: number(proven)? == 1,
            since: seq(since)?,
            told: optional(told, |told| {
                let [from, to] = tuple(told)?;
                Ok(seq(from)?..=seq(to)?)
            })?,
            rest: number(rest)? as usize,
            length: number(length)? as usize,
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

    async fn take_lease(
        &self,
        publisher: &str,
        owner: &str,
        ttl: Duration,
        hearing: Hearing,
    ) -> Result<Lease, StoreError> {
        self.call_lease("take", publisher, owner, ttl, hearing).await
    }

    async fn renew_lease(
        &self,
        publisher: &str,
        owner: &str,
        ttl: Duration,
        hearing: Hearing,
    ) -> Result<Lease, StoreError> {
        self.call_lease("renew", publisher, owner, ttl, hearing).await
    }

    async fn release_lease(&self, publisher: &str, owner: &str) -> Result<(), StoreError> {
        self.give_back_lease(publisher, owner).await
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
        // First, for it makes room for what is written next.
        for partition in Partition::all(self.partitions) {
            let mut call = Call::on([self.keys.feed(partition)]);
            call.args.push(FEED_AGE.as_millis());
            self.scripts.trim.run(&self.link, &call).await?;
        }
        let args = vec![self.keys.replica(replica).into(), 1.into(), "PX".into(), ttl.as_millis().to_string().into()];
        self.link.call("SET", At::Argument(0), args).await?;
        // Whoever connects goes by it, and a server that lost its data lost it too.
        if let Some(stored) = check::other_shape(&self.link, &self.keys, self.partitions).await? {
            error!(
                stored,
                configured = self.partitions,
                "another process writes the log with another number of partitions"
            );
        }
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
        Ok("HEARD") => StoreError::HeardElsewhere,
        _ => broken("a script answered something unknown"),
    }
}

/// Publisher, fence, identity, what it has seen; and how long the feed is kept.
fn push_claim(claim: &Claim, args: &mut Texts) {
    args.push(&claim.publisher);
    args.push(&claim.fence);
    args.push(&claim.identity.0);
    args.push(claim.seen);
    args.push(FEED_AGE.as_millis());
}

/// A channel, and length and retention of its history.
fn push_channel(channel: &Channel, args: &mut Texts) {
    args.push(channel);
    args.push(history_len(channel));
    args.push(retention(channel).as_millis());
}

/// How far above its lower bound a term begins.
fn random() -> u64 {
    fastrand::u64(..TERM_JUMP)
}
