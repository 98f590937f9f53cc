//! Sizes: `"64MiB"`, `"1GB"`, `"25%"` of a whole.

use std::fmt;
use std::str::FromStr;

use schemars::{Schema, json_schema};

use super::share::{PERCENT, percent, show_share};
use super::{TextValue, UnitError, error};

/// A size such as `"64MiB"` or `"1GB"`, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ByteSize(pub u64);

/// A size, or a share of the whole such as `"25%"`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum SizeOrShare {
    /// This many bytes.
    Bytes(u64),
    /// This share of the whole, from 0 to 1.
    Share(f64),
}

impl SizeOrShare {
    /// The bytes, when the whole has this many.
    #[must_use]
    pub fn of(self, whole: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Share(share) => (whole as f64 * share) as u64,
        }
    }
}

const SIZE: &str = r"[0-9]+(\.[0-9]+)? ?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)";

impl TextValue for ByteSize {
    const NAME: &'static str = "size";
    const EXPECTED: &'static str = "a size with its unit, such as \"64MiB\" or \"1GiB\"";

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": format!("^{SIZE}$"), "x-kind": "size" })
    }
}

impl TextValue for SizeOrShare {
    const NAME: &'static str = "size or share";
    const EXPECTED: &'static str = "a size such as \"256MiB\", or a share such as \"25%\"";

    fn schema() -> Schema {
        json_schema!({
            "type": "string", "pattern": format!("^({SIZE}|{PERCENT})$"),
            "x-kind": "size, or a share",
        })
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        size(text, Self::EXPECTED).map(Self)
    }
}

impl FromStr for SizeOrShare {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if text.ends_with('%') {
            return percent(text, Self::EXPECTED).map(Self::Share);
        }
        size(text, Self::EXPECTED).map(Self::Bytes)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show_bytes(self.0))
    }
}

impl fmt::Display for SizeOrShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => f.write_str(&show_bytes(*bytes)),
            Self::Share(share) => f.write_str(&show_share(*share)),
        }
    }
}

/// The size in the largest binary unit that keeps it exact.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] =
        [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let exact = UNITS.iter().find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size));
    match exact {
        Some((unit, size)) => format!("{}{unit}", bytes / size),
        None => format!("{bytes}B"),
    }
}

fn size(text: &str, expected: &str) -> Result<u64, UnitError> {
    const UNITS: [(&str, u64); 10] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1_000),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("B", 1),
    ];
    let wrong = || error(format!("\"{text}\" is not a size; write {expected}"));
    let (unit, scale) = UNITS.iter().find(|(unit, _)| text.ends_with(unit)).ok_or_else(wrong)?;
    let number = text[..text.len() - unit.len()].trim_end();
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(wrong());
    }
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = number * *scale as f64;
    // Above 2^53 a double no longer holds every whole number.
    if bytes > 9e15 {
        return Err(error(format!("\"{text}\" is more than 8 PiB; write a smaller size")));
    }
    Ok(bytes as u64)
}
