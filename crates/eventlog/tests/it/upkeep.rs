//! What keeps Redis from growing without end, and what is put right when somebody else has touched it.

use std::sync::Arc;
use std::time::Duration;

use akis_eventlog::{
    ConnectError, FEED_AGE, From, Joined, Notice, Partition, RedisStore, Replica, ReplicaConfig, Select, Sink, links,
};
use akis_model::Seq;
use akis_testkit::RedisServer;
use tokio_util::sync::CancellationToken;

use crate::log::{Log, P, append, channel, claim, cluster, history, term, writes};

const FEED: &str = "akis:{p00}:feed";
const MINUTE: Duration = Duration::from_secs(60);

async fn redis() -> (Log, RedisServer) {
    let mut log = Log::redis().await;
    let server = log.server.take().unwrap();
    (log, server)
}

/// The server's clock, milliseconds since the epoch.
async fn now_ms(server: &RedisServer) -> u64 {
    let time = server.command(&["TIME"]).await.unwrap();
    time.lines().next().unwrap().parse::<u64>().unwrap() * 1000
}

/// Adds entries of this moment to the feed, past the log.
async fn add_entries(server: &RedisServer, count: u64, at_ms: u64) {
    let add = "for n = 1, tonumber(ARGV[1]) do redis.call('XADD', KEYS[1], ARGV[2] .. '-' .. n, 'f', 'x') end";
    server.command(&["EVAL", add, "1", FEED, &count.to_string(), &at_ms.to_string()]).await.unwrap();
}

async fn length(server: &RedisServer, stream: &str) -> u64 {
    server.command(&["XLEN", stream]).await.unwrap().trim().parse().unwrap()
}

/// How long a key is kept, in milliseconds; below 0 for good.
async fn lifetime_ms(server: &RedisServer, key: &str) -> i64 {
    server.command(&["PTTL", key]).await.unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn a_feed_that_has_fallen_silent_is_trimmed_all_the_same_also_without_memory() {
    let (log, server) = redis().await;
    let old_ms = now_ms(&server).await - FEED_AGE.as_millis() as u64 - 10_000;
    add_entries(&server, 1_000, old_ms).await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).await.unwrap();
    // What it says of itself cannot be written, and is not what makes room.
    log.store.announce_replica("a", MINUTE, MINUTE).await.unwrap_err();
    assert!(length(&server, FEED).await < 200, "whole nodes go");
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).await.unwrap();
    log.store.announce_replica("a", MINUTE, MINUTE).await.unwrap();
}

#[tokio::test]
async fn a_feed_is_bounded_also_while_the_servers_clock_is_behind_it() {
    let (log, server) = redis().await;
    let ahead_ms = now_ms(&server).await + 3_600_000;
    add_entries(&server, 70_000, ahead_ms).await;
    let batch: Vec<_> = (0..100).map(|n| append("job:1", None, &n.to_string())).collect();
    log.store.append(P, &batch, Seq::ZERO).await.unwrap();
    assert!(length(&server, FEED).await < 66_000);
}

#[tokio::test]
async fn a_log_that_lost_its_data_is_told_its_shape_again() {
    let (log, server) = redis().await;
    server.command(&["FLUSHALL"]).await.unwrap();
    log.store.announce_replica("r1", Duration::from_secs(10), Duration::from_secs(60)).await.unwrap();
    let other = RedisStore::connect(&server.url(), "akis", 7).await.map(drop);
    assert_eq!(other, Err(ConnectError::Partitions { stored: "1".to_owned(), configured: 7 }));
}

#[tokio::test]
async fn every_node_of_a_cluster_must_not_evict() {
    let servers = cluster::<3>().await;
    let url = format!("redis-cluster://{}", servers[0].address());
    for server in &servers {
        server.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await.unwrap();
        let connected = RedisStore::connect(&url, "akis", 8).await.map(drop);
        assert_eq!(connected, Err(ConnectError::Eviction("allkeys-lru".to_owned())));
        server.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await.unwrap();
    }
    RedisStore::connect(&url, "akis", 8).await.unwrap();
}

#[tokio::test]
async fn a_key_that_somebody_wrote_over_stops_nobody_else_and_is_a_history_again() {
    let (log, server) = redis().await;
    let store = &*log.store;
    let over = async |name: &str| {
        server.command(&["SET", &format!("akis:{{p00}}:ch:{name}"), "x"]).await.unwrap();
    };
    let claim = claim(store, "venue").await;
    over("v:a:trades").await;
    let names = ["v:a:trades", "v:b:trades"].map(channel);
    let ends = store.ends(P, &names, None, Seq::ZERO).await.unwrap();
    assert_eq!(ends.channels.iter().map(|end| end.last).collect::<Vec<_>>(), [None, None]);
    assert_eq!(history(store, "v:a:trades").await.entries, []);
    let mut batch = writes("v:a:trades", term(store, "v:a:trades").await, Some(0), 2);
    batch.extend(writes("v:b:trades", term(store, "v:b:trades").await, Some(0), 2));
    store.publish(P, &claim, &batch).await.unwrap();
    assert_eq!(history(store, "v:a:trades").await.entries.len(), 2);
    over("job:1").await;
    let events = ["job:1", "job:2"].map(|name| append(name, None, "x"));
    store.append(P, &events, Seq::ZERO).await.unwrap();
    assert_eq!(history(store, "job:1").await.entries.len(), 1);
    assert_eq!(store.range(&channel("job:2"), Select::Newest { limit: 1 }).await.unwrap().entries.len(), 1);
}

