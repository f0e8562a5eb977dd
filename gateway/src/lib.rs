//! The live endpoint: sessions, fan-out, replay, authentication, limits.
//!
//! Serves the log of a [`Store`](akis_eventlog::Store) to any number of clients. Knows nothing of venues and nothing of Redis. What a client is told is decided in
//! `session`, plain code; `shard` moves its bytes, `hub` finds who wants what, `server` lets sockets in. The
//! protocol itself is written down in `docs/protocol.md`.

mod age;
mod auth;
mod batch;
mod body;
mod clock;
mod context;
mod cors;
mod digest;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod gateway;
mod guest;
mod hub;
mod interval;
mod limits;
mod listing;
mod metrics;
mod origin;
mod problem;
mod publish;
mod query;
mod request;
mod rest;
mod run;
mod server;
mod session;
mod shard;
mod solo;
mod sse;
mod wire;
pub mod ws;

pub use auth::check_keys;
pub use gateway::{Gateway, GatewayError};
pub use server::turn_away;
