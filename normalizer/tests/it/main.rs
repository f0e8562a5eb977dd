//! The normalizer over its public entry points: recordings played, and a session with the stand-in.

#![allow(clippy::unwrap_used, clippy::panic, reason = "everything here is a test or helps one")]

mod bist;
mod bist_live;
mod btcturk;
mod live;
mod recordings;
