//! Clients that mean no good, one kind after the other: what each costs the gateway in memory while it lasts, and what of it stays.
//!
//! Nothing here is timed, and every figure is the process's own (PSS). What a kind is answered with is counted by the gateway; the codes are
//! tested elsewhere.

use std::net::SocketAddr;
use std::time::Duration;

use akis_testkit::wait_until;
use anyhow::{Context, Result};
use flate2::{Compress, Compression, FlushCompress};
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};

use super::{Settings, plans};
use crate::bed::{Bed, token};
use crate::client::{Stamp, Start, now_us, open};
use crate::load::Load;
use crate::report::Report;
use crate::swarm::Swarm;
use crate::usage::pss_bytes;
use crate::wire::{client_frame, text_frame, upgrade_request};

/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long the gateway may take to be rid of everybody: silent clients are kept for 20 s.
const RID_WITHIN: Duration = Duration::from_secs(60);

/// Clients that subscribe and do not read, and what they are sent: far more than may wait for one of them.
const SLOW: usize = 200;
const FLOOD: &str = "bench:abuse:trades";
const FLOOD_EVENTS: usize = 500;
const FLOOD_BYTES: usize = 20_000;

/// Sockets that say nothing, and more than the gateway keeps of that kind.
const SILENT: u32 = 5000;

/// Clients that send what inflates to 16 MiB, from less than the 64 KiB that a message may have.
const BOMBS: u32 = 200;
const BOMB_BYTES: usize = 16 << 20;

/// Clients that send most of a message of 64 KiB, and never the rest.
const HALVES: u32 = 500;
const HALF_BYTES: usize = 60_000;

/// Requests with a token of 1 MB.
const TOKENS: u32 = 500;
const TOKEN_BYTES: usize = 1_000_000;

pub(super) async fn run(settings: &Settings) -> Result<Report> {
    let bed = Bed::start(settings.akis.clone()).await?;
    let address = bed.target(Stamp::None).address;
    let mut report = Report::new("abuse: memory of the gateway (PSS) above what it was before");
    report.add("before anything", mib(pss_bytes(bed.gateway().pid())?, 0));
    let mut scene = Scene { bed: &bed, report: &mut report };
    scene.play(format!("{SLOW} clients that do not read"), Box::pin(slow_readers(&bed))).await?;
    scene.play(format!("{BOMBS} messages that inflate to 16 MiB"), bombs(address)).await?;
    scene.play(format!("{HALVES} messages without an end"), half_messages(address)).await?;
    scene.play(format!("{TOKENS} tokens of 1 MB"), huge_tokens(address)).await?;
    // What the first ones left behind is used again: the events that are kept, and memory that the process holds on to.
    scene.play(format!("{SLOW} clients that do not read, again"), Box::pin(slow_readers(&bed))).await?;
    // Last, because others are refused while these have their places.
    scene.play(format!("{SILENT} sockets that say nothing"), silent_sockets(address)).await?;
    for (name, metric) in [("closed by the gateway", "closes"), ("refused over HTTP or before", "refusals")] {
        let count = bed.gateway().metric(&format!("akis_gateway_{metric}_total"), "").await?;
        report.add(name, format!("{count:.0}"));
    }
    Ok(report)
}

/// The gateway, and what is told of it.
struct Scene<'a> {
    bed: &'a Bed,
    report: &'a mut Report,
}

impl Scene<'_> {
    /// Looks at memory while clients are at it, and when the gateway is rid of them.
    async fn play(&mut self, name: String, abuse: impl Future<Output = Result<()>>) -> Result<()> {
        let gateway = self.bed.gateway();
        let before = pss_bytes(gateway.pid())?;
        let mut most = before;
        let watching = async {
            let mut every = interval(LOOK_EVERY);
            loop {
                every.tick().await;
                match pss_bytes(gateway.pid()) {
                    Ok(now) => most = most.max(now),
                    Err(error) => break error,
                }
            }
        };
        let until_rid = async {
            abuse.await?;
            gateway.wait_left(RID_WITHIN).await
        };
        tokio::select! {
            done = until_rid => done.with_context(|| name.clone())?,
            ended = watching => return Err(ended.context(format!("{name}: the gateway has ended"))),
        }
        let after = pss_bytes(gateway.pid())?;
        self.report.add(name, format!("{} at most, {} afterwards", mib(most, before), mib(after, before)));
        Ok(())
    }
}

