//! Venue sessions and stand-ins over real sockets.

// Clippy lets test functions unwrap, but not the helpers beside them.
#![allow(clippy::unwrap_used, clippy::panic)]

mod binance_sim;
mod bist;
mod btcturk_sim;
