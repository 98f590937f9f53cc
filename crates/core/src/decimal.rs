use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorKind, Result};

/// An exact decimal number, such as an amount of money to be added: up to 36
/// digits, of which up to 18 stand behind the point.
///
/// ```
/// use larder_core::Decimal;
///
/// let sum = "0.1".parse::<Decimal>()?.checked_add("0.20".parse()?);
/// assert_eq!(sum.expect("it is small").to_string(), "0.30");
/// # Ok::<_, larder_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    units: i128,
    /// How many of the digits stand behind the point.
    scale: u8,
}

impl Decimal {
    /// Nothing.
    pub const ZERO: Self = Self { units: 0, scale: 0 };
    /// Digits that a number can have.
    pub const DIGITS_MAX: usize = 36;
    /// Digits that it can have behind the point.
    pub const SCALE_MAX: u8 = 18;

    /// The sum; `None` if it has more than [`Decimal::DIGITS_MAX`] digits.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let scale = self.scale.max(other.scale);
        let units = self.units_at(scale)?.checked_add(other.units_at(scale)?)?;
        (units.unsigned_abs() < UNITS_END).then_some(Self { units, scale })
    }

    /// The number as an integer, if it is one and fits.
    #[must_use]
    pub fn as_i64(self) -> Option<i64> {
        let unit = 10_i128.pow(u32::from(self.scale));
        (self.units % unit == 0).then(|| i64::try_from(self.units / unit).ok()).flatten()
    }

    /// How many digits stand behind the point.
    #[must_use]
    pub const fn scale(self) -> u8 {
        self.scale
    }

    /// Whether it is nothing.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.units == 0
    }

    fn units_at(self, scale: u8) -> Option<i128> {
        self.units.checked_mul(10_i128.pow(u32::from(scale - self.scale)))
    }

    /// Without zeros at the end, so that equal numbers are alike.
    fn reduced(mut self) -> (i128, u8) {
        while self.scale > 0 && self.units % 10 == 0 {
            self.units /= 10;
            self.scale -= 1;
        }
        (self.units, self.scale)
    }
}

const UNITS_END: u128 = 10_u128.pow(Decimal::DIGITS_MAX as u32);

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.reduced() == other.reduced()
    }
}

impl Eq for Decimal {}

impl From<i64> for Decimal {
    fn from(number: i64) -> Self {
        Self { units: i128::from(number), scale: 0 }
    }
}

/// Digits with at most one point and a sign, no exponent.
impl FromStr for Decimal {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let is_number = !whole.is_empty()
            && whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit())
            && digits.contains('.') != fraction.is_empty();
        if !is_number {
            return Err(Error::new(ErrorKind::InvalidInput, "not a decimal number")
                .remedy("write digits with at most one point, such as -12.50"));
        }
        let significant = whole.trim_start_matches('0').len() + fraction.len();
        if significant > Self::DIGITS_MAX || fraction.len() > usize::from(Self::SCALE_MAX) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "a decimal number has too many digits",
            )
            .with("digits", significant)
            .with("limit", Self::DIGITS_MAX)
            .with("limit behind the point", Self::SCALE_MAX));
        }
        let add = |units: i128, byte: u8| units * 10 + i128::from(byte - b'0');
        let units = whole.bytes().chain(fraction.bytes()).fold(0, add);
        let units = if text.starts_with('-') { -units } else { units };
        let scale = u8::try_from(fraction.len()).unwrap_or(Self::SCALE_MAX);
        Ok(Self { units, scale })
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.units < 0 { "-" } else { "" };
        let unit = 10_u128.pow(u32::from(self.scale));
        let units = self.units.unsigned_abs();
        write!(f, "{sign}{}", units / unit)?;
        if self.scale > 0 {
            write!(f, ".{:0width$}", units % unit, width = usize::from(self.scale))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Decimal {
        text.parse().expect("it is a number")
    }

    #[test]
    fn numbers_read_back_as_they_are_written() {
        for text in ["0", "-0.05", "12.50", "999999999999999999999999999999999999", "0.000001"] {
            assert_eq!(number(text).to_string(), text);
        }
        assert_eq!(number("+7").to_string(), "7");
    }

    #[test]
    fn sums_are_exact() {
        let sum = number("0.1").checked_add(number("-0.30"));
        assert_eq!(sum, Some(number("-0.2")));
        assert_eq!(number("1.0"), Decimal::from(1));
        assert_eq!(number("42.00").as_i64(), Some(42));
        assert_eq!(number("42.01").as_i64(), None);
    }

    #[test]
    fn what_is_too_large_or_no_number_is_refused() {
        let most = number("999999999999999999999999999999999999");
        assert_eq!(most.checked_add(Decimal::from(1)), None);
        assert_eq!(most.checked_add(number("0.1")), None);
        let long = "1".repeat(37);
        for text in ["", "-", ".", "1.", ".5", "1e5", "1.2.3", " 1", "0x1", "NaN", &long] {
            assert!(text.parse::<Decimal>().is_err(), "{text}");
        }
        assert!("0.0000000000000000001".parse::<Decimal>().is_err());
        assert!("--1".parse::<Decimal>().is_err());
    }
}
