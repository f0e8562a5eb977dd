//! A recording is as good as the venue: played by the stand-in, faster than it was made, it gives the same again.

use std::collections::BTreeMap;
use std::path::Path;

use akis_testkit::Process;
use serde_json::Value;

use crate::cli::{akis, run};
use crate::system::SOON;

/// Starts a stand-in, and writes a configuration that reaches it.
async fn stand_in(dir: &Path, venue: &str, symbols: &[&str], args: &[&str]) -> Process {
    let mut sim = Process::start(akis(dir).args(["sim", venue, "--listen", "127.0.0.1:0"]).args(args)).unwrap();
    let mut reached = String::new();
    for key in if venue == "bist" { &["soup"][..] } else { &["rest_url", "ws_url"] } {
        let line = sim.wait_for_line(&format!("{key}: "), SOON).await.unwrap();
        reached += &format!("{key} = \"{}\"\n", line.trim_start_matches(&format!("{key}: ")));
    }
    if venue == "bist" {
        reached += "transport = \"soupbintcp\"\n";
    }
    let config = format!("[venues.{venue}]\nsymbols = {symbols:?}\n{reached}");
    std::fs::write(dir.join("akis.toml"), config).unwrap();
    sim
}

fn record(dir: &Path, venue: &str, file: &str, length: &str) {
    let (code, stdout, stderr) = run(akis(dir).args(["record", venue, "--out", file, "--for", length]));
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    assert!(stderr.contains(" frames"), "progress is told: {stderr}");
}

/// The events of each channel, without what depends on when it was received.
fn events(dir: &Path, file: &str) -> BTreeMap<String, Vec<Value>> {
    let (code, stdout, stderr) = run(akis(dir).args(["normalize", file]));
    assert_eq!(code, 0, "{stderr}");
    let mut channels = BTreeMap::<String, Vec<Value>>::new();
    for line in stdout.lines() {
        let mut event: Value = serde_json::from_str(line).unwrap();
        // Behind the end of what it plays the stand-in is silent.
        if event["event"] == "channel_status" {
            continue;
        }
        if event["data"]["tsSource"] == "received" {
            event["ts"] = Value::Null;
        }
        let channel = event["channel"].as_str().unwrap().to_owned();
        if let Some(data) = event["data"].as_object_mut() {
            data.remove("receivedAt");
        }
        event["seq"] = Value::Null;
        channels.entry(channel).or_default().push(event);
    }
    channels
}

/// Every trade is the same; of what a newer event replaces, the last one: how many come in one packet is up to the network.
async fn assert_same_when_played(venue: &str, symbols: &[&str], generated: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = stand_in(dir.path(), venue, symbols, &["--symbols", generated, "--rate", "100"]).await;
    record(dir.path(), venue, "first.jsonl", "3s");
    sim.kill();
    let _sim = stand_in(dir.path(), venue, symbols, &["--from", "first.jsonl", "--speed", "3"]).await;
    record(dir.path(), venue, "second.jsonl", "8s");
    let (first, second) = (events(dir.path(), "first.jsonl"), events(dir.path(), "second.jsonl"));
    assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
    for (channel, events) in &first {
        let (events, again) = (&events[..], &second[channel][..]);
        if channel.ends_with(":trades") {
            assert!(events.len() > 10, "{channel}");
            assert_eq!(events, again, "{channel}");
        } else {
            assert_eq!(events.last(), again.last(), "{channel}");
        }
    }
}

#[tokio::test]
async fn a_recording_of_binance_gives_the_same_when_it_is_played() {
    assert_same_when_played("binance", &["BTCUSDT", "ETHUSDT"], "BTCUSDT,ETHUSDT").await;
}

#[tokio::test]
async fn a_recording_of_btcturk_gives_the_same_when_it_is_played() {
    assert_same_when_played("btcturk", &["BTCTRY", "ETHTRY"], "BTCTRY,ETHTRY").await;
}

#[tokio::test]
async fn a_recording_of_bist_gives_the_same_when_it_is_played() {
    // The last one is listed in the middle of the day.
    assert_same_when_played("bist", &["THYAO", "GARAN"], "THYAO,GARAN,ASELS").await;
}
