//! Messages of clients: any text gives a request or a named refusal.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| akis_gateway::fuzzing::client_message(text));
