//! When a role says that it is ready: a gateway not before it can follow the log, and not while it cannot; a normalizer not before it
//! could take over.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use akis_eventlog::{Append, Partition, RedisStore, Store};
use akis_model::{Body, Channel, Outcome, Seq};
use akis_testkit::{Direction, RedisOptions, RedisServer, wait_until};
use serde_json::json;
use tokio::time::interval;

use crate::cli::{SECRET, akis, run};
use crate::system::{Options, Role, SOON, System, token};

/// A Redis, and no venue that anybody follows.
fn alone(gateways: usize) -> Options {
    Options { gateways, normalizers: 0, kinds: &["candles"], ..Options::default() }
}

/// The exit code of `akis healthcheck`, which asks from a process of its own.
async fn healthcheck(role: &Role) -> i32 {
    let admin = role.admin.to_string();
    let check = move || run(akis(Path::new("/")).args(["healthcheck", "--admin", &admin])).0;
    tokio::task::spawn_blocking(check).await.unwrap()
}

#[tokio::test]
async fn a_gateway_is_ready_only_while_it_can_follow_the_log() {
    let system = System::start(Options { proxied: true, ..alone(1) }).await;
    let gateway = &system.gateways[0].role;
    let proxy = system.proxy.as_ref().unwrap();
    assert_eq!(healthcheck(gateway).await, 0);
    for direction in [Direction::ToClient, Direction::Both] {
        proxy.blackhole(direction, true);
        let is_away = async || {
            let (status, why) = gateway.ask("/readyz").await;
            status == 503 && why.contains("the log cannot be reached")
        };
        wait_until(SOON, "it is not ready", is_away).await.unwrap();
        assert_eq!(healthcheck(gateway).await, 1);
        assert_eq!(gateway.ask("/livez").await.0, 200, "that the log is away is no reason to be started again");
        assert!(gateway.metric("akis_gateway_tail_age_seconds").await > 0.0);
        proxy.blackhole(direction, false);
        gateway.wait_ready().await;
        assert_eq!(healthcheck(gateway).await, 0);
    }
}

/// Writes to one channel, far more than comes through a slow line to Redis.
async fn flood(log: &RedisStore) {
    let channel = Channel::parse("flood:a").unwrap();
    let body = Body::render(0, "e", &channel, Outcome::Ok, &json!({})).unwrap().text().clone();
    let events = vec![Append { channel: channel.clone(), id: None, body, trace: None }; 100];
    let partition = Partition::of(&channel, log.partitions());
    let mut pace = interval(Duration::from_millis(20));
    loop {
        pace.tick().await;
        log.append(partition, &events, Seq::ZERO).await.unwrap();
    }
}

#[tokio::test]
async fn a_gateway_that_falls_behind_the_log_is_not_ready_until_it_has_caught_up() {
    let system = System::start(Options { proxied: true, ..alone(1) }).await;
    let gateway = &system.gateways[0];
    let (log, proxy) = (system.log().await, system.proxy.as_ref().unwrap());
    // Each 16 KiB wait for so long, so reads are answered in time and bring less than is written meanwhile.
    proxy.delay(Duration::from_millis(60));
    let is_behind = async || {
        let (status, why) = gateway.role.ask("/readyz").await;
        status == 503 && why.contains("s behind the log")
    };
    // Events go on coming meanwhile: without them it would soon have caught up.
    let tail_age = async || gateway.role.metric("akis_gateway_tail_age_seconds").await;
    let all_say_so = async {
        wait_until(SOON * 2, "it is too far behind", is_behind).await.unwrap();
        wait_until(SOON, "its health check fails", async || healthcheck(&gateway.role).await == 1).await.unwrap();
        assert_eq!(gateway.role.ask("/livez").await.0, 200);
        wait_until(SOON, "its age is measured", async || tail_age().await >= 5.0).await.unwrap();
    };
    tokio::select! {
        () = flood(&log) => {}
        () = all_say_so => {}
    }
    proxy.delay(Duration::ZERO);
    gateway.role.wait_ready().await;
    // On its way back it may cross the limit more than once.
    wait_until(SOON, "it has caught up", async || tail_age().await < 1.0).await.unwrap();
    gateway.role.wait_ready().await;
    assert_eq!(healthcheck(&gateway.role).await, 0);
    let token = token("reader", &["*"], &["*"]);
    let mut client = gateway.door.connect(&token).await.unwrap();
    client.send(&json!({ "type": "subscribe", "channels": ["flood:a"] })).await.unwrap();
    client.next_event("subscribed", SOON).await.unwrap();
    let last = json!({ "channel": "flood:a", "event": "last", "data": {} });
    assert_eq!(gateway.door.publish(&token, &last).await.unwrap().0, 200);
    client.next_event("last", SOON).await.unwrap();
}

