use std::collections::BTreeMap;

use larder_core::{BusPosition, Published, Version};

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
    /// Every change of this history up to this sequence was heard, is known to be
    /// missing, or is this process' own.
    epoch: u64,
    sequence: u64,
    /// The version of the last of them. Others may have numbers in between, but no
    /// message has one.
    complete: Version,
    /// Changes of this process behind one that is not heard of yet, by their sequence.
    own: BTreeMap<u64, Version>,
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
        let BusPosition { epoch, sequence } = place.position;
        if epoch != self.epoch {
            self.own.clear();
            (self.epoch, self.sequence) = (epoch, sequence);
        } else if sequence > self.sequence {
            self.sequence = sequence;
            self.own = self.own.split_off(&(sequence + 1));
        }
        self.advance();
    }

    /// A change of this process stands there.
    pub(super) fn announced(&mut self, Published { version, position }: Published) {
        let is_ahead = position.epoch == self.epoch && position.sequence > self.sequence;
        // One that is forgotten counts as anybody's.
        if is_ahead && self.own.len() < OWN_MAX {
            self.own.insert(position.sequence, version);
            self.advance();
        }
    }

    /// Nobody knows what was said since.
    pub(super) fn begin_anew(&mut self) {
        self.place = None;
    }

    /// Sequences have no gaps: between two that follow each other there is no change of
    /// anybody.
    fn advance(&mut self) {
        while let Some(version) = self.own.remove(&(self.sequence + 1)) {
            self.sequence += 1;
            self.complete = self.complete.max(version);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Versions are ten times the sequence: others have the numbers in between.
    fn published(sequence: u64) -> Published {
        let position = BusPosition { epoch: 1, sequence };
        Published { version: Version::new(10 * sequence), position }
    }

    fn reach(progress: &mut Progress, epoch: u64, sequence: u64) -> u64 {
        let Published { version, position } = published(sequence);
        let position = BusPosition { epoch, ..position };
        progress.reach(Place { position, version, ear: 1 });
        progress.complete().get()
    }

    #[test]
    fn what_is_announced_counts_once_nothing_before_it_is_unheard() {
        let mut progress = Progress::default();
        assert_eq!(reach(&mut progress, 1, 9), 90);
        progress.announced(published(10));
        assert_eq!(progress.complete().get(), 100, "nobody else has said anything");
        progress.announced(published(12));
        progress.announced(published(13));
        assert_eq!(progress.complete().get(), 100, "somebody has said the eleventh");
        assert_eq!(reach(&mut progress, 1, 10), 100);
        assert_eq!(reach(&mut progress, 1, 11), 130);
        progress.announced(published(12));
        assert_eq!(progress.complete().get(), 130);
        for sequence in 0..2000 {
            progress.announced(published(100 + sequence));
        }
        assert_eq!(progress.own.len(), OWN_MAX);
        assert_eq!(reach(&mut progress, 1, 2100), 21_000);
        assert!(progress.own.is_empty());
    }

    #[test]
    fn what_was_announced_in_another_history_does_not_count() {
        let mut progress = Progress::default();
        assert_eq!(reach(&mut progress, 1, 9), 90);
        progress.announced(published(11));
        assert_eq!(reach(&mut progress, 2, 10), 100);
        progress.announced(published(11));
        assert_eq!(progress.complete().get(), 100);
        assert!(progress.own.is_empty());
    }
}
