//! Random clients of two gateways, random faults of the log, and every delivery held against what happened.
//!
//! Clients subscribe, with and without an interval, leave, are cut off, resume, stall, refresh and narrow their tokens; the log is cut
//! off, slow, deaf, paused, killed, emptied, its clock is stepped, and it fails over to a server that lost its tail. When the faults are over each client has to catch up.
//! Then everything that anybody was told is checked: positions rise, nothing is missing without a word, what was
//! recovered hides nothing, nothing comes that the token does not allow, and what was acknowledged is kept.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use akis_testkit::{Direction, RedisOptions, RedisServer, wait_until};
use fastrand::Rng;
use serde_json::Value;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::follower::Publisher;
use crate::system::{Options, SOON, System, token};
use crate::wanderer::{Diary, Wanderer};

const CHANNELS: [&str; 5] =
    ["binance:BTCUSDT:trades", "binance:ETHUSDT:trades", "binance:BTCUSDT:ticker", "job:1", "job:2"];
const JOBS: [&str; 2] = ["job:1", "job:2"];
const CLIENTS: u64 = 12;

/// How many seconds the clock of the log may be off. What has a time to live may live longer by twice that.
const CLOCK_OFF_S: i64 = 5;

/// How long there are faults.
const FAULTY: Duration = Duration::from_secs(10);

/// How long at least there are none at the end: a channel that nobody proves is told after ten seconds.
const CALM: Duration = Duration::from_secs(12);

/// Every event that ever was, by channel and position.
#[derive(Default)]
struct Truth {
    events: BTreeMap<&'static str, BTreeMap<u64, Value>>,
    wrong: Vec<String>,
}

impl Truth {
    fn add(&mut self, channel: &'static str, seq: u64, event: Value) {
        let before = self.events.entry(channel).or_default().insert(seq, event.clone());
        if before.is_some_and(|before| before != event) {
            self.wrong.push(format!("{channel} {seq} names two contents"));
        }
    }

    /// Remembers what a server has that is about to lose it.
    async fn add_all(&mut self, system: &System) {
        for channel in CHANNELS {
            for (seq, event) in system.history(channel).await {
                self.add(channel, seq, event);
            }
        }
    }
}

/// A system, the server that waits to take over, and what happened.
struct World {
    system: System,
    standby: RedisServer,
    truth: Truth,
    rng: Rng,
    /// Something that had been acknowledged was lost.
    is_lossy: bool,
}

impl World {
    async fn new(seed: u64) -> Self {
        let keeping = RedisOptions { appendonly: true, has_clock: true, ..RedisOptions::default() };
        let standby = RedisServer::start_with(keeping).await.unwrap();
        let options = Options {
            gateways: 2,
            kinds: &["trades", "ticker"],
            rate: 60,
            appendonly: true,
            has_clock: true,
            proxied: true,
            ..Options::default()
        };
        let system = System::start(options).await;
        Self { system, standby, truth: Truth::default(), rng: Rng::with_seed(seed), is_lossy: false }
    }

    async fn fault(&mut self) {
        let for_a_while = Duration::from_millis(self.rng.u64(100..4000));
        let proxy = self.system.proxy.as_ref().unwrap();
        let fault = self.rng.u8(..9);
        eprintln!("fault {fault} for {for_a_while:?}");
        match fault {
            0 => proxy.cut(),
            1 => {
                proxy.delay(for_a_while / 10);
                sleep(for_a_while).await;
                proxy.delay(Duration::ZERO);
            }
            2 => {
                let directions = [Direction::ToServer, Direction::ToClient, Direction::Both];
                proxy.blackhole(directions[self.rng.usize(..3)], true);
                sleep(for_a_while).await;
                proxy.blackhole(Direction::Both, false);
            }
            3 => {
                self.system.redis.pause().unwrap();
                sleep(for_a_while).await;
                self.system.redis.resume().unwrap();
            }
            4 | 5 => {
                self.system.redis.kill();
                sleep(for_a_while / 4).await;
                self.system.redis.restart().await.unwrap();
            }
            6 => {
                self.is_lossy = true;
                self.truth.add_all(&self.system).await;
                self.system.redis.restart_empty().await.unwrap();
            }
            7 => {
                // The server that takes over has another clock as well.
                let off = self.rng.i64(-CLOCK_OFF_S..=CLOCK_OFF_S);
                eprintln!("clock {off} s off");
                self.system.redis.set_clock(off).unwrap();
            }
            _ => self.fail_over(for_a_while / 8).await,
        }
    }

    /// Promotes a copy of the log that has been cut off for a while.
    async fn fail_over(&mut self, lag: Duration) {
        self.is_lossy = true;
        self.standby.restart_empty().await.unwrap();
        self.standby.replica_of(self.system.redis.address()).await.unwrap();
        self.standby.promote().await.unwrap();
        sleep(lag).await;
        let proxy = self.system.proxy.as_ref().unwrap();
        proxy.set_target(self.standby.address());
        proxy.cut();
        self.truth.add_all(&self.system).await;
        std::mem::swap(&mut self.system.redis, &mut self.standby);
    }

