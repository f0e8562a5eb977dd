//! WebSocket frames: bytes in any pieces, and back.

use crate::ws::deflate::{Deflater, Inflater};
use crate::ws::{Decoder, FrameError, Incoming, Rules, put_binary, put_close, put_compressed_text, put_pong, put_text};

/// Bytes of a message in one of the modes, so that the limit is met.
const SMALL: usize = 300;

/// The same in the other one, more than any input.
const LARGE: usize = 1 << 20;

/// What came, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Came {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

impl From<Incoming<'_>> for Came {
    fn from(incoming: Incoming<'_>) -> Self {
        match incoming {
            Incoming::Text(text) => Self::Text(text.to_owned()),
            Incoming::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Incoming::Ping(payload) => Self::Ping(payload.to_vec()),
            Incoming::Pong => Self::Pong,
            Incoming::Close(code) => Self::Close(code),
        }
    }
}

/// How bytes are read.
#[derive(Clone, Copy)]
struct Mode {
    max_message: usize,
    is_deflated: bool,
}

/// Reads frames at once, in pieces, and with a reader that wants one message at a time. Writes the same bytes as messages, and reads those.
/// The first byte sets the mode and the second one the pieces.
///
/// # Panics
///
/// When the pieces make a difference, or what was written is read as something else.
pub fn frames(data: &[u8]) {
    let [mode, seed, bytes @ ..] = data else { return };
    let mode = Mode { max_message: if mode & 1 == 0 { SMALL } else { LARGE }, is_deflated: mode & 2 != 0 };
    let whole = read(bytes, bytes.len().max(1), 1, true, mode);
    assert_eq!(read(bytes, 1, 1, true, mode), whole, "byte by byte");
    let (first, second) = (usize::from(seed & 0xF) + 1, usize::from(seed >> 4) * 16 + 1);
    assert_eq!(read(bytes, first, second, true, mode), whole, "in pieces of {first} and {second} bytes");
    assert_eq!(read(bytes, first, second, false, mode), whole, "one message at a time");
    write_and_read(bytes);
}

/// Reads bytes in pieces of two sizes in turn.
fn read(bytes: &[u8], first: usize, second: usize, wants_all: bool, mode: Mode) -> (Vec<Came>, Option<FrameError>) {
    let (mut decoder, mut inflater) = (Decoder::default(), Inflater::default());
    let mut rules = Rules { max_message: mode.max_message, inflater: mode.is_deflated.then_some(&mut inflater) };
    let mut all = Vec::new();
    let mut rest = bytes.to_vec();
    for size in [first, second].into_iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let later = rest.split_off(size.min(rest.len()));
        let mut piece = std::mem::replace(&mut rest, later);
        let mut count = all.len();
        loop {
            let fed = decoder.feed(&mut piece, &mut rules, &mut |incoming| {
                all.push(incoming.into());
                wants_all
            });
            if let Err(error) = fed {
                return (all, Some(error));
            }
            if wants_all || all.len() == count {
                break;
            }
            // There may be another message in what was kept.
            (count, piece) = (all.len(), Vec::new());
        }
        assert!(decoder.held_bytes() <= 2 * mode.max_message + 512, "{} bytes held", decoder.held_bytes());
    }
    (all, None)
}

/// Turns a frame of a server into one of a client.
fn mask(frame: &mut Vec<u8>) {
    let [_, length, ..] = frame.as_mut_slice() else { return };
    let head_len = match *length {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    *length |= 0x80;
    let key = [0x5A, 0xA5, 0x0F, 0xF0];
    for (byte, key) in frame.iter_mut().skip(head_len).zip(key.iter().cycle()) {
        *byte ^= key;
    }
    frame.splice(head_len..head_len, key);
}

fn write_and_read(payload: &[u8]) {
    let text = String::from_utf8_lossy(payload).into_owned();
    let short = payload.get(..payload.len().min(125)).unwrap_or_default();
    let reason: String = text.chars().take(30).collect();
    let mut expected =
        vec![Came::Text(text.clone()), Came::Binary(payload.to_vec()), Came::Pong, Came::Close(Some(4413))];
    let mut written = vec![Vec::new(); 4];
    let [first, second, third, fourth] = written.as_mut_slice() else { return };
    put_text(first, text.as_bytes());
    put_binary(second, payload);
    put_pong(third, short);
    put_close(fourth, 4413, &reason);
    let mut deflater = Deflater::default();
    if let Some(compressed) = deflater.deflate(text.as_bytes()) {
        let mut frame = Vec::new();
        put_compressed_text(&mut frame, compressed);
        written.insert(0, frame);
        expected.insert(0, Came::Text(text));
    }
    written.iter_mut().for_each(mask);
    let bytes = written.concat();
    let mode = Mode { max_message: LARGE, is_deflated: true };
    assert_eq!(read(&bytes, bytes.len(), 1, true, mode), (expected, None), "what was written");
}
