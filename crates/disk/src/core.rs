use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use larder_core::{Error, ErrorKind, Result};
use parking_lot::{Mutex, RwLock};

use crate::directory::Directory;
use crate::engine::{Engine, Fault, MEMTABLES_BYTES_MAX, OVERHEAD_BYTES};
use crate::layout::{self, StateKey};
use crate::options::DiskOptions;
use crate::recency::Recency;
use crate::reclaim::Reclaim;
use crate::record::Limits;
use crate::state::{self, CacheState, MarkHeld};
use crate::timeline::{Anchor, Now, Timeline};

/// What all threads of a tier share.
pub(crate) struct Core {
    pub(crate) options: DiskOptions,
    pub(crate) directory: Directory,
    /// `None` once it is closed, and while it cannot be made anew.
    pub(crate) engine: RwLock<Option<Engine>>,
    pub(crate) timeline: Arc<Timeline>,
    pub(crate) limits: Limits,
    pub(crate) recency: Arc<Recency>,
    pub(crate) reclaim: Arc<Reclaim>,
    pub(crate) caches: Mutex<HashMap<String, Arc<CacheState>>>,
    /// Keys whose record was found damaged, until the writer buries them.
    pub(crate) damaged: Mutex<Vec<(Arc<CacheState>, Vec<u8>)>>,
    /// Why the engine cannot go on, until the writer has made it anew.
    broken: Mutex<Option<String>>,
    pub(crate) damaged_count: AtomicU64,
    pub(crate) healed_count: AtomicU64,
    pub(crate) refused_count: AtomicU64,
    /// No more puts until compaction has made room.
    pub(crate) is_full: AtomicBool,
}

/// What the queue of writes may hold.
pub(crate) const QUEUE_BYTES_MAX: u64 = 4 << 20;
/// How many damaged keys are remembered; others are found again.
const DAMAGED_MAX: usize = 1000;

impl Core {
    /// Opens the directory; if it is damaged, empties it first. Blocks.
    pub(crate) fn open(options: DiskOptions) -> Result<Self> {
        options.validate()?;
        let directory = Directory::take(&options.directory)?;
        let timeline = Arc::new(Timeline::new(options.clock.clone()));
        let limits = Limits::new(options.floor_window, options.marks_retention);
        let recency = Arc::new(Recency::new());
        let reclaim = Arc::new(Reclaim::new(Arc::clone(&timeline), limits, Arc::clone(&recency)));
        let core = Self {
            options,
            directory,
            engine: RwLock::new(None),
            timeline,
            limits,
            recency,
            reclaim,
            caches: Mutex::default(),
            damaged: Mutex::default(),
            broken: Mutex::default(),
            damaged_count: AtomicU64::new(0),
            healed_count: AtomicU64::new(0),
            refused_count: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
        };
        match core.directory.begin_opening()? {
            Some(damage) => core.heal(&damage)?,
            None => match core.open_engine() {
                Ok(()) => {}
                Err(Fault::Refused(error)) => return Err(core.refused(error)),
                Err(Fault::Damaged(damage)) => {
                    core.keep_highest_only();
                    core.heal(&damage)?;
                }
            },
        }
        core.directory.end_opening()?;
        Ok(core)
    }

