//! Several gateways and normalizers on one log: what one of them cannot do any more, another does.

use crate::crowd::{assert_complete, assert_each_trade_once, assert_kept, see_all, see_more, start_followers};
use crate::follower::{Publisher, finish_all};
use crate::system::{Options, SOON, System, token};

const TRADES: [&str; 2] = ["binance:BTCUSDT:trades", "binance:ETHUSDT:trades"];
const JOBS: [&str; 2] = ["job:1", "job:2"];
const CHANNELS: [&str; 4] = [TRADES[0], TRADES[1], JOBS[0], JOBS[1]];

/// How many events of each channel are seen before the fault, and between it and the end.
const EVENTS: usize = 20;

#[tokio::test]
async fn clients_of_a_killed_gateway_resume_on_another_and_miss_nothing() {
    let mut system = System::start(Options { gateways: 2, kinds: &["trades"], ..Options::default() }).await;
    let publish = token("worker", &[], &["job:*"]);
    let publishers = JOBS.map(|job| Publisher::start(system.doors(), publish.clone(), job));
    let followers = start_followers(&system, 50, &CHANNELS);
    see_more(&system, &followers, &CHANNELS, EVENTS).await;

    system.gateways[0].role.process.kill();
    see_more(&system, &followers, &CHANNELS, EVENTS).await;

    let mut acknowledged = Vec::new();
    for publisher in publishers {
        acknowledged.push(publisher.finish().await);
    }
    system.stop_normalizer(0).await;
    see_all(&system, &followers, &CHANNELS).await;
    let records = finish_all(followers).await;
    let resumed = records.iter().filter(|record| record.connections.len() == 2).count();
    assert_eq!(resumed, 25, "the clients of the killed gateway, and no others, came back");
    for channel in CHANNELS {
        assert_complete(channel, &records, &system.history(channel).await);
    }
    for channel in TRADES {
        assert_each_trade_once(channel, &system.history(channel).await);
    }
    for (channel, acknowledged) in JOBS.into_iter().zip(acknowledged) {
        assert_kept(channel, &acknowledged, &system.history(channel).await);
    }
}

#[tokio::test]
async fn an_orderly_hand_over_between_normalizers_is_told_as_a_term_and_loses_nothing() {
    let mut system = System::start(Options { normalizers: 2, ..Options::default() }).await;
    let channels = [TRADES[0], TRADES[1], "binance:BTCUSDT:ticker"];
    let followers = start_followers(&system, 4, &channels);
    see_more(&system, &followers, &channels, EVENTS).await;

    system.stop_normalizer(0).await;
    system.normalizers[1].process.wait_for_line("lease taken", SOON).await.unwrap();
    see_more(&system, &followers, &channels, EVENTS).await;

    system.stop_normalizer(1).await;
    see_all(&system, &followers, &channels).await;
    let records = finish_all(followers).await;
    for channel in TRADES {
        assert_each_trade_once(channel, &system.history(channel).await);
    }
    for channel in channels {
        assert_complete(channel, &records, &system.history(channel).await);
        for record in &records {
            let terms = record.of(channel).filter(|envelope| envelope.event() == "term").count();
            assert_eq!(terms, 1, "{channel}: the change of the publisher is told once");
        }
    }
}
