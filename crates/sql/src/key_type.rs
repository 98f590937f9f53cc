use std::str::FromStr;

use larder_core::{Error, ErrorKind, Result};

use crate::calendar;

/// What a part of a key is. Each value has exactly one spelling in a key: any
/// other is the key of no row, so that one row never has two cache entries.
///
/// | type | spelling |
/// |---|---|
/// | `integer` | `42`, `-7`: no `+`, no leading zero |
/// | `decimal` | `19.90`: with the digits that the column stores |
/// | `text` | as it is stored, in the same case |
/// | `boolean` | `true`, `false` |
/// | `uuid` | lower case with hyphens |
/// | `bytes` | lower-case hexadecimal |
/// | `date` | `2013-01-31`, years 0001 to 9999 |
/// | `time` | `06:00:00`, `06:00:00.25` |
/// | `timestamp` | `2013-01-31T06:00:00` |
/// | `timestamp-utc` | `2013-01-31T06:00:00Z` |
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum KeyType {
    /// A whole number of at most 64 bits, signed or unsigned.
    Integer,
    /// A number with exact digits.
    Decimal,
    /// Text.
    Text,
    /// True or false.
    Boolean,
    /// A UUID.
    Uuid,
    /// Bytes.
    Bytes,
    /// A day.
    Date,
    /// A time of day; in MySQL also a span of up to 838 hours.
    Time,
    /// A date and time without zone.
    Timestamp,
    /// A moment, in UTC.
    TimestampUtc,
}

impl KeyType {
    const NAMES: [(&str, Self); 10] = [
        ("integer", Self::Integer),
        ("decimal", Self::Decimal),
        ("text", Self::Text),
        ("boolean", Self::Boolean),
        ("uuid", Self::Uuid),
        ("bytes", Self::Bytes),
        ("date", Self::Date),
        ("time", Self::Time),
        ("timestamp", Self::Timestamp),
        ("timestamp-utc", Self::TimestampUtc),
    ];
}

impl FromStr for KeyType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::NAMES
            .iter()
            .find_map(|(name, key_type)| (*name == text).then_some(*key_type))
            .ok_or_else(|| {
                Error::new(ErrorKind::Config, "this is not the type of a key")
                    .with("type", text)
                    .remedy(
                        "choose integer, decimal, text, boolean, uuid, bytes, date, time, \
                         timestamp or timestamp-utc",
                    )
            })
    }
}

/// The values that a part of a key can have: a type and its limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct KeyColumn {
    pub(crate) key_type: KeyType,
    /// Limits of [`KeyType::Integer`].
    pub(crate) minimum: i64,
    pub(crate) maximum: u64,
    /// Limit of [`KeyType::Text`].
    pub(crate) repertoire: Repertoire,
    /// Stored values are padded with spaces, which do not count.
    pub(crate) is_padded: bool,
    /// Limit of [`KeyType::Decimal`] in MySQL: the digits behind the point of
    /// the type with which the column is compared, which has 65 in all.
    pub(crate) scale: Option<u8>,
}

/// Which characters the database can store in a column. A key with another one
/// is the key of no row, and asking for it could fail the whole batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Repertoire {
    Unicode,
    /// Unicode without U+0000 (Postgres).
    UnicodeNoNul,
    /// Up to U+FFFF (`utf8mb3`, `ucs2`).
    BasicPlane,
    /// ISO 8859-1.
    Latin1,
    /// `latin1` of MySQL, which is Windows-1252.
    Windows1252,
    Ascii,
}

impl Repertoire {
    pub(crate) fn holds(self, text: &str) -> bool {
        match self {
            Self::Unicode => true,
            Self::UnicodeNoNul => !text.contains('\0'),
            Self::BasicPlane => text.chars().all(|c| c <= '\u{FFFF}'),
            Self::Latin1 => text.chars().all(|c| c != '\0' && c <= '\u{FF}'),
            Self::Windows1252 => text.chars().all(is_windows_1252),
            Self::Ascii => text.bytes().all(|byte| byte != 0 && byte.is_ascii()),
        }
    }
}

