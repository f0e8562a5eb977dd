//! When a gateway says that it is ready: not before it can follow the log, and not while it cannot.

use std::path::Path;
use std::time::Duration;

use akis_testkit::{Direction, RedisOptions, RedisServer, wait_until};

use crate::cli::{SECRET, akis, run};
use crate::system::{Options, Role, SOON, System};

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

#[tokio::test]
async fn a_gateway_waits_for_a_redis_that_is_not_there_yet() {
    let mut system = System::start(alone(0)).await;
    system.redis.kill();
    let args = ["gateway", "--listen", "127.0.0.1:0"];
    let (mut waiting, mut leaving) = (system.start_role(&args, &[]).await, system.start_role(&args, &[]).await);
    for role in [&mut waiting, &mut leaving] {
        role.process.wait_for_line("trying again", SOON).await.unwrap();
        assert_eq!(role.ask("/livez").await.0, 200);
        let (status, why) = role.ask("/readyz").await;
        assert_eq!((status, why.trim()), (503, "the log has not been reached yet"));
    }
    leaving.process.terminate().unwrap();
    assert_eq!(leaving.process.wait(SOON).await.unwrap().code(), Some(0), "whoever waits can be asked to stop");
    system.redis.restart().await.unwrap();
    waiting.wait_ready().await;
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
