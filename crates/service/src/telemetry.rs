//! Structured logs, on stderr: stdout is for results.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Starts logging. `format` as configured; `level` applies unless `RUST_LOG` says otherwise.
///
/// Does nothing when logging was started before, as in tests.
pub fn start(format: Option<LogFormat>, level: &str) {
    let terminal = std::io::stderr().is_terminal();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal)
        // It would say on stderr that a line could not be written there, and panic: whoever logs would be gone.
        .log_internal_errors(false);
    // The only failure is a subscriber that is already there.
    let _ = match format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json }) {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
