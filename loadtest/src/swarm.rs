//! Many clients on one thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Plan, READ_BYTES, Target};
use crate::tally::Tally;

/// Handshakes under way at a time; more would only wait in the listener's queue.
const CONNECTING: usize = 64;

/// How long all clients together may take to connect and subscribe.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Connected clients. They leave with the value.
pub(crate) struct Swarm {
    tally: Arc<Tally>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Swarm {
    /// Connects one client for each plan, and waits until all subscriptions have been answered.
    ///
    /// # Errors
    ///
    /// When a client is refused, or time runs out.
    pub(crate) async fn connect(target: Target, plans: Vec<Plan>) -> Result<Self> {
        let (count, tally, stop) = (plans.len(), Arc::new(Tally::new()?), CancellationToken::new());
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the clients")?;
        let thread = {
            let (tally, stop) = (Arc::clone(&tally), stop.clone());
            std::thread::spawn(move || {
                let set = LocalSet::new();
                start_all(&set, target, plans, &tally);
                // Clients end only by failing, which the tally knows.
                runtime.block_on(set.run_until(stop.cancelled()));
            })
        };
        let swarm = Self { tally, stop, thread: Some(thread) };
        swarm.tally.wait_ready(count, READY_WITHIN).await?;
        Ok(swarm)
    }

    /// What the clients have seen.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A thread that broke down has said so on stderr.
            let _ = thread.join();
        }
    }
}

fn start_all(set: &LocalSet, target: Target, plans: Vec<Plan>, tally: &Arc<Tally>) {
    let connecting = Rc::new(Semaphore::new(CONNECTING));
    let scratch = Rc::new(RefCell::new(vec![0; READ_BYTES]));
    for (number, plan) in (0..).zip(plans) {
        let (connecting, scratch) = (Rc::clone(&connecting), Rc::clone(&scratch));
        let tally = Arc::clone(tally);
        set.spawn_local(async move {
            let connected = {
                // The semaphore is never closed.
                let _place = connecting.acquire().await;
                Client::connect(target, number, plan, Arc::clone(&tally)).await
            };
            let ended = match connected {
                Ok(client) => client.run(scratch).await,
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                tally.fail(format!("{error:#}"));
            }
        });
    }
}
