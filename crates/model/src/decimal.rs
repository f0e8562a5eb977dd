//! Exact decimals: what a venue wrote, without trailing zeros and without floating point.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Most digits a value may have, before and behind the point together.
const MAX_DIGITS: u32 = 38;

/// The longest text of a value: a quote, a sign, a zero and a point before all digits.
const MAX_TEXT_BYTES: usize = MAX_DIGITS as usize + 4;

/// So many bytes of digits never exceed 64 bits.
const SMALL_TEXT_BYTES: usize = 19;

/// The powers of ten that 64 bits hold.
const POWERS: [u64; 20] = {
    let mut powers = [1; 20];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

/// The numbers below a hundred in two digits.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut at = 0;
    while at < pairs.len() {
        pairs[at] = [b'0' + (at / 10) as u8, b'0' + (at % 10) as u8];
        at += 1;
    }
    pairs
};

/// An exact decimal number of up to 38 digits.
///
/// Kept without trailing zeros, so equal values are equal in every field; zero has no sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Decimal {
    mantissa: i128,
    /// Digits behind the point.
    scale: u8,
}

impl Decimal {
    /// Nothing at all.
    pub const ZERO: Self = Self { mantissa: 0, scale: 0 };

    /// `mantissa` / 10^`scale`, for venues that send integers with a number of decimals.
    ///
    /// # Errors
    ///
    /// [`DecimalError::Range`] when it has more than 38 digits.
    pub fn from_parts(mantissa: i128, scale: u8) -> Result<Self, DecimalError> {
        if u32::from(scale) > MAX_DIGITS || mantissa.unsigned_abs() >= 10u128.pow(MAX_DIGITS) {
            return Err(DecimalError::Range);
        }
        Ok(Self { mantissa, scale }.trimmed())
    }

    /// Whether it is zero.
    pub fn is_zero(self) -> bool {
        self.mantissa == 0
    }

    /// Whether it is below zero.
    pub fn is_negative(self) -> bool {
        self.mantissa < 0
    }

    /// The sum.
    ///
    /// # Errors
    ///
    /// [`DecimalError::Range`] when it has more than 38 digits.
    pub fn checked_add(self, other: Self) -> Result<Self, DecimalError> {
        let scale = self.scale.max(other.scale);
        let at = |d: Self| {
            10i128
                .checked_pow(u32::from(scale - d.scale))
                .and_then(|f| d.mantissa.checked_mul(f))
                .ok_or(DecimalError::Range)
        };
        let sum = at(self)?.checked_add(at(other)?).ok_or(DecimalError::Range)?;
        Self::from_parts(sum, scale)
    }

    /// The product.
    ///
    /// # Errors
    ///
    /// [`DecimalError::Range`] when it has more than 38 digits.
    pub fn checked_mul(self, other: Self) -> Result<Self, DecimalError> {
        let mantissa = self.mantissa.checked_mul(other.mantissa).ok_or(DecimalError::Range)?;
        Self::from_parts(mantissa, self.scale.saturating_add(other.scale))
    }

    fn trimmed(mut self) -> Self {
        if self.mantissa == 0 {
            return Self::ZERO;
        }
        // Nearly all values fit into 64 bits, where a division takes a tenth of the time.
        while self.scale > 0 && i64::try_from(self.mantissa).is_err() && self.mantissa % 10 == 0 {
            self.mantissa /= 10;
            self.scale -= 1;
        }
        if let Ok(mut small) = i64::try_from(self.mantissa) {
            while self.scale > 0 && small % 10 == 0 {
                small /= 10;
                self.scale -= 1;
            }
            self.mantissa = small.into();
        }
        self
    }

    /// The mantissa at another scale, which is not below its own; `None` beyond what 64 bits hold.
    fn small_at(self, scale: u8) -> Option<i128> {
        let small = i64::try_from(self.mantissa).ok()?;
        let factor = POWERS.get(usize::from(scale - self.scale))?;
        Some(i128::from(small) * i128::from(*factor))
    }