    /// Drops all entries and begins anew, with the watermarks and positions that
    /// are known. What loads bring that began before is refused for as long as
    /// such a load may take.
    pub(crate) fn heal(&self, damage: &str) -> Result<()> {
        tracing::warn!(
            directory = %self.options.directory.display(),
            damage,
            "the disk tier is damaged: its entries are dropped, it starts empty"
        );
        let mut held = self.engine.write();
        if let Some(engine) = held.take() {
            // Its files go next, whatever it says.
            let _ = engine.close();
        }
        self.directory.clear()?;
        self.timeline.start(None, &self.options.machine_clock);
        let now = self.now();
        let caches: Vec<Arc<CacheState>> = self.caches.lock().values().cloned().collect();
        for cache in &caches {
            cache.lose(now.micros.saturating_add(self.limits.floor_window_micros));
        }
        let engine = self.new_engine().map_err(|fault| self.failed(&fault))?;
        self.write_state(&engine, &caches).map_err(|fault| self.failed(&fault))?;
        *held = Some(engine);
        self.healed_count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The cache of this name, as it is known or new.
    pub(crate) fn cache(&self, name: &str) -> Arc<CacheState> {
        let mut caches = self.caches.lock();
        let cache = caches.entry(name.to_owned());
        Arc::clone(cache.or_insert_with(|| Arc::new(CacheState::new(name))))
    }

    /// The time of the directory.
    pub(crate) fn now(&self) -> Now {
        self.timeline.now().expect("the timeline starts before the tier is handed out")
    }

    /// The anchor as a record.
    pub(crate) fn anchor_record(&self) -> (Vec<u8>, Vec<u8>) {
        let key = layout::anchor_key();
        let anchor = self.timeline.anchor(&self.options.machine_clock);
        let anchor = anchor.expect("the timeline starts before anything is written");
        let record = state::seal_numbers(&key, &state::anchor_numbers(&anchor));
        (key, record)
    }

    /// Notes that the engine cannot go on: the writer makes it anew.
    pub(crate) fn note_broken(&self, fault: &Fault) {
        *self.broken.lock() = Some(fault.to_string());
    }

    /// Makes the engine anew if somebody found it broken.
    pub(crate) fn mend(&self) {
        let broken = self.broken.lock().take();
        if let Some(damage) = broken
            && let Err(error) = self.heal(&damage)
        {
            // The next write tries again and tells its caller.
            tracing::warn!(%error, "the disk tier cannot be made anew");
        }
    }

    /// Notes a record that cannot be read.
    pub(crate) fn note_damaged(&self, cache: &Arc<CacheState>, key: &[u8]) {
        self.damaged_count.fetch_add(1, Ordering::Relaxed);
        let mut damaged = self.damaged.lock();
        if damaged.len() < DAMAGED_MAX {
            damaged.push((Arc::clone(cache), key.to_vec()));
        }
    }

    /// The error of a call that a fault stopped.
    pub(crate) fn failed(&self, fault: &Fault) -> Error {
        Error::new(ErrorKind::Unavailable, "the disk tier failed")
            .with("directory", self.options.directory.display())
            .caused_by(fault.to_string())
            .remedy("see whether its disk has room and is sound")
    }

    /// The error of a call after the end.
    pub(crate) fn closed(&self) -> Error {
        Error::new(ErrorKind::ShuttingDown, "the disk tier is closed")
            .with("directory", self.options.directory.display())
    }

    /// Of what a damaged directory said only this can do no harm: numbers that
    /// are too high.
    fn keep_highest_only(&self) {
        for cache in self.caches.lock().values_mut() {
            let fresh = CacheState::new(&cache.name);
            fresh.raise_highest(cache.highest());
            *cache = Arc::new(fresh);
        }
    }

    fn open_engine(&self) -> Result<(), Fault> {
        let engine = self.new_engine()?;
        let anchor = self.read_state(&engine)?;
        self.timeline.start(anchor.as_ref(), &self.options.machine_clock);
        let (key, record) = self.anchor_record();
        engine.commit([(&key[..], Some(&record[..]))].into_iter(), false)?;
        *self.engine.write() = Some(engine);
        Ok(())
    }

    fn new_engine(&self) -> Result<Engine, Fault> {
        let taken = MEMTABLES_BYTES_MAX + OVERHEAD_BYTES + QUEUE_BYTES_MAX;
        let cache_bytes = self.options.memory_bytes_max.saturating_sub(taken);
        Engine::open(&self.directory.data(), cache_bytes, &self.reclaim)
    }

    fn read_state(&self, engine: &Engine) -> Result<Option<Anchor>, Fault> {
        let mut anchor = None;
        for (key, record) in engine.scan(&[layout::STATE])? {
            self.read_one_state(&key, &record, &mut anchor)
                .ok_or_else(|| Fault::Damaged("a record of state is damaged".to_owned()))?;
        }
        let is_new = anchor.is_none() && engine.scan(&[layout::ENTRY])?.is_empty();
        if anchor.is_none() && !is_new {
            return Err(Fault::Damaged("nobody knows how old the entries are".to_owned()));
        }
        Ok(anchor)
    }

    fn read_one_state(&self, key: &[u8], record: &[u8], anchor: &mut Option<Anchor>) -> Option<()> {
        match StateKey::read(key)? {
            StateKey::Anchor => {
                *anchor = Some(state::anchor_from(state::open_numbers(key, record)?));
            }
            StateKey::Highest(cache) => {
                let [version] = state::open_numbers(key, record)?;
                self.cache(&cache).raise_highest(larder_core::Version::new(version));
            }
            StateKey::Position(cache) => {
                let numbers = state::open_numbers(key, record)?;
                self.cache(&cache).set_heard(state::heard_from(numbers));
            }
            StateKey::Mark(cache, tag, verb) => {
                let [version, at_micros] = state::open_numbers(key, record)?;
                let version = larder_core::Version::new(version);
                self.cache(&cache).raise_mark(tag, verb, MarkHeld { version, at_micros });
            }
        }
        Some(())
    }

    /// Writes what is known of all caches, for those who open the directory next.
    fn write_state(&self, engine: &Engine, caches: &[Arc<CacheState>]) -> Result<(), Fault> {
        let mut records = vec![self.anchor_record()];
        for cache in caches {
            let highest = layout::cache_key(layout::HIGHEST, &cache.name);
            let record = state::seal_numbers(&highest, &[cache.highest().get()]);
            records.push((highest, record));
            if let Some(heard) = cache.heard() {
                let key = layout::cache_key(layout::POSITION, &cache.name);
                let record = state::seal_numbers(&key, &state::heard_numbers(heard));
                records.push((key, record));
            }
            for (mark, at_micros) in cache.marks() {
                let Ok(key) = layout::mark_key(&cache.name, mark.tag.as_ref(), mark.verb) else {
                    // It was kept, so its key was short enough.
                    continue;
                };
                let record = state::seal_numbers(&key, &[mark.version.get(), at_micros]);
                records.push((key, record));
            }
        }
        let changes = records.iter().map(|(key, record)| (&key[..], Some(&record[..])));
        engine.commit(changes, true)
    }

    fn refused(&self, error: std::io::Error) -> Error {
        Error::new(ErrorKind::Config, "the disk tier's directory cannot be opened")
            .with("directory", self.options.directory.display())
            .caused_by(error)
            .remedy("see to its rights, to room on its disk and to the limit of open files")
    }
}
