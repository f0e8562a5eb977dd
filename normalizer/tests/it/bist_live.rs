//! Borsa Istanbul's whole way, from the stand-in's sockets into a log in memory, when the venue refuses or breaks off.

mod day;

use std::net::{SocketAddr, UdpSocket};

use akis_connectors::bist::sim::{self, Addresses, Day, SimConfig, Sockets};
use akis_connectors::sim::Source;
use akis_connectors::{Own, Settings};
use akis_testkit::wait_until;
use anyhow::Result;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::live::{LONGEST_WAIT, Normalizer, WITHIN, assert_dense};

const BOOK: &str = "bist:THYAO:book";
const TRADES: &str = "bist:THYAO:trades";

struct Venue {
    at: Addresses,
    lines: [SocketAddr; 2],
    _stop: DropGuard,
}

impl Venue {
    async fn start() -> Result<Self> {
        Self::playing(Day::Present).await
    }

    async fn playing(day: Day) -> Result<Self> {
        let sockets = Sockets::above(TcpListener::bind("127.0.0.1:0").await?)?;
        let free = || UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let (at, lines) = (sockets.addresses()?, [free()?, free()?]);
        let symbols = ["THYAO", "GARAN"].map(str::to_owned).to_vec();
        let source = Source::Generated { symbols, rate: 200, seed: 11 };
        let config = SimConfig { source, day, line_a: vec![lines[0]], line_b: vec![lines[1]] };
        let cancel = CancellationToken::new();
        tokio::spawn(sim::serve(sockets, config, cancel.clone()));
        Ok(Self { at, lines, _stop: cancel.drop_guard() })
    }

    async fn fault(&self, fault: Value) -> Result<()> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("http://{}/sim/fault", self.at.control);
        http.post(url).body(fault.to_string()).send().await?.error_for_status()?;
        Ok(())
    }

    fn settings(keys: &[(&str, String)]) -> Settings {
        let own = Own(keys.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect());
        Settings {
            symbols: ["THYAO", "GARAN"].map(str::to_owned).to_vec(),
            own,
            longest_wait: Some(LONGEST_WAIT),
            ..Settings::default()
        }
    }

    fn soup(&self) -> Settings {
        Self::settings(&[("transport", "soupbintcp".to_owned()), ("soup", self.at.soup.to_string())])
    }

    fn mold(&self) -> Settings {
        Self::settings(&[
            ("line_a", self.lines[0].to_string()),
            ("line_b", self.lines[1].to_string()),
            ("rewinder", self.at.rewinder.to_string()),
            ("glimpse", self.at.glimpse.to_string()),
        ])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_is_refused_is_told_and_so_is_one_that_is_taken() -> Result<()> {
    for reason in ["not_authorised", "no_session"] {
        let venue = Venue::start().await?;
        venue.fault(json!({"fault": "refuse_login", "times": 1_000, "reason": reason})).await?;
        let normalizer = Normalizer::of("bist", venue.soup())?;
        normalizer.wait_for_state(TRADES, "down").await?;
        venue.fault(json!({"fault": "refuse_login", "times": 0, "reason": reason})).await?;
        normalizer.wait_for_state(TRADES, "up").await?;
        normalizer.wait_for(BOOK, 5).await?;
        normalizer.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_a_type_that_nobody_knows_is_counted_and_harms_nothing() -> Result<()> {
    let venue = Venue::start().await?;
    let normalizer = Normalizer::of("bist", venue.soup())?;
    normalizer.wait_for(BOOK, 5).await?;
    let skipped = "akis_normalizer_skipped_total{reason=\"unknown_event\",venue=\"bist\"}";
    assert_eq!(normalizer.metric(skipped), 0, "of itself the stand-in sends what is known");
    venue.fault(json!({"fault": "unknown_message"})).await?;
    normalizer.wait_for_metric(skipped).await?;
    for channel in [BOOK, TRADES] {
        normalizer.wait_for_more(channel, 5).await?;
        assert_dense(&normalizer.events(channel).await?);
    }
    assert_eq!(normalizer.metric("akis_normalizer_book_resyncs_total{cause=\"misfit\",venue=\"bist\"}"), 0);
    normalizer.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_dies_in_the_middle_proves_no_book() -> Result<()> {
    let venue = Venue::start().await?;
    let normalizer = Normalizer::of("bist", venue.mold())?;
    normalizer.wait_for(BOOK, 5).await?;
    // Neither the lines nor the rewinder bring it back, and snapshots come to nothing until that was told.
    venue.fault(json!({"fault": "glimpse_dies", "times": 1_000, "messages": 9})).await?;
    venue.fault(json!({"fault": "rewinder_loss", "requests": 8})).await?;
    venue.fault(json!({"fault": "loss", "line": "both", "packets": 2})).await?;
    normalizer.wait_for_state(BOOK, "resyncing").await?;
    venue.fault(json!({"fault": "glimpse_dies", "times": 0, "messages": 9})).await?;
    normalizer.wait_for_state(BOOK, "up").await?;
    let events = normalizer.events(BOOK).await?;
    let told: Vec<&str> = events.iter().filter_map(|(_, event)| event["event"].as_str()).collect();
    let lost = told.iter().position(|event| *event == "channel_status").unwrap();
    assert_eq!(told.get(lost + 1), Some(&"channel_status"), "between loss and proof no book is shown");
    let before = events.len();
    normalizer.wait_for(BOOK, before + 3).await?;
    normalizer.stop().await
}

/// Whether the newest trade has a time of the venue's.
async fn is_trusted(normalizer: &Normalizer) -> bool {
    let events = normalizer.events(TRADES).await.unwrap_or_default();
    events.last().is_some_and(|(_, event)| event["data"]["tsSource"] == "venue")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_is_not_trusted_and_candles_stay_where_they_are() -> Result<()> {
    for skew_ms in [7_200_000, -7_200_000, -1_790_000_000_000_i64] {
        let venue = Venue::start().await?;
        let normalizer = Normalizer::of("bist", venue.soup())?;
        wait_until(WITHIN, "a trade", async || is_trusted(&normalizer).await).await?;
        venue.fault(json!({"fault": "clock_skew", "ms": skew_ms})).await?;
        wait_until(WITHIN, "a trade with our time", async || !is_trusted(&normalizer).await).await?;
        normalizer.wait_for_metric("akis_normalizer_skipped_total{reason=\"bad_time\",venue=\"bist\"}").await?;
        // The exchange sets its clock right while the session goes on.
        venue.fault(json!({"fault": "clock_skew", "ms": 0})).await?;
        wait_until(WITHIN, "times are trusted again", async || is_trusted(&normalizer).await).await?;
        for (_, candle) in normalizer.events("bist:THYAO:1h").await? {
            let [open_time, received_at] =
                ["openTime", "receivedAt"].map(|time| candle["data"][time].as_i64().unwrap());
            assert!((0..3_700_000).contains(&(received_at - open_time)), "{candle}");
        }
        normalizer.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_instruments_that_are_listed_at_once_are_told() -> Result<()> {
    let venue = Venue::start().await?;
    let settings = Settings { symbols: vec!["*".to_owned()], ..venue.soup() };
    let normalizer = Normalizer::of("bist", settings)?;
    normalizer.wait_for(BOOK, 5).await?;
    venue.fault(json!({"fault": "new_symbols", "count": 1_000})).await?;
    normalizer.wait_for("bist:NEW1001:session", 1).await?;
    normalizer.wait_for_more(BOOK, 1).await?;
    assert_dense(&normalizer.events(BOOK).await?);
    normalizer.stop().await
}
