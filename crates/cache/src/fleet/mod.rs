//! The other nodes: what is told to them, and what they say.
//!
//! ```text
//! Fleet       a process' place among the nodes: one bus, one ear, one outbox
//!   ├ listen  hands what is heard to the caches it is about
//!   ├ post    announces what could not be announced at once
//!   ├ replay  what was said while this process was not there
//!   ├ keep    has stores note up to where they have heard
//!   └ Outbox  what is to be announced, and what was a short time ago
//! Seat        a cache's place in the fleet of its process
//! ```
//! What a cache does with what it hears is in `pipeline::hear`.

mod keep;
mod listen;
mod options;
mod outbox;
mod place;
mod replay;
mod seat;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use larder_core::{
    Announcement, BoxFuture, BusMessage, Change, DynBus, Error, ErrorKind, Result, Verb, Version,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

pub use options::FleetOptions;
use outbox::Outbox;
pub(crate) use place::Place;
use place::Progress;
pub(crate) use replay::Replayed;
pub(crate) use seat::{Announced, Seat};

/// What a cache does with what other nodes say.
pub(crate) trait Member: Send + Sync {
    /// A change, of this version: what is older is touched.
    fn hear(self: Arc<Self>, change: &Change, verb: Verb, version: Version);
    /// Something older than this version may have been touched without a word.
    fn doubt_below(&self, version: Version);
    /// The same, but stores that follow the bus in step know what it was.
    fn missed_below(&self, version: Version);
    /// What follows is heard from here on. What was said before, and after what was
    /// heard last, was not: nothing older than this version is known to be valid.
    fn begin_anew(&self, version: Version);
    /// Nothing that is older than this is missing. It holds for `remaining`.
    fn trust_for(&self, remaining: Duration);
    /// Has the stores of this process alone note that they have heard so far.
    fn note_heard(self: Arc<Self>, place: Place) -> BoxFuture<'static, ()>;
}

/// Who hears every change, of whatever cache, after the caches that it is about.
pub(crate) trait Listener: Send + Sync {
    fn heard(self: Arc<Self>, message: &BusMessage);
}

/// A process among others that keep the same data: what one of them invalidates
/// is invalidated in all (I5).
///
/// One for a process; its caches join with [`crate::CacheBuilder::fleet`]. Caches
/// of one name in different processes are the same cache. Cloning costs a
/// reference count.
///
/// An invalidation is acknowledged when the bus has it. A node that hears nothing
/// for [`FleetOptions::staleness_bound`] does not know whether what it holds is
/// valid, and asks below for each read until it hears again. A node that has
/// missed something does not know what: entries that are older, its own and those
/// of the stores, it loads anew when they are read.
///
/// ```
/// # use larder_testkit::faulty::FaultyBus;
/// use std::sync::Arc;
/// use larder::{Cache, Fleet, FleetOptions};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> larder::Result<()> {
/// # let bus = FaultyBus::new();
/// let fleet = Fleet::join(Arc::new(bus), FleetOptions::default()).await?;
/// let cache = Cache::<String, String>::builder("order").fleet(&fleet).build()?;
/// cache.remove(&"42".to_owned()).await?; // on every node
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Fleet(Arc<Shared>);

/// What the bus has brought and taken so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct FleetStatistics {
    /// Changes heard, those of this process included.
    pub heard: u64,
    /// Times that something was missed, so that everything held was in doubt.
    pub gaps: u64,
    /// Times that the connection was made anew.
    pub reconnections: u64,
    /// Changes announced, each time it was.
    pub announced: u64,
    /// Attempts to announce that failed.
    pub failed: u64,
    /// Changes that wait to be announced.
    pub waiting: u64,
    /// How long the last sign of life had been on its way at most. `None`: there
    /// was none yet.
    pub lag: Option<Duration>,
    /// For how long nothing was heard. `None`: nothing ever was.
    pub silence: Option<Duration>,
}

struct Shared {
    bus: Arc<dyn DynBus>,
    options: FleetOptions,
    /// The highest version heard of.
    heard: AtomicU64,
    /// The highest version up to which nothing is unheard: with it every load begins.
    complete: AtomicU64,
    members: Mutex<HashMap<String, Vec<Weak<dyn Member>>>>,
    listeners: Mutex<Vec<Weak<dyn Listener>>>,
    /// When the last sign of life came, and how old it was.
    current: Mutex<Option<(Instant, Duration)>>,
    /// How far has been heard.
    progress: Mutex<Progress>,
    /// How often listening was begun.
    ears: AtomicU64,
    /// Takes who wants to hear what was said before.
    replays: mpsc::UnboundedSender<replay::Request>,
    outbox: Mutex<Outbox>,
    /// Says that there is something to announce, or that it may succeed now.
    mail: Arc<Notify>,
    counts: Counts,
    /// Goes with the fleet, which ends what listens for it.
    presence: watch::Sender<()>,
}

