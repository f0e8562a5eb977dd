//! Channels that should speak and do not, and replicas that are asked by many at once; with the clock paused.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use akis_eventlog::{
    Event, FEED_AGE, From, MemoryStore, Notice, Partition, Publisher, PublisherConfig, PublisherHandle, Replica,
    ReplicaConfig, Role, Sink, Store,
};
use akis_model::{Body, Channel, Outcome, Seq};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Remembers what was told of silence, and how many events there were.
#[derive(Default)]
struct Listener {
    silences: Mutex<Vec<(Channel, Option<Duration>)>>,
    events: Mutex<usize>,
}

impl Sink for Listener {
    fn deliver(&self, _: Partition, notices: &[Notice]) {
        for notice in notices {
            match notice {
                Notice::Staleness { channel, silent_for } => {
                    self.silences.lock().push((channel.clone(), *silent_for));
                }
                Notice::Event(_) => *self.events.lock() += 1,
                _ => {}
            }
        }
    }
}

struct World {
    publisher: PublisherHandle,
    store: Arc<dyn Store>,
    stop: CancellationToken,
}

impl World {
    async fn new() -> Self {
        let (store, stop): (Arc<dyn Store>, _) = (MemoryStore::new(4), CancellationToken::new());
        let (publisher, _) = Publisher::start(Arc::clone(&store), PublisherConfig::new("binance"), stop.clone());
        let mut role = publisher.role();
        role.wait_for(|role| *role == Role::Active).await.unwrap();
        Self { publisher, store, stop }
    }

    fn replica(&self) -> (Arc<Replica>, Arc<Listener>) {
        let listener = Arc::new(Listener::default());
        let sink: Arc<dyn Sink> = Arc::<Listener>::clone(&listener);
        let config = ReplicaConfig::new("g");
        (Replica::start(Arc::clone(&self.store), config, sink, self.stop.clone()), listener)
    }

    fn offer(&self, channel: &Channel, ts_ms: i64) {
        let body = Body::render(ts_ms, "price_tick", channel, Outcome::Ok, &json!({})).unwrap();
        self.publisher.offer(Event { channel: channel.clone(), body, missing_before: 0 });
    }
}

fn channel(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_price_that_falls_silent_is_told_once_and_so_is_its_return() {
    let world = World::new().await;
    let (silent, lively, unwatched) =
        (channel("binance:A:ticker"), channel("binance:B:ticker"), channel("binance:C:ticker"));
    let (replica, listener) = world.replica();
    for watched in [&silent, &lively] {
        replica.join(watched, From::Live { snapshot: false }, |_| {}).await.unwrap();
    }
    for second in 0..100 {
        for channel in [&silent, &lively, &unwatched] {
            if *channel == lively || second < 70 {
                world.offer(channel, second);
            }
        }
        sleep(Duration::from_secs(1)).await;
    }
    let told = std::mem::take(&mut *listener.silences.lock());
    let [(of, Some(silent_for))] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(*of, silent);
    assert!((15..18).contains(&silent_for.as_secs()), "{silent_for:?}");
    world.offer(&silent, 100);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(*listener.silences.lock(), vec![(silent, None)]);
    world.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_of_channels_that_nobody_joined_or_that_all_have_left() {
    let world = World::new().await;
    let name = channel("binance:A:ticker");
    let (replica, listener) = world.replica();
    let speak = async |seconds| {
        for second in 0..seconds {
            world.offer(&name, second);
            sleep(Duration::from_secs(1)).await;
        }
    };
    speak(5).await;
    assert_eq!(*listener.events.lock(), 0);
    let mut snapshot = Vec::new();
    replica.join(&name, From::Live { snapshot: true }, |joined| snapshot = joined.events).await.unwrap();
    assert_eq!(snapshot.iter().map(|event| event.ts_ms).collect::<Vec<_>>(), vec![4]);
    speak(5).await;
    assert_eq!(*listener.events.lock(), 5);
    replica.leave(&name);
    speak(5).await;
    assert_eq!(*listener.events.lock(), 5);
    world.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn reads_of_history_grow_with_the_channels_and_not_with_the_clients() {
    let world = World::new().await;
    let channels: Vec<Channel> = (0..20).map(|n| channel(&format!("binance:S{n}:trades"))).collect();
    for ts_ms in 0..100 {
        channels.iter().for_each(|channel| world.offer(channel, ts_ms));
    }
    // The feed of a replica that starts now has nothing left of them: it has to ask history.
    sleep(FEED_AGE + Duration::from_secs(60)).await;
    channels.iter().for_each(|channel| world.offer(channel, 100));
    let (replica, _) = world.replica();
    sleep(Duration::from_secs(5)).await;
    let mut last = Seq::ZERO;
    for client in 0..500_u64 {
        for channel in &channels {
            replica.join(channel, From::Live { snapshot: true }, |joined| last = joined.events[0].seq).await.unwrap();
            // Cut off at about the same time, with some ten events missed.
            let after = Seq::new(last.get() - 5 - client % 10).unwrap();
            let check = |joined: akis_eventlog::Joined| {
                assert!(joined.recovered && joined.live);
                assert_eq!(joined.replayed as u64, last.get() - after.get());
            };
            replica.join(channel, From::After(after), check).await.unwrap();
        }
    }
    let reads = replica.counts().history_reads.load(Ordering::Relaxed);
    assert_eq!(reads, 2 * channels.len() as u64, "one for what is kept, and one for what memory lacks");
    world.stop.cancel();
}
