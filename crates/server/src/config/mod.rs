//! The configuration: its options, how they are read, and what is wrong with
//! them.

mod cache_options;
mod check;
pub(crate) mod database_url;
mod diagnostic;
mod event_options;
mod file_mark;
mod front_options;
mod journal_options;
mod options;
mod origin_options;
mod overrides;
mod parse;
pub mod policy;
pub mod redact;
mod reference;
mod schema;
mod settings;
mod shared_tier_options;
mod source;
pub mod suggest;
pub mod template;
mod units;
mod write_options;

pub use cache_options::{AgeRule, CacheOptions, ParameterType, PolicyOptions, TtlByAgeOptions};
pub(crate) use check::statement_path;
pub use check::{KeyShape, check, fuzz, is_protected};
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use event_options::{
    ConditionValue, EffectVerb, EventRuleOptions, EventSourceOptions, MissedChoice, ScheduleOptions,
};
pub use file_mark::FileMark;
pub use front_options::ExistingRedisOptions;
pub use journal_options::{DamageChoice, JournalSection};
pub use options::{
    Config, DangerousCommand, DiskDurability, DiskTierOptions, LogFormat, LogLevel, MemoryOptions,
    ServerOptions, UserOptions,
};
pub use origin_options::{BreakerOptions, BreakerPreset, OriginOptions, TlsMode};
pub use overrides::{Bind, Overrides};
pub use parse::{Parsed, TEXT_BYTES_MAX, parse};
pub use reference::{meaning_of, reference_text};
pub use schema::{schema, schema_text};
pub use settings::Settings;
pub use shared_tier_options::{
    DeadServerKeys, MemcachedTierOptions, RedisTierOptions, RedisTopology,
};
pub use source::{Locations, Position, Source, Spans};
pub use units::{
    ByteSize, ClassName, DurationText, OptionalDuration, OptionalNumber, OptionalShare, Share,
    SizeOrShare, TtlClassName, TtlText, UnitError, show_bytes, show_duration,
};

/// A configuration with every option, each with a word about it.
pub const EXAMPLE: &str = include_str!("example.toml");
pub use write_options::{CacheWriteOptions, WriteMode};
