use std::future::Future;

use crate::{Key, Result, Tag, Version};

/// Whether what is invalidated may still be served stale.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verb {
    /// It may, until its stale window ends.
    Expire,
    /// It may not.
    Remove,
}

/// What a change touched.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Change {
    /// These keys.
    Keys(Vec<Key>),
    /// Every entry with one of these tags.
    Tags(Vec<Tag>),
    /// Every entry of the cache.
    All,
}

/// A place in the stream of one publisher. Positions of different epochs cannot
/// be compared: a new epoch means that history was lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BusPosition {
    /// Which incarnation of the stream.
    pub epoch: u64,
    /// The place in it; the next message has the next number.
    pub sequence: u64,
}

/// One change, as every node hears of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BusMessage {
    /// Where it stands in the stream.
    pub position: BusPosition,
    /// The cache it is about.
    pub cache: String,
    /// What it touched.
    pub change: Change,
    /// Expire or remove.
    pub verb: Verb,
    /// The version of the change: older entries are touched, newer ones not.
    pub version: Version,
}

/// How nodes tell one another what changed.
///
/// A bus may lose messages; it may not hide that it did. Subscribers find gaps
/// by sequence, by epoch, and by the head that each heartbeat carries.
pub trait Bus: Send + Sync + 'static {
    /// Announces a change and returns where it stands in the stream. One round
    /// trip. An error means that it may or may not have been announced.
    fn publish(
        &self,
        cache: &str,
        change: Change,
        verb: Verb,
        version: Version,
    ) -> impl Future<Output = Result<BusPosition>> + Send;

    /// Listens from `after`, or from the head.
    fn subscribe(
        &self,
        after: Option<BusPosition>,
    ) -> impl Future<Output = Result<impl Subscription>> + Send;
}

/// What a subscriber hears.
pub trait Subscription: Send {
    /// The next message. `None` when the bus was shut down.
    ///
    /// # Cancel safety
    /// A dropped wait loses no message.
    fn next(&mut self) -> impl Future<Output = Option<Result<BusMessage>>> + Send;

    /// The head that the last heartbeat carried.
    fn head(&self) -> Option<BusPosition>;
}
