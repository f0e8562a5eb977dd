//! The built binary as users and scripts meet it: exit codes, stdout, stderr.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod cli;
mod config;
mod dev;
