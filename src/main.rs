//! The `akis` binary: subcommands and wiring, nothing else.

fn main() {}
