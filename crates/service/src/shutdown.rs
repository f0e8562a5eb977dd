//! SIGTERM and SIGINT: the first asks the process to stop in order, a second one ends it at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Listens for signals from now on. The token is cancelled by the first one.
///
/// The listening task lives as long as the process: it has to be there for the second signal.
///
/// # Errors
///
/// When the handlers cannot be installed.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        let name = next(&mut terminate, &mut interrupt).await;
        info!(signal = name, "stopping in order; a second signal ends the process at once");
        stop.cancel();
        let name = next(&mut terminate, &mut interrupt).await;
        warn!(signal = name, "ending at once");
        std::process::exit(1);
    });
    Ok(token)
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
