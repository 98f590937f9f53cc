//! The options of `[caches.NAME.write]`: what clients may change, and how.

use std::collections::BTreeMap;

use larder_sql::WriteOptions;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a write is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WriteMode {
    /// When the database has committed it.
    #[default]
    Through,
    /// When the journal has it, on the disk. The database gets it later, once, and
    /// many writes in one transaction.
    Behind,
}

impl WriteMode {
    fn is_through(&self) -> bool {
        *self == Self::Through
    }
}

/// What clients may change, and how. A section without options makes the rows of
/// a table writable; a query needs a statement for each kind of change.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CacheWriteOptions {
    /// When a write is acknowledged. Default: through.
    #[serde(skip_serializing_if = "WriteMode::is_through")]
    pub mode: WriteMode,
    /// This server alone writes the keys of this cache: with `behind`, where several
    /// servers share a Redis. Default: false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub only_writer: bool,
    /// The column that counts the versions of a row, so that a write can expect
    /// one. Writes of a table increment it; a statement has to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_column: Option<String>,
    /// The statement that puts a whole value, for a cache with a query. `:name` is
    /// a parameter of the key or a member of the value, `:expected_version` the
    /// version that is expected, or NULL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub put: Option<String>,
    /// The statement that removes a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove: Option<String>,
    /// The statement that replaces some members; those that a patch lacks are
    /// NULL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
    /// The statement by which a field grows, for each field that can; `:by` is by
    /// how much.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<String, String>,
}

impl CacheWriteOptions {
    /// Whether writes are acknowledged before the database has them.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.mode == WriteMode::Behind
    }

    /// As the database takes them.
    #[must_use]
    pub fn to_sql(&self) -> WriteOptions {
        let mut options = WriteOptions::new();
        options.version_column.clone_from(&self.version_column);
        options.put.clone_from(&self.put);
        options.remove.clone_from(&self.remove);
        options.patch.clone_from(&self.patch);
        options.add = self.add.clone().into_iter().collect();
        options
    }

    /// The names of the statements that are declared, such as `put` and
    /// `add.stock`.
    #[must_use]
    pub fn statements(&self) -> Vec<(String, &str)> {
        let single = [("put", &self.put), ("remove", &self.remove), ("patch", &self.patch)];
        let single =
            single.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text.as_deref()?)));
        let added = self.add.iter().map(|(field, text)| (format!("add.{field}"), text.as_str()));
        single.chain(added).collect()
    }
}
