//! What it costs a replica to follow a log whose events nobody wants: CPU per event, read from `/proc`.
//!
//! `cargo run --release -p akis-eventlog --example tail_cost -- [EVENTS_PER_SECOND] [SECONDS]`. Redis and the writer are
//! processes of their own; only the reading process is measured.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made ends")]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use akis_eventlog::{Claim, Fence, Notice, Partition, RedisStore, Replica, ReplicaConfig, Sink, Store, Write};
use akis_model::{Body, Channel, Outcome, Seq};
use akis_testkit::{RedisServer, wait_until};
use serde_json::json;
use tokio_util::sync::CancellationToken;

const PARTITIONS: u16 = 16;
const CHANNELS: usize = 2000;
const WRITE_EVERY: Duration = Duration::from_millis(2);

struct Nobody;

impl Sink for Nobody {
    fn deliver(&self, _: Partition, notices: &[Notice]) {
        assert!(notices.is_empty(), "nobody subscribes");
    }
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("write") => write(&args[2], args[3].parse().unwrap()).await,
        rate => {
            let rate: u64 = rate.map_or(20_000, |rate| rate.parse().unwrap());
            let seconds = args.get(2).map_or(10, |seconds| seconds.parse().unwrap());
            measure(rate, Duration::from_secs(seconds)).await;
        }
    }
}

async fn measure(rate: u64, time: Duration) {
    let redis = RedisServer::start().await.unwrap();
    let store = RedisStore::connect(&redis.url(), "akis", PARTITIONS).await.unwrap();
    let config = ReplicaConfig::new("bench");
    let stop = CancellationToken::new();
    let replica = Replica::start(store, config, Arc::new(Nobody), stop.clone());
    wait_until(Duration::from_secs(10), "the replica is warm", async || replica.is_warm()).await.unwrap();
    let program = std::env::current_exe().unwrap();
    let mut writer = Command::new(program).args(["write", &redis.url(), &rate.to_string()]).spawn().unwrap();
    let entries = || replica.counts().entries.load(Ordering::Relaxed);
    wait_until(Duration::from_secs(10), "events come", async || entries() > rate).await.unwrap();
    let (events, cpu, began) = (entries(), cpu_time(), Instant::now());
    tokio::time::sleep(time).await;
    let (events, cpu, took) = (entries() - events, cpu_time() - cpu, began.elapsed());
    let per_second = events as f64 / took.as_secs_f64();
    let cost_us = cpu.as_secs_f64() * 1e6 / events as f64;
    println!("{per_second:.0} events/s, {cost_us:.2} us of CPU each, {:.1} % of a core", per_second * cost_us / 1e4);
    writer.kill().unwrap();
    writer.wait().unwrap();
    stop.cancel();
    replica.stopped().await;
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

async fn write(url: &str, rate: u64) {
    let store = RedisStore::connect(url, "akis", PARTITIONS).await.unwrap();
    let channels: Vec<Channel> =
        (0..CHANNELS).map(|n| Channel::parse(&format!("binance:SYMBOL{n}USDT:ticker")).unwrap()).collect();
    let bodies: Vec<_> = channels.iter().map(body).collect();
    let mut claims = Vec::new();
    for partition in Partition::all(PARTITIONS) {
        let fence = Fence { number: 1, owner: "bench".into() };
        let ends = store.ends(partition, &[], Some("bench"), Seq::ZERO).await.unwrap();
        store.set_fence(partition, "bench", None, &fence, Seq::ZERO).await.unwrap();
        claims.push(Claim { publisher: "bench".into(), fence, identity: ends.identity, seen: Seq::ZERO });
    }
    let mut next = vec![1_u64 << 50; CHANNELS];
    let mut every = tokio::time::interval(WRITE_EVERY);
    let mut at = 0;
    let (began, mut written) = (Instant::now(), 0);
    loop {
        every.tick().await;
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64 - written;
        written += due;
        let mut batches = vec![Vec::new(); usize::from(PARTITIONS)];
        for _ in 0..due {
            at = (at + 1) % CHANNELS;
            let seq = Seq::new(next[at]).unwrap();
            next[at] += 1;
            let channel = channels[at].clone();
            let batch = &mut batches[usize::from(Partition::of(&channel, PARTITIONS).0)];
            batch.push(Write { channel, seq, previous: None, body: bodies[at].clone() });
        }
        for ((partition, claim), batch) in Partition::all(PARTITIONS).zip(&claims).zip(&batches) {
            if !batch.is_empty() {
                store.publish(partition, claim, batch).await.unwrap();
            }
        }
    }
}

fn body(channel: &Channel) -> bytes::Bytes {
    let data = json!({"symbol": "BTC/USDT", "last": "67012.35", "bid": "67012.3", "bidQty": "1.2", "ask": "67012.4",
        "askQty": "0.7", "volume24h": "20411.5"});
    Body::render(1_795_312_399_120, "price_tick", channel, Outcome::Ok, &data).unwrap().text().clone()
}