/// Most of U+0080 to U+009F is not in it: others take its places.
fn is_windows_1252(c: char) -> bool {
    match c {
        '\0'..='\u{7F}' | '\u{A0}'..='\u{FF}' => true,
        '\u{81}' | '\u{8D}' | '\u{8F}' | '\u{90}' | '\u{9D}' => true,
        _ => "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ".contains(c),
    }
}

/// A part of a key, of its type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum KeyValue {
    Signed(i64),
    /// Above the largest signed integer.
    Unsigned(u64),
    Boolean(bool),
    Text(String),
    Bytes(Vec<u8>),
}

/// Digits of a decimal of MySQL.
pub(crate) const MYSQL_DIGITS_MAX: usize = 65;
/// Longer keys are no row's: the limit keeps what an asker can send to the
/// database small.
const KEY_PART_MAX: usize = 8 * 1024;

impl KeyColumn {
    pub(crate) const fn new(key_type: KeyType) -> Self {
        Self {
            key_type,
            minimum: i64::MIN,
            maximum: u64::MAX,
            repertoire: Repertoire::Unicode,
            is_padded: false,
            scale: None,
        }
    }

    pub(crate) const fn integer(minimum: i64, maximum: u64) -> Self {
        let mut column = Self::new(KeyType::Integer);
        column.minimum = minimum;
        column.maximum = maximum;
        column
    }

    pub(crate) const fn decimal(scale: u8) -> Self {
        let mut column = Self::new(KeyType::Decimal);
        column.scale = Some(scale);
        column
    }

    pub(crate) const fn text(repertoire: Repertoire) -> Self {
        let mut column = Self::new(KeyType::Text);
        column.repertoire = repertoire;
        column
    }

    /// The value that the text spells, if it is a value of this column in its
    /// one spelling.
    pub(crate) fn parse(&self, text: &str) -> Option<KeyValue> {
        if text.len() > KEY_PART_MAX {
            return None;
        }
        let is_valid = match self.key_type {
            KeyType::Integer => return self.parse_integer(text),
            KeyType::Boolean => return text.parse().ok().map(KeyValue::Boolean),
            KeyType::Bytes => return parse_hexadecimal(text).map(KeyValue::Bytes),
            KeyType::Text => {
                self.repertoire.holds(text) && !(self.is_padded && text.ends_with(' '))
            }
            KeyType::Decimal => {
                is_decimal(text) && self.scale.is_none_or(|scale| fits(text, scale.into()))
            }
            KeyType::Uuid => is_uuid(text),
            KeyType::Date => calendar::is_date(text),
            KeyType::Time => {
                let (hour_digits, hours_max) = if self.is_span() { (3, 838) } else { (2, 23) };
                let clock = if self.is_span() { text.strip_prefix('-') } else { None };
                calendar::is_clock(clock.unwrap_or(text), hour_digits, hours_max)
            }
            KeyType::Timestamp => calendar::is_timestamp(text),
            KeyType::TimestampUtc => text.strip_suffix('Z').is_some_and(calendar::is_timestamp),
        };
        is_valid.then(|| KeyValue::Text(text.to_owned()))
    }

    /// A time that can be negative and longer than a day (MySQL).
    pub(crate) const fn span() -> Self {
        let mut column = Self::new(KeyType::Time);
        column.maximum = 838;
        column
    }

    const fn is_span(&self) -> bool {
        self.maximum == 838
    }

    fn parse_integer(&self, text: &str) -> Option<KeyValue> {
        if !is_whole(text) {
            return None;
        }
        if let Ok(number) = text.parse::<i64>() {
            let fits = number >= self.minimum
                && u64::try_from(number).map_or(true, |number| number <= self.maximum);
            return fits.then_some(KeyValue::Signed(number));
        }
        let number = text.parse::<u64>().ok()?;
        (number <= self.maximum).then_some(KeyValue::Unsigned(number))
    }
}

/// Whether the text is a whole number without `+`, leading zero or `-0`.
fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    match digits.as_bytes() {
        [] => false,
        [b'0'] => digits.len() == text.len(),
        [b'0', ..] => false,
        bytes => bytes.iter().all(u8::is_ascii_digit),
    }
}

