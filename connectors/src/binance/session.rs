//! The session: its connections and its REST queue.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::config::Config;
use super::{rest, subscribe};
use crate::attempts::Attempts;
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
    let streams = Streams {
        attempts: subscribe::attempts(),
        config,
        outlet,
        cancel: cancel.clone(),
        asked: BTreeSet::new(),
        running: JoinSet::new(),
    };
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
    asked: BTreeSet<String>,
    running: JoinSet<()>,
}

impl Streams {
    /// Asks for what is named at once, and for what has to be looked up as it is found. What is listed later gets
    /// connections of its own; what is delisted falls silent by itself.
    async fn follow(mut self, mut listings: mpsc::Receiver<Vec<Listed>>) {
        self.ask(self.config.symbols.names());
        while self.config.symbols.looks_up() {
            let listing = tokio::select! {
                () = self.cancel.cancelled() => break,
                listing = listings.recv() => listing,
            };
            let Some(listing) = listing else { break };
            self.ask(self.config.symbols.select(&[], &listing));
        }
        while self.running.join_next().await.is_some() {}
    }

    fn ask(&mut self, mut symbols: Vec<String>) {
        symbols.retain(|symbol| self.asked.insert(symbol.clone()));
        if symbols.is_empty() {
            return;
        }
        info!(venue = self.config.market.name, symbols = symbols.len(), "asking for symbols");
        for dialog in subscribe::dialogs(&self.config, &self.attempts, &symbols) {
            // Nothing is said beyond what each dialog begins with, and it never changes.
            let ((_, dialog), (_, said)) = (watch::channel(Arc::new(dialog)), mpsc::channel(1));
            self.running.spawn(keep(dialog, Arc::clone(&self.outlet), said, self.cancel.clone()));
        }
    }
}
