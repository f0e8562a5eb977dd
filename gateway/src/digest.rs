//! A short name for content: the same on every replica, and no secret.

/// FNV-1a, 64 bits.
pub(crate) fn digest(content: &[u8]) -> u64 {
    content
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