/// Whether the text is a whole number, or one with a fraction behind it.
fn is_decimal(text: &str) -> bool {
    /// More digits than MySQL has and as many as Postgres lets one declare.
    const DIGITS_MAX: usize = 1_000;
    let Some((whole, fraction)) = text.split_once('.') else {
        return text.len() <= DIGITS_MAX && is_whole(text);
    };
    let is_negative_zero = whole == "-0" && fraction.bytes().all(|digit| digit == b'0');
    text.len() <= DIGITS_MAX
        && (whole == "-0" || is_whole(whole))
        && !is_negative_zero
        && !fraction.is_empty()
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a decimal of MySQL with so many digits behind the point can hold the
/// number as it is.
fn fits(decimal: &str, scale: usize) -> bool {
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    let whole = whole.trim_start_matches(['-', '0']);
    whole.len() + scale <= MYSQL_DIGITS_MAX && fraction.len() <= scale
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        })
}

fn parse_hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(column: KeyColumn, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(column.parse(text).is_some(), "{text} is a {:?}", column.key_type);
        }
        for text in bad {
            assert_eq!(column.parse(text), None, "{text} is no {:?}", column.key_type);
        }
    }

    #[test]
    fn each_value_has_one_spelling() {
        check(
            KeyColumn::integer(-128, 127),
            &["0", "42", "-128", "127"],
            &["042", "+42", " 42", "-0", "128", "-129", "", "-", "4_2", "٤٢", "1e1", "42.0"],
        );
        check(
            KeyColumn::integer(0, u64::MAX),
            &["18446744073709551615"],
            &["18446744073709551616", "-1"],
        );
        check(
            KeyColumn::new(KeyType::Decimal),
            &["0", "19.90", "-0.5", "0.00"],
            &["-0", "-0.0", ".5", "5.", "05", "1e3", "NaN", "1,5"],
        );
        check(
            KeyColumn::decimal(60),
            &["-12345.5", "-0.5", &format!("99999.{}", "9".repeat(60))],
            &["123456", &format!("0.{}", "0".repeat(61))],
        );
        check(KeyColumn::decimal(0), &[&"9".repeat(65)], &[&"9".repeat(66), "1.0"]);
        check(
            KeyColumn::new(KeyType::Uuid),
            &["6f6b1c3e-0000-4000-8000-00000000abcd"],
            &["6F6B1C3E-0000-4000-8000-00000000ABCD", "6f6b1c3e000040008000000000000000abcd"],
        );
        check(KeyColumn::new(KeyType::Bytes), &["", "00ff"], &["0", "0F", "\\x00", "zz"]);
        check(KeyColumn::new(KeyType::Boolean), &["true", "false"], &["t", "True", "1"]);
        check(
            KeyColumn::new(KeyType::TimestampUtc),
            &["2013-01-01T06:00:00Z"],
            &["2013-01-01T06:00:00"],
        );
        check(KeyColumn::span(), &["-838:59:59", "06:00:00.5"], &["839:00:00", "6:00:00"]);
        check(KeyColumn::new(KeyType::Time), &["06:00:00.5"], &["-06:00:00", "25:00:00"]);
    }

    #[test]
    fn characters_that_a_column_cannot_hold_are_no_key() {
        check(KeyColumn::text(Repertoire::UnicodeNoNul), &["€🙂"], &["a\0"]);
        check(KeyColumn::text(Repertoire::BasicPlane), &["€"], &["🙂"]);
        check(
            KeyColumn::text(Repertoire::Windows1252),
            &["€ü", "\u{81}", "\u{9D}", "\0"],
            &["ł", "\u{80}", "\u{9F}"],
        );
        check(KeyColumn::text(Repertoire::Latin1), &["ü"], &["€"]);
        check(KeyColumn::text(Repertoire::Ascii), &["u"], &["ü"]);
    }

    proptest! {
        #[test]
        fn integers_come_back(number: i64) {
            let column = KeyColumn::new(KeyType::Integer);
            prop_assert_eq!(column.parse(&number.to_string()), Some(KeyValue::Signed(number)));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            for (_, key_type) in KeyType::NAMES {
                let _ = KeyColumn::new(key_type).parse(&text);
            }
        }
    }
}
