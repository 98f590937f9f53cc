use std::time::Duration;

use super::JournalOffset;
use crate::{BoxFuture, Result};

/// What a journal can do that several processes share: leases of lanes, who is
/// alive, and news.
///
/// A claim of a lane of such a journal ends by itself unless it is renewed. Who
/// claims a lane that another one holds is refused for as long.
pub trait JournalSharing: Send + Sync {
    /// For how long a claim holds that is not renewed.
    fn lease(&self) -> Duration;

    /// Says that this process is alive, makes these claims, each a lane and its
    /// epoch, hold for another [`JournalSharing::lease`], and tells how things are.
    /// A claim that another one has followed is not renewed, and nothing is said
    /// of it but who holds the lane. One round trip.
    fn renew<'a>(&'a self, claims: &'a [(u16, u64)]) -> BoxFuture<'a, Result<JournalCensus>>;

    /// Gives claims up, so that others need not wait until they end. One round
    /// trip.
    fn release<'a>(&'a self, claims: &'a [(u16, u64)]) -> BoxFuture<'a, Result<()>>;

    /// Says that this process is gone, and gives up all its claims. One round trip.
    fn leave(&self) -> BoxFuture<'_, Result<()>>;

    /// Asks whoever holds a lane to apply all up to here now. One round trip.
    fn hurry(&self, lane: u16, to: JournalOffset) -> BoxFuture<'_, Result<()>>;

    /// The records behind what is trimmed that were made dead letters by
    /// anybody, whether they still are or were replayed or dropped.
    fn buried(&self, lane: u16) -> BoxFuture<'_, Result<Vec<JournalOffset>>>;

    /// Waits until something may have changed: records, trims, claims. Returns for
    /// nothing now and then.
    ///
    /// # Errors
    /// If nobody can tell at the moment.
    ///
    /// # Cancel safety
    /// What a dropped call would have told is told by none: look at a census then.
    fn news(&self) -> BoxFuture<'_, Result<()>>;
}

/// How a shared journal is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct JournalCensus {
    /// How many processes are alive, this one included.
    pub nodes: usize,
    /// Each lane.
    pub lanes: Vec<LaneCensus>,
}

impl JournalCensus {
    /// What was found out.
    #[must_use]
    pub const fn new(nodes: usize, lanes: Vec<LaneCensus>) -> Self {
        Self { nodes, lanes }
    }
}

/// How a lane of a shared journal is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneCensus {
    /// Who holds it.
    pub holder: LaneHolder,
    /// The epoch of the last claim.
    pub epoch: u64,
    /// All up to here was trimmed.
    pub trimmed: JournalOffset,
    /// The last record that was appended.
    pub last: JournalOffset,
    /// Somebody wants all up to here to be applied now.
    pub hurry_to: JournalOffset,
}

/// Who holds a lane of a shared journal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LaneHolder {
    /// Nobody: it can be claimed.
    Nobody,
    /// This process.
    Here,
    /// Another one.
    Elsewhere,
}