    /// The text, to be written.
    fn text(self) -> Text {
        let (magnitude, scale) = (self.mantissa.unsigned_abs(), usize::from(self.scale));
        let mut text = Text { at: MAX_TEXT_BYTES, bytes: [0; MAX_TEXT_BYTES] };
        match (u64::try_from(magnitude), POWERS.get(scale)) {
            // Nearly all values fit into 64 bits, where a division takes a tenth of the time.
            (Ok(small), Some(&unit)) => {
                if scale > 0 {
                    text.put(small % unit, scale);
                    text.put_byte(b'.');
                }
                text.put(small / unit, 1);
            }
            (Ok(_) | Err(_), _) => {
                let unit = 10u128.pow(self.scale.into());
                if scale > 0 {
                    text.put_wide(magnitude % unit, scale);
                    text.put_byte(b'.');
                }
                text.put_wide(magnitude / unit, 1);
            }
        }
        if self.mantissa < 0 {
            text.put_byte(b'-');
        }
        text
    }

    /// Adds its text in quotes.
    pub(crate) fn push_quoted(self, out: &mut Vec<u8>) {
        let mut text = self.text();
        text.put_byte(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    }
}

/// The text of a value, which grows from its end as its digits come.
struct Text {
    at: usize,
    bytes: [u8; MAX_TEXT_BYTES],
}

impl Text {
    fn put_byte(&mut self, byte: u8) {
        self.at -= 1;
        self.bytes[self.at] = byte;
    }

    /// Puts the digits of a number, at least so many.
    fn put(&mut self, mut rest: u64, least_digits: usize) {
        let end = self.at - least_digits;
        while rest >= 100 {
            let pair = PAIRS[(rest % 100) as usize];
            self.put_byte(pair[1]);
            self.put_byte(pair[0]);
            rest /= 100;
        }
        while rest > 0 || self.at > end {
            self.put_byte(b'0' + (rest % 10) as u8);
            rest /= 10;
        }
    }

