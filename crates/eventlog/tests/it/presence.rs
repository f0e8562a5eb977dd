//! A holder that is gone is missed before its lease has run out, and one that is there keeps it.

use std::time::Duration;

use akis_eventlog::{Hearing, Lease, RedisStore, Store, StoreError};
use akis_testkit::{RedisServer, wait_until};

const SECONDS: Duration = Duration::from_secs(10);

/// A lease is free for the first time once a log has been known for as long.
const SHORT: Duration = Duration::from_millis(500);

/// No test waits until one of these runs out.
const LONG: Duration = Duration::from_secs(300);

const HELD: Result<Lease, StoreError> = Err(StoreError::Held { by_another: true });

async fn renew(store: &dyn Store) {
    store.renew_lease("venue", "a", LONG, Hearing::Unknown).await.unwrap();
}

async fn seek(store: &dyn Store) -> Result<Lease, StoreError> {
    store.take_lease("venue", "b", SHORT, Hearing::Unknown).await
}

async fn subscribers(server: &RedisServer) -> String {
    let reply = server.command(&["PUBSUB", "SHARDNUMSUB", "{akis:lease:venue}:owner:a"]).await.unwrap();
    reply.split_whitespace().last().unwrap().to_owned()
}

/// A server, and who holds a long lease there, which has been renewed once.
async fn holder(url: impl AsyncFnOnce(&RedisServer) -> String) -> (RedisServer, std::sync::Arc<RedisStore>) {
    let server = RedisServer::start().await.unwrap();
    let store = RedisStore::connect(&url(&server).await, "akis", 1).await.unwrap();
    wait_until(SECONDS, "the lease is taken", async || {
        store.take_lease("venue", "a", SHORT, Hearing::Unknown).await.is_ok()
    })
    .await
    .unwrap();
    renew(&*store).await;
    (server, store)
}

/// Whoever holds it, and one that stands by, which has seen the holder's subscription.
async fn pair() -> (RedisServer, std::sync::Arc<RedisStore>, std::sync::Arc<RedisStore>) {
    let (server, store) = holder(async |server| server.url()).await;
    assert_eq!(subscribers(&server).await, "1", "a renewal subscribes");
    renew(&*store).await;
    let other = RedisStore::connect(&server.url(), "akis", 1).await.unwrap();
    assert_eq!(seek(&*other).await, HELD);
    (server, store, other)
}

#[tokio::test]
async fn who_is_gone_is_missed_long_before_its_lease_runs_out() {
    let (_server, store, other) = pair().await;
    drop(store);
    let mut taken = None;
    wait_until(SECONDS, "the lease is taken", async || {
        taken = seek(&*other).await.ok();
        taken.is_some()
    })
    .await
    .unwrap();
    assert!(!taken.unwrap().continues, "its holder vanished");
}

#[tokio::test]
async fn who_loses_its_subscription_for_a_moment_keeps_its_lease() {
    let (server, store, other) = pair().await;
    assert_eq!(server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await.unwrap().trim(), "1");
    assert_eq!(seek(&*other).await, HELD, "it is seen to be gone");
    wait_until(SECONDS, "it is back", async || subscribers(&server).await == "1").await.unwrap();
    assert_eq!(seek(&*other).await, HELD, "it is seen to be back");
    let since = server.command(&["HEXISTS", "{akis:lease:venue}:term", "gone_ms"]).await.unwrap();
    assert_eq!(since.trim(), "0", "the next time counts from its own beginning");
    renew(&*store).await;
}

#[tokio::test]
async fn without_the_right_to_subscribe_a_lease_has_to_run_out() {
    let (server, store) = holder(async |server| {
        let rules = ["ACL", "SETUSER", "old", "on", ">pw", "~*", "&*", "+@all", "-ssubscribe"];
        server.command(&rules).await.unwrap();
        format!("redis://old:pw@{}", server.address())
    })
    .await;
    renew(&*store).await;
    let other = RedisStore::connect(&server.url(), "akis", 1).await.unwrap();
    drop(store);
    for _ in 0..2 {
        assert_eq!(seek(&*other).await, HELD);
    }
    let gone = server.command(&["HEXISTS", "{akis:lease:venue}:term", "gone_ms"]).await.unwrap();
    assert_eq!(gone.trim(), "0", "nobody counts on what was never seen");
}
