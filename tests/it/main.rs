//! The built binary as users and scripts meet it: exit codes, stdout, stderr.

mod cli;
mod config;
mod dev;
