//! Several gateways and normalizers on one log: what one of them cannot do any more, another does.

use std::collections::BTreeSet;

use akis_testkit::check_channel;

use crate::follower::{Follower, Publisher, Record, finish_all, wait_for_all};
use crate::system::{Options, SOON, System, token};

const TRADES: [&str; 2] = ["binance:BTCUSDT:trades", "binance:ETHUSDT:trades"];
const CHANNELS: [&str; 4] = [TRADES[0], TRADES[1], "job:1", "job:2"];

/// How many events of each channel are seen before the fault, and between it and the end.
const EVENTS: usize = 20;

/// Starts clients whose first door is each of the system's doors in turn.
fn start_followers(system: &System, count: usize, channels: &[&str]) -> Vec<Follower> {
    let start = |number: usize| {
        let mut doors = system.doors();
        let first = number % doors.len();
        doors.rotate_left(first);
        Follower::start(doors, token(&format!("client-{number}"), &["*"], &[]), channels)
    };
    (0..count).map(start).collect()
}

/// Waits until each client was told `count` more events of each channel than history holds now.
async fn see_more(system: &System, followers: &[Follower], channels: &[&str], count: usize) {
    for channel in channels {
        let present = system.history(channel).await.len();
        system.wait_for_events(channel, present + count).await;
        let last = *system.history(channel).await.keys().next_back().unwrap();
        wait_for_all(followers, &format!("{channel} was read"), |record| record.has_reached(channel, last)).await;
    }
}

/// Waits until each client has everything. Nothing may be published any more.
async fn see_all(system: &System, followers: &[Follower], channels: &[&str]) {
    see_more(system, followers, channels, 0).await;
}

/// Each client was told the whole history of the channel, each event once, and of no loss.
async fn assert_complete(system: &System, records: &[Record], channel: &str) {
    let history = system.history(channel).await;
    let whole: BTreeSet<u64> = history.keys().copied().collect();
    for record in records {
        let connections: Vec<_> = record.connections.iter().map(Vec::as_slice).collect();
        let report = check_channel(channel, &connections, &history);
        assert_eq!(report.violations, Vec::<String>::new(), "{channel}");
        assert_eq!((report.missing, report.restarts), (Vec::new(), 0), "{channel}");
        assert_eq!(report.delivered, whole, "{channel}");
    }
}

/// What was acknowledged is in history, and no event is there twice.
async fn assert_kept(system: &System, channel: &str, acknowledged: impl IntoIterator<Item = (u64, u64)>) {
    let history = system.history(channel).await;
    let kept: Vec<(u64, u64)> =
        history.iter().map(|(seq, envelope)| (*seq, envelope["data"]["number"].as_u64().unwrap())).collect();
    assert_eq!(kept, acknowledged.into_iter().collect::<Vec<_>>(), "{channel}");
}

#[tokio::test]
async fn clients_of_a_killed_gateway_resume_on_another_and_miss_nothing() {
    let mut system = System::start(Options { gateways: 2, kinds: &["trades"], ..Options::default() }).await;
    let publish = token("worker", &[], &["job:*"]);
    let publishers = ["job:1", "job:2"].map(|job| Publisher::start(system.doors(), publish.clone(), job));
    let followers = start_followers(&system, 50, &CHANNELS);
    see_more(&system, &followers, &CHANNELS, EVENTS).await;

    system.gateways[0].role.process.kill();
    see_more(&system, &followers, &CHANNELS, EVENTS).await;

    let mut acknowledged = Vec::new();
    for publisher in publishers {
        acknowledged.push(publisher.finish().await);
    }
    system.normalizers[0].process.terminate().unwrap();
    assert!(system.normalizers[0].process.wait(SOON).await.unwrap().success());
    see_all(&system, &followers, &CHANNELS).await;
    let records = finish_all(followers).await;
    let resumed = records.iter().filter(|record| record.connections.len() == 2).count();
    assert_eq!(resumed, 25, "the clients of the killed gateway, and no others, came back");
    for channel in CHANNELS {
        assert_complete(&system, &records, channel).await;
    }
    for (channel, acknowledged) in ["job:1", "job:2"].into_iter().zip(acknowledged) {
        assert_kept(&system, channel, acknowledged).await;
    }
}

#[tokio::test]
async fn an_orderly_hand_over_between_normalizers_is_told_as_a_term_and_loses_nothing() {
    let mut system = System::start(Options { normalizers: 2, ..Options::default() }).await;
    let channels = [TRADES[0], TRADES[1], "binance:BTCUSDT:ticker"];
    let followers = start_followers(&system, 4, &channels);
    see_more(&system, &followers, &channels, EVENTS).await;

    system.normalizers[0].process.terminate().unwrap();
    assert!(system.normalizers[0].process.wait(SOON).await.unwrap().success());
    let mut second = system.normalizers.pop().unwrap();
    second.process.wait_for_line("lease taken", SOON).await.unwrap();
    see_more(&system, &followers, &channels, EVENTS).await;

    second.process.terminate().unwrap();
    assert!(second.process.wait(SOON).await.unwrap().success());
    see_all(&system, &followers, &channels).await;
    let records = finish_all(followers).await;
    for channel in channels {
        assert_complete(&system, &records, channel).await;
        for record in &records {
            let terms = record.of(channel).filter(|envelope| envelope.event() == "term").count();
            assert_eq!(terms, 1, "{channel}: the change of the publisher is told once");
        }
    }
}
