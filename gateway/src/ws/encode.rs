//! Messages to bytes. Server frames are whole and not masked.

use super::Opcode;

fn put_head(out: &mut Vec<u8>, opcode: Opcode, len: usize) {
    let first = 0x80 | opcode as u8;
    match len {
        0..=125 => out.extend_from_slice(&[first, len as u8]),
        126..=0xFFFF => {
            let [a, b] = (len as u16).to_be_bytes();
            out.extend_from_slice(&[first, 126, a, b]);
        }
        _ => {
            out.extend_from_slice(&[first, 127]);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

fn put(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    put_head(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a text frame. `text` must be UTF-8.
pub fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put(out, Opcode::Text, text);
}

/// Appends a text frame whose payload is compressed (RFC 7692 section 6).
pub fn put_compressed_text(out: &mut Vec<u8>, payload: &[u8]) {
    let at = out.len();
    put(out, Opcode::Text, payload);
    if let Some(first) = out.get_mut(at) {
        *first |= 0x40;
    }
}

/// Appends a binary frame.
pub fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, Opcode::Binary, bytes);
}

/// Appends a ping.
pub fn put_ping(out: &mut Vec<u8>) {
    put(out, Opcode::Ping, &[]);
}

/// Appends a pong that repeats the payload of a ping.
pub fn put_pong(out: &mut Vec<u8>, payload: &[u8]) {
    put(out, Opcode::Pong, payload);
}

/// Appends a close. The reason is cut to what a control frame holds.
pub fn put_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let mut end = reason.len().min(super::MAX_CONTROL as usize - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = reason.get(..end).unwrap_or_default();
    put_head(out, Opcode::Close, 2 + reason.len());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}
