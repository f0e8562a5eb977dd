//! The contract of the log, run against both backends, and what stands on it.

mod contract;
mod follow;
mod log;
