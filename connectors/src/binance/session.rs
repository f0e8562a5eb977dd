//! The session: its connections and its REST queue.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::config::Config;
use super::subscribe::Carried;
use super::{rest, subscribe};
use crate::attempts::Attempts;
use crate::dialog::Dialog;
use crate::http;
use crate::outlet::Outlet;
use crate::ports::Ports;
use crate::registry::StartError;
use crate::session::keep;
use crate::symbols::Listed;

/// Keeps the session with Binance until `cancel`, or until nobody takes its frames any more.
///
/// # Errors
///
/// [`StartError::HttpClient`] before anything was sent.
pub async fn run(config: Config, ports: Ports, cancel: CancellationToken) -> Result<(), StartError> {
    let client = http::client().map_err(|source| StartError::HttpClient { venue: config.market.name, source })?;
    let cancel = cancel.child_token();
    let Ports { frames, requests, stats } = ports;
    let nobody = frames.clone();
    let outlet = Arc::new(Outlet::new(frames, stats, cancel.clone()));
    let mut tasks = JoinSet::new();
    let (found, listings) = mpsc::channel(1);
    let calls = rest::Calls::new(client, &config, found);
    let rest_outlet = Arc::clone(&outlet);
    tasks.spawn(async move { calls.serve(requests, &rest_outlet).await });
    let streams = Streams::new(config, outlet, cancel.clone());
    tasks.spawn(streams.follow(listings));
    tokio::select! {
        () = cancel.cancelled() => {}
        () = nobody.closed() => cancel.cancel(),
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// The streams of all symbols that are asked for.
struct Streams {
    config: Config,
    attempts: Arc<Attempts>,
    outlet: Arc<Outlet>,
    cancel: CancellationToken,
    connections: Vec<Kept>,
    running: JoinSet<()>,
}

/// A connection that is kept open.
struct Kept {
    dialog: watch::Sender<Arc<Dialog>>,
    stop: CancellationToken,
}

impl Streams {
    fn new(config: Config, outlet: Arc<Outlet>, cancel: CancellationToken) -> Self {
        let (attempts, connections, running) = (subscribe::attempts(), Vec::new(), JoinSet::new());
        Self { config, attempts, outlet, cancel, connections, running }
    }

    /// Asks for what is named at once, and for what has to be looked up as it is found. What is listed later is taken up by
    /// connections that have room, what is delisted is left: each connection that changes gives way to one that has all
    /// that is wanted.
    async fn follow(mut self, mut listings: mpsc::Receiver<Vec<Listed>>) {
        let mut asked = self.config.symbols.names();
        self.ask(&asked);
        while self.config.symbols.looks_up() {
            let Ok(Some(listing)) = self.outlet.unless_stopped(listings.recv()).await else { break };
            let now = self.config.symbols.select(&asked, &listing);
            if now != asked {
                info!(venue = self.config.market.name, symbols = now.len(), before = asked.len(), "asking for symbols");
                self.ask(&now);
                asked = now;
            }
        }
        while self.running.join_next().await.is_some() {}
    }

    /// Has exactly the streams of these symbols asked for.
    fn ask(&mut self, symbols: &[String]) {
        let (config, attempts) = (&self.config, &self.attempts);
        let open: Vec<_> = self.connections.iter().map(|kept| Arc::clone(&kept.dialog.borrow())).collect();
        let wanted = subscribe::spread(config, symbols, &open.iter().map(|dialog| &**dialog).collect::<Vec<_>>());
        let mut kept = std::mem::take(&mut self.connections).into_iter();
        for Carried { path, streams } in wanted {
            match kept.next() {
                Some(old) if streams.is_empty() => old.stop.cancel(),
                Some(old) => {
                    old.dialog.send_if_modified(|dialog| {
                        let changes = dialog.streams != streams;
                        if changes {
                            *dialog = Arc::new(subscribe::dialog(config, attempts, path, streams));
                        }
                        changes
                    });
                    self.connections.push(old);
                }
                None => {
                    let stop = self.cancel.child_token();
                    let dialog = Arc::new(subscribe::dialog(config, attempts, path, streams));
                    let ((change, dialog), (_, said)) = (watch::channel(dialog), mpsc::channel(1));
                    // Nothing is said beyond what each dialog begins with.
                    self.running.spawn(keep(dialog, Arc::clone(&self.outlet), said, stop.clone()));
                    self.connections.push(Kept { dialog: change, stop });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