fn mib(bytes: u64, above: u64) -> String {
    format!("{:+.1} MiB", (bytes as f64 - above as f64) / 1_048_576.0)
}

async fn slow_readers(bed: &Bed) -> Result<()> {
    let load = Load::new(bed.log().await?, &[FLOOD.to_owned()], FLOOD_BYTES)?;
    let mut clients = plans(vec![vec![FLOOD.to_owned()]; SLOW], Start::Now)?;
    clients.iter_mut().for_each(|client| client.stalls = true);
    let _clients = Swarm::connect(bed.target(Stamp::None), clients).await?;
    for _ in 0..FLOOD_EVENTS / 50 {
        load.put(&[(0, 50)], now_us()).await?;
    }
    let gave_way = async || bed.gateway().metric("akis_gateway_drops_total", "").await.is_ok_and(|count| count > 0.0);
    wait_until(RID_WITHIN, "events give way", gave_way).await
}

async fn silent_sockets(address: SocketAddr) -> Result<()> {
    let mut sockets = Vec::new();
    for number in 0..SILENT {
        // One that is not taken any more is closed at once.
        sockets.push(open(address, number, false).await.context("connect")?);
    }
    // Its answer shows that the gateway has looked at all of those before it.
    let mut last = open(address, 0, false).await.context("connect")?;
    last.write_all(b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    until_closed(&mut last).await;
    Ok(())
}

async fn bombs(address: SocketAddr) -> Result<()> {
    let mut bomb = Vec::with_capacity(BOMB_BYTES / 500);
    let zeros = vec![b' '; BOMB_BYTES];
    Compress::new(Compression::best(), false).compress_vec(&zeros, &mut bomb, FlushCompress::Sync)?;
    // RFC 7692 section 7.2.1: the empty block at the end is left out. So is what a message has no room for: it is too much already.
    bomb.truncate(bomb.len().saturating_sub(4).min(usize::from(u16::MAX)));
    let frame = client_frame(0xc1, &bomb);
    all(BOMBS, async |number| {
        let mut stream = upgraded(address, number, "Sec-WebSocket-Extensions: permessage-deflate\r\n").await?;
        // The gateway may have closed it before everything is written.
        let _ = stream.write_all(&frame).await;
        until_closed(&mut stream).await;
        Ok(())
    })
    .await
}

async fn half_messages(address: SocketAddr) -> Result<()> {
    let whole = text_frame(&[b'x'; 0xffff]);
    let half = &whole[..HALF_BYTES];
    all(HALVES, async |number| {
        let mut stream = upgraded(address, number, "").await?;
        stream.write_all(half).await?;
        until_closed(&mut stream).await;
        Ok(())
    })
    .await
}

async fn huge_tokens(address: SocketAddr) -> Result<()> {
    let request = format!("GET /live?token={} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(TOKEN_BYTES));
    all(TOKENS, async |number| {
        let mut stream = open(address, number, false).await.context("connect")?;
        // It is refused before it is read to its end.
        let _ = stream.write_all(request.as_bytes()).await;
        until_closed(&mut stream).await;
        Ok(())
    })
    .await
}

/// Lets so many clients do the same at the same time.
async fn all(count: u32, act: impl AsyncFn(u32) -> Result<()>) -> Result<()> {
    join_all((0..count).map(|number| act(number))).await.into_iter().collect()
}

/// A WebSocket whose answers nobody has read.
async fn upgraded(address: SocketAddr, number: u32, headers: &str) -> Result<TcpStream> {
    let mut stream = open(address, number, false).await.context("connect")?;
    let headers = format!("Authorization: Bearer {}\r\n{headers}", token("bench")?);
    let request = upgrade_request(address, "/live", &headers);
    stream.write_all(request.as_bytes()).await.context("ask for the upgrade")?;
    Ok(stream)
}

/// Reads until the gateway ends the connection. One that it never ends shows as a client that it does not get rid of.
async fn until_closed(stream: &mut TcpStream) {
    let mut chunk = [0; 4096];
    let reading = async { while let Ok(1..) = stream.read(&mut chunk).await {} };
    // A reset is an end as well.
    let _ = timeout(RID_WITHIN, reading).await;
}
