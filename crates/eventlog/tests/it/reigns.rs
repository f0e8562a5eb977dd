//! What becomes of events that were not in the log yet when a reign ended, and of what a process never heard.

use std::sync::Arc;
use std::time::Duration;

use akis_eventlog::{
    Event, From, Hearing, MemoryStore, Publisher, PublisherConfig, PublisherHandle, RedisStore, Replica, ReplicaConfig,
    Role, Sink, Store,
};
use akis_model::{Body, ErrorCode, Outcome, Seq};
use akis_testkit::{Direction, Proxy, RedisServer, wait_until};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::contract::on_both_stores;
use crate::log::{Log, channel, history};

const SOON: Duration = Duration::from_secs(20);
const TRADES: &str = "v:S:trades";
const TICKER: &str = "v:S:ticker";

on_both_stores! {
    a_process_that_heard_nothing_before_tells_what_may_be_missing
    what_is_told_of_channels_later_comes_behind_how_they_were
    a_deaf_process_leaves_its_channels_to_one_that_hears
}

struct Process {
    publisher: PublisherHandle,
    running: JoinHandle<()>,
    stop: CancellationToken,
}

impl Process {
    fn start(store: &Arc<dyn Store>) -> Self {
        let stop = CancellationToken::new();
        let config = PublisherConfig { ttl: Duration::from_secs(3), ..PublisherConfig::new("v") };
        let (publisher, running) = Publisher::start(Arc::clone(store), config, stop.clone());
        [TRADES, TICKER].iter().for_each(|name| publisher.declare(&channel(name)));
        Self { publisher, running, stop }
    }

    async fn is(&self, role: Role) {
        tokio::time::timeout(SOON, self.publisher.role().wait_for(|now| *now == role)).await.unwrap().unwrap();
    }

