//! A log to test with, and short words for what is written to it.

use std::sync::Arc;
use std::time::Duration;

use akis_eventlog::{
    Append, Claim, Entry, FeedEntry, FeedId, FeedStart, Fence, Marker, MemoryStore, Partition, Range, RedisStore,
    Select, Store, Write,
};
use akis_model::{Channel, Origin, Seq};
use akis_testkit::{RedisOptions, RedisServer, wait_until};

/// The one partition of the logs under test.
pub(crate) const P: Partition = Partition(0);

/// A store, and the server behind it when there is one.
pub(crate) struct Log {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) server: Option<RedisServer>,
}

impl Log {
    pub(crate) fn memory() -> Self {
        Self { store: MemoryStore::new(1), server: None }
    }

    pub(crate) async fn redis() -> Self {
        let server = RedisServer::start().await.unwrap();
        let store = RedisStore::connect(&server.url(), "akis", 1).await.unwrap();
        Self { store, server: Some(server) }
    }
}

/// A cluster of servers, each with its part of the slots.
pub(crate) async fn cluster<const N: usize>() -> [RedisServer; N] {
    let (mut servers, mut meet) = (Vec::new(), Vec::new());
    for n in 0..N {
        let bus = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let args = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-announce-ip", "127.0.0.1"];
        let args = args.map(str::to_owned).to_vec();
        let server = RedisServer::start_with(RedisOptions { args, ..RedisOptions::default() }).await.unwrap();
        let (first, last) = (16_384 * n / N, 16_384 * (n + 1) / N - 1);
        server.command(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]).await.unwrap();
        server.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]).await.unwrap();
        meet.push((server.address().port().to_string(), bus));
        servers.push(server);
    }
    for (port, bus) in &meet[1..] {
        servers[0].command(&["CLUSTER", "MEET", "127.0.0.1", port, bus]).await.unwrap();
    }
    for server in &servers {
        let is_whole = async || {
            let info = server.command(&["CLUSTER", "INFO"]).await.unwrap();
            info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{N}"))
        };
        wait_until(Duration::from_secs(20), "the cluster is complete", is_whole).await.unwrap();
    }
    servers.try_into().unwrap_or_else(|_| unreachable!("as many as were started"))
}

pub(crate) fn channel(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}

pub(crate) fn seq(position: u64) -> Seq {
    Seq::new(position).unwrap()
}

pub(crate) fn fence(number: u64) -> Fence {
    Fence { number, owner: "owner".into() }
}

/// Sets a fence and gives the right to write under it.
pub(crate) async fn claim(store: &dyn Store, publisher: &str) -> Claim {
    let ends = store.ends(P, &[], Some(publisher), Seq::ZERO).await.unwrap();
    let fence = fence(ends.fence.as_ref().map_or(1, |fence| fence.number + 1));
    store.set_fence(P, publisher, ends.fence.as_ref(), &fence, Seq::ZERO).await.unwrap();
    Claim { publisher: publisher.into(), fence, identity: ends.identity, seen: Seq::ZERO }
}

/// Where a term of `name` begins now.
pub(crate) async fn term(store: &dyn Store, name: &str) -> Seq {
    store.ends(P, &[channel(name)], None, Seq::ZERO).await.unwrap().channels[0].term
}

/// `count` events from `first` on, the first with `previous`.
pub(crate) fn writes(name: &str, first: Seq, previous: Option<u64>, count: u64) -> Vec<Write> {
    let write = |n| Write {
        channel: channel(name),
        seq: first.plus(n),
        previous: previous.filter(|_| n == 0).map(seq),
        body: format!("body {name} {n}").into(),
        origin: Origin::default(),
    };
    (0..count).map(write).collect()
}

pub(crate) fn marker(name: &str, position: Seq, previous: Option<Seq>) -> Marker {
    Marker { channel: channel(name), seq: position, previous }
}

pub(crate) fn append(name: &str, id: Option<&str>, body: &str) -> Append {
    Append { channel: channel(name), id: id.map(str::to_owned), body: body.to_owned().into(), trace: None }
}

/// The whole history of a channel.
pub(crate) async fn history(store: &dyn Store, name: &str) -> Range {
    store.range(&channel(name), Select::Above { after: Seq::ZERO, limit: 10_000 }).await.unwrap()
}

pub(crate) fn positions(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.seq.get()).collect()
}

/// Everything in the feed.
pub(crate) async fn feed(store: &dyn Store) -> Vec<FeedEntry> {
    let start = FeedStart::Behind(FeedId::default());
    let mut feed = store.open_feed(P, "reader-of-all", 1, start).await.unwrap();
    let mut entries = Vec::new();
    loop {
        let batch = feed.next(Duration::from_millis(1)).await.unwrap();
        if batch.entries.is_empty() {
            return entries;
        }
        entries.extend(batch.entries);
    }
}
