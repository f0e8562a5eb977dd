//! What fields hold: texts, prices, sides; and reading them where they stand.

use std::fmt;

use super::DecodeError;

/// A text field: ISO-8859-1 without the spaces that fill it up.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// Takes the bytes of a field, or of a text that is to fill one. Spaces at the end do not count.
    pub fn new(latin1: &'a [u8]) -> Self {
        Self(latin1.trim_ascii_end())
    }

    /// The text in ISO-8859-1.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The characters of ISO-8859-1 are the first 256 of Unicode.
        self.0.iter().try_for_each(|&byte| fmt::Write::write_char(f, char::from(byte)))
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// A price as the feed has it: an integer, with the decimals that the book's [`super::Directory`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Price(pub i32);

impl Price {
    /// "No price", and in an order one that takes any price.
    pub const NONE: Self = Self(i32::MIN);

    /// The price, when there is one.
    pub fn get(self) -> Option<i32> {
        (self != Self::NONE).then_some(self.0)
    }
}

/// The side of a book.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// `B`
    Buy,
    /// `S`
    Sell,
}

impl Side {
    pub(super) fn letter(self) -> u8 {
        match self {
            Self::Buy => b'B',
            Self::Sell => b'S',
        }
    }
}

/// The bytes of a message of `N` bytes, read by the offsets of the specification.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a, const N: usize>(pub(super) &'a [u8; N]);

impl<'a, const N: usize> Bytes<'a, N> {
    #[inline]
    pub(super) fn u8(self, at: usize) -> u8 {
        self.0[at]
    }

    #[inline]
    pub(super) fn u16(self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }

    #[inline]
    pub(super) fn u32(self, at: usize) -> u32 {
        u32::from_be_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    #[inline]
    pub(super) fn u64(self, at: usize) -> u64 {
        u64::from(self.u32(at)) << 32 | u64::from(self.u32(at + 4))
    }

    #[inline]
    pub(super) fn price(self, at: usize) -> Price {
        Price(self.u32(at).cast_signed())
    }

    pub(super) fn text(self, at: usize, length: usize) -> Text<'a> {
        Text::new(&self.0[at..at + length])
    }

    #[inline]
    pub(super) fn side(self, at: usize) -> Result<Side, DecodeError> {
        match self.0[at] {
            b'B' => Ok(Side::Buy),
            b'S' => Ok(Side::Sell),
            _ => Err(self.bad("side")),
        }
    }

    #[inline]
    pub(super) fn yes_no(self, at: usize, field: &'static str) -> Result<bool, DecodeError> {
        match self.0[at] {
            b'Y' => Ok(true),
            b'N' => Ok(false),
            _ => Err(self.bad(field)),
        }
    }

    pub(super) fn bad(self, field: &'static str) -> DecodeError {
        DecodeError::Value { kind: char::from(self.0[0]), field }
    }
}
