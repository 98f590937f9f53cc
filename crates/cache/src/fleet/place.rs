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
