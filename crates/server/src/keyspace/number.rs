//! Numbers as Redis reads and writes them.

/// A whole number written exactly as it would be printed: no plus sign, no
/// leading zeros, no spaces. The only spelling that commands take for one, and
/// that makes a value a number.
#[must_use]
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    /// Digits and sign of the smallest number.
    const LENGTH_MAX: usize = 20;
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !is_negative => return Some(0),
        [b'1'..=b'9', ..] if text.len() <= LENGTH_MAX => {}
        _ => return None,
    }
    // Summed below zero, where one number more fits.
    let sum = digits.iter().try_fold(0_i64, |sum, digit| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_sub(i64::from(digit - b'0')),
        _ => None,
    })?;
    if is_negative { Some(sum) } else { sum.checked_neg() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_printed_is_read_and_nothing_else(number: i64, text in "[-+ 0-9]{0,21}") {
            prop_assert_eq!(parse_integer(number.to_string().as_bytes()), Some(number));
            if let Some(read) = parse_integer(text.as_bytes()) {
                prop_assert_eq!(read.to_string(), text);
            }
        }
    }

    #[test]
    fn the_limits_are_read_and_what_lies_beyond_is_not() {
        for number in [i64::MIN, i64::MAX, 0, -1] {
            assert_eq!(parse_integer(number.to_string().as_bytes()), Some(number));
        }
        for text in ["9223372036854775808", "-9223372036854775809", "-0", "00", "", "-", "+1"] {
            assert_eq!(parse_integer(text.as_bytes()), None, "{text}");
        }
    }
}
