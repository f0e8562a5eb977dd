//! CloudEvents in their forms: any text is refused or understood.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| akis_gateway::fuzzing::cloud_event(text));
