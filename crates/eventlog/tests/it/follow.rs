//! A publisher and replicas together, over the in-memory log and with the clock paused.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use akis_eventlog::{
    Append, Event, From, Joined, MemoryStore, Notice, Partition, Publisher, PublisherConfig, PublisherHandle, Replica,
    ReplicaConfig, Role, Sink, Store, links,
};
use akis_model::{Body, Channel, Outcome, Seq};
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What one subscriber was told, by the rules at [`Notice`].
#[derive(Debug, Default)]
struct Seen {
    position: Option<Seq>,
    epoch: u64,
    told: Vec<String>,
    events: Vec<(u64, i64)>,
}

/// A sink with one subscriber a channel.
#[derive(Default)]
struct Subscriber {
    channels: Mutex<std::collections::HashMap<Channel, Seen>>,
}

impl Subscriber {
    fn activate(&self, channel: &Channel, joined: Joined) {
        let mut channels = self.channels.lock();
        let seen = channels.entry(channel.clone()).or_default();
        seen.told.push(format!("subscribed recovered={}", joined.recovered));
        seen.position = Some(joined.position);
        seen.epoch = joined.epoch;
        for event in &joined.events {
            seen.follow(event.seq, event.previous, Some(event.ts_ms));
        }
    }

    fn told(&self, channel: &Channel) -> Vec<String> {
        self.channels.lock().get(channel).map(|seen| seen.told.clone()).unwrap_or_default()
    }

    /// The contents of the events seen, in order.
    fn contents(&self, channel: &Channel) -> Vec<i64> {
        self.channels.lock().get(channel).map(|seen| seen.events.iter().map(|e| e.1).collect()).unwrap_or_default()
    }

    fn position(&self, channel: &Channel) -> Seq {
        self.channels.lock().get(channel).and_then(|seen| seen.position).unwrap_or_default()
    }
}

impl Seen {
    fn follow(&mut self, seq: Seq, previous: Option<Seq>, content: Option<i64>) {
        let Some(position) = self.position else { return };
        let end = if content.is_some() { seq.before() } else { seq };
        if seq <= position {
            return;
        }
        if end > position {
            let word = if links(position, seq, previous) && seq != position.next() { "term" } else { "gap" };
            self.told.push(word.to_owned());
        }
        self.position = Some(seq);
        if let Some(content) = content {
            self.events.push((seq.get(), content));
        }
    }
}

impl Sink for Subscriber {
    fn deliver(&self, _partition: Partition, notices: &[Notice]) {
        let mut channels = self.channels.lock();
        for notice in notices {
            match notice {
                Notice::Event(event) => {
                    if let Some(seen) = channels.get_mut(&event.channel) {
                        seen.follow(event.seq, event.previous, Some(event.ts_ms));
                    }
                }
                Notice::Marker { channel, seq, previous } => {
                    if let Some(seen) = channels.get_mut(channel) {
                        seen.follow(*seq, *previous, None);
                    }
                }
                Notice::Unproven { channel, since } => {
                    if let Some(seen) = channels.get_mut(channel)
                        && seen.position.is_some_and(|position| position < since.before())
                    {
                        seen.told.push("gap unproven".to_owned());
                        seen.position = Some(since.before());
                    }
                }
                Notice::Rewound { channel, seq, epoch } => {
                    if let Some(seen) = channels.get_mut(channel)
                        && seen.epoch < *epoch
                        && seen.position.is_some_and(|position| position >= *seq)
                    {
                        seen.told.push("subscribed anew".to_owned());
                        seen.position = Some(seq.before());
                    }
                }
                Notice::Malformed { .. } | Notice::Staleness { .. } => {}
            }
        }
    }
}

struct World {
    store: Arc<MemoryStore>,
    channel: Channel,
    stop: CancellationToken,
}

impl World {
    fn new() -> Self {
        Self {
            store: MemoryStore::new(4),
            channel: Channel::parse("v:S:trades").unwrap(),
            stop: CancellationToken::new(),
        }
    }

