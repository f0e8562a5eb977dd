//! The contract of the log, run against both backends, and what stands on it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "everything here is a test or helps one")]

mod contract;
mod differential;
mod follow;
mod joined;
mod log;
mod model;
mod presence;
mod redis_faults;
mod reigns;
mod repeats;
mod silence;
mod upkeep;
