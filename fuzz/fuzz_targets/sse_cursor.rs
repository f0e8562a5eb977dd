//! Cursors of streams: any text is refused, or is the one way to write what it says.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| akis_gateway::fuzzing::sse_cursor(text));
