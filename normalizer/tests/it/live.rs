//! A venue's whole way, from the stand-in's sockets into a log in memory.

mod faults;
mod listing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use akis_connectors::binance::sim::{self, Limits, SimConfig};
use akis_connectors::sim::Source;
use akis_connectors::{Content, RawFrame, Settings, venue};
use akis_eventlog::{MemoryStore, Select, Store};
use akis_model::{Channel, Seq};
use akis_normalizer::{Metrics, RunError, observe, run};
use akis_testkit::wait_until;
use anyhow::{Context, Result};
use prometheus::{Registry, TextEncoder};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) const WITHIN: Duration = Duration::from_secs(20);

/// Between two tries, by chance: far from [`WITHIN`], and not so short that the venue's connections a minute are used up.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(5);

struct Venue {
    address: SocketAddr,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Venue {
    async fn start(address: &str) -> Result<Self> {
        Self::start_at_rate(address, 200).await
    }

    /// One where so much happens in a second.
    async fn start_at_rate(address: &str, rate: u32) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let symbols = ["BTCUSDT", "ETHUSDT"].map(str::to_owned).to_vec();
        let source = Source::Generated { symbols, rate, seed: 7 };
        let config = SimConfig { source, limits: Limits::default() };
        let cancel = CancellationToken::new();
        let serving = sim::serve(listener, config, cancel.clone());
        let task = tokio::spawn(async move { serving.await.expect("the stand-in starts") });
        Ok(Self { address, cancel, task })
    }

    async fn stop(self) -> Result<SocketAddr> {
        self.cancel.cancel();
        self.task.await?;
        Ok(self.address)
    }

    async fn fault(&self, fault: Value) -> Result<()> {
        let url = format!("http://{}/sim/fault", self.address);
        let client = reqwest::Client::builder().no_proxy().build()?;
        client.post(url).body(fault.to_string()).send().await?.error_for_status()?;
        Ok(())
    }

    fn settings(&self) -> Settings {
        Settings {
            symbols: ["BTCUSDT", "ETHUSDT"].map(str::to_owned).to_vec(),
            ws_url: Some(format!("ws://{}", self.address)),
            rest_url: Some(format!("http://{}", self.address)),
            longest_wait: Some(LONGEST_WAIT),
            ..Settings::default()
        }
    }
}

/// A normalizer of one venue with a log of its own.
pub(crate) struct Normalizer {
    store: Arc<MemoryStore>,
    registry: Registry,
    running: JoinHandle<Result<(), RunError>>,
    /// Whether the venue's data flows is known.
    judged: CancellationToken,
    cancel: CancellationToken,
    _stop: DropGuard,
}

impl Normalizer {
    fn start(settings: Settings) -> Result<Self> {
        Self::of("binance", settings)
    }

    pub(crate) fn of(name: &str, settings: Settings) -> Result<Self> {
        Self::on(MemoryStore::new(4), name, settings)
    }

    /// One that writes to a log in which there may be something.
    fn on(store: Arc<MemoryStore>, name: &str, settings: Settings) -> Result<Self> {
        let (registry, cancel) = (Registry::new(), CancellationToken::new());
        let metrics = Metrics::register(&registry)?;
        let venue = venue(name).context("the venue is there")?;
        let log = Arc::clone(&store) as Arc<dyn Store>;
        let judged = CancellationToken::new();
        let running = tokio::spawn(run(venue, settings, log, metrics, judged.clone(), cancel.clone()));
        let stop = cancel.clone().drop_guard();
        Ok(Self { store, registry, running, judged, cancel, _stop: stop })
    }

    pub(crate) async fn events(&self, channel: &str) -> Result<Vec<(Seq, Value)>> {
        let select = Select::Above { after: Seq::ZERO, limit: 100_000 };
        let entries = self.store.range(&Channel::parse(channel)?, select).await?.entries;
        entries
            .iter()
            .map(|entry| {
                Ok((entry.seq, serde_json::from_str(&format!("{{{}", String::from_utf8(entry.body.to_vec())?))?))
            })
            .collect()
    }

    /// The closed candles that are kept for charts, in order.
    pub(crate) async fn candles(&self, channel: &str) -> Result<Vec<Value>> {
        let kept = self.store.candles(&Channel::parse(channel)?, None, 2_000).await?;
        kept.iter()
            .map(|candle| Ok(serde_json::from_str(&format!("{{{}", std::str::from_utf8(&candle.body)?))?))
            .collect()
    }

