//! Reading a feed: one connection of its own for each reader, because a blocked read holds its connection.

use std::collections::HashSet;
use std::time::Duration;

use akis_model::{Channel, Seq, TraceContext};
use async_trait::async_trait;
use fred::types::{Resp3Frame, Value};
use fred::util::redis_keyslot;
use tokio::time::{Instant, timeout};

use super::call::Call;
use super::groups::{self, CONSUMER, Group};
use super::link::{At, Link, Reply};
use super::reply::{array, copy, digits_of, feed_id, number, pairs, text, tuple};
use super::script::Script;
use crate::store::{Feed, FeedBatch, FeedEnd, FeedEntry, FeedId, FeedStart, Identity, StoreError, Unavailable};

/// Entries that one read gives at most.
const READ_COUNT: i64 = 1000;

/// How much longer than asked a read may take. `BLOCK` is coarse, and with the server's clock set back it does not
/// return at all.
const MARGIN: Duration = Duration::from_millis(1500);

/// How long it may take to make a group and to remove those before it.
const OPEN_TIMEOUT: Duration = Duration::from_secs(4);

/// How long entries may come in without a look at the identity.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Channels whose names are remembered.
const NAMES: usize = 50_000;

/// Which feed is read, and how it is looked at.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) feed: String,
    pub(super) term: String,
    pub(super) look: Script,
}

/// How entries are asked for.
#[derive(Debug)]
enum Cursor {
    /// By the group, which shows in Redis how far the reader is.
    Group(String),
    /// By the id of the last entry, where Redis is out of memory and makes no groups.
    Local(FeedId),
}

/// See [`Feed`].
pub(super) struct FeedReader {
    source: Source,
    /// `None` once it did not answer in time: what comes out of it later belongs to nobody.
    link: Option<Link>,
    cursor: Cursor,
    names: Names,
    checked_at: Instant,
}

/// The channels that a feed named, so that a name is checked and allocated once and not for every entry.
#[derive(Default)]
struct Names(HashSet<Channel, foldhash::fast::RandomState>);

impl Names {
    fn channel(&mut self, name: &[u8]) -> Option<Channel> {
        let name = std::str::from_utf8(name).ok()?;
        if let Some(channel) = self.0.get(name) {
            return Some(channel.clone());
        }
        let channel = Channel::parse(name).ok()?;
        if self.0.len() >= NAMES {
            self.0.clear();
        }
        self.0.insert(channel.clone());
        Some(channel)
    }
}

impl FeedReader {
    /// Makes the group and removes those of the replica's other connections, of which a half-open one could still
    /// take entries.
    pub(super) async fn open(link: Link, source: Source, group: Group, start: FeedStart) -> Result<Self, StoreError> {
        let opened = timeout(OPEN_TIMEOUT, Self::make_group(link, source, group, start)).await;
        opened.unwrap_or_else(|_| Err(timed_out()))
    }

    async fn make_group(link: Link, source: Source, group: Group, start: FeedStart) -> Result<Self, StoreError> {
        let start = match start {
            FeedStart::Behind(id) => id,
            FeedStart::Back(by) => back(&link, &source.feed, by).await?,
        };
        let cursor = match group.create(&link, &source.feed, start).await {
            Ok(()) => Cursor::Group(group.name()),
            Err(StoreError::Unavailable(Unavailable { kind: "OOM", .. })) => Cursor::Local(start),
            Err(error) => return Err(error),
        };
        groups::remove(&link, &source.feed, &group.replica, Some(group.generation)).await?;
        Ok(Self { source, link: Some(link), cursor, names: Names::default(), checked_at: Instant::now() })
    }

    async fn read(&mut self, wait: Duration) -> Result<FeedBatch, StoreError> {
        let Some(link) = &self.link else { return Err(timed_out()) };
        let reply = read_entries(link, &self.source.feed, &self.cursor, wait).await?;
        let mut batch = FeedBatch::default();
        if !matches!(reply, Resp3Frame::Null) {
            for stream in array(&reply)? {
                let [_, entries] = tuple(stream)?;
                for entry in array(entries)? {
                    let (id, parsed) = parse(entry, &mut self.names)?;
                    if let Cursor::Local(cursor) = &mut self.cursor {
                        *cursor = id;
                    }
                    batch.entries.extend(parsed);
                }
            }
        }
        if batch.entries.is_empty() || self.checked_at.elapsed() >= CHECK_EVERY {
            batch.check = Some(look(link, &self.source).await?);
            self.checked_at = Instant::now();
        }
        Ok(batch)
    }
}

#[async_trait]
impl Feed for FeedReader {
    async fn next(&mut self, wait: Duration) -> Result<FeedBatch, StoreError> {
        let reply = timeout(wait + MARGIN, self.read(wait)).await;
        reply.unwrap_or_else(|_| {
            self.link = None;
            Err(timed_out())
        })
    }
}

fn timed_out() -> StoreError {
    Unavailable { kind: "timeout", message: "the feed was not answered in time".to_owned() }.into()
}

/// The place so far back in time by the server's clock.
async fn back(link: &Link, feed: &str, by: Duration) -> Result<FeedId, StoreError> {
    let reply = link.call("TIME", At::Slot(redis_keyslot(feed.as_bytes())), Vec::<Value>::new()).await?;
    let [seconds, micros] = tuple(&reply)?;
    let now_ms = number(seconds)? * 1000 + number(micros)? / 1000;
    Ok(FeedId { ms: now_ms.saturating_sub(by.as_millis() as u64), n: 0 })
}

