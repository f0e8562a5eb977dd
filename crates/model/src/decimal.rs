//! Exact decimals: what a venue wrote, without trailing zeros and without floating point.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// So many digits every value may have, before and behind the point together, and never more behind it.
const MAX_DIGITS: u32 = 36;

/// How many bits of a value say where its point is.
const SCALE_BITS: u32 = 6;

/// The largest mantissa: above 2.6 * 10^36, so that all values up to 10^18 may have 18 digits behind the point.
const MAX_MANTISSA: u128 = (1 << (127 - SCALE_BITS)) - 1;

/// Digits behind the point that a rank has: as many as the prices of venues.
const RANK_DIGITS: u8 = 8;

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

/// An exact decimal number of 36 digits, or 37 when the first is a 1, in 16 bytes.
///
/// Kept without trailing zeros, so equal values are equal in every bit; zero has no sign.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Decimal(i128);

impl Decimal {
    /// Nothing at all.
    pub const ZERO: Self = Self(0);

    /// `mantissa` / 10^`scale`, for venues that send integers with a number of decimals.
    ///
    /// # Errors
    ///
    /// [`DecimalError::Range`] when it has more digits than can be held.
    pub fn from_parts(mantissa: i128, scale: u8) -> Result<Self, DecimalError> {
        if u32::from(scale) > MAX_DIGITS || mantissa.unsigned_abs() > MAX_MANTISSA {
            return Err(DecimalError::Range);
        }
        Ok(Self::trimmed(mantissa, scale))
    }

    /// Of a mantissa that ends with no zero behind the point.
    fn new(mantissa: i128, scale: u8) -> Self {
        Self((mantissa << SCALE_BITS) | i128::from(scale))
    }

    fn mantissa(self) -> i128 {
        self.0 >> SCALE_BITS
    }

    /// Digits behind the point.
    fn scale(self) -> u8 {
        (self.0 as u8) & ((1 << SCALE_BITS) - 1)
    }

    /// Whether it is zero.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Whether it is below zero.
    pub fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// The sum.
    ///
    /// # Errors
    ///
    /// [`DecimalError::Range`] when it has more digits than can be held.
    pub fn checked_add(self, other: Self) -> Result<Self, DecimalError> {
        let scale = self.scale().max(other.scale());
        let wide_at = |d: Self| {
            10i128
                .checked_pow(u32::from(scale - d.scale()))
                .and_then(|f| d.mantissa().checked_mul(f))
                .ok_or(DecimalError::Range)
        };
        let at = |d: Self| d.small_at(scale).map_or_else(|| wide_at(d), Ok);
        let sum = at(self)?.checked_add(at(other)?).ok_or(DecimalError::Range)?;
        Self::from_parts(sum, scale)
    }

    /// The product.
    ///
    /// # Errors
    ///
    /// [`DecimalError::Range`] when it has more digits than can be held.
    pub fn checked_mul(self, other: Self) -> Result<Self, DecimalError> {
        let mantissa = self.mantissa().checked_mul(other.mantissa()).ok_or(DecimalError::Range)?;
        Self::from_parts(mantissa, self.scale() + other.scale())
    }

    fn trimmed(mut mantissa: i128, mut scale: u8) -> Self {
        if mantissa == 0 {
            return Self::ZERO;
        }
        // Nearly all values fit into 64 bits, where a division takes a tenth of the time.
        while scale > 0 && i64::try_from(mantissa).is_err() && mantissa % 10 == 0 {
            mantissa /= 10;
            scale -= 1;
        }
        if let Ok(mut small) = i64::try_from(mantissa) {
            while scale > 0 && small % 10 == 0 {
                small /= 10;
                scale -= 1;
            }
            mantissa = small.into();
        }
        Self::new(mantissa, scale)
    }

