use std::future::Future;

use bytes::Bytes;

use crate::{Key, Result, Version};

/// A place in a journal. Offsets grow without gaps within one lane.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct JournalOffset(pub u64);

/// One acknowledged write that the origin does not have yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JournalRecord {
    /// The key written.
    pub key: Key,
    /// The encoded value; `None` is a removal.
    pub value: Option<Bytes>,
    /// The version of the write.
    pub version: Version,
}

/// A durable log of writes on their way to the origin.
pub trait Journal: Send + Sync + 'static {
    /// Appends to a lane and returns once the records would survive what this
    /// journal promises to survive. After a failed sync it never tries the same
    /// sync again: it stops and recovers.
    fn append(
        &self,
        lane: u16,
        records: &[JournalRecord],
    ) -> impl Future<Output = Result<JournalOffset>> + Send;

    /// Up to `most` records of a lane after `after`, oldest first.
    fn read(
        &self,
        lane: u16,
        after: JournalOffset,
        most: usize,
    ) -> impl Future<Output = Result<Vec<(JournalOffset, JournalRecord)>>> + Send;

    /// Forgets what the origin has, up to and including `applied`.
    fn trim(&self, lane: u16, applied: JournalOffset) -> impl Future<Output = Result<()>> + Send;
}
