//! A gateway that is asked to end while clients listen to it.

use std::path::Path;
use std::time::{Duration, Instant};

use akis_testkit::{ConnectError, Envelope, Process, check_channel, wait_until};
use serde_json::{Value, json};

use crate::cli::{akis, run};
use crate::follower::{Follower, finish_all, wait_for_all};
use crate::system::{Door, Options, SOON, System, token};

const CHANNELS: [&str; 6] = [
    "binance:BTCUSDT:ticker",
    "binance:BTCUSDT:trades",
    "binance:BTCUSDT:book",
    "binance:ETHUSDT:ticker",
    "binance:ETHUSDT:trades",
    "binance:ETHUSDT:book",
];

/// The configured drain time, and how much later the process may have ended on a busy machine.
const DRAIN: Duration = Duration::from_secs(2);
const MARGIN: Duration = Duration::from_secs(4);

/// A client that does what it is told: resumes elsewhere at once, then closes the old connection.
async fn move_over(from: Door, to: Door, token: String) -> [Vec<Envelope>; 2] {
    let mut old = from.connect(&token).await.unwrap();
    old.send(&json!({ "type": "subscribe", "channels": CHANNELS })).await.unwrap();
    old.next_event("draining", SOON).await.unwrap();
    let mut new = to.connect(&token).await.unwrap();
    let after: Vec<Value> =
        CHANNELS.iter().map(|channel| json!({ "channel": channel, "after": old.position(channel).unwrap() })).collect();
    new.send(&json!({ "type": "subscribe", "channels": after })).await.unwrap();
    old.close().await.unwrap();
    for _ in 0..200 {
        new.next(SOON).await.unwrap();
    }
    [old.received().to_vec(), new.received().to_vec()]
}

#[tokio::test]
async fn clients_of_a_gateway_that_ends_miss_nothing_elsewhere() {
    let config = format!("[gateway]\ndrain = \"{}s\"\n", DRAIN.as_secs());
    let kinds = &["ticker", "trades", "book"];
    let mut system = System::start(Options { gateways: 2, rate: 200, kinds, config, ..Options::default() }).await;
    let token = token("a", &["binance:*"], &[]);
    let doors: Vec<Door> = system.gateways.iter().map(|gateway| gateway.door.clone()).collect();
    let followers: Vec<_> = (0..20).map(|_| Follower::start(doors.clone(), token.clone(), &CHANNELS)).collect();
    let movers: Vec<_> =
        (0..3).map(|_| tokio::spawn(move_over(doors[0].clone(), doors[1].clone(), token.clone()))).collect();
    wait_for_all(&followers, "events come", |record| CHANNELS.iter().all(|channel| record.of(channel).count() > 10))
        .await;
    wait_until(SOON, "everybody has subscribed", async || {
        let all = (followers.len() + movers.len()) * CHANNELS.len();
        system.gateways[0].role.metric("akis_gateway_subscriptions").await == all as f64
    })
    .await
    .unwrap();

    let ending = &mut system.gateways[0].role;
    ending.process.terminate().unwrap();
    let asked_at = Instant::now();
    wait_until(SOON, "the gateway is not ready any more", async || !ending.is_ready().await).await.unwrap();
    match doors[0].connect(&token).await {
        Err(ConnectError::Refused { status, body }) => assert_eq!(status, 503, "{body}"),
        Err(error) => panic!("a newcomer was not answered: {error:#}"),
        Ok(_) => panic!("a newcomer was let in"),
    }
    let status = ending.process.wait(SOON).await.unwrap();
    let took = asked_at.elapsed();
    assert_eq!(status.code(), Some(0), "{}", ending.process.lines().join("\n"));
    assert!(took < DRAIN + MARGIN, "took {took:?}");

    let mut goals = Vec::new();
    for channel in CHANNELS {
        goals.push((channel, system.history(channel).await.into_keys().last().unwrap()));
    }
    wait_for_all(&followers, "all events have come", |record| {
        goals.iter().all(|(channel, goal)| record.has_reached(channel, *goal))
    })
    .await;
    let mut moved = Vec::new();
    for mover in movers {
        moved.push(mover.await.unwrap());
    }
    let records = finish_all(followers).await;
    for record in &records {
        assert_eq!(record.closes, [1001]);
        let told = record.connections[0].iter().find(|envelope| envelope.event() == "draining").unwrap().data();
        assert!(told["reconnectAfterMs"].as_u64() <= told["deadlineMs"].as_u64(), "{told}");
    }
    for channel in CHANNELS {
        let history = system.history(channel).await;
        let mut reports: Vec<_> = records.iter().map(|record| record.check(channel, &history)).collect();
        reports.extend(moved.iter().map(|[old, new]| check_channel(channel, &[old, new], &history)));
        for report in reports {
            assert_eq!((&report.violations, &report.missing, report.restarts), (&vec![], &vec![], 0), "{channel}");
        }
    }
}

