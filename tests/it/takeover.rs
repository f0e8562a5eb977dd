//! A normalizer that vanishes under load: its standby has seen the same trades, so none is missing and none comes twice.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use akis_testkit::{Direction, Proxy, wait_until};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::bist::told;
use crate::follower::{Follower, finish_all, wait_for_all};
use crate::system::{Options, Role, SOON, System, token};

/// The venue's ids of the trades of a channel, in the order of the log.
async fn ids(system: &System, channel: &str) -> Vec<u64> {
    let events = system.history(channel).await.into_values();
    let trades = events.filter(|event: &Value| event["event"] == "trade");
    trades.map(|trade| trade["data"]["id"].as_str().unwrap().parse().unwrap()).collect()
}

/// Waits until a normalizer has heard its venue for a while.
async fn wait_until_warm(role: &Role) {
    let hears = async || role.metric("akis_normalizer_events_total").await > 50.0;
    wait_until(SOON, "it hears the venue", hears).await.unwrap();
}

/// Two normalizers look at one venue; `end` ends the one that publishes. `check` is given the ids of a channel's trades.
async fn assert_nothing_is_missing_after(
    end: impl FnOnce(&mut Role),
    mut system: System,
    channels: [&str; 2],
    check: impl AsyncFn(&str, &[u64]),
) {
    let door = system.gateways[0].door.clone();
    let followers = vec![Follower::start(vec![door], token("a", &["*"], &[]), &channels)];
    for channel in channels {
        system.wait_for_events(channel, 20).await;
    }
    wait_until_warm(&system.normalizers[1]).await;

    end(&mut system.normalizers[0]);
    system.normalizers[1].process.wait_for_line("lease taken", SOON).await.unwrap();
    for channel in channels {
        let taken_at = system.history(channel).await.len();
        system.wait_for_events(channel, taken_at + 20).await;
        check(channel, &ids(&system, channel).await).await;
    }
    for channel in channels {
        let goal = system.history(channel).await.into_keys().last().unwrap();
        wait_for_all(&followers, "all events have come", |record| record.has_reached(channel, goal)).await;
    }
    for record in finish_all(followers).await {
        for channel in channels {
            let report = record.check(channel, &system.history(channel).await);
            assert_eq!((report.violations, report.missing, report.restarts), (vec![], vec![], 0), "{channel}");
        }
    }
}

/// Binance counts its trades.
#[track_caller]
fn assert_dense(channel: &str, ids: &[u64]) {
    let jumps: Vec<_> = ids.windows(2).filter(|pair| pair[1] != pair[0] + 1).collect();
    assert_eq!(jumps, Vec::<&[u64]>::new(), "{channel} of {} trades", ids.len());
}

async fn assert_binance_goes_on_after(end: impl FnOnce(&mut Role)) {
    let options = Options { normalizers: 2, kinds: &["trades"], rate: 400, ..Options::default() };
    let channels = ["binance:BTCUSDT:trades", "binance:ETHUSDT:trades"];
    assert_nothing_is_missing_after(end, System::start(options).await, channels, async |channel, ids| {
        assert_dense(channel, ids)
    })
    .await;
}

/// Every trade that BtcTurk told of, by a client that knows nothing of normalizers.
struct Told {
    trades: Arc<Mutex<BTreeSet<(String, u64)>>>,
    _stop: DropGuard,
}

