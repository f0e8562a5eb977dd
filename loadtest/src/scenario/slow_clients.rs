//! Some clients stop to read: what that does to the others, and to memory.
//!
//! A stalled client also has a channel whose events are large and come all at once in the beginning, so that the kernel's
//! buffers are full, and the gateway has to decide what becomes of the rest, before anything is measured.

use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use tokio::time::{Instant, sleep_until};

use super::{Settings, check_whole, plans};
use crate::bed::Bed;
use crate::client::{Stamp, Start, now_us};
use crate::load::{DATA_BYTES, Load};
use crate::report::{Report, delays, quantile_ms};
use crate::swarm::Swarm;
use crate::usage::pss_bytes;

const CLIENTS: usize = 1000;

/// How many of them do not read.
const STALLED: [usize; 3] = [0, 1, 100];

/// Trades may lose their oldest when a client is slow, and stay in order; a client of another kind would be closed at once.
const CHANNEL: &str = "bench:slow:trades";
const FLOOD: &str = "bench:flood:trades";

/// More than the kernel holds for a client, and of an event than the gateway would merge with others.
const FLOOD_EVENTS: usize = 100;
const FLOOD_BYTES: usize = 20_000;

/// One event for everybody, so 50,000 deliveries a second.
const EVERY: Duration = Duration::from_millis(20);

const WARM_UP: Duration = Duration::from_secs(1);

/// How long the last events may take to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(20);

pub(super) async fn run(settings: &Settings) -> Result<Report> {
    let bed = Bed::start(settings.akis.clone()).await?;
    let load = Load::new(bed.log().await?, &[CHANNEL.to_owned()], DATA_BYTES)?;
    let flood = Load::new(bed.log().await?, &[FLOOD.to_owned()], FLOOD_BYTES)?;
    let mut report =
        Report::new(format!("slow clients: {CLIENTS} on one channel, {} events/s", 1000 / EVERY.as_millis()));
    let mut undisturbed = None;
    for stalled in STALLED {
        let swarm = plans(vec![vec![CHANNEL.to_owned()]; CLIENTS - stalled], Start::Now)?;
        let swarm = Swarm::connect(bed.target(Stamp::Sent), swarm).await?;
        let mut slow = plans(vec![vec![CHANNEL.to_owned(), FLOOD.to_owned()]; stalled], Start::Now)?;
        slow.iter_mut().for_each(|plan| plan.stalls = true);
        let slow = Swarm::connect(bed.target(Stamp::None), slow).await?;
        let before = pss_bytes(bed.gateway().pid())?;
        flood.put(&[(0, FLOOD_EVENTS)], now_us()).await?;
        publish(&load, &swarm, WARM_UP).await?;
        swarm.tally().take_delays()?;
        publish(&load, &swarm, settings.measured).await?;
        let after = pss_bytes(bed.gateway().pid())?;
        check_whole(&swarm)?;

        let measured: Histogram<u64> = swarm.tally().take_delays()?;
        let p99 = quantile_ms(&measured, 0.99);
        let undisturbed = *undisturbed.get_or_insert(p99);
        let name = |what: &str| format!("{stalled} do not read: {what}");
        report.add(name("p50 / p99 / p99.9 / max of the others"), delays(&measured));
        report.add(name("p99 against nobody slow"), format!("{:+.0} %", (p99 / undisturbed - 1.0) * 100.0));
        report.add(
            name("memory of the gateway meanwhile (PSS)"),
            format!("{:+.1} MiB", (after as f64 - before as f64) / 1_048_576.0),
        );
        let dropped = bed.gateway().metric("akis_gateway_drops_total", "").await?;
        report.add(name("events given up for the slow ones so far"), format!("{dropped:.0}"));
        drop(slow);
    }
    Ok(report)
}

/// Publishes by a clock for some time, and waits until everything has arrived.
async fn publish(load: &Load, swarm: &Swarm, lasting: Duration) -> Result<()> {
    let (began, began_us, before) = (Instant::now(), now_us(), swarm.tally().events());
    let count = (lasting.as_micros() / EVERY.as_micros()) as u32;
    for step in 1..=count {
        let due = EVERY * step;
        sleep_until(began + due).await;
        load.put(&[(0, 1)], began_us + due.as_micros() as u64).await?;
    }
    let readers = swarm.tally().ready() as u64;
    swarm.tally().wait_events(before + u64::from(count) * readers, ARRIVES_WITHIN).await
}
