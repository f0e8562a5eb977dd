//! Gateways behind HAProxy, with the configuration that is shipped, rolled while clients listen.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use akis_testkit::{Process, raw, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::follower::{Follower, finish_all, wait_for_all};
use crate::system::{Door, Gateway, Options, SOON, System, token};

const CHANNELS: [&str; 4] =
    ["binance:BTCUSDT:ticker", "binance:BTCUSDT:trades", "binance:BTCUSDT:book", "binance:ETHUSDT:trades"];

const CLIENTS: usize = 40;

/// The configured drain time.
const DRAIN: Duration = Duration::from_secs(4);

/// No client is left behind: one that had to find out by itself would be without data for longer. How long it really takes,
/// a second or less on a machine of its own, is printed; beside compilers it has been seen to be six.
const LONGEST_HOLE: Duration = Duration::from_secs(15);

/// An address of the loopback network for each of HAProxy's servers, and for itself: of this test process alone.
fn address(number: u8) -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 + high % 128, low, 1 + number)
}

/// HAProxy at `address(first)`, in front of gateways at the three addresses behind that.
fn haproxy(first: u8) -> (Process, SocketAddr) {
    let listen = SocketAddr::from((address(first), 8080));
    let mut command = Command::new("haproxy");
    command.args(["-f", concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/haproxy.cfg")]);
    command.env("AKIS_LISTEN", listen.to_string());
    for number in 1..=3 {
        command.env(format!("AKIS_GATEWAY_{number}"), format!("{}:8080", address(first + number)));
    }
    (Process::start(&mut command).expect("haproxy is there: scripts/tools.sh installs it"), listen)
}

/// Waits until HAProxy has said of a gateway so many times that it `is UP`, or `is DOWN`.
async fn wait_for(haproxy: &mut Process, number: u8, what: &str, times: usize) {
    let line = format!("gateways/gateway-{number} {what}");
    let is_said = async || {
        haproxy.lines().iter().filter(|said| said.starts_with("Server") && said.contains(&line)).count() >= times
    };
    wait_until(SOON, &line, is_said).await.unwrap_or_else(|error| panic!("{error:#}: {}", haproxy.lines().join("\n")));
}

/// Asks a gateway to end, and waits until it has.
async fn end(mut gateway: Gateway) {
    gateway.role.process.terminate().unwrap();
    let status = gateway.role.process.wait(SOON).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", gateway.role.process.lines().join("\n"));
}

#[tokio::test]
async fn rolling_every_gateway_behind_haproxy_loses_nothing_and_leaves_no_client_long_without_data() {
    let config = format!("[gateway]\ndrain = \"{}s\"\n", DRAIN.as_secs());
    let kinds = &["ticker", "trades", "book"];
    let system = System::start(Options { gateways: 0, rate: 100, kinds, config, ..Options::default() }).await;
    let (mut proxy, listen) = haproxy(0);
    // It believes in each of them until its first look; one that was there by then would never be said to have come.
    for number in 1..=3 {
        wait_for(&mut proxy, number, "is DOWN", 1).await;
    }
    let first = system.start_gateway_at(address(1)).await;
    let second = system.start_gateway_at(address(2)).await;
    wait_for(&mut proxy, 1, "is UP", 1).await;
    wait_for(&mut proxy, 2, "is UP", 1).await;

    let token = token("a", &["binance:*"], &[]);
    let door: Door = system.door(listen);
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| Follower::start_moving(vec![door.clone()], token.clone(), &CHANNELS)).collect();
    wait_for_all(&clients, "events come", |record| CHANNELS.iter().all(|channel| record.of(channel).count() > 10))
        .await;
    for gateway in [&first, &second] {
        assert!(gateway.role.metric("akis_gateway_connections").await >= 1.0, "clients are spread");
    }

    let rolled_at = Instant::now();
    // One more than needed, then one less: never fewer than two that are ready.
    let third = system.start_gateway_at(address(3)).await;
    wait_for(&mut proxy, 3, "is UP", 1).await;
    end(first).await;
    let first = system.start_gateway_at(address(1)).await;
    wait_for(&mut proxy, 1, "is UP", 2).await;
    end(second).await;

    let mut goals = Vec::new();
    for channel in CHANNELS {
        goals.push((channel, system.history(channel).await.into_keys().last().unwrap()));
    }
    wait_for_all(&clients, "all events have come", |record| {
        goals.iter().all(|(channel, goal)| record.has_reached(channel, *goal))
    })
    .await;
    let records = finish_all(clients).await;
    let moves: usize = records.iter().map(|record| record.moves).sum();
    let closed: usize = records.iter().map(|record| record.closes.len()).sum();
    let delivered: usize = records.iter().map(|record| record.connections.iter().map(Vec::len).sum::<usize>()).sum();
    let longest = records.iter().map(|record| record.longest_hole(rolled_at)).max().unwrap();
    println!("{delivered} messages, {moves} clients moved, {closed} closed, longest hole {} ms", longest.as_millis());
    for channel in CHANNELS {
        let mut history = system.history(channel).await;
        // Of a book Redis keeps less than what was told since: what one client got stands for all.
        for (seq, event) in records.iter().flat_map(|record| record.events(channel)) {
            history.entry(seq).or_insert(event);
        }
        for report in records.iter().map(|record| record.check(channel, &history)) {
            assert_eq!((&report.violations, &report.missing, report.restarts), (&vec![], &vec![], 0), "{channel}");
        }
    }
    assert!(moves > 0, "a drain asks clients to move before it ends");
    assert!(moves + closed >= CLIENTS, "everybody was on one of the two that ended");
    assert!(longest < LONGEST_HOLE, "a client went {longest:?} without data");
    drop((first, third));
}

#[tokio::test]
async fn behind_haproxy_an_address_has_its_own_limit() {
    let config = "[gateway]\ntrusted_proxies = [\"127.0.0.1\"]\n[gateway.limits]\nconnections_per_address = 1\n".into();
    let system = System::start(Options { gateways: 0, config, ..Options::default() }).await;
    let (mut proxy, listen) = haproxy(4);
    wait_for(&mut proxy, 1, "is DOWN", 1).await;
    let _gateway = system.start_gateway_at(address(5)).await;
    wait_for(&mut proxy, 1, "is UP", 1).await;

    let token = token("a", &["binance:*"], &[]);
    let mut sockets = Vec::new();
    for (host, said, status) in [
        (2, "", "101"),
        (3, "", "101"),
        (2, "", "429"),
        (2, "X-Forwarded-For: 198.51.100.1\r\n", "429"),
        (4, "X-Forwarded-For: 127.0.0.2\r\n", "101"),
    ] {
        let mut stream = raw::connect_from(host, listen).await.unwrap();
        let request = raw::upgrade(&format!("{}Authorization: Bearer {token}\r\n{said}", raw::HANDSHAKE));
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        timeout(SOON, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&answer[9..]), status, "from {host}, who says {said:?}");
        sockets.push(stream);
    }
}
