//! Some clients stop to read: what that does to the others, and to memory.
//!
//! A stalled client also has a channel whose events are large and come all at once in the beginning, so that the kernel's
//! buffers are full, and the gateway has to decide what becomes of the rest, before anything is measured.

use std::time::Duration;

use anyhow::{Context, Result};
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

/// Each number of them is measured so often, in turns: what else the machine does then falls on all of them.
const ROUNDS: usize = 3;

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

/// What was seen with so many clients that do not read.
#[derive(Default)]
struct Run {
    stalled: usize,
    /// Those of the others, by round.
    delays: Vec<Histogram<u64>>,
    /// How much the gateway grew in the worst round.
    grown_bytes: u64,
    /// Events that the gateway did not keep for them, in all rounds.
    given_up: f64,
}

pub(super) async fn run(settings: &Settings) -> Result<Report> {
    let bed = Bed::start(settings.akis.clone()).await?;
    let load = Load::new(bed.log().await?, &[CHANNEL.to_owned()], DATA_BYTES)?;
    let flood = Load::new(bed.log().await?, &[FLOOD.to_owned()], FLOOD_BYTES)?;
    let mut runs = STALLED.map(|stalled| Run { stalled, ..Run::default() });
    for _ in 0..ROUNDS {
        for run in &mut runs {
            run.measure(settings, &bed, &load, &flood).await?;
        }
    }
    let mut report =
        Report::new(format!("slow clients: {CLIENTS} on one channel, {} events/s", 1000 / EVERY.as_millis()));
    let undisturbed = runs[0].p99_ms()?;
    for run in &runs {
        let name = |what: &str| format!("{} do not read: {what}", run.stalled);
        report.add(name("p50 / p99 / p99.9 / max of the others"), delays(&run.delays()?));
        report.add(name("p99 against nobody slow"), format!("{:+.0} %", (run.p99_ms()? / undisturbed - 1.0) * 100.0));
        report.add(
            name("memory of the gateway meanwhile (PSS), at most"),
            format!("{:+.1} MiB", run.grown_bytes as f64 / 1_048_576.0),
        );
        report.add(name("events given up for the slow ones"), format!("{:.0}", run.given_up));
    }
    Ok(report)
}

impl Run {
    async fn measure(&mut self, settings: &Settings, bed: &Bed, load: &Load, flood: &Load) -> Result<()> {
        let dropped = async || bed.gateway().metric("akis_gateway_drops_total", "").await;
        let dropped_before = dropped().await?;
        let swarm = plans(vec![vec![CHANNEL.to_owned()]; CLIENTS - self.stalled], Start::Now)?;
        let swarm = Swarm::connect(bed.target(Stamp::Sent), swarm).await?;
        let mut slow = plans(vec![vec![CHANNEL.to_owned(), FLOOD.to_owned()]; self.stalled], Start::Now)?;
        slow.iter_mut().for_each(|plan| plan.stalls = true);
        let _slow = Swarm::connect(bed.target(Stamp::None), slow).await?;
        let before = pss_bytes(bed.gateway().pid())?;
        flood.put(&[(0, FLOOD_EVENTS)], now_us()).await?;
        publish(load, &swarm, WARM_UP).await?;
        swarm.tally().take_delays()?;
        publish(load, &swarm, settings.measured).await?;
        check_whole(&swarm)?;
        self.grown_bytes = self.grown_bytes.max(pss_bytes(bed.gateway().pid())?.saturating_sub(before));
        self.given_up += dropped().await? - dropped_before;
        self.delays.push(swarm.tally().take_delays()?);
        Ok(())
    }

    /// All rounds together.
    fn delays(&self) -> Result<Histogram<u64>> {
        let mut all = self.delays.first().context("nothing was measured")?.clone();
        self.delays[1..].iter().try_for_each(|delays| all.add(delays))?;
        Ok(all)
    }

    /// In the middle of the rounds: one in which something else took the machine has no say.
    fn p99_ms(&self) -> Result<f64> {
        let mut each: Vec<f64> = self.delays.iter().map(|delays| quantile_ms(delays, 0.99)).collect();
        each.sort_by(f64::total_cmp);
        each.get(each.len() / 2).copied().context("nothing was measured")
    }
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
