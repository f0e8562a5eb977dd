//! The log goes away and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use akis_eventlog::{
    Append, ChannelHead, Claim, Ends, Feed, FeedBatch, FeedStart, Fence, Hearing, Lease, Marker, MemoryStore,
    Partition, Range, Select, Store, StoreError, StoredCandle, Unavailable, Write,
};
use akis_model::{Channel, Seq};
use akis_testkit::{Envelope, wait_until};
use async_trait::async_trait;
use serde_json::json;
use tokio::time::timeout;

use crate::bench::{Bench, SOON, ask, next, subscribe, token};

/// A store that can be cut off: reads fail, and appends hang.
struct Cut {
    store: Arc<MemoryStore>,
    is_away: Arc<AtomicBool>,
    /// The feed says that its end is half a minute further than what it gives.
    is_late: Arc<AtomicBool>,
}

struct CutFeed {
    feed: Box<dyn Feed>,
    is_away: Arc<AtomicBool>,
    is_late: Arc<AtomicBool>,
}

fn away() -> StoreError {
    StoreError::Unavailable(Unavailable { kind: "io", message: "cut off".to_owned() })
}

impl Cut {
    fn check(&self) -> Result<(), StoreError> {
        if self.is_away.load(Ordering::SeqCst) { Err(away()) } else { Ok(()) }
    }
}

#[async_trait]
impl Feed for CutFeed {
    async fn next(&mut self, wait: Duration) -> Result<FeedBatch, StoreError> {
        let mut batch = self.feed.next(wait.min(Duration::from_millis(50))).await;
        if self.is_late.load(Ordering::SeqCst)
            && let Ok(FeedBatch { entries, check: Some((_, end)) }) = &mut batch
            && !entries.is_empty()
        {
            end.id.ms += 30_000;
        }
        if self.is_away.load(Ordering::SeqCst) { Err(away()) } else { batch }
    }
}

#[async_trait]
impl Store for Cut {
    fn partitions(&self) -> u16 {
        self.store.partitions()
    }

    async fn ends(&self, p: Partition, c: &[Channel], publisher: Option<&str>, seen: Seq) -> Result<Ends, StoreError> {
        self.check()?;
        self.store.ends(p, c, publisher, seen).await
    }

    async fn set_fence(
        &self,
        p: Partition,
        publisher: &str,
        expected: Option<&Fence>,
        fence: &Fence,
        seen: Seq,
    ) -> Result<(), StoreError> {
        self.store.set_fence(p, publisher, expected, fence, seen).await
    }

    async fn publish(&self, p: Partition, claim: &Claim, writes: &[Write]) -> Result<(), StoreError> {
        self.store.publish(p, claim, writes).await
    }

    async fn mark(&self, p: Partition, claim: &Claim, markers: &[Marker]) -> Result<(), StoreError> {
        self.store.mark(p, claim, markers).await
    }

    async fn keep_candles(
        &self,
        p: Partition,
        claim: &Claim,
        channel: &Channel,
        candles: &[StoredCandle],
    ) -> Result<(), StoreError> {
        self.store.keep_candles(p, claim, channel, candles).await
    }

    async fn append(&self, p: Partition, events: &[Append], seen: Seq) -> Result<Vec<Seq>, StoreError> {
        if self.check().is_err() {
            std::future::pending::<()>().await;
        }
        self.store.append(p, events, seen).await
    }

    async fn range(&self, channel: &Channel, select: Select) -> Result<Range, StoreError> {
        self.check()?;
        self.store.range(channel, select).await
    }

    async fn candles(
        &self,
        channel: &Channel,
        before_ms: Option<u64>,
        limit: usize,
    ) -> Result<Vec<StoredCandle>, StoreError> {
        self.check()?;
        self.store.candles(channel, before_ms, limit).await
    }

    async fn channels(&self, prefix: &str) -> Result<Vec<ChannelHead>, StoreError> {
        self.check()?;
        self.store.channels(prefix).await
    }

    async fn take_lease(
        &self,
        publisher: &str,
        owner: &str,
        ttl: Duration,
        hearing: Hearing,
    ) -> Result<Lease, StoreError> {
        self.store.take_lease(publisher, owner, ttl, hearing).await
    }

    async fn renew_lease(
        &self,
        publisher: &str,
        owner: &str,
        ttl: Duration,
        hearing: Hearing,
    ) -> Result<Lease, StoreError> {
        self.store.renew_lease(publisher, owner, ttl, hearing).await
    }

    async fn release_lease(&self, publisher: &str, owner: &str) -> Result<(), StoreError> {
        self.store.release_lease(publisher, owner).await
    }

