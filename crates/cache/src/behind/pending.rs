use bytes::Bytes;
use larder_core::{Action, Expected, JournalOffset, JournalRecord, Version};

/// What a key will be once everything is applied that was accepted.
///
/// Where the base is [`PendingBase::Origin`], take this, read the origin, and
/// take it again: only if `first` is the same, both are certain and neither is being
/// applied does what was read go with the changes of the second.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Pending {
    /// What the changes are made to.
    pub base: PendingBase,
    /// Patches and additions, oldest first. To read the key, do these to the base.
    pub changes: Vec<Action<Bytes>>,
    /// The version of the last write.
    pub version: Version,
    /// The oldest write that waits: once it is another one, the origin has more than
    /// it had.
    pub first: JournalOffset,
    /// The last write.
    pub offset: JournalOffset,
    /// Whether nothing can come otherwise: no write that waits has an expectation
    /// that may fail, and the origin has said what it has already.
    pub certain: bool,
    /// Whether a write of the key is on its way to the origin just now: what is
    /// read there may have it already, and an addition must not be added to that
    /// a second time.
    pub applying: bool,
}

/// What waiting changes are made to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PendingBase {
    /// What the origin has: it must be read there.
    Origin,
    /// This value.
    Value(Bytes),
    /// Nothing: the key is gone.
    Absent,
}

impl Pending {
    /// Before any write.
    pub(super) const fn new() -> Self {
        Self {
            base: PendingBase::Origin,
            changes: Vec::new(),
            version: Version::ZERO,
            first: JournalOffset::START,
            offset: JournalOffset::START,
            certain: true,
            applying: false,
        }
    }

    /// Takes the next write of the key into account.
    pub(super) fn push(&mut self, offset: u64, record: &JournalRecord) {
        if self.first == JournalOffset::START {
            self.first = JournalOffset(offset);
        }
        self.offset = JournalOffset(offset);
        self.version = self.version.max(record.version);
        let is_sure = record.write.expected == Expected::Anything;
        match &record.write.action {
            Action::Put(value) => self.rebase(PendingBase::Value(value.clone()), is_sure),
            Action::Remove => self.rebase(PendingBase::Absent, is_sure),
            // It will find nothing to change.
            _ if self.base == PendingBase::Absent => {}
            change => {
                self.certain &= is_sure;
                self.change(change);
            }
        }
    }

    fn rebase(&mut self, base: PendingBase, is_sure: bool) {
        self.base = base;
        self.changes.clear();
        // What came before does not matter any more, unless this one fails.
        self.certain = is_sure;
    }

    fn change(&mut self, change: &Action<Bytes>) {
        if let (Some(Action::Add { field, by }), Action::Add { field: other, by: more }) =
            (self.changes.last_mut(), change)
            && field == other
            && let Some(sum) = by.checked_add(*more)
        {
            *by = sum;
            return;
        }
        self.changes.push(change.clone());
    }
}
