//! Clients that come, subscribe, unsubscribe and leave: what stays behind in memory. A day in small with `--minutes 60`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until};

use super::{Settings, plans};
use crate::bed::Bed;
use crate::client::{Client, Plan, READ_BYTES, Stamp, Start, Target};
use crate::report::{Report, grouped, micros_each};
use crate::tally::Tally;
use crate::usage::{CpuMeter, pss_bytes};

/// Clients that come per second.
const RATE: u32 = 500;

/// Clients that are there at a time. More wait, which lowers the rate, and the report says what it was.
const AT_ONCE: usize = 1000;

/// Channels that clients choose two neighbours of.
const CHANNELS: usize = 200;

/// Memory is compared from this part of the time on: 5 minutes of an hour.
const WARM_UP_PART: u32 = 12;

/// Without more minutes: not long enough to find a leak, only to see that coming and going works.
const SHORTEST_WARM_UP: Duration = Duration::from_secs(3);

/// Visits that were begun, done and failed.
#[derive(Default)]
struct Visits {
    done: Cell<u64>,
    /// The most at once.
    most: Cell<usize>,
    failure: RefCell<Option<String>>,
}

pub(super) async fn run(settings: &Settings) -> Result<Report> {
    let bed = Bed::start(settings.akis.clone()).await?;
    let pid = bed.gateway().pid();
    let lists = (0..CHANNELS).map(|i| [i, i + 1].map(|place| format!("bench:churn{}", place % CHANNELS)).to_vec());
    let plans: Vec<Plan> = plans(lists.collect(), Start::Now)?;
    let lasting = settings.churn.unwrap_or(settings.measured);
    let warm_up = (lasting / WARM_UP_PART).max(SHORTEST_WARM_UP);
    let target = bed.target(Stamp::None);
    LocalSet::new()
        .run_until(async {
            let (_, most_before) = visit(target, &plans, warm_up).await?;
            let (before, meter, began) = (pss_bytes(pid)?, CpuMeter::start(pid)?, Instant::now());
            let (visits, most) = visit(target, &plans, lasting).await?;
            let (took, cpu, after) = (began.elapsed().as_secs_f64(), meter.used()?, pss_bytes(pid)?);
            let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1_048_576.0);
            let title =
                format!("churn: connect, subscribe, unsubscribe, leave, for {took:.0} s after {} s", warm_up.as_secs());
            let mut report = Report::new(title);
            report.add("clients", grouped(visits as f64));
            report.add("clients per second", grouped(visits as f64 / took));
            report.add("clients at once, at most: before, and after that", format!("{most_before}, {most}"));
            report.add("memory of the gateway before (PSS)", mib(before));
            report.add("memory of the gateway at the end (PSS)", mib(after));
            report.add("gateway CPU per client", format!("{:.0} µs", micros_each(cpu, visits)));
            Ok(report)
        })
        .await
}

/// Lets clients come and go for some time, and gives how many did, and how many were there at once at most.
async fn visit(target: Target, plans: &[Plan], lasting: Duration) -> Result<(u64, usize)> {
    let (tally, visits) = (Arc::new(Tally::new()?), Rc::new(Visits::default()));
    let (places, scratch) = (Arc::new(Semaphore::new(AT_ONCE)), Rc::new(RefCell::new(vec![0; READ_BYTES])));
    let began = Instant::now();
    for (number, plan) in (0..).zip(plans.iter().cycle()) {
        let due = Duration::from_secs(1) * number / RATE;
        if due >= lasting {
            break;
        }
        sleep_until(began + due).await;
        let place = Arc::clone(&places).acquire_owned().await.context("places are never closed")?;
        visits.most.set(visits.most.get().max(AT_ONCE - places.available_permits()));
        let (plan, tally, visits, scratch) =
            (plan.clone(), Arc::clone(&tally), Rc::clone(&visits), Rc::clone(&scratch));
        tokio::task::spawn_local(async move {
            let visited = async { Client::connect(target, number, plan, tally).await?.visit(scratch).await };
            match visited.await {
                Ok(()) => visits.done.set(visits.done.get() + 1),
                Err(error) => drop(visits.failure.borrow_mut().get_or_insert_with(|| format!("{error:#}"))),
            }
            drop(place);
        });
    }
    // All places are free again when all clients have left.
    let _all = places.acquire_many(AT_ONCE as u32).await.context("places are never closed")?;
    match visits.failure.take() {
        Some(failure) => bail!("a client failed: {failure}"),
        None => Ok((visits.done.get(), visits.most.get())),
    }
}
