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
    /// How many levels of a side `depth` has at most when the request does not say.
    pub(super) depth_limit: u64,
}

impl Market {
    /// Spot.
    pub(crate) const SPOT: Self =
        Self { source: "binance", rest: "/api/v3", sequence: Sequence::Dense, depth_limit: 100 };

    /// USD-M futures.
    pub(crate) const USDM: Self =
        Self { source: "binancef", rest: "/fapi/v1", sequence: Sequence::Linked, depth_limit: 500 };
}
