//! The options of `[journal]`: where writes wait for their database.

use larder::BehindOptions;
use larder_journal::{JournalOptions, OnDamage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Config;
use super::units::{ByteSize, DurationText};

/// Where writes wait for their database, of the caches whose `write.mode` is `behind`.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JournalSection {
    /// The directory, for this server alone, on a disk that is not lost with the
    /// machine: what is in it was acknowledged. It is made if it is not there. Default
    /// where `[disk]` has a directory: the same with `-journal` behind its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// What waiting writes and dead letters may take, once in memory and at most three
    /// times on the disk. Beyond it writes are refused.
    pub budget: ByteSize,
    /// How many lanes there are. Writes of a lane are applied in one order. Can be
    /// changed while nothing waits.
    #[schemars(range(min = 1, max = 4096))]
    pub lanes: u16,
    /// What to do where a file of the journal is damaged.
    pub on_damage: DamageChoice,
    /// A lane is applied as soon as this many writes wait in it. A transaction has at
    /// most this many.
    #[schemars(range(min = 1))]
    pub batch_records: usize,
    /// A lane is applied when its oldest write has waited for this long.
    pub batch_delay: DurationText,
    /// The most bytes of keys and values in one transaction.
    pub batch_bytes_max: ByteSize,
    /// The most writes that may wait. Beyond it writes are refused with `OVERLOADED`.
    #[schemars(range(min = 1))]
    pub queue_records_max: usize,
    /// The most bytes of keys and values that may wait.
    pub queue_bytes_max: ByteSize,
    /// How long a transaction may take. Then the database is asked whether it has
    /// happened.
    pub attempt_timeout: DurationText,
    /// How long a lane waits whose database fails; doubled each time.
    pub retry_pause: DurationText,
    /// The longest such pause.
    pub retry_pause_max: DurationText,
    /// How many retries of all lanes together there may be in a second.
    #[schemars(range(min = 1))]
    pub retries_per_second: u32,
    /// What to do with writes that wait for a cache that does not write behind any more:
    /// not to start, or to make dead letters of them.
    pub bury_unknown_caches: bool,
}

/// What to do where a file of the journal is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DamageChoice {
    /// Not to start, and to say where it is.
    Refuse,
    /// To go on with what can be read; the rest is lost, and reported.
    KeepReadable,
}

impl Default for JournalSection {
    fn default() -> Self {
        let behind = BehindOptions::default();
        let journal = JournalOptions::new("");
        Self {
            directory: None,
            budget: ByteSize(journal.bytes_max),
            lanes: journal.lanes,
            on_damage: DamageChoice::Refuse,
            batch_records: behind.batch_records,
            batch_delay: DurationText(behind.batch_delay),
            batch_bytes_max: ByteSize(behind.batch_bytes_max as u64),
            queue_records_max: behind.queue_records_max,
            queue_bytes_max: ByteSize(behind.queue_bytes_max as u64),
            attempt_timeout: DurationText(behind.attempt_timeout),
            retry_pause: DurationText(behind.retry_pause),
            retry_pause_max: DurationText(behind.retry_pause_max),
            retries_per_second: behind.retries_per_second,
            bury_unknown_caches: false,
        }
    }
}

impl JournalSection {
    /// Whether nothing of it is said.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// As the journal takes them.
    #[must_use]
    pub fn to_journal(&self, directory: &str) -> JournalOptions {
        let mut options = JournalOptions::new(directory);
        options.bytes_max = self.budget.0;
        options.lanes = self.lanes;
        options.on_damage = match self.on_damage {
            DamageChoice::Refuse => OnDamage::Refuse,
            DamageChoice::KeepReadable => OnDamage::KeepReadable,
        };
        options
    }

    /// As those take them who apply it.
    #[must_use]
    pub fn to_behind(&self) -> BehindOptions {
        let size = |bytes: ByteSize| usize::try_from(bytes.0).unwrap_or(usize::MAX);
        let mut options = BehindOptions::default();
        options.batch_records = self.batch_records;
        options.batch_delay = self.batch_delay.0;
        options.batch_bytes_max = size(self.batch_bytes_max);
        options.queue_records_max = self.queue_records_max;
        options.queue_bytes_max = size(self.queue_bytes_max);
        options.attempt_timeout = self.attempt_timeout.0;
        options.retry_pause = self.retry_pause.0;
        options.retry_pause_max = self.retry_pause_max.0;
        options.retries_per_second = self.retries_per_second;
        options.bury_unknown_caches = self.bury_unknown_caches;
        options
    }
}

impl Config {
    /// The directory of the journal, named or beside the disk tier.
    #[must_use]
    pub fn journal_directory(&self) -> Option<String> {
        let beside =
            || Some(format!("{}-journal", self.disk.directory.as_deref()?.trim_end_matches('/')));
        self.journal.directory.clone().or_else(beside)
    }

    /// Whether a cache of the file writes behind.
    #[must_use]
    pub fn writes_behind(&self) -> bool {
        self.caches.values().any(|cache| {
            cache.enabled != Some(false)
                && cache.write.as_ref().is_some_and(super::CacheWriteOptions::is_behind)
        })
    }
}