    fn offer(&self, name: &str, id: i64, missing_before: u64) {
        let channel = channel(name);
        let body = Body::render(id, "trade", &channel, Outcome::Ok, &json!({ "id": id.to_string() })).unwrap();
        self.publisher.offer(Event { channel, body, missing_before });
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

fn status(name: &str, at: i64, state: &str) -> Event {
    let channel = channel(name);
    let outcome = if state == "up" { Outcome::Ok } else { Outcome::Failed(ErrorCode::DataUnavailable) };
    let body = Body::render(at, "channel_status", &channel, outcome, &json!({ "state": state })).unwrap();
    Event { channel, body, missing_before: 0 }
}

/// The times of the log's events.
async fn told(store: &dyn Store, name: &str) -> Vec<i64> {
    let entries = history(store, name).await.entries;
    entries.into_iter().map(|entry| Body::parse(entry.body, &channel(name)).unwrap().ts_ms()).collect()
}

async fn until_told(store: &dyn Store, name: &str, last: i64) {
    let is_there = async || told(store, name).await.last() == Some(&last);
    wait_until(SOON, "the last event is there", is_there).await.unwrap();
}

/// A server, a way to it, and a way to it that can be cut off.
async fn two_ways() -> (RedisServer, Arc<dyn Store>, Proxy, Arc<dyn Store>) {
    let server = RedisServer::start().await.unwrap();
    let proxy = Proxy::start(server.address()).await.unwrap();
    let direct: Arc<dyn Store> = RedisStore::connect(&server.url(), "akis", 1).await.unwrap();
    let through: Arc<dyn Store> =
        RedisStore::connect(&format!("redis://{}", proxy.address()), "akis", 1).await.unwrap();
    (server, direct, proxy, through)
}

#[tokio::test]
async fn what_was_in_flight_before_somebody_else_published_is_not_told_as_news() {
    let (_server, direct, proxy, through) = two_ways().await;
    let first = Process::start(&through);
    first.is(Role::Active).await;
    first.offer(TICKER, 1, 0);
    until_told(&*direct, TICKER, 1).await;
    let second = Process::start(&direct);
    proxy.blackhole(Direction::ToServer, true);
    first.offer(TICKER, 2, 0);
    first.is(Role::Away).await;
    second.is(Role::Active).await;
    second.offer(TICKER, 3, 0);
    until_told(&*direct, TICKER, 3).await;
    // Handed back in order, so that the first may go on where the second ended.
    second.stop().await;
    proxy.cut();
    proxy.blackhole(Direction::ToServer, false);
    first.is(Role::Active).await;
    first.offer(TICKER, 4, 0);
    until_told(&*direct, TICKER, 4).await;
    assert_eq!(told(&*direct, TICKER).await, [1, 3, 4]);
    first.stop().await;
}

#[tokio::test]
async fn who_took_a_lease_and_never_knew_does_not_vouch_for_its_holder() {
    let (server, direct, proxy, through) = two_ways().await;
    let first = Process::start(&direct);
    first.is(Role::Active).await;
    first.offer(TRADES, 1, 0);
    until_told(&*direct, TRADES, 1).await;
    let second = Process::start(&through);
    let owner = async || server.command(&["HGET", "{akis:lease:v}:term", "owner"]).await.unwrap();
    let before = owner().await;
    proxy.blackhole(Direction::ToClient, true);
    first.running.abort();
    wait_until(SOON, "the lease is taken", async || owner().await != before).await.unwrap();
    let clients = async || server.command(&["CLIENT", "LIST"]).await.unwrap();
    let connected = clients().await.matches("cmd=evalsha").count();
    proxy.cut();
    let is_cut = async || clients().await.matches("cmd=evalsha").count() < connected;
    wait_until(SOON, "the answer is lost", is_cut).await.unwrap();
    proxy.blackhole(Direction::ToClient, false);
    second.is(Role::Active).await;
    second.offer(TRADES, 9, 0);
    until_told(&*direct, TRADES, 9).await;
    assert_eq!(
        history(&*direct, TRADES).await.entries[1].previous,
        None,
        "nobody knows what the first had not written"
    );
    second.stop().await;
}

#[tokio::test]
async fn who_offers_is_told_of_a_log_that_may_have_lost_what_was_offered() {
    let memory = MemoryStore::new(1);
    let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&memory);
    let process = Process::start(&store);
    process.is(Role::Active).await;
    process.offer(TRADES, 1, 0);
    until_told(&*store, TRADES, 1).await;
    let mut role = process.publisher.role();
    role.mark_unchanged();
    memory.fail_over(None, 0);
    let name = channel("v:S:1m");
    let candle = json!({ "openTime": 60_000, "closed": true });
    let candle = Body::render(1, "candle_update", &name, Outcome::Ok, &candle).unwrap();
    process.publisher.keep_candles(&name, vec![candle]);
    tokio::time::timeout(SOON, role.changed()).await.unwrap().unwrap();
    assert_eq!(*role.borrow(), Role::Active, "the lease runs on");
    until_told(&*store, TRADES, 1).await;
    let is_kept = async || store.candles(&name, None, 9).await.unwrap().len() == 1;
    wait_until(SOON, "what found the log replaced is not lost itself", is_kept).await.unwrap();
    process.stop().await;
}

/// Lets everybody touch keys like these only.
async fn may_touch(log: &Log, keys: &[&str]) {
    let command: Vec<&str> = ["ACL", "SETUSER", "default", "resetkeys"].iter().chain(keys).copied().collect();
    log.server.as_ref().unwrap().command(&command).await.unwrap();
}

#[tokio::test]
async fn a_hole_before_an_event_in_flight_is_not_forgotten_when_it_is_written_later() {
    let log = Log::redis().await;
    let process = Process::start(&log.store);
    process.is(Role::Active).await;
    process.offer(TRADES, 1, 0);
    until_told(&*log.store, TRADES, 1).await;
    may_touch(&log, &[]).await;
    process.offer(TRADES, 5, 3);
    process.is(Role::Away).await;
    may_touch(&log, &["allkeys"]).await;
    until_told(&*log.store, TRADES, 5).await;
    let entries = history(&*log.store, TRADES).await.entries;
    assert_eq!(entries[1].previous, None, "it does not follow the one before");
    process.stop().await;
}

#[tokio::test]
async fn a_lease_is_not_handed_back_while_something_is_unwritten() {
    let log = Log::redis().await;
    let store = &log.store;
    for all in [true, false] {
        let process = Process::start(store);
        process.is(Role::Active).await;
        process.offer(TRADES, 1, 0);
        until_told(&**store, TRADES, 1).await;
        if !all {
            // Events are refused, and the lease is not.
            may_touch(&log, &["~akis:lease:*", "~{akis:lease:*"]).await;
            process.offer(TRADES, 2, 0);
        }
        process.stop().await;
        may_touch(&log, &["allkeys"]).await;
        let taken = store.take_lease("v", "another", Duration::from_millis(1), Hearing::Unknown).await;
        assert_eq!(taken.is_ok(), all, "{taken:?}");
    }
}

/// Told of nothing here.
struct Nobody;

impl Sink for Nobody {
    fn deliver(&self, _: akis_eventlog::Partition, _: &[akis_eventlog::Notice]) {}
}

async fn a_deaf_process_leaves_its_channels_to_one_that_hears(log: Log) {
    let store = &log.store;
    let (first, second) = (Process::start(store), Process::start(store));
    let (deaf, hears) = (Hearing::Deaf(Duration::from_secs(60)), Hearing::Hears(Duration::ZERO));
    // Whichever came first.
    wait_until(SOON, "one of them is active", async || {
        [&first, &second].iter().any(|process| *process.publisher.role().borrow() == Role::Active)
    })
    .await
    .unwrap();
    let is_first = *first.publisher.role().borrow() == Role::Active;
    let (one, other) = if is_first { (first, second) } else { (second, first) };
    for last in 1..=3 {
        let (talks, waits) = if last % 2 == 1 { (&one, &other) } else { (&other, &one) };
        talks.is(Role::Active).await;
        talks.offer(TRADES, last, 0);
        until_told(&**store, TRADES, last).await;
        talks.publisher.set_hearing(deaf);
        waits.publisher.set_hearing(hears);
        waits.is(Role::Active).await;
        talks.is(Role::Standby).await;
    }
    assert_eq!(told(&**store, TRADES).await, [1, 2, 3]);
    other.stop().await;
    one.is(Role::Active).await;
    one.stop().await;
}

async fn what_is_told_of_channels_later_comes_behind_how_they_were(log: Log) {
    let process = Process::start(&log.store);
    process.is(Role::Active).await;
    // More than are written by one call.
    let names: Vec<String> = (0..600).map(|n| format!("v:S{n}:ticker")).collect();
    process.publisher.offer_states(names.iter().map(|name| status(name, 1, "down")));
    for (at, state) in [(2, "down"), (3, "up")] {
        process.publisher.offer_all(names.iter().map(|name| status(name, at, state)));
    }
    process.stop().await;
    for name in names {
        assert_eq!(told(&*log.store, &name).await, [1, 3], "{name}: in order, and nothing twice");
    }
}

async fn a_process_that_heard_nothing_before_tells_what_may_be_missing(log: Log) {
    let store = &log.store;
    let first = Process::start(store);
    first.is(Role::Active).await;
    first.offer(TRADES, 1, 1);
    until_told(&**store, TRADES, 1).await;
    assert_eq!(
        history(&**store, TRADES).await.entries[0].previous,
        Some(Seq::ZERO),
        "nothing was before the first one"
    );
    first.stop().await;

    let second = Process::start(store);
    second.is(Role::Active).await;
    second.offer(TRADES, 2, 1);
    until_told(&**store, TRADES, 2).await;
    let entries = history(&**store, TRADES).await.entries;
    assert_eq!(entries[1].previous, Some(entries[0].seq), "nothing fits between 1 and 2");
    second.stop().await;

    let third = Process::start(store);
    third.is(Role::Active).await;
    let stop = CancellationToken::new();
    let replica = Replica::start(Arc::clone(store), ReplicaConfig::new("g"), Arc::new(Nobody), stop.clone());
    let resume = async |after| {
        let mut result = None;
        replica.join(&channel(TRADES), From::After(after), |joined| result = Some(joined.recovered)).await.unwrap();
        result
    };
    let marked = async || history(&**store, TRADES).await.told.filter(|told| told.contains(&entries[1].seq));
    wait_until(SOON, "the term is announced", async || marked().await.is_some()).await.unwrap();
    let marker = *marked().await.unwrap().end();
    assert_eq!(resume(marker).await, Some(true), "nothing is known to be missing yet");
    third.offer(TRADES, 4, 1);
    until_told(&**store, TRADES, 4).await;
    let last = history(&**store, TRADES).await.entries.pop().unwrap();
    assert_eq!((last.previous, last.seq), (None, marker.plus(2)), "3 may have been: told as a gap behind the term");
    assert_eq!(resume(marker).await, Some(false), "nor is it hidden from who comes back");
    assert_eq!(resume(entries[1].seq).await, Some(false));
    stop.cancel();
    third.stop().await;
}
