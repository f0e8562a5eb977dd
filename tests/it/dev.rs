//! `akis dev --venues sim` from outside: the page, the tools, the orderly end.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use akis_testkit::{LiveClient, Process, check_channel, tls_fixture, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::{SECRET, akis, run};

/// A running `akis dev`, ended with the test.
struct Dev {
    child: Child,
    dir: TempDir,
    url: String,
    admin: String,
    token: String,
}

impl Dev {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let admin = free_address();
        let mut child = akis(dir.path())
            .args(["dev", "--venues", "sim", "--listen", "127.0.0.1:0", "--admin", &admin])
            .env("AKIS_AUTH__SECRET", SECRET)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut line = |name: &str| lines.next().unwrap().unwrap().strip_prefix(name).unwrap().to_owned();
        let url = line("page: ").trim_end_matches('/').to_owned();
        let token = line("token: ");
        Self { child, dir, url, admin, token }
    }

    fn tool(&self, args: &[&str]) -> Command {
        let mut command = akis(self.dir.path());
        command.args(args).args(["--url", &self.url]).env("AKIS_TOKEN", &self.token);
        command
    }

    fn wait_until_healthy(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while run(akis(self.dir.path()).args(["healthcheck", "--admin", &self.admin])).0 != 0 {
            assert!(Instant::now() < deadline, "not ready in time");
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn events_are_tailed_with_dense_positions() {
    let dev = Dev::start();
    dev.wait_until_healthy();
    let channels = ["tail", "binance:BTCUSDT:trades", "binance:BTCUSDT:ticker", "--count", "60"];
    let (code, stdout, stderr) = run(&mut dev.tool(&channels));
    assert_eq!(code, 0, "{stderr}");
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let mut events = 0;
    for line in stdout.lines() {
        let envelope: Value = serde_json::from_str(line).unwrap();
        let (channel, seq) = (envelope["channel"].as_str().unwrap(), envelope["seq"].as_u64().unwrap());
        if let Some(before) = last.insert(channel.to_owned(), seq) {
            assert_eq!(seq, before + 1, "a hole in {channel}");
        }
        // Whoever comes before the first event is told when the publisher begins; that is no event.
        events += usize::from(envelope["event"] != "term");
    }
    assert_eq!(events, 60);

    // The same positions again, from where the user says.
    let trades = "binance:BTCUSDT:trades";
    let after = (last[trades] - 5).to_string();
    let (code, stdout, _) = run(&mut dev.tool(&["tail", trades, "--after", &after, "--count", "3"]));
    let first: Value = serde_json::from_str(stdout.lines().next().unwrap()).unwrap();
    assert_eq!((code, first["seq"].as_u64()), (0, Some(last[trades] - 4)));
}

#[tokio::test]
async fn every_channel_is_dense_for_the_whole_run() {
    let dev = Dev::start();
    let symbols = ["BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT", "DOGEUSDT", "ADAUSDT", "AVAXUSDT"];
    let channels: Vec<String> = symbols
        .iter()
        .flat_map(|symbol| ["ticker", "trades", "book", "1m"].map(|kind| format!("binance:{symbol}:{kind}")))
        .collect();
    let url = format!("ws://{}/live", dev.url.trim_start_matches("http://"));
    let mut client = LiveClient::connect(&url, Some(&dev.token)).await.unwrap();
    let wanted: Vec<Value> = channels.iter().map(|channel| json!({ "channel": channel, "after": 0 })).collect();
    client.send(&json!({ "type": "subscribe", "channels": wanted })).await.unwrap();
    while client.received().len() < 1000 {
        client.next(Duration::from_secs(20)).await.unwrap();
    }
    for channel in &channels {
        let events = client.received().iter().filter(|envelope| envelope.channel() == channel);
        let history: BTreeMap<u64, Value> = events
            .filter(|envelope| !["subscribed", "term", "gap", "backpressure_drop"].contains(&envelope.event()))
            .map(|envelope| (envelope.seq(), envelope.0.clone()))
            .collect();
        // One symbol in four is quiet.
        assert!(!history.is_empty() || !channel.contains(":BTCUSDT:"), "{channel} is silent");
        let report = check_channel(channel, &[client.received()], &history);
        assert_eq!((report.violations, report.missing, report.restarts), (vec![], vec![], 0), "{channel}");
    }
}

#[test]
fn what_is_published_is_tailed() {
    let dev = Dev::start();
    dev.wait_until_healthy();
    let args = ["token", "--sub", "worker", "--channels", "job:*", "--publish", "job:*"];
    let token = run(akis(dev.dir.path()).args(args).env("AKIS_AUTH__SECRET", SECRET)).1.trim_end().to_owned();
    let publish = |channel: &str, token: &str| {
        let args = ["publish", channel, "job_progress", "{\"progress\":7}", "--id", "once", "--token", token];
        run(&mut dev.tool(&args))
    };
    let (code, seq, stderr) = publish("job:1", &token);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(publish("job:1", &token).1, seq, "an id is answered with its first seq");
    let (code, stdout, stderr) = publish("job:1", &dev.token);
    assert_eq!((code, stdout.as_str()), (1, ""), "the page's token may only read");
    assert!(stderr.contains("CHANNEL_FORBIDDEN"), "{stderr}");
    let (code, stdout, _) = run(&mut dev.tool(&["tail", "job:1", "--after", "0", "--count", "1", "--token", &token]));
    let event: Value = serde_json::from_str(stdout.trim_end()).unwrap();
    assert_eq!((code, event["seq"].to_string()), (0, seq.trim_end().to_owned()));
    assert_eq!(event["data"]["progress"], 7);
}

#[tokio::test]
async fn behind_tls_tail_trusts_the_authorities_of_the_system() {
    let dev = Dev::start();
    dev.wait_until_healthy();
    let front = free_address();
    let file = |name: &str, content: String| {
        let path = dev.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let [certificate, key] =
        ["known.pem", "known.key.pem"].map(|name| std::fs::read_to_string(tls_fixture(name)).unwrap());
    let certificate = file("front.pem", certificate + &key);
    let back = dev.url.trim_start_matches("http://");
    let config = format!(
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n\
         listen front\n  bind {front} ssl crt {certificate}\n  server back {back}\n"
    );
    let mut haproxy = Command::new("haproxy");
    let _haproxy = Process::start(haproxy.args(["-f", &file("haproxy.cfg", config)])).unwrap();
    let is_there = async || tokio::net::TcpStream::connect(&front).await.is_ok();
    wait_until(Duration::from_secs(20), "HAProxy listens", is_there).await.unwrap();

    let tail = || {
        let mut command = akis(dev.dir.path());
        command.args(["tail", "binance:BTCUSDT:trades", "--count", "1", "--url", &format!("https://{front}")]);
        command.env("AKIS_TOKEN", &dev.token);
        command
    };
    let (code, stdout, stderr) = run(tail().env("SSL_CERT_FILE", tls_fixture("known-ca.pem")));
    assert_eq!((code, stdout.lines().count()), (0, 1), "{stderr}");
    let mut stranger = Process::start(&mut tail()).unwrap();
    stranger.wait_for_line("invalid peer certificate", Duration::from_secs(20)).await.unwrap();
}

#[test]
fn a_bad_token_and_a_forbidden_channel_end_tail() {
    let dev = Dev::start();
    let (code, _, stderr) = run(&mut dev.tool(&["tail", "job:1", "--token", "a.b.c"]));
    assert_eq!(code, 1);
    assert!(stderr.contains("TOKEN_INVALID"), "{stderr}");
    let args = ["token", "--sub", "a", "--channels", "job:*"];
    let token = run(akis(dev.dir.path()).args(args).env("AKIS_AUTH__SECRET", SECRET)).1.trim_end().to_owned();
    let (code, _, stderr) = run(&mut dev.tool(&["tail", "binance:BTCUSDT:ticker", "--token", &token]));
    assert_eq!(code, 1);
    assert!(stderr.contains("CHANNEL_FORBIDDEN"), "{stderr}");
}

#[test]
fn the_page_needs_no_token_and_says_what_is_a_stand_in() {
    let dev = Dev::start();
    let mut socket = std::net::TcpStream::connect(dev.url.trim_start_matches("http://")).unwrap();
    std::io::Write::write_all(&mut socket, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    socket.read_to_string(&mut page).unwrap();
    assert!(page.starts_with("HTTP/1.1 200"), "{}", &page[..80.min(page.len())]);
    assert!(page.contains("\"standIn\":true") && page.contains(&dev.token));
}

#[test]
fn drain_ends_the_process_with_0() {
    let mut dev = Dev::start();
    dev.wait_until_healthy();
    let (code, _, stderr) = run(akis(dev.dir.path()).args(["drain", "--admin", &dev.admin]));
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(dev.child.wait().unwrap().code(), Some(0));
}
