use std::collections::VecDeque;

use larder_core::{Announcement, BusMessage, Version};

use super::{EPOCH_STEP, FaultyBus, Stream};
use crate::faulty::FaultyStore;

/// What a server has that takes over when the other is gone.
#[derive(Debug)]
pub(super) struct Replica {
    epoch: u64,
    first: u64,
    messages: VecDeque<BusMessage>,
    version: Version,
    followers: Vec<FaultyStore>,
}

impl FaultyBus {
    /// Has a store of this cache follow the bus, as one on the same server: announcing
    /// a change invalidates there, in the same step. See [`FaultyStore::following`].
    pub fn attach(&self, cache: &str, store: &FaultyStore) {
        self.stream().followers.push((cache.to_owned(), store.clone()));
    }

    /// A replica has everything of now, of the stores that follow as well, and nothing
    /// of what comes.
    pub fn hold_replica(&self) {
        let mut stream = self.stream();
        let replica = Replica {
            epoch: stream.epoch,
            first: stream.first,
            messages: stream.messages.clone(),
            version: stream.version,
            followers: stream.followers.iter().map(|(_, store)| store.copied()).collect(),
        };
        stream.replica = Some(Box::new(replica));
    }

    /// The replica takes over, if there is one: what was announced since is gone, and
    /// every connection is made anew. Returns whether there was.
    pub fn fail_over(&self) -> bool {
        let mut stream = self.stream();
        let Some(replica) = stream.replica.take() else { return false };
        (stream.epoch, stream.first) = (replica.epoch, replica.first);
        (stream.messages, stream.version) = (replica.messages, replica.version);
        for ((_, store), copy) in stream.followers.iter().zip(&replica.followers) {
            store.become_like(copy);
        }
        stream.primary += 1;
        drop(stream);
        self.stream.changed.send_replace(());
        true
    }
}

impl Stream {
    pub(super) fn begin_epoch(&mut self, known: Version) {
        self.epoch += 1;
        self.first = 1;
        self.messages.clear();
        self.version = Version::new(self.version.max(known).get() + EPOCH_STEP);
    }

    pub(super) fn tell_followers(&self, announcement: &Announcement, version: Version) {
        for (cache, store) in &self.followers {
            if *cache == announcement.cache {
                store.follow(&announcement.change, announcement.verb, version);
            }
        }
    }
}