impl Told {
    async fn follow(venue: &str, pairs: &[&str]) -> Self {
        let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{venue}/")).await.unwrap();
        for pair in pairs {
            let join = json!([151, {"type": 151, "channel": "trade", "event": pair, "join": true}]);
            socket.send(Message::text(join.to_string())).await.unwrap();
        }
        let (trades, stop) = (Arc::<Mutex<BTreeSet<(String, u64)>>>::default(), CancellationToken::new());
        let (seen, stopped) = (Arc::clone(&trades), stop.clone());
        let reading = async move {
            while let Some(Ok(message)) = socket.next().await {
                let Message::Text(text) = message else { continue };
                let frame: Value = serde_json::from_str(&text).unwrap();
                let pair = frame[1]["event"].as_str().unwrap_or_default();
                let items = match frame[0].as_i64() {
                    Some(421) => frame[1]["items"].as_array().unwrap().clone(),
                    Some(422) => vec![frame[1].clone()],
                    _ => Vec::new(),
                };
                let told = items.iter().map(|item| (pair.to_owned(), item["I"].as_str().unwrap().parse().unwrap()));
                seen.lock().unwrap().extend(told);
            }
        };
        tokio::spawn(stopped.run_until_cancelled_owned(reading));
        Self { trades, _stop: stop.drop_guard() }
    }

    fn of(&self, pair: &str) -> BTreeSet<u64> {
        self.trades.lock().unwrap().iter().filter(|(of, _)| of == pair).map(|(_, id)| *id).collect()
    }
}

/// BtcTurk's ids only rise, so they are compared with those that it told.
async fn assert_btcturk_goes_on_after(end: impl FnOnce(&mut Role)) {
    let (venue, symbols) = ("btcturk", &["BTCTRY", "ETHTRY"]);
    let options = Options { venue, symbols, normalizers: 2, kinds: &["trades"], rate: 200, ..Options::default() };
    let system = System::start(options).await;
    let told = Told::follow(&system.venue, symbols).await;
    let channels = ["btcturk:BTCTRY:trades", "btcturk:ETHTRY:trades"];
    assert_nothing_is_missing_after(end, system, channels, async |channel, ids| {
        assert!(ids.is_sorted_by(|a, b| a < b), "{channel}: each once and in order, {ids:?}");
        let [first, .., last] = ids else { panic!("{channel}: {ids:?}") };
        let told = told.of(channel.split(':').nth(1).unwrap());
        let missing: Vec<_> = told.range(first..=last).filter(|id| !ids.contains(id)).collect();
        assert_eq!(missing, Vec::<&u64>::new(), "{channel} of {} trades", ids.len());
        assert!(told.range(first..=last).count() > 40, "{channel}: the venue told of so many");
    })
    .await;
}

/// Borsa Istanbul tells the whole session again to whoever asks.
async fn assert_bist_goes_on_after(end: impl FnOnce(&mut Role)) {
    let (venue, symbols) = ("bist", &["THYAO", "GARAN"]);
    let options = Options { venue, symbols, normalizers: 2, kinds: &["trades"], rate: 300, ..Options::default() };
    let system = System::start(options).await;
    let (soup, channels) = (system.venue.clone(), ["bist:THYAO:trades", "bist:GARAN:trades"]);
    assert_nothing_is_missing_after(end, system, channels, async |channel, ids| {
        let [first, .., last] = ids else { panic!("{channel}: {ids:?}") };
        let told = told(&soup, &format!("{}.E", channel.split(':').nth(1).unwrap()), *last).await;
        let from = told.iter().position(|id| id == first).expect("a trade of the exchange");
        assert_eq!(ids, &told[from..], "{channel}: each once and in the order of the exchange");
    })
    .await;
}

#[tokio::test]
async fn no_trade_is_missing_when_the_publisher_is_killed() {
    assert_binance_goes_on_after(|publisher| publisher.process.kill()).await;
}

#[tokio::test]
async fn no_trade_is_missing_when_the_publisher_is_stopped() {
    assert_binance_goes_on_after(|publisher| publisher.process.pause().unwrap()).await;
}

#[tokio::test]
async fn no_trade_of_btcturk_is_missing_when_the_publisher_is_killed() {
    assert_btcturk_goes_on_after(|publisher| publisher.process.kill()).await;
}

#[tokio::test]
async fn no_trade_of_btcturk_is_missing_when_the_publisher_is_stopped() {
    assert_btcturk_goes_on_after(|publisher| publisher.process.pause().unwrap()).await;
}

