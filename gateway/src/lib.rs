//! The live endpoint: sessions, fan-out, replay, authentication, limits.
//!
//! Serves the log of a [`Store`](akis_eventlog::Store) to any number of clients. Knows nothing of venues and nothing of Redis. What a client is told is decided in
//! `session`, plain code; `connection` moves its bytes, `hub` finds who wants what, `server` lets sockets in. The
//! protocol itself is written down in `docs/protocol.md`.

mod auth;
mod clock;
mod connection;
mod frame;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gateway;
mod guest;
mod hub;
mod limits;
mod metrics;
mod origin;
mod problem;
mod publish;
mod request;
mod server;
mod session;
mod wire;

pub use auth::check_keys;
pub use gateway::{Gateway, GatewayError};
