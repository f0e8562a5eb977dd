//! BtcTurk: recordings played, and sessions with the stand-in under every fault.

mod faults;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::net::SocketAddr;
use std::path::PathBuf;

use akis_connectors::btcturk::sim::{self, Limits, SimConfig};
use akis_connectors::sim::Source;
use akis_connectors::{Content, Settings, venue};
use akis_normalizer::{Summary, observe, replay};
use akis_testkit::wait_until;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::live::{LONGEST_WAIT, Normalizer, WITHIN, assert_books, assert_dense, trade_ids};

const SYMBOLS: [&str; 2] = ["BTCTRY", "ETHTRY"];

fn play(file: &str) -> (Vec<Value>, Summary) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../connectors/fixtures/btcturk").join(file);
    let mut out = Vec::new();
    let summary = replay([BufReader::new(File::open(path).unwrap())], false, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), summary)
}

#[test]
fn recorded_frames_become_events_with_the_venues_numbers() {
    let (events, summary) = play("frames_2022-2026.jsonl");
    let of = |name: &str| events.iter().filter(|event| event["event"] == name).collect::<Vec<_>>();
    let ticks: Vec<_> = of("price_tick").iter().map(|event| event["data"]["bid"].clone()).collect();
    assert_eq!(ticks, ["86689", "34.706"]);
    let trades: Vec<Value> = of("trade")
        .iter()
        .map(|e| json!([e["channel"], e["data"]["id"], e["data"]["price"], e["data"]["qty"]]))
        .collect();
    assert_eq!(
        trades,
        [
            json!(["btcturk:BTCUSDT:trades", "101963781951665674", "40670", "0.0002456604"]),
            json!(["btcturk:AVAXTRY:trades", "110063781755340883", "1011.3", "0.0000503001"]),
        ]
    );
    let books: Vec<_> = of("orderbook").iter().map(|event| event["data"]["venueSeq"].clone()).collect();
    assert_eq!(books, ["3999242", "7886177"], "a 432 without its 431 is not published, nor is another channel's 431");
    let whole = of("orderbook")[1];
    assert_eq!(whole["data"]["asks"].as_array().map(Vec::len), Some(20));
    // Books of the other channel, differences without or from before their book, and the second join.
    let skipped: Vec<_> =
        summary.skipped.iter().map(|(reason, count)| format!("{} {count}", reason.as_str())).collect();
    assert_eq!(skipped, ["unknown_event 2", "duplicate 1", "stale 3", "refused 1"]);
}

#[test]
fn recorded_replies_and_documented_shapes_are_understood() {
    let (events, summary) = play("replies_2022-2026.jsonl");
    assert!(events.is_empty(), "none of them was asked for by a mapper: {events:?}");
    assert_eq!(summary.frames, 9);
    let (events, summary) = play("shapes_constructed.jsonl");
    assert!(events.iter().any(|event| event["event"] == "price_tick" && event["channel"] == "btcturk:ADATRY:ticker"));
    assert!(!summary.to_string().contains("not_json"), "{summary}");
}

struct Venue {
    address: SocketAddr,
    cancel: CancellationToken,
    task: JoinHandle<()>,
    http: reqwest::Client,
}

