//! A normalizer that vanishes under load: its standby has seen the same trades, so none is missing and none comes twice.

use akis_testkit::wait_until;
use serde_json::Value;

use crate::follower::{Follower, finish_all, wait_for_all};
use crate::system::{Options, Role, SOON, System, token};

const CHANNELS: [&str; 2] = ["binance:BTCUSDT:trades", "binance:ETHUSDT:trades"];

/// The venue's ids of the trades of a channel, in the order of the log.
async fn ids(system: &System, channel: &str) -> Vec<u64> {
    let events = system.history(channel).await.into_values();
    let trades = events.filter(|event: &Value| event["event"] == "trade");
    trades.map(|trade| trade["data"]["id"].as_str().unwrap().parse().unwrap()).collect()
}

/// Two normalizers look at one venue; `end` ends the one that publishes.
async fn assert_nothing_is_missing_after(end: impl FnOnce(&mut Role)) {
    let options = Options { normalizers: 2, kinds: &["trades"], rate: 400, ..Options::default() };
    let mut system = System::start(options).await;
    let door = system.gateways[0].door.clone();
    let followers = vec![Follower::start(vec![door], token("a", &["binance:*"], &[]), &CHANNELS)];
    for channel in CHANNELS {
        system.wait_for_events(channel, 20).await;
    }
    wait_until(SOON, "the standby is warm", async || {
        system.normalizers[1].metric("akis_normalizer_events_total").await > 50.0
    })
    .await
    .unwrap();

    end(&mut system.normalizers[0]);
    system.normalizers[1].process.wait_for_line("lease taken", SOON).await.unwrap();
    for channel in CHANNELS {
        let taken_at = system.history(channel).await.len();
        system.wait_for_events(channel, taken_at + 20).await;
        let ids = ids(&system, channel).await;
        let jumps: Vec<_> = ids.windows(2).filter(|pair| pair[1] != pair[0] + 1).collect();
        assert_eq!(jumps, Vec::<&[u64]>::new(), "{channel} of {} trades", ids.len());
    }
    for channel in CHANNELS {
        let goal = system.history(channel).await.into_keys().last().unwrap();
        wait_for_all(&followers, "all events have come", |record| record.has_reached(channel, goal)).await;
    }
    for record in finish_all(followers).await {
        for channel in CHANNELS {
            let report = record.check(channel, &system.history(channel).await);
            assert_eq!((report.violations, report.missing, report.restarts), (vec![], vec![], 0), "{channel}");
        }
    }
}

#[tokio::test]
async fn no_trade_is_missing_when_the_publisher_is_killed() {
    assert_nothing_is_missing_after(|publisher| publisher.process.kill()).await;
}

#[tokio::test]
async fn no_trade_is_missing_when_the_publisher_is_stopped() {
    assert_nothing_is_missing_after(|publisher| publisher.process.pause().unwrap()).await;
}
