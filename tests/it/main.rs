//! The built binary as users and scripts meet it: exit codes, stdout, stderr, and whole systems of it.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod cli;
mod config;
mod dev;
mod follower;
mod history;
mod replicas;
mod system;
mod tokens;
mod wanderer;
