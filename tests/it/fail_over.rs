//! A fail-over that loses the newest events, because the replica had not heard of them when it was promoted.

use std::collections::BTreeMap;

use akis_testkit::{Direction, LiveClient, Proxy, RedisServer, wait_until};
use serde_json::{Value, json};

use crate::follower::{Follower, finish_all, wait_for_all};
use crate::system::{Door, Options, SOON, System, token};

const TRADES: &str = "binance:BTCUSDT:trades";
const LEASED: [&str; 4] = [TRADES, "binance:BTCUSDT:ticker", "binance:ETHUSDT:trades", "binance:ETHUSDT:ticker"];
const JOB: &str = "job:1";

/// Events of the busiest channel that are lost at least.
const LOST: usize = 20;

/// Every event of some channels, by channel and position.
type Histories = BTreeMap<String, BTreeMap<u64, Value>>;

/// A replica of Redis that a proxy keeps in step, or does not.
struct Replica {
    server: RedisServer,
    link: Proxy,
}

impl Replica {
    /// Starts a system whose Redis has a replica. It is attached before there is a log: the first one makes another
    /// log of it.
    async fn start() -> (System, Self) {
        let (primary, server) = (RedisServer::start().await.unwrap(), RedisServer::start().await.unwrap());
        let link = Proxy::start(primary.address()).await.unwrap();
        server.replica_of(link.address()).await.unwrap();
        let system = System::start(Options { redis: Some(primary), proxied: true, ..Options::default() }).await;
        (system, Self { server, link })
    }

    /// Cuts the link, and waits until enough has been published behind it.
    async fn fall_behind(&self, system: &System) {
        self.link.blackhole(Direction::Both, true);
        let key = system.history_key(TRADES);
        wait_until(SOON, "the replica is behind", async || {
            let length = async |server: &RedisServer| server.command(&["XLEN", &key]).await.unwrap().parse::<usize>();
            let (ahead, behind) = (length(&system.redis).await, length(&self.server).await);
            ahead.unwrap() >= behind.unwrap() + LOST
        })
        .await
        .unwrap();
    }

    /// The primary dies, and the replica takes its place at the address that everybody knows.
    async fn take_over(self, system: &mut System) {
        system.redis.kill();
        self.link.cut();
        self.server.promote().await.unwrap();
        let front = system.proxy.as_ref().unwrap();
        front.set_target(self.server.address());
        front.cut();
        system.redis = self.server;
    }
}

async fn histories(system: &System, channels: &[&str]) -> Histories {
    let mut histories = Histories::new();
    for &channel in channels {
        histories.insert(channel.to_owned(), system.history(channel).await);
    }
    histories
}

fn last(history: &BTreeMap<u64, Value>) -> u64 {
    history.last_key_value().map_or(0, |(seq, _)| *seq)
}

/// Resumes every channel after a position: whether the server says that nothing is missing.
async fn resume(client: &mut LiveClient, after: &BTreeMap<String, u64>) -> BTreeMap<String, bool> {
    let channels: Vec<Value> =
        after.iter().map(|(channel, after)| json!({ "channel": channel, "after": after })).collect();
    client.send(&json!({ "type": "subscribe", "channels": channels })).await.unwrap();
    let mut recovered = BTreeMap::new();
    while recovered.len() < after.len() {
        let answer = client.next_event("subscribed", SOON).await.unwrap();
        recovered.insert(answer.channel().to_owned(), answer.data()["recovered"] == true);
    }
    recovered
}

/// Asserts that nobody believes these positions to be followed by what the log has.
async fn assert_not_recovered(doors: &[&Door], token: &str, positions: &[BTreeMap<String, u64>], when: &str) {
    for door in doors {
        for after in positions {
            let mut client = door.connect(token).await.unwrap();
            let recovered = resume(&mut client, after).await;
            assert!(recovered.values().all(|recovered| !recovered), "{when}, after {after:?}: {recovered:?}");
        }
    }
}

