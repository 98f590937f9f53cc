mod canonical;
mod pattern;
mod reach;
mod shared;

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

pub use canonical::{canonical_json, json_hash};
pub use pattern::{KeyPattern, PatternError};
pub use reach::{Cover, LEVEL_TAG, Reach, level_tag};
pub use shared::SharedKey;

/// A key as bytes: what doors receive and what tiers below memory store.
///
/// Cloning costs a reference count.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<[u8]>);

impl Key {
    /// The key with these bytes.
    #[must_use]
    pub fn new(bytes: impl AsRef<[u8]>) -> Self {
        Self(Arc::from(bytes.as_ref()))
    }

    /// Starts a hierarchical key (K1).
    ///
    /// ```
    /// use larder_core::Key;
    ///
    /// let key = Key::build("device").part(7).part("data").version(2);
    /// assert_eq!(key.finish().to_string(), "device:7:data:v2");
    /// ```
    pub fn build(root: &str) -> KeyBuilder {
        let mut text = String::with_capacity(root.len() + 16);
        pattern::escape_into(&mut text, root);
        KeyBuilder(text)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<T: AsRef<[u8]>> From<T> for Key {
    fn from(bytes: T) -> Self {
        Self::new(bytes)
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// Builds a hierarchical key part by part.
///
/// Parts are joined with `:`. Inside the root and each part `:` is written `%3A`
/// and `%` is written `%25`, and a part that reads like a version is written with
/// `%76` for its `v`, so that two different lists of parts never make the same
/// key.
///
/// [`KeyPattern::key`] spells the last parameter of a pattern differently where
/// it holds a `:`: it leaves that as it is, because nothing follows. The two are
/// different keys of a cache, although the pattern matches both and reads the
/// same values from them; make the keys of one cache in one way.
#[derive(Clone, Debug)]
#[must_use]
pub struct KeyBuilder(String);

impl KeyBuilder {
    /// Adds a part.
    pub fn part(mut self, part: impl fmt::Display) -> Self {
        self.0.push(':');
        pattern::part_into(&mut self.0, &part.to_string());
        self
    }

    /// Adds the version of the value's layout, as `v2`.
    pub fn version(mut self, version: u32) -> Self {
        self.0.push_str(":v");
        self.0.push_str(&version.to_string());
        self
    }

    /// Adds the hash of a filter: equal filters give equal keys whatever the
    /// order of their members.
    pub fn filter(self, filter: &serde_json::Value) -> Self {
        self.part(json_hash(filter))
    }

    /// The key.
    #[must_use]
    pub fn finish(self) -> Key {
        Key::new(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_separator_inside_a_part_cannot_forge_another_key() {
        let forged = Key::build("a").part("b:c").finish();
        let honest = Key::build("a").part("b").part("c").finish();
        assert_ne!(forged, honest);
        assert_eq!(forged.to_string(), "a:b%3Ac");
        assert_ne!(Key::build("a:b").finish(), Key::build("a").part("b").finish());
    }

    #[test]
    fn a_part_that_reads_like_a_version_is_not_one() {
        let part = Key::build("device").part("v2").finish();
        assert_ne!(part, Key::build("device").version(2).finish());
        assert_ne!(part, Key::build("device").part("%762").finish());
        assert_eq!(Key::build("device").part("v2a").finish().to_string(), "device:v2a");
        let pattern: KeyPattern = "device:{id}".parse().expect("a valid pattern");
        let text = part.to_string();
        assert_eq!(pattern.match_key(&text), Some(vec!["v2".into()]));
    }

    #[test]
    fn a_pattern_reads_what_the_builder_wrote_though_it_spells_the_last_part_otherwise() {
        let pattern: KeyPattern = "weather:{origin}:{time}".parse().expect("a valid pattern");
        let built = Key::build("weather").part("EWR").part("6:00").finish().to_string();
        assert_eq!(built, "weather:EWR:6%3A00");
        assert_eq!(pattern.key(["EWR", "6:00"]), "weather:EWR:6:00");
        assert_eq!(pattern.match_key(&built), Some(vec!["EWR".into(), "6:00".into()]));
    }

    #[test]
    fn filters_do_not_depend_on_order() {
        let one = serde_json::json!({"city": "Ulm", "tags": [1, 2], "page": 1.0});
        let two = serde_json::json!({"page": 1, "tags": [1, 2], "city": "Ulm"});
        let other = serde_json::json!({"page": 1, "tags": [2, 1], "city": "Ulm"});
        let key = |filter| Key::build("list").filter(filter).finish();
        assert_eq!(key(&one), key(&two));
        assert_ne!(key(&one), key(&other));
    }
}
