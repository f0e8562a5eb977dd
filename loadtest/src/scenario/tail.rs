//! A log that is much busier than what the clients of one replica want of it.
//!
//! First only wanted events are published, then those that nobody wants besides: the difference is what they cost.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::try_join;
use tokio::time::{Instant, sleep_until};

use super::{Settings, check_whole, plans};
use crate::bed::Bed;
use crate::client::{Stamp, Start, now_us};
use crate::load::{DATA_BYTES, Load, Put};
use crate::report::{Report, grouped};
use crate::swarm::Swarm;
use crate::usage::CpuMeter;

const WANTED: usize = 20;
const UNWANTED: usize = 180;

/// Events that are published together, in each channel.
const AT_ONCE: usize = 10;

/// So 10,000 wanted events a second, and 90,000 others.
const EVERY: Duration = Duration::from_millis(20);

/// Unwanted events per second that the bar is about.
const UNWANTED_RATE: f64 = 90_000.0;

const WARM_UP: Duration = Duration::from_secs(1);

/// What was published, and what the gateway took meanwhile.
struct Phase {
    wanted: f64,
    unwanted: f64,
    cores: f64,
    redis_cores: f64,
}

pub(super) async fn run(settings: &Settings) -> Result<Report> {
    let bed = Bed::start(settings.akis.clone()).await?;
    let log = bed.log().await?;
    let names = |what: &str, count| (0..count).map(|i| format!("bench:{what}{i}")).collect::<Vec<_>>();
    let wanted = Load::new(log.clone(), &names("wanted", WANTED), DATA_BYTES)?;
    let unwanted = Load::new(log, &names("unwanted", UNWANTED), DATA_BYTES)?;
    let swarm = Swarm::connect(bed.target(Stamp::None), plans(vec![names("wanted", WANTED)], Start::Now)?).await?;

    publish(&bed, &wanted, None, WARM_UP).await?;
    let alone = publish(&bed, &wanted, None, settings.measured).await?;
    publish(&bed, &wanted, Some(&unwanted), WARM_UP).await?;
    let both = publish(&bed, &wanted, Some(&unwanted), settings.measured).await?;
    check_whole(&swarm)?;

    let for_wanted = alone.cores / alone.wanted * both.wanted;
    let each_us = (both.cores - for_wanted).max(0.0) * 1e6 / both.unwanted;
    let mut report = Report::new("tail: a log of which clients want a tenth");
    report.add(
        "wanted events per second, alone / with others",
        format!("{} / {}", grouped(alone.wanted), grouped(both.wanted)),
    );
    report.add("others per second, as reached", grouped(both.unwanted));
    report.add("cores of the gateway, alone / with others", format!("{:.3} / {:.3}", alone.cores, both.cores));
    report.add("gateway CPU per event that nobody wants", format!("{each_us:.2} µs"));
    report.add("that is, at 90,000 a second", format!("{:.0} % of a core", each_us * UNWANTED_RATE / 1e4));
    report.add("cores of Redis, alone / with others", format!("{:.2} / {:.2}", alone.redis_cores, both.redis_cores));
    Ok(report)
}

async fn publish(bed: &Bed, wanted: &Load, unwanted: Option<&Load>, lasting: Duration) -> Result<Phase> {
    let [gateway, redis] = [bed.gateway().pid(), bed.redis_pid()].map(CpuMeter::start);
    let (gateway, redis, began) = (gateway?, redis?, Instant::now());
    let puts = |load: &Load| (0..load.len()).map(|place| (place, AT_ONCE)).collect::<Vec<Put>>();
    let (mut due, mut rounds) = (began, 0.0);
    while began.elapsed() < lasting {
        // A log that cannot follow lowers the rate: the next round begins when it has the one before.
        sleep_until(due).await;
        due = (due + EVERY).max(Instant::now());
        let others = async {
            match unwanted {
                Some(unwanted) => unwanted.put(&puts(unwanted), now_us()).await,
                None => Ok(BTreeMap::new()),
            }
        };
        try_join(wanted.put(&puts(wanted), now_us()), others).await?;
        rounds += 1.0;
    }
    let per_second = |channels: usize| (channels * AT_ONCE) as f64 * rounds / began.elapsed().as_secs_f64();
    Ok(Phase {
        wanted: per_second(wanted.len()),
        unwanted: unwanted.map_or(0.0, |load| per_second(load.len())),
        cores: gateway.cores()?,
        redis_cores: redis.cores()?,
    })
}
