use std::future::Future;
use std::time::{Duration, SystemTime};

use crate::{BoxFuture, Key, Result, Tag, Version};

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
    /// These keys are about to be written at the origin. What is read of them from
    /// now on may be what was there before, or what will never have been there: it is
    /// not kept before [`Change::Written`] says that it is over, or this time has
    /// passed and whoever announced it is gone.
    Writing {
        /// What is written.
        keys: Vec<Key>,
        /// A number that no other write has.
        write: u64,
        /// After this long the write has happened or never will.
        within: Duration,
    },
    /// These keys have been written at the origin, or will not be.
    Written {
        /// What was to be written.
        keys: Vec<Key>,
        /// The number of the write.
        write: u64,
    },
    /// Each entry is touched at a moment of its own within a window, which follows
    /// from its key. Shared stores take it as if it were to be at once: only
    /// memory has it by and by.
    Gradual {
        /// What is touched: [`Change::Keys`], [`Change::Tags`] or [`Change::All`].
        change: Box<Change>,
        /// When it is over.
        window: Window,
    },
}

/// The time in which a gradual change takes place.
///
/// It ends at a time of the wall clock, so that who hears of it late ends with the
/// others. No clock decides what is older: versions do. A node whose clock is
/// behind ends later, but never later than `length` after it heard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Window {
    /// How long it is.
    pub length: Duration,
    /// When it ends, in milliseconds since 1970.
    pub ends_at_millis: u64,
}

impl Window {
    /// One of this length that begins now.
    #[must_use]
    pub fn beginning_now(length: Duration) -> Self {
        let end = unix_time().saturating_add(length);
        Self { length, ends_at_millis: millis(end) }
    }

    /// How much of it is left.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        Duration::from_millis(self.ends_at_millis).saturating_sub(unix_time()).min(self.length)
    }
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Change {
    /// What it touches, whenever that is.
    #[must_use]
    pub fn touched(&self) -> &Self {
        match self {
            Self::Gradual { change, .. } => change.touched(),
            change => change,
        }
    }

    /// The same about something else, at the same time.
    #[must_use]
    pub fn touching(&self, touched: Self) -> Self {
        match self {
            Self::Gradual { window, .. } => {
                Self::Gradual { change: Box::new(touched), window: *window }
            }
            _ => touched,
        }
    }

    /// The keys it is about; `None` if it is not about certain keys.
    #[must_use]
    pub fn keys(&self) -> Option<&[Key]> {
        match self {
            Self::Keys(keys) | Self::Writing { keys, .. } | Self::Written { keys, .. } => {
                Some(keys)
            }
            Self::Gradual { change, .. } => change.keys(),
            Self::Tags(_) | Self::All => None,
        }
    }

    /// The same about other keys; itself if it is not about certain keys.
    #[must_use]
    pub fn about(&self, keys: Vec<Key>) -> Self {
        match self {
            Self::Keys(_) => Self::Keys(keys),
            Self::Writing { write, within, .. } => {
                Self::Writing { keys, write: *write, within: *within }
            }
            Self::Written { write, .. } => Self::Written { keys, write: *write },
            Self::Gradual { change, .. } => self.touching(change.about(keys)),
            Self::Tags(_) | Self::All => self.clone(),
        }
    }
}

/// A place in the stream of a bus. Positions of different epochs cannot be
/// compared: a new epoch means that history was lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BusPosition {
    /// Which incarnation of the stream.
    pub epoch: u64,
    /// The place in it; the next message has the next number.
    pub sequence: u64,
}

/// A change that was announced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Published {
    /// Its version.
    pub version: Version,
    /// Where it stands in the stream: the last message, if it took several.
    pub position: BusPosition,
}

/// A change to announce.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announcement {
    /// The cache it is about.
    pub cache: String,
    /// What it touched.
    pub change: Change,
    /// Expire or remove.
    pub verb: Verb,
}

/// One change, as every node hears of it, the one that announced it included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BusMessage {
    /// Where it stands in the stream.
    pub position: BusPosition,
    /// The version of the change: older entries are touched, newer ones not.
    pub version: Version,
    /// What changed.
    pub announcement: Announcement,
}

