//! The session: the live feed, and a snapshot whenever something of it is lost.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::config::{Config, Transport};
use super::{glimpse, lines, stream};
use crate::outlet::Outlet;
use crate::ports::{Ports, Request};
use crate::registry::{Settings, StartError};

/// What the feed wants of GLIMPSE, which is the same task's to write and another's to read.
pub(super) type Wanted = watch::Sender<Wish>;

/// A snapshot, or none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// How many sessions have ended before the one that it is of: their snapshots do not meet it.
    pub(super) session: u32,
    /// The `G` of the snapshot is at or above this number. 0: none is wanted.
    pub(super) from: u64,
}

/// A snapshot from behind `number` is wanted.
pub(super) fn want(wanted: &Wanted, number: u64) {
    wanted.send_modify(|wish| wish.from = number);
}

/// Another session begins: its numbers begin anew, so what is wanted of it is nothing yet.
pub(super) fn forget(wanted: &Wanted) {
    wanted.send_modify(|wish| *wish = Wish { session: wish.session.wrapping_add(1), from: 0 });
}

/// Keeps the session until `cancel`, or until nobody takes its frames any more.
///
/// # Errors
///
/// [`StartError::Bind`] when a line cannot be listened on; nothing was sent then.
/// [`StartError::Config`] when the settings lead to no feed.
pub async fn run(settings: Settings, ports: Ports, cancel: CancellationToken) -> Result<(), StartError> {
    let config =
        Config::read(&settings).map_err(|wrong| StartError::Config { venue: "bist", wrong: wrong.join("; ") })?;
    let cancel = cancel.child_token();
    let Ports { frames, requests, stats } = ports;
    let nobody = frames.clone();
    let outlet = Arc::new(Outlet::new(frames, stats, cancel.clone()));
    let wanted = Arc::new(Wanted::default());
    let mut tasks = JoinSet::new();
    match config.transport.clone() {
        Transport::Mold(at) => {
            let lines = lines::open(&at).map_err(|source| StartError::Bind { venue: "bist", source })?;
            let (outlet, wanted, cancel) = (Arc::clone(&outlet), Arc::clone(&wanted), cancel.clone());
            tasks.spawn(async move { lines.listen(&outlet, &wanted, &cancel).await });
        }
        Transport::Soup(address) => {
            let stream = stream::Stream::new(address, &config);
            let (outlet, wanted, cancel) = (Arc::clone(&outlet), Arc::clone(&wanted), cancel.clone());
            tasks.spawn(async move { stream.keep(&outlet, &wanted, &cancel).await });
        }
    }
    if let Some(address) = config.glimpse.clone() {
        let (outlet, wanted, cancel) = (Arc::clone(&outlet), Arc::clone(&wanted), cancel.clone());
        let glimpse = glimpse::Glimpse::new(address, &config);
        tasks.spawn(async move { glimpse.keep(&outlet, &wanted, &cancel).await });
    }
    let asked = Arc::clone(&wanted);
    tasks.spawn(async move { take_requests(requests, &asked).await });
    tokio::select! {
        () = cancel.cancelled() => {}
        () = nobody.closed() => cancel.cancel(),
    }
    // It waits for requests of whoever may have forgotten this session.
    drop(nobody);
    tasks.shutdown().await;
    Ok(())
}

/// A book can only be had with all others, so any number of requests is one snapshot.
async fn take_requests(mut requests: mpsc::Receiver<Request>, wanted: &Wanted) {
    while let Some(Request::Book { .. }) = requests.recv().await {
        wanted.send_modify(|wish| wish.from = wish.from.max(1));
    }
}
