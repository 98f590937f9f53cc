//! The arithmetic of `INCRBYFLOAT`.
//!
//! Redis computes in the x87 format of 80 bits and prints 17 digits after the
//! point. With the 53-bit mantissa of `f64`, 10.5 + 0.1 would come out as
//! 10.59999999999999964; so the 64-bit mantissa is computed here, rounded to
//! nearest, ties to even, as the processor does.

use super::bignum::Bignum;

/// The exponent of the lowest bit of the smallest number.
const EXPONENT_MIN: i64 = -16_445;
/// The exponent of the lowest bit of the largest number.
const EXPONENT_MAX: i64 = 16_383 - 63;
/// Longer texts are refused before they are read.
const TEXT_LENGTH_MAX: usize = 5 * 1024;
/// Digits printed after the point.
const FRACTION_DIGITS: u32 = 17;
/// With so many digits before the point and none of them 0 in front, every
/// number is too large; with less than so many, 0.
const WHOLE_DIGITS: std::ops::RangeInclusive<i64> = -4951..=4933;

/// A number with a 64-bit mantissa.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LongDouble {
    is_negative: bool,
    magnitude: Magnitude,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Magnitude {
    /// `mantissa × 2^exponent`; 0 has the mantissa 0.
    Finite {
        mantissa: u64,
        exponent: i64,
    },
    Infinite,
}

impl LongDouble {
    /// Zero.
    pub const ZERO: Self =
        Self { is_negative: false, magnitude: Magnitude::Finite { mantissa: 0, exponent: 0 } };

    /// Reads a number as C's `strtold` does, to the last byte: decimal or
    /// hexadecimal, with an exponent, or `inf`. `None` for anything else, for
    /// what is too large, and for what is too small to differ from 0.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() >= TEXT_LENGTH_MAX {
            return None;
        }
        let (is_negative, digits) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        if digits.eq_ignore_ascii_case(b"inf") || digits.eq_ignore_ascii_case(b"infinity") {
            return Some(Self { is_negative, magnitude: Magnitude::Infinite });
        }
        let magnitude = match digits {
            [b'0', b'x' | b'X', rest @ ..] => parse_hexadecimal(rest)?,
            rest => parse_decimal(rest)?,
        };
        match magnitude {
            Magnitude::Infinite => None,
            finite => Some(Self { is_negative, magnitude: finite }),
        }
    }

    /// The sum, unless it is infinite or not a number.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let (
            Magnitude::Finite { mantissa: left, exponent: left_exponent },
            Magnitude::Finite { mantissa: right, exponent: right_exponent },
        ) = (self.magnitude, other.magnitude)
        else {
            return None;
        };
        if left == 0 || right == 0 {
            return Some(if left != 0 {
                self
            } else if right != 0 {
                other
            } else {
                Self { is_negative: self.is_negative && other.is_negative, ..Self::ZERO }
            });
        }
        // Normalised, the larger exponent is that of the larger number.
        let left_shift = i64::from(left.leading_zeros());
        let right_shift = i64::from(right.leading_zeros());
        let left = (left << left_shift, left_exponent - left_shift, self.is_negative);
        let right = (right << right_shift, right_exponent - right_shift, other.is_negative);
        let (large, small) =
            if (left.1, left.0) >= (right.1, right.0) { (left, right) } else { (right, left) };
        // One bit for the carry, 64 of the mantissa, 63 below it.
        let wide = u128::from(large.0) << 63;
        let narrow = shift_right_sticky(u128::from(small.0) << 63, large.1 - small.1);
        let sum = if large.2 == small.2 { wide + narrow } else { wide - narrow };
        if sum == 0 {
            return Some(Self::ZERO);
        }
        match round(sum, large.1 - 63, false) {
            Magnitude::Infinite => None,
            finite => Some(Self { is_negative: large.2, magnitude: finite }),
        }
    }

    /// The number with up to 17 digits after the point, without the zeros at
    /// the end.
    #[must_use]
    pub fn to_text(self) -> String {
        let Magnitude::Finite { mantissa, exponent } = self.magnitude else {
            return if self.is_negative { "-inf" } else { "inf" }.to_owned();
        };
        let magnitude = if exponent >= 0 {
            let mut whole = Bignum::from(mantissa);
            whole.shift_left(exponent as usize);
            whole.to_decimal()
        } else {
            fraction_text(mantissa, exponent)
        };
        if self.is_negative && magnitude != "0" { format!("-{magnitude}") } else { magnitude }
    }
}

