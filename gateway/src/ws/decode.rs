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

/// What came so far of a message that is not there at once: in several frames, or of a frame that comes in pieces.
#[derive(Debug)]
struct Partial {
    is_text: bool,
    is_compressed: bool,
    bytes: Vec<u8>,
    /// Frames without a byte that go on. They count as one each, so that a message of them has an end.
    empty_frames: usize,
    /// How much of a text is known to be UTF-8.
    checked: usize,
    /// Whether the frame that is being read is the message's last.
    is_final: bool,
    /// The mask of that frame, turned to the next byte.
    mask: [u8; 4],
    /// Bytes of that frame that are still to come.
    left: usize,
}

impl Partial {
    fn new(head: &Head) -> Box<Self> {
        let (is_text, is_compressed) = (head.opcode == Opcode::Text, head.is_compressed);
        let (is_final, mask, left) = (head.is_final, head.mask, 0);
        Box::new(Self { is_text, is_compressed, bytes: Vec::new(), empty_frames: 0, checked: 0, is_final, mask, left })
    }

    /// Takes what is there of the frame. Gives how many bytes that were.
    fn add(&mut self, bytes: &mut [u8]) -> Result<usize, FrameError> {
        let len = self.left.min(bytes.len());
        let payload = bytes.get_mut(..len).unwrap_or_default();
        unmask(payload, self.mask);
        self.mask.rotate_left(len % 4);
        self.left -= len;
        self.bytes.extend_from_slice(payload);
        self.check()?;
        Ok(len)
    }

    /// Checks what is new of a text, so that a wrong one is not waited for to its end.
    fn check(&mut self) -> Result<(), FrameError> {
        if !self.is_text || self.is_compressed {
            return Ok(());
        }
        let is_whole = self.is_final && self.left == 0;
        match std::str::from_utf8(self.bytes.get(self.checked..).unwrap_or_default()) {
            Ok(_) => self.checked = self.bytes.len(),
            // A character may go on in what comes next.
            Err(error) if error.error_len().is_none() && !is_whole => self.checked += error.valid_up_to(),
            Err(_) => return Err(FrameError::NotUtf8),
        }
        Ok(())
    }
}

/// Puts the messages of one client together. Holds a buffer only while half a frame or half a message is there.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes that have not been decoded: half a head, half a control frame, or what was not wanted yet.
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
        // A copy of what is left, because the buffer has grown by all that came.
        self.kept = kept.get(used..).map(<[u8]>::to_vec).unwrap_or_default();
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
            let (used, goes_on) = if self.partial.as_ref().is_some_and(|partial| partial.left > 0) {
                self.collect(waiting, rules, on)?
            } else {
                let Some(head) = Head::parse(waiting, rules.inflater.is_some())? else { break };
                self.check_head(&head, rules)?;
                let (head_len, payload_len) = (head.head_len, head.payload_len as usize);
                let payload = waiting.get_mut(head_len..).unwrap_or_default();
                let is_alone = head.opcode.is_control() || (head.is_final && self.partial.is_none());
                if let Some(payload) = payload.get_mut(..payload_len).filter(|_| is_alone) {
                    unmask(payload, head.mask);
                    self.frames += 1;
                    (head_len + payload_len, on_whole(&head, payload, rules, on)?)
                } else if head.opcode.is_control() {
                    break;
                } else {
                    self.begin(&head);
                    let (used, goes_on) = self.collect(payload, rules, on)?;
                    (head_len + used, goes_on)
                }
            };
            at += used;
            if !goes_on {
                break;
            }
        }
        Ok(at)
    }

    /// Checks what a head alone shows to be wrong: the rest of the frame is not waited for.
    fn check_head(&self, head: &Head, rules: &Rules<'_>) -> Result<(), FrameError> {
        let collected = match (head.opcode, &self.partial) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => return Ok(()),
            (Opcode::Continuation, None) => return Err(FrameError::Protocol("continuation of nothing")),
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(FrameError::Protocol("new message inside another one"));
            }
            (_, partial) => partial.as_ref().map_or(0, |partial| partial.bytes.len() + partial.empty_frames),
        };
        let room = rules.max_message.saturating_sub(collected) as u64;
        let size = if head.is_final { head.payload_len } else { head.payload_len.max(1) };
        if size > room { Err(FrameError::TooLarge) } else { Ok(()) }
    }

    /// Begins to collect a frame, and with the first one of a message the message.
    fn begin(&mut self, head: &Head) {
        let partial = self.partial.get_or_insert_with(|| Partial::new(head));
        partial.is_final = head.is_final;
        partial.mask = head.mask;
        partial.left = head.payload_len as usize;
        partial.empty_frames += usize::from(partial.left == 0);
    }

    /// Takes what is there of the frame that is being collected. Gives how many bytes that were, and whether more is wanted.
    fn collect(
        &mut self,
        bytes: &mut [u8],
        rules: &mut Rules<'_>,
        on: &mut impl FnMut(Incoming<'_>) -> bool,
    ) -> Result<(usize, bool), FrameError> {
        let Some(mut partial) = self.partial.take() else { return Ok((0, true)) };
        let used = partial.add(bytes)?;
        let is_read = partial.left == 0;
        self.frames += u64::from(is_read);
        if is_read && partial.is_final {
            let goes_on = finish(partial.is_text, partial.is_compressed, &partial.bytes, rules, on)?;
            return Ok((used, goes_on));
        }
        self.partial = Some(partial);
        Ok((used, true))
    }
}

/// Gives a frame on that is a whole message, or a control frame.
fn on_whole(
    head: &Head,
    payload: &[u8],
    rules: &mut Rules<'_>,
    on: &mut impl FnMut(Incoming<'_>) -> bool,
) -> Result<bool, FrameError> {
    match head.opcode {
        Opcode::Ping => Ok(on(Incoming::Ping(payload))),
        Opcode::Pong => Ok(on(Incoming::Pong)),
        Opcode::Close => check_close(payload).map(|code| on(Incoming::Close(code))),
        Opcode::Text | Opcode::Binary | Opcode::Continuation => {
            finish(head.opcode == Opcode::Text, head.is_compressed, payload, rules, on)
        }
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