/// Longer than any of these tests takes: what ends earlier was not waited for.
const LONG_DRAIN: &str = "[gateway]\ndrain = \"120s\"\n";

#[tokio::test]
async fn a_second_signal_ends_a_gateway_that_drains_at_once() {
    let config = LONG_DRAIN.to_owned();
    let kinds = &["candles"];
    let mut system = System::start(Options { gateways: 3, normalizers: 0, kinds, config, ..Options::default() }).await;
    let token = token("a", &["job:*"], &[]);
    for (number, gateway) in system.gateways.iter_mut().enumerate() {
        let mut client = gateway.door.connect(&token).await.unwrap();
        let process = &mut gateway.role.process;
        let signal = |process: &Process, is_first: bool| match (number, is_first) {
            (0, _) | (2, true) => process.terminate().unwrap(),
            _ => process.interrupt().unwrap(),
        };
        signal(process, true);
        let told = client.next_event("draining", SOON).await.unwrap();
        assert_eq!(told.data()["deadlineMs"], 120_000);
        assert_eq!(client.close_code(), None, "it has time");
        let asked_at = Instant::now();
        signal(process, false);
        let status = process.wait(SOON).await.unwrap();
        assert_eq!(status.code(), Some(1), "it did not do what it was asked to: {}", process.lines().join("\n"));
        assert!(asked_at.elapsed() < MARGIN, "took {:?}", asked_at.elapsed());
        assert_eq!(client.closed(SOON).await.unwrap(), 1006, "nothing more is said");
    }
}

#[tokio::test]
async fn the_drain_command_waits_for_the_last_client() {
    let config = format!("[gateway]\ndrain = \"{}s\"\n", DRAIN.as_secs());
    let kinds = &["candles"];
    let mut system = System::start(Options { normalizers: 0, kinds, config, ..Options::default() }).await;
    let gateway = &mut system.gateways[0];
    let mut client = gateway.door.connect(&token("a", &["job:*"], &[])).await.unwrap();
    let admin = gateway.role.admin.to_string();
    let asked_at = Instant::now();
    let draining = tokio::task::spawn_blocking(move || run(akis(Path::new("/")).args(["drain", "--admin", &admin])));
    client.next_event("draining", SOON).await.unwrap();
    assert!(!draining.is_finished() && !gateway.role.is_ready().await);
    assert_eq!(client.closed(SOON).await.unwrap(), 1001);
    let (code, stdout, stderr) = draining.await.unwrap();
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    assert!(asked_at.elapsed() >= DRAIN, "the client was given its time");
    assert_eq!(gateway.role.process.wait(SOON).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn the_drain_command_gives_balancers_time_before_it_asks() {
    const DELAY: Duration = Duration::from_secs(1);
    let config = "[gateway]\ndrain = \"0s\"\n".to_owned();
    let system = System::start(Options { normalizers: 0, kinds: &["candles"], config, ..Options::default() }).await;
    let gateway = &system.gateways[0];
    let mut client = gateway.door.connect(&token("a", &["job:*"], &[])).await.unwrap();
    // By name, as one would from elsewhere.
    let admin = format!("localhost:{}", gateway.role.admin.port());
    let asked_at = Instant::now();
    let delay = format!("{}ms", DELAY.as_millis());
    let draining = tokio::task::spawn_blocking(move || {
        run(akis(Path::new("/")).args(["drain", "--admin", &admin, "--delay", &delay]))
    });
    assert_eq!(client.closed(SOON).await.unwrap(), 1001);
    assert!(asked_at.elapsed() >= DELAY, "clients were sent away after {:?}", asked_at.elapsed());
    let (code, _, stderr) = draining.await.unwrap();
    assert_eq!(code, 0, "{stderr}");
}
