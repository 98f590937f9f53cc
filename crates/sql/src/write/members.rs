use std::fmt;

use larder_core::{Error, ErrorKind, Result, Version};
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of a JSON object in their order, their values as they stand.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for what is no object or names a member twice.
pub(super) fn members(value: &[u8]) -> Result<Vec<(String, &RawValue)>> {
    let wrong = |what: &'static str| {
        Error::new(ErrorKind::InvalidInput, what)
            .remedy("write a JSON object with a member for each column")
    };
    let mut deserializer = serde_json::Deserializer::from_slice(value);
    let members = deserializer
        .deserialize_map(Members)
        .and_then(|members| deserializer.end().map(|()| members))
        .map_err(|_| wrong("the value is not a JSON object"))?;
    if members.len() > MEMBERS_MAX {
        return Err(wrong("the value has too many members").with("limit", MEMBERS_MAX));
    }
    let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(wrong("the value has two members of one name"));
    }
    Ok(members)
}

struct Members;

/// No table of any database has more columns.
const MEMBERS_MAX: usize = 32_767;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while members.len() <= MEMBERS_MAX
            && let Some(member) = map.next_entry()?
        {
            members.push(member);
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(members)
    }
}

/// The version that a row of a load has as this member.
pub(crate) fn version_in(row: &[u8], name: &str) -> Option<Version> {
    whole_number(row, name).map(Version::new)
}

/// The whole number that a row of a load has as this member.
pub(super) fn whole_number(row: &[u8], name: &str) -> Option<u64> {
    let members = members(row).ok()?;
    let (_, value) = members.iter().find(|(known, _)| known == name)?;
    value.get().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_text() {
        let members = members(br#" {"a": 1.50, "b" : {"c":[1, 2]} , "\u0061b": null} "#);
        let members = members.expect("it is an object");
        let texts: Vec<_> =
            members.iter().map(|(name, value)| (name.as_str(), value.get())).collect();
        assert_eq!(texts, [("a", "1.50"), ("b", r#"{"c":[1, 2]}"#), ("ab", "null")]);
        assert_eq!(whole_number(br#"{"version":7}"#, "version"), Some(7));
        assert_eq!(whole_number(br#"{"version":"7"}"#, "version"), None);
    }

    #[test]
    fn what_is_no_object_is_refused_without_being_repeated() {
        for text in ["", "1", "[]", "{", "{} secret", r#"{"a":1,"\u0061":2}"#, "\u{1}", "nul"] {
            let error = members(text.as_bytes()).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
        assert!(members(b"{\"a\":\"\xFF\"}").is_err());
        let many = |count: usize| {
            let members: Vec<String> = (0..count).map(|at| format!("\"{at}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert!(members(many(MEMBERS_MAX).as_bytes()).is_ok());
        let error = members(many(MEMBERS_MAX + 1).as_bytes()).expect_err("they are too many");
        assert!(error.to_string().contains("too many members"), "{error}");
        assert!(members(many(2 * MEMBERS_MAX).trim_end_matches('}').as_bytes()).is_err());
    }
}
