//! Options of what events and times invalidate.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::DurationText;

/// What an event of a name invalidates. Names in braces stand for members of the
/// event's JSON, `{order.customer.id}` for one inside others; an array stands for each
/// of its elements. Holds at once when the file changes.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EventRuleOptions {
    /// The name of the event.
    pub event: String,
    /// Keys of caches, such as `portfolio:{account_id}`.
    pub keys: Vec<String>,
    /// Tags, such as `account:{account_id}`, in every cache.
    pub tags: Vec<String>,
    /// Caches of which everything is touched, by name.
    pub caches: Vec<String>,
    /// Only events whose members are equal to these.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub when: BTreeMap<String, ConditionValue>,
    /// Whether what is touched may still be served stale.
    pub verb: EffectVerb,
    /// Each entry at a moment of its own within this time, so that the database is not
    /// asked for all of them at once. Default: at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradual: Option<DurationText>,
}

/// What is invalidated at certain times.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleOptions {
    /// What tells it from the others, and the same on every server.
    pub name: String,
    /// Minute, hour, day of month, month and day of week: `59 23 * * *`; with seconds
    /// before them if there are six.
    pub cron: String,
    /// The time zone by its IANA name: `America/New_York`.
    pub zone: String,
    /// Keys of caches.
    pub keys: Vec<String>,
    /// Tags, in every cache.
    pub tags: Vec<String>,
    /// Caches of which everything is touched, by name.
    pub caches: Vec<String>,
    /// Whether what is touched may still be served stale.
    pub verb: EffectVerb,
    /// As in `[[on]]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradual: Option<DurationText>,
    /// What becomes of times at which no server ran. Needs `[redis]` or `[disk]` to
    /// know of those before a restart.
    pub missed: MissedChoice,
    /// Each time is run up to this much later, the same on every server. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<DurationText>,
}

/// Where events come from besides LARDER.EVENT and POST /events/NAME, and for how long
/// they are remembered.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EventSourceOptions {
    /// A channel of the shared Redis on which events are published as JSON with
    /// `type`, `id` and `data`. What is published while no server listens is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// A stream of the shared Redis whose entries have the fields `type`, `data` and
    /// perhaps `id`. Each is taken by one server of the group, and again by another
    /// if that one ends before it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The consumer group of the stream.
    pub group: String,
    /// For how long the ids of events are remembered: one that comes again does
    /// nothing.
    pub remember: DurationText,
}

impl Default for EventSourceOptions {
    fn default() -> Self {
        Self {
            channel: None,
            stream: None,
            group: "larder".to_owned(),
            remember: DurationText(std::time::Duration::from_secs(600)),
        }
    }
}

impl EventSourceOptions {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether what is invalidated may still be served stale.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EffectVerb {
    /// It may, where the policy of the cache allows that.
    #[default]
    Expire,
    /// It is gone.
    Remove,
}

/// What becomes of times at which no server ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MissedChoice {
    /// Nothing.
    #[default]
    Skip,
    /// It is run once, however many were missed.
    Run,
}

/// What a member of an event is compared with.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ConditionValue {
    /// A truth value.
    Flag(bool),
    /// A whole number.
    Number(i64),
    /// A text.
    Text(String),
}
