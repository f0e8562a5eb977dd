//! The whole path, every role a process of its own: a venue's stand-in, the normalizer, Redis, one gateway, clients.
//!
//! The stand-in's rate is doubled until something cannot follow. The figures are those of the last rate that was sustained:
//! nothing lost anywhere, and trades on the screen soon after they happened.

use std::time::Duration;

use akis_testkit::Process;
use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use tokio::time::{Instant, sleep};

use super::{Settings, plans};
use crate::bed::{Bed, Cores, Role, loopback};
use crate::client::{Stamp, Start};
use crate::report::{Report, delays, grouped, quantile_ms};
use crate::swarm::Swarm;
use crate::usage::CpuMeter;

/// The stand-in's first rate, in events of all symbols together per second.
const FIRST_RATE: u32 = 32_000;

/// The last one that is tried.
const LAST_RATE: u32 = 128_000;

/// A rate is sustained while 99 of 100 trades are received so soon after they happened.
const SOON_MS: f64 = 500.0;

const SYMBOLS: usize = 20;
const KINDS: [&str; 4] = ["ticker", "trades", "book", "1m"];

/// Clients with one symbol each, beside the one that has everything.
const CLIENTS: usize = 100;

/// After the first event and before anything is measured: books are fetched, and queues settle.
const WARM_UP: Duration = Duration::from_secs(3);

/// How long the first events may take to arrive.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// What one rate led to.
struct Step {
    rate: u32,
    /// Published into the log, per second.
    events: f64,
    deliveries: f64,
    delays: Histogram<u64>,
    /// Stand-in, normalizer, Redis, gateway, clients.
    cores: [f64; 5],
    normalizer_us: f64,
    /// Why it was not sustained.
    trouble: Option<String>,
}

pub(super) async fn run(settings: &Settings) -> Result<Report> {
    let bed = Bed::with_replicas(settings.akis.clone(), 1, Cores::Any).await?;
    let mut best = None;
    let mut limit = None;
    let mut rate = FIRST_RATE;
    while rate <= LAST_RATE {
        let step = measure(&bed, rate, settings.measured).await?;
        // It takes a minute: whoever watches sees it go on.
        eprintln!("rate {rate}: {:.0} events/s, {}, cores {:.2?}", step.events, delays(&step.delays), step.cores);
        if let Some(trouble) = step.trouble {
            limit = Some(format!("{} ({trouble})", grouped(f64::from(rate))));
            break;
        }
        best = Some(step);
        rate *= 2;
    }
    let Some(best) = best else { bail!("not even the first rate was sustained: {limit:?}") };
    let title = format!("whole path: {SYMBOLS} symbols, one client with all of them, {CLIENTS} with one each");
    let mut report = Report::new(title);
    report.add("highest rate of the venue that was sustained, events per second", grouped(f64::from(best.rate)));
    report.add("first rate that was not", limit.unwrap_or_else(|| "not found".to_owned()));
    report.add("events into the log per second", grouped(best.events));
    report.add("deliveries per second", grouped(best.deliveries));
    report.add("trade happened to received, p50 / p99 / p99.9 / max", delays(&best.delays));
    for (name, cores) in ["stand-in", "normalizer", "Redis", "gateway", "clients"].iter().zip(best.cores) {
        report.add(format!("cores of {name}"), format!("{cores:.2}"));
    }
    report.add("normalizer CPU per event of the venue", format!("{:.1} µs", best.normalizer_us));
    Ok(report)
}

