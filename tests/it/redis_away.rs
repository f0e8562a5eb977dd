//! Redis goes away and comes back, with what it had or without: clients stay, and are told what changed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::crowd::{
    assert_complete, assert_delivered, assert_each_trade_once, assert_kept, see_all, see_more, start_followers,
};
use crate::follower::{Follower, Publisher, Record, finish_all, wait_for_all};
use crate::system::{Options, SOON, System, token};

const TRADES: [&str; 2] = ["binance:BTCUSDT:trades", "binance:ETHUSDT:trades"];
/// What the normalizer writes, under its lease.
const LEASED: [&str; 3] = [TRADES[0], TRADES[1], "binance:BTCUSDT:ticker"];
/// Published to all the time.
const JOB: &str = "job:1";
/// One event at the beginning, and nothing after it.
const IDLE: &str = "job:idle";
const CHANNELS: [&str; 5] = [LEASED[0], LEASED[1], LEASED[2], JOB, IDLE];
const BUSY: [&str; 4] = [LEASED[0], LEASED[1], LEASED[2], JOB];

const FOLLOWERS: usize = 10;

/// How many events of each channel are seen before the fault, and between it and the end.
const EVENTS: usize = 20;

/// Within how long clients are told that the log is away, with a margin for a busy machine.
const TOLD_WITHIN: Duration = Duration::from_millis(5500);

/// A system with clients and a publisher at work.
struct Scene {
    system: System,
    followers: Vec<Follower>,
    publisher: Publisher,
    token: String,
}

/// What came of it.
struct Outcome {
    system: System,
    records: Vec<Record>,
    /// The number that was published to [`JOB`], by acknowledged position.
    acknowledged: BTreeMap<u64, u64>,
}

impl Scene {
    async fn start(options: Options) -> Self {
        let system = System::start(options).await;
        let token = token("worker", &["*"], &["job:*"]);
        let idle = json!({"channel": IDLE, "event": "e", "data": {"number": 0}});
        assert_eq!(system.gateways[0].door.publish(&token, &idle).await.unwrap().0, 200);
        let publisher = Publisher::start(system.doors(), token.clone(), JOB);
        system.wait_for_events(JOB, 1).await;
        let followers = start_followers(&system, FOLLOWERS, &CHANNELS);
        see_more(&system, &followers, &CHANNELS, 0).await;
        let scene = Self { system, followers, publisher, token };
        scene.see_more().await;
        scene
    }

    async fn see_more(&self) {
        see_more(&self.system, &self.followers, &BUSY, EVENTS).await;
    }

    /// Waits until all clients have heard that the log is away, and checks that it was soon enough.
    async fn hear_of_the_loss(&self, lost: Instant) {
        let heard = |record: &Record| record.upstream.iter().any(|(at, is_up)| *at >= lost && !is_up);
        wait_for_all(&self.followers, "clients hear that the log is away", heard).await;
        let in_time = |record: &Record| {
            record.upstream.iter().any(|(at, is_up)| *at >= lost && *at <= lost + TOLD_WITHIN && !is_up)
        };
        assert!(self.followers.iter().all(|follower| follower.has(in_time)), "clients are told within 5 s");
    }

    /// Waits until all clients have heard that the log is back.
    async fn hear_of_the_return(&self) {
        let heard = |record: &Record| record.upstream.last().is_some_and(|(_, is_up)| *is_up);
        wait_for_all(&self.followers, "clients hear that the log is back", heard).await;
    }

    /// Ends all that publishes, and waits until the clients have been told everything.
    async fn end(mut self) -> Outcome {
        let acknowledged = self.publisher.finish().await;
        self.system.stop_normalizer(0).await;
        see_all(&self.system, &self.followers, &CHANNELS).await;
        Outcome { system: self.system, records: finish_all(self.followers).await, acknowledged }
    }
}

impl Outcome {
    /// Nobody lost the connection, or was left with the news that the log is away.
    fn assert_stayed(&self) {
        for record in &self.records {
            assert_eq!(record.connections.len(), 1, "clients stay connected");
            assert!(record.upstream.last().is_none_or(|(_, is_up)| *is_up), "the log is back");
        }
    }

    /// Everything that was acknowledged is there once, and was delivered, whatever else clients were told.
    async fn assert_all_delivered(&self) {
        self.assert_stayed();
        for channel in CHANNELS {
            assert_delivered(channel, &self.records, &self.system.history(channel).await);
        }
        for channel in TRADES {
            assert_each_trade_once(channel, &self.system.history(channel).await);
        }
        assert_kept(JOB, &self.acknowledged, &self.system.history(JOB).await);
    }

