//! Shares and numbers: `"80%"`, `0.8`, `1`, `"off"`.

use std::fmt;
use std::str::FromStr;

use schemars::{Schema, json_schema};
use serde::Serializer;

use super::{TextValue, UnitError, error};

/// A share such as `"80%"` or `0.8`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Share(pub f64);

/// A share, or `"off"`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct OptionalShare(pub Option<f64>);

/// A positive number, or `"off"`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct OptionalNumber(pub Option<f64>);

pub(super) const PERCENT: &str = r"[0-9]+(\.[0-9]+)?%";

impl TextValue for Share {
    const NAME: &'static str = "share";
    const EXPECTED: &'static str = "a share such as \"10%\" or 0.1";

    fn schema() -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string", "pattern": format!("^{PERCENT}$") },
                { "type": "number", "minimum": 0, "maximum": 1 },
            ],
            "x-kind": "share",
        })
    }

    fn from_number(number: f64) -> Result<Self, UnitError> {
        share(number).map(Self)
    }
}

impl TextValue for OptionalShare {
    const NAME: &'static str = "share or off";
    const EXPECTED: &'static str = "a share such as \"80%\" or 0.8, or \"off\"";

    fn schema() -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string", "pattern": format!("^({PERCENT}|off)$") },
                { "type": "number", "minimum": 0, "maximum": 1 },
            ],
            "x-kind": "share, or `off`",
        })
    }

    fn from_number(number: f64) -> Result<Self, UnitError> {
        share(number).map(|share| Self(Some(share)))
    }
}

impl TextValue for OptionalNumber {
    const NAME: &'static str = "number or off";
    const EXPECTED: &'static str = "a number above zero, or \"off\"";

    fn schema() -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "number", "exclusiveMinimum": 0 },
                { "type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?|off)$" },
            ],
            "x-kind": "number, or `off`",
        })
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(number) => serializer.serialize_f64(number),
            None => serializer.serialize_str("off"),
        }
    }

    fn from_number(number: f64) -> Result<Self, UnitError> {
        if number.is_finite() && number > 0.0 {
            return Ok(Self(Some(number)));
        }
        Err(error(format!("{number} is not above zero; write {}", Self::EXPECTED)))
    }
}

impl FromStr for Share {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        percent(text, Self::EXPECTED).map(Self)
    }
}

impl FromStr for OptionalShare {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text {
            "off" => Ok(Self(None)),
            _ => percent(text, Self::EXPECTED).map(|share| Self(Some(share))),
        }
    }
}

impl FromStr for OptionalNumber {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text {
            "off" => Ok(Self(None)),
            _ => text
                .parse::<f64>()
                .map_err(|_| error(format!("\"{text}\" is not a number; write {}", Self::EXPECTED)))
                .and_then(Self::from_number),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show_share(self.0))
    }
}

impl fmt::Display for OptionalShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.map_or_else(|| "off".to_owned(), show_share))
    }
}

impl fmt::Display for OptionalNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("off"),
            Some(number) => write!(f, "{number}"),
        }
    }
}

pub(super) fn percent(text: &str, expected: &str) -> Result<f64, UnitError> {
    let wrong = || error(format!("\"{text}\" is not a share; write {expected}"));
    let number = text.strip_suffix('%').ok_or_else(wrong)?;
    let number: f64 = number.trim_end().parse().map_err(|_| wrong())?;
    share(number / 100.0)
}

fn share(number: f64) -> Result<f64, UnitError> {
    if (0.0..=1.0).contains(&number) {
        return Ok(number);
    }
    Err(error(format!("the share {number} is not between 0 and 1; write it like \"10%\" or 0.1")))
}

pub(super) fn show_share(share: f64) -> String {
    // Rounded to a hundredth of a percent, so that 0.07 is not 7.000000000000001 %.
    format!("{}%", (share * 10_000.0).round() / 100.0)
}
