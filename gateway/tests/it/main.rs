//! The gateway over real sockets, on the in-memory log.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say where they failed")]

mod away;
mod bench;
mod compressed;
mod handshake;
mod key_server;
mod keys;
mod messages;
mod publish;
mod rest;
mod revocation;
mod slow;
mod sse;
mod streams;
mod tokens;