/// `mantissa × 2^exponent` for a negative exponent.
fn fraction_text(mantissa: u64, exponent: i64) -> String {
    let scale = 10_u128.pow(FRACTION_DIGITS);
    // At most 64 + 57 bits.
    let scaled = u128::from(mantissa) * scale;
    let shift = exponent.unsigned_abs();
    // Above 122 the number is less than half of the last digit.
    let rounded = if shift > 122 {
        0
    } else {
        let floor = scaled >> shift;
        let rest = scaled & ((1 << shift) - 1);
        let half = 1_u128 << (shift - 1);
        floor + u128::from(rest > half || rest == half && floor & 1 == 1)
    };
    let text = format!("{}.{:017}", rounded / scale, rounded % scale);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn parse_decimal(text: &[u8]) -> Option<Magnitude> {
    let (digits, fraction_length, rest) = split_digits(text, |byte| byte.is_ascii_digit());
    let exponent = match rest {
        [] => 0,
        [b'e' | b'E', exponent @ ..] => parse_exponent(exponent)?,
        _ => return None,
    };
    if digits.is_empty() {
        return None;
    }
    let first = digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len());
    let digits = &digits[first..];
    let exponent = exponent.saturating_sub(fraction_length as i64);
    if digits.is_empty() {
        return Some(Magnitude::Finite { mantissa: 0, exponent: 0 });
    }
    if !WHOLE_DIGITS.contains(&exponent.saturating_add(digits.len() as i64)) {
        return None;
    }
    let mut number = Bignum::from(0);
    digits.iter().for_each(|digit| number.multiply_add(10, u32::from(digit - b'0')));
    if exponent >= 0 {
        (0..exponent).for_each(|_| number.multiply_add(10, 0));
        return Some(round_bignum(&number, 0, false));
    }
    // Enough bits that the quotient keeps more than 64 of them: ten to the
    // `n`-th has at most `n × 10 / 3 + 1`.
    let places = exponent.unsigned_abs() as usize;
    let shift = (places * 10 / 3 + 67).saturating_sub(number.bits());
    number.shift_left(shift);
    let mut is_inexact = false;
    for place in (0..places).step_by(9) {
        let divisor = 10_u32.pow((places - place).min(9) as u32);
        is_inexact |= number.divide(divisor) != 0;
    }
    non_zero(round_bignum(&number, -(shift as i64), is_inexact))
}

fn parse_hexadecimal(text: &[u8]) -> Option<Magnitude> {
    let (digits, fraction_length, rest) = split_digits(text, |byte| byte.is_ascii_hexdigit());
    let exponent = match rest {
        [] => 0,
        [b'p' | b'P', exponent @ ..] => parse_exponent(exponent)?,
        _ => return None,
    };
    if digits.is_empty() {
        return None;
    }
    let mut number = Bignum::from(0);
    for digit in &digits {
        number.multiply_add(16, (*digit as char).to_digit(16)?);
    }
    if number.bits() == 0 {
        return Some(Magnitude::Finite { mantissa: 0, exponent: 0 });
    }
    let exponent = exponent.saturating_sub(4 * fraction_length as i64);
    non_zero(round_bignum(&number, exponent, false))
}

/// `None` for a number other than 0 that came out as 0.
fn non_zero(magnitude: Magnitude) -> Option<Magnitude> {
    Some(magnitude).filter(|it| !matches!(it, Magnitude::Finite { mantissa: 0, .. }))
}

/// The digits before and behind a point, how many stand behind it, and what
/// follows them.
fn split_digits(text: &[u8], is_digit: impl Fn(&u8) -> bool) -> (Vec<u8>, usize, &[u8]) {
    let length = |text: &[u8]| text.iter().take_while(|byte| is_digit(byte)).count();
    let (whole, rest) = text.split_at(length(text));
    let mut digits = whole.to_vec();
    let [b'.', behind @ ..] = rest else { return (digits, 0, rest) };
    let (fraction, rest) = behind.split_at(length(behind));
    digits.extend_from_slice(fraction);
    (digits, fraction.len(), rest)
}