    /// How many channels of one kind there are in the log.
    pub(crate) async fn count_channels(&self, facet: &str) -> usize {
        let channels = self.store.channels("").await.unwrap_or_default();
        channels.iter().filter(|head| head.channel.as_str().ends_with(facet)).count()
    }

    pub(crate) async fn wait_for(&self, channel: &str, count: usize) -> Result<()> {
        let what = format!("{channel} has {count} events");
        wait_until(WITHIN, &what, async || self.events(channel).await.is_ok_and(|events| events.len() >= count)).await
    }

    /// Waits for so many events beyond those that there are.
    pub(crate) async fn wait_for_more(&self, channel: &str, count: usize) -> Result<()> {
        let before = self.events(channel).await?.len();
        self.wait_for(channel, before + count).await
    }

    pub(crate) async fn wait_for_state(&self, channel: &str, state: &str) -> Result<()> {
        let what = format!("{channel} is {state}");
        let is_so = async || {
            let events = self.events(channel).await.unwrap_or_default();
            events
                .iter()
                .rev()
                .find(|(_, event)| event["event"] == "channel_status")
                .is_some_and(|(_, event)| event["data"]["state"] == state)
        };
        wait_until(WITHIN, &what, is_so).await
    }

    pub(crate) fn metric(&self, line_start: &str) -> u64 {
        u64::try_from(self.signed_metric(line_start)).unwrap_or(0)
    }

    pub(crate) fn signed_metric(&self, line_start: &str) -> i64 {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(line_start));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    }

    pub(crate) async fn wait_for_metric(&self, line_start: &str) -> Result<()> {
        wait_until(WITHIN, line_start, async || self.metric(line_start) > 0).await
    }

    pub(crate) async fn stop(self) -> Result<()> {
        self.cancel.cancel();
        Ok(tokio::time::timeout(WITHIN, self.running).await???)
    }
}

pub(crate) fn trade_ids(events: &[(Seq, Value)]) -> Vec<u64> {
    let ids = events.iter().filter(|(_, event)| event["event"] == "trade");
    ids.map(|(_, event)| event["data"]["id"].as_str().unwrap().parse().unwrap()).collect()
}

/// By the venue's numbers, which rise by one.
fn assert_no_trade_is_missing(events: &[(Seq, Value)]) {
    let ids = trade_ids(events);
    assert!(ids.windows(2).all(|pair| pair[1] == pair[0] + 1), "{ids:?}");
}

pub(crate) fn assert_dense(events: &[(Seq, Value)]) {
    for pair in events.windows(2) {
        assert_eq!(pair[1].0, pair[0].0.next(), "between {} and {}", pair[0].1, pair[1].1);
    }
}

