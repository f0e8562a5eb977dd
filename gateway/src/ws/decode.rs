//! Bytes to messages.

use super::deflate::Inflater;
use super::{MAX_CONTROL, Opcode};

/// One thing that a client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A ping, with what the pong must repeat.
    Ping(&'a [u8]),
    /// A pong.
    Pong,
    /// A close, well-formed, with its code when it has one.
    Close(Option<u16>),
}

/// What a client must not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
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
    /// The code with which the connection is closed for it (RFC 6455 section 7.4.1).
    pub fn close_code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::NotUtf8 => 1007,
            Self::TooLarge => 1009,
        }
    }
}

/// What a client may send.
#[derive(Debug)]
pub struct Rules<'a> {
    /// Bytes of a message, at most. Judged by the head of each frame, before its payload is kept, and while it is expanded.
    pub max_message: usize,
    /// Expands compressed messages, where `permessage-deflate` was agreed on. Shared by connections.
    pub inflater: Option<&'a mut Inflater>,
}

/// The head of a frame.
#[derive(Debug, Clone, Copy)]
struct Head {
    is_final: bool,
    /// Reserved bit 1: the message is compressed.
    is_compressed: bool,
    opcode: Opcode,
    mask: [u8; 4],
    /// Bytes of the head itself.
    head_len: usize,
    payload_len: u64,
}

impl Head {
    /// Reads a head; `None` when more bytes are needed.
    fn parse(bytes: &[u8], takes_compressed: bool) -> Result<Option<Self>, FrameError> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let is_compressed = first & 0x40 != 0;
        if first & 0x30 != 0 || (is_compressed && !takes_compressed) {
            return Err(FrameError::Protocol("reserved bit"));
        }
        let is_final = first & 0x80 != 0;
        let opcode = match first & 0x0F {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xA => Opcode::Pong,
            _ => return Err(FrameError::Protocol("reserved opcode")),
        };
        if is_compressed && !matches!(opcode, Opcode::Text | Opcode::Binary) {
            return Err(FrameError::Protocol("compressed bit on a frame that begins no message"));
        }
        if second & 0x80 == 0 {
            return Err(FrameError::Protocol("unmasked frame"));
        }
        let short_len = second & 0x7F;
        // Known from these two bytes alone, so the rest is not waited for.
        if opcode.is_control() && (!is_final || u64::from(short_len) > MAX_CONTROL) {
            return Err(FrameError::Protocol("control frame split or too long"));
        }
        let (length_len, payload_len, least) = match (short_len, rest) {
            (126, [a, b, ..]) => (2, u64::from(u16::from_be_bytes([*a, *b])), 126),
            (127, [a, b, c, d, e, f, g, h, ..]) => (8, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 0x1_0000),
            (126 | 127, _) => return Ok(None),
            (short, _) => (0, u64::from(short), 0),
        };
        if payload_len < least || payload_len > i64::MAX as u64 {
            return Err(FrameError::Protocol("length not in its shortest form"));
        }
        let Some(&[a, b, c, d]) = rest.get(length_len..length_len + 4) else { return Ok(None) };
        Ok(Some(Self {
            is_final,
            is_compressed,
            opcode,
            mask: [a, b, c, d],
            head_len: 2 + length_len + 4,
            payload_len,
        }))
    }
}

/// What came so far of a message in several frames.
#[derive(Debug)]
struct Partial {
    is_text: bool,
    is_compressed: bool,
    bytes: Vec<u8>,
    /// How much of a text is known to be UTF-8.
    checked: usize,
}

impl Partial {
    /// Checks what is new of a text. A character may go on in the next frame, unless there is none.
    fn check(&mut self, is_final: bool) -> Result<(), FrameError> {
        if !self.is_text || self.is_compressed {
            return Ok(());
        }
        match std::str::from_utf8(self.bytes.get(self.checked..).unwrap_or_default()) {
            Ok(_) => self.checked = self.bytes.len(),
            Err(error) if error.error_len().is_none() && !is_final => self.checked += error.valid_up_to(),
            Err(_) => return Err(FrameError::NotUtf8),
        }
        Ok(())
    }
}

/// Puts the messages of one client together. Holds a buffer only while half a frame or half a message is there.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes that have not been decoded: half a frame, or what was not wanted yet.
    kept: Vec<u8>,
    partial: Option<Box<Partial>>,
    frames: u64,
}

impl Decoder {
    /// How many whole frames came so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Bytes of memory beside the decoder itself.
    pub fn held_bytes(&self) -> usize {
        self.kept.capacity()
            + self.partial.as_ref().map_or(0, |partial| size_of::<Partial>() + partial.bytes.capacity())
    }

