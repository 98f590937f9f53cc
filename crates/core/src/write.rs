use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{Decimal, Error, JournalOffset, Value, Version};

/// One change of one key at an origin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write<K, V> {
    /// What is changed.
    pub key: K,
    /// How.
    pub action: Action<V>,
    /// What must be there for it to happen.
    pub expected: Expected,
}

impl<K, V> Write<K, V> {
    /// A change that happens whatever is there.
    pub const fn new(key: K, action: Action<V>) -> Self {
        Self { key, action, expected: Expected::Anything }
    }

    /// The same change, only if this is there.
    #[must_use]
    pub fn expecting(mut self, expected: Expected) -> Self {
        self.expected = expected;
        self
    }
}

/// How a key is changed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Action<V> {
    /// It has this value from now on, whether it was there or not.
    Put(V),
    /// It is gone.
    Remove,
    /// The members that this value has are replaced, the others stay. A key that
    /// is not there is [`Written::Missing`].
    Patch(V),
    /// A numeric member grows by this, less if it is negative, in one step at the
    /// origin. A key that is not there is [`Written::Missing`].
    Add {
        /// The member.
        field: Arc<str>,
        /// By how much.
        by: Decimal,
    },
}

/// What must be there for a write to happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Expected {
    /// Anything, or nothing.
    #[default]
    Anything,
    /// No such key.
    Absent,
    /// The key, with any version.
    Present,
    /// The key, with this version of the origin's own numbering.
    Version(Version),
}

/// What became of a write that the origin answered.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Written<V> {
    /// The origin has it, committed.
    Done {
        /// Whether anything is different from before.
        changed: bool,
        /// What the key has now, if the origin says so: with defaults, triggers
        /// and conversions applied.
        now: Option<Value<V>>,
        /// The version that it now has, if the origin numbers its versions.
        version: Option<Version>,
    },
    /// What was expected is not there; nothing happened.
    Conflict {
        /// The version that is there, if the origin says so.
        version: Option<Version>,
    },
    /// A patch or an addition found no such key; nothing happened.
    Missing,
}

/// How far a lane of a journal has been applied. An origin that keeps it in the
/// transaction of the writes themselves applies each of them exactly once.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LaneMark {
    /// The journal's own name: several may write to one origin.
    pub journal: Arc<str>,
    /// The lane.
    pub lane: u16,
    /// Which owner of the lane this is. An origin refuses the marks of an epoch
    /// below the one that it has seen.
    pub epoch: u64,
    /// All up to here, inclusive, is applied.
    pub applied: JournalOffset,
}

/// Why a batch of writes did not happen. None of them did, unless the error is an
/// [`ErrorKind::OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown).
#[derive(Clone, Debug)]
pub struct BatchError {
    /// Which of the writes is to blame, counted from 0; `None` if not one alone.
    pub index: Option<usize>,
    /// What failed.
    pub error: Error,
}

impl From<Error> for BatchError {
    fn from(error: Error) -> Self {
        Self { index: None, error }
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "write {index} of the batch: {}", self.error),
            None => fmt::Display::fmt(&self.error, f),
        }
    }
}

impl std::error::Error for BatchError {}

/// What an origin can do with writes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub struct WriteAbilities {
    /// [`Action::Put`].
    pub put: bool,
    /// [`Action::Remove`].
    pub remove: bool,
    /// [`Action::Patch`].
    pub patch: bool,
    /// [`Action::Add`].
    pub add: bool,
    /// [`Expected::Absent`] and [`Expected::Present`].
    pub presence: bool,
    /// [`Expected::Version`].
    pub versions: bool,
    /// How many writes it commits together; 1: it has no transactions.
    pub batch_limit: usize,
    /// It keeps [`LaneMark`]s in the transaction of the writes.
    pub marks: bool,
    /// After this long a write that was sent and not answered has happened or never
    /// will.
    pub settles_within: Duration,
}

impl WriteAbilities {
    /// It takes no writes at all.
    pub const NONE: Self = Self {
        put: false,
        remove: false,
        patch: false,
        add: false,
        presence: false,
        versions: false,
        batch_limit: 0,
        marks: false,
        settles_within: Duration::from_secs(30),
    };

    /// Puts and removals, one by one.
    pub const SIMPLE: Self = Self { put: true, remove: true, batch_limit: 1, ..Self::NONE };
}
