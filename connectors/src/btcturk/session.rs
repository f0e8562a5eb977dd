//! The session: its connection and its REST queue.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::config::Config;
use super::{rest, subscribe};
use crate::http;
use crate::outlet::{Outlet, Stopped};
use crate::ports::{Ports, Request};
use crate::registry::StartError;
use crate::session::keep;
use crate::symbols::Listed;

/// How many requests may wait to be said or made; more are dropped, and whoever wants something asks again.
const WAITING: usize = 1024;

/// Keeps the session with BtcTurk until `cancel`, or until nobody takes its frames any more.
///
/// # Errors
///
/// [`StartError::HttpClient`] before anything was sent.
pub async fn run(config: Config, ports: Ports, cancel: CancellationToken) -> Result<(), StartError> {
    let client = http::client().map_err(|source| StartError::HttpClient { venue: "btcturk", source })?;
    let cancel = cancel.child_token();
    let Ports { frames, requests, stats } = ports;
    let nobody = frames.clone();
    let outlet = Arc::new(Outlet::new(frames, stats, cancel.clone()));
    let (say, said) = mpsc::channel(WAITING);
    let (ask, asked) = mpsc::channel(WAITING);
    let mut tasks = JoinSet::new();
    let (found, listings) = mpsc::channel(1);
    let calls = rest::Calls::new(client, &config, found);
    tasks.spawn(speak(config, Arc::clone(&outlet), said, listings, cancel.clone()));
    let rest_outlet = Arc::clone(&outlet);
    tasks.spawn(async move { calls.serve(asked, &rest_outlet).await });
    tasks.spawn(async move { sort(requests, say, ask, &outlet).await });
    tokio::select! {
        () = cancel.cancelled() => {}
        () = nobody.closed() => cancel.cancel(),
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// Keeps the connection and asks over it for what is named at once, and for what has to be looked up as it is found. What is
/// listed later is asked for by the connection that follows; what is delisted is left with the one before.
async fn speak(
    config: Config,
    outlet: Arc<Outlet>,
    said: mpsc::Receiver<Vec<String>>,
    mut listings: mpsc::Receiver<Vec<Listed>>,
    cancel: CancellationToken,
) {
    let mut symbols = config.symbols.names();
    while symbols.is_empty() {
        let Ok(Some(listing)) = outlet.unless_stopped(listings.recv()).await else { return };
        symbols = config.symbols.select(&[], &listing);
    }
    let attempts = subscribe::attempts();
    info!(venue = "btcturk", symbols = symbols.len(), "asking for symbols");
    let (change, dialog) = watch::channel(Arc::new(subscribe::dialog(&config, &symbols, &attempts)));
    let follow = async {
        while let Ok(Some(listing)) = outlet.unless_stopped(listings.recv()).await {
            let now = config.symbols.select(&symbols, &listing);
            if now != symbols {
                info!(venue = "btcturk", symbols = now.len(), before = symbols.len(), "asking for other symbols");
                change.send_replace(Arc::new(subscribe::dialog(&config, &now, &attempts)));
                symbols = now;
            }
        }
    };
    tokio::join!(keep(dialog, Arc::clone(&outlet), said, cancel), follow);
}

/// Passes each request to where it is answered: books come over the socket, candles over REST.
async fn sort(
    mut requests: mpsc::Receiver<Request>,
    say: mpsc::Sender<Vec<String>>,
    ask: mpsc::Sender<rest::Call>,
    outlet: &Outlet,
) {
    loop {
        let request = match outlet.unless_stopped(requests.recv()).await {
            Ok(Some(request)) => request,
            Ok(None) | Err(Stopped) => return,
        };
        match request {
            // Full: as said at `WAITING`.
            Request::Book { symbol } => _ = say.try_send(subscribe::book_again(&symbol)),
            Request::Candles { symbol, interval, count } => {
                // As above.
                let _ = ask.try_send(rest::Call::candles(&symbol, interval, count));
            }
            // As above.
            Request::Trades { symbol, .. } => _ = ask.try_send(rest::Call::trades(&symbol)),
        }
    }
}

#[cfg(test)]
mod tests;
