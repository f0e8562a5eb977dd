//! The session: its connection and its REST queue.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::{rest, subscribe};
use crate::http;
use crate::outlet::{Outlet, Stopped};
use crate::ports::{Ports, Request};
use crate::registry::StartError;
use crate::session::keep;

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
    tasks.spawn(keep(Arc::new(subscribe::dialog(&config)), Arc::clone(&outlet), said, cancel.clone()));
    let calls = rest::Calls::new(client, &config);
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
            // The venue has none by id; those that were missed come with the list after each join.
            Request::Trades { .. } => {}
        }
    }
}