    /// The same for a number of any size.
    fn put_wide(&mut self, mut rest: u128, least_digits: usize) {
        let end = self.at - least_digits;
        while rest > 0 || self.at > end {
            self.put_byte(b'0' + (rest % 10) as u8);
            rest /= 10;
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    fn as_str(&self) -> &str {
        // It holds digits, a sign and a point.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl FromStr for Decimal {
    type Err = DecimalError;

    /// Parses `-12.50` and, because some venues write it, `6.70E4`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (negative, rest) = match text.as_bytes() {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        if let Some((mantissa, scale)) = parse_small(rest) {
            let mantissa = i128::from(mantissa);
            return Ok(Self { mantissa: if negative { -mantissa } else { mantissa }, scale });
        }
        let mut mantissa: u128 = 0;
        let (mut digits, mut behind_point, mut point) = (0usize, 0i32, false);
        let mut exponent = 0i32;
        for (i, &b) in rest.iter().enumerate() {
            match b {
                b'0'..=b'9' => {
                    digits += 1;
                    mantissa = mantissa
                        .checked_mul(10)
                        .and_then(|m| m.checked_add(u128::from(b - b'0')))
                        .ok_or(DecimalError::Range)?;
                    behind_point += i32::from(point);
                }
                b'.' if !point => point = true,
                b'e' | b'E' if digits > 0 => {
                    exponent = parse_exponent(&rest[i + 1..])?;
                    break;
                }
                _ => return Err(DecimalError::Malformed),
            }
        }
        if digits == 0 {
            return Err(DecimalError::Malformed);
        }
        if mantissa == 0 {
            return Ok(Self::ZERO);
        }
        let mut scale = behind_point - exponent;
        while scale > 0 && mantissa.is_multiple_of(10) {
            mantissa /= 10;
            scale -= 1;
        }
        if scale < 0 {
            let factor = 10u128.checked_pow(scale.unsigned_abs()).ok_or(DecimalError::Range)?;
            mantissa = mantissa.checked_mul(factor).ok_or(DecimalError::Range)?;
            scale = 0;
        }
        let mantissa = i128::try_from(mantissa).map_err(|_| DecimalError::Range)?;
        let scale = u8::try_from(scale).map_err(|_| DecimalError::Range)?;
        Self::from_parts(if negative { -mantissa } else { mantissa }, scale)
    }
}

/// The digits and how many of them lie behind the point, without zeros at the end, of a number that is short and has no
/// exponent, as nearly all are; `None` for what else it may be.
fn parse_small(text: &[u8]) -> Option<(u64, u8)> {
    if text.len() > SMALL_TEXT_BYTES {
        return None;
    }
    let (mut whole, mut fraction) = (text, &[][..]);
    if let Some(point) = text.iter().position(|&b| b == b'.') {
        (whole, fraction) = (&text[..point], &text[point + 1..]);
    }
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    while let [rest @ .., b'0'] = fraction {
        fraction = rest;
    }
    let mut mantissa = 0;
    for &b in whole.iter().chain(fraction) {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        mantissa = mantissa * 10 + u64::from(digit);
    }
    Some((mantissa, fraction.len() as u8))
}

fn parse_exponent(text: &[u8]) -> Result<i32, DecimalError> {
    let text = std::str::from_utf8(text).map_err(|_| DecimalError::Malformed)?;
    let bare = text.strip_prefix(['-', '+']).unwrap_or(text);
    if bare.is_empty() || !bare.bytes().all(|b| b.is_ascii_digit()) {
        return Err(DecimalError::Malformed);
    }
    text.parse::<i32>().ok().filter(|e| e.abs() <= 1000).ok_or(DecimalError::Range)
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.scale == other.scale {
            return self.mantissa.cmp(&other.mantissa);
        }
        let scale = self.scale.max(other.scale);
        if let (Some(own), Some(other)) = (self.small_at(scale), other.small_at(scale)) {
            return own.cmp(&other);
        }
        let split = |d: &Self| {
            let unit = 10i128.pow(u32::from(d.scale));
            (d.mantissa.div_euclid(unit), d.mantissa.rem_euclid(unit), d.scale)
        };
        let (a, b) = (split(self), split(other));
        // A fraction of `scale` digits is below 10^38, so it still fits when it is padded to 38 digits.
        let pad = |(_, fraction, scale): (i128, i128, u8)| fraction * 10i128.pow(MAX_DIGITS - u32::from(scale));
        a.0.cmp(&b.0).then_with(|| pad(a).cmp(&pad(b)))
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text().as_str())
    }
}

