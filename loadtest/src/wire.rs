//! As much of WebSocket and of the envelope as a load generator needs, and no more: it must cost far less than what it measures.

use std::fmt::Display;

/// The bytes of a client's frame before its payload, for payloads of 126 to 65,535 bytes: FIN and the opcode, the mask
/// bit and the length, and the mask.
const LONG_HEAD: usize = 8;

/// What a frame of the server means here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// One envelope.
    Text(&'a [u8]),
    /// To be answered with the same payload.
    Ping(&'a [u8]),
    /// The code, 0 when there is none.
    Close(u16),
    /// A pong.
    Other,
}

/// The server sent what it never does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadFrame;

/// The first frame in `bytes` and how many bytes it takes; `None` while it is not whole.
///
/// # Errors
///
/// [`BadFrame`] on fragments, masks, binary frames and reserved bits.
pub(crate) fn next_frame(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, BadFrame> {
    let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
    let (length, head) = match second {
        0..126 => (usize::from(second), 2),
        126 => {
            let Some(long) = rest.first_chunk::<2>() else { return Ok(None) };
            (usize::from(u16::from_be_bytes(*long)), 4)
        }
        127 => {
            let Some(long) = rest.first_chunk::<8>() else { return Ok(None) };
            (usize::try_from(u64::from_be_bytes(*long)).map_err(|_| BadFrame)?, 10)
        }
        _ => return Err(BadFrame),
    };
    let end = head + length;
    let Some(payload) = bytes.get(head..end) else { return Ok(None) };
    let frame = match first {
        0x81 => Frame::Text(payload),
        0x88 => Frame::Close(payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code))),
        0x89 => Frame::Ping(payload),
        0x8a => Frame::Other,
        _ => return Err(BadFrame),
    };
    Ok(Some((frame, end)))
}

/// A text frame of a client. The mask is zero, which is allowed and leaves the payload as it is.
pub(crate) fn text_frame(payload: &[u8]) -> Vec<u8> {
    client_frame(0x81, payload)
}

/// The answer to a ping.
pub(crate) fn pong_frame(payload: &[u8]) -> Vec<u8> {
    client_frame(0x8a, payload)
}

/// A frame of a client whose first byte is `first`.
pub(crate) fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(LONG_HEAD + payload.len());
    frame.push(first);
    match u16::try_from(payload.len()) {
        Ok(length @ 0..126) => frame.push(0x80 | length as u8),
        // No request here is longer than 64 KiB, which is the most that the gateway takes.
        length => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&length.unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// What asks a server for a WebSocket. `headers` are whole lines.
pub(crate) fn upgrade_request(host: impl Display, target: &str, headers: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{headers}\r\n"
    )
}

/// A text frame of a server: no mask, and the length in its shortest form.
pub(crate) fn server_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match payload.len() {
        length @ 0..126 => frame.push(length as u8),
        length @ 126..0x1_0000 => {
            frame.push(126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// The parts of an envelope that are counted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scanned<'a> {
    pub(crate) seq: u64,
    pub(crate) ts_ms: u64,
    pub(crate) event: &'a [u8],
    pub(crate) channel: &'a [u8],
    /// From behind the channel on.
    pub(crate) rest: &'a [u8],
}

/// Reads an envelope whose fields have the order in which the gateway writes them; `None` when it is anything else.
pub(crate) fn scan(text: &[u8]) -> Option<Scanned<'_>> {
    let (seq, rest) = number(text.strip_prefix(br#"{"v":1,"seq":"#)?)?;
    let (ts_ms, rest) = number(rest.strip_prefix(br#","ts":"#)?)?;
    let (event, rest) = word(rest.strip_prefix(br#","event":""#)?)?;
    let (channel, rest) = word(rest.strip_prefix(br#","channel":""#)?)?;
    Some(Scanned { seq, ts_ms, event, channel, rest })
}

/// The number that a publisher of this crate put at the beginning of an event's data.
pub(crate) fn sent_us(rest: &[u8]) -> Option<u64> {
    let data = rest.strip_prefix(br#","ok":true,"data":{"at":"#)?;
    number(data).map(|(at, _)| at)
}

fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at_checked(digits)?;
    let value =
        digits.iter().try_fold(0_u64, |value, digit| value.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
    (!digits.is_empty()).then_some((value?, rest))
}

/// Neither event names nor channels hold anything that is escaped.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == b'"')?;
    Some((&text[..end], &text[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_a_server_are_read_whole_or_not_at_all() {
        let mut bytes = vec![0x81, 126, 0, 200];
        bytes.extend([b'x'; 200]);
        bytes.extend([0x88, 2, 0x11, 0x3d]);
        for cut in 0..204 {
            assert_eq!(next_frame(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
        assert_eq!(next_frame(&bytes), Ok(Some((Frame::Text(&[b'x'; 200]), 204))));
        assert_eq!(next_frame(&bytes[204..]), Ok(Some((Frame::Close(4413), 4))));
        assert_eq!(next_frame(&[0x82, 0]), Err(BadFrame), "binary");
        assert_eq!(next_frame(&[0x81, 0x80]), Err(BadFrame), "masked");
    }

    #[test]
    fn frames_of_a_client_carry_a_mask_that_changes_nothing() {
        assert_eq!(text_frame(b"hi"), [0x81, 0x82, 0, 0, 0, 0, b'h', b'i']);
        assert_eq!(text_frame(&[b'x'; 300])[..8], [0x81, 0xfe, 1, 44, 0, 0, 0, 0]);
    }

    #[test]
    fn frames_of_a_server_are_read_back() {
        for length in [0, 125, 126, 0xffff, 0x1_0000] {
            let payload = vec![b'x'; length];
            let frame = server_frame(&payload);
            assert_eq!(next_frame(&frame), Ok(Some((Frame::Text(&payload), frame.len()))));
        }
    }

    #[test]
    fn envelopes_are_scanned() {
        let text = br#"{"v":1,"seq":9,"ts":5,"event":"bench","channel":"bench:1","ok":true,"data":{"at":77,"pad":""}}"#;
        let scanned = scan(text).unwrap();
        assert_eq!(
            (scanned.seq, scanned.ts_ms, scanned.event, scanned.channel),
            (9, 5, &b"bench"[..], &b"bench:1"[..])
        );
        assert_eq!(sent_us(scanned.rest), Some(77));
        assert_eq!(scan(br#"{"v":2}"#), None);
        assert_eq!(scan(br#"{"v":1,"seq":,"ts":5"#), None);
    }
}