    /// Reads the number that a text begins with, when it is short and plain, as nearly all are: digits, and behind a
    /// point at most eight more. The number, and how many bytes it took, behind which may be digits that were too many; `None` for
    /// what else it may be.
    pub fn scan(text: &[u8]) -> Option<(Self, usize)> {
        let (mut whole, mut used) = match digits(text) {
            (_, 0) => return None,
            (digits, count) => (value(digits), count),
        };
        if used == CHUNK {
            let (digits, count) = digits(&text[used..]);
            (whole, used) = (whole * POWERS[count] + value(digits), used + count);
        }
        if text.get(used) != Some(&b'.') {
            return Some((Self::new(whole.into(), 0), used));
        }
        let (digits, count) = digits(&text[used + 1..]);
        if count == 0 {
            return None;
        }
        used += 1 + count;
        if digits == 0 {
            return Some((Self::new(whole.into(), 0), used));
        }
        let zeros = digits.leading_zeros() as usize / 8;
        let scale = count - zeros;
        let mantissa = whole.checked_mul(POWERS[scale])?.checked_add(value(digits << (8 * zeros)))?;
        Some((Self::new(mantissa.into(), scale as u8), used))
    }

    /// Compares by the whole part, then by what is behind the point.
    #[cold]
    fn cmp_wide(self, other: Self) -> Ordering {
        let split = |d: Self| {
            let unit = 10i128.pow(u32::from(d.scale()));
            (d.mantissa().div_euclid(unit), d.mantissa().rem_euclid(unit), d.scale())
        };
        let (a, b) = (split(self), split(other));
        // A fraction of `scale` digits still fits when it is padded to all digits.
        let pad = |(_, fraction, scale): (i128, i128, u8)| fraction * 10i128.pow(MAX_DIGITS - u32::from(scale));
        a.0.cmp(&b.0).then_with(|| pad(a).cmp(&pad(b)))
    }

    /// This number in units of 10^-8, rounded down, as far as 64 bits hold it: a larger number never has a smaller rank. Ranks
    /// are compared much faster than numbers, which differ in their scales.
    #[inline]
    pub fn rank(self) -> i64 {
        let rank = match self.scale().checked_sub(RANK_DIGITS) {
            None | Some(0) => self.small_at(RANK_DIGITS),
            Some(digits) => Some(self.mantissa().div_euclid(10i128.pow(digits.into()))),
        };
        let beyond = if self.is_negative() { i64::MIN } else { i64::MAX };
        rank.and_then(|rank| i64::try_from(rank).ok()).unwrap_or(beyond)
    }

    /// The mantissa at another scale, which is not below its own; `None` beyond what 64 bits hold.
    #[inline]
    fn small_at(self, scale: u8) -> Option<i128> {
        let small = i64::try_from(self.mantissa()).ok()?;
        let factor = POWERS.get(usize::from(scale - self.scale()))?;
        Some(i128::from(small) * i128::from(*factor))
    }
}

/// How many digits are read, and written, at once.
const CHUNK: usize = 8;

/// So many digits are the usual ones.
const USUAL_DIGITS: usize = 2 * CHUNK;

/// The digits that a text begins with, eight at most, and how many they are: one in each byte, the last one in the highest.
fn digits(text: &[u8]) -> (u64, usize) {
    let bytes = text.first_chunk::<CHUNK>().copied().unwrap_or_else(|| {
        let mut bytes = [0; CHUNK];
        bytes[..text.len()].copy_from_slice(text);
        bytes
    });
    let word = u64::from_le_bytes(bytes) ^ 0x3030_3030_3030_3030;
    // The highest bit of each byte that is above nine; right up to the first one.
    let others = (word.wrapping_add(0x7676_7676_7676_7676) | word) & 0x8080_8080_8080_8080;
    let count = others.trailing_zeros() / 8;
    (word.checked_shl(64 - 8 * count).unwrap_or(0), count as usize)
}

/// What eight digits in bytes amount to. Source: Daniel Lemire, "Quickly parsing eight digits", 2018: pairs, fours and all eight
/// are put together by three multiplications.
fn value(digits: u64) -> u64 {
    const PAIRS: u64 = 0x0000_00FF_0000_00FF;
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let high = (pairs & PAIRS).wrapping_mul(100 + (1_000_000 << 32));
    let low = ((pairs >> 16) & PAIRS).wrapping_mul(1 + (10_000 << 32));
    high.wrapping_add(low) >> 32
}

