//! A log that is much busier than what the clients of one replica want of it.
//!
//! First only wanted events are published, then those that nobody wants besides: the difference is what they cost.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep_until};

use super::{Settings, check_whole, plans};
use crate::bed::{Bed, PARTITIONS, PREFIX};
use crate::client::{Stamp, Start};
use crate::flood::Flood;
use crate::report::{Report, grouped};
use crate::swarm::Swarm;
use crate::usage::CpuMeter;

const WANTED: usize = 20;
const ALL: usize = 200;

/// Events that are published together, in each channel.
const AT_ONCE: usize = 10;

/// So 10,000 wanted events a second, and 90,000 others.
const EVERY: Duration = Duration::from_millis(20);

/// Unwanted events per second that the bar is about.
const UNWANTED_RATE: f64 = 90_000.0;

const WARM_UP: Duration = Duration::from_secs(1);

/// What was published, and what the processes took meanwhile.
struct Phase {
    events: f64,
    gateway_cores: f64,
    redis_cores: f64,
}

pub(super) async fn run(settings: &Settings) -> Result<Report> {
    let bed = Bed::start(settings.akis.clone()).await?;
    let names = (0..ALL).map(|i| format!("bench:tail{i}")).collect::<Vec<_>>();
    let mut flood = Flood::start(&bed.redis_url(), PREFIX, PARTITIONS, &names).await?;
    let wanted = names[..WANTED].to_vec();
    let swarm = Swarm::connect(bed.target(Stamp::None), plans(vec![wanted], Start::Now)?).await?;

    publish(&bed, &mut flood, WANTED, WARM_UP).await?;
    let alone = publish(&bed, &mut flood, WANTED, settings.measured).await?;
    publish(&bed, &mut flood, ALL, WARM_UP).await?;
    let both = publish(&bed, &mut flood, ALL, settings.measured).await?;
    check_whole(&swarm)?;

    let wanted = both.events * WANTED as f64 / ALL as f64;
    let unwanted = both.events - wanted;
    let for_wanted = alone.gateway_cores / alone.events * wanted;
    let each_us = (both.gateway_cores - for_wanted).max(0.0) * 1e6 / unwanted;
    let mut report = Report::new("tail: a log of which clients want a tenth");
    report.add(
        "wanted events per second, alone / with others",
        format!("{} / {}", grouped(alone.events), grouped(wanted)),
    );
    report.add("others per second, as reached", grouped(unwanted));
    report.add(
        "cores of the gateway, alone / with others",
        format!("{:.3} / {:.3}", alone.gateway_cores, both.gateway_cores),
    );
    report.add("gateway CPU per event that nobody wants", format!("{each_us:.2} µs"));
    report.add("that is, at 90,000 a second", format!("{:.0} % of a core", each_us * UNWANTED_RATE / 1e4));
    report.add("cores of Redis, alone / with others", format!("{:.2} / {:.2}", alone.redis_cores, both.redis_cores));
    Ok(report)
}

/// Publishes in the first `channels`.
async fn publish(bed: &Bed, flood: &mut Flood, channels: usize, lasting: Duration) -> Result<Phase> {
    let [gateway, redis] = [bed.gateway().pid(), bed.redis_pid()].map(CpuMeter::start);
    let (gateway, redis, began) = (gateway?, redis?, Instant::now());
    let (mut due, mut rounds) = (began, 0.0);
    while began.elapsed() < lasting {
        // A Redis that cannot follow lowers the rate: the next round begins when it has the one before.
        sleep_until(due).await;
        due = (due + EVERY).max(Instant::now());
        flood.put(0..channels, AT_ONCE).await?;
        rounds += 1.0;
    }
    Ok(Phase {
        events: (channels * AT_ONCE) as f64 * rounds / began.elapsed().as_secs_f64(),
        gateway_cores: gateway.cores()?,
        redis_cores: redis.cores()?,
    })
}
