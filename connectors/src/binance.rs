//! Binance spot: combined streams and the REST calls that go with them.
//!
//! Source: <https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams>.

mod config;
mod probe;
mod rest;
mod session;
pub mod sim;
mod subscribe;

pub use config::{Config, KINDS, REST_URL, WS_URL};
pub use probe::probe;
pub use session::run;
