//! Batches of several partitions that are published at once.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use akis_eventlog::{Claim, Fence, Partition, RedisStore, Select, Store, StoreError, Unavailable, Write};
use akis_model::Seq;
use akis_testkit::RedisServer;

use crate::log::{channel, cluster, fence, writes};

const PARTITIONS: u16 = 8;

/// A server, a log of several partitions on it, and in each a batch and the right to write it.
struct Bench {
    server: RedisServer,
    store: Arc<RedisStore>,
    batches: Vec<(Claim, Vec<Write>)>,
}

impl Bench {
    async fn start() -> Self {
        let server = RedisServer::start().await.unwrap();
        let url = server.url();
        Self::on(server, &url).await
    }

    async fn on(server: RedisServer, url: &str) -> Self {
        let store = RedisStore::connect(url, "akis", PARTITIONS).await.unwrap();
        let mut batches = Vec::new();
        for partition in Partition::all(PARTITIONS) {
            let names = (0..).map(|n| format!("v:{n}:trades"));
            let name = names.into_iter().find(|name| Partition::of(&channel(name), PARTITIONS) == partition).unwrap();
            let ends = store.ends(partition, &[channel(&name)], None, Seq::ZERO).await.unwrap();
            store.set_fence(partition, "venue", None, &fence(1), Seq::ZERO).await.unwrap();
            let claim = Claim { publisher: "venue".into(), fence: fence(1), identity: ends.identity, seen: Seq::ZERO };
            batches.push((claim, writes(&name, ends.channels[0].term, Some(0), 3)));
        }
        Self { server, store, batches }
    }

    /// Publishes all of them at once.
    async fn publish(&self) -> Vec<Result<(), StoreError>> {
        let (store, mut lanes) = (&self.store, tokio::task::JoinSet::new());
        for (partition, (claim, batch)) in Partition::all(PARTITIONS).zip(self.batches.clone()) {
            let store = Arc::clone(store);
            lanes.spawn(async move { (partition, store.publish(partition, &claim, &batch).await) });
        }
        let mut answers = lanes.join_all().await;
        answers.sort_by_key(|(partition, _)| *partition);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    /// How many events of the batch of a partition are in the log.
    async fn written(&self, partition: usize) -> usize {
        let name = &self.batches[partition].1[0].channel;
        self.store.range(name, Select::Newest { limit: 100 }).await.unwrap().entries.len()
    }

    /// How many scripts the server has run.
    async fn calls(&self) -> usize {
        let stats = self.server.command(&["INFO", "commandstats"]).await.unwrap();
        let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        calls.and_then(|rest| rest.split(',').next()).map_or(0, |calls| calls.parse().unwrap())
    }
}

#[tokio::test]
async fn what_comes_at_once_goes_in_one_call() {
    let bench = Bench::start().await;
    let before = bench.calls().await;
    assert_eq!(bench.publish().await, vec![Ok(()); PARTITIONS.into()]);
    assert_eq!(bench.calls().await, before + 1);
    for partition in 0..PARTITIONS.into() {
        assert_eq!(bench.written(partition).await, 3);
    }
}

#[tokio::test]
async fn in_a_cluster_each_partition_is_written_where_it_lies() {
    let [server, others @ ..] = cluster::<3>().await;
    let url = format!("redis-cluster://{}", server.address());
    let bench = Bench::on(server, &url).await;
    assert_eq!(bench.publish().await, vec![Ok(()); PARTITIONS.into()]);
    for partition in 0..PARTITIONS.into() {
        assert_eq!(bench.written(partition).await, 3);
    }
    for other in &others {
        assert_ne!(other.command(&["DBSIZE"]).await.unwrap(), "0", "it has some of them");
    }
}

#[tokio::test]
async fn a_call_goes_when_it_has_enough_events() {
    let mut bench = Bench::start().await;
    for (_, batch) in &mut bench.batches {
        let first = batch[0].clone();
        *batch = writes(first.channel.as_str(), first.seq, Some(0), 12);
    }
    let before = bench.calls().await;
    assert_eq!(bench.publish().await, vec![Ok(()); PARTITIONS.into()]);
    assert_eq!(bench.calls().await, before + 3, "three of the eight have 36");
    assert_eq!(bench.written(7).await, 12);
}

#[tokio::test]
async fn a_batch_that_is_refused_harms_no_other() {
    let mut bench = Bench::start().await;
    bench.batches[1].0.fence = Fence { number: 9, owner: "another".into() };
    bench.server.command(&["SET", "akis:{p05}:channels", "no set"]).await.unwrap();
    for _ in 0..2 {
        for (partition, answer) in bench.publish().await.into_iter().enumerate() {
            match partition {
                1 => assert_eq!(answer, Err(StoreError::Fenced)),
                5 => assert!(matches!(answer, Err(StoreError::Unavailable(Unavailable { kind: "other", .. })))),
                _ => assert_eq!((answer, bench.written(partition).await), (Ok(()), 3)),
            }
        }
    }
    assert_eq!(bench.written(1).await, 0);
    bench.server.command(&["DEL", "akis:{p05}:channels"]).await.unwrap();
    assert_eq!(bench.publish().await[5], Ok(()));
    assert_eq!(bench.written(5).await, 3);
}

#[tokio::test]
async fn nobody_waits_for_a_call_that_was_given_up() {
    let bench = Bench::start().await;
    let publish = |at: usize| {
        let (claim, batch) = &bench.batches[at];
        bench.store.publish(Partition(at as u16), claim, batch)
    };
    let mut first = publish(0);
    let begun = poll_fn(|context| Poll::Ready(first.as_mut().poll(context))).await;
    assert!(begun.is_pending(), "it waits for others to go with");
    let (second, ()) = tokio::join!(publish(1), async { drop(first) });
    assert!(matches!(second, Err(StoreError::Unavailable(Unavailable { kind: "io", .. }))), "{second:?}");
    assert_eq!(publish(1).await, Ok(()));
    assert_eq!(bench.written(1).await, 3);
}
