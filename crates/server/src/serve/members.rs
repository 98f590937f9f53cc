//! Reads the few members of a row that rules name, and nothing else of it.
//!
//! What else a row holds is only skipped: no number is read and nothing
//! recurses, so that a number beyond every float or a deep document beside the
//! named members cannot make them unreadable.

use std::fmt;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The members of one row, in the order of the names asked for. One that is
/// missing, `null`, an array or an object is `None`; of several members with one
/// name the last counts.
pub(super) type Row<'v> = Vec<Option<Scalar<'v>>>;

/// A value that can be part of a tag.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Scalar<'v> {
    /// A string.
    Text(String),
    /// A number, `true` or `false`, as it is written.
    Bare(&'v str),
}

impl Scalar<'_> {
    /// The string, or the number as it is written.
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Bare(text) => text,
        }
    }
}

/// The rows of a value: of one object, or of a list of them.
pub(super) fn rows<'v>(text: &'v [u8], names: &[String]) -> serde_json::Result<Vec<Row<'v>>> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let rows = Rows(names).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(rows)
}

/// One object, or a list of objects.
struct Rows<'n>(&'n [String]);

impl<'v> DeserializeSeed<'v> for Rows<'_> {
    type Value = Vec<Row<'v>>;

    fn deserialize<D: Deserializer<'v>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'v> Visitor<'v> for Rows<'_> {
    type Value = Vec<Row<'v>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row or a list of rows")
    }

    fn visit_map<A: MapAccess<'v>>(self, members: A) -> Result<Self::Value, A::Error> {
        Ok(vec![OneRow(self.0).visit_map(members)?])
    }

    fn visit_seq<A: SeqAccess<'v>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut rows = Vec::new();
        while let Some(row) = items.next_element_seed(OneRow(self.0))? {
            rows.push(row);
        }
        Ok(rows)
    }
}

/// One object.
struct OneRow<'n>(&'n [String]);

impl<'v> DeserializeSeed<'v> for OneRow<'_> {
    type Value = Row<'v>;

    fn deserialize<D: Deserializer<'v>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'v> Visitor<'v> for OneRow<'_> {
    type Value = Row<'v>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_map<A: MapAccess<'v>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut row = vec![None; self.0.len()];
        while let Some(place) = members.next_key_seed(Place(self.0))? {
            match place {
                Some(place) => {
                    row[place] = scalar(members.next_value()?).map_err(A::Error::custom)?;
                }
                None => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(row)
    }
}

/// The place of a member's name among the names asked for.
struct Place<'n>(&'n [String]);

impl<'v> DeserializeSeed<'v> for Place<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'v>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Place<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a column")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|known| known == name))
    }
}

fn scalar(value: &RawValue) -> serde_json::Result<Option<Scalar<'_>>> {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'"') => String::deserialize(&mut serde_json::Deserializer::from_str(text))
            .map(|text| Some(Scalar::Text(text))),
        None | Some(b'n' | b'[' | b'{') => Ok(None),
        Some(_) => Ok(Some(Scalar::Bare(text))),
    }
}
