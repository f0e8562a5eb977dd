//! A venue's busy day in the normalizer, and a calm one: many symbols, every role but clients a process of its own.
//!
//! A second client of the venue notes when it received which trade; Redis stamps the same trade's entry in the log with its
//! own clock, to the millisecond. Both clocks are the machine's, and the difference is what the normalizer took.

use std::collections::HashMap;
use std::time::Duration;

use akis_eventlog::{Feed, FeedStart, Partition, Store};
use akis_model::Channel;
use anyhow::{Context, Result, bail};
use futures_util::future::try_join;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::Settings;
use super::path::{published, start_normalizer, start_stand_in};
use crate::bed::{Bed, Cores, PARTITIONS, Role};
use crate::client::{now_us, read_upgrade};
use crate::report::{Report, delays, grouped};
use crate::tally::histogram;
use crate::usage::{CpuMeter, pss_bytes};
use crate::wire::{Frame, next_frame, upgrade_request};

/// Symbols, and frames per second in all of them together. The stand-in sends what falls into 10 ms at once, so on the
/// busy day a trade waits for up to 200 frames before it.
const DAYS: [(&str, usize, u32); 2] = [("calm", 50, 1_000), ("busy", 500, 20_000)];

/// Books of all symbols are fetched first, at the venue's limits.
const WARM_UP: Duration = Duration::from_secs(30);

/// One of the log's partitions is read: its trades stand for all.
const READ: Partition = Partition(0);

/// The log is read so much longer than the venue is listened to.
const LISTEN_LONGER: Duration = Duration::from_millis(500);

const READ_WAIT: Duration = Duration::from_millis(100);

pub(super) async fn run(settings: &Settings) -> Result<Report> {
    let mut report = Report::new("busy day: the normalizer with many symbols");
    for (name, symbols, rate) in DAYS {
        measure(settings, name, symbols, rate, &mut report).await?;
    }
    Ok(report)
}

async fn measure(settings: &Settings, name: &str, symbols: usize, rate: u32, report: &mut Report) -> Result<()> {
    let bed = Bed::with_replicas(settings.akis.clone(), 1, Cores::Any).await?;
    let symbols: Vec<String> = (0..symbols).map(|i| format!("BUSY{i}USDT")).collect();
    let (stand_in, venue) = start_stand_in(&bed, &symbols, rate).await?;
    let normalizer = start_normalizer(&bed, &symbols, &venue).await?;
    sleep(WARM_UP).await;

    let meters = [stand_in.id(), normalizer.pid(), bed.redis_pid()].map(CpuMeter::start);
    let (frames_before, events_before, began) =
        (frames(&normalizer).await?, published(&normalizer).await?, Instant::now());
    let feed = bed.log().await?.open_feed(READ, "busy-day", 1, FeedStart::Back(Duration::ZERO)).await?;
    let (received, written) =
        try_join(listen(&venue, &symbols, settings.measured), read_trades(feed, settings.measured + LISTEN_LONGER))
            .await?;
    let took = began.elapsed().as_secs_f64();
    let frames_rate = (frames(&normalizer).await? - frames_before) / took;
    let events_rate = (published(&normalizer).await? - events_before) / took;
    let mut cores = [0.0; 3];
    for (cores, meter) in cores.iter_mut().zip(meters) {
        *cores = meter?.cores()?;
    }
    let memory = pss_bytes(normalizer.pid())?;
    let lost = normalizer.metric("akis_normalizer_lost_trades_total", "").await?;
    let dropped = normalizer.metric("akis_publisher_events_total", "\"dropped\"").await?;
    normalizer.stop().await?;
    let mut of_trades = histogram()?;
    for (trade, written_us) in &written {
        if let Some(received_us) = received.get(trade) {
            of_trades.saturating_record(written_us.saturating_sub(*received_us));
        }
    }
    if of_trades.is_empty() {
        bail!("no trade came into the log");
    }

    let row = |what: &str| format!("{name}, {} symbols: {what}", symbols.len());
    report.add(
        row("frames per second / events into the log"),
        format!("{} / {}", grouped(frames_rate), grouped(events_rate)),
    );
    let [of_venue, of_normalizer, of_redis] = cores;
    report.add(
        row("cores of normalizer / Redis / stand-in"),
        format!("{of_normalizer:.2} / {of_redis:.2} / {of_venue:.2}"),
    );
    report.add(row("normalizer CPU per frame"), format!("{:.1} µs", of_normalizer * 1e6 / frames_rate));
    report.add(row("memory of the normalizer (PSS)"), format!("{:.0} MiB", memory as f64 / 1_048_576.0));
    report.add(row("trade received to in the log, p50 / p99 / p99.9 / max"), delays(&of_trades));
    report.add(row("trades lost / events dropped since the start"), format!("{lost:.0} / {dropped:.0}"));
    Ok(())
}

