//! Names out of a list: data classes and TTL classes.

use std::fmt;
use std::str::FromStr;

use larder_core::{Class, TtlClass};
use schemars::{Schema, json_schema};

use super::{TextValue, UnitError, error};
use crate::config::suggest;

/// A data class by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClassName(pub Class);

/// A TTL class by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TtlClassName(pub TtlClass);

impl TextValue for ClassName {
    const NAME: &'static str = "class";
    const EXPECTED: &'static str = "a data class by name, such as \"public\"";

    fn schema() -> Schema {
        let names: Vec<_> = Class::ALL.iter().map(|class| class.name()).collect();
        json_schema!({ "type": "string", "enum": names, "x-kind": "data class" })
    }
}

impl TextValue for TtlClassName {
    const NAME: &'static str = "TTL class";
    const EXPECTED: &'static str = "a TTL class by name, such as \"static\"";

    fn schema() -> Schema {
        let names: Vec<_> = TtlClass::TABLE.iter().map(|(_, name, _)| *name).collect();
        json_schema!({ "type": "string", "enum": names, "x-kind": "TTL class" })
    }
}

impl FromStr for ClassName {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        text.parse().map(Self).map_err(|_| {
            let names = Class::ALL.map(Class::name);
            unknown_name("data class", text, &names)
        })
    }
}

impl FromStr for TtlClassName {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        text.parse().map(Self).map_err(|_| {
            let names = TtlClass::TABLE.map(|(_, name, _)| name);
            unknown_name("TTL class", text, &names)
        })
    }
}

impl fmt::Display for ClassName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl fmt::Display for TtlClassName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

fn unknown_name(kind: &str, text: &str, names: &[&str]) -> UnitError {
    let remedy = match suggest::closest(text, names.iter().copied()) {
        Some(name) => format!("did you mean \"{name}\"?"),
        None => format!("use one of {}", names.join(", ")),
    };
    error(format!("\"{text}\" is not a {kind}; {remedy}"))
}