    /// Waits until every client is subscribed to everything and was told of all that history has.
    async fn see_all(&self, clients: &[Wanderer]) {
        for channel in CHANNELS {
            let last = self.system.history(channel).await.keys().next_back().copied().unwrap_or(0);
            let what = format!("every client has caught up with {channel}");
            let all = async || clients.iter().all(|client| client.has(|diary| diary.has_reached(channel, last)));
            wait_until(SOON, &what, all).await.unwrap();
        }
    }

    /// What is wrong with what clients were told.
    fn judge(&mut self, diaries: &[Diary]) -> Vec<String> {
        for channel in CHANNELS {
            for event in diaries.iter().flat_map(|diary| diary.events(channel)) {
                self.truth.add(channel, event.seq(), event.0.clone());
            }
        }
        let mut wrong = std::mem::take(&mut self.truth.wrong);
        let (mut delivered, mut missing, mut restarts) = (0, 0, 0);
        for (number, diary) in diaries.iter().enumerate() {
            wrong.extend(diary.wrong().iter().map(|what| format!("client {number}: {what}")));
            for channel in CHANNELS {
                let report = diary.check(channel, &self.truth.events[channel]);
                wrong.extend(report.violations.iter().map(|what| format!("client {number}, {channel}, {what}")));
                delivered += report.delivered.len();
                missing += report.missing.len();
                restarts += report.restarts;
            }
        }
        eprintln!("{delivered} events delivered, {missing} losses told, {restarts} subscriptions begun anew");
        assert!(delivered > 0, "nothing was seen");
        wrong
    }
}

/// What was acknowledged is there, and nothing is there twice.
async fn check_kept(world: &World, job: &str, acknowledged: &BTreeMap<u64, u64>, wrong: &mut Vec<String>) {
    let history = world.system.history(job).await;
    let mut seen = BTreeMap::new();
    for (seq, event) in &history {
        let number = event["data"]["number"].as_u64().unwrap();
        if let Some(before) = seen.insert(number, seq)
            && !world.is_lossy
        {
            wrong.push(format!("{job}: {number} stands at {before} and at {seq}"));
        }
    }
    if !world.is_lossy {
        let lost = acknowledged.keys().filter(|seq| !history.contains_key(seq));
        wrong.extend(lost.map(|seq| format!("{job}: {seq} was acknowledged and is not there")));
    }
}

async fn run_all(seeds: RangeInclusive<u64>) {
    for seed in seeds {
        run(seed).await;
    }
}

async fn run(seed: u64) {
    let mut world = World::new(seed).await;
    let (calm, stop) = (CancellationToken::new(), CancellationToken::new());
    let client = |number: u64| {
        let name = format!("client-{number}");
        Wanderer::start(world.system.doors(), name, &CHANNELS, seed << 8 | number, calm.clone(), stop.clone())
    };
    let clients: Vec<Wanderer> = (0..CLIENTS).map(client).collect();
    let publish = token("worker", &[], &["job:*"]);
    let publishers = JOBS.map(|job| Publisher::start(world.system.doors(), publish.clone(), job));
    let began = Instant::now();
    while began.elapsed() < FAULTY {
        sleep(Duration::from_millis(world.rng.u64(500..2500))).await;
        world.fault().await;
    }
    calm.cancel();
    sleep(CALM).await;
    let mut acknowledged = Vec::new();
    for publisher in publishers {
        acknowledged.push(publisher.finish().await);
    }
    world.system.normalizers[0].process.terminate().unwrap();
    assert!(world.system.normalizers[0].process.wait(SOON).await.unwrap().success());
    world.see_all(&clients).await;
    stop.cancel();
    let mut diaries = Vec::new();
    for client in clients {
        diaries.push(client.finish().await);
    }
    world.truth.add_all(&world.system).await;
    let mut wrong = world.judge(&diaries);
    for (job, acknowledged) in JOBS.iter().zip(&acknowledged) {
        check_kept(&world, job, acknowledged, &mut wrong).await;
    }
    assert!(wrong.is_empty(), "seed {seed}: {} promises broken:\n{}", wrong.len(), wrong.join("\n"));
}

// Ten schedules, three at a time. Proxies and clients run on threads of their own, so that the reading of histories does not hold them up.

#[tokio::test(flavor = "multi_thread")]
async fn every_promise_holds_through_random_faults_1() {
    run_all(1..=3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_promise_holds_through_random_faults_2() {
    run_all(4..=6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_promise_holds_through_random_faults_3() {
    run_all(7..=10).await;
}

/// `make soak`: one schedule after the other, for as long as `AKIS_SOAK_SECONDS` says.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes as long as it is told to"]
async fn soak() {
    let seconds = std::env::var("AKIS_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3600);
    let (began, first) = (Instant::now(), fastrand::u64(..1 << 32));
    for seed in first.. {
        if began.elapsed() >= Duration::from_secs(seconds) {
            return;
        }
        eprintln!("seed {seed}, {} s of {seconds}", began.elapsed().as_secs());
        run(seed).await;
    }
}
