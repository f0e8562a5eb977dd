//! The session: its connections and its REST queue.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::{rest, subscribe};
use crate::outlet::Outlet;
use crate::ports::Ports;
use crate::registry::StartError;
use crate::session::keep;

/// Keeps the session with Binance until `cancel`, or until nobody takes its frames any more.
///
/// # Errors
///
/// [`StartError::HttpClient`] before anything was sent.
pub async fn run(config: Config, ports: Ports, cancel: CancellationToken) -> Result<(), StartError> {
    let client = rest::client().map_err(|source| StartError::HttpClient { venue: config.market.name, source })?;
    let cancel = cancel.child_token();
    let Ports { frames, requests, stats } = ports;
    let nobody = frames.clone();
    let outlet = Arc::new(Outlet::new(frames, stats, cancel.clone()));
    let mut tasks = JoinSet::new();
    for dialog in subscribe::dialogs(&config) {
        // Nothing is said beyond what each dialog begins with.
        let (_, said) = mpsc::channel(1);
        tasks.spawn(keep(Arc::new(dialog), Arc::clone(&outlet), said, cancel.clone()));
    }
    let calls = rest::Calls::new(client, &config);
    let rest_outlet = Arc::clone(&outlet);
    tasks.spawn(async move { calls.serve(requests, &rest_outlet).await });
    tokio::select! {
        () = cancel.cancelled() => {}
        () = nobody.closed() => cancel.cancel(),
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}
