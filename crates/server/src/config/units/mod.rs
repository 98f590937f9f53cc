//! Values as people write them: `"5m"`, `"64MiB"`, `"80%"`, `"forever"`, `"off"`.
//!
//! A bare number is refused where a unit is needed: nobody can tell from
//! `ttl = 300` whether seconds or milliseconds are meant.

mod duration;
mod names;
mod share;
mod size;

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use duration::{DurationText, OptionalDuration, TtlText, show_duration};
pub use names::{ClassName, TtlClassName};
pub use share::{OptionalNumber, OptionalShare, Share};
pub use size::{ByteSize, SizeOrShare, show_bytes};

/// Why a text is not a value of its kind: `what; remedy`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnitError(String);

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UnitError {}

fn error(text: impl Into<String>) -> UnitError {
    UnitError(text.into())
}

/// A value that is written as text.
trait TextValue: FromStr<Err = UnitError> + fmt::Display {
    /// What the schema calls it.
    const NAME: &'static str;
    /// What stands after "expected" when something else than text is given.
    const EXPECTED: &'static str;

    /// What the published schema says of it.
    fn schema() -> Schema;

    /// Writes it as it is read.
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }

    /// Reads a bare number; refused unless the kind has no unit.
    fn from_number(number: f64) -> Result<Self, UnitError> {
        Err(error(format!("the number {number} has no unit; write {}", Self::EXPECTED)))
    }
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: TextValue> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        T::from_number(number as f64).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        T::from_number(number as f64).map_err(E::custom)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        T::from_number(number).map_err(E::custom)
    }
}

macro_rules! text_values {
    ($($type:ty),* $(,)?) => { $(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(TextVisitor(PhantomData))
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                TextValue::write(self, serializer)
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                Cow::Borrowed(<Self as TextValue>::NAME)
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                <Self as TextValue>::schema()
            }
        }
    )* };
}

text_values!(
    DurationText,
    TtlText,
    OptionalDuration,
    Share,
    OptionalShare,
    OptionalNumber,
    ByteSize,
    SizeOrShare,
    ClassName,
    TtlClassName,
);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, millis, shown) in [
            ("250ms", 250, "250ms"),
            ("5m", 300_000, "5m"),
            ("90s", 90_000, "1m30s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("2w", 1_209_600_000, "14d"),
            ("0s", 0, "0s"),
        ] {
            let read: DurationText = text.parse().expect(text);
            assert_eq!(read.0, Duration::from_millis(millis));
            assert_eq!(read.to_string(), shown);
        }
        for text in ["", "5", "m", "5 m", "-5m", "5x", "5m3", "99999999999999999999s"] {
            let error = text.parse::<DurationText>().expect_err(text).to_string();
            assert!(error.contains("; write"), "{error}");
        }
        assert!("101w5300w".parse::<DurationText>().expect_err("long").0.contains("100 years"));
    }

    #[test]
    fn sizes_and_shares_are_read_and_written() {
        assert_eq!("64MiB".parse(), Ok(ByteSize(64 << 20)));
        assert_eq!("1.5 GiB".parse(), Ok(ByteSize(3 << 29)));
        assert_eq!(ByteSize(64 << 20).to_string(), "64MiB");
        assert_eq!(ByteSize(1_000).to_string(), "1000B");
        assert_eq!("25%".parse(), Ok(SizeOrShare::Share(0.25)));
        assert_eq!(SizeOrShare::Share(0.07).to_string(), "7%");
        assert!("64".parse::<ByteSize>().is_err());
        assert!("-1MiB".parse::<ByteSize>().is_err());
        assert!("120%".parse::<Share>().is_err());
        assert_eq!(SizeOrShare::Share(0.25).of(1000), 250);
    }

    #[test]
    fn a_misspelt_class_is_recognised() {
        let error = "personel".parse::<ClassName>().expect_err("no such class");
        assert_eq!(error.0, "\"personel\" is not a data class; did you mean \"personal\"?");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(nanos in 0_u64..3_000_000_000_000_000_000, bytes in 0_u64..1 << 50) {
            let duration = DurationText(Duration::from_nanos(nanos));
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
            prop_assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }

        #[test]
        fn no_text_panics(text in ".{0,24}") {
            let _ = text.parse::<DurationText>();
            let _ = text.parse::<ByteSize>();
            let _ = text.parse::<SizeOrShare>();
            let _ = text.parse::<OptionalNumber>();
            let _ = text.parse::<TtlClassName>();
        }
    }
}
