//! What differs between Binance's markets.

use super::depth::Sequence;

/// A market.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Market {
    /// The first segment of its channels.
    pub(super) source: &'static str,
    /// What the paths of its REST routes begin with.
    pub(super) rest: &'static str,
    /// How the diffs of its books follow each other.
    pub(super) sequence: Sequence,
}

impl Market {
    /// Spot.
    pub(crate) const SPOT: Self = Self { source: "binance", rest: "/api/v3", sequence: Sequence::Dense };

    /// USD-M futures.
    pub(crate) const USDM: Self = Self { source: "binancef", rest: "/fapi/v1", sequence: Sequence::Linked };
}
