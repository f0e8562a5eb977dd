//! Trades that a venue tells once more, to whoever writes after somebody else has.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use akis_eventlog::{Event, Publisher, PublisherConfig, PublisherHandle, Role};
use akis_model::{Body, Outcome};
use akis_testkit::wait_until;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::contract::on_both_stores;
use crate::log::{Log, channel, history};

const SOON: Duration = Duration::from_secs(10);
const NAME: &str = "v:S:trades";
/// Later than every trade of the day before.
const NEXT_DAY: i64 = 1_000_000;

on_both_stores! {
    what_a_blind_standby_fetches_later_is_written_once
    a_day_that_is_replayed_to_who_starts_is_written_once
    a_day_that_is_replayed_across_a_take_over_is_written_once
    a_last_trade_is_found_behind_what_tells_only_of_the_channels_state
}

/// A process that publishes.
struct Process {
    publisher: PublisherHandle,
    running: JoinHandle<()>,
    stop: CancellationToken,
}

impl Process {
    fn start(log: &Log) -> Self {
        let stop = CancellationToken::new();
        let (publisher, running) = Publisher::start(Arc::clone(&log.store), PublisherConfig::new("v"), stop.clone());
        Self { publisher, running, stop }
    }

    async fn active(&self) {
        self.publisher.role().wait_for(|role| *role == Role::Active).await.unwrap();
    }

    /// Offers trades, each with its id as the time that has passed since the beginning of `day`.
    fn offer(&self, day: i64, ids: RangeInclusive<i64>) {
        self.publisher.offer_all(ids.map(|id| event(day + id, "trade", &json!({ "id": id.to_string() }))));
    }

    /// Waits until so many trades were not written because the log has them: what is offered from here on comes to a reign that
    /// has begun.
    async fn repeated(&self, count: u64) {
        let is_it = async || self.publisher.counts().repeated.load(Ordering::Relaxed) >= count;
        wait_until(SOON, "what the log has is dropped", is_it).await.unwrap();
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

fn event(ts_ms: i64, name: &str, data: &serde_json::Value) -> Event {
    let channel = channel(NAME);
    let body = Body::render(ts_ms, name, &channel, Outcome::Ok, data).unwrap();
    Event { channel, body, missing_before: 0 }
}

/// The times of the log's events, once the last of them is `last`.
#[track_caller]
fn told(log: &Log, last: i64) -> impl Future<Output = Vec<i64>> {
    let times = async move || {
        let entries = history(&*log.store, NAME).await.entries;
        entries.into_iter().map(|entry| Body::parse(entry.body, &channel(NAME)).unwrap().ts_ms()).collect::<Vec<_>>()
    };
    async move {
        wait_until(SOON, "the last trade is there", async || times().await.last() == Some(&last)).await.unwrap();
        times().await
    }
}

async fn what_a_blind_standby_fetches_later_is_written_once(log: Log) {
    let first = Process::start(&log);
    first.active().await;
    let standby = Process::start(&log);
    first.offer(0, 1..=10);
    standby.offer(0, 1..=10);
    first.offer(0, 11..=110);
    first.stop().await;
    standby.active().await;
    standby.offer(0, 11..=60);
    standby.repeated(50).await;
    standby.offer(0, 61..=112);
    assert_eq!(told(&log, 112).await, (1..=112).collect::<Vec<_>>());
    assert_eq!(standby.publisher.counts().repeated.load(Ordering::Relaxed), 100);
    standby.stop().await;
}

async fn a_day_that_is_replayed_to_who_starts_is_written_once(log: Log) {
    let first = Process::start(&log);
    first.active().await;
    first.offer(0, 1..=50);
    first.stop().await;
    let second = Process::start(&log);
    second.active().await;
    second.offer(0, 1..=20);
    second.repeated(20).await;
    second.offer(0, 21..=52);
    assert_eq!(told(&log, 52).await, (1..=52).collect::<Vec<_>>());
    second.stop().await;
    let third = Process::start(&log);
    third.active().await;
    third.offer(NEXT_DAY, 1..=3);
    let next_day = (1..=3).map(|id| NEXT_DAY + id);
    let all = told(&log, NEXT_DAY + 3).await;
    assert_eq!(all, (1..=52).chain(next_day).collect::<Vec<_>>(), "ids that start again are other trades");
    third.stop().await;
}

async fn a_day_that_is_replayed_across_a_take_over_is_written_once(log: Log) {
    let first = Process::start(&log);
    first.active().await;
    first.offer(0, 1..=50);
    let standby = Process::start(&log);
    standby.offer(0, 1..=20);
    first.stop().await;
    standby.offer(0, 21..=30);
    standby.active().await;
    standby.offer(0, 31..=40);
    standby.repeated(10).await;
    standby.offer(0, 41..=55);
    assert_eq!(told(&log, 55).await, (1..=55).collect::<Vec<_>>());
    standby.stop().await;
}

async fn a_last_trade_is_found_behind_what_tells_only_of_the_channels_state(log: Log) {
    let first = Process::start(&log);
    first.active().await;
    first.offer(0, 1..=2);
    first.publisher.offer_all((3..=40).map(|ts| event(ts, "channel_status", &json!({}))));
    first.stop().await;
    let second = Process::start(&log);
    second.active().await;
    second.offer(0, 1..=1);
    second.repeated(1).await;
    second.offer(0, 2..=2);
    second.offer(100, 3..=3);
    assert_eq!(told(&log, 103).await, (1..=40).chain([103]).collect::<Vec<_>>());
    second.stop().await;
}
