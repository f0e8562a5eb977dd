//! A message of ITCH: any bytes are one or an error, and what was read is written so that the same is read again.

#![no_main]

use akis_connectors::bist::itch::{MAX_MESSAGE_BYTES, Message};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = Message::decode(bytes) else { return };
    assert!(bytes.len() <= MAX_MESSAGE_BYTES);
    let mut written = Vec::new();
    message.encode(&mut written);
    assert_eq!(Message::decode(&written), Ok(message));
});
