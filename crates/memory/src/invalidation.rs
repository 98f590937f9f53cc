use larder_core::{Moment, Version, allocation_size};

use crate::sync::{AtomicU64, Mutex, Ordering, Padded};

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
    /// Raised under the lock of `expiries`, and read without it: only who is
    /// below it has to ask since when.
    expired: AtomicU64,
    expiries: Mutex<Expiries>,
}

/// When each of the last expiries came. An entry that nobody looked at between
/// two of them has been expired since the first.
#[derive(Debug)]
struct Expiries {
    /// Of the one with the version in [`Marks::expired`].
    newest_at: Moment,
    /// Most tags are never expired twice before a load, so these are apart.
    earlier: Option<Box<Earlier>>,
}

/// Expiries in order of version; vacant ones come first and have version zero,
/// which is above nothing.
type Earlier = [Expiry; 4];

/// What has a version below this one is expired since then.
#[derive(Clone, Copy, Debug)]
struct Expiry {
    version: Version,
    at: Moment,
}

impl Marks {
    pub(crate) fn starting_at(marks: Watermarks) -> Self {
        Self {
            removed: AtomicU64::new(marks.removed.get()),
            expired: AtomicU64::new(marks.expired.get()),
            expiries: Mutex::default(),
        }
    }

    pub(crate) fn remove(&self, version: Version) {
        self.removed.fetch_max(version.get(), Ordering::AcqRel);
    }

    /// `at` is when what began before `version` stops being fresh.
    pub(crate) fn expire(&self, version: Version, at: Moment) {
        let mut expiries = self.expiries.lock();
        let newest = Version::new(self.expired.load(Ordering::Acquire));
        if version > newest {
            let before = Expiry { version: newest, at: expiries.newest_at };
            expiries.newest_at = at;
            expiries.keep(before);
            self.expired.store(version.get(), Ordering::Release);
        } else {
            expiries.keep(Expiry { version, at });
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.expiries.lock().earlier.as_ref().map_or(0, |_| allocation_size(size_of::<Earlier>()))
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
    /// [`Moment::NEVER`] stands for "since that is first noticed".
    pub(crate) fn expires(&self, version: Version) -> Option<Moment> {
        (version.get() < self.expired.load(Ordering::Acquire))
            .then(|| self.expiries.lock().since(version))
    }
}

impl Expiries {
    /// Remembers an expiry that is not the newest.
    fn keep(&mut self, expiry: Expiry) {
        // One that did not come before the newest tells nothing that the newest
        // does not. That is also so for the mark a cell starts with.
        if expiry.version == Version::ZERO || expiry.at >= self.newest_at {
            return;
        }
        let vacant = Expiry { version: Version::ZERO, at: Moment::NEVER };
        let earlier = self.earlier.get_or_insert_with(|| Box::new([vacant; 4]));
        let [first, second, ..] = &mut **earlier;
        // Full: the two oldest become one that covers both, from the first on. It
        // may date an expiry too early, never too late.
        second.at = second.at.min(first.at);
        *first = expiry;
        earlier.sort_unstable_by_key(|expiry| expiry.version);
    }

    /// The first moment at which something of this version, which the newest
    /// expiry is above of, was expired.
    fn since(&self, version: Version) -> Moment {
        let earlier = self.earlier.iter().flat_map(|earlier| earlier.iter());
        let met = earlier.filter(|expiry| version < expiry.version);
        met.map(|expiry| expiry.at).fold(self.newest_at, Moment::min)
    }
}

impl Default for Expiries {
    fn default() -> Self {
        Self { newest_at: Moment::NEVER, earlier: None }
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
    /// Apart from the count, which every hit reads: a closer look takes a lock.
    pub(crate) tier: Padded<Marks>,
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

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    fn marks(expiries: &[(u64, u64)]) -> Marks {
        let marks = Marks::default();
        for (version, seconds) in expiries {
            marks.expire(Version::new(*version), at(*seconds));
        }
        marks
    }

    #[test]
    fn what_was_expired_before_keeps_its_date() {
        let marks = marks(&[(10, 1), (20, 2), (30, 3)]);
        let since = |version| marks.expires(Version::new(version));
        assert_eq!([since(9), since(10), since(19)], [Some(at(1)), Some(at(2)), Some(at(2))]);
        assert_eq!([since(20), since(29), since(30)], [Some(at(3)), Some(at(3)), None]);
    }

    #[test]
    fn expiries_may_come_in_any_order() {
        let marks = marks(&[(30, 3), (10, 1), (20, 2)]);
        for (version, since) in [(5, Some(at(1))), (15, Some(at(2))), (25, Some(at(3))), (30, None)]
        {
            assert_eq!(marks.expires(Version::new(version)), since, "version {version}");
        }
    }

    #[test]
    fn many_expiries_are_dated_too_early_rather_than_too_late() {
        let times: Vec<(u64, u64)> = (1..=1000).map(|number| (number * 10, number)).collect();
        let marks = marks(&times);
        for (version, seconds) in times {
            let since = marks.expires(Version::new(version - 1)).expect("it is expired");
            assert!(since <= at(seconds), "version {version} is dated too late");
            assert!(version < 9_970 || since == at(seconds), "the last ones are exact");
        }
        assert_eq!(marks.expires(Version::new(10_000)), None);
    }

    #[test]
    fn a_mark_without_a_date_gets_none_from_the_one_after() {
        let marks =
            Marks::starting_at(Watermarks { expired: Version::new(5), ..Watermarks::default() });
        assert_eq!(marks.expires(Version::new(4)), Some(Moment::NEVER));
        marks.expire(Version::new(9), at(2));
        assert_eq!(marks.expires(Version::new(4)), Some(at(2)));
        assert!(marks.expiries.lock().earlier.is_none());
    }
}
