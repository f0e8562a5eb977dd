//! What trading pages do to a gateway: many channels at a steady rate, each client with its own choice of them.
//!
//! Events are published by a clock, whatever becomes of the ones before, and are stamped with the moment at which they were due:
//! a publisher or a gateway that falls behind shows as delay. The floor then does the same writes again: as many as the
//! gateway counted, at the times and of the sizes that the clients saw, whatever coalescing has made of the events.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep_until};

use super::{Settings, check_whole, plans};
use crate::bed::Bed;
use crate::client::{Stamp, Start, Target, now_us};
use crate::floor::Floor;
use crate::load::{DATA_BYTES, Load, Put};
use crate::report::{Report, delays, grouped, micros_each, ratio};
use crate::swarm::Swarm;
use crate::tally::Read;
use crate::usage::CpuMeter;

const CLIENTS: usize = 500;
const CHANNELS: usize = 200;
const CHANNELS_EACH: usize = 50;

/// Events of a channel per second, and how many times that is tried.
const RATE: usize = 4;
const TIMES: [usize; 3] = [1, 2, 4];

/// Events that are due in this time are published together.
const STEP: Duration = Duration::from_millis(2);

/// Before anything is measured.
const WARM_UP: Duration = Duration::from_secs(2);

/// How long the last events may take to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(20);

/// More than are ever written together.
const MOST_FRAMES: usize = 1000;

/// Clients choose their channels with this seed, so that runs compare.
const SEED: u64 = 7;

pub(super) async fn run(settings: &Settings) -> Result<Report> {
    let bed = Bed::start(settings.akis.clone()).await?;
    let names: Vec<_> = (0..CHANNELS).map(|i| format!("bench:page{i}")).collect();
    let load = Load::new(bed.log().await?, &names, DATA_BYTES)?;
    let mut random = fastrand::Rng::with_seed(SEED);
    let choices: Vec<_> = (0..CLIENTS).map(|_| random.choose_multiple(names.iter().cloned(), CHANNELS_EACH)).collect();
    let subscribers: Vec<_> = (0..load.len())
        .map(|place| choices.iter().flatten().filter(|name| *name == load.name(place)).count() as u64)
        .collect();
    let target = Target { is_traced: true, ..bed.target(Stamp::Sent) };
    let swarm = Swarm::connect(target, plans(choices, Start::Now)?).await?;
    let mut floor = Floor::start(&load.frame(0, now_us(), now_us())?, MOST_FRAMES, CLIENTS).await?;
    let title = format!(
        "trading page: {CHANNELS} channels of {RATE} events/s, {CLIENTS} clients with {CHANNELS_EACH} random ones each"
    );
    let mut report = Report::new(title);
    for times in TIMES {
        let page = Page { bed: &bed, load: &load, swarm: &swarm, subscribers: &subscribers, rate: RATE * times };
        page.measure(settings.measured, &mut floor, &mut report).await?;
    }
    check_whole(&swarm)?;
    report.add("lost", swarm.tally().losses().to_string());
    Ok(report)
}

/// One rate.
struct Page<'a> {
    bed: &'a Bed,
    load: &'a Load,
    swarm: &'a Swarm,
    /// Of each channel, by place.
    subscribers: &'a [u64],
    /// Events of a channel per second.
    rate: usize,
}

impl Page<'_> {
    async fn measure(&self, measured: Duration, floor: &mut Floor, report: &mut Report) -> Result<()> {
        let tally = self.swarm.tally();
        self.publish(WARM_UP).await?;
        tally.take_delays()?;
        tally.take_trace();
        let pids = [self.bed.gateway().pid(), std::process::id(), self.bed.redis_pid()];
        let [gateway, generator, redis] = pids.map(CpuMeter::start);
        let (gateway, generator, redis) = (gateway?, generator?, redis?);
        let (began, before, writes) = (Instant::now(), tally.events(), self.writes().await?);
        self.publish(measured).await?;
        let took = began.elapsed().as_secs_f64();
        let deliveries = tally.events() - before;
        let cores = [gateway.cores()?, generator.cores()?, redis.cores()?].map(|cores| format!("{cores:.2}"));
        let each = micros_each(gateway.used()?, deliveries);
        let together = deliveries as f64 / (self.writes().await? - writes).max(1.0);

        let trace = split(&tally.take_trace(), together);
        let meter = CpuMeter::start(floor.pid())?;
        let goal = floor.swarm().tally().events();
        let frames = floor.replay(&trace).await?;
        floor.swarm().tally().wait_events(goal + frames, ARRIVES_WITHIN).await?;
        let floor_each = micros_each(meter.used()?, frames);

        let name = |what: &str| format!("{} events/s: {what}", grouped((self.rate * CHANNELS) as f64));
        report.add(name("deliveries per second"), grouped(deliveries as f64 / took));
        report.add(name("publish to receive, p50 / p99 / p99.9 / max"), delays(&tally.take_delays()?));
        report.add(name("deliveries per write"), format!("{together:.2}"));
        report.add(name("CPU per delivery"), format!("{each:.2} µs"));
        report.add(name("of the floor, the same writes"), format!("{floor_each:.2} µs"));
        report.add(name("ratio"), ratio(each, floor_each));
        report.add(name("cores of gateway / generator / Redis"), cores.join(" / "));
        Ok(())
    }

    async fn writes(&self) -> Result<f64> {
        self.bed.gateway().metric("akis_gateway_writes_total", "").await
    }

    /// Publishes for some time, and waits until everything has arrived.
    async fn publish(&self, lasting: Duration) -> Result<()> {
        let tally = self.swarm.tally();
        let (began, began_us, received) = (Instant::now(), now_us(), tally.events());
        let steps = (lasting.as_micros() / STEP.as_micros()) as usize;
        let (mut published, mut expected) = (0, 0);
        for step in 1..=steps as u32 {
            let due = STEP * step;
            sleep_until(began + due).await;
            let until = self.rate * CHANNELS * due.as_micros() as usize / 1_000_000;
            let puts: Vec<Put> = (published..until).map(|event| (event % CHANNELS, 1)).collect();
            expected += puts.iter().map(|(place, _)| self.subscribers[*place]).sum::<u64>();
            published = until;
            self.load.put(&puts, began_us + due.as_micros() as u64).await?;
        }
        tally.wait_events(received + expected, ARRIVES_WITHIN).await
    }
}

/// A client that is late finds several writes in one read: such reads are taken apart, so that there are as many as writes,
/// each with about as many events as were written `together` on average.
fn split(reads: &[Read], together: f64) -> Vec<Read> {
    let mut writes = Vec::with_capacity(reads.len());
    for read in reads {
        let parts = ((f64::from(read.events) / together).round() as u32).clamp(1, read.events.max(1));
        writes.extend((0..parts).map(|part| {
            let events = read.events * (part + 1) / parts - read.events * part / parts;
            Read { events, ..*read }
        }));
    }
    writes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_reads_are_taken_apart() {
        let read = |events| Read { at_us: 5, client: 1, events };
        assert_eq!(split(&[read(2), read(7)], 2.0), [read(2), read(1), read(2), read(2), read(2)]);
        assert_eq!(split(&[read(1)], 40.0), [read(1)]);
    }
}
