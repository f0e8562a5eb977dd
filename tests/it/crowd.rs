//! Several followers of one system at once: started, waited for, and checked against history.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::follower::{Follower, Record, is_event, wait_for_all};
use crate::system::{System, token};

/// Starts clients whose first door is each of the system's doors in turn.
pub(crate) fn start_followers(system: &System, count: usize, channels: &[&str]) -> Vec<Follower> {
    let start = |number: usize| {
        let mut doors = system.doors();
        let first = number % doors.len();
        doors.rotate_left(first);
        Follower::start(doors, token(&format!("client-{number}"), &["*"], &[]), channels)
    };
    (0..count).map(start).collect()
}

/// Waits until each client was told of everything up to an event of each channel that is at least the `count`th to come.
pub(crate) async fn see_more(system: &System, followers: &[Follower], channels: &[&str], count: usize) {
    for channel in channels {
        let present = system.history(channel).await.len();
        system.wait_for_events(channel, present + count).await;
        let Some(last) = system.history(channel).await.keys().next_back().copied() else { continue };
        wait_for_all(followers, &format!("{channel} was read"), |record| record.has_reached(channel, last)).await;
    }
}

/// Waits until each client was told of everything. Nothing may be published any more.
pub(crate) async fn see_all(system: &System, followers: &[Follower], channels: &[&str]) {
    see_more(system, followers, channels, 0).await;
}

/// Each client was told the whole history of the channel, each event once, and of no loss.
#[track_caller]
pub(crate) fn assert_complete(channel: &str, records: &[Record], history: &BTreeMap<u64, Value>) {
    for record in records {
        let report = record.check(channel, history);
        let told: Vec<_> = record.of(channel).filter(|envelope| !is_event(envelope)).collect();
        assert_eq!(report.missing, Vec::new(), "{channel}: nothing is told to be missing, but {told:?}");
        assert_eq!(report.restarts, 0, "{channel}: the subscription goes on, but {told:?}");
    }
    assert_delivered(channel, records, history);
}

/// Each client was told the whole history of the channel, each event once, whatever else it was told.
#[track_caller]
pub(crate) fn assert_delivered(channel: &str, records: &[Record], history: &BTreeMap<u64, Value>) {
    let whole: BTreeSet<u64> = history.keys().copied().collect();
    for record in records {
        let report = record.check(channel, history);
        assert_eq!(report.violations, Vec::<String>::new(), "{channel}");
        assert_eq!(report.delivered, whole, "{channel}");
    }
}

/// What was acknowledged to a publisher is in history under its position, and no event is there twice.
#[track_caller]
pub(crate) fn assert_kept(channel: &str, acknowledged: &BTreeMap<u64, u64>, history: &BTreeMap<u64, Value>) {
    let number = |envelope: &Value| envelope["data"]["number"].as_u64().unwrap();
    let kept: BTreeMap<u64, u64> = history.iter().map(|(seq, envelope)| (*seq, number(envelope))).collect();
    assert_eq!(kept, *acknowledged, "{channel}");
}

/// No trade of the venue is in history twice, or before an older one.
#[track_caller]
pub(crate) fn assert_each_trade_once(channel: &str, history: &BTreeMap<u64, Value>) {
    let trades = history.values().filter(|envelope| envelope["event"] == "trade");
    let ids: Vec<u64> = trades.map(|trade| trade["data"]["id"].as_str().unwrap().parse().unwrap()).collect();
    assert!(ids.is_sorted_by(|before, after| before < after), "{channel}: {ids:?}");
}
