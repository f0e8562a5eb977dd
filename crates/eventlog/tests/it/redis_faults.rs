//! What Redis does to a log, and what is made of it: restarts, fail-overs, refusals, silence.

use std::time::Duration;

use akis_eventlog::{ConnectError, FeedId, FeedStart, Hearing, RedisStore, Select, Store, StoreError, Unavailable};
use akis_model::Seq;
use akis_testkit::{Direction, Proxy, RedisOptions, RedisServer, wait_until};

use crate::log::{Log, P, append, channel, claim, cluster, feed, history, marker, positions, term, writes};

const SECONDS: Duration = Duration::from_secs(10);
const NAME: &str = "v:a:trades";

/// The kind under which an error is counted.
#[track_caller]
fn kind<T: std::fmt::Debug>(result: Result<T, StoreError>) -> &'static str {
    match result {
        Err(StoreError::Unavailable(Unavailable { kind, .. })) => kind,
        other => panic!("not unavailable but {other:?}"),
    }
}

/// A store, its server and the server.
async fn redis() -> (Log, RedisServer) {
    let mut log = Log::redis().await;
    let server = log.server.take().unwrap();
    (log, server)
}

/// Waits until the store is connected again.
async fn back(store: &dyn Store) {
    wait_until(SECONDS, "the log can be written to", async || store.ping().await.is_ok()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_came_back_empty_is_another_log() {
    let (log, mut server) = redis().await;
    let store = &*log.store;
    let old = claim(store, "venue").await;
    let first = term(store, NAME).await;
    store.publish(P, &old, &writes(NAME, first, Some(0), 3)).await.unwrap();
    server.restart_empty().await.unwrap();
    back(store).await;

    let claim_with_memory = akis_eventlog::Claim { seen: first.plus(1 << 40), ..old.clone() };
    let refused = store.publish(P, &claim_with_memory, &writes(NAME, first.plus(3), None, 1)).await;
    assert_eq!(refused, Err(StoreError::Changed));
    let ends = store.ends(P, &[channel(NAME)], Some("venue"), Seq::ZERO).await.unwrap();
    assert_ne!(ends.identity, old.identity);
    assert_eq!((ends.fence, ends.channels[0].last, ends.channels[0].proven), (None, None, false));
    assert!(ends.channels[0].term > claim_with_memory.seen, "what the publisher has seen is not given out again");
    let held = store.take_lease("venue", "b", Duration::from_secs(60), Hearing::Unknown).await;
    assert_eq!(held, Err(StoreError::Held { by_another: false }), "its holder may have lost its key with the log");
    let ttl = Duration::from_secs(1);
    let renewed = store.renew_lease("venue", "a", ttl, Hearing::Unknown).await.unwrap();
    let mut taken = None;
    wait_until(SECONDS, "its holder vanishes", async || {
        taken = store.take_lease("venue", "b", ttl, Hearing::Unknown).await.ok();
        taken.is_some()
    })
    .await
    .unwrap();
    let taken = taken.unwrap();
    assert!(!taken.continues, "somebody had it, although this log never gave it");
    assert_eq!(taken.before, renewed.number);
}

#[tokio::test]
async fn a_server_that_came_back_with_its_data_is_another_log_too() {
    let options = RedisOptions { appendonly: true, ..RedisOptions::default() };
    let mut server = RedisServer::start_with(options).await.unwrap();
    let store = RedisStore::connect(&server.url(), "akis", 1).await.unwrap();
    let old = claim(&*store, "venue").await;
    let first = term(&*store, NAME).await;
    store.publish(P, &old, &writes(NAME, first, Some(0), 3)).await.unwrap();
    server.restart().await.unwrap();
    back(&*store).await;
    assert_eq!(store.publish(P, &old, &writes(NAME, first.plus(3), None, 1)).await, Err(StoreError::Changed));
    let range = history(&*store, NAME).await;
    assert_eq!((range.entries.len(), range.proven), (3, false), "all is there, but that has to be shown");

    let again = claim(&*store, "venue").await;
    let ends = store.ends(P, &[channel(NAME)], None, Seq::ZERO).await.unwrap();
    let begin = ends.channels[0].term;
    store.mark(P, &again, &[marker(NAME, begin.before(), Some(first.plus(2)))]).await.unwrap();
    assert!(history(&*store, NAME).await.proven);
}

#[tokio::test]
async fn a_tail_lost_in_a_fail_over_can_be_written_again() {
    let (primary, replica) = (RedisServer::start().await.unwrap(), RedisServer::start().await.unwrap());
    let link = Proxy::start(primary.address()).await.unwrap();
    let front = Proxy::start(primary.address()).await.unwrap();
    let store = RedisStore::connect(&format!("redis://{}", front.address()), "akis", 1).await.unwrap();
    let store = &*store;
    let old = claim(store, "venue").await;
    let first = term(store, NAME).await;
    store.publish(P, &old, &writes(NAME, first, Some(0), 3)).await.unwrap();
    replica.replica_of(link.address()).await.unwrap();
    // A first replica may change the identity, and did so without loss.
    let old = claim(store, "venue").await;
    link.blackhole(Direction::Both, true);
    let lost = writes(NAME, first.plus(3), None, 2);
    let newest = akis_eventlog::Claim { seen: first.plus(4), ..old };
    store.publish(P, &newest, &lost).await.unwrap();

    drop(primary);
    link.cut();
    replica.promote().await.unwrap();
    front.set_target(replica.address());
    front.cut();
    back(store).await;
    assert_eq!(store.publish(P, &newest, &lost).await, Err(StoreError::Changed));
    let range = history(store, NAME).await;
    assert_eq!((range.last, range.proven), (Some(first.plus(2)), false));
    assert!(range.since > first.plus(4), "above what was acknowledged and lost");

    let new = claim(store, "venue").await;
    store.publish(P, &new, &lost).await.unwrap();
    assert!(!history(store, NAME).await.proven, "below what the other log may have had");
    let begin = term(store, NAME).await;
    store.mark(P, &new, &[marker(NAME, begin.before(), Some(first.plus(4)))]).await.unwrap();
    let range = history(store, NAME).await;
    assert_eq!(positions(&range.entries), (0..5).map(|n| first.plus(n).get()).collect::<Vec<_>>());
    assert!(range.proven);
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_is_not_written_twice() {
    let server = RedisServer::start().await.unwrap();
    let proxy = Proxy::start(server.address()).await.unwrap();
    let store = RedisStore::connect(&format!("redis://{}", proxy.address()), "akis", 1).await.unwrap();
    let claim = claim(&*store, "venue").await;
    let batch = writes(NAME, term(&*store, NAME).await, Some(0), 3);
    proxy.blackhole(Direction::ToClient, true);
    assert_eq!(kind(store.publish(P, &claim, &batch).await), "timeout");
    let events = [append("job:1", Some("id"), "x")];
    assert_eq!(kind(store.append(P, &events, Seq::ZERO).await), "timeout");
    proxy.cut();
    proxy.blackhole(Direction::ToClient, false);
    back(&*store).await;
    store.publish(P, &claim, &batch).await.unwrap();
    let position = store.append(P, &events, Seq::ZERO).await.unwrap()[0];
    assert_eq!(history(&*store, NAME).await.entries.len(), 3);
    assert_eq!(positions(&history(&*store, "job:1").await.entries), vec![position.get()]);
    assert_eq!(feed(&*store).await.len(), 4);
}

#[tokio::test]
async fn a_server_that_cannot_hold_a_log_is_refused() {
    let args = ["--maxmemory-policy", "allkeys-lru"].map(str::to_owned).to_vec();
    let evicting = RedisServer::start_with(RedisOptions { args, ..RedisOptions::default() }).await.unwrap();
    let error = RedisStore::connect(&evicting.url(), "akis", 1).await.err().unwrap();
    assert_eq!(error, ConnectError::Eviction("allkeys-lru".to_owned()));
    assert!(!error.is_retryable());

    let (_log, mut server) = redis().await;
    let error = RedisStore::connect(&server.url(), "akis", 2).await.err().unwrap();
    assert_eq!(error, ConnectError::Partitions { stored: "1".to_owned(), configured: 2 });
    assert!(RedisStore::connect(&server.url(), "other", 2).await.is_ok(), "another log");
    server.kill();
    let error = RedisStore::connect(&server.url(), "akis", 1).await.err().unwrap();
    assert!(error.is_retryable(), "{error}");
}

#[tokio::test]
async fn a_wrong_password_is_said_and_never_shown() {
    let args = ["--requirepass", "right"].map(str::to_owned).to_vec();
    let server = RedisServer::start_with(RedisOptions { args, ..RedisOptions::default() }).await.unwrap();
    let with = |password: &str| format!("redis://:{password}@{}", server.address());
    assert!(RedisStore::connect(&with("right"), "akis", 1).await.is_ok());
    for url in [&with("secret"), &server.url(), "redis://:secret@127.0.0.1:x", "http://:secret@host", "secret"] {
        let error = RedisStore::connect(url, "akis", 1).await.err().unwrap();
        assert!(!error.is_retryable(), "{url}: {error}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn a_reader_whose_group_was_removed_is_told_at_once() {
    let (log, server) = redis().await;
    let store = &*log.store;
    let mut reader = store.open_feed(P, "gw", 1, FeedStart::Behind(FeedId::default())).await.unwrap();
    let (read, ()) = tokio::join!(reader.next(SECONDS), async {
        wait_until(SECONDS, "the reader waits", async || {
            server.command(&["INFO", "clients"]).await.unwrap().contains("blocked_clients:1")
        })
        .await
        .unwrap();
        server.command(&["XGROUP", "DESTROY", "akis:{p00}:feed", "gw:gw:1"]).await.unwrap();
    });
    assert_eq!(kind(read), "NOGROUP");
}

#[tokio::test]
async fn a_new_connection_of_a_replica_takes_over_from_the_one_before() {
    let (log, server) = redis().await;
    let store = &*log.store;
    let start = FeedStart::Behind(FeedId::default());
    let mut old = store.open_feed(P, "gw", 1, start).await.unwrap();
    let other = store.open_feed(P, "gw:other", 1, start).await.unwrap();
    let mut new = store.open_feed(P, "gw", 2, start).await.unwrap();
    store.append(P, &[append("job:1", None, "x")], Seq::ZERO).await.unwrap();
    assert_eq!(kind(old.next(SECONDS).await), "NOGROUP", "a half-open reader cannot take anything away");
    assert_eq!(new.next(SECONDS).await.unwrap().entries.len(), 1);
    drop(other);

    store.announce_replica("gw", SECONDS, Duration::ZERO).await.unwrap();
    let groups = server.command(&["XINFO", "GROUPS", "akis:{p00}:feed"]).await.unwrap();
    assert!(groups.contains("gw:gw:2"));
    assert!(!groups.contains("gw:gw:other:1"), "the group of a replica that is gone is removed");
    store.forget_replica("gw").await.unwrap();
    assert_eq!(server.command(&["XINFO", "GROUPS", "akis:{p00}:feed"]).await.unwrap(), "");
    assert_eq!(server.command(&["EXISTS", "akis:replica:gw"]).await.unwrap(), "0");
}

#[tokio::test]
async fn a_reader_that_hears_nothing_gives_up_by_its_own_clock() {
    let (log, server) = redis().await;
    let store = &*log.store;
    let mut reader = store.open_feed(P, "gw", 1, FeedStart::Behind(FeedId::default())).await.unwrap();
    reader.next(Duration::from_millis(1)).await.unwrap();
    server.pause().unwrap();
    let started = tokio::time::Instant::now();
    assert_eq!(kind(reader.next(Duration::from_millis(100)).await), "timeout");
    assert!(started.elapsed() < Duration::from_secs(3));
    let start = FeedStart::Behind(FeedId::default());
    let name = channel(NAME);
    let range = store.range(&name, Select::Newest { limit: 1 });
    let (range, opened) = tokio::join!(range, store.open_feed(P, "gw", 2, start));
    assert_eq!(kind(range), "timeout");
    assert_eq!(kind(opened.map(|_| ())), "timeout");
    assert!(started.elapsed() < Duration::from_secs(7));
    server.resume().unwrap();
    back(store).await;
    assert_eq!(kind(reader.next(Duration::from_millis(100)).await), "timeout", "its connection is not used again");
    wait_until(SECONDS, "its connection is closed", async || {
        !server.command(&["CLIENT", "LIST"]).await.unwrap().contains("cmd=xreadgroup")
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn out_of_memory_nothing_is_written_and_the_feed_can_still_be_read() {
    let (log, server) = redis().await;
    let store = &*log.store;
    let claim = claim(store, "venue").await;
    let first = term(store, NAME).await;
    store.publish(P, &claim, &writes(NAME, first, Some(0), 2)).await.unwrap();
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).await.unwrap();
    assert_eq!(kind(store.publish(P, &claim, &writes(NAME, first.plus(2), None, 2)).await), "OOM");
    assert_eq!(kind(store.append(P, &[append("job:1", None, "x")], Seq::ZERO).await), "OOM");
    assert_eq!(kind(store.ping().await), "OOM");
    assert!(RedisStore::connect(&server.url(), "akis", 1).await.is_ok(), "a gateway starts to read");
    let mut reader = store.open_feed(P, "gw", 1, FeedStart::Behind(FeedId::default())).await.unwrap();
    let batch = reader.next(Duration::from_millis(10)).await.unwrap();
    assert_eq!(batch.entries.len(), 2);
    let idle = reader.next(Duration::from_millis(10)).await.unwrap();
    assert_eq!((idle.entries.len(), idle.check.unwrap().1.id), (0, batch.entries[1].id));
    assert_eq!(history(store, NAME).await.entries.len(), 2);
}

#[tokio::test]
async fn a_demoted_primary_is_left_for_the_new_one() {
    let (first, second) = (RedisServer::start().await.unwrap(), RedisServer::start().await.unwrap());
    let front = Proxy::start(first.address()).await.unwrap();
    let store = RedisStore::connect(&format!("redis://{}", front.address()), "akis", 1).await.unwrap();
    let mut reader = store.open_feed(P, "gw", 1, FeedStart::Behind(FeedId::default())).await.unwrap();
    first.replica_of(second.address()).await.unwrap();
    front.set_target(second.address());
    assert_eq!(kind(store.append(P, &[append("job:1", None, "x")], Seq::ZERO).await), "READONLY");
    back(&*store).await;
    store.append(P, &[append("job:1", None, "x")], Seq::ZERO).await.unwrap();
    assert!(reader.next(Duration::from_millis(100)).await.is_err(), "a group cannot be read on a replica");
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_told_again() {
    let (log, server) = redis().await;
    let store = &*log.store;
    let mut reader = store.open_feed(P, "gw", 1, FeedStart::Behind(FeedId::default())).await.unwrap();
    server.command(&["SCRIPT", "FLUSH"]).await.unwrap();
    assert_eq!(store.append(P, &[append("job:1", None, "x")], Seq::ZERO).await.unwrap().len(), 1);
    assert_eq!(history(store, "job:1").await.entries.len(), 1);
    assert_eq!(reader.next(SECONDS).await.unwrap().entries.len(), 1);
    assert!(reader.next(Duration::from_millis(1)).await.unwrap().check.is_some());
}

#[tokio::test]
async fn foreign_keys_and_entries_break_nothing() {
    let (log, server) = redis().await;
    let store = &*log.store;
    let claim = claim(store, "venue").await;
    server.command(&["SET", "akis:{p00}:channels", "not a set"]).await.unwrap();
    let mut batch = writes(NAME, term(store, NAME).await, Some(0), 1);
    batch.extend(writes("v:b:trades", batch[0].seq, Some(0), 1));
    assert_eq!(kind(store.publish(P, &claim, &batch).await), "other");
    assert_eq!(history(store, NAME).await.last, None, "all or nothing");
    server.command(&["DEL", "akis:{p00}:channels"]).await.unwrap();

    server.command(&["XADD", "akis:{p00}:feed", "*", "hello", "world"]).await.unwrap();
    server.command(&["XADD", "akis:{p00}:feed", "*", "n", "x", "s", "-1"]).await.unwrap();
    store.publish(P, &claim, &batch[..1]).await.unwrap();
    let entries = feed(store).await;
    assert_eq!(entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), vec![1]);
}

#[tokio::test]
async fn deleted_entries_do_not_give_their_positions_away() {
    let (log, server) = redis().await;
    let store = &*log.store;
    let events = [append("job:1", None, "a"), append("job:1", None, "b")];
    let given = store.append(P, &events, Seq::ZERO).await.unwrap();
    server.command(&["XDEL", "akis:{p00}:ch:job:1", &format!("{}-0", given[1])]).await.unwrap();
    let next = store.append(P, &[append("job:1", None, "c")], Seq::ZERO).await.unwrap()[0];
    assert!(next > given[1].next(), "a term of its own");
    assert_eq!(positions(&history(store, "job:1").await.entries), vec![given[0].get(), next.get()]);
}

#[tokio::test]
async fn what_is_kept_of_channels_goes_with_their_history() {
    let (log, server) = redis().await;
    let store = &*log.store;
    for n in 0..50 {
        store.append(P, &[append(&format!("job:{n}"), None, "x")], Seq::ZERO).await.unwrap();
        let ttl = server.command(&["PTTL", &format!("akis:{{p00}}:ch:job:{n}")]).await.unwrap();
        assert!(ttl.parse::<i64>().unwrap() > 0, "an application's channel expires");
        server.command(&["DEL", &format!("akis:{{p00}}:ch:job:{n}")]).await.unwrap();
    }
    for n in 50..100 {
        store.append(P, &[append(&format!("job:{n}"), None, "x")], Seq::ZERO).await.unwrap();
    }
    let fields: u64 = server.command(&["HLEN", "akis:{p00}:term"]).await.unwrap().parse().unwrap();
    assert!(fields < 150, "{fields} fields for 50 channels that have two each");
    assert!(history(store, "job:99").await.proven);
}

#[tokio::test]
async fn a_cluster_holds_a_log() {
    let [server] = cluster().await;
    let url = format!("redis-cluster://{}", server.address());
    let store = RedisStore::connect(&url, "akis", 1).await.unwrap();
    let claim = claim(&*store, "venue").await;
    let first = term(&*store, NAME).await;
    store.publish(P, &claim, &writes(NAME, first, Some(0), 2)).await.unwrap();
    store.append(P, &[append("job:1", Some("id"), "x")], Seq::ZERO).await.unwrap();
    assert_eq!(history(&*store, NAME).await.entries.len(), 2);
    assert_eq!(feed(&*store).await.len(), 3);
    let ttl = Duration::from_millis(100);
    wait_until(SECONDS, "the lease is taken", async || {
        store.take_lease("venue", "a", ttl, Hearing::Unknown).await.is_ok()
    })
    .await
    .unwrap();
    store.renew_lease("venue", "a", SECONDS, Hearing::Unknown).await.unwrap();
    let seen = server.command(&["PUBSUB", "SHARDNUMSUB", "{akis:lease:venue}:owner:a"]).await.unwrap();
    assert!(seen.trim().ends_with('1'), "those who stand by see that the holder is there: {seen}");
    store.announce_replica("gw", SECONDS, Duration::ZERO).await.unwrap();
    store.forget_replica("gw").await.unwrap();
    store.ping().await.unwrap();
}
