//! Tokens of somebody else's keys over the whole binary, and that no token is ever written to a log.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use akis_testkit::{ConnectError, LiveClient, Process, wait_until};
use serde_json::json;

use crate::cli::{SECRET, akis, run};

const SOON: Duration = Duration::from_secs(30);

/// A running `akis dev` on its own in-memory log.
struct Dev {
    process: Process,
    url: String,
}

impl Dev {
    /// Starts it and waits until it is ready.
    async fn start(dir: &Path, change: impl FnOnce(&mut Command)) -> Self {
        let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut command = akis(dir);
        command.args(["dev", "--venues", "sim", "--listen", "127.0.0.1:0", "--admin", &admin]);
        change(&mut command);
        let mut process = Process::start(&mut command).unwrap();
        let line = process.wait_for_line("page: ", SOON).await.unwrap();
        let url = line.split("page: ").nth(1).unwrap().trim_end_matches('/').to_owned();
        let is_ready = async || run(akis(dir).args(["healthcheck", "--admin", &admin])).0 == 0;
        wait_until(SOON, "akis dev is ready", is_ready).await.unwrap();
        Self { process, url }
    }

    fn live(&self) -> String {
        format!("{}/live", self.url.replacen("http", "ws", 1))
    }
}

#[tokio::test]
async fn a_token_of_a_private_key_is_believed_where_its_public_half_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/gateway/fixtures/keys");
    let entry =
        |id, alg, file| format!("[[auth.keys]]\nid = \"{id}\"\nalg = \"{alg}\"\npem = \"{keys}/{file}.pub.pem\"\n");
    let toml = [entry("r1", "RS256", "rsa"), entry("e1", "ES256", "ec"), entry("d1", "EdDSA", "ed")].concat();
    std::fs::write(dir.path().join("akis.toml"), toml).unwrap();
    let dev = Dev::start(dir.path(), |_| {}).await;
    let token = |key: &str| {
        let key = format!("{keys}/{key}.pem");
        run(akis(dir.path()).args(["token", "--sub", "a", "--channels", "*", "--key", &key])).1.trim_end().to_owned()
    };
    for key in ["rsa", "ec", "ed"] {
        LiveClient::connect(&dev.live(), Some(&token(key))).await.unwrap();
    }
    for key in ["rsa-other", "ec-other"] {
        let refused = LiveClient::connect(&dev.live(), Some(&token(key))).await;
        assert!(matches!(refused, Err(ConnectError::Refused { status: 401, .. })), "{key}");
    }
    assert!(!dev.process.lines().iter().any(|line| line.starts_with("token: ")), "nobody here can sign");
}

#[tokio::test]
async fn no_token_is_written_to_a_log_whichever_way_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), |command| {
        command.env("AKIS_AUTH__SECRET", SECRET).env("RUST_LOG", "trace");
    })
    .await;
    let good = |sub: &str| {
        let command = ["token", "--sub", sub, "--channels", "*", "--publish", "job:*"];
        run(akis(dir.path()).args(command).env("AKIS_AUTH__SECRET", SECRET)).1.trim_end().to_owned()
    };
    let (token, other) = (good("alice"), good("bob"));
    let bad = format!("{token}x");
    for token in [&token, &bad] {
        for path in ["/live", "/v1/snapshot", "/v1/history/job:1", "/live/sse"] {
            let url = format!("{}{path}?channels=job:1&token={token}", dev.url);
            reqwest::Client::new().get(url).timeout(SOON).send().await.map(drop).unwrap();
        }
        let event = json!({ "channel": "job:1", "event": "x", "data": {} }).to_string();
        let publish = reqwest::Client::new().post(format!("{}/v1/publish", dev.url)).bearer_auth(token);
        publish.header("content-type", "application/json").body(event).send().await.unwrap();
        // Whether it is let in is not the matter here.
        let _ = LiveClient::connect(&format!("{}?token={token}", dev.live()), None).await;
    }
    let mut client = LiveClient::connect(&dev.live(), Some(&token)).await.unwrap();
    for auth in [&token, &other, &bad] {
        client.send(&json!({ "type": "auth", "token": auth })).await.unwrap();
        client.find(SOON, |envelope| ["authenticated", "error"].contains(&envelope.event())).await.unwrap();
    }
    let log = dev.process.lines().join("\n");
    assert!(log.contains("gateway listens"), "the log was looked at");
    for token in [&token, &other] {
        for part in token.split('.').skip(1) {
            assert!(!log.contains(part), "a token in the log");
        }
    }
    assert!(!log.contains(SECRET));
}

#[tokio::test]
async fn the_tools_write_no_token_to_their_logs_either() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), |command| _ = command.env("AKIS_AUTH__SECRET", SECRET)).await;
    let args = ["token", "--sub", "a", "--channels", "job:*", "--publish", "job:*"];
    let token = run(akis(dir.path()).args(args).env("AKIS_AUTH__SECRET", SECRET)).1.trim_end().to_owned();
    let publish = &["publish", "job:1", "job_progress", "{}"][..];
    let tail = &["tail", "job:1", "--after", "0", "--count", "1"];
    for level in ["trace", "off,tungstenite::handshake::client=trace"] {
        for args in [publish, tail] {
            let mut command = akis(dir.path());
            command.args(args).args(["--url", &dev.url]).env("AKIS_TOKEN", &token).env("RUST_LOG", level);
            let (code, _, stderr) = run(&mut command);
            assert_eq!(code, 0, "{args:?}: {stderr}");
            let told = args[0] == "publish" || stderr.contains("Doing handshake round");
            assert!(told || level != "trace", "the log was looked at: {stderr}");
            assert!(!token.split('.').any(|part| stderr.contains(part)), "{level}, {args:?}: a token in the log");
        }
    }
}

#[tokio::test]
async fn tools_make_a_token_for_themselves_where_the_secret_is() {
    let dir = tempfile::tempdir().unwrap();
    let toml = format!("[auth]\nsecret = \"{SECRET}\"\nissuer = \"us\"\naudience = \"akis\"\n");
    std::fs::write(dir.path().join("akis.toml"), toml).unwrap();
    let dev = Dev::start(dir.path(), |_| {}).await;
    let (code, seq, stderr) = run(akis(dir.path()).args(["publish", "job:1", "job_progress", "{}", "--url", &dev.url]));
    assert_eq!(code, 0, "{stderr}");
    let (code, event, stderr) =
        run(akis(dir.path()).args(["tail", "job:1", "--after", "0", "--count", "1", "--url", &dev.url]));
    assert_eq!(code, 0, "{stderr}");
    assert!(event.contains(&format!("\"seq\":{},", seq.trim_end())), "{event}");
    let elsewhere = tempfile::tempdir().unwrap();
    let (code, _, stderr) = run(akis(elsewhere.path()).args(["tail", "job:1", "--url", &dev.url]));
    assert_eq!(code, 2, "without the secret nothing is signed: {stderr}");
}
