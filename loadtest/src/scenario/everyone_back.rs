//! Everyone comes back at once, as after a roll of replicas: each client with its positions, events missed on each channel.

use std::fmt::Write;
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::{Settings, check_whole};
use crate::bed::{Bed, Cores, token};
use crate::client::{Plan, Stamp, Start, Wish, now_us};
use crate::load::{DATA_BYTES, Load, Put};
use crate::report::{Report, grouped, micros_each};
use crate::swarm::Swarm;
use crate::usage::CpuMeter;

const CLIENTS: usize = 10_000;
const CHANNELS: usize = 200;
const CHANNELS_EACH: usize = 20;
const MISSED: usize = 10;
const REPLICAS: usize = 2;

/// Long enough for the slowest machine to end with a figure.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(120);

/// Clients choose their channels with this seed, so that runs compare.
const SEED: u64 = 11;

pub(super) async fn run(settings: &Settings) -> Result<Report> {
    let bed = Bed::with_replicas(settings.akis.clone(), REPLICAS, Cores::Any).await?;
    let names: Vec<_> = (0..CHANNELS).map(|i| format!("bench:back{i}")).collect();
    let load = Load::new(bed.log().await?, &names, DATA_BYTES)?;
    let puts: Vec<Put> = (0..CHANNELS).map(|place| (place, MISSED)).collect();
    let positions = load.put(&puts, now_us()).await?;
    load.put(&puts, now_us()).await?;
    let wishes: Vec<_> =
        positions.iter().map(|(&place, &seq)| Wish::new(load.name(place), Start::After(seq))).collect();
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut halves = vec![Vec::new(); REPLICAS];
    for client in 0..CLIENTS {
        let wishes = random.choose_multiple(wishes.iter().cloned(), CHANNELS_EACH);
        let token = token(&format!("bench{client}"))?;
        halves[client % REPLICAS].push(Plan { token, wishes, stalls: false });
    }

    let commands = bed.commands().await?;
    let pids: Vec<_> =
        bed.gateways().map(|gateway| gateway.pid()).chain([bed.redis_pid(), std::process::id()]).collect();
    let meters = pids.into_iter().map(CpuMeter::start).collect::<Result<Vec<_>>>()?;
    let began = Instant::now();
    let swarms = halves.into_iter().enumerate().map(|(replica, plans)| come_back(&bed, replica, plans));
    let swarms = futures_util::future::try_join_all(swarms).await?;
    let took = began.elapsed();
    let cpu = meters.iter().map(CpuMeter::used).collect::<Result<Vec<_>>>()?;
    swarms.iter().try_for_each(check_whole)?;
    let mut asked = String::new();
    for (name, count) in bed.commands().await? {
        let count = count - commands.get(&name).copied().unwrap_or(0);
        if count > 0 {
            write!(asked, "{name} {count}, ")?;
        }
    }

    let title = format!(
        "everyone back: {} clients, {CHANNELS_EACH} of {CHANNELS} channels each, {MISSED} events missed on each, {REPLICAS} replicas",
        grouped(CLIENTS as f64)
    );
    let mut report = Report::new(title);
    let events = swarms.iter().map(|swarm| swarm.tally().events()).sum::<u64>();
    let gateways = cpu[..REPLICAS].iter().sum::<Duration>();
    report.add("all caught up after", format!("{:.1} s", took.as_secs_f64()));
    report.add("events replayed", grouped(events as f64));
    report.add("lost / received twice", "0 / 0");
    report.add("CPU of the replicas together", format!("{:.1} s", gateways.as_secs_f64()));
    report.add("CPU of the replicas per client", format!("{:.0} µs", micros_each(gateways, CLIENTS as u64)));
    report.add(
        "CPU of Redis / clients",
        format!("{:.2} / {:.1} s", cpu[REPLICAS].as_secs_f64(), cpu[REPLICAS + 1].as_secs_f64()),
    );
    report.add("commands of Redis", asked.trim_end_matches(", "));
    Ok(report)
}

async fn come_back(bed: &Bed, replica: usize, plans: Vec<Plan>) -> Result<Swarm> {
    let events = (plans.len() * CHANNELS_EACH * MISSED) as u64;
    let swarm = Swarm::connect(bed.target_of(replica, Stamp::None), plans).await?;
    swarm.tally().wait_events(events, CAUGHT_UP_WITHIN).await?;
    Ok(swarm)
}
