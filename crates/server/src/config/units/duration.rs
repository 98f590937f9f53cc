//! Durations: `"5m"`, `"1h30m"`, `"forever"`, `"off"`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use larder_core::Ttl;
use schemars::{Schema, json_schema};

use super::{TextValue, UnitError, error};

/// A duration such as `"250ms"`, `"5m"` or `"1h30m"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DurationText(pub Duration);

/// A duration, or `"forever"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TtlText(pub Ttl);

/// A duration, or `"off"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OptionalDuration(pub Option<Duration>);

const DURATION: &str = r"([0-9]+(ns|us|µs|ms|s|m|h|d|w))+";

impl TextValue for DurationText {
    const NAME: &'static str = "duration";
    const EXPECTED: &'static str = "a duration with its unit, such as \"250ms\", \"30s\" or \"5m\"";

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": format!("^{DURATION}$"), "x-kind": "duration" })
    }
}

impl TextValue for TtlText {
    const NAME: &'static str = "duration or forever";
    const EXPECTED: &'static str = "a duration with its unit, such as \"5m\", or \"forever\"";

    fn schema() -> Schema {
        json_schema!({
            "type": "string", "pattern": format!("^({DURATION}|forever)$"),
            "x-kind": "duration, or `forever`",
        })
    }
}

impl TextValue for OptionalDuration {
    const NAME: &'static str = "duration or off";
    const EXPECTED: &'static str = "a duration with its unit, such as \"30s\", or \"off\"";

    fn schema() -> Schema {
        json_schema!({
            "type": "string", "pattern": format!("^({DURATION}|off)$"),
            "x-kind": "duration, or `off`",
        })
    }
}

impl FromStr for DurationText {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        duration(text).map(Self)
    }
}

impl FromStr for TtlText {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text {
            "forever" => Ok(Self(Ttl::Forever)),
            _ => duration(text).map(|duration| Self(Ttl::For(duration))),
        }
    }
}

impl FromStr for OptionalDuration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text {
            "off" => Ok(Self(None)),
            _ => duration(text).map(|duration| Self(Some(duration))),
        }
    }
}

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show_duration(self.0))
    }
}

impl fmt::Display for TtlText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ttl::Forever => f.write_str("forever"),
            Ttl::For(duration) => f.write_str(&show_duration(duration)),
        }
    }
}

impl fmt::Display for OptionalDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.map_or_else(|| "off".to_owned(), show_duration))
    }
}

const DURATION_UNITS: [(&str, u64); 9] = [
    ("w", 604_800_000_000_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("ns", 1),
];

/// A hundred years: a longer duration is a slip of the finger, and "forever"
/// says it better.
const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The duration in the fewest parts, such as `1h30m`.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let mut nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, size) in DURATION_UNITS {
        // Weeks are read and never written: people count days.
        if unit == "w" || unit == "µs" {
            continue;
        }
        let count = nanos / u128::from(size);
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
            nanos %= u128::from(size);
        }
    }
    text
}

fn duration(text: &str) -> Result<Duration, UnitError> {
    let wrong = || {
        error(format!(
            "\"{text}\" is not a duration; write a number and a unit (ms, s, m, h, d), such as \"5m\""
        ))
    };
    let mut total: u128 = 0;
    let mut rest = text;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = &rest[..letters];
        rest = &rest[letters..];
        let (_, size) = DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        total = total.saturating_add(u128::from(number) * u128::from(*size));
    }
    match u64::try_from(total) {
        Ok(nanos) if Duration::from_nanos(nanos) <= DURATION_MAX => Ok(Duration::from_nanos(nanos)),
        _ => Err(error(format!("\"{text}\" is longer than 100 years; write a shorter duration"))),
    }
}
