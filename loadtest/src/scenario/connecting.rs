//! What it takes to get a client in: the upgrade, its token checked, its subscription and the channel's latest event.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::{Settings, check_whole};
use crate::bed::{Bed, token};
use crate::client::{Plan, Stamp, Start, Wish, now_us};
use crate::floor::Floor;
use crate::load::{DATA_BYTES, Load};
use crate::report::{Report, grouped, micros_each, ratio};
use crate::swarm::Swarm;
use crate::usage::CpuMeter;

const CLIENTS: usize = 5000;
const CHANNEL: &str = "bench:connecting";

/// How long the last snapshot may take to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(20);

pub(super) async fn run(settings: &Settings) -> Result<Report> {
    let bed = Bed::start(settings.akis.clone()).await?;
    let load = Load::new(bed.log().await?, &[CHANNEL.to_owned()], DATA_BYTES)?;
    load.put(&[(0, 1)], now_us()).await?;
    let distinct = (0..CLIENTS).map(|i| token(&format!("bench{i}"))).collect::<Result<Vec<_>>>()?;
    let same = vec![token("bench")?; CLIENTS];
    // The first ones to come make room for the others.
    connect(&bed, &same).await?;

    let floor_each = of_floor(&load).await?;
    let mut report =
        Report::new(format!("connecting: {} clients, until each has its snapshot", grouped(CLIENTS as f64)));
    report.add("of the floor, without token and snapshot", format!("{floor_each:.0} µs"));
    for (name, tokens) in [("each with its own token", &distinct), ("all with one token", &same)] {
        let (each, per_second) = connect(&bed, tokens).await?;
        report.add(format!("{name}: CPU per client"), format!("{each:.0} µs"));
        report.add(format!("{name}: ratio"), ratio(each, floor_each));
        report.add(format!("{name}: clients per second and core of gateway"), grouped(1e6 / each));
        report.add(format!("{name}: clients per second, as run"), grouped(per_second));
    }
    Ok(report)
}

/// CPU time of the gateway for each client in microseconds, and clients per second.
async fn connect(bed: &Bed, tokens: &[Arc<str>]) -> Result<(f64, f64)> {
    let wishes = vec![Wish::new(CHANNEL, Start::Latest)];
    let plans = tokens.iter().map(|token| Plan { token: token.clone(), wishes: wishes.clone(), stalls: false });
    let plans: Vec<_> = plans.collect();
    let (meter, began) = (CpuMeter::start(bed.gateway().pid())?, Instant::now());
    let swarm = Swarm::connect(bed.target(Stamp::None), plans).await?;
    swarm.tally().wait_events(tokens.len() as u64, ARRIVES_WITHIN).await?;
    let (cpu, took) = (meter.used()?, began.elapsed());
    check_whole(&swarm)?;
    drop(swarm);
    // That they leave is not to be paid by those who come next.
    bed.gateway().wait_left(ARRIVES_WITHIN).await?;
    Ok((micros_each(cpu, tokens.len() as u64), tokens.len() as f64 / took.as_secs_f64()))
}

async fn of_floor(load: &Load) -> Result<f64> {
    let floor = Floor::start(&load.frame(0, now_us(), now_us())?, 1, CLIENTS).await?;
    // It has done nothing else since it was started.
    Ok(micros_each(CpuMeter::since_start(floor.pid()).used()?, CLIENTS as u64))
}