#[tokio::test]
async fn a_gateway_waits_for_a_redis_that_is_not_there_yet() {
    let mut system = System::start(alone(0)).await;
    system.redis.kill();
    // Their addresses are told when they serve, which is too late here.
    let addresses: [SocketAddr; 2] = [1, 2].map(|host| (Ipv4Addr::new(127, 0, 77, host), 8080).into());
    let start =
        async |address: &SocketAddr| system.start_role(&["gateway", "--listen", &address.to_string()], &[]).await;
    let (mut waiting, mut leaving) = (start(&addresses[0]).await, start(&addresses[1]).await);
    let door = system.door(addresses[0]);
    let event = json!({ "channel": "job:1", "event": "e", "data": {} });
    let publish = async || door.publish(&token("worker", &["*"], &["*"]), &event).await.unwrap();
    for role in [&mut waiting, &mut leaving] {
        role.process.wait_for_line("trying again", SOON).await.unwrap();
        assert_eq!(role.ask("/livez").await.0, 200);
        let (status, why) = role.ask("/readyz").await;
        assert_eq!((status, why.trim()), (503, "the log has not been reached yet"));
    }
    let (status, problem) = publish().await;
    assert_eq!((status, &problem["errorCode"]), (503, &json!("UPSTREAM_UNAVAILABLE")));
    leaving.process.terminate().unwrap();
    assert_eq!(leaving.process.wait(SOON).await.unwrap().code(), Some(0), "whoever waits can be asked to stop");
    system.redis.restart().await.unwrap();
    waiting.wait_ready().await;
    assert_eq!(publish().await.0, 200);
    waiting.process.interrupt().unwrap();
    assert_eq!(waiting.process.wait(SOON).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_redis_that_cannot_hold_a_log_is_refused_with_what_to_change() {
    let args = ["--maxmemory-policy", "allkeys-lru"].map(str::to_owned).to_vec();
    let evicting = RedisServer::start_with(RedisOptions { args, ..RedisOptions::default() }).await.unwrap();
    let system = System::start(alone(1)).await;
    for (url, says) in [
        (evicting.url(), "set maxmemory-policy to noeviction"),
        // The system's own log has fewer partitions than are configured by default.
        (system.redis.url(), "has 4 partitions and this process is configured for 16: set it to 4"),
        ("nonsense://x".to_owned(), "redis://"),
    ] {
        for role in ["gateway", "normalizer"] {
            let refused = refuse(role, &url).await;
            assert!(refused.contains(says), "{role}: {refused}");
        }
    }
}

/// What a role says that does not start.
async fn refuse(role: &'static str, url: &str) -> String {
    let url = url.to_owned();
    let starting = tokio::task::spawn_blocking(move || {
        let dir = tempfile::tempdir().unwrap();
        let mut command = akis(dir.path());
        command.args([role, "--redis", &url, "--admin", "127.0.0.1:0"]).env("AKIS_AUTH__SECRET", SECRET);
        command.env("AKIS_GATEWAY__LISTEN", "127.0.0.1:0").env("AKIS_VENUES__BINANCE__SYMBOLS", "BTCUSDT");
        run(&mut command)
    });
    let (code, stdout, stderr) = tokio::time::timeout(Duration::from_secs(30), starting).await.unwrap().unwrap();
    assert!([1, 2].contains(&code) && stdout.is_empty(), "{role} ends with {code}: {stderr}");
    stderr
}

#[tokio::test]
async fn a_normalizer_is_ready_once_it_is_warm_or_its_venue_given_up() {
    let system = System::start(alone(0)).await;
    let nobody = [
        ("AKIS_VENUES__BINANCE__WS_URL", "ws://127.0.0.1:1"),
        ("AKIS_VENUES__BINANCE__REST_URL", "http://127.0.0.1:1"),
    ];
    let (heard, unheard) =
        tokio::join!(system.start_role(&["normalizer"], &[]), system.start_role(&["normalizer"], &nobody));
    let waits = async || unheard.ask("/readyz").await.1.contains("binance is not warm yet");
    wait_until(SOON, "it has reached the log and waits for the venue", waits).await.unwrap();
    heard.wait_ready().await;
    unheard.wait_ready().await;
    assert_eq!(unheard.metric("akis_venue_up").await, 0.0, "given up");
}