async fn measure(bed: &Bed, rate: u32, measured: Duration) -> Result<Step> {
    let symbols: Vec<String> = (0..SYMBOLS).map(|i| format!("BENCH{i}USDT")).collect();
    let (stand_in, venue) = start_stand_in(bed, &symbols, rate).await?;
    let normalizer = start_normalizer(bed, &symbols, &venue).await?;
    let swarm = Swarm::connect(bed.target(Stamp::Trade), plans(clients(&symbols), Start::Now)?).await?;
    swarm.tally().wait_events(1, STARTS_WITHIN).await?;
    sleep(WARM_UP).await;

    swarm.tally().take_delays()?;
    let pids = [stand_in.id(), normalizer.pid(), bed.redis_pid(), bed.gateway().pid(), std::process::id()];
    let meters = pids.map(CpuMeter::start).into_iter().collect::<Result<Vec<_>>>()?;
    let (began, received) = (Instant::now(), swarm.tally().events());
    let published = published(&normalizer).await?;
    let losses = swarm.tally().losses();
    sleep(measured).await;
    let took = began.elapsed().as_secs_f64();
    let events = (self::published(&normalizer).await? - published) / took;
    let mut cores = [0.0; 5];
    for (cores, meter) in cores.iter_mut().zip(&meters) {
        *cores = meter.cores()?;
    }
    let delays = swarm.tally().take_delays()?;
    let deliveries = (swarm.tally().events() - received) as f64 / took;
    let trouble = trouble(&normalizer, &swarm, losses, &delays).await?;
    normalizer.stop().await?;
    let normalizer_us = cores[1] * 1e6 / f64::from(rate);
    Ok(Step { rate, events, deliveries, delays, cores, normalizer_us, trouble })
}

/// What was lost, or was late.
async fn trouble(
    normalizer: &Role,
    swarm: &Swarm,
    losses_before: u64,
    delays: &Histogram<u64>,
) -> Result<Option<String>> {
    if let Some(failure) = swarm.tally().failure() {
        return Ok(Some(format!("a client failed: {failure}")));
    }
    let losses = swarm.tally().losses() - losses_before;
    let lost_trades = normalizer.metric("akis_normalizer_lost_trades_total", "").await?;
    let dropped = normalizer.metric("akis_publisher_events_total", "\"dropped\"").await?;
    let late = quantile_ms(delays, 0.99);
    Ok(if losses > 0 || lost_trades > 0.0 || dropped > 0.0 {
        Some(format!("lost: {losses} by clients, {lost_trades} trades of the venue, {dropped} by the publisher"))
    } else if late > SOON_MS {
        Some(format!("late: p99 {late:.0} ms"))
    } else {
        None
    })
}

pub(super) async fn published(normalizer: &Role) -> Result<f64> {
    normalizer.metric("akis_publisher_events_total", "\"published\"").await
}

pub(super) async fn start_stand_in(bed: &Bed, symbols: &[String], rate: u32) -> Result<(Process, String)> {
    let args =
        ["sim", "binance", "--listen", "127.0.0.1:0", "--symbols", &symbols.join(","), "--rate", &rate.to_string()];
    let mut process = Process::spawn(bed.akis(), &args, &[])?;
    let line = process.wait_for_line("ws_url:", STARTS_WITHIN).await?;
    let address = loopback(&line).with_context(|| format!("no address in {line:?}"))?;
    Ok((process, address.to_string()))
}

pub(super) async fn start_normalizer(bed: &Bed, symbols: &[String], venue: &str) -> Result<Role> {
    let (redis, symbols) = (bed.redis_url(), symbols.join(","));
    let (ws_url, rest_url) = (format!("ws://{venue}"), format!("http://{venue}"));
    let env = [
        ("AKIS_REDIS__URL", redis.as_str()),
        ("AKIS_VENUES__BINANCE__SYMBOLS", symbols.as_str()),
        ("AKIS_VENUES__BINANCE__WS_URL", ws_url.as_str()),
        ("AKIS_VENUES__BINANCE__REST_URL", rest_url.as_str()),
    ];
    Role::start(bed.akis(), "normalizer", &env, Cores::Any).await
}

/// One client with every channel, and others with those of one symbol.
fn clients(symbols: &[String]) -> Vec<Vec<String>> {
    let of_symbol = |symbol: &String| KINDS.map(|kind| format!("binance:{symbol}:{kind}")).to_vec();
    let mut clients = vec![symbols.iter().flat_map(of_symbol).collect()];
    clients.extend(symbols.iter().cycle().take(CLIENTS).map(of_symbol));
    clients
}