/// What a subscriber hears.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BusEvent {
    /// A change. Messages come in the order of the stream, each once.
    Message(BusMessage),
    /// Every change that was announced before this moment minus `age` has been
    /// heard: what is in memory is as current as that. Comes at every heartbeat,
    /// and only when no message is missing.
    Current {
        /// For how long at most this has been on its way.
        age: Duration,
        /// The last message heard.
        head: BusPosition,
        /// No change so far has a higher version.
        version: Version,
    },
    /// Messages were lost, or may have been: a new epoch, a stream that is
    /// shorter than it was, or trimmed past this reader. What is held may be
    /// invalid without anybody saying so again.
    Lost {
        /// From where messages follow.
        head: BusPosition,
        /// No change so far has a higher version, and it is higher than any that
        /// this node had heard of or been given: what began before is told by its
        /// version.
        version: Version,
        /// Only this reader has missed something: the server that keeps the order has
        /// been the one all along, and every change it has acknowledged is in stores
        /// that follow it in step. In doubt it is not so.
        is_intact: bool,
    },
    /// The connection was made anew, perhaps to another server that lacks what
    /// the old one had acknowledged. Whoever announced a change a short time ago
    /// announces it again.
    Reconnected,
}

/// How nodes tell one another what changed, and the order of changes.
///
/// A bus may lose messages; it may not hide that it did: a subscriber that has
/// not heard [`BusEvent::Current`] for some time does not know whether what it
/// holds is valid.
pub trait Bus: Send + Sync + 'static {
    /// What [`Bus::subscribe`] gives.
    type Subscription: Subscription + 'static;

    /// Announces a change. Its version is higher than that of every change
    /// announced before, and higher than `after`: what the caller knows of, should
    /// the bus have forgotten. One round trip. An error means that it may or may
    /// not have been announced.
    fn publish(
        &self,
        announcement: &Announcement,
        after: Version,
    ) -> impl Future<Output = Result<Published>> + Send;

    /// Listens from behind `after`, or from the head. `known` is the highest
    /// version the caller knows of: what is announced from now on has a higher one.
    /// Returns once it is known whether `after` can be continued; if not,
    /// [`BusEvent::Lost`] is the first event.
    fn subscribe(
        &self,
        after: Option<BusPosition>,
        known: Version,
    ) -> impl Future<Output = Result<Self::Subscription>> + Send;
}

/// A place to hear from a bus. It reconnects by itself, for as long as it takes.
pub trait Subscription: Send {
    /// The next event. `None` when the bus was shut down.
    ///
    /// # Cancel safety
    /// A dropped wait loses no event.
    fn next(&mut self) -> impl Future<Output = Option<BusEvent>> + Send;
}

/// [`Bus`] behind a pointer: the twin that the engine holds.
pub trait DynBus: Send + Sync + 'static {
    /// [`Bus::publish`].
    fn publish<'a>(
        &'a self,
        announcement: &'a Announcement,
        after: Version,
    ) -> BoxFuture<'a, Result<Published>>;
    /// [`Bus::subscribe`].
    fn subscribe(
        &self,
        after: Option<BusPosition>,
        known: Version,
    ) -> BoxFuture<'_, Result<Box<dyn DynSubscription>>>;
}

impl<B: Bus> DynBus for B {
    fn publish<'a>(
        &'a self,
        announcement: &'a Announcement,
        after: Version,
    ) -> BoxFuture<'a, Result<Published>> {
        Box::pin(Bus::publish(self, announcement, after))
    }

    fn subscribe(
        &self,
        after: Option<BusPosition>,
        known: Version,
    ) -> BoxFuture<'_, Result<Box<dyn DynSubscription>>> {
        Box::pin(async move {
            let subscription = Bus::subscribe(self, after, known).await?;
            Ok(Box::new(subscription) as Box<dyn DynSubscription>)
        })
    }
}

/// [`Subscription`] behind a pointer.
pub trait DynSubscription: Send {
    /// [`Subscription::next`].
    fn next(&mut self) -> BoxFuture<'_, Option<BusEvent>>;
}

impl<S: Subscription> DynSubscription for S {
    fn next(&mut self) -> BoxFuture<'_, Option<BusEvent>> {
        Box::pin(Subscription::next(self))
    }
}