async fn read_entries(link: &Link, feed: &str, cursor: &Cursor, wait: Duration) -> Reply {
    let key = At::Slot(redis_keyslot(feed.as_bytes()));
    // 0 would wait for ever.
    let block_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX).max(1);
    match cursor {
        Cursor::Group(group) => {
            let args = vec![
                "GROUP".into(),
                group.as_str().into(),
                CONSUMER.into(),
                "COUNT".into(),
                READ_COUNT.into(),
                "BLOCK".into(),
                block_ms.into(),
                "NOACK".into(),
                "STREAMS".into(),
                feed.into(),
                ">".into(),
            ];
            link.call("XREADGROUP", key, args).await
        }
        Cursor::Local(FeedId { ms, n }) => {
            let args = vec![
                "COUNT".into(),
                READ_COUNT.into(),
                "BLOCK".into(),
                block_ms.into(),
                "STREAMS".into(),
                feed.into(),
                format!("{ms}-{n}").into(),
            ];
            link.call("XREAD", key, args).await
        }
    }
}

async fn look(link: &Link, source: &Source) -> Result<(Identity, FeedEnd), StoreError> {
    let reply = source.look.run(link, &Call::on([&source.term, &source.feed])).await?;
    let [identity, id, n] = tuple(&reply)?;
    Ok((Identity(text(identity)?.into()), FeedEnd { id: feed_id(id)?, number: number(n)? }))
}

/// Takes an entry apart. One without a number was not written by a script and has no place in the feed: it is left
/// out. In the others, what is malformed shows as an entry without a channel.
fn parse(entry: &Resp3Frame, names: &mut Names) -> Result<(FeedId, Option<FeedEntry>), StoreError> {
    let [id, fields] = tuple(entry)?;
    let id = feed_id(id)?;
    // A trimmed entry has null in place of its fields.
    let Ok(fields) = pairs(fields) else { return Ok((id, None)) };
    let (mut number, mut channel, mut seq, mut previous, mut body) = (None, None, None, Some(None), None);
    let mut trace = None;
    for (name, value) in fields {
        match name.as_ref() {
            b"n" => number = digits_of(value),
            b"c" => channel = names.channel(value),
            b"s" => seq = position(value),
            b"p" => previous = position(value).map(Some),
            b"d" => body = Some(copy(value)),
            b"traceparent" => trace = TraceContext::parse(value),
            _ => {}
        }
    }
    let entry = number.map(|number| {
        let is_whole = seq.is_some() && previous.is_some();
        FeedEntry {
            id,
            number,
            channel: channel.filter(|_| is_whole),
            seq: seq.unwrap_or_default(),
            previous: previous.flatten(),
            body,
            trace,
        }
    });
    Ok((id, entry))
}

fn position(digits: &[u8]) -> Option<Seq> {
    digits_of(digits).and_then(|number| Seq::new(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> Resp3Frame {
        Resp3Frame::BlobString { data: text.to_owned().into(), attributes: None }
    }

    fn list(data: Vec<Resp3Frame>) -> Resp3Frame {
        Resp3Frame::Array { data, attributes: None }
    }

    fn entry(fields: &[&str]) -> Option<FeedEntry> {
        let fields = list(fields.iter().map(|field| string(field)).collect());
        parse(&list(vec![string("5-1"), fields]), &mut Names::default()).unwrap().1
    }

    #[test]
    fn events_and_markers_are_taken_apart() {
        let event = entry(&["n", "9", "c", "job:1", "s", "3", "d", "x", "p", "2"]).unwrap();
        assert_eq!(event.id, FeedId { ms: 5, n: 1 });
        assert_eq!((event.number, event.seq.get(), event.previous.map(Seq::get)), (9, 3, Some(2)));
        assert_eq!(event.body.as_deref(), Some(b"x".as_slice()));
        assert_eq!(event.channel, Channel::parse("job:1").ok());
        let marker = entry(&["n", "9", "c", "job:1", "s", "3"]).unwrap();
        assert_eq!((marker.body, marker.previous), (None, None));
    }

    #[test]
    fn a_trace_is_read_and_what_is_none_or_unknown_is_left_out() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let fields = ["n", "9", "c", "job:1", "s", "3", "d", "x", "traceparent", text, "later", "field"];
        let traced = entry(&fields).unwrap();
        assert_eq!(traced.trace.map(|trace| trace.to_string()).as_deref(), Some(text));
        let bad = entry(&["n", "9", "c", "job:1", "s", "3", "d", "x", "traceparent", "no trace"]).unwrap();
        assert_eq!((bad.trace, bad.body.as_deref()), (None, Some(b"x".as_slice())));
    }

    #[test]
    fn malformed_entries_do_not_break_the_reader() {
        for foreign in [&["c", "job:1"][..], &[], &["n", "x"], &["n"]] {
            assert_eq!(entry(foreign), None, "{foreign:?}");
        }
        for bad in [
            &["n", "9", "c", "no channel", "s", "3"][..],
            &["n", "9", "c", "job:1", "s", "-3"],
            &["n", "9", "c", "job:1"],
            &["n", "9", "c", "job:1", "s", "3", "p", "18446744073709551615"],
        ] {
            let entry = entry(bad).unwrap();
            assert_eq!((entry.number, entry.channel), (9, None), "{bad:?}");
        }
        let trimmed = list(vec![string("5-1"), Resp3Frame::Null]);
        assert_eq!(parse(&trimmed, &mut Names::default()), Ok((FeedId { ms: 5, n: 1 }, None)));
    }
}
