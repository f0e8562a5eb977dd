//! What the integers of prices and quantities stand for.

use akis_model::{Decimal, DecimalError};

/// What the integers of prices stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// So many digits behind the point.
    Decimals(u8),
    /// 1/256.
    Fractions,
}

impl Scale {
    /// `None` for more digits than a decimal has.
    pub(super) fn new(decimals: u16) -> Option<Self> {
        match decimals {
            256 => Some(Self::Fractions),
            0..=36 => u8::try_from(decimals).ok().map(Self::Decimals),
            _ => None,
        }
    }

    pub(super) fn decimal(self, price: i32) -> Result<Decimal, DecimalError> {
        match self {
            Self::Decimals(decimals) => Decimal::from_parts(price.into(), decimals),
            // 1/256 is 0.00390625.
            Self::Fractions => Decimal::from_parts(i128::from(price) * 390_625, 8),
        }
    }
}

/// A quantity: shares come whole.
pub(super) fn whole(quantity: u64) -> Decimal {
    // 20 digits at most, where 36 are possible.
    Decimal::from_parts(quantity.into(), 0).unwrap_or_default()
}