/// The digits of an exponent, with a sign before them.
fn parse_exponent(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let size = digits
        .iter()
        .fold(0_i64, |sum, digit| sum.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    Some(if is_negative { -size } else { size })
}

/// `number × 2^exponent`, or a little more if it is inexact, as the nearest
/// number with a 64-bit mantissa.
fn round_bignum(number: &Bignum, exponent: i64, is_inexact: bool) -> Magnitude {
    let dropped = number.bits().saturating_sub(128);
    let (top, lost) = number.shifted_right(dropped);
    round(top, exponent.saturating_add(dropped as i64), is_inexact || lost)
}

/// The same for a number of 128 bits that is not 0.
fn round(number: u128, exponent: i64, is_inexact: bool) -> Magnitude {
    let bits = 128 - i64::from(number.leading_zeros());
    // What does not fit the mantissa, or lies below the smallest number's bit.
    let excess = (bits - 64).max(EXPONENT_MIN.saturating_sub(exponent)).max(0);
    if excess > 128 {
        return Magnitude::Finite { mantissa: 0, exponent: 0 };
    }
    let excess_bits = excess as u32;
    let floor = number.checked_shr(excess_bits).unwrap_or(0);
    let rest = number ^ floor.checked_shl(excess_bits).unwrap_or(0);
    let half = if excess == 0 { 0 } else { 1_u128 << (excess - 1) };
    let is_above_half = rest > half || rest == half && is_inexact;
    let is_tie = rest == half && !is_inexact && excess > 0;
    let up = excess > 0 && (is_above_half || is_tie && floor & 1 == 1);
    let mut mantissa = floor + u128::from(up);
    let mut exponent = exponent.saturating_add(excess);
    if mantissa >> 64 != 0 {
        mantissa >>= 1;
        exponent += 1;
    }
    let top_bit = exponent + 127 - i64::from(mantissa.leading_zeros());
    if top_bit > EXPONENT_MAX + 63 {
        return Magnitude::Infinite;
    }
    // A whole number keeps an exponent at which it is one.
    Magnitude::Finite { mantissa: mantissa as u64, exponent }
}

/// Shifts right and keeps in the lowest bit whether anything was lost.
fn shift_right_sticky(number: u128, shift: i64) -> u128 {
    match u32::try_from(shift) {
        Ok(0) => number,
        Ok(shift @ 1..128) => {
            let lost = number & ((1 << shift) - 1) != 0;
            number >> shift | u128::from(lost)
        }
        _ => u128::from(number != 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(left: &str, right: &str) -> Option<String> {
        let left = LongDouble::parse(left.as_bytes()).expect("the test gives a number");
        let right = LongDouble::parse(right.as_bytes()).expect("the test gives a number");
        Some(left.checked_add(right)?.to_text())
    }

    #[test]
    fn sums_come_out_as_on_eighty_bits() {
        // Taken from redis-server 7.0 on x86-64.
        let sums = [
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "200", "5200"),
            ("0", "-1.1", "-1.1"),
            ("3", "1.000000000000000005", "4.00000000000000001"),
            ("1", "0.00000000000000001", "1.00000000000000001"),
            ("0x1p-1", "0x.8", "1"),
            ("1.1", "-1.1", "0"),
            ("-0.0", "-0.0", "0"),
            ("1e-30", "0", "0"),
            ("17179869184", "1.5", "17179869185.5"),
            ("1e40", "0", "9999999999999999999783686092270256259072"),
        ];
        for (left, right, expected) in sums {
            assert_eq!(sum(left, right).as_deref(), Some(expected), "{left} + {right}");
        }
    }

    #[test]
    fn the_limits_of_the_format_are_kept() {
        assert!(sum("5e4931", "6e4931").is_some_and(|text| text.len() == 4933));
        assert_eq!(sum("1e4932", "1e4932"), None);
        assert_eq!(sum("inf", "1"), None);
        assert_eq!(sum("1e4932", "-1e4932").as_deref(), Some("0"));
        assert_eq!(sum("3.6451995318824746025e-4951", "0").as_deref(), Some("0"));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let texts = [
            "",
            " 1",
            "1 ",
            "1e",
            "e1",
            ".",
            "-",
            "0x",
            "0xg",
            "0x1p",
            "nan",
            "1e5000",
            "1e-5000",
            "1e99999999999999999999",
            "1_0",
            "--1",
            "infin",
        ];
        for text in texts {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(LongDouble::parse(&[b'1'; 6000]), None);
    }
}
