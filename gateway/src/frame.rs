//! WebSocket framing, server side (RFC 6455 section 5): bytes to messages, and envelopes to bytes.
//!
//! Plain code without a socket. Stricter than the general libraries in one point that the protocol asks for: a length
//! that is not in its shortest form is an error.

use akis_model::CloseCode;
use bytes::Bytes;

/// Longest payload of a control frame (RFC 6455 section 5.5).
const MAX_CONTROL: u64 = 125;

/// One thing that a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// A whole text message.
    Text(String),
    /// A whole binary message; nobody looks at what is in it.
    Binary,
    /// A ping, with what the pong must repeat.
    Ping(Vec<u8>),
    /// A pong.
    Pong,
    /// A close, well-formed.
    Close,
}

/// What a client must not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// Broken framing.
    #[error("broken framing: {0}")]
    Protocol(&'static str),
    /// A text, or the reason of a close, is not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// A message larger than allowed.
    #[error("message too large")]
    TooLarge,
}

impl FrameError {
    /// How the connection is closed for it.
    pub(crate) fn close_code(self) -> CloseCode {
        match self {
            Self::Protocol(_) => CloseCode::Protocol,
            Self::NotUtf8 => CloseCode::NotUtf8,
            Self::TooLarge => CloseCode::TooLarge,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn parse(bits: u8) -> Result<Self, FrameError> {
        match bits {
            0x0 => Ok(Self::Continuation),
            0x1 => Ok(Self::Text),
            0x2 => Ok(Self::Binary),
            0x8 => Ok(Self::Close),
            0x9 => Ok(Self::Ping),
            0xA => Ok(Self::Pong),
            _ => Err(FrameError::Protocol("reserved opcode")),
        }
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The head of a frame.
#[derive(Debug, Clone, Copy)]
struct Head {
    is_final: bool,
    opcode: Opcode,
    mask: [u8; 4],
    /// Bytes of the head itself.
    head_len: usize,
    payload_len: u64,
}

impl Head {
    /// Reads a head; `None` when more bytes are needed.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(FrameError::Protocol("reserved bit"));
        }
        let is_final = first & 0x80 != 0;
        let opcode = Opcode::parse(first & 0x0F)?;
        if second & 0x80 == 0 {
            return Err(FrameError::Protocol("unmasked frame"));
        }
        let (length_len, payload_len, least) = match (second & 0x7F, rest) {
            (126, [a, b, ..]) => (2, u64::from(u16::from_be_bytes([*a, *b])), 126),
            (127, [a, b, c, d, e, f, g, h, ..]) => (8, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 0x1_0000),
            (126 | 127, _) => return Ok(None),
            (short, _) => (0, u64::from(short), 0),
        };
        if payload_len < least || payload_len > i64::MAX as u64 {
            return Err(FrameError::Protocol("length not in its shortest form"));
        }
        if opcode.is_control() && (!is_final || payload_len > MAX_CONTROL) {
            return Err(FrameError::Protocol("control frame split or too long"));
        }
        let Some(&[a, b, c, d]) = rest.get(length_len..length_len + 4) else { return Ok(None) };
        Ok(Some(Self { is_final, opcode, mask: [a, b, c, d], head_len: 2 + length_len + 4, payload_len }))
    }
}

/// Puts the messages of one client together. Holds at most one message and one read.
#[derive(Debug)]
pub(crate) struct Decoder {
    max_message: usize,
    buffer: Vec<u8>,
    /// How much of the buffer has been decoded.
    at: usize,
    /// What came so far of a message in several frames, and whether it is text.
    partial: Option<(bool, Vec<u8>)>,
    frames: u64,
}

impl Decoder {
    /// A decoder for messages of up to `max_message` bytes, beginning with bytes that were read already.
    pub(crate) fn new(max_message: usize, already_read: &[u8]) -> Self {
        Self { max_message, buffer: already_read.to_vec(), at: 0, partial: None, frames: 0 }
    }

    /// Adds what was read.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// How many whole frames came so far.
    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }

    /// The next message or control frame; `None` when more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; nothing that follows can be decoded then.
    pub(crate) fn next(&mut self) -> Result<Option<Incoming>, FrameError> {
        while let Some((head, payload)) = self.next_frame()? {
            self.frames += 1;
            if let Some(incoming) = self.on_frame(head, payload)? {
                return Ok(Some(incoming));
            }
        }
        self.forget_decoded();
        Ok(None)
    }

    fn next_frame(&mut self) -> Result<Option<(Head, Vec<u8>)>, FrameError> {
        let waiting = self.buffer.get(self.at..).unwrap_or_default();
        let Some(head) = Head::parse(waiting)? else { return Ok(None) };
        let collected = match head.opcode {
            Opcode::Continuation => self.partial.as_ref().map_or(0, |(_, text)| text.len()),
            _ => 0,
        };
        // Judged by the head alone, before the payload has come.
        let room = (self.max_message - collected.min(self.max_message)) as u64;
        if !head.opcode.is_control() && head.payload_len > room {
            return Err(FrameError::TooLarge);
        }
        let end = head.head_len + head.payload_len as usize;
        let Some(masked) = waiting.get(head.head_len..end) else { return Ok(None) };
        let payload = masked.iter().zip(head.mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        self.at += end;
        Ok(Some((head, payload)))
    }

    fn on_frame(&mut self, head: Head, payload: Vec<u8>) -> Result<Option<Incoming>, FrameError> {
        let (is_text, message) = match head.opcode {
            Opcode::Ping => return Ok(Some(Incoming::Ping(payload))),
            Opcode::Pong => return Ok(Some(Incoming::Pong)),
            Opcode::Close => return check_close(&payload).map(|()| Some(Incoming::Close)),
            Opcode::Continuation => {
                let Some((is_text, mut message)) = self.partial.take() else {
                    return Err(FrameError::Protocol("continuation of nothing"));
                };
                message.extend_from_slice(&payload);
                (is_text, message)
            }
            Opcode::Text | Opcode::Binary if self.partial.is_some() => {
                return Err(FrameError::Protocol("new message inside another one"));
            }
            opcode @ (Opcode::Text | Opcode::Binary) => (opcode == Opcode::Text, payload),
        };
        if !head.is_final {
            self.partial = Some((is_text, message));
            return Ok(None);
        }
        if !is_text {
            return Ok(Some(Incoming::Binary));
        }
        String::from_utf8(message).map(|text| Some(Incoming::Text(text))).map_err(|_| FrameError::NotUtf8)
    }

    /// Most of the time nothing waits, and a connection that is quiet holds no buffer.
    fn forget_decoded(&mut self) {
        if self.at == self.buffer.len() {
            self.buffer = Vec::new();
        } else {
            self.buffer.drain(..self.at);
        }
        self.at = 0;
    }
}

/// Codes that may stand in a close frame: RFC 6455 section 7.4, and the IANA registry for 1012 to 1014.
fn check_close(payload: &[u8]) -> Result<(), FrameError> {
    match payload {
        [] => Ok(()),
        [_] => Err(FrameError::Protocol("close with half a code")),
        [a, b, reason @ ..] => match u16::from_be_bytes([*a, *b]) {
            1000..=1003 | 1007..=1014 | 3000..=4999 => {
                std::str::from_utf8(reason).map(drop).map_err(|_| FrameError::NotUtf8)
            }
            _ => Err(FrameError::Protocol("wrong close code")),
        },
    }
}

/// Appends the head of a frame. Server frames are whole and not masked.
fn put_head(out: &mut Vec<u8>, opcode: u8, len: usize) {
    out.push(0x80 | opcode);
    match len {
        0..=125 => out.push(len as u8),
        126..=0xFFFF => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// Appends a text frame for each envelope.
pub(crate) fn put_texts(out: &mut Vec<u8>, envelopes: &[Bytes]) {
    for envelope in envelopes {
        put_head(out, 0x1, envelope.len());
        out.extend_from_slice(envelope);
    }
}

/// Appends one text frame that holds all envelopes: an array, or the bare envelope when it is one.
pub(crate) fn put_batch(out: &mut Vec<u8>, envelopes: &[Bytes]) {
    let [first, rest @ ..] = envelopes else { return };
    if rest.is_empty() {
        put_texts(out, envelopes);
        return;
    }
    // A bracket or a comma in front of each, and the closing bracket.
    put_head(out, 0x1, envelopes.iter().map(|envelope| envelope.len() + 1).sum::<usize>() + 1);
    out.push(b'[');
    out.extend_from_slice(first);
    for envelope in rest {
        out.push(b',');
        out.extend_from_slice(envelope);
    }
    out.push(b']');
}

/// Appends a ping.
pub(crate) fn put_ping(out: &mut Vec<u8>) {
    put_head(out, 0x9, 0);
}

/// Appends a pong that repeats the payload of a ping.
pub(crate) fn put_pong(out: &mut Vec<u8>, payload: &[u8]) {
    put_head(out, 0xA, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a close.
pub(crate) fn put_close(out: &mut Vec<u8>, code: CloseCode) {
    let reason = code.reason();
    put_head(out, 0x8, 2 + reason.len());
    out.extend_from_slice(&code.number().to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
    use tokio_tungstenite::tungstenite::{Message, protocol::CloseFrame};

    use super::*;

    /// A client's frame, masked, with its length in the shortest form.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            len @ 0..=125 => out.push(0x80 | len as u8),
            len @ 126..=0xFFFF => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                out.push(0x80 | 127);
                out.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        let mask = [7, 11, 13, 17];
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        out
    }

    fn decode_all(bytes: &[u8], step: usize) -> Result<Vec<Incoming>, FrameError> {
        let mut decoder = Decoder::new(1000, &[]);
        let mut all = Vec::new();
        for chunk in bytes.chunks(step) {
            decoder.push(chunk);
            while let Some(incoming) = decoder.next()? {
                all.push(incoming);
            }
        }
        Ok(all)
    }

    #[test]
    fn broken_frames_have_their_code() {
        let protocol = CloseCode::Protocol;
        let long = [vec![0x81, 0xFF], 1001_u64.to_be_bytes().to_vec()].concat();
        for (bytes, code, what) in [
            (frame(0xC1, b"x"), protocol, "a reserved bit"),
            (frame(0x83, b"x"), protocol, "a reserved opcode"),
            (vec![0x81, 0x01, b'x'], protocol, "not masked"),
            (vec![0x81, 0xFE, 0, 5, 1, 2, 3, 4], protocol, "16 bits for 5"),
            (long, protocol, "64 bits for 1001"),
            (vec![0x81, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0], protocol, "the highest bit of a length"),
            (frame(0x80, b"x"), protocol, "continuation of nothing"),
            ([frame(0x01, b"x"), frame(0x81, b"y")].concat(), protocol, "a message inside another one"),
            (frame(0x09, b"x"), protocol, "a split ping"),
            (frame(0x89, &[0; 126]), protocol, "a long ping"),
            (frame(0x88, &[3]), protocol, "half a close code"),
            (frame(0x88, &1005_u16.to_be_bytes()), protocol, "1005 in a frame"),
            (frame(0x88, &999_u16.to_be_bytes()), protocol, "999"),
            (frame(0x88, &[0x03, 0xE8, 0xFF]), CloseCode::NotUtf8, "a reason that is not UTF-8"),
            (frame(0x81, b"\xff"), CloseCode::NotUtf8, "a text that is not UTF-8"),
            (frame(0x81, &[b'x'; 1001]), CloseCode::TooLarge, "one frame too large"),
            ([frame(0x01, &[b'x'; 600]), frame(0x80, &[b'x'; 401])].concat(), CloseCode::TooLarge, "two frames"),
        ] {
            for step in [1, 1000] {
                let error = decode_all(&bytes, step).expect_err(what);
                assert_eq!(error.close_code(), code, "{what}");
            }
        }
    }

    #[test]
    fn a_message_may_be_split_around_a_ping() {
        let bytes =
            [frame(0x01, "h\u{e9}".as_bytes()), frame(0x89, b"p"), frame(0x80, b"llo"), frame(0x88, &[])].concat();
        let expected = vec![Incoming::Ping(b"p".to_vec()), Incoming::Text("h\u{e9}llo".to_owned()), Incoming::Close];
        for step in 1..bytes.len() {
            assert_eq!(decode_all(&bytes, step), Ok(expected.clone()), "{step} bytes at a time");
        }
    }

    #[test]
    fn a_quiet_connection_holds_no_buffer() {
        let mut decoder = Decoder::new(1000, &frame(0x81, b"x"));
        assert_eq!(decoder.next(), Ok(Some(Incoming::Text("x".to_owned()))));
        assert_eq!(decoder.next(), Ok(None));
        assert_eq!(decoder.buffer.capacity(), 0);
    }

    /// Lets tungstenite read what we wrote.
    fn read_by_client(bytes: Vec<u8>) -> Vec<Message> {
        let mut stream = std::io::Cursor::new(bytes);
        let mut client = WebSocketContext::new(Role::Client, Some(WebSocketConfig::default()));
        std::iter::from_fn(|| client.read(&mut stream).ok()).collect()
    }

    #[test]
    fn control_frames_are_read_by_a_client() {
        let mut out = Vec::new();
        put_ping(&mut out);
        put_pong(&mut out, b"abc");
        put_close(&mut out, CloseCode::Slow);
        let close = CloseFrame { code: 4413.into(), reason: CloseCode::Slow.reason().into() };
        let expected = vec![Message::Ping(Bytes::new()), Message::Pong("abc".into()), Message::Close(Some(close))];
        let read = read_by_client(out);
        assert_eq!(read, expected);
    }

    proptest! {
        #[test]
        fn a_client_reads_what_was_written(texts in prop::collection::vec("[a-z]{0,300}", 1..5), long in 0..70_000_usize) {
            let mut envelopes: Vec<Bytes> = texts.iter().map(|text| format!("\"{text}\"").into()).collect();
            envelopes.push(format!("\"{}\"", "x".repeat(long)).into());
            let (mut single, mut batch) = (Vec::new(), Vec::new());
            put_texts(&mut single, &envelopes);
            put_batch(&mut batch, &envelopes);
            let read: Vec<String> = read_by_client(single).iter().map(|m| m.to_text().unwrap().to_owned()).collect();
            let sent: Vec<String> = envelopes.iter().map(|e| String::from_utf8(e.to_vec()).unwrap()).collect();
            prop_assert_eq!(&read, &sent);
            let packed = read_by_client(batch);
            prop_assert_eq!(packed.len(), 1);
            let array: Vec<String> = serde_json::from_str(packed[0].to_text().unwrap()).unwrap();
            prop_assert_eq!(array.len(), sent.len());
        }

        #[test]
        fn any_bytes_give_messages_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300), step in 1..50_usize) {
            let _ = decode_all(&bytes, step);
        }

        #[test]
        fn what_a_client_writes_is_read(texts in prop::collection::vec("\\PC{0,200}", 1..5), step in 1..50_usize) {
            let mut stream = std::io::Cursor::new(Vec::new());
            let mut client = WebSocketContext::new(Role::Client, None);
            for text in &texts {
                client.write(&mut stream, Message::text(text.clone())).unwrap();
            }
            client.flush(&mut stream).unwrap();
            let read = decode_all(&stream.into_inner(), step);
            let sent: Vec<_> = texts.into_iter().map(Incoming::Text).collect();
            prop_assert_eq!(read, Ok(sent));
        }
    }
}
