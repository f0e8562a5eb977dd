//! One channel with many subscribers, and events that come in bursts: how much one delivery costs.
//!
//! The next burst is published when every client has the one before, so the gateway is as busy as it can be and no queue grows.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::{Settings, check_whole};
use crate::bed::Bed;
use crate::client::Stamp;
use crate::load::{DATA_BYTES, Load};
use crate::report::{Report, grouped, micros_each};
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

pub(super) async fn run(settings: &Settings) -> Result<Report> {
    let bed = Bed::start(settings.akis.clone()).await?;
    let load = Load::new(bed.log().await?, CHANNEL)?;
    let swarm = Swarm::connect(bed.target(Stamp::None)?, vec![vec![CHANNEL.to_owned()]; CLIENTS]).await?;
    let mut report = Report::new(format!("fan-out: {CLIENTS} clients on one channel, {DATA_BYTES} bytes of data"));
    let mut singly = None;
    for burst in BURSTS {
        for _ in 0..WARM_UP {
            deliver(&load, &swarm, burst).await?;
        }
        let [gateway, generator, redis] =
            [bed.gateway().pid(), std::process::id(), bed.redis_pid()].map(CpuMeter::start);
        let (gateway, generator, redis) = (gateway?, generator?, redis?);
        let (began, before) = (Instant::now(), swarm.tally().events());
        while began.elapsed() < settings.measured {
            deliver(&load, &swarm, burst).await?;
        }
        let (took, deliveries) = (began.elapsed().as_secs_f64(), swarm.tally().events() - before);
        let each = micros_each(gateway.used()?, deliveries);
        let name = |what: &str| format!("bursts of {burst}: {what}");
        report.add(name("gateway CPU per delivery"), format!("{each:.2} µs"));
        report.add(name("deliveries per second"), grouped(deliveries as f64 / took));
        report.add(name("deliveries per second and core of gateway"), grouped(1e6 / each));
        let cores = [gateway.cores()?, generator.cores()?, redis.cores()?].map(|cores| format!("{cores:.2}"));
        report.add(name("cores of gateway / generator / Redis"), cores.join(" / "));
        let singly = *singly.get_or_insert(each);
        if burst > 1 {
            report.add(name("times cheaper than singly"), format!("{:.1}", singly / each));
        }
    }
    check_whole(&swarm)?;
    Ok(report)
}

async fn deliver(load: &Load, swarm: &Swarm, burst: usize) -> Result<()> {
    let goal = swarm.tally().events() + (burst * CLIENTS) as u64;
    load.put(burst).await?;
    swarm.tally().wait_events(goal, BURST_WITHIN).await
}
