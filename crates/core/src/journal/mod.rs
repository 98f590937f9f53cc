mod record;
mod sharing;

use std::future::Future;
use std::sync::Arc;

pub use record::JournalRecord;
pub use sharing::{JournalCensus, JournalSharing, LaneCensus, LaneHolder};

#[cfg(doc)]
use crate::ErrorKind;
use crate::{BoxFuture, Result};

/// A place in a lane of a journal, counted from 1. Offsets grow without gaps
/// within one lane and none is ever given twice. Where a shared journal may have
/// lost its end, it leaves a gap, so that no place is given twice even then.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct JournalOffset(pub u64);

impl JournalOffset {
    /// Before the first record.
    pub const START: Self = Self(0);
}

/// What must fail before a record that [`Journal::append`] acknowledged is lost.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Survives {
    /// It survives the end of this process, `kill -9` too. A loss of power may
    /// take the last records.
    Process,
    /// It survives a loss of power as well: it was on the disk before the answer.
    /// The loss of that disk takes it.
    PowerLoss,
    /// It survives the loss of one disk: a second copy was there before the
    /// answer.
    DiskLoss,
}

/// What a journal is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JournalProfile {
    /// The name by which origins tell its marks from those of other journals.
    /// It holds something that was drawn when the journal was made, so that a
    /// journal that begins anew is another one.
    pub name: Arc<str>,
    /// How many lanes it has, numbered from 0.
    pub lanes: u16,
    /// What an acknowledged record survives.
    pub survives: Survives,
    /// Whether other processes append to it, too.
    pub shared: bool,
    /// The largest record in bytes of its encoding.
    pub record_bytes_max: usize,
}

/// A lane that is owned from now on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LaneClaim {
    /// Which owner this is. Each claim of a lane has a higher one than all before,
    /// also over restarts.
    pub epoch: u64,
    /// All up to here was trimmed.
    pub trimmed: JournalOffset,
    /// The last record that was appended.
    pub last: JournalOffset,
}

/// A record and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JournalEntry {
    /// Its place in the lane.
    pub offset: JournalOffset,
    /// The record, with its age now.
    pub record: JournalRecord,
}

/// Why a write will not be applied from its place in a lane.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum DeathCause {
    /// The origin refused it for good: a constraint, a type, a missing table.
    Refused,
    /// What it expected was not there.
    Conflict,
    /// A patch or an addition found no such key.
    Missing,
    /// It was committed, or found nothing to change: the process ended between
    /// the commit and the answer. Look at the row before it is replayed.
    InDoubt,
}

impl DeathCause {
    /// Every cause. A journal may keep the place in this list as a number: new
    /// ones are added at the end.
    pub const ALL: [Self; 4] = [Self::Refused, Self::Conflict, Self::Missing, Self::InDoubt];

    /// A word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Conflict => "conflict",
            Self::Missing => "missing",
            Self::InDoubt => "in-doubt",
        }
    }
}

/// What became of a write that will not be applied from its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Death {
    /// Which record of the lane.
    pub offset: JournalOffset,
    /// Why.
    pub cause: DeathCause,
    /// What the origin said, cut off after [`Death::REASON_BYTES_MAX`].
    pub reason: Arc<str>,
}

impl Death {
    /// The longest reason that a journal keeps.
    pub const REASON_BYTES_MAX: usize = 1024;

    /// A death with as much of the reason as is kept.
    #[must_use]
    pub fn new(offset: JournalOffset, cause: DeathCause, reason: &str) -> Self {
        let end = reason.floor_char_boundary(Self::REASON_BYTES_MAX);
        Self { offset, cause, reason: Arc::from(&reason[..end]) }
    }
}

/// A write that will not be applied unless somebody replays it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadLetter {
    /// The lane it was in.
    pub lane: u16,
    /// What was to be written, with its age now.
    pub record: JournalRecord,
    /// Why it was not.
    pub death: Death,
}