#[derive(Default)]
struct Counts {
    heard: AtomicU64,
    gaps: AtomicU64,
    reconnections: AtomicU64,
    announced: AtomicU64,
    failed: AtomicU64,
}

impl Fleet {
    /// Joins the nodes at a bus. What it needs in the background runs on the tokio
    /// runtime that this is called on, and ends with the last clone and cache.
    /// Costs the bus' subscription, and waits for its first sign of life: at most
    /// [`FleetOptions::timeout`] for each.
    ///
    /// # Errors
    /// As [`larder_core::Bus::subscribe`]. A bus that cannot be reached at present
    /// is no error: it is tried again until it can.
    pub async fn join(bus: Arc<dyn DynBus>, options: FleetOptions) -> Result<Self> {
        options.check()?;
        let (replays, requests) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            bus,
            options,
            heard: AtomicU64::new(0),
            complete: AtomicU64::new(0),
            members: Mutex::default(),
            listeners: Mutex::default(),
            current: Mutex::default(),
            progress: Mutex::default(),
            ears: AtomicU64::new(0),
            replays,
            outbox: Mutex::default(),
            mail: Arc::new(Notify::new()),
            counts: Counts::default(),
            presence: watch::Sender::new(()),
        });
        let ear = match shared.subscribe().await {
            Ok(subscription) => Some(listen::Ear::new(subscription).begin(&shared).await),
            Err(error) if error.is_retryable() => None,
            Err(error) => return Err(error),
        };
        let presence = shared.presence.subscribe();
        tokio::spawn(listen::listen(Arc::downgrade(&shared), ear, presence));
        tokio::spawn(outbox::post(Arc::downgrade(&shared), Arc::clone(&shared.mail)));
        tokio::spawn(replay::serve(Arc::downgrade(&shared), requests));
        tokio::spawn(keep::keep(Arc::downgrade(&shared), shared.presence.subscribe()));
        Ok(Self(shared))
    }

    /// What the bus has brought and taken so far.
    #[must_use]
    pub fn statistics(&self) -> FleetStatistics {
        let counts = &self.0.counts;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let current = *self.0.current.lock();
        FleetStatistics {
            heard: count(&counts.heard),
            gaps: count(&counts.gaps),
            reconnections: count(&counts.reconnections),
            announced: count(&counts.announced),
            failed: count(&counts.failed),
            waiting: self.0.outbox.lock().waiting() as u64,
            lag: current.map(|(_, age)| age),
            silence: current.map(|(at, _)| at.elapsed()),
        }
    }

    /// Waits until everything that was to be announced is, and until stores of this
    /// process alone have noted what they have heard, at most this long. Returns
    /// whether it is announced: what is not then is lost with this process. What is
    /// not noted is heard once more by the process that opens the store next.
    pub async fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let is_announced = self.announce_all(patience).await;
        // One that is late costs the next start a few messages.
        let _ = tokio::time::timeout_at(deadline, self.0.keep_places()).await;
        is_announced
    }

    async fn announce_all(&self, patience: Duration) -> bool {
        let done = async {
            let announced = self.0.outbox.lock().announced();
            loop {
                let another = announced.notified();
                if self.0.outbox.lock().waiting() == 0 {
                    break;
                }
                another.await;
            }
        };
        tokio::time::timeout(patience, done).await.is_ok()
    }

    /// The highest version heard of.
    pub(crate) fn heard(&self) -> Version {
        self.0.heard()
    }

    /// The highest version up to which every change was heard by the caches here, or is
    /// this process' own: with it every load begins.
    pub(crate) fn complete(&self) -> Version {
        Version::new(self.0.complete.load(Ordering::Acquire))
    }

    /// How far has been heard; `None` until anything was.
    pub(crate) fn place(&self) -> Option<Place> {
        self.0.place()
    }

    /// Which listening it is at present; `None` until anything was heard of it.
    pub(crate) fn ear(&self) -> Option<u64> {
        self.place().map(|place| place.ear)
    }

    /// For how long what was heard last lets memory be trusted at most.
    pub(crate) fn staleness_bound(&self) -> Duration {
        self.0.options.staleness_bound
    }

    /// How long announcing a change may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.0.options.timeout
    }

    /// Gives a cache what is heard about it from now on. It holds nothing yet.
    pub(crate) fn attend(&self, cache: &str, member: Weak<dyn Member>) {
        if let Some((member, remaining)) = member.upgrade().zip(self.0.remaining()) {
            member.trust_for(remaining);
        }
        let mut members = self.0.members.lock();
        let namesakes = members.entry(cache.to_owned()).or_default();
        namesakes.retain(|member| member.strong_count() > 0);
        namesakes.push(member);
    }

    /// Gives somebody what is heard about any cache from now on.
    pub(crate) fn listen(&self, listener: Weak<dyn Listener>) {
        let mut listeners = self.0.listeners.lock();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(listener);
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Announces a change, now or as soon as it can be. Returns its version: above
    /// every one heard of, in any case.
    ///
    /// # Cancel safety
    /// A dropped call is announced in the background.
    pub(crate) async fn announce(&self, announcement: Announcement) -> Announced {
        if let Change::Written { write, .. } = announcement.change {
            self.0.outbox.lock().forget_beginning(write);
        }
        let posted = Posted { shared: &self.0, announcement: Some(announcement) };
        match self.0.publish(posted.announcement()).await {
            Ok(version) => {
                posted.sent();
                Announced { version, outcome: Ok(()) }
            }
            Err(error) => {
                let version = self.heard().above();
                let error = error
                    .with("cache", &posted.announcement().cache)
                    .remedy("other nodes are told as soon as the bus can be reached");
                Announced { version, outcome: Err(error) }
            }
        }
    }

    /// Announces a change in the background.
    pub(crate) fn announce_later(&self, announcement: Announcement) {
        self.0.post(announcement);
    }
}

