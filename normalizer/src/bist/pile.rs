//! Messages that wait, one behind the other in one piece of memory.

/// Messages in the order in which they were put, within a number of bytes.
#[derive(Debug)]
pub(super) struct Pile {
    /// Each behind its length.
    bytes: Vec<u8>,
    limit_bytes: usize,
}

impl Pile {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { bytes: Vec::new(), limit_bytes }
    }

    /// Adds a message; `false` when there is no room for it.
    pub(super) fn push(&mut self, message: &[u8]) -> bool {
        let Ok(length) = u16::try_from(message.len()) else { return false };
        if self.bytes.len() + 2 + message.len() > self.limit_bytes {
            return false;
        }
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(message);
        true
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || {
            let (length, behind) = rest.split_first_chunk::<2>()?;
            let (message, behind) = behind.split_at_checked(u16::from_be_bytes(*length).into())?;
            rest = behind;
            Some(message)
        })
    }
}
