//! The `akis` binary: subcommands and wiring, nothing else.

mod cli;
mod cmd;
mod failure;
mod http;
mod net;
mod role;

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

/// A read of the log makes thousands of small values and drops them; that costs a quarter less here than with the
/// allocator of glibc.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match cmd::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
