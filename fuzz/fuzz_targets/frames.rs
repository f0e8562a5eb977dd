//! WebSocket frames: any bytes in any pieces give the same messages or the same error.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| akis_gateway::fuzzing::frames(data));
