//! The gateway over real sockets, on the in-memory log.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say where they failed")]

mod abuse;
mod away;
mod bench;
mod compressed;
mod handshake;
mod key_server;
mod keys;
mod messages;
mod publish;
mod raw;
mod rest;
mod revocation;
mod silent;
mod slow;
mod sse;
mod streams;
mod tokens;
mod unready;
