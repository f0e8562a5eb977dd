//! Binance, spot and USD-M futures: combined streams and the REST calls that go with them.
//!
//! Source: <https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams>.

mod config;
mod listing;
mod market;
mod probe;
mod rest;
mod session;
pub mod sim;
mod subscribe;

pub use config::{Config, KINDS, check};
pub use market::{Market, SPOT, USDM};
pub use probe::probe;
pub use session::run;

/// Reads a line as everything that a session, and the stand-in, may have to read.
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz_line(line: &str) {
    subscribe::fuzz_read(line);
    listing::fuzz_replies(line);
    sim::fuzz_request(line);
}
