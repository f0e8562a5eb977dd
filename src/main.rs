//! The `akis` binary: subcommands and wiring, nothing else.

mod cli;
mod cmd;
mod failure;
mod http;
mod net;
mod role;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cmd::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