    fn publisher(&self, stop: &CancellationToken) -> (PublisherHandle, JoinHandle<()>) {
        let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&self.store);
        Publisher::start(store, PublisherConfig::new("v"), stop.clone())
    }

    fn replica(&self) -> (Arc<Replica>, Arc<Subscriber>) {
        let subscriber = Arc::new(Subscriber::default());
        let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&self.store);
        let sink: Arc<dyn Sink> = Arc::<Subscriber>::clone(&subscriber);
        (Replica::start(store, ReplicaConfig::new("g"), sink, self.stop.clone()), subscriber)
    }

    fn offer(&self, handle: &PublisherHandle, contents: std::ops::Range<i64>) {
        for n in contents {
            let body = Body::render(n, "trade", &self.channel, Outcome::Ok, &json!({})).unwrap();
            handle.offer(Event { channel: self.channel.clone(), body, missing_before: 0 });
        }
    }

    async fn join(&self, replica: &Replica, subscriber: &Arc<Subscriber>, from: From) {
        let (subscriber, channel) = (Arc::clone(subscriber), self.channel.clone());
        replica.join(&self.channel, from, move |joined| subscriber.activate(&channel, joined)).await.unwrap();
    }
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Lets virtual time pass until `condition` holds.
#[track_caller]
fn eventually(mut condition: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        for _ in 0..3000 {
            if condition() {
                return;
            }
            tokio::time::advance(Duration::from_millis(10)).await;
            tokio::task::yield_now().await;
        }
        panic!("never came true: {caller}");
    }
}