    async fn open_feed(
        &self,
        p: Partition,
        replica: &str,
        generation: u64,
        start: FeedStart,
    ) -> Result<Box<dyn Feed>, StoreError> {
        self.check()?;
        let feed = self.store.open_feed(p, replica, generation, start).await?;
        Ok(Box::new(CutFeed { feed, is_away: Arc::clone(&self.is_away), is_late: Arc::clone(&self.is_late) }))
    }

    async fn announce_replica(&self, replica: &str, ttl: Duration, grace: Duration) -> Result<(), StoreError> {
        self.store.announce_replica(replica, ttl, grace).await
    }

    async fn forget_replica(&self, replica: &str) -> Result<(), StoreError> {
        self.store.forget_replica(replica).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.check()
    }
}

#[tokio::test]
async fn clients_are_told_that_the_log_is_away_and_stay() {
    let is_away = Arc::new(AtomicBool::new(false));
    let store = MemoryStore::new(4);
    let cut = Cut { store: Arc::clone(&store), is_away: Arc::clone(&is_away), is_late: Arc::default() };
    let bench = Bench::on(store, Arc::new(cut), |_| {}).await;
    let last = bench.append("a:b", 1).await;
    let mut client = bench.client().await;
    subscribe(&mut client, json!("a:b")).await;
    assert_eq!(next(&mut client).await.seq(), last);

    is_away.store(true, Ordering::SeqCst);
    let started = Instant::now();
    let publishing = reqwest::Client::new()
        .post(bench.http("/v1/publish"))
        .bearer_auth(token(json!({})))
        .header("content-type", "application/json")
        .body(json!([{ "channel": "a:b", "event": "x", "data": {} }]).to_string())
        .send();
    let (told, published) = tokio::join!(client.next_event("upstream", SOON), publishing);
    let told = told.unwrap();
    assert_eq!((told.error_code(), &told.0["ok"]), ("UPSTREAM_UNAVAILABLE", &json!(false)));
    let published = published.unwrap();
    assert_eq!(published.status(), 503);
    assert!(published.headers().contains_key("retry-after"));
    assert!(started.elapsed() < Duration::from_millis(5500), "both within 5 s: {:?}", started.elapsed());
    assert!(bench.gateway.readiness().is_err());

    let mut newcomer = bench.client().await;
    assert_eq!(next(&mut newcomer).await.error_code(), "UPSTREAM_UNAVAILABLE");
    subscribe(&mut newcomer, json!("a:b")).await;
    assert_eq!(next(&mut newcomer).await.seq(), last, "memory still serves");
    ask(&mut newcomer, json!({ "type": "subscribe", "channels": [{ "channel": "a:c", "after": 5 }] })).await;
    assert_eq!(next(&mut newcomer).await.error_code(), "REPLAY_UNAVAILABLE");

    let stream = reqwest::Client::new().get(bench.http("/live/sse?channels=nope")).bearer_auth(token(json!({})));
    let (mut stream, mut text) = (stream.send().await.unwrap(), String::new());
    while !text.contains("subscribe_error") {
        let piece = timeout(SOON, stream.chunk()).await.unwrap().unwrap().unwrap();
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    let at = |event: &str| text.find(&format!("\"event\":\"{event}\"")).unwrap_or(usize::MAX);
    assert!(at("welcome") < at("upstream") && at("upstream") < at("subscribe_error"), "{text}");

    is_away.store(false, Ordering::SeqCst);
    let told = client.next_event("upstream", SOON).await.unwrap();
    assert_eq!(told.0["ok"], true);
    assert_eq!(bench.append("a:b", 2).await, last + 1);
    assert_eq!(client.next_event("test_event", SOON).await.unwrap().seq(), last + 1, "the subscription went on");
}

#[tokio::test]
async fn a_replica_far_behind_the_log_is_not_ready_until_it_has_caught_up() {
    let is_late = Arc::new(AtomicBool::new(true));
    let store = MemoryStore::new(1);
    let cut = Cut { store: Arc::clone(&store), is_away: Arc::default(), is_late: Arc::clone(&is_late) };
    let bench = Bench::on(store, Arc::new(cut), |config| config.heartbeat = Duration::from_millis(100)).await;
    let mut client = bench.client().await;
    let falls_behind = async || {
        bench.append("a:b", 1).await;
        bench.gateway.readiness().is_err_and(|why| why.contains("behind the log"))
    };
    wait_until(SOON, "it is not ready", falls_behind).await.unwrap();
    let busy = async {
        loop {
            bench.append("a:b", 1).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let is_late_beat =
        |told: &Envelope| told.event() == "heartbeat" && told.data()["tailAgeMs"].as_u64() > Some(10_000);
    tokio::select! {
        () = busy => {}
        beat = client.find(SOON, is_late_beat) => drop(beat.unwrap()),
    }
    is_late.store(false, Ordering::SeqCst);
    bench.wait_until_ready().await;
    assert!(client.received().iter().all(|told| told.event() != "upstream"), "the log itself was never away");
}
