//! The position of a stream: one text for all its channels, small enough for each event's `id:` line.
//!
//! base64url of one byte of version, two of a checksum, and twelve for each channel: five of its name's digest, seven of
//! its position; by rising digest. It names no order and no replica, so it is good for any replica and any list of
//! channels: those that it does not know begin as if they were new.

use std::collections::BTreeMap;

use akis_model::Seq;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::digest::digest;
use crate::query::MAX_CHANNELS;

const VERSION: u8 = 1;

/// Bytes before the first channel.
const HEAD_BYTES: usize = 3;

/// Bytes of a channel: digest and position.
const NAME_BYTES: usize = 5;
const SEQ_BYTES: usize = 7;
const ENTRY_BYTES: usize = NAME_BYTES + SEQ_BYTES;

/// Longest text that is looked at.
const MAX_TEXT: usize = (HEAD_BYTES + MAX_CHANNELS * ENTRY_BYTES) * 4 / 3;

/// The positions of the channels of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Cursor(BTreeMap<u64, Seq>);

impl Cursor {
    /// Reads a cursor. Any text gives one or nothing.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = Some(text).filter(|text| text.len() <= MAX_TEXT)?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(bytes).ok()?;
        let (head, body) = bytes.split_at_checked(HEAD_BYTES)?;
        let (entries, rest) = body.as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() || head != Self::head(body) {
            return None;
        }
        let mut positions = BTreeMap::new();
        for entry in entries {
            let (name, seq) = entry.split_at(NAME_BYTES);
            let (name, seq) = (number(name), Seq::new(number(seq)).ok()?);
            if positions.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return None;
            }
            positions.insert(name, seq);
        }
        Some(Self(positions))
    }

    /// The position of a channel, where the stream had one.
    pub(crate) fn position(&self, channel: &str) -> Option<Seq> {
        self.0.get(&name(channel)).copied()
    }

    /// Takes note that the stream has reached `seq`.
    pub(crate) fn reach(&mut self, channel: &str, seq: Seq) {
        self.0.insert(name(channel), seq);
    }

    /// Keeps the positions of these channels only: what is no longer asked for must not make the text grow.
    pub(crate) fn retain(&mut self, channels: &[&str]) {
        let names: Vec<u64> = channels.iter().map(|channel| name(channel)).collect();
        self.0.retain(|name, _| names.contains(name));
    }

    /// The cursor as text.
    pub(crate) fn text(&self) -> String {
        let mut body = Vec::with_capacity(self.0.len() * ENTRY_BYTES);
        for (name, seq) in &self.0 {
            body.extend(name.to_be_bytes().iter().skip(8 - NAME_BYTES));
            body.extend(seq.get().to_be_bytes().iter().skip(8 - SEQ_BYTES));
        }
        let mut bytes = Self::head(&body).to_vec();
        bytes.append(&mut body);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Version and checksum.
    fn head(body: &[u8]) -> [u8; HEAD_BYTES] {
        let [high, low, ..] = digest(body).to_be_bytes();
        [VERSION, high, low]
    }
}

/// The digest that stands for a channel's name.
fn name(channel: &str) -> u64 {
    digest(channel.as_bytes()) >> (8 * (8 - NAME_BYTES))
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use akis_model::MAX_SEQ;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_cursor_is_refused() {
        let mut cursor = Cursor::default();
        cursor.reach("a:b", Seq::new(5).unwrap());
        cursor.reach("a:c", Seq::new(MAX_SEQ).unwrap());
        let good = cursor.text();
        assert_eq!(Cursor::parse(&good), Some(cursor));
        assert_eq!(Cursor::parse(&Cursor::default().text()), Some(Cursor::default()));
        let changed = good.replacen(good.chars().nth(8).unwrap(), "_", 1);
        for bad in
            ["", "5", "hello world", "AAAA", &good[..good.len() - 4], &format!("{good}="), &changed, &good.repeat(90)]
        {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_cursor_survives_its_text(channels in prop::collection::vec("[a-z]{1,5}:[a-z]{1,5}", 0..50), first in 0..MAX_SEQ - 50) {
            let mut cursor = Cursor::default();
            for (n, channel) in channels.iter().enumerate() {
                cursor.reach(channel, Seq::new(first + n as u64).unwrap());
            }
            let read = Cursor::parse(&cursor.text());
            prop_assert_eq!(read.as_ref(), Some(&cursor));
            for channel in &channels {
                prop_assert_eq!(read.as_ref().unwrap().position(channel), cursor.position(channel));
            }
        }

        #[test]
        fn any_text_gives_a_cursor_or_nothing(text in "[A-Za-z0-9_-]{0,64}|\\PC{0,64}") {
            if let Some(cursor) = Cursor::parse(&text) {
                prop_assert_eq!(cursor.text(), text);
            }
        }
    }
}