/// The eight digits of a number below 10^8, one in each byte, the first one in the lowest. Source: Paul Khuong, "How to print
/// integers really fast", 2017: halves, pairs and digits are taken apart by one multiplication each.
fn eight_digits(number: u64) -> u64 {
    let halves = (number / 10_000) | ((number % 10_000) << 32);
    let high_pairs = ((halves * 10_486) >> 20) & 0x0000_007F_0000_007F;
    let pairs = high_pairs + ((halves - 100 * high_pairs) << 16);
    let tens = ((pairs * 103) >> 10) & 0x000F_000F_000F_000F;
    tens + ((pairs - 10 * tens) << 8)
}

/// Writes numbers, and what stands around them, one behind the other.
pub(crate) struct Pen<'a> {
    room: &'a mut [u8],
    length: usize,
}

impl Pen<'_> {
    /// What writing a number may take: a sign, all digits and a point.
    pub(crate) const NUMBER_BYTES: usize = MAX_DIGITS as usize + 3;

    /// Adds to `out` what `write` writes, which takes `most` bytes at most.
    pub(crate) fn add(out: &mut Vec<u8>, most: usize, write: impl FnOnce(&mut Pen<'_>)) {
        let from = out.len();
        out.resize(from + most, 0);
        let mut pen = Pen { room: &mut out[from..], length: 0 };
        write(&mut pen);
        let end = from + pen.length;
        out.truncate(end);
    }

    pub(crate) fn bytes<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.room[self.length..self.length + N].copy_from_slice(bytes);
        self.length += N;
    }

    pub(crate) fn number(&mut self, value: Decimal) {
        let (magnitude, scale) = (value.mantissa().unsigned_abs(), usize::from(value.scale()));
        if value.is_negative() {
            self.bytes(b"-");
        }
        match u64::try_from(magnitude) {
            Ok(usual) if usual < POWERS[USUAL_DIGITS] && scale < USUAL_DIGITS => self.usual(usual, scale),
            Ok(_) | Err(_) => self.any(magnitude, scale),
        }
    }

    /// Always puts down all the digits that there may be, which takes less time than as many as there are.
    fn usual(&mut self, magnitude: u64, scale: usize) {
        let (high, low) = (magnitude / POWERS[CHUNK], magnitude % POWERS[CHUNK]);
        let high = if high == 0 { 0 } else { eight_digits(high) };
        // The first digit in the lowest byte.
        let digits = u128::from(high) | (u128::from(eight_digits(low)) << 64);
        let zeros = (digits.trailing_zeros() as usize / 8).min(USUAL_DIGITS - 1 - scale);
        let text = digits | u128::from_ne_bytes([b'0'; USUAL_DIGITS]);
        self.put(text >> (8 * zeros));
        self.length += USUAL_DIGITS - scale - zeros;
        if scale > 0 {
            self.bytes(b".");
            self.put(text >> (8 * (USUAL_DIGITS - scale)));
            self.length += scale;
        }
    }

    fn put(&mut self, text: u128) {
        self.room[self.length..self.length + USUAL_DIGITS].copy_from_slice(&text.to_le_bytes());
    }

    /// Digit by digit.
    fn any(&mut self, magnitude: u128, scale: usize) {
        let mut unit = 10u128.pow(scale as u32);
        while magnitude / unit >= 10 {
            unit *= 10;
        }
        let point = 10u128.pow(scale as u32);
        while unit > 0 {
            self.bytes(&[b'0' + (magnitude / unit % 10) as u8]);
            if unit == point && scale > 0 {
                self.bytes(b".");
            }
            unit /= 10;
        }
    }
}

/// A number as text, without memory of its own.
struct Text {
    bytes: [u8; Pen::NUMBER_BYTES],
    length: usize,
}