async fn active(handle: &PublisherHandle) {
    let mut role = handle.role();
    role.wait_for(|role| *role == Role::Active).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn events_reach_a_subscriber_dense_and_in_order() {
    let world = World::new();
    let (handle, running) = world.publisher(&world.stop);
    let (replica, subscriber) = world.replica();
    active(&handle).await;
    world.join(&replica, &subscriber, From::Live { snapshot: true }).await;
    world.offer(&handle, 0..300);
    eventually(|| subscriber.contents(&world.channel).len() == 300).await;
    assert_eq!(subscriber.contents(&world.channel), (0..300).collect::<Vec<_>>());
    assert_eq!(subscriber.told(&world.channel), ["subscribed recovered=false", "term"]);

    let (late, late_subscriber) = world.replica();
    let from = subscriber.channels.lock()[&world.channel].events[99].0;
    world.join(&late, &late_subscriber, From::After(Seq::new(from).unwrap())).await;
    assert_eq!(late_subscriber.contents(&world.channel), (100..300).collect::<Vec<_>>());
    assert_eq!(late_subscriber.told(&world.channel), ["subscribed recovered=true"]);
    world.stop.cancel();
    running.await.unwrap();
    replica.stopped().await;
}

#[tokio::test(start_paused = true)]
async fn an_orderly_hand_over_raises_no_gap() {
    let world = World::new();
    let first_stop = CancellationToken::new();
    let (first, first_running) = world.publisher(&first_stop);
    active(&first).await;
    let (replica, subscriber) = world.replica();
    world.join(&replica, &subscriber, From::Live { snapshot: true }).await;
    world.offer(&first, 0..10);
    let (second, second_running) = world.publisher(&world.stop);
    first_stop.cancel();
    first_running.await.unwrap();
    active(&second).await;
    world.offer(&second, 10..20);
    eventually(|| subscriber.contents(&world.channel).len() == 20).await;
    assert_eq!(subscriber.contents(&world.channel), (0..20).collect::<Vec<_>>());
    assert_eq!(subscriber.told(&world.channel), ["subscribed recovered=false", "term", "term"]);
    world.stop.cancel();
    second_running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_position_told_by_a_hand_over_can_be_resumed_from_while_the_channel_is_idle() {
    let world = World::new();
    let first_stop = CancellationToken::new();
    let (first, first_running) = world.publisher(&first_stop);
    active(&first).await;
    let (replica, subscriber) = world.replica();
    world.join(&replica, &subscriber, From::Live { snapshot: true }).await;
    world.offer(&first, 0..10);
    eventually(|| subscriber.contents(&world.channel).len() == 10).await;
    let last = subscriber.position(&world.channel);
    let (second, second_running) = world.publisher(&world.stop);
    second.declare(&world.channel);
    first_stop.cancel();
    first_running.await.unwrap();
    eventually(|| subscriber.told(&world.channel).len() == 3).await;
    let told = subscriber.position(&world.channel);
    assert!(told > last);

    let (late, late_subscriber) = world.replica();
    world.join(&late, &late_subscriber, From::After(told)).await;
    let excerpt = late.excerpt(&world.channel, From::After(told), 10).await.unwrap();
    assert!(excerpt.recovered && excerpt.events.is_empty(), "{excerpt:?}");
    let beyond = late.excerpt(&world.channel, From::After(told.next()), 10).await.unwrap();
    assert!(!beyond.recovered && beyond.events.len() == 1, "nobody was told of it");
    world.offer(&second, 10..20);
    eventually(|| late_subscriber.contents(&world.channel).len() == 10).await;
    assert_eq!(late_subscriber.contents(&world.channel), (10..20).collect::<Vec<_>>(), "none twice");
    assert_eq!(late_subscriber.told(&world.channel), ["subscribed recovered=true"]);
    world.stop.cancel();
    second_running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_tail_is_written_again_under_the_same_positions() {
    let world = World::new();
    let (handle, running) = world.publisher(&world.stop);
    active(&handle).await;
    let (replica, subscriber) = world.replica();
    world.join(&replica, &subscriber, From::Live { snapshot: true }).await;
    world.offer(&handle, 0..10);
    eventually(|| subscriber.contents(&world.channel).len() == 10).await;
    let replica_behind = world.store.snapshot();
    world.offer(&handle, 10..20);
    eventually(|| subscriber.contents(&world.channel).len() == 20).await;
    let position = subscriber.position(&world.channel);
    for offset in [0, -150_000_000, 150_000_000] {
        world.store.fail_over(Some(replica_behind.clone()), offset);
        let published = subscriber.contents(&world.channel).len() as i64;
        world.offer(&handle, published..published + 5);
        eventually(|| subscriber.contents(&world.channel).len() as i64 == published + 5).await;
    }
    assert_eq!(subscriber.contents(&world.channel), (0..35).collect::<Vec<_>>());
    assert!(!subscriber.told(&world.channel).iter().any(|told| told.contains("gap") || told.contains("anew")));

    let (late, late_subscriber) = world.replica();
    world.join(&late, &late_subscriber, From::After(position)).await;
    assert_eq!(late_subscriber.contents(&world.channel), (20..35).collect::<Vec<_>>());
    assert_eq!(late_subscriber.told(&world.channel)[0], "subscribed recovered=true");
    world.stop.cancel();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn with_the_publisher_gone_idle_subscribers_are_told_and_nobody_is_recovered() {
    let world = World::new();
    let dead = CancellationToken::new();
    let (handle, running) = world.publisher(&dead);
    active(&handle).await;
    let (replica, subscriber) = world.replica();
    world.join(&replica, &subscriber, From::Live { snapshot: true }).await;
    world.offer(&handle, 0..10);
    eventually(|| subscriber.contents(&world.channel).len() == 10).await;
    let behind = world.store.snapshot();
    world.offer(&handle, 10..20);
    eventually(|| subscriber.contents(&world.channel).len() == 20).await;
    running.abort();
    let position = subscriber.position(&world.channel);
    world.store.fail_over(Some(behind), 0);
    eventually(|| subscriber.told(&world.channel).contains(&"gap unproven".to_owned())).await;

    let (late, late_subscriber) = world.replica();
    world.join(&late, &late_subscriber, From::After(position)).await;
    assert_eq!(late_subscriber.told(&world.channel)[0], "subscribed recovered=false");
    let told = subscriber.position(&world.channel);
    world.join(&late, &late_subscriber, From::After(told)).await;
    assert_eq!(late_subscriber.told(&world.channel)[1], "subscribed recovered=true", "the position of the gap");
    assert_eq!(late_subscriber.position(&world.channel), told);
    world.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_publisher_whose_lease_ran_out_adds_nothing() {
    let world = World::new();
    let (first, first_running) = world.publisher(&world.stop);
    active(&first).await;
    world.offer(&first, 0..3);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Gone without a word: the lease has to run out.
    first_running.abort();
    let (second, second_running) = world.publisher(&world.stop);
    active(&second).await;
    world.offer(&second, 3..6);
    let (replica, subscriber) = world.replica();
    world.join(&replica, &subscriber, From::After(Seq::ZERO)).await;
    eventually(|| subscriber.contents(&world.channel).len() == 6).await;
    assert_eq!(subscriber.contents(&world.channel), (0..6).collect::<Vec<_>>());
    world.stop.cancel();
    second_running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn everything_from_a_moment_on_comes_however_far_back_it_lies() {
    let channel = Channel::parse("job:1").unwrap();
    let store = MemoryStore::new(1);
    let big = "x".repeat(64 << 10);
    let append = |n: i64| {
        let body = Body::render(n, "e", &channel, Outcome::Ok, &json!({ "big": big })).unwrap();
        Append { channel: channel.clone(), id: None, body: body.text().clone(), trace: None }
    };
    let events: Vec<_> = (0..400).map(append).collect();
    store.append(Partition(0), &events, Seq::ZERO).await.unwrap();
    let stop = CancellationToken::new();
    let config = ReplicaConfig { ring_events: 8, ..ReplicaConfig::new("g") };
    let replica = Replica::start(store, config, Arc::new(Subscriber::default()), stop.clone());
    eventually(|| replica.is_warm()).await;
    for since in [0, 1, 50, 272, 273, 399] {
        let (mut from, mut given, mut told) = (From::Since(since), Vec::new(), None);
        loop {
            let mut part = None;
            replica.join(&channel, from, |joined| part = Some(joined)).await.unwrap();
            let part = part.unwrap();
            assert!(part.recovered, "{since}");
            told.get_or_insert(part.position);
            assert_eq!(part.replayed, 400 - since as usize - given.len(), "{since}");
            given.extend(part.events.iter().map(|event| event.ts_ms));
            if part.live {
                break;
            }
            from = From::After(part.events.last().map_or(part.position, |event| event.seq));
        }
        assert_eq!(given, (since..400).collect::<Vec<_>>());
        let excerpt = replica.excerpt(&channel, From::Since(since), 30).await.unwrap();
        assert_eq!(excerpt.events.len(), 30.min(400 - since as usize), "{since}");
        assert!(excerpt.recovered && Some(excerpt.events[0].0.before()) == told, "{since}");
    }
    stop.cancel();
    replica.stopped().await;
}

#[tokio::test(start_paused = true)]
async fn the_oldest_event_that_is_told_is_that_of_history_and_not_of_memory() {
    let world = World::new();
    let warm_up = Duration::from_millis(500);
    let config = ReplicaConfig { ring_events: 8, warm_up, ..ReplicaConfig::new("g") };
    let start = || {
        Replica::start(
            Arc::<MemoryStore>::clone(&world.store),
            config.clone(),
            Arc::new(Subscriber::default()),
            world.stop.clone(),
        )
    };
    let (kept, oldest) = (5000, |replica: Arc<Replica>| {
        let channel = world.channel.clone();
        async move {
            let mut oldest = None;
            replica.join(&channel, From::Live { snapshot: true }, |joined| oldest = joined.oldest).await.unwrap();
            oldest
        }
    });
    let partition = Partition::of(&world.channel, 4);
    let now_ms = now_ms();
    let append = |n: i64| {
        let body = Body::render(now_ms + n, "trade", &world.channel, Outcome::Ok, &json!({})).unwrap();
        Append { channel: world.channel.clone(), id: None, body: body.text().clone(), trace: None }
    };
    let early = start();
    eventually(|| early.is_warm()).await;
    let mut seqs = Vec::new();
    for count in [100, kept - 100, 30] {
        let events: Vec<_> = (0..count).map(append).collect();
        seqs.extend(world.store.append(partition, &events, Seq::ZERO).await.unwrap());
        let late = start();
        for replica in [&early, &late] {
            let is_at_end = |oldest: Option<Seq>| oldest == Some(seqs[seqs.len().saturating_sub(kept as usize)]);
            eventually(|| replica.is_warm()).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(is_at_end(oldest(Arc::clone(replica)).await), "{count}");
        }
        assert_eq!(early.counts().history_reads.load(Ordering::Relaxed), 0, "it has seen the channel begin");
        assert_eq!(late.counts().history_reads.load(Ordering::Relaxed), u64::from(count != 100));
    }
    world.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn what_history_keeps_is_asked_again_where_it_may_have_expired() {
    let world = World::new();
    let (replica, _) = world.replica();
    eventually(|| replica.is_warm()).await;
    let day_ms = 24 * 3600 * 1000;
    let now_ms = now_ms();
    for (name, ts_ms, reads) in
        [("job:new", now_ms, 0), ("job:old", now_ms - day_ms - 1, 1), ("binance:S:trades", now_ms - day_ms - 1, 1)]
    {
        let channel = Channel::parse(name).unwrap();
        let body = Body::render(ts_ms, "e", &channel, Outcome::Ok, &json!({})).unwrap();
        let event = Append { channel: channel.clone(), id: None, body: body.text().clone(), trace: None };
        let partition = Partition::of(&channel, 4);
        let first = world.store.append(partition, &[event.clone(), event], Seq::ZERO).await.unwrap()[0];
        tokio::time::sleep(Duration::from_secs(1)).await;
        let from = From::Live { snapshot: true };
        replica.join(&channel, from, |joined| assert_eq!(joined.oldest, Some(first), "{name}")).await.unwrap();
        assert_eq!(replica.counts().history_reads.load(Ordering::Relaxed), reads, "{name}");
    }
    world.stop.cancel();
    replica.stopped().await;
}

#[tokio::test(start_paused = true)]
async fn a_join_that_reads_ahead_of_the_feed_hides_nothing_from_who_waited_for_the_first_event() {
    let world = World::new();
    let (replica, subscriber) = world.replica();
    eventually(|| replica.is_warm()).await;
    world.join(&replica, &subscriber, From::Live { snapshot: true }).await;
    let append = |n: i64| {
        let body = Body::render(n, "trade", &world.channel, Outcome::Ok, &json!({})).unwrap();
        Append { channel: world.channel.clone(), id: None, body: body.text().clone(), trace: None }
    };
    let partition = Partition::of(&world.channel, 4);
    world.store.append(partition, &[append(0), append(1)], Seq::ZERO).await.unwrap();
    // The reader has not run since: this join finds in history what the feed is about to bring.
    replica.join(&world.channel, From::After(Seq::ZERO), |joined| assert_eq!(joined.events.len(), 2)).await.unwrap();
    world.store.append(partition, &[append(2)], Seq::ZERO).await.unwrap();
    eventually(|| subscriber.contents(&world.channel).last() == Some(&2)).await;
    assert_eq!(subscriber.contents(&world.channel), [0, 1, 2]);
    assert_eq!(subscriber.told(&world.channel), ["subscribed recovered=false", "term"]);
    world.stop.cancel();
    replica.stopped().await;
}
