use redis::cluster_routing::Slot;

/// The keys of one journal, which share a slot of a cluster.
#[derive(Clone, Debug)]
pub(super) struct JournalKeys(Vec<u8>);

impl JournalKeys {
    pub(super) fn new(start: Vec<u8>) -> Self {
        Self(start)
    }

    pub(super) fn slot(&self) -> Slot {
        Slot::for_key(self.head())
    }

    /// A hash: name, server, term, counts; of each lane places, epochs, holders; of
    /// each process that appends the number of its last call and what was answered.
    pub(super) fn head(&self) -> Vec<u8> {
        self.key("head")
    }

    /// A stream of next to nothing, which wakes who waits.
    pub(super) fn news(&self) -> Vec<u8> {
        self.key("news")
    }

    /// A sorted set: the processes that live, by until when.
    pub(super) fn nodes(&self) -> Vec<u8> {
        self.key("nodes")
    }

    /// A stream: the records of a lane. An id is the place, and the server's time
    /// in microseconds when it was accepted.
    pub(super) fn stream(&self, lane: u16) -> Vec<u8> {
        self.key(&format!("lane:{lane}"))
    }

    /// A hash: dead letters of a lane by their place.
    pub(super) fn letters(&self, lane: u16) -> Vec<u8> {
        self.key(&format!("letters:{lane}"))
    }

    /// A sorted set: the places of the dead letters of a lane.
    pub(super) fn places(&self, lane: u16) -> Vec<u8> {
        self.key(&format!("places:{lane}"))
    }

    /// A sorted set: what was buried in a lane and is not trimmed, whatever became
    /// of the letter.
    pub(super) fn buried(&self, lane: u16) -> Vec<u8> {
        self.key(&format!("buried:{lane}"))
    }

    /// Everything but the head and the news.
    pub(super) fn others(&self, lanes: u16) -> Vec<Vec<u8>> {
        let of_lane =
            |lane| [self.stream(lane), self.letters(lane), self.places(lane), self.buried(lane)];
        std::iter::once(self.nodes()).chain((0..lanes).flat_map(of_lane)).collect()
    }

    fn key(&self, name: &str) -> Vec<u8> {
        [self.0.as_slice(), name.as_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Names;

    #[test]
    fn all_keys_of_a_journal_share_a_slot_and_the_prefix() {
        let names = Names::new("larder");
        let keys = JournalKeys::new(names.journal("behind"));
        let all = [vec![keys.head(), keys.news()], keys.others(4)].concat();
        assert_eq!(all.len(), 3 + 4 * 4);
        for key in &all {
            assert_eq!(Slot::for_key(key), keys.slot(), "{}", key.escape_ascii());
            assert!(key.starts_with(b"larder:"), "the rights of a tier's user cover it");
        }
        let other = JournalKeys::new(names.journal("audit"));
        assert_ne!(other.slot(), keys.slot());
    }
}
