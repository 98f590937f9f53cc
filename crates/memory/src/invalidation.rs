use larder_core::{Moment, Version};

use crate::sync::{AtomicU64, Ordering};

/// Watermarks: what began before them is removed or expired.
///
/// An entry whose version is *below* `removed` must not be served; one whose
/// version is below `expired` is no longer fresh.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Watermarks {
    /// The newest removal.
    pub removed: Version,
    /// The newest expiry.
    pub expired: Version,
}

impl Watermarks {
    /// The higher of both, each by itself.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { removed: self.removed.max(other.removed), expired: self.expired.max(other.expired) }
    }
}

/// Watermarks that rise while others read them.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    removed: AtomicU64,
    expired: AtomicU64,
    /// When `expired` was last raised, in nanoseconds of [`Moment`].
    expired_at: AtomicU64,
}

impl Marks {
    pub(crate) fn starting_at(marks: Watermarks) -> Self {
        Self {
            removed: AtomicU64::new(marks.removed.get()),
            expired: AtomicU64::new(marks.expired.get()),
            expired_at: AtomicU64::new(Moment::NEVER.as_nanos()),
        }
    }

    pub(crate) fn remove(&self, version: Version) {
        self.removed.fetch_max(version.get(), Ordering::AcqRel);
    }

    /// `at` is when what began before `version` stops being fresh;
    /// [`Moment::NEVER`] stands for "when that is first noticed".
    pub(crate) fn expire(&self, version: Version, at: Moment) {
        self.expired_at.store(at.as_nanos(), Ordering::Release);
        self.expired.fetch_max(version.get(), Ordering::AcqRel);
    }

    pub(crate) fn read(&self) -> Watermarks {
        Watermarks {
            removed: Version::new(self.removed.load(Ordering::Acquire)),
            expired: Version::new(self.expired.load(Ordering::Acquire)),
        }
    }

    pub(crate) fn removes(&self, version: Version) -> bool {
        version.get() < self.removed.load(Ordering::Acquire)
    }

    /// Since when what has this version is expired, or `None` if it is not.
    pub(crate) fn expires(&self, version: Version) -> Option<Moment> {
        (version.get() < self.expired.load(Ordering::Acquire))
            .then(|| Moment::from_nanos(self.expired_at.load(Ordering::Acquire)))
    }
}

/// Invalidations of the whole tier, and the count of all of any kind that tells
/// a hit in one comparison whether it has to look closer.
#[derive(Debug, Default)]
pub(crate) struct Invalidations {
    /// Counts invalidations of every kind. Raised *after* the watermark it
    /// announces: whoever reads the count sees every watermark it stands for.
    count: AtomicU64,
    /// Of these, the ones that leave entries to reclaim.
    removals: AtomicU64,
    pub(crate) tier: Marks,
}

impl Invalidations {
    #[inline]
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    pub(crate) fn removals(&self) -> u64 {
        self.removals.load(Ordering::Acquire)
    }

    pub(crate) fn announce_removal(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        self.removals.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn announce_expiry(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
    }
}