/// Why a text is no decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// Not a number.
    #[error("not a decimal number")]
    Malformed,
    /// More digits than can be held exactly.
    #[error("more than {MAX_DIGITS} digits")]
    Range,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn renders_as_the_protocol_says() {
        for (text, rendered) in [
            ("1.50", "1.5"),
            ("100.00", "100"),
            ("100", "100"),
            ("0.00000001", "0.00000001"),
            ("000.10", "0.1"),
            ("-0.00", "0"),
            ("-0.432", "-0.432"),
            ("6.70E4", "67000"),
            ("1e-18", "0.000000000000000001"),
            ("1e18", "1000000000000000000"),
            ("92233720368.54775807", "92233720368.54775807"),
            (".5", "0.5"),
            ("5.", "5"),
            ("0e999", "0"),
            ("9999999999999999999", "9999999999999999999"),
            ("-9999999999999999990.0", "-9999999999999999990"),
            ("-0.00000000000000000000000000000000000001", "-0.00000000000000000000000000000000000001"),
            ("99999999999999999999999999999999999999", "99999999999999999999999999999999999999"),
            ("18446744073709551616.10", "18446744073709551616.1"),
        ] {
            assert_eq!(text.parse::<Decimal>().unwrap().to_string(), rendered, "{text}");
        }
        for bad in ["", "-", ".", "abc", "1.2.3", "1e", "e5", "1e+", "0x1", "1_000", " 1", "NaN", "inf", "１"] {
            assert_eq!(bad.parse::<Decimal>(), Err(DecimalError::Malformed), "{bad}");
        }
        for large in ["1e400", "1e39", "1e99999999999", "1e-39", &"9".repeat(40)] {
            assert_eq!(large.parse::<Decimal>(), Err(DecimalError::Range), "{large}");
        }
    }

    #[test]
    fn the_widest_text_fits() {
        for scale in [0, 1, 20, 37, 38] {
            let widest = Decimal::from_parts(1 - 10i128.pow(38), scale).unwrap();
            let mut json = Vec::new();
            widest.push_quoted(&mut json);
            assert_eq!(json, serde_json::to_vec(&widest).unwrap());
            assert_eq!(widest.to_string().parse::<Decimal>(), Ok(widest));
        }
    }

    proptest! {
        #[test]
        fn comes_out_as_it_went_in(whole in "0|[1-9][0-9]{0,18}", fraction in "([0-9]{0,17}[1-9])?") {
            let text = if fraction.is_empty() { whole } else { format!("{whole}.{fraction}") };
            prop_assert_eq!(text.parse::<Decimal>().unwrap().to_string(), text);
        }

        #[test]
        fn order_is_that_of_the_numbers(a in -10i128.pow(19)..10i128.pow(19), b in -10i128.pow(19)..10i128.pow(19), sa in 0u8..19, sb in 0u8..19) {
            let (da, db) = (Decimal::from_parts(a, sa).unwrap(), Decimal::from_parts(b, sb).unwrap());
            let (na, nb) = (a * 10i128.pow(u32::from(18 - sa)), b * 10i128.pow(u32::from(18 - sb)));
            prop_assert_eq!(da.cmp(&db), na.cmp(&nb));
            prop_assert_eq!(da == db, na == nb);
        }

        #[test]
        fn order_is_that_of_the_numbers_of_any_size(a in -10i128.pow(37)..10i128.pow(37), b in any::<i64>(), scale in 0u8..38) {
            let (wide, narrow) = (Decimal::from_parts(a, scale).unwrap(), Decimal::from_parts(b.into(), 0).unwrap());
            let (whole, rest) = (a.div_euclid(10i128.pow(scale.into())), a.rem_euclid(10i128.pow(scale.into())));
            prop_assert_eq!(wide.cmp(&narrow), whole.cmp(&b.into()).then(rest.cmp(&0)));
            prop_assert_eq!(narrow.cmp(&wide), wide.cmp(&narrow).reverse());
        }

        #[test]
        fn sums_are_exact(a in -10i128.pow(18)..10i128.pow(18), b in -10i128.pow(18)..10i128.pow(18), sa in 0u8..9, sb in 0u8..9) {
            let sum = Decimal::from_parts(a, sa).unwrap().checked_add(Decimal::from_parts(b, sb).unwrap()).unwrap();
            let expected = a * 10i128.pow(u32::from(9 - sa)) + b * 10i128.pow(u32::from(9 - sb));
            prop_assert_eq!(sum, Decimal::from_parts(expected, 9).unwrap());
        }

        #[test]
        fn products_are_exact(a in -10i128.pow(18)..10i128.pow(18), b in -10i128.pow(18)..10i128.pow(18), sa in 0u8..19, sb in 0u8..19) {
            let product = Decimal::from_parts(a, sa).unwrap().checked_mul(Decimal::from_parts(b, sb).unwrap()).unwrap();
            prop_assert_eq!(product, Decimal::from_parts(a * b, sa + sb).unwrap());
        }

        #[test]
        fn any_text_gives_a_value_or_an_error(text in "[-+0-9.eE ]{0,60}") {
            if let Ok(value) = text.parse::<Decimal>() {
                prop_assert_eq!(value.to_string().parse::<Decimal>().unwrap(), value);
            }
        }
    }
}