/// Best first, never crossed, no level without an amount.
pub(crate) fn assert_books(events: &[(Seq, Value)]) {
    let number = |level: &Value, at: usize| level[at].as_str().unwrap().parse::<f64>().unwrap();
    for (_, event) in events.iter().filter(|(_, event)| event["event"] == "orderbook") {
        let side = |name: &str| event["data"][name].as_array().unwrap().clone();
        let (bids, asks) = (side("bids"), side("asks"));
        assert!(bids.is_sorted_by(|a, b| number(a, 0) > number(b, 0)), "{event}");
        assert!(asks.is_sorted_by(|a, b| number(a, 0) < number(b, 0)), "{event}");
        let best = bids.first().zip(asks.first());
        assert!(best.is_none_or(|(bid, ask)| number(bid, 0) < number(ask, 0)), "{event}");
        assert!(bids.iter().chain(&asks).all(|level| number(level, 1) > 0.0), "{event}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_every_symbol_flows_and_is_dense() -> Result<()> {
    let venue = Venue::start("127.0.0.1:0").await?;
    let normalizer = Normalizer::start(venue.settings())?;
    for (facet, count) in [("ticker", 5), ("trades", 20), ("book", 5), ("1m", 1)] {
        for symbol in ["BTCUSDT", "ETHUSDT"] {
            let channel = format!("binance:{symbol}:{facet}");
            normalizer.wait_for(&channel, count).await?;
            let events = normalizer.events(&channel).await?;
            assert_dense(&events);
            assert_no_trade_is_missing(&events);
            let symbols: Vec<&Value> = events.iter().map(|(_, event)| &event["data"]["symbol"]).collect();
            assert!(symbols.iter().all(|name| name.as_str() == Some(symbol.replace("USDT", "/USDT").as_str())));
        }
    }
    assert_eq!(normalizer.metric("akis_venue_up{lease=\"binance\",venue=\"binance\"}"), 1);
    for counted in [
        "akis_normalizer_frames_total{kind=\"text\",venue=\"binance\"}",
        "akis_normalizer_frames_total{kind=\"reply\",venue=\"binance\"}",
        "akis_normalizer_events_total{kind=\"book\",venue=\"binance\"}",
        "akis_normalizer_delay_seconds_bucket{kind=\"trades\",venue=\"binance\",le=\"5\"}",
        "akis_venue_connection_age_seconds{venue=\"binance\"}",
    ] {
        normalizer.wait_for_metric(counted).await?;
    }
    assert_eq!(normalizer.metric("akis_normalizer_lost_trades_total{venue=\"binance\"}"), 0);
    normalizer.stop().await?;
    venue.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn futures_flow_beside_spot_and_their_books_resync() -> Result<()> {
    let venue = Venue::start("127.0.0.1:0").await?;
    let normalizer = Normalizer::of("binancef", venue.settings())?;
    for (facet, count) in [("ticker", 5), ("trades", 20), ("book", 5), ("1m", 1), ("4h", 1)] {
        let channel = format!("binancef:BTCUSDT:{facet}");
        normalizer.wait_for(&channel, count).await?;
        assert_dense(&normalizer.events(&channel).await?);
    }
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://{}/sim/fault?market=usdm", venue.address);
    let fault = json!({"fault":"drop_diff","symbol":"BTCUSDT"}).to_string();
    client.post(url).body(fault).send().await?.error_for_status()?;
    normalizer.wait_for_metric("akis_normalizer_book_resyncs_total{cause=\"gap\",venue=\"binancef\"}").await?;
    normalizer.wait_for_more("binancef:BTCUSDT:book", 4).await?;
    normalizer.stop().await?;
    venue.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn symbols_are_found_by_pattern_and_by_volume() -> Result<()> {
    let venue = Venue::start("127.0.0.1:0").await?;
    let url = format!("http://{}/api/v3/ticker/24hr", venue.address);
    let days = reqwest::Client::builder().no_proxy().build()?.get(url).send().await?.text().await?;
    let days: Vec<Value> = serde_json::from_str(&days)?;
    let volume = |day: &&Value| {
        let whole = day["quoteVolume"].as_str().and_then(|volume| volume.split('.').next());
        whole.and_then(|whole| whole.parse::<u128>().ok())
    };
    let busiest = days.iter().max_by_key(volume).and_then(|day| day["symbol"].as_str()).context("there are symbols")?;
    for (entry, found) in [("eth*", "ETHUSDT"), ("top:1", busiest)] {
        let settings = Settings { symbols: vec![entry.to_owned()], ..venue.settings() };
        let normalizer = Normalizer::start(settings)?;
        for facet in ["trades", "book"] {
            normalizer.wait_for(&format!("binance:{found}:{facet}"), 3).await?;
        }
        let channels = normalizer.store.channels("binance:").await?;
        let others = channels.iter().filter(|head| !head.channel.as_str().contains(found)).count();
        assert_eq!(others, 0, "{entry}");
        normalizer.stop().await?;
    }
    venue.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn charts_begin_with_the_candles_of_the_past() -> Result<()> {
    let venue = Venue::start("127.0.0.1:0").await?;
    let normalizer = Normalizer::start(venue.settings())?;
    for (facet, length_ms, at_least) in [("1m", 60_000, 400), ("5m", 300_000, 80), ("1h", 3_600_000, 6)] {
        let channel = Channel::parse(&format!("binance:ETHUSDT:{facet}"))?;
        let candles = async || normalizer.store.candles(&channel, None, 1_000).await.unwrap_or_default();
        wait_until(WITHIN, "the past is kept", async || candles().await.len() >= at_least).await?;
        let kept = candles().await;
        assert!(kept.windows(2).all(|pair| pair[1].open_ms - pair[0].open_ms == length_ms), "{facet} has a hole");
    }
    normalizer.stop().await?;
    venue.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_diff_resyncs_the_book_and_bad_frames_are_counted() -> Result<()> {
    let venue = Venue::start("127.0.0.1:0").await?;
    let normalizer = Normalizer::start(venue.settings())?;
    normalizer.wait_for("binance:BTCUSDT:book", 2).await?;
    venue.fault(json!({"fault":"drop_diff","symbol":"BTCUSDT"})).await?;
    normalizer.wait_for_metric("akis_normalizer_book_resyncs_total{cause=\"gap\",venue=\"binance\"}").await?;
    venue.fault(json!({"fault":"crossed_book","symbol":"ETHUSDT"})).await?;
    normalizer.wait_for_metric("akis_normalizer_book_resyncs_total{cause=\"crossed\",venue=\"binance\"}").await?;
    venue.fault(json!({"fault":"bad_frame","text":"{\"stream\":\"btcusdt@depth@100ms\",\"da"})).await?;
    normalizer.wait_for_metric("akis_normalizer_skipped_total{reason=\"not_json\",venue=\"binance\"}").await?;
    for symbol in ["BTCUSDT", "ETHUSDT"] {
        let channel = format!("binance:{symbol}:book");
        normalizer.wait_for_more(&channel, 4).await?;
        assert_dense(&normalizer.events(&channel).await?);
    }
    normalizer.stop().await?;
    venue.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_venue_that_goes_is_told_and_so_is_its_return() -> Result<()> {
    let venue = Venue::start("127.0.0.1:0").await?;
    let normalizer = Normalizer::start(venue.settings())?;
    normalizer.wait_for("binance:BTCUSDT:trades", 1).await?;
    let address = venue.stop().await?;
    for facet in ["ticker", "trades", "book", "1m"] {
        normalizer.wait_for_state(&format!("binance:ETHUSDT:{facet}"), "down").await?;
    }
    assert_eq!(normalizer.metric("akis_venue_up{lease=\"binance\",venue=\"binance\"}"), 0);
    let venue = Venue::start(&address.to_string()).await?;
    normalizer.wait_for_state("binance:ETHUSDT:trades", "up").await?;
    normalizer.wait_for_more("binance:BTCUSDT:book", 2).await?;
    normalizer.stop().await?;
    venue.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_close_of_the_venue_loses_no_trade() -> Result<()> {
    let venue = Venue::start("127.0.0.1:0").await?;
    let normalizer = Normalizer::start(venue.settings())?;
    normalizer.wait_for("binance:BTCUSDT:trades", 10).await?;
    venue.fault(json!({"fault":"shutdown"})).await?;
    let opened = "akis_venue_session_total{venue=\"binance\",what=\"opened\"}";
    let closed = "akis_venue_connections{venue=\"binance\"}";
    let changed = async || normalizer.metric(opened) == 2 && normalizer.metric(closed) == 1;
    wait_until(Duration::from_secs(45), "the old connection has given way to a new one", changed).await?;
    normalizer.wait_for_more("binance:BTCUSDT:trades", 10).await?;
    assert_no_trade_is_missing(&normalizer.events("binance:BTCUSDT:trades").await?);
    normalizer.stop().await?;
    venue.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_comes_back_and_its_hole_is_filled() -> Result<()> {
    let venue = Venue::start("127.0.0.1:0").await?;
    let normalizer = Normalizer::start(venue.settings())?;
    normalizer.wait_for("binance:BTCUSDT:trades", 10).await?;
    normalizer.wait_for("binance:BTCUSDT:book", 1).await?;
    venue.fault(json!({"fault":"cut"})).await?;
    normalizer.wait_for_metric("akis_venue_session_total{venue=\"binance\",what=\"lost\"}").await?;
    normalizer.wait_for_more("binance:BTCUSDT:trades", 10).await?;
    let events = normalizer.events("binance:BTCUSDT:trades").await?;
    assert_dense(&events);
    assert_no_trade_is_missing(&events);
    normalizer.stop().await?;
    venue.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observed_session_has_what_its_books_need() -> Result<()> {
    let venue = Venue::start("127.0.0.1:0").await?;
    let (sender, mut frames) = mpsc::channel(64);
    let cancel = CancellationToken::new();
    let binance = akis_connectors::venue("binance").context("the venue is there")?;
    let session = tokio::spawn(observe(binance, venue.settings(), sender, cancel.clone()));
    let is_book =
        |frame: &RawFrame| matches!(&frame.content, Content::Reply { target, .. } if target.contains("depth?"));
    let (mut books, mut last_at) = (0, 0);
    while books < 2 {
        let frame = tokio::time::timeout(WITHIN, frames.recv()).await?.context("the session goes on")?;
        assert!(frame.received_at >= last_at);
        last_at = frame.received_at;
        books += usize::from(is_book(&frame));
    }
    drop(frames);
    tokio::time::timeout(WITHIN, session).await???;
    venue.stop().await?;
    Ok(())
}
