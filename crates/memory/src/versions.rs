use larder_core::Version;

use crate::sync::{AtomicU64, Ordering};

/// Hands out the versions of one cache: every load and every invalidation takes
/// one, and the numbers say which came first.
#[derive(Debug, Default)]
pub struct Versions(AtomicU64);

impl Versions {
    /// A version newer than every one handed out before.
    pub fn next(&self) -> Version {
        Version::new(self.0.fetch_add(1, Ordering::AcqRel) + 1)
    }

    /// The newest version handed out.
    #[must_use]
    pub fn current(&self) -> Version {
        Version::new(self.0.load(Ordering::Acquire))
    }

    /// Makes later versions newer than one that came from elsewhere.
    pub fn observe(&self, version: Version) {
        self.0.fetch_max(version.get(), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(not(shuttle))]
    #[test]
    fn versions_only_rise() {
        let versions = Versions::default();
        let first = versions.next();
        assert!(first > Version::ZERO);
        assert!(versions.next() > first);
        versions.observe(Version::new(100));
        versions.observe(Version::new(50));
        assert_eq!(versions.current(), Version::new(100));
        assert_eq!(versions.next(), Version::new(101));
    }
}
