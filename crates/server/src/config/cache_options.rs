//! The options of `[defaults]` and `[caches.NAME]`. What both share stands in
//! one table, so that a policy option added here is known everywhere: to the
//! parser, the layers, `larder explain`, the schema and the reference.

use std::collections::BTreeMap;

use larder_sql::KeyType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{
    ClassName, DurationText, OptionalDuration, OptionalNumber, OptionalShare, Share, SizeOrShare,
    TtlClassName, TtlText,
};
use super::write_options::CacheWriteOptions;

macro_rules! policy_options {
    ($( $(#[$meta:meta])* $name:ident: $type:ty, )*) => {
        /// What caches promise about their answers.
        #[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct PolicyOptions {
            $(
                $(#[$meta])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $name: Option<$type>,
            )*
        }

        /// One cache: which keys, from where, and what it promises.
        #[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct CacheOptions {
            /// The keys of this cache, such as `album:{id}`: literal text and
            /// `{parameters}`. A parameter ends at the next `:`; the last one
            /// takes the rest. Default with `table`: the table's own key.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub key: Option<String>,
            /// The SELECT that loads a key. `:name` stands for the parameter
            /// `{name}` of the key.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub query: Option<String>,
            /// The table or view whose rows this cache serves by primary key,
            /// to give a table a policy of its own. Default without `query`: the
            /// cache's name.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub table: Option<String>,
            /// The types of parameters of the key, by name, where they are not to
            /// be inferred from the query.
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            pub types: BTreeMap<String, ParameterType>,
            /// The value is the list of all rows that the query returns. An
            /// empty list is a value. Without it the value is one row, and two
            /// are an error.
            pub list: bool,
            /// Which of the origins is asked. Default: the only one.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub origin: Option<String>,
            /// Whether it is served; keys of a cache that is turned off are plain
            /// keys. Default: true.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub enabled: Option<bool>,
            /// Labels by which entries are invalidated together, such as
            /// `artist:{artist_id}`. A `{name}` is a parameter of the key or a
            /// column of the row; an entry whose column is NULL lacks the tag.
            pub tags: Vec<String>,
            /// What the entries are computed from, so that a change of it invalidates
            /// them: keys of another cache such as `customer:{customer_id}`, a tag such
            /// as `tag:price-list:{list}`, what others announce such as
            /// `service:billing:invoice:{id}`, or the name of a cache for any change of
            /// it. A `{name}` is a parameter of the key or a column of the row.
            #[serde(skip_serializing_if = "Vec::is_empty")]
            pub depends_on: Vec<String>,
            /// The answer when the origin fails and no stale one is at hand. It
            /// is never kept.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub fallback: Option<serde_json::Value>,
            /// What this cache may take of the memory budget. Default: an equal
            /// part of what is not assigned.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub memory: Option<SizeOrShare>,
            /// What clients may change. Default: nothing.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub write: Option<CacheWriteOptions>,
            /// A TTL by the age of the row: what changed a moment ago changes
            /// again soon.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub ttl_by_age: Option<TtlByAgeOptions>,
            $(
                $(#[$meta])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $name: Option<$type>,
            )*
        }

        impl PolicyOptions {
            /// The names of all policy options.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];

            /// These options, and those of `below` where these are silent.
            #[must_use]
            pub fn over(&self, below: &Self) -> Self {
                Self { $($name: self.$name.or(below.$name)),* }
            }

            /// The names and values that are set, as text.
            #[must_use]
            pub fn set(&self) -> Vec<(&'static str, String)> {
                let mut set = Vec::new();
                $(
                    if let Some(value) = &self.$name {
                        set.push((stringify!($name), value.to_string()));
                    }
                )*
                set
            }
        }

        impl CacheOptions {
            /// The policy options among them.
            #[must_use]
            pub fn policy(&self) -> PolicyOptions {
                PolicyOptions { $($name: self.$name),* }
            }
        }
    };
}

policy_options! {
    /// How long an answer is fresh, counted from the start of the read at the
    /// origin. Default: 5m.
    ttl: TtlText,
    /// A ready-made `ttl` by the kind of data.
    ttl_class: TtlClassName,
    /// How long "there is no such row" holds; `off` asks the origin each time.
    /// Default: 10s.
    negative_ttl: OptionalDuration,
    /// Drops what nobody asked for during this long. Default: off.
    idle_ttl: OptionalDuration,
    /// On access, what is left of the TTL becomes `min(ttl, left × 1.5)`. Needs
    /// `max_age`. Default: false.
    sliding: bool,
    /// No answer older than this is given, whatever else is said. Default: off.
    max_age: OptionalDuration,
    /// Shortens each TTL by a random share of up to this much, so that what was
    /// loaded together does not expire together. Default: 10%.
    jitter: Share,
    /// A read after this share of the TTL starts a refresh in the background;
    /// 80% is usual. Default: off.
    refresh_ahead: OptionalShare,
    /// The β of probabilistic early refresh: a read close to the expiry starts a
    /// refresh, the sooner the longer loads take. Default: 1.
    early_refresh_beta: OptionalNumber,
    /// For this long after it expires, an answer is served stale at once while
    /// it is refreshed in the background. Default: off.
    stale_while_revalidate: OptionalDuration,
    /// For this long after it expires, an answer is served stale when the origin
    /// fails or is slow. Default: off.
    stale_if_error: OptionalDuration,
    /// How long a reader waits for a load when a stale answer is at hand; the
    /// load finishes in the background. Default: 200ms.
    soft_timeout: DurationText,
    /// How long a load may take before it is cancelled, and how long any reader
    /// waits. Default: 5s.
    hard_timeout: DurationText,
    /// How sensitive the data is. `personal` and `credential` are never kept.
    /// Default: public.
    class: ClassName,
}

/// What the text of a key's parameter is read as.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ParameterType {
    /// A whole number.
    Integer,
    /// A number with exact digits.
    Decimal,
    /// Text.
    Text,
    /// True or false.
    Boolean,
    /// A UUID.
    Uuid,
    /// Bytes as hexadecimal.
    Bytes,
    /// A day.
    Date,
    /// A time of day.
    Time,
    /// A date and time without zone.
    Timestamp,
    /// A moment, in UTC.
    TimestampUtc,
}

impl From<ParameterType> for KeyType {
    fn from(parameter: ParameterType) -> Self {
        match parameter {
            ParameterType::Integer => Self::Integer,
            ParameterType::Decimal => Self::Decimal,
            ParameterType::Text => Self::Text,
            ParameterType::Boolean => Self::Boolean,
            ParameterType::Uuid => Self::Uuid,
            ParameterType::Bytes => Self::Bytes,
            ParameterType::Date => Self::Date,
            ParameterType::Time => Self::Time,
            ParameterType::Timestamp => Self::Timestamp,
            ParameterType::TimestampUtc => Self::TimestampUtc,
        }
    }
}

/// A TTL by the age of the row.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TtlByAgeOptions {
    /// The column that says when the row was last changed: a timestamp, a date,
    /// or seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The TTL of rows younger than each age, the first that fits. Default:
    /// under 1h 30s, under 1d 5m, under 7d 1h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<AgeRule>>,
    /// The TTL of rows older than every rule. Default: 1d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beyond: Option<TtlText>,
}

/// The TTL of rows younger than an age.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgeRule {
    /// The age.
    pub under: DurationText,
    /// How long a row younger than that is fresh.
    pub ttl: TtlText,
}