    /// On top of that, nobody was told of a loss where one publisher alone writes.
    async fn assert_no_loss_told(&self) {
        self.assert_all_delivered().await;
        for channel in LEASED {
            assert_complete(channel, &self.records, &self.system.history(channel).await);
        }
    }
}

#[tokio::test]
async fn a_redis_that_restarts_with_its_data_raises_no_gap() {
    let mut scene = Scene::start(Options { appendonly: true, ..Options::default() }).await;
    scene.system.redis.restart().await.unwrap();
    scene.see_more().await;
    scene.end().await.assert_no_loss_told().await;
}

/// Longer than a lease may run without an answer, so that a `gap` may be told: who wrote last, and whether the log lost
/// anything, cannot be known. Yet every event arrives.
#[tokio::test]
async fn a_killed_redis_that_comes_back_later_with_its_data_delivers_all_of_it() {
    let mut scene = Scene::start(Options { appendonly: true, ..Options::default() }).await;
    let lost = Instant::now();
    scene.system.redis.kill();
    scene.hear_of_the_loss(lost).await;
    scene.system.redis.restart().await.unwrap();
    scene.hear_of_the_return().await;
    scene.see_more().await;
    scene.end().await.assert_all_delivered().await;
}

#[tokio::test]
async fn a_paused_redis_loses_nothing() {
    let scene = Scene::start(Options::default()).await;
    let lost = Instant::now();
    scene.system.redis.pause().unwrap();
    scene.hear_of_the_loss(lost).await;
    // The length of the pause is the fault: longer than a lease, and than any read waits.
    sleep(Duration::from_secs(15).saturating_sub(lost.elapsed())).await;
    scene.system.redis.resume().unwrap();
    scene.hear_of_the_return().await;
    scene.see_more().await;
    scene.end().await.assert_no_loss_told().await;
}

#[tokio::test]
async fn connections_to_redis_that_are_cut_every_second_lose_nothing() {
    let scene = Scene::start(Options { proxied: true, ..Options::default() }).await;
    let mut every_second = interval(Duration::from_secs(1));
    every_second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..20 {
        every_second.tick().await;
        scene.system.proxy.as_ref().unwrap().cut();
    }
    scene.see_more().await;
    scene.end().await.assert_no_loss_told().await;
}

#[tokio::test]
async fn an_empty_redis_is_another_log_and_clients_are_told_what_they_miss() {
    let mut scene = Scene::start(Options::default()).await;
    let mut known = BTreeMap::new();
    for channel in CHANNELS {
        known.insert(channel, scene.system.history(channel).await);
    }
    let lost = Instant::now();
    scene.system.redis.kill();
    scene.hear_of_the_loss(lost).await;
    scene.system.redis.restart_empty().await.unwrap();
    scene.hear_of_the_return().await;
    let told_of_idle = |record: &Record| {
        let is_told = |event: &str| matches!(event, "gap" | "subscribed");
        record.of(IDLE).filter(|envelope| is_told(envelope.event())).count() > 1
    };
    wait_for_all(&scene.followers, "subscribers of an idle channel are told", told_of_idle).await;
    assert!(!recovers_idle(&scene, &known[IDLE]).await, "what lies behind the old position cannot be known");
    scene.see_more().await;

    let outcome = scene.end().await;
    outcome.assert_stayed();
    for channel in CHANNELS {
        let mut history = known.remove(channel).unwrap();
        let later = outcome.system.history(channel).await;
        let seen = outcome.records.iter().flat_map(|record| record.events(channel));
        for (seq, envelope) in later.into_iter().chain(seen) {
            let other = history.insert(seq, envelope.clone()).is_some_and(|before| before != envelope);
            assert!(!other, "{channel}: the position {seq} was given out twice");
        }
        for record in &outcome.records {
            assert_eq!(record.check(channel, &history).violations, Vec::<String>::new(), "{channel}");
        }
    }
}

/// Resumes after the last event that the idle channel had before: whether the server says that nothing is missing.
async fn recovers_idle(scene: &Scene, before: &BTreeMap<u64, Value>) -> bool {
    let after = *before.keys().next_back().unwrap();
    let mut client = scene.system.gateways[0].door.connect(&scene.token).await.unwrap();
    client.send(&json!({"type": "subscribe", "channels": [{"channel": IDLE, "after": after}]})).await.unwrap();
    client.next_event("subscribed", SOON).await.unwrap().data()["recovered"] == true
}
