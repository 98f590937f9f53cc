use std::collections::BTreeSet;

use larder_core::{BusPosition, Version};

/// How far a process has heard: everything up to here was handed to its caches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// The last message.
    pub(crate) position: BusPosition,
    /// Every change of this version or an older one was heard, or is known to be
    /// missing.
    pub(crate) version: Version,
    /// Which listening it is: between two of them anything may have been missed.
    pub(crate) ear: u64,
}

impl Place {
    /// Whether whoever has heard up to this position lacks nothing that is in front
    /// of this place.
    pub(crate) fn is_reached_by(&self, position: BusPosition) -> bool {
        position.epoch == self.position.epoch && position.sequence >= self.position.sequence
    }
}

/// So many changes of this process are remembered until they are heard back.
const OWN_MAX: usize = 1024;

/// What a process has heard, and what it has announced beyond that.
#[derive(Default)]
pub(super) struct Progress {
    place: Option<Place>,
    /// Every change of this version or an older one was heard, is known to be missing,
    /// or is this process' own.
    complete: Version,
    /// Changes of this process behind one that is not heard of yet.
    own: BTreeSet<Version>,
}

impl Progress {
    pub(super) fn place(&self) -> Option<Place> {
        self.place
    }

    pub(super) fn complete(&self) -> Version {
        self.complete
    }

    /// Everything up to here was heard.
    pub(super) fn reach(&mut self, place: Place) {
        self.place = Some(place);
        self.complete = self.complete.max(place.version);
        self.own = self.own.split_off(&self.complete.above());
        self.advance();
    }

    /// A change of this process got this version.
    pub(super) fn announced(&mut self, version: Version) {
        // One that is forgotten counts as anybody's.
        if version > self.complete && self.own.len() < OWN_MAX {
            self.own.insert(version);
            self.advance();
        }
    }

    /// Nobody knows what was said since.
    pub(super) fn begin_anew(&mut self) {
        self.place = None;
    }

    /// A bus gives each version once: between two that follow each other there is no
    /// change of anybody.
    fn advance(&mut self) {
        while self.own.remove(&self.complete.above()) {
            self.complete = self.complete.above();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_counts_once_nothing_before_it_is_unheard() {
        let mut progress = Progress::default();
        let reach = |progress: &mut Progress, version| {
            let position = BusPosition { epoch: 1, sequence: version };
            progress.reach(Place { position, version: Version::new(version), ear: 1 });
            progress.complete().get()
        };
        assert_eq!(reach(&mut progress, 9), 9);
        progress.announced(Version::new(10));
        assert_eq!(progress.complete().get(), 10, "nobody else has said anything");
        progress.announced(Version::new(12));
        progress.announced(Version::new(13));
        assert_eq!(progress.complete().get(), 10, "somebody has said the eleventh");
        assert_eq!(reach(&mut progress, 10), 10);
        assert_eq!(reach(&mut progress, 11), 13);
        progress.announced(Version::new(12));
        assert_eq!(progress.complete().get(), 13);
        for version in 0..2000 {
            progress.announced(Version::new(100 + version));
        }
        assert_eq!(progress.own.len(), OWN_MAX);
        assert_eq!(reach(&mut progress, 2000), 2000);
        assert!(progress.own.is_empty());
    }
}
