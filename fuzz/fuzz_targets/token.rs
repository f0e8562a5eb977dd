//! Tokens: any text is refused or understood, and nothing without a signature is believed.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| akis_gateway::fuzzing::token(text));
