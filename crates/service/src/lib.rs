//! What every role needs: configuration, telemetry, shutdown, back-off, the admin port.
//!
//! Knows nothing of the log, of venues or of clients; roles hand their own parts in.

pub mod admin;
pub mod backoff;
pub mod config;
pub mod open_files;
mod openmetrics;
pub mod otlp;
pub mod process;
mod queue;
pub mod shutdown;
pub mod telemetry;
pub mod trace;