#[tokio::test]
async fn no_trade_of_bist_is_missing_when_the_publisher_is_killed() {
    assert_bist_goes_on_after(|publisher| publisher.process.kill()).await;
}

#[tokio::test]
async fn no_trade_of_bist_is_missing_when_the_publisher_is_stopped() {
    assert_bist_goes_on_after(|publisher| publisher.process.pause().unwrap()).await;
}

#[tokio::test]
async fn who_is_killed_is_missed_before_its_lease_has_run_out() {
    let mut system = System::start(Options { normalizers: 2, kinds: &["trades"], ..Options::default() }).await;
    let seen = async || system.redis.command(&["HGET", "{akis:lease:binance}:term", "seen"]).await.unwrap();
    wait_until(SOON, "the one that publishes has been seen", async || !seen().await.trim().is_empty()).await.unwrap();
    // A day: it does not run out while this test runs.
    system.redis.command(&["PEXPIRE", "akis:lease:binance", "86400000"]).await.unwrap();
    system.normalizers[0].process.kill();
    system.normalizers[1].process.wait_for_line("lease taken", SOON).await.unwrap();
}

#[tokio::test]
async fn of_three_the_last_one_goes_on_where_the_others_ended() {
    let mut system = System::start(Options { normalizers: 3, kinds: &["trades"], ..Options::default() }).await;
    let channels = ["binance:BTCUSDT:trades", "binance:ETHUSDT:trades"];
    while !system.normalizers.is_empty() {
        for role in &system.normalizers {
            wait_until_warm(role).await;
        }
        let mut active = None;
        wait_until(SOON, "one of them publishes", async || {
            for (number, role) in system.normalizers.iter().enumerate() {
                if role.metric("akis_publisher_active").await > 0.0 {
                    active = Some(number);
                }
            }
            active.is_some()
        })
        .await
        .unwrap();
        for channel in channels {
            let taken_at = system.history(channel).await.len();
            system.wait_for_events(channel, taken_at + 20).await;
            assert_dense(channel, &ids(&system, channel).await);
        }
        system.normalizers.remove(active.unwrap()).process.kill();
    }
}

#[tokio::test]
async fn a_publisher_that_no_longer_hears_its_venue_leaves_it_to_one_that_does() {
    let mut system = System::start(Options { kinds: &["trades"], ..Options::default() }).await;
    let way = Proxy::start(system.venue.parse().unwrap()).await.unwrap();
    let (ws_url, rest_url) = (format!("ws://{}", way.address()), format!("http://{}", way.address()));
    let env = [("AKIS_VENUES__BINANCE__WS_URL", ws_url.as_str()), ("AKIS_VENUES__BINANCE__REST_URL", &rest_url)];
    let mut deaf = system.start_role(&["normalizer"], &env).await;
    wait_until_warm(&deaf).await;
    system.stop_normalizer(0).await;
    deaf.process.wait_for_line("lease taken", SOON).await.unwrap();
    let mut other = system.start_normalizer().await;
    wait_until_warm(&other).await;

    way.blackhole(Direction::ToClient, true);
    deaf.process.wait_for_line("the lease is left to it", SOON).await.unwrap();
    other.process.wait_for_line("lease taken", SOON).await.unwrap();
    for channel in ["binance:BTCUSDT:trades", "binance:ETHUSDT:trades"] {
        let status = async || {
            let statuses =
                system.history(channel).await.into_values().filter(|event| event["event"] == "channel_status");
            statuses.map(|status| status["data"]["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        wait_until(SOON, "it is told to be up again", async || status().await == ["down", "up"]).await.unwrap();
        let taken_at = system.history(channel).await.len();
        system.wait_for_events(channel, taken_at + 20).await;
        assert_dense(channel, &ids(&system, channel).await);
    }
}