async fn frames(normalizer: &Role) -> Result<f64> {
    normalizer.metric("akis_normalizer_frames_total", "\"text\"").await
}

/// Trades by symbol and id, with a moment in microseconds since the epoch.
type Moments = HashMap<(String, u64), u64>;

/// When a client of the venue receives the trades of the symbols whose trades are in the partition that is read.
async fn listen(venue: &str, symbols: &[String], lasting: Duration) -> Result<Moments> {
    let mut streams = Vec::new();
    for symbol in symbols {
        let channel = Channel::parse(&format!("binance:{symbol}:trades"))?;
        if Partition::of(&channel, PARTITIONS) == READ {
            streams.push(format!("{}@aggTrade", symbol.to_lowercase()));
        }
    }
    let mut stream = TcpStream::connect(venue).await.context("connect to the stand-in")?;
    let request = upgrade_request(venue, &format!("/stream?streams={}", streams.join("/")), "");
    stream.write_all(request.as_bytes()).await.context("ask for the upgrade")?;
    let mut bytes = read_upgrade(&mut stream).await?;
    let mut received = Moments::new();
    let listening = async {
        loop {
            if stream.read_buf(&mut bytes).await.context("listen to the stand-in")? == 0 {
                bail!("the stand-in closed the connection");
            }
            let (now_us, mut used) = (now_us(), 0);
            while let Some((frame, length)) = next_frame(&bytes[used..]).ok().context("a bad frame")? {
                if let Frame::Text(text) = frame
                    && let Some((symbol, id)) = trade_of(text, "\"s\":\"", "\"a\":")
                {
                    received.insert((symbol, id), now_us);
                }
                used += length;
            }
            bytes.drain(..used);
        }
    };
    match timeout(lasting, listening).await {
        Ok(ended) => ended,
        Err(_) => Ok(received),
    }
}

/// When Redis took the trades of the feed, in the middle of its millisecond.
async fn read_trades(mut feed: Box<dyn Feed>, lasting: Duration) -> Result<Moments> {
    let mut written = Moments::new();
    let reading = async {
        loop {
            for entry in feed.next(READ_WAIT).await?.entries {
                let is_trade = entry.channel.as_ref().is_some_and(|channel| channel.as_str().ends_with(":trades"));
                let body = entry.body.as_deref().unwrap_or_default();
                if let (true, Some(trade)) = (is_trade, trade_of(body, "\"symbol\":\"", "\"id\":\"")) {
                    written.insert(trade, entry.id.ms * 1000 + 500);
                }
            }
        }
    };
    match timeout(lasting, reading).await {
        Ok(ended) => ended,
        Err(_) => Ok(written),
    }
}

/// The symbol and the id that follow these marks.
fn trade_of(text: &[u8], symbol: &str, id: &str) -> Option<(String, u64)> {
    let text = std::str::from_utf8(text).ok()?;
    let (symbol, id) = (text.split_once(symbol)?.1, text.split_once(id)?.1);
    let digits = id.find(|c: char| !c.is_ascii_digit())?;
    // An event names the pair with a stroke in it.
    Some((symbol.split_once('"')?.0.replace('/', ""), id[..digits].parse().ok()?))
}
