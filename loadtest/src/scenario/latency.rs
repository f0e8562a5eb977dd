//! A steady rate on several channels: how long an event takes from its publisher to each client.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Settings, check_whole};
use crate::bed::Bed;
use crate::client::Stamp;
use crate::load::Load;
use crate::report::{Delays, Report, grouped, micros_each};
use crate::swarm::Swarm;
use crate::usage::CpuMeter;

const CLIENTS: usize = 200;
const CHANNELS: usize = 10;
const CHANNELS_EACH: usize = 5;

/// One event each: 1,000 a second.
const EVERY: Duration = Duration::from_millis(1);

/// Before anything is measured.
const WARM_UP: Duration = Duration::from_secs(2);

/// How long the last events may take to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(20);

pub(super) async fn run(settings: &Settings) -> Result<Report> {
    let bed = Bed::start(settings.akis.clone()).await?;
    let log = bed.log().await?;
    let names: Vec<String> = (0..CHANNELS).map(|i| format!("bench:latency{i}")).collect();
    let loads = names.iter().map(|name| Load::new(log.clone(), name)).collect::<Result<Vec<_>>>()?;
    let wanted =
        |client: usize| -> Vec<String> { (0..CHANNELS_EACH).map(|i| names[(client + i) % CHANNELS].clone()).collect() };
    let swarm = Swarm::connect(bed.target(Stamp::Sent)?, (0..CLIENTS).map(wanted).collect()).await?;

    publish(&loads, &swarm, WARM_UP).await?;
    swarm.tally().take_delays();
    let [gateway, generator, redis] = [bed.gateway().pid(), std::process::id(), bed.redis_pid()].map(CpuMeter::start);
    let (gateway, generator, redis) = (gateway?, generator?, redis?);
    let (began, before) = (Instant::now(), swarm.tally().events());
    let published = publish(&loads, &swarm, settings.measured * 2).await?;
    let (took, deliveries) = (began.elapsed().as_secs_f64(), swarm.tally().events() - before);
    let cores = [gateway.cores()?, generator.cores()?, redis.cores()?].map(|cores| format!("{cores:.2}"));
    let delays = Delays::new(swarm.tally().take_delays());
    check_whole(&swarm)?;

    let title =
        format!("latency: {CLIENTS} clients, {CHANNELS_EACH} of {CHANNELS} channels each, one event a millisecond");
    let mut report = Report::new(title);
    report.add("events per second", grouped(published as f64 / took));
    report.add("deliveries per second", grouped(deliveries as f64 / took));
    report.add("publish to receive, p50 / p99 / max", delays.to_string());
    report.add("lost", swarm.tally().losses().to_string());
    report.add("gateway CPU per delivery", format!("{:.2} µs", micros_each(gateway.used()?, deliveries)));
    report.add("cores of gateway / generator / Redis", cores.join(" / "));
    Ok(report)
}

/// Publishes for some time, channel by channel in turn, and waits until everything has arrived. Gives how many events.
async fn publish(loads: &[Load], swarm: &Swarm, lasting: Duration) -> Result<u64> {
    let before = swarm.tally().events();
    let mut every = interval(EVERY);
    // An event is stamped when it is sent, so a late tick does not count as a delay; it only lowers the rate.
    every.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let began = Instant::now();
    let mut published = 0;
    for load in loads.iter().cycle() {
        if began.elapsed() >= lasting {
            break;
        }
        every.tick().await;
        load.put(1).await?;
        published += 1;
    }
    // Each channel has the same number of subscribers.
    let subscribers = (CLIENTS * CHANNELS_EACH / CHANNELS) as u64;
    swarm.tally().wait_events(before + published * subscribers, ARRIVES_WITHIN).await?;
    Ok(published)
}