struct Nobody;

impl Sink for Nobody {
    fn deliver(&self, _: Partition, _: &[Notice]) {}
}

#[tokio::test]
async fn who_waits_behind_events_that_have_expired_has_missed_nothing() {
    let (log, server) = redis().await;
    let store = &*log.store;
    let events = ["job:1", "job:1"].map(|name| append(name, None, "x"));
    let last = store.append(P, &events, Seq::ZERO).await.unwrap()[1];
    let expire = async || _ = server.command(&["DEL", "akis:{p00}:ch:job:1"]).await.unwrap();
    expire().await;
    let range = history(store, "job:1").await;
    assert_eq!((range.first, range.last, range.proven), (None, Some(last), true));

    let stop = CancellationToken::new();
    let replica = Replica::start(Arc::clone(&log.store), ReplicaConfig::new("g"), Arc::new(Nobody), stop.clone());
    let join = async |from| {
        let (mut given, channel): (Option<Joined>, _) = (None, channel("job:1"));
        replica.join(&channel, from, |joined| given = Some(joined)).await.unwrap();
        given.unwrap()
    };
    for from in [From::Live { snapshot: false }, From::After(last)] {
        let joined = join(from).await;
        assert_eq!((joined.position, joined.recovered), (last, from == From::After(last)), "{from:?}");
    }
    assert!(!join(From::After(last.before())).await.recovered);
    stop.cancel();
    replica.stopped().await;

    let next = store.append(P, &[append("job:1", None, "x")], Seq::ZERO).await.unwrap()[0];
    let entry = history(store, "job:1").await.entries.remove(0);
    assert_eq!((entry.seq, entry.previous), (next, Some(last)));
    assert!(links(last, next, entry.previous));

    expire().await;
    let others: Vec<_> = (0..200).map(|n| append(&format!("other:{n}"), None, "x")).collect();
    store.append(P, &others, Seq::ZERO).await.unwrap();
    store.append(P, &events, Seq::ZERO).await.unwrap();
    let begun = history(store, "job:1").await;
    assert_eq!(begun.entries[0].previous, Some(Seq::ZERO), "forgotten when other channels had begun");
}

const DAY_MS: i64 = 24 * 3_600_000;

#[tokio::test]
async fn what_applications_leave_behind_expires_and_what_the_system_says_does_not() {
    let (log, server) = redis().await;
    let events = ["job:1", "user:1:session", "room:1:book", "akis:control:revoke"].map(|name| append(name, None, "x"));
    log.store.append(P, &events, Seq::ZERO).await.unwrap();
    for name in ["job:1", "user:1:session", "room:1:book"] {
        let lifetime_ms = lifetime_ms(&server, &format!("akis:{{p00}}:ch:{name}")).await;
        assert!((1..=DAY_MS).contains(&lifetime_ms), "{name}");
    }
    let revoked = "akis:{p00}:ch:akis:control:revoke";
    assert!(lifetime_ms(&server, revoked).await > 1000 * DAY_MS);
    // As a version left it that let these expire.
    server.command(&["PEXPIRE", revoked, "60000"]).await.unwrap();
    log.store.append(P, &events, Seq::ZERO).await.unwrap();
    assert!(lifetime_ms(&server, revoked).await > 1000 * DAY_MS);
}

#[tokio::test]
async fn closed_candles_of_applications_are_kept_for_as_long_as_their_channel_also_when_they_close_once_a_day() {
    let (log, server) = redis().await;
    let candle = |closed: bool| {
        let data = format!(r#"{{"openTime":60000,"closed":{closed}}}"#);
        let body = format!(r#""ts":1,"event":"candle_update","channel":"desk:x:1d","ok":true,"data":{data}}}"#);
        append("desk:x:1d", None, &body)
    };
    log.store.append(P, &[candle(true)], Seq::ZERO).await.unwrap();
    let keys = ["akis:{p00}:ch:desk:x:1d", "akis:{p00}:candles:desk:x:1d"];
    for key in keys {
        assert!(lifetime_ms(&server, key).await > 7 * DAY_MS, "{key}");
        server.command(&["PEXPIRE", key, "60000"]).await.unwrap();
    }
    log.store.append(P, &[candle(false)], Seq::ZERO).await.unwrap();
    for key in keys {
        assert!(lifetime_ms(&server, key).await > 7 * DAY_MS, "{key}");
    }
    assert_eq!(log.store.candles(&channel("desk:x:1d"), None, 10).await.unwrap().len(), 1);
}