impl Venue {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let source = Source::Generated { symbols: SYMBOLS.map(str::to_owned).to_vec(), rate: 40, seed: 7 };
        let cancel = CancellationToken::new();
        let serving = sim::serve(listener, SimConfig { source, limits: Limits::default() }, cancel.clone());
        let task = tokio::spawn(async move { serving.await.expect("the stand-in starts") });
        Ok(Self { address, cancel, task, http: reqwest::Client::builder().no_proxy().build()? })
    }

    fn settings(&self) -> Settings {
        Settings {
            symbols: SYMBOLS.map(str::to_owned).to_vec(),
            ws_url: Some(format!("ws://{}", self.address)),
            rest_url: Some(format!("http://{}", self.address)),
            longest_wait: Some(LONGEST_WAIT),
            ..Settings::default()
        }
    }

    async fn fault(&self, fault: Value) -> Result<()> {
        let url = format!("http://{}/sim/fault", self.address);
        self.http.post(url).body(fault.to_string()).send().await?.error_for_status()?;
        Ok(())
    }

    async fn get(&self, target: &str) -> Result<Value> {
        let text = self.http.get(format!("http://{}{target}", self.address)).send().await?.text().await?;
        Ok(serde_json::from_str(&text)?)
    }

    async fn stop(self) -> Result<()> {
        self.cancel.cancel();
        Ok(self.task.await?)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_every_pair_flows_and_is_dense() -> Result<()> {
    let venue = Venue::start().await?;
    let normalizer = Normalizer::of("btcturk", venue.settings())?;
    for (facet, count) in [("ticker", 3), ("trades", 10), ("book", 3), ("1m", 3), ("5m", 3), ("1h", 2)] {
        for symbol in SYMBOLS {
            let channel = format!("btcturk:{symbol}:{facet}");
            normalizer.wait_for(&channel, count).await?;
            let events = normalizer.events(&channel).await?;
            assert_dense(&events);
            let common = symbol.replace("TRY", "/TRY");
            assert!(events.iter().all(|(_, event)| event["data"]["symbol"] == common.as_str()), "{channel}");
        }
    }
    // The venue's own minutes, closed, as REST has them.
    let minutes = async || normalizer.candles("btcturk:BTCTRY:1m").await.unwrap_or_default();
    wait_until(WITHIN, "the minutes of the past are kept", async || minutes().await.len() > 400).await?;
    let rows = venue.get("/v1/klines/history?symbol=BTCTRY&resolution=1&from=0&to=99999999999").await?;
    for candle in minutes().await {
        let open_s = candle["data"]["openTime"].as_i64().unwrap() / 1_000;
        let times = rows["t"].as_array().unwrap();
        let at = times.iter().position(|time| time.as_i64() == Some(open_s)).context("REST has the minute")?;
        for (name, column) in [("open", "o"), ("high", "h"), ("low", "l"), ("close", "c"), ("volume", "v")] {
            let told: f64 = candle["data"][name].as_str().unwrap().parse()?;
            assert_eq!(Some(told), rows[column][at].as_f64(), "{name} {candle}");
        }
    }
    let hours = normalizer.candles("btcturk:BTCTRY:1h").await?;
    assert!(hours.len() >= 6, "rolled up from the minutes: {}", hours.len());
    normalizer.stop().await?;
    venue.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pairs_are_found_by_pattern_and_by_turnover() -> Result<()> {
    let venue = Venue::start().await?;
    let days = venue.get("/api/v2/ticker").await?;
    let turnover = |day: &&Value| (day["volume"].as_f64().unwrap() * day["last"].as_f64().unwrap()) as u64;
    let busiest = days["data"].as_array().context("rows")?.iter().max_by_key(turnover).context("pairs")?;
    let busiest = busiest["pair"].as_str().context("a pair")?;
    for (entry, found) in [("eth*", "ETHTRY"), ("top:1", busiest)] {
        let normalizer = Normalizer::of("btcturk", Settings { symbols: vec![entry.to_owned()], ..venue.settings() })?;
        for facet in ["ticker", "trades", "book", "1m"] {
            normalizer.wait_for(&format!("btcturk:{found}:{facet}"), 2).await?;
        }
        let others = SYMBOLS.into_iter().find(|symbol| *symbol != found).context("another one")?;
        assert_eq!(normalizer.events(&format!("btcturk:{others}:ticker")).await?.len(), 0, "{entry}");
        normalizer.stop().await?;
    }
    venue.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn books_come_back_after_every_fault_and_are_never_wrong() -> Result<()> {
    let venue = Venue::start().await?;
    let normalizer = Normalizer::of("btcturk", venue.settings())?;
    let channel = "btcturk:BTCTRY:book";
    let resyncs = |cause: &str| format!("akis_normalizer_book_resyncs_total{{cause=\"{cause}\",venue=\"btcturk\"}}");
    for (fault, cause) in [
        (json!({"fault": "duplicate", "symbol": "BTCTRY"}), None),
        (json!({"fault": "drop_diff", "symbol": "BTCTRY"}), Some("gap")),
        (json!({"fault": "wrong_sequence", "symbol": "BTCTRY"}), Some("gap")),
        (json!({"fault": "reorder", "symbol": "BTCTRY"}), Some("gap")),
        (json!({"fault": "crossed_book", "symbol": "BTCTRY"}), Some("crossed")),
        (json!({"fault": "delay", "ms": 1_500}), None),
        (json!({"fault": "bad_frame", "text": "[432,{\"CS\":"}), None),
        (json!({"fault": "freeze", "ms": 1_000}), None),
        (json!({"fault": "half_frame"}), Some("connection")),
        (json!({"fault": "close", "code": 1000}), Some("connection")),
    ] {
        normalizer.wait_for_more(channel, 2).await?;
        let counted = cause.map(|cause| normalizer.metric(&resyncs(cause)));
        venue.fault(fault.clone()).await?;
        if let Some((cause, counted)) = cause.zip(counted) {
            let what = format!("{fault} is noticed");
            wait_until(WITHIN, &what, async || normalizer.metric(&resyncs(cause)) > counted).await?;
        }
        normalizer.wait_for_more(channel, 3).await?;
    }
    let events = normalizer.events(channel).await?;
    assert_dense(&events);
    assert_books(&events);
    normalizer.stop().await?;
    venue.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_trade_is_lost_or_doubled_over_lost_connections() -> Result<()> {
    let venue = Venue::start().await?;
    let normalizer = Normalizer::of("btcturk", venue.settings())?;
    let channel = "btcturk:ETHTRY:trades";
    let mut known: BTreeMap<u64, Value> = BTreeMap::new();
    for fault in
        [json!({"fault": "cut"}), json!({"fault": "duplicate", "symbol": "ETHTRY"}), json!({"fault": "half_frame"})]
    {
        normalizer.wait_for_more(channel, 8).await?;
        venue.fault(fault).await?;
    }
    normalizer.wait_for_more(channel, 8).await?;
    let reply = venue.get("/api/v2/trades?pairSymbol=ETHTRY").await?;
    for trade in reply["data"].as_array().context("a list")? {
        known.insert(trade["tid"].as_str().unwrap().parse()?, trade.clone());
    }
    let newest = *known.keys().next_back().context("trades")?;
    wait_until(WITHIN, "the newest trade is told", async || {
        normalizer.events(channel).await.is_ok_and(|events| trade_ids(&events).contains(&newest))
    })
    .await?;
    let events = normalizer.events(channel).await?;
    let ids = trade_ids(&events);
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    let missing: Vec<_> = known.keys().filter(|id| **id > ids[0] && !ids.contains(id)).collect();
    assert!(missing.is_empty(), "{missing:?} of {ids:?}");
    assert_eq!(normalizer.metric("akis_normalizer_lost_trades_total{venue=\"btcturk\"}"), 0);
    normalizer.stop().await?;
    venue.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trade_that_is_lost_inside_a_connection_is_told_as_a_gap() -> Result<()> {
    let venue = Venue::start().await?;
    let normalizer = Normalizer::of("btcturk", venue.settings())?;
    let channel = "btcturk:BTCTRY:trades";
    normalizer.wait_for(channel, 10).await?;
    let lost = "akis_normalizer_lost_trades_total{venue=\"btcturk\"}";
    // The list reaches back 50 trades only, so on a slow machine it may take more than one loss until one is seen.
    while normalizer.metric(lost) == 0 {
        venue.fault(json!({"fault": "drop_trade", "symbol": "BTCTRY"})).await?;
        let before = normalizer.events(channel).await?.len();
        assert!(before < 1_000, "a lost trade is noticed");
        normalizer.wait_for(channel, before + 20).await?;
    }
    normalizer.wait_for_more(channel, 1).await?;
    let events = normalizer.events(channel).await?;
    let ids = trade_ids(&events);
    assert!(ids.is_sorted_by(|a, b| a < b), "each once and in order: {ids:?}");
    let left_out: u64 = events.windows(2).map(|pair| pair[1].0.get() - pair[0].0.get() - 1).sum();
    assert!(left_out > 0, "a position is left out, so that subscribers are told");
    normalizer.stop().await?;
    venue.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_wrong_is_measured_and_its_times_are_not_trusted() -> Result<()> {
    for skew_ms in [7_200_000, -1_790_000_000_000] {
        let venue = Venue::start().await?;
        venue.fault(json!({"fault": "clock_skew", "ms": skew_ms})).await?;
        let normalizer = Normalizer::of("btcturk", venue.settings())?;
        let channel = "btcturk:BTCTRY:trades";
        normalizer.wait_for(channel, 5).await?;
        let events = normalizer.events(channel).await?;
        let told = events.iter().map(|(_, event)| &event["data"]);
        assert!(told.clone().all(|data| data["tsSource"] == "received"), "{events:?}");
        assert!(events.iter().all(|(_, event)| event["ts"] == event["data"]["receivedAt"]), "{events:?}");
        normalizer.wait_for_metric("akis_normalizer_skipped_total{reason=\"bad_time\",venue=\"btcturk\"}").await?;
        let offset = "akis_venue_clock_offset_milliseconds{venue=\"btcturk\"}";
        let is_measured = async || (normalizer.signed_metric(offset) - skew_ms).abs() < 5_000;
        wait_until(WITHIN, "the offset is measured", is_measured).await?;
        assert!(normalizer.candles("btcturk:BTCTRY:1m").await?.is_empty(), "a candle is nowhere but at its time");
        // The venue sets its clock right while the session goes on.
        venue.fault(json!({"fault": "clock_skew", "ms": 0})).await?;
        let is_right = async || {
            let events = normalizer.events(channel).await.unwrap_or_default();
            events.last().is_some_and(|(_, event)| event["data"]["tsSource"] == "venue")
        };
        wait_until(WITHIN, "times are trusted again", is_right).await?;
        let ids = trade_ids(&normalizer.events(channel).await?);
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
        normalizer.wait_for("btcturk:BTCTRY:1m", 1).await?;
        normalizer.stop().await?;
        venue.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn candles_come_although_rest_refuses_at_first() -> Result<()> {
    let venue = Venue::start().await?;
    venue.fault(json!({"fault": "rest_status", "status": 429, "times": 1})).await?;
    let normalizer = Normalizer::of("btcturk", venue.settings())?;
    let kept = async || normalizer.candles("btcturk:BTCTRY:1m").await.map_or(0, |candles| candles.len());
    wait_until(WITHIN, "the minutes of the past are kept", async || kept().await > 400).await?;
    normalizer.wait_for_metric("akis_venue_session_total{venue=\"btcturk\",what=\"requests_refused\"}").await?;
    normalizer.stop().await?;
    venue.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observed_session_plays_again_with_the_same_result() -> Result<()> {
    let stand_in = Venue::start().await?;
    let (sender, mut frames) = mpsc::channel(64);
    let btcturk = venue("btcturk").context("the venue is there")?;
    let session = tokio::spawn(observe(btcturk, stand_in.settings(), sender, CancellationToken::new()));
    let mut lines = vec![
        json!({"akis": "recording", "v": 1, "venue": "btcturk", "market": "spot", "startedAt": 0, "symbols": SYMBOLS})
            .to_string(),
    ];
    while lines.len() < 120 {
        let frame = tokio::time::timeout(WITHIN, frames.recv()).await?.context("the session goes on")?;
        lines.push(
            match frame.content {
                Content::Text { connection, text } => {
                    json!({"at": frame.received_at, "conn": connection, "text": text})
                }
                Content::Reply { target, status, body } => {
                    json!({"at": frame.received_at, "http": target, "status": status, "text": body})
                }
                Content::Binary { .. } | Content::Closed { .. } => continue,
            }
            .to_string(),
        );
    }
    drop(frames);
    tokio::time::timeout(WITHIN, session).await???;
    stand_in.stop().await?;
    let text = lines.join("\n");
    let run = || {
        let mut out = Vec::new();
        let summary = replay([text.as_bytes()], false, &mut out).unwrap();
        (out, summary)
    };
    let (out, summary) = run();
    assert_eq!(run(), (out.clone(), summary.clone()));
    let out = String::from_utf8(out)?;
    for event in ["price_tick", "trade", "orderbook", "candle_update"] {
        assert!(out.contains(&format!("\"event\":\"{event}\"")), "{event} in {summary}");
    }
    assert_eq!(summary.resyncs.len(), 0, "{summary}");
    Ok(())
}
