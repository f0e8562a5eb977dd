//! A normalizer that is paused for longer than its lease, and goes on when another has taken over.

use std::collections::BTreeMap;

use akis_testkit::{Direction, Process, wait_until};
use serde_json::Value;

use crate::cli::akis;
use crate::follower::{Follower, finish_all, wait_for_all};
use crate::system::{Options, SOON, System, token};

const SYMBOLS: [&str; 2] = ["BTCUSDT", "ETHUSDT"];
const TRADES: &str = "binance:BTCUSDT:trades";
const CHANNELS: [&str; 4] = [TRADES, "binance:BTCUSDT:book", "binance:ETHUSDT:trades", "binance:ETHUSDT:book"];

/// The numbers of one stand-in lie closer together than this, those of two further apart.
const APART: u64 = 100_000;

/// A stand-in whose numbers lie elsewhere, and its address.
async fn second_venue() -> (Process, String) {
    let dir = tempfile::tempdir().unwrap();
    let args = ["sim", "binance", "--listen", "127.0.0.1:0", "--rate", "100", "--seed", "2", "--symbols"];
    let mut venue = Process::start(akis(dir.path()).args(args).arg(SYMBOLS.join(","))).unwrap();
    let line = venue.wait_for_line("rest_url: http://", SOON).await.unwrap();
    (venue, line.trim_start_matches("rest_url: http://").to_owned())
}

/// The events of a stream of the log, in its order.
async fn events(system: &System, key: &str) -> Vec<Value> {
    let entries = system.redis.command(&["XRANGE", key, "-", "+"]).await.unwrap();
    let bodies = entries.lines().filter(|line| line.starts_with("\"ts\":"));
    bodies.map(|body| serde_json::from_str(&format!("{{{body}")).unwrap()).collect()
}

/// The venue's own number of an event, by which one can tell from which stand-in it came.
fn number(event: &Value) -> u64 {
    let data = &event["data"];
    let number = if event["event"] == "trade" { &data["id"] } else { &data["venueSeq"] };
    number.as_str().unwrap_or_else(|| panic!("an event without a number: {event}")).parse().unwrap()
}

/// Asserts that behind the first event of the second stand-in there is none of the first; gives how many there are of each.
#[track_caller]
fn assert_handed_over(events: &[Value], firsts: &BTreeMap<&str, u64>, stream: &str) -> (usize, usize) {
    let is_of_first = |event: &Value| number(event).abs_diff(firsts[event["channel"].as_str().unwrap()]) < APART;
    let end = events.iter().position(|event| !is_of_first(event)).unwrap_or(events.len());
    let late: Vec<&Value> = events[end..].iter().filter(|event| is_of_first(event)).collect();
    assert!(late.is_empty(), "{stream} has {} events of the paused one, such as {}", late.len(), late[0]);
    (end, events.len() - end)
}

#[tokio::test]
async fn a_normalizer_that_slept_through_its_lease_adds_nothing() {
    let options = Options { gateways: 0, kinds: &["trades", "book"], proxied: true, ..Options::default() };
    let mut system = System::start(options).await;
    // Only the first normalizer goes through the proxy, and only the second looks at this venue.
    let direct = system.redis.url();
    let (_venue, address) = second_venue().await;
    let (ws_url, rest_url) = (format!("ws://{address}"), format!("http://{address}"));
    let env = [
        ("AKIS_REDIS__URL", direct.as_str()),
        ("AKIS_VENUES__BINANCE__WS_URL", &ws_url),
        ("AKIS_VENUES__BINANCE__REST_URL", &rest_url),
    ];
    let mut second = system.start_role(&["normalizer"], &env).await;
    let gateway = system.start_gateway_with(&env[..1]).await;
    let followers = vec![Follower::start(vec![gateway.door.clone()], token("a", &["binance:*"], &[]), &CHANNELS)];
    let mut firsts = BTreeMap::new();
    for channel in CHANNELS {
        system.wait_for_events(channel, 3).await;
        firsts.insert(channel, number(&events(&system, &system.history_key(channel)).await[0]));
    }

    // What the first one writes now is under way when it is paused, and arrives when another has taken over.
    system.proxy.as_ref().unwrap().blackhole(Direction::ToServer, true);
    let offered = system.normalizers[0].metric("akis_normalizer_events_total").await;
    wait_until(SOON, "events are under way", async || {
        system.normalizers[0].metric("akis_normalizer_events_total").await > offered + 20.0
    })
    .await
    .unwrap();
    system.normalizers[0].process.pause().unwrap();
    second.process.wait_for_line("lease taken", SOON).await.unwrap();
    let taken_at = system.history(TRADES).await.len();
    system.wait_for_events(TRADES, taken_at + 10).await;
    system.proxy.as_ref().unwrap().blackhole(Direction::Both, false);
    system.normalizers[0].process.resume().unwrap();
    let first = &mut system.normalizers[0].process;
    first.wait_for_line("another publisher has the lease: standing by", SOON).await.unwrap();
    let resumed_at = system.history(TRADES).await.len();
    system.wait_for_events(TRADES, resumed_at + 20).await;

    for channel in CHANNELS {
        let events = events(&system, &system.history_key(channel)).await;
        let (of_first, of_second) = assert_handed_over(&events, &firsts, channel);
        assert!(of_first > 0 && of_second > 0, "{channel}: {of_first} and {of_second} events");
    }
    for feed in system.feed_keys() {
        assert_handed_over(&events(&system, &feed).await, &firsts, &feed);
    }
    let goal = system.history(TRADES).await.into_keys().last().unwrap();
    wait_for_all(&followers, "all events have come", |record| record.has_reached(TRADES, goal)).await;
    for record in finish_all(followers).await {
        for channel in CHANNELS {
            let report = record.check(channel, &system.history(channel).await);
            assert_eq!((&report.violations, report.restarts), (&vec![], 0), "{channel}");
            // What the first one still held of trades went with it; of books the newest is all that counts.
            let gaps = usize::from(channel.ends_with(":trades"));
            assert_eq!(report.missing.len(), gaps, "{channel}: {:?}", report.missing);
        }
    }
}