impl From<Decimal> for Text {
    fn from(value: Decimal) -> Self {
        let mut bytes = [0; Pen::NUMBER_BYTES];
        let mut pen = Pen { room: &mut bytes, length: 0 };
        pen.number(value);
        Self { length: pen.length, bytes }
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        // It holds digits, signs and points.
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
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
        if let Some((value, used)) = Self::scan(rest)
            && used == rest.len()
        {
            return Ok(if negative { Self::new(-value.mantissa(), value.scale()) } else { value });
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

fn parse_exponent(text: &[u8]) -> Result<i32, DecimalError> {
    let text = std::str::from_utf8(text).map_err(|_| DecimalError::Malformed)?;
    let bare = text.strip_prefix(['-', '+']).unwrap_or(text);
    if bare.is_empty() || !bare.bytes().all(|b| b.is_ascii_digit()) {
        return Err(DecimalError::Malformed);
    }
    text.parse::<i32>().ok().filter(|e| e.abs() <= 1000).ok_or(DecimalError::Range)
}

impl Ord for Decimal {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        let (own, others) = (self.scale(), other.scale());
        if own == others {
            return self.0.cmp(&other.0);
        }
        let scale = own.max(others);
        match (self.small_at(scale), other.small_at(scale)) {
            (Some(own), Some(others)) => own.cmp(&others),
            _ => self.cmp_wide(*other),
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Text::from(*self).as_ref())
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(Text::from(*self).as_ref())
    }
}

/// Why a text is no decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// Not a number.
    #[error("not a decimal number")]
    Malformed,
    /// More digits than can be held exactly.
    #[error("more digits than can be held exactly")]
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
            ("-0.000000000000000000000000000000000001", "-0.000000000000000000000000000000000001"),
            ("999999999999999999999999999999999999", "999999999999999999999999999999999999"),
            ("999999999999999999.999999999999999999", "999999999999999999.999999999999999999"),
            ("18446744073709551616.10", "18446744073709551616.1"),
        ] {
            assert_eq!(text.parse::<Decimal>().unwrap().to_string(), rendered, "{text}");
        }
        for bad in ["", "-", ".", "abc", "1.2.3", "1e", "e5", "1e+", "0x1", "1_000", " 1", "NaN", "inf", "１"] {
            assert_eq!(bad.parse::<Decimal>(), Err(DecimalError::Malformed), "{bad}");
        }
        for large in ["1e400", "3e36", "1e37", "1e99999999999", "1e-37", &"9".repeat(37)] {
            assert_eq!(large.parse::<Decimal>(), Err(DecimalError::Range), "{large}");
        }
    }

    #[test]
    fn the_widest_text_fits() {
        for scale in 0..=36 {
            let widest = Decimal::from_parts(-(MAX_MANTISSA as i128), scale).unwrap();
            let mut out = b"a".to_vec();
            Pen::add(&mut out, 2 * Pen::NUMBER_BYTES + 3, |pen| {
                pen.number(widest);
                pen.bytes(b"\",\"");
                pen.number(widest);
            });
            assert_eq!(String::from_utf8(out).unwrap(), format!("a{widest}\",\"{widest}"));
            assert_eq!(widest.to_string().parse::<Decimal>(), Ok(widest));
        }
    }

    fn ranks_rise(a: Decimal, b: Decimal) -> bool {
        let (least, most) = if a < b { (a, b) } else { (b, a) };
        least.rank() <= most.rank()
    }

    proptest! {
        #[test]
        fn comes_out_as_it_went_in(whole in "0|[1-9][0-9]{0,17}|1000000000000000000", fraction in "([0-9]{0,17}[1-9])?") {
            let text = if fraction.is_empty() { whole } else { format!("{whole}.{fraction}") };
            prop_assert_eq!(text.parse::<Decimal>().unwrap().to_string(), text);
        }

        #[test]
        fn renders_as_digits_around_a_point(mantissa in 0..=MAX_MANTISSA as i128, digits in 0u32..38, scale in 0u8..37) {
            let mantissa = mantissa % 10i128.pow(digits);
            let width = usize::from(scale) + 1;
            let padded = format!("{mantissa:0width$}");
            let (whole, fraction) = padded.split_at(padded.len() - usize::from(scale));
            let fraction = fraction.trim_end_matches('0');
            let point = if fraction.is_empty() { "" } else { "." };
            prop_assert_eq!(Decimal::from_parts(mantissa, scale).unwrap().to_string(), format!("{whole}{point}{fraction}"));
        }

        #[test]
        fn order_is_that_of_the_numbers(a in -10i128.pow(19)..10i128.pow(19), b in -10i128.pow(19)..10i128.pow(19), sa in 0u8..19, sb in 0u8..19) {
            let (da, db) = (Decimal::from_parts(a, sa).unwrap(), Decimal::from_parts(b, sb).unwrap());
            let (na, nb) = (a * 10i128.pow(u32::from(18 - sa)), b * 10i128.pow(u32::from(18 - sb)));
            prop_assert_eq!(da.cmp(&db), na.cmp(&nb));
            prop_assert!(ranks_rise(da, db));
            prop_assert_eq!(da == db, na == nb);
        }

        #[test]
        fn order_is_that_of_the_numbers_of_any_size(a in -10i128.pow(35)..10i128.pow(35), b in any::<i64>(), scale in 0u8..36) {
            let (wide, narrow) = (Decimal::from_parts(a, scale).unwrap(), Decimal::from_parts(b.into(), 0).unwrap());
            let (whole, rest) = (a.div_euclid(10i128.pow(scale.into())), a.rem_euclid(10i128.pow(scale.into())));
            prop_assert_eq!(wide.cmp(&narrow), whole.cmp(&b.into()).then(rest.cmp(&0)));
            prop_assert_eq!(narrow.cmp(&wide), wide.cmp(&narrow).reverse());
            prop_assert!(ranks_rise(wide, narrow));
        }

        #[test]
        fn sums_are_exact(a in -10i128.pow(18)..10i128.pow(18), b in -10i128.pow(18)..10i128.pow(18), sa in 0u8..9, sb in 0u8..9) {
            let sum = Decimal::from_parts(a, sa).unwrap().checked_add(Decimal::from_parts(b, sb).unwrap()).unwrap();
            let expected = a * 10i128.pow(u32::from(9 - sa)) + b * 10i128.pow(u32::from(9 - sb));
            prop_assert_eq!(sum, Decimal::from_parts(expected, 9).unwrap());
        }

        #[test]
        fn products_are_exact(a in -10i128.pow(17)..10i128.pow(17), b in -10i128.pow(17)..10i128.pow(17), sa in 0u8..19, sb in 0u8..18) {
            let product = Decimal::from_parts(a, sa).unwrap().checked_mul(Decimal::from_parts(b, sb).unwrap()).unwrap();
            prop_assert_eq!(product, Decimal::from_parts(a * b, sa + sb).unwrap());
        }

        /// What is read at once is what is read digit by digit, whatever follows.
        #[test]
        fn scanning_reads_what_parsing_does(number in "[0-9]{1,20}(\\.[0-9]{0,12})?", behind in "(\"[-0-9.,\"\\]]{0,9})?") {
            let text = format!("{number}{behind}");
            if let Some((value, used)) = Decimal::scan(text.as_bytes()) {
                let digits: String = text[..used].chars().filter(char::is_ascii_digit).collect();
                let scale = text[..used].find('.').map_or(0, |point| used - point - 1);
                let expected = Decimal::from_parts(digits.parse().unwrap(), scale as u8).unwrap();
                prop_assert_eq!(value, expected);
                let has_more = text.as_bytes().get(used).is_some_and(u8::is_ascii_digit);
                prop_assert!(used == number.len() || has_more, "{} of {}", used, text);
            }
        }

        #[test]
        fn any_text_gives_a_value_or_an_error(text in "[-+0-9.eE ]{0,60}") {
            if let Ok(value) = text.parse::<Decimal>() {
                prop_assert_eq!(value.to_string().parse::<Decimal>().unwrap(), value);
            }
        }
    }
}
