//! One channel with many subscribers, and events that come in bursts: how much one delivery costs, beside the floor.
//!
//! The next burst is published when every client has the one before, so the server is as busy as it can be and no queue grows.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::{Settings, check_whole, plans};
use crate::bed::Bed;
use crate::client::{Stamp, Start, now_us};
use crate::floor::Floor;
use crate::load::{DATA_BYTES, Load};
use crate::report::{Report, grouped, micros_each, ratio};
use crate::swarm::Swarm;
use crate::usage::CpuMeter;

const CLIENTS: usize = 1000;
const CHANNEL: &str = "bench:fan-out";

/// Events that are published in one call.
const BURSTS: [usize; 3] = [1, 16, 64];

/// Longer than any burst takes on a machine that is busy with something else.
const BURST_WITHIN: Duration = Duration::from_secs(20);

/// Bursts before anything is measured.
const WARM_UP: usize = 20;

/// The two are measured in turn so often, so that what else the machine does meets both.
const TURNS: u32 = 3;

/// As long as positions are in this century.
const SOME_SEQ: u64 = 1_795_312_345_678_901;

/// What one server took.
#[derive(Default)]
struct Taken {
    cpu: Duration,
    deliveries: u64,
    took: Duration,
}

pub(super) async fn run(settings: &Settings) -> Result<Report> {
    let bed = Bed::start(settings.akis.clone()).await?;
    let load = Load::new(bed.log().await?, &[CHANNEL.to_owned()], DATA_BYTES)?;
    let swarm = Swarm::connect(bed.target(Stamp::None), plans(vec![vec![CHANNEL.to_owned()]; CLIENTS], Start::Now)?);
    let swarm = swarm.await?;
    let most = BURSTS.into_iter().max().unwrap_or(1);
    let mut floor = Floor::start(&load.frame(0, SOME_SEQ, now_us())?, most, CLIENTS).await?;
    let mut report = Report::new(format!("fan-out: {CLIENTS} clients on one channel, {DATA_BYTES} bytes of data"));
    for burst in BURSTS {
        let (mut akis, mut least) = (Taken::default(), Taken::default());
        for _ in 0..TURNS {
            of_gateway(&bed, &load, &swarm, burst, settings.measured / TURNS, &mut akis).await?;
            of_floor(&mut floor, burst, settings.measured / TURNS, &mut least).await?;
        }
        let name = |what: &str| format!("{burst} at a time: {what}");
        let [each, floor_each] = [&akis, &least].map(|taken| micros_each(taken.cpu, taken.deliveries));
        report.add(name("CPU per delivery"), format!("{each:.2} µs"));
        report.add(name("of the floor"), format!("{floor_each:.2} µs"));
        report.add(name("ratio"), ratio(each, floor_each));
        report.add(name("deliveries per second"), grouped(akis.deliveries as f64 / akis.took.as_secs_f64()));
        report.add(name("deliveries per second and core of gateway"), grouped(1e6 / each));
    }
    check_whole(&swarm)?;
    Ok(report)
}

async fn of_gateway(
    bed: &Bed,
    load: &Load,
    swarm: &Swarm,
    burst: usize,
    measured: Duration,
    taken: &mut Taken,
) -> Result<()> {
    for _ in 0..WARM_UP {
        publish(load, swarm, burst).await?;
    }
    let (began, before) = (Instant::now(), swarm.tally().events());
    let meter = CpuMeter::start(bed.gateway().pid())?;
    while began.elapsed() < measured {
        publish(load, swarm, burst).await?;
    }
    taken.add(&meter, swarm.tally().events() - before, began)
}

async fn of_floor(floor: &mut Floor, burst: usize, measured: Duration, taken: &mut Taken) -> Result<()> {
    for _ in 0..WARM_UP {
        write(floor, burst).await?;
    }
    let (began, before) = (Instant::now(), floor.swarm().tally().events());
    let meter = CpuMeter::start(floor.pid())?;
    while began.elapsed() < measured {
        write(floor, burst).await?;
    }
    taken.add(&meter, floor.swarm().tally().events() - before, began)
}

async fn publish(load: &Load, swarm: &Swarm, burst: usize) -> Result<()> {
    let goal = swarm.tally().events() + (burst * CLIENTS) as u64;
    load.put(&[(0, burst)], now_us()).await?;
    swarm.tally().wait_events(goal, BURST_WITHIN).await
}

async fn write(floor: &mut Floor, burst: usize) -> Result<()> {
    let goal = floor.swarm().tally().events() + (burst * CLIENTS) as u64;
    floor.write_to(0..CLIENTS, burst).await?;
    floor.swarm().tally().wait_events(goal, BURST_WITHIN).await
}

impl Taken {
    fn add(&mut self, meter: &CpuMeter, deliveries: u64, began: Instant) -> Result<()> {
        self.cpu += meter.used()?;
        self.deliveries += deliveries;
        self.took += began.elapsed();
        Ok(())
    }
}
