use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Sender};
use std::thread;

use larder_core::{Error, ErrorKind, Result, Version};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};

use crate::core::{Core, QUEUE_BYTES_MAX};
use crate::layout::CACHE_NAME_BYTES_MAX;
use crate::options::DiskOptions;
use crate::reader::{self, Request};
use crate::store::DiskStore;
use crate::upkeep::{self, CompactRequest};
use crate::writer::{self, Order};

/// A directory with the entries of many caches, for one process. Clones are the
/// same tier.
///
/// All files are read and written by threads of the tier's own: two that read,
/// one that writes, one that keeps to the budget, and one of fjall. None of a
/// runtime's threads waits for a disk.
///
/// When the last clone and the last store are dropped, the directory is closed
/// by and by; [`DiskTier::close`] waits for it.
#[derive(Clone)]
pub struct DiskTier(Arc<Shared>);

/// What stores and the tier share with the threads.
pub(crate) struct Shared {
    pub(crate) core: Arc<Core>,
    pub(crate) writes: Sender<Order>,
    pub(crate) reads: Sender<Request>,
    upkeep: Sender<CompactRequest>,
    /// Places in the queue of writes, one for each KiB.
    pub(crate) write_places: Arc<Semaphore>,
    pub(crate) read_places: Arc<Semaphore>,
}

/// Reads that may wait for a thread.
const READS_MAX: usize = 1024;

/// Counts of a tier, since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct DiskStatistics {
    /// Bytes that the directory takes.
    pub disk_bytes: u64,
    /// Bytes that it may take.
    pub disk_bytes_max: u64,
    /// Damaged records that were found; each was a miss.
    pub damaged_count: u64,
    /// How often everything was dropped because it could not be used any more.
    pub healed_count: u64,
    /// Entries that compaction left out because they were dead.
    pub reclaimed_count: u64,
    /// Entries that compaction left out although they were alive, for room.
    pub evicted_count: u64,
    /// Puts that were refused because the directory was full.
    pub refused_count: u64,
}

impl DiskTier {
    /// Opens the directory, or makes it. What was there before is there again,
    /// unless it is damaged: then the tier starts empty, says so in the log, and
    /// [`DiskTier::healed`] is true. Takes as long as reading the journals does:
    /// at most some 100 MB.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the options contradict themselves, if another
    /// process has the directory, or if it cannot be used.
    ///
    /// # Cancel safety
    /// A dropped opening goes on, and closes what it opened.
    pub async fn open(options: DiskOptions) -> Result<Self> {
        let (reply, opened) = oneshot::channel();
        spawn("larder-disk-open", move || {
            let _ = reply.send(Core::open(options).and_then(Self::start));
        })?;
        opened.await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Panicked, "opening the disk tier panicked"))
        })
    }

    /// The entries of one cache. Costs no I/O.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the name is empty or longer than 255 bytes.
    pub fn store(&self, cache: &str) -> Result<DiskStore> {
        if cache.is_empty() || cache.len() > CACHE_NAME_BYTES_MAX {
            return Err(Error::new(ErrorKind::InvalidInput, "no name for a cache on disk")
                .with("cache", cache)
                .with("bytes_max", CACHE_NAME_BYTES_MAX)
                .remedy("name the cache with 1 to 255 bytes"));
        }
        Ok(DiskStore::new(Arc::clone(&self.0), self.0.core.cache(cache)))
    }

    /// The highest version that was ever put, invalidated or marked in any cache
    /// of this directory: whoever numbers changes goes on above it.
    #[must_use]
    pub fn highest_version(&self) -> Version {
        let caches = self.0.core.caches.lock();
        caches.values().map(|cache| cache.highest()).max().unwrap_or_default()
    }

    /// Whether everything was dropped since it was opened, or when it was,
    /// because it was damaged.
    #[must_use]
    pub fn healed(&self) -> bool {
        self.0.core.healed_count.load(Ordering::Relaxed) > 0
    }

    /// What there is to count. Looks at the sizes of a few files.
    #[must_use]
    pub fn statistics(&self) -> DiskStatistics {
        let core = &self.0.core;
        DiskStatistics {
            disk_bytes: upkeep::disk_bytes(core),
            disk_bytes_max: core.options.disk_bytes_max,
            damaged_count: core.damaged_count.load(Ordering::Relaxed),
            healed_count: core.healed_count.load(Ordering::Relaxed),
            reclaimed_count: core.reclaim.dead_count.load(Ordering::Relaxed),
            evicted_count: core.reclaim.evicted_count.load(Ordering::Relaxed),
            refused_count: core.refused_count.load(Ordering::Relaxed),
        }
    }

    /// Rewrites everything without what is dead, which compaction does by itself
    /// as entries are put. While it runs the directory takes up to twice as much.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the disk refuses,
    /// [`ErrorKind::ShuttingDown`] after [`DiskTier::close`].
    ///
    /// # Cancel safety
    /// Goes on when dropped.
    pub async fn compact(&self) -> Result<()> {
        let (reply, done) = oneshot::channel();
        // Either may have gone only with the tier.
        let _ = self.0.upkeep.send(reply);
        done.await.unwrap_or_else(|_| Err(self.0.core.closed()))
    }

    /// Writes everything to the disk, closes the directory and lets others open
    /// it. What is asked of the tier or its stores afterwards fails with
    /// [`ErrorKind::ShuttingDown`].
    ///
    /// # Cancel safety
    /// Goes on when dropped.
    pub async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.0.writes.send(Order::Close(reply)).is_ok() {
            // An error means that it was closed already.
            let _ = done.await;
        }
    }

    fn start(core: Core) -> Result<Self> {
        let core = Arc::new(core);
        let (writes, orders) = mpsc::channel();
        let (reads, requests) = mpsc::channel();
        let (upkeep, compact_requests) = mpsc::channel();
        let shared = Shared {
            core: Arc::clone(&core),
            writes,
            reads,
            upkeep,
            write_places: Arc::new(Semaphore::new(QUEUE_PLACES)),
            read_places: Arc::new(Semaphore::new(READS_MAX)),
        };
        let requests = Arc::new(Mutex::new(requests));
        for _ in 0..core.options.read_threads {
            let (core, requests) = (Arc::clone(&core), Arc::clone(&requests));
            spawn("larder-disk-read", move || reader::run(&core, &requests))?;
        }
        let for_upkeep = Arc::clone(&core);
        spawn("larder-disk-upkeep", move || upkeep::run(&for_upkeep, &compact_requests))?;
        spawn("larder-disk-write", move || writer::run(&core, &orders))?;
        Ok(Self(Arc::new(shared)))
    }
}

/// What the queue of writes holds, in KiB.
pub(crate) const QUEUE_PLACES: usize = (QUEUE_BYTES_MAX >> 10) as usize;

impl fmt::Debug for DiskTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskTier")
            .field("directory", &self.0.core.options.directory)
            .finish_non_exhaustive()
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(|error| {
        Error::new(ErrorKind::Unavailable, "the disk tier cannot start a thread").caused_by(error)
    })
}
