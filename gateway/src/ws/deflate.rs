//! `permessage-deflate` (RFC 7692), without context in either direction: a compressed message can be shared by all who get it, and a
//! quiet connection holds no dictionary.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::FrameError;

/// What is answered to an offer that is taken.
pub const ACCEPTED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// What ends a message and is left out on the wire (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];

/// What a shared buffer keeps between messages.
const KEPT_BYTES: usize = 256 << 10;

/// Whether one of the offers of a `Sec-WebSocket-Extensions` header can be taken as [`ACCEPTED`] says.
///
/// An offer that forces a smaller window on the server is not: what it compresses is shared with clients that do not.
pub fn is_acceptable(offers: &str) -> bool {
    offers.split(',').any(|offer| {
        let mut parts = offer.split(';').map(str::trim);
        if !parts.next().is_some_and(|name| name.eq_ignore_ascii_case("permessage-deflate")) {
            return false;
        }
        let mut seen = Vec::new();
        parts.all(|part| {
            let (name, value) = part.split_once('=').map_or((part, None), |(name, value)| (name, Some(value)));
            let name = name.trim().to_ascii_lowercase();
            let bits = value.map(|value| value.trim().trim_matches('"').parse::<u8>().unwrap_or(0));
            let is_known = match name.as_str() {
                "server_no_context_takeover" | "client_no_context_takeover" => bits.is_none(),
                "server_max_window_bits" => bits == Some(15),
                "client_max_window_bits" => bits.is_none_or(|bits| (8..=15).contains(&bits)),
                _ => false,
            };
            is_known && !seen.contains(&name) && {
                seen.push(name);
                true
            }
        })
    })
}

/// Compresses messages, each on its own.
#[derive(Debug)]
pub struct Deflater {
    compress: Compress,
    out: Vec<u8>,
}

impl Default for Deflater {
    fn default() -> Self {
        Self { compress: Compress::new(Compression::fast(), false), out: Vec::new() }
    }
}

impl Deflater {
    /// The payload of a compressed message; `None` when it would not be smaller.
    pub fn deflate(&mut self, message: &[u8]) -> Option<&[u8]> {
        self.compress.reset();
        self.out.clear();
        self.out.shrink_to(KEPT_BYTES);
        // Room for all of a message that is worth it, so that one call does.
        self.out.reserve(message.len() + TAIL.len());
        let status = self.compress.compress_vec(message, &mut self.out, FlushCompress::Sync);
        let is_whole = status.is_ok() && self.compress.total_in() == message.len() as u64;
        let payload = self.out.strip_suffix(&TAIL).filter(|_| is_whole)?;
        (payload.len() < message.len()).then_some(payload)
    }
}

/// Expands messages, each on its own.
#[derive(Debug)]
pub struct Inflater {
    decompress: Decompress,
    out: Vec<u8>,
}

impl Default for Inflater {
    fn default() -> Self {
        Self { decompress: Decompress::new(false), out: Vec::new() }
    }
}

impl Inflater {
    /// The message of a compressed payload.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLarge`] as soon as it is known to have more than `max_message` bytes, and [`FrameError::Protocol`] when it is no
    /// deflate stream.
    pub fn inflate(&mut self, payload: &[u8], max_message: usize) -> Result<&[u8], FrameError> {
        self.decompress.reset(false);
        self.out.clear();
        self.out.shrink_to(KEPT_BYTES);
        for mut rest in [payload, TAIL.as_slice()] {
            loop {
                // One byte more than allowed shows that there is too much.
                let room = (max_message + 1).saturating_sub(self.out.len()).min(4 * rest.len() + 256);
                self.out.reserve(room);
                let (before_in, before_out) = (self.decompress.total_in(), self.out.len());
                let status = self
                    .decompress
                    .decompress_vec(rest, &mut self.out, FlushDecompress::Sync)
                    .map_err(|_| FrameError::Protocol("no deflate stream"))?;
                if self.out.len() > max_message {
                    return Err(FrameError::TooLarge);
                }
                let used = (self.decompress.total_in() - before_in) as usize;
                rest = rest.get(used..).unwrap_or_default();
                // A final block ends the message, whatever comes behind it.
                let is_stuck = used == 0 && self.out.len() == before_out;
                if status == Status::StreamEnd || is_stuck || (rest.is_empty() && self.out.len() < self.out.capacity())
                {
                    break;
                }
            }
        }
        Ok(&self.out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn offers_are_taken_unless_they_bind_the_server() {
        for (offers, is_taken) in [
            ("permessage-deflate", true),
            ("permessage-deflate; client_max_window_bits", true),
            ("permessage-deflate; client_max_window_bits=9; server_no_context_takeover", true),
            ("permessage-deflate; server_max_window_bits=10, permessage-deflate", true),
            ("permessage-deflate; server_max_window_bits=15", true),
            ("permessage-deflate; server_max_window_bits=10", false),
            ("permessage-deflate; server_max_window_bits", false),
            ("permessage-deflate; client_max_window_bits=16", false),
            ("permessage-deflate; client_max_window_bits=7", false),
            ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", false),
            ("permessage-deflate; server_no_context_takeover=1", false),
            ("permessage-deflate; unknown", false),
            ("x-webkit-deflate-frame", false),
            ("", false),
        ] {
            assert_eq!(is_acceptable(offers), is_taken, "{offers:?}");
        }
    }

    #[test]
    fn a_bomb_is_noticed_before_it_is_there() {
        let payload = Deflater::default().deflate(&vec![0; 10 << 20]).unwrap().to_vec();
        let mut inflater = Inflater::default();
        assert_eq!(inflater.inflate(&payload, 64 << 10), Err(FrameError::TooLarge));
        assert!(inflater.out.capacity() <= 256 << 10, "{}", inflater.out.capacity());
        assert_eq!(inflater.inflate(&payload, 10 << 20).map(<[u8]>::len), Ok(10 << 20));
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        assert!(matches!(Inflater::default().inflate(&[0xFF; 20], 1000), Err(FrameError::Protocol(_))));
        assert_eq!(Inflater::default().inflate(&[0], 1000), Ok(&[][..]), "an empty message");
        // RFC 7692 section 7.2.3.1.
        let hello = [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
        assert_eq!(Inflater::default().inflate(&hello, 5), Ok(&b"Hello"[..]));
        assert_eq!(Inflater::default().inflate(&hello, 4), Err(FrameError::TooLarge));
    }

    proptest! {
        #[test]
        fn what_is_compressed_comes_back(message in prop::collection::vec(0_u8..4, 0..5000)) {
            let mut deflater = Deflater::default();
            for _ in 0..2 {
                if let Some(payload) = deflater.deflate(&message) {
                    let mut inflater = Inflater::default();
                    prop_assert_eq!(inflater.inflate(payload, message.len()).map(<[u8]>::to_vec), Ok(message.clone()));
                }
            }
        }

        #[test]
        fn any_bytes_are_expanded_or_refused(payload in prop::collection::vec(any::<u8>(), 0..500)) {
            let mut inflater = Inflater::default();
            let _ = inflater.inflate(&payload, 10_000);
            prop_assert!(inflater.out.len() <= 10_001 + 256);
        }
    }
}