#[tokio::test]
async fn a_publisher_that_lives_heals_what_a_fail_over_lost() {
    let (mut system, replica) = Replica::start().await;
    let token = token("a", &["binance:*"], &[]);
    let door = system.gateways[0].door.clone();
    let followers: Vec<_> = (0..6).map(|_| Follower::start(vec![door.clone()], token.clone(), &LEASED)).collect();
    replica.fall_behind(&system).await;

    // One leaves with a position that only the primary has.
    let mut leaver = door.connect(&token).await.unwrap();
    leaver.send(&json!({ "type": "subscribe", "channels": [TRADES] })).await.unwrap();
    for _ in 0..3 {
        leaver.next_event("trade", SOON).await.unwrap();
    }
    let left_at = leaver.position(TRADES).unwrap();
    let before = histories(&system, &LEASED).await;
    replica.take_over(&mut system).await;
    assert!(!system.history(TRADES).await.contains_key(&left_at), "the tail was not lost");

    let healing = &mut system.normalizers[0].process;
    healing.wait_for_line("wrote again what the log had lost", SOON).await.unwrap();
    wait_until(SOON, "events go on", async || last(&system.history(TRADES).await) > last(&before[TRADES]) + 10)
        .await
        .unwrap();
    let mut returned = door.connect(&token).await.unwrap();
    let recovered = resume(&mut returned, &BTreeMap::from([(TRADES.to_owned(), left_at)])).await;
    assert!(recovered[TRADES], "what was lost is there again");
    let goal = histories(&system, &LEASED).await;
    wait_for_all(&followers, "all events have come", |record| {
        LEASED.iter().all(|channel| record.has_reached(channel, last(&goal[*channel])))
    })
    .await;
    returned.find(SOON, |envelope| envelope.seq() >= last(&goal[TRADES])).await.unwrap();

    let records = finish_all(followers).await;
    let after = histories(&system, &LEASED).await;
    for channel in LEASED {
        let lost = before[channel].iter().find(|(seq, event)| after[channel].get(seq) != Some(event));
        assert_eq!(lost, None, "{channel}: acknowledged, and not there any more");
        for record in &records {
            assert_eq!(record.connections.len(), 1, "nobody had to connect again");
            let report = record.check(channel, &after[channel]);
            assert_eq!((&report.violations, &report.missing, report.restarts), (&vec![], &vec![], 0), "{channel}");
        }
    }
    let report = akis_testkit::check_channel(TRADES, &[leaver.received(), returned.received()], &after[TRADES]);
    assert_eq!((&report.violations, &report.missing, report.restarts), (&vec![], &vec![], 0));
}

#[tokio::test]
async fn without_the_publisher_every_client_is_told_that_events_may_be_lost() {
    let channels = [LEASED.as_slice(), &[JOB]].concat();
    let (mut system, replica) = Replica::start().await;
    let token = token("a", &["binance:*", "job:*"], &["job:*"]);
    let door = system.gateways[0].door.clone();
    let followers: Vec<_> = (0..4).map(|_| Follower::start(vec![door.clone()], token.clone(), &channels)).collect();
    publish(&door, &token, 1).await;
    replica.fall_behind(&system).await;
    publish(&door, &token, 2).await;
    system.normalizers[0].process.kill();
    // Nobody writes any more. What had been sent before, Redis may still be reading; when two looks agree, this is all that there
    // ever was.
    let mut ever = histories(&system, &channels).await;
    wait_until(SOON, "Redis has read all", async || {
        let before = std::mem::replace(&mut ever, histories(&system, &channels).await);
        before == ever
    })
    .await
    .unwrap();
    let ends: BTreeMap<String, u64> = ever.iter().map(|(channel, history)| (channel.clone(), last(history))).collect();
    let has_all =
        |record: &crate::follower::Record| ends.iter().all(|(channel, end)| record.has_reached(channel, *end));
    wait_for_all(&followers, "all events have come", has_all).await;
    replica.take_over(&mut system).await;
    let kept: BTreeMap<String, u64> =
        histories(&system, &channels).await.iter().map(|(channel, history)| (channel.clone(), last(history))).collect();
    assert!(kept[TRADES] < ends[TRADES], "the tail was not lost");

    let second = system.start_gateway().await;
    let doors = [&door, &second.door];
    assert_not_recovered(&doors, &token, &[ends.clone(), kept.clone()], "before clients are told").await;
    wait_for_all(&followers, "all are told", |record| {
        channels.iter().all(|channel| record.of(channel).any(|envelope| envelope.event() == "gap"))
    })
    .await;
    assert_not_recovered(&doors, &token, &[ends.clone(), kept.clone()], "when clients have been told").await;

    publish(&door, &token, 3).await;
    let successor = system.start_normalizer().await;
    wait_until(SOON, "events go on", async || {
        let history = system.history(TRADES).await;
        history.range(ends[TRADES] + 1..).count() >= 10
    })
    .await
    .unwrap();
    assert_not_recovered(&doors, &token, &[ends, kept], "when another publishes").await;
    let after = histories(&system, &channels).await;
    wait_for_all(&followers, "all new events have come", |record| {
        channels.iter().all(|channel| record.has_reached(channel, last(&after[*channel])))
    })
    .await;
    drop(successor);

    let now = BTreeMap::from([(TRADES.to_owned(), last(&after[TRADES]))]);
    assert!(resume(&mut second.door.connect(&token).await.unwrap(), &now).await[TRADES], "new positions are good");
    let records = finish_all(followers).await;
    add_history(&mut ever, histories(&system, &channels).await);
    for (channel, history) in &ever {
        for record in &records {
            let report = record.check(channel, history);
            assert_eq!(report.violations, Vec::<String>::new(), "{channel}");
            assert!(!report.missing.is_empty(), "{channel}: not told");
        }
    }
}

/// Adds what a log has to what another one had: no position was given out twice.
#[track_caller]
fn add_history(ever: &mut Histories, now: Histories) {
    for (channel, events) in now {
        for (seq, event) in events {
            let known = ever.entry(channel.clone()).or_default().insert(seq, event.clone());
            assert!(known.is_none_or(|known| known == event), "{channel}: {seq} was given out twice");
        }
    }
}

async fn publish(door: &Door, token: &str, number: u64) {
    let item = json!({ "channel": JOB, "event": "job_progress", "data": { "progress": number } });
    wait_until(SOON, "an event is acknowledged", async || matches!(door.publish(token, &item).await, Ok((200, _))))
        .await
        .unwrap();
}