/// How full a journal is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct JournalUsage {
    /// Records that are not trimmed, dead letters not among them.
    pub records: usize,
    /// Dead letters.
    pub dead_letters: usize,
    /// Bytes of both.
    pub bytes: u64,
    /// Beyond this an append is refused.
    pub bytes_max: u64,
    /// What the journal takes where it stands, with what is not freed yet.
    pub stored_bytes: u64,
    /// Whether it takes records. One whose disk failed does not until it has
    /// recovered.
    pub writable: bool,
}

/// A durable log of writes on their way to the origin, in lanes. One owner at a
/// time applies a lane, in order.
///
/// Implementations pass `journal_conformance!` of the testkit.
pub trait Journal: Send + Sync + 'static {
    /// What it is.
    fn profile(&self) -> JournalProfile;

    /// How full it is, as far as this process knows.
    fn usage(&self) -> JournalUsage;

    /// What it can do beside, if [`JournalProfile::shared`].
    fn sharing(&self) -> Option<&dyn JournalSharing> {
        None
    }

    /// Makes the caller the owner of a lane. Who was before is refused from now
    /// on, here and, by the epoch in its marks, at the origin.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if somebody else owns it and is alive.
    fn claim(&self, lane: u16) -> impl Future<Output = Result<LaneClaim>> + Send;

    /// Appends records to a lane, all or none of them, and returns the offset of
    /// the last one once they would survive what the profile says. Nobody need
    /// own the lane.
    ///
    /// After a failed sync a journal never tries the same sync again: it stops
    /// and recovers.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`]: the journal is full. [`ErrorKind::Unavailable`]:
    /// it cannot write now. [`ErrorKind::InvalidInput`]: a record is too large.
    /// None of them was accepted then. [`ErrorKind::OutcomeUnknown`]: they may
    /// be found after a restart.
    ///
    /// # Cancel safety
    /// The records of a dropped append may or may not be accepted.
    fn append(
        &self,
        lane: u16,
        records: &[JournalRecord],
    ) -> impl Future<Output = Result<JournalOffset>> + Send;

    /// Up to `most` records of a lane after `after`, oldest first, without dead
    /// letters.
    fn read(
        &self,
        lane: u16,
        after: JournalOffset,
        most: usize,
    ) -> impl Future<Output = Result<Vec<JournalEntry>>> + Send;

    /// Forgets what the origin has, up to and including `applied`. Dead letters
    /// stay.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the epoch is not that of the last claim.
    fn trim(
        &self,
        lane: u16,
        epoch: u64,
        applied: JournalOffset,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Makes records dead letters: they are read no more, and stay until they
    /// are replayed or dropped. One that is a dead letter already keeps its first
    /// reason; one that is not there is passed over. This is never refused for
    /// want of room in the journal's own bounds.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the epoch is not that of the last claim.
    fn bury(
        &self,
        lane: u16,
        epoch: u64,
        deaths: &[Death],
    ) -> impl Future<Output = Result<()>> + Send;

    /// Up to `most` dead letters of a lane after `after`, oldest first.
    fn dead_letters(
        &self,
        lane: u16,
        after: JournalOffset,
        most: usize,
    ) -> impl Future<Output = Result<Vec<DeadLetter>>> + Send;

    /// Appends a dead letter's write, or `instead` of it, as a new record at the
    /// end of the lane, and drops the letter, in one step. `None` if there is no
    /// such letter.
    ///
    /// # Errors
    /// As [`Journal::append`].
    fn replay(
        &self,
        lane: u16,
        letter: JournalOffset,
        instead: Option<&JournalRecord>,
    ) -> impl Future<Output = Result<Option<JournalOffset>>> + Send;

    /// Drops dead letters for good. Returns how many there were of these.
    fn drop_letters(
        &self,
        lane: u16,
        letters: &[JournalOffset],
    ) -> impl Future<Output = Result<usize>> + Send;
}

