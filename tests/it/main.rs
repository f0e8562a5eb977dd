//! The built binary as users and scripts meet it: exit codes, stdout, stderr, and whole systems of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

mod acl;
mod bad_frames;
mod bist;
mod btcturk;
mod cli;
mod config;
mod crowd;
mod dev;
mod drain;
mod fail_over;
mod follower;
mod handover;
mod history;
mod open_files;
mod parts;
mod readiness;
mod recordings;
mod redis_away;
mod replicas;
mod rolling;
mod slow;
mod system;
mod takeover;
mod telemetry;
mod tokens;
mod unheard;
mod wanderer;
