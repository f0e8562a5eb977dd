//! Many connections with one subscription each, on which nothing happens but heartbeats.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Settings, check_whole, plans};
use crate::bed::Bed;
use crate::client::{Stamp, Start, now_us};
use crate::floor::Floor;
use crate::report::{Report, grouped, micros_each, ratio};
use crate::swarm::Swarm;
use crate::usage::{CpuMeter, pss_bytes};
use crate::wire::server_frame;

/// Channels that the connections share.
const CHANNELS: usize = 100;

/// Seconds between two heartbeats, the default of `gateway.heartbeat`.
const HEARTBEAT_SECONDS: f64 = 5.0;

/// The floor writes its heartbeats in so many parts of that time, 50 ms apart.
const TURNS: usize = 100;

/// How long the last of them may take to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(20);

pub(super) async fn run(settings: &Settings) -> Result<Report> {
    let bed = Bed::start(settings.akis.clone()).await?;
    let pid = bed.gateway().pid();
    let alone = CpuMeter::start(pid)?;
    sleep(settings.measured / 2).await;
    let alone_cores = alone.cores()?;
    let before = pss_bytes(pid)?;

    let count = settings.connections;
    let clients = (0..count).map(|i| vec![format!("bench:idle{}", i % CHANNELS)]).collect();
    let plans = plans(clients, Start::Now)?;
    let connecting = CpuMeter::start(pid)?;
    let began = Instant::now();
    let swarm = Swarm::connect(bed.target(Stamp::None), plans).await?;
    let (connected_in, connect_cpu) = (began.elapsed(), connecting.used()?);
    let first = pss_bytes(pid)?;

    // Whole periods, so that each connection has had the same number of heartbeats.
    let periods = (settings.measured.as_secs_f64() / HEARTBEAT_SECONDS).ceil().max(1.0);
    let waiting = CpuMeter::start(pid)?;
    sleep(Duration::from_secs_f64(periods * HEARTBEAT_SECONDS)).await;
    let cores = waiting.cores()?;
    let heartbeats_cpu = (cores - alone_cores).max(0.0) * HEARTBEAT_SECONDS * 1e6 / count as f64;
    let after = pss_bytes(pid)?;
    check_whole(&swarm)?;
    drop((swarm, bed));
    let floor_us = of_floor(count).await?;

    let each = |bytes: u64| format!("{:.1} KiB", bytes.saturating_sub(before) as f64 / 1024.0 / count as f64);
    let mut report = Report::new(format!("idle: {} connections, one subscription each", grouped(count as f64)));
    report.add("gateway memory without clients (PSS)", format!("{:.1} MiB", before as f64 / 1048576.0));
    report.add("gateway memory per connection, just connected", each(first));
    report.add("gateway memory per connection, after heartbeats", each(after));
    report.add("connect and subscribe, all", format!("{:.1} s", connected_in.as_secs_f64()));
    report.add("gateway CPU per connect and subscribe", format!("{:.0} µs", micros_each(connect_cpu, count as u64)));
    report.add("gateway CPU without clients", format!("{:.1} % of a core", alone_cores * 100.0));
    report.add("gateway CPU with them", format!("{:.1} % of a core", cores * 100.0));
    report.add("gateway CPU per heartbeat", format!("{heartbeats_cpu:.1} µs"));
    report.add("of the floor, the same writes without pings", format!("{floor_us:.1} µs"));
    report.add("ratio", ratio(heartbeats_cpu, floor_us));
    Ok(report)
}

/// What the kernel alone takes for a heartbeat on a connection that nothing else has touched since the last one.
async fn of_floor(clients: usize) -> Result<f64> {
    let heartbeat = format!(
        r#"{{"v":1,"seq":0,"ts":{now_ms},"event":"heartbeat","channel":"system","ok":true,"data":{{"serverTs":{now_ms},"tailAgeMs":0}}}}"#,
        now_ms = now_us() / 1000
    );
    let mut floor = Floor::start(&server_frame(heartbeat.as_bytes()), 1, clients).await?;
    let (meter, began) = (CpuMeter::start(floor.pid())?, Instant::now());
    for turn in 0..TURNS {
        sleep_until(began + Duration::from_secs_f64(HEARTBEAT_SECONDS / TURNS as f64) * turn as u32).await;
        floor.write_to(clients * turn / TURNS..clients * (turn + 1) / TURNS, 1).await?;
    }
    floor.swarm().tally().wait_events(clients as u64, ARRIVES_WITHIN).await?;
    Ok(micros_each(meter.used()?, clients as u64))
}