    /// Decodes what was read, in place, and gives each message and control frame to `on`, until that returns `false`. What is left
    /// is kept for the next call, which may come without further bytes.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; nothing that follows can be decoded then.
    pub fn feed(
        &mut self,
        bytes: &mut [u8],
        rules: &mut Rules<'_>,
        on: &mut impl FnMut(Incoming<'_>) -> bool,
    ) -> Result<(), FrameError> {
        if self.kept.is_empty() {
            let used = self.decode(bytes, rules, on)?;
            if let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
                self.kept = rest.to_vec();
            }
            return Ok(());
        }
        let mut kept = std::mem::take(&mut self.kept);
        kept.extend_from_slice(bytes);
        let used = self.decode(&mut kept, rules, on)?;
        if used < kept.len() {
            kept.drain(..used);
            self.kept = kept;
        }
        Ok(())
    }

    /// Gives how many of the bytes are done with.
    fn decode(
        &mut self,
        bytes: &mut [u8],
        rules: &mut Rules<'_>,
        on: &mut impl FnMut(Incoming<'_>) -> bool,
    ) -> Result<usize, FrameError> {
        let mut at = 0;
        while let Some(waiting) = bytes.get_mut(at..).filter(|waiting| !waiting.is_empty()) {
            let Some(head) = Head::parse(waiting, rules.inflater.is_some())? else { break };
            self.check_size(&head, rules)?;
            let end = head.head_len + head.payload_len as usize;
            let Some(payload) = waiting.get_mut(head.head_len..end) else { break };
            unmask(payload, head.mask);
            at += end;
            self.frames += 1;
            if !self.on_frame(head, payload, rules, on)? {
                break;
            }
        }
        Ok(at)
    }

    fn check_size(&self, head: &Head, rules: &Rules<'_>) -> Result<(), FrameError> {
        let collected = match head.opcode {
            Opcode::Continuation => self.partial.as_ref().map_or(0, |partial| partial.bytes.len()),
            _ => 0,
        };
        let room = rules.max_message.saturating_sub(collected) as u64;
        if !head.opcode.is_control() && head.payload_len > room {
            return Err(FrameError::TooLarge);
        }
        Ok(())
    }

    fn on_frame(
        &mut self,
        head: Head,
        payload: &[u8],
        rules: &mut Rules<'_>,
        on: &mut impl FnMut(Incoming<'_>) -> bool,
    ) -> Result<bool, FrameError> {
        match head.opcode {
            Opcode::Ping => return Ok(on(Incoming::Ping(payload))),
            Opcode::Pong => return Ok(on(Incoming::Pong)),
            Opcode::Close => return check_close(payload).map(|code| on(Incoming::Close(code))),
            Opcode::Continuation if self.partial.is_none() => {
                return Err(FrameError::Protocol("continuation of nothing"));
            }
            Opcode::Text | Opcode::Binary if self.partial.is_some() => {
                return Err(FrameError::Protocol("new message inside another one"));
            }
            Opcode::Text | Opcode::Binary if head.is_final => {
                return finish(head.opcode == Opcode::Text, head.is_compressed, payload, rules, on);
            }
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {}
        }
        let (is_text, is_compressed) = (head.opcode == Opcode::Text, head.is_compressed);
        let begun = || Box::new(Partial { is_text, is_compressed, bytes: Vec::new(), checked: 0 });
        let mut partial = self.partial.take().unwrap_or_else(begun);
        partial.bytes.extend_from_slice(payload);
        partial.check(head.is_final)?;
        if !head.is_final {
            self.partial = Some(partial);
            return Ok(true);
        }
        finish(partial.is_text, partial.is_compressed, &partial.bytes, rules, on)
    }
}

/// Gives a whole message on.
fn finish(
    is_text: bool,
    is_compressed: bool,
    payload: &[u8],
    rules: &mut Rules<'_>,
    on: &mut impl FnMut(Incoming<'_>) -> bool,
) -> Result<bool, FrameError> {
    let message = match &mut rules.inflater {
        Some(inflater) if is_compressed => inflater.inflate(payload, rules.max_message)?,
        _ => payload,
    };
    if is_text {
        let text = std::str::from_utf8(message).map_err(|_| FrameError::NotUtf8)?;
        return Ok(on(Incoming::Text(text)));
    }
    Ok(on(Incoming::Binary(message)))
}

/// Takes the mask off (RFC 6455 section 5.3), eight bytes at a time.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// Codes that may stand in a close frame: RFC 6455 section 7.4, and the IANA registry for 1012 to 1014.
fn check_close(payload: &[u8]) -> Result<Option<u16>, FrameError> {
    match payload {
        [] => Ok(None),
        [_] => Err(FrameError::Protocol("close with half a code")),
        [a, b, reason @ ..] => match u16::from_be_bytes([*a, *b]) {
            code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => {
                std::str::from_utf8(reason).map(|_| Some(code)).map_err(|_| FrameError::NotUtf8)
            }
            _ => Err(FrameError::Protocol("wrong close code")),
        },
    }
}
