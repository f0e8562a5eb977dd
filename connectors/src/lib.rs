//! Sessions with venues: sockets, subscriptions, heartbeats, limits. Knows no events and no log.
//!
//! A session yields [`RawFrame`]s and takes requests for books; what the frames mean is the normalizer's.
//! A venue is its own files (`binance.rs` and the folder beside it), one entry in [`VENUES`], and its fixtures;
//! connecting, coming back and watching over silence are shared.

mod attempts;
pub mod binance;
pub mod bist;
pub mod btcturk;
mod clock;
mod connection;
mod dialog;
mod frame;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
#[cfg(test)]
mod heard;
mod http;
mod outlet;
mod ports;
mod record;
pub mod recording;
mod registry;
mod rhythm;
mod session;
pub mod sim;
mod symbols;
mod wall;

pub use frame::{Content, RawFrame};
pub use ports::{Count, Offset, Ports, Request, Stats};
pub use record::{Progress, record};
pub use registry::{Own, Part, Probe, Session, Settings, StartError, VENUES, Venue, venue};
pub use symbols::is_symbol;
pub use wall::Wall;