impl Shared {
    fn heard(&self) -> Version {
        Version::new(self.heard.load(Ordering::Acquire))
    }

    /// How far has been heard; `None` until anything was.
    fn place(&self) -> Option<Place> {
        self.progress.lock().place()
    }

    /// Notes what became of what is heard and announced.
    fn proceed(&self, proceed: impl FnOnce(&mut Progress)) {
        let mut progress = self.progress.lock();
        proceed(&mut progress);
        self.complete.store(progress.complete().get(), Ordering::Release);
    }

    fn observe(&self, version: Version) {
        self.heard.fetch_max(version.get(), Ordering::AcqRel);
    }

    async fn subscribe(&self) -> Result<Box<dyn larder_core::DynSubscription>> {
        self.within(self.bus.subscribe(None, self.heard())).await
    }

    async fn publish(&self, announcement: &Announcement) -> Result<Version> {
        let published = self.within(self.bus.publish(announcement, self.heard())).await;
        match &published {
            Ok(published) => {
                self.observe(published.version);
                self.proceed(|progress| progress.announced(*published));
                self.counts.announced.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        published.map(|published| published.version)
    }

    fn post(&self, announcement: Announcement) {
        self.outbox.lock().add(announcement);
        self.mail.notify_one();
    }

    /// For how long what was heard last lets memory be trusted.
    fn remaining(&self) -> Option<Duration> {
        let (at, age) = (*self.current.lock())?;
        self.options.staleness_bound.checked_sub(at.elapsed() + age)
    }

    fn members_of(&self, cache: &str) -> Vec<Arc<dyn Member>> {
        let members = self.members.lock();
        members.get(cache).into_iter().flatten().filter_map(Weak::upgrade).collect()
    }

    fn listeners(&self) -> Vec<Arc<dyn Listener>> {
        self.listeners.lock().iter().filter_map(Weak::upgrade).collect()
    }

    fn all_members(&self) -> Vec<Arc<dyn Member>> {
        let mut members = self.members.lock();
        members.retain(|_, namesakes| {
            namesakes.retain(|member| member.strong_count() > 0);
            !namesakes.is_empty()
        });
        members.values().flatten().filter_map(Weak::upgrade).collect()
    }

    async fn within<T>(&self, call: larder_core::BoxFuture<'_, Result<T>>) -> Result<T> {
        let timeout = self.options.timeout;
        tokio::time::timeout(timeout, call).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "the bus did not answer in time")
                .with("timeout", format_args!("{timeout:?}")))
        })
    }
}

/// A change on its way. Dropped before it is known to have arrived, it is
/// announced once more.
struct Posted<'f> {
    shared: &'f Shared,
    announcement: Option<Announcement>,
}

impl Posted<'_> {
    fn announcement(&self) -> &Announcement {
        self.announcement.as_ref().expect("it is taken at the end only")
    }

    fn sent(mut self) {
        if let Some(announcement) = self.announcement.take() {
            self.shared.outbox.lock().note_sent(announcement);
        }
    }
}

impl Drop for Posted<'_> {
    fn drop(&mut self) {
        if let Some(announcement) = self.announcement.take() {
            self.shared.post(announcement);
        }
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("heard", &self.heard()).finish_non_exhaustive()
    }
}
