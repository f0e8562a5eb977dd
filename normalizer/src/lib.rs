//! Raw venue frames in, events out, published under a lease.
//!
//! A [`Mapper`] per venue turns frames into updates, plain and synchronous, so that a recording replays without
//! a socket. Around it stand throttles and the watch over the venue, the same for all venues; [`run`] does it live,
//! [`replay`] from recordings, and [`observe`] runs a session so that it can be recorded.

mod binance;
mod bist;
mod book;
mod btcturk;
mod candles;
mod channels;
mod clock;
mod feed;
mod ladder;
mod mapper;
mod metrics;
mod observe;
mod pipeline;
mod replay;
mod rhythm;
mod run;
mod spans;
mod throttle;
mod trading;
mod update;
mod wire;

pub use mapper::{History, Mapper, Output, Reason, Resync, mapper};
pub use metrics::Metrics;
pub use observe::observe;
pub use replay::{ReplayError, Summary, replay};
pub use run::{RunError, run};
pub use update::{Payload, Update};
