//! Channels and patterns: names stay as they are, and a pattern covers what the protocol says.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| akis_gateway::fuzzing::channel(text));
