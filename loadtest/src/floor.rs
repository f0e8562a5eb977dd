//! The floor: what the kernel alone takes for the same writes, on the machine at hand and in the same run.
//!
//! A process of its own (`akis-bench floor`) accepts clients, answers as much as lets them count themselves subscribed,
//! and then does one plain `write` of prepared bytes for each connection that it is told, on one thread. The figures of a
//! gateway are ratios to that.

mod server;

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use akis_testkit::Process;
use anyhow::{Context, Result};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

pub(crate) use self::server::run;
use crate::bed::{loopback, pinned};
use crate::client::{Plan, Start, Target, Wish};
use crate::swarm::Swarm;
use crate::tally::Read;

/// The channel that clients of the floor subscribe to.
pub(crate) const CHANNEL: &str = "bench:floor";

/// What the floor says on stdout before its addresses.
const CLIENTS_LINE: &str = "clients come to";
const CONTROL_LINE: &str = "told by";

const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// What happened within this time is written together. Shorter than any coalescing, so that no write is merged.
const REPLAY_STEP: Duration = Duration::from_millis(1);

/// A running floor with its clients. Both end with the value.
pub(crate) struct Floor {
    process: Process,
    control: TcpStream,
    swarm: Swarm,
    frame_bytes: usize,
    most_frames: usize,
}

impl Floor {
    /// Starts a floor that writes copies of `frame`, at most `most_frames` at a time, and connects clients to it.
    ///
    /// # Errors
    ///
    /// When it does not start, or a client cannot connect.
    pub(crate) async fn start(frame: &[u8], most_frames: usize, clients: usize) -> Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let mut process = pinned(program.as_os_str(), &["floor"], &[])?;
        let control = address(&mut process, CONTROL_LINE).await?;
        let mut control = TcpStream::connect(control).await.context("connect to the floor")?;
        control.set_nodelay(true).context("set TCP_NODELAY")?;
        let prepared = frame.repeat(most_frames);
        control.write_all(&of_number(prepared.len())?).await.context("prepare the floor")?;
        control.write_all(&prepared).await.context("prepare the floor")?;
        let target = Target { address: address(&mut process, CLIENTS_LINE).await?, ..Target::floor() };
        let plan = Plan { wishes: vec![Wish::new(CHANNEL, Start::Now)], ..Plan::default() };
        let swarm = Swarm::connect(target, vec![plan; clients]).await?;
        Ok(Self { process, control, swarm, frame_bytes: frame.len(), most_frames })
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The clients.
    pub(crate) fn swarm(&self) -> &Swarm {
        &self.swarm
    }

    /// Has `frames` written to each of these clients, with one `write` each.
    ///
    /// # Errors
    ///
    /// When the floor has ended, which it does when a client does not keep up.
    pub(crate) async fn write_to(&mut self, clients: Range<usize>, frames: usize) -> Result<()> {
        self.write(clients.map(|client| (client, frames))).await
    }

    /// Does again what clients of a gateway saw: a write for each of their reads, at the same time and of the same size.
    /// Gives the number of frames.
    ///
    /// # Errors
    ///
    /// As [`Floor::write_to`].
    pub(crate) async fn replay(&mut self, reads: &[Read]) -> Result<u64> {
        let Some(first) = reads.first() else { return Ok(0) };
        let (first_us, began, most) = (first.at_us, Instant::now(), self.most_frames);
        let step_us = REPLAY_STEP.as_micros() as u64;
        let mut frames = 0;
        for step in reads.chunk_by(|a, b| (a.at_us - first_us) / step_us == (b.at_us - first_us) / step_us) {
            sleep_until(began + Duration::from_micros(step[0].at_us - first_us)).await;
            let writes = step.iter().map(|read| (read.client as usize, (read.events as usize).min(most)));
            frames += writes.clone().map(|(_, frames)| frames as u64).sum::<u64>();
            self.write(writes).await?;
        }
        Ok(frames)
    }

    async fn write(&mut self, writes: impl Iterator<Item = (usize, usize)>) -> Result<()> {
        let mut command = of_number(0)?.to_vec();
        for (client, frames) in writes {
            command.extend(of_number(client)?);
            command.extend(of_number(frames * self.frame_bytes)?);
        }
        let count = of_number(command.len() / 8)?;
        command[..count.len()].copy_from_slice(&count);
        self.control.write_all(&command).await.with_context(|| format!("floor: {}", self.process.lines().join("\n")))
    }
}

async fn address(process: &mut Process, what: &str) -> Result<SocketAddr> {
    let line = process.wait_for_line(what, STARTS_WITHIN).await?;
    loopback(&line).with_context(|| format!("no address in {line:?}"))
}

fn of_number(number: usize) -> Result<[u8; 4]> {
    Ok(u32::try_from(number).context("too much for one command")?.to_le_bytes())
}