/// [`Journal`] behind a pointer: the twin that the engine holds.
pub trait DynJournal: Send + Sync + 'static {
    /// [`Journal::profile`].
    fn profile(&self) -> JournalProfile;
    /// [`Journal::usage`].
    fn usage(&self) -> JournalUsage;
    /// [`Journal::sharing`].
    fn sharing(&self) -> Option<&dyn JournalSharing>;
    /// [`Journal::claim`].
    fn claim(&self, lane: u16) -> BoxFuture<'_, Result<LaneClaim>>;
    /// [`Journal::append`].
    fn append<'a>(
        &'a self,
        lane: u16,
        records: &'a [JournalRecord],
    ) -> BoxFuture<'a, Result<JournalOffset>>;
    /// [`Journal::read`].
    fn read(
        &self,
        lane: u16,
        after: JournalOffset,
        most: usize,
    ) -> BoxFuture<'_, Result<Vec<JournalEntry>>>;
    /// [`Journal::trim`].
    fn trim(&self, lane: u16, epoch: u64, applied: JournalOffset) -> BoxFuture<'_, Result<()>>;
    /// [`Journal::bury`].
    fn bury<'a>(&'a self, lane: u16, epoch: u64, deaths: &'a [Death]) -> BoxFuture<'a, Result<()>>;
    /// [`Journal::dead_letters`].
    fn dead_letters(
        &self,
        lane: u16,
        after: JournalOffset,
        most: usize,
    ) -> BoxFuture<'_, Result<Vec<DeadLetter>>>;
    /// [`Journal::replay`].
    fn replay<'a>(
        &'a self,
        lane: u16,
        letter: JournalOffset,
        instead: Option<&'a JournalRecord>,
    ) -> BoxFuture<'a, Result<Option<JournalOffset>>>;
    /// [`Journal::drop_letters`].
    fn drop_letters<'a>(
        &'a self,
        lane: u16,
        letters: &'a [JournalOffset],
    ) -> BoxFuture<'a, Result<usize>>;
}

impl<J: Journal> DynJournal for J {
    fn profile(&self) -> JournalProfile {
        Journal::profile(self)
    }

    fn usage(&self) -> JournalUsage {
        Journal::usage(self)
    }

    fn sharing(&self) -> Option<&dyn JournalSharing> {
        Journal::sharing(self)
    }

    fn claim(&self, lane: u16) -> BoxFuture<'_, Result<LaneClaim>> {
        Box::pin(Journal::claim(self, lane))
    }

    fn append<'a>(
        &'a self,
        lane: u16,
        records: &'a [JournalRecord],
    ) -> BoxFuture<'a, Result<JournalOffset>> {
        Box::pin(Journal::append(self, lane, records))
    }

    fn read(
        &self,
        lane: u16,
        after: JournalOffset,
        most: usize,
    ) -> BoxFuture<'_, Result<Vec<JournalEntry>>> {
        Box::pin(Journal::read(self, lane, after, most))
    }

    fn trim(&self, lane: u16, epoch: u64, applied: JournalOffset) -> BoxFuture<'_, Result<()>> {
        Box::pin(Journal::trim(self, lane, epoch, applied))
    }

    fn bury<'a>(&'a self, lane: u16, epoch: u64, deaths: &'a [Death]) -> BoxFuture<'a, Result<()>> {
        Box::pin(Journal::bury(self, lane, epoch, deaths))
    }

    fn dead_letters(
        &self,
        lane: u16,
        after: JournalOffset,
        most: usize,
    ) -> BoxFuture<'_, Result<Vec<DeadLetter>>> {
        Box::pin(Journal::dead_letters(self, lane, after, most))
    }

    fn replay<'a>(
        &'a self,
        lane: u16,
        letter: JournalOffset,
        instead: Option<&'a JournalRecord>,
    ) -> BoxFuture<'a, Result<Option<JournalOffset>>> {
        Box::pin(Journal::replay(self, lane, letter, instead))
    }

    fn drop_letters<'a>(
        &'a self,
        lane: u16,
        letters: &'a [JournalOffset],
    ) -> BoxFuture<'a, Result<usize>> {
        Box::pin(Journal::drop_letters(self, lane, letters))
    }
}
