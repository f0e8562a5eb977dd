//! BtcTurk: one WebSocket for the public channels, and the REST calls that go with it.
//!
//! Sources: <https://docs.btcturk.com/websocket-feed/> and <https://docs.btcturk.com/public-endpoints/>; where the
//! documents and the wire disagree, what was seen on the wire in September 2026.

mod config;
mod listing;
mod probe;
mod rest;
mod session;
pub mod sim;
mod subscribe;

pub use config::{Config, GRAPH_URL, KINDS, REST_URL, WS_URL, check};
pub use probe::probe;
pub use session::run;
