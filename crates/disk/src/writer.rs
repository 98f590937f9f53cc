use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use larder_core::{Error, HeardUpTo, Mark, PutCondition, PutOutcome, Result, Verb, Version};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::core::Core;
use crate::engine::{Engine, Fault};
use crate::layout;
use crate::options::Durability;
use crate::record::{self, Head};
use crate::rules::{self, Circumstances, Held, Invalidation, Put};
use crate::state::{CacheState, MarkHeld, MarkName, MergedMarks, heard_numbers, seal_numbers};
use crate::upkeep;

/// Something to write, and who waits for it.
pub(crate) struct Job {
    pub(crate) cache: Arc<CacheState>,
    pub(crate) work: Work,
    pub(crate) reply: oneshot::Sender<Result<Vec<PutOutcome>>>,
    /// The place in the queue, given back when the job is done.
    pub(crate) place: OwnedSemaphorePermit,
}

pub(crate) enum Work {
    Put(Vec<NewEntry>, PutCondition),
    Invalidate { keys: Vec<Vec<u8>>, at: Version, verb: Verb },
    Mark(Vec<Mark>),
    Heard(HeardUpTo),
}

pub(crate) struct NewEntry {
    pub(crate) key: Vec<u8>,
    pub(crate) frame: Vec<u8>,
    pub(crate) version: Version,
    pub(crate) read_at_micros: u64,
}

/// What the writer is told.
pub(crate) enum Order {
    Do(Job),
    Close(oneshot::Sender<()>),
}

/// Jobs that are written together at most: those that came while the last group
/// was on its way to the disk.
const GROUP_JOBS_MAX: usize = 256;
const CHORES_EVERY: Duration = Duration::from_secs(1);
/// In between it cannot grow by much.
const WEIGH_EVERY: Duration = Duration::from_millis(20);
const ANCHOR_EVERY: Duration = Duration::from_secs(60);

/// The one thread that writes. What it does in order is in the journal in order,
/// and comparing with what is held needs no locks.
pub(crate) fn run(core: &Core, orders: &Receiver<Order>) {
    let (mut anchored, mut weighed) = (Instant::now(), Instant::now());
    let closing = loop {
        let mut jobs = Vec::new();
        match orders.recv_timeout(CHORES_EVERY) {
            Ok(Order::Do(job)) => jobs.push(job),
            Ok(Order::Close(reply)) => break Some(reply),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break None,
        }
        let mut closing = None;
        while jobs.len() < GROUP_JOBS_MAX && closing.is_none() {
            match orders.try_recv() {
                Ok(Order::Do(job)) => jobs.push(job),
                Ok(Order::Close(reply)) => closing = Some(reply),
                Err(_) => break,
            }
        }
        let anchor_is_due = anchored.elapsed() >= ANCHOR_EVERY;
        if anchor_is_due {
            anchored = Instant::now();
        }
        core.mend();
        write_group(core, jobs, anchor_is_due);
        if weighed.elapsed() >= WEIGH_EVERY {
            upkeep::weigh(core);
            weighed = Instant::now();
        }
        if closing.is_some() {
            break closing;
        }
    };
    close(core);
    if let Some(reply) = closing {
        // Whoever asked may have gone.
        let _ = reply.send(());
    }
}

/// Writes a group, with a new engine if the old one has stopped.
fn write_group(core: &Core, jobs: Vec<Job>, anchor_is_due: bool) {
    let written = match try_group(core, &jobs, anchor_is_due) {
        Some(Ok(outcomes)) => Ok(outcomes),
        first => {
            let damage = match first {
                Some(Err(fault)) => fault.to_string(),
                _ => "it could not be made anew before".to_owned(),
            };
            core.heal(&damage).and_then(|()| {
                let second = try_group(core, &jobs, anchor_is_due);
                second.unwrap_or_else(|| Ok(Vec::new())).map_err(|fault| core.failed(&fault))
            })
        }
    };
    answer(jobs, written);
}

/// Tells each what became of its job. Its place is free by then: whoever goes on
/// with the next one finds it.
fn answer(jobs: Vec<Job>, written: Result<Vec<Vec<PutOutcome>>, Error>) {
    let answers: Vec<_> = match written {
        Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
        Err(error) => jobs.iter().map(|_| Err(error.clone())).collect(),
    };
    for (Job { reply, place, .. }, answer) in jobs.into_iter().zip(answers) {
        drop(place);
        // Whoever asked may have gone.
        let _ = reply.send(answer);
    }
}

/// `None` if there is no engine.
fn try_group(
    core: &Core,
    jobs: &[Job],
    anchor_is_due: bool,
) -> Option<Result<Vec<Vec<PutOutcome>>, Fault>> {
    let engine = core.engine.read();
    let mut group = Group { core, engine: engine.as_ref()?, staged: HashMap::new(), sync: false };
    Some(group.write(jobs, anchor_is_due))
}

/// What is written in one step.
struct Group<'a> {
    core: &'a Core,
    engine: &'a Engine,
    staged: HashMap<Vec<u8>, Option<Vec<u8>>>,
    sync: bool,
}

/// What is held, with its bytes.
enum HeldRecord {
    Nothing,
    Damaged,
    Record(Head, Vec<u8>),
}

impl HeldRecord {
    fn held(&self) -> Held {
        match self {
            Self::Nothing => Held::Nothing,
            Self::Damaged => Held::Damaged,
            Self::Record(head, _) => Held::Record(*head),
        }
    }
}

impl Group<'_> {
    fn write(&mut self, jobs: &[Job], anchor_is_due: bool) -> Result<Vec<Vec<PutOutcome>>, Fault> {
        let mut outcomes = Vec::with_capacity(jobs.len());
        for job in jobs {
            outcomes.push(self.stage(job)?);
        }
        self.bury_damaged()?;
        if anchor_is_due {
            self.forget_marks();
            let (key, record) = self.core.anchor_record();
            self.staged.insert(key, Some(record));
        }
        if self.staged.is_empty() {
            self.engine.check()?;
        } else {
            let changes = self.staged.iter().map(|(key, value)| (&key[..], value.as_deref()));
            self.engine.commit(changes, self.sync)?;
        }
        Ok(outcomes)
    }

    fn stage(&mut self, job: &Job) -> Result<Vec<PutOutcome>, Fault> {
        let cache = &job.cache;
        let durability = self.core.options.durability;
        match &job.work {
            Work::Put(entries, condition) => {
                self.sync |= durability == Durability::AllSurvivesPowerLoss;
                entries.iter().map(|entry| self.put(cache, entry, *condition)).collect()
            }
            Work::Invalidate { keys, at, verb } => {
                self.sync |= durability != Durability::SurvivesKill;
                self.raise_highest(cache, *at);
                for key in keys {
                    self.invalidate(cache, key, *at, *verb)?;
                }
                Ok(Vec::new())
            }
            Work::Mark(marks) => {
                self.sync |= durability != Durability::SurvivesKill;
                self.mark(cache, marks);
                Ok(Vec::new())
            }
            // It need not wait for the disk: an older one repeats messages, and
            // it never arrives there before the changes it stands behind.
            Work::Heard(heard) => {
                cache.set_heard(*heard);
                let key = layout::cache_key(layout::POSITION, &cache.name);
                let record = seal_numbers(&key, &heard_numbers(*heard));
                self.staged.insert(key, Some(record));
                Ok(Vec::new())
            }
        }
    }

    fn put(
        &mut self,
        cache: &Arc<CacheState>,
        entry: &NewEntry,
        condition: PutCondition,
    ) -> Result<PutOutcome, Fault> {
        let held = self.held(&entry.key)?;
        let given = self.circumstances(cache);
        if let Some(lost) = cache.lost(given.now.micros).filter(|lost| entry.version < *lost) {
            return Ok(PutOutcome::Refused(lost));
        }
        let judged = rules::put(held.held(), entry.version, entry.read_at_micros, condition, given);
        if let Put::Store(floor) = judged {
            self.raise_highest(cache, entry.version);
            let record = record::entry_record(&entry.key, &entry.frame, floor);
            self.staged.insert(entry.key.clone(), Some(record));
        }
        Ok(judged.outcome())
    }

    fn invalidate(
        &mut self,
        cache: &Arc<CacheState>,
        key: &[u8],
        at: Version,
        verb: Verb,
    ) -> Result<(), Fault> {
        let held = self.held(key)?;
        let record = match rules::invalidate(held.held(), at, verb, self.circumstances(cache)) {
            Invalidation::Nothing => return Ok(()),
            Invalidation::Bury(floor) => record::gravestone_record(key, floor),
            Invalidation::Raise { floor, expire } => match &held {
                HeldRecord::Record(_, bytes) => record::with_floor(key, bytes, floor, expire),
                // Only what is held is raised.
                HeldRecord::Nothing | HeldRecord::Damaged => record::gravestone_record(key, floor),
            },
        };
        self.staged.insert(key.to_vec(), Some(record));
        Ok(())
    }

    fn mark(&mut self, cache: &Arc<CacheState>, marks: &[Mark]) {
        for mark in marks {
            self.raise_mark(cache, mark);
        }
        if let Some(MergedMarks { gone, covers }) = cache.merge_marks() {
            self.remove_marks(cache, gone);
            for (verb, version) in covers {
                self.raise_mark(cache, &Mark { tag: None, verb, version });
            }
        }
    }

    fn raise_mark(&mut self, cache: &Arc<CacheState>, mark: &Mark) {
        self.raise_highest(cache, mark.version);
        let at_micros = self.core.now().micros;
        let held = MarkHeld { version: mark.version, at_micros };
        let Ok(key) = layout::mark_key(&cache.name, mark.tag.as_ref(), mark.verb) else {
            // The store has refused longer ones.
            return;
        };
        if cache.raise_mark(mark.tag.clone(), mark.verb, held) {
            let record = seal_numbers(&key, &[mark.version.get(), at_micros]);
            self.staged.insert(key, Some(record));
        }
    }

    /// Watermarks that no entry can fall under any more: all that were read
    /// before them are dead of age.
    fn forget_marks(&mut self) {
        let kept = self.core.limits.age_max_micros;
        let before = self.core.now().micros.saturating_sub(kept);
        let caches: Vec<Arc<CacheState>> = self.core.caches.lock().values().cloned().collect();
        for cache in caches {
            let gone = cache.forget_marks_before(before);
            self.remove_marks(&cache, gone);
        }
    }

    fn remove_marks(&mut self, cache: &CacheState, gone: Vec<MarkName>) {
        let keys = gone
            .into_iter()
            .filter_map(|(tag, verb)| layout::mark_key(&cache.name, tag.as_ref(), verb).ok());
        self.staged.extend(keys.map(|key| (key, None)));
    }

    /// What cannot be read makes place for a gravestone: nobody knows what was
    /// invalidated there.
    fn bury_damaged(&mut self) -> Result<(), Fault> {
        let damaged = std::mem::take(&mut *self.core.damaged.lock());
        for (cache, key) in damaged {
            if matches!(self.held(&key)?, HeldRecord::Damaged) {
                self.invalidate(&cache, &key, Version::ZERO, Verb::Remove)?;
            }
        }
        Ok(())
    }

    fn raise_highest(&mut self, cache: &CacheState, version: Version) {
        if cache.raise_highest(version) {
            let key = layout::cache_key(layout::HIGHEST, &cache.name);
            let record = seal_numbers(&key, &[version.get()]);
            self.staged.insert(key, Some(record));
        }
    }

    fn held(&self, key: &[u8]) -> Result<HeldRecord, Fault> {
        let record = match self.staged.get(key) {
            Some(staged) => staged.clone(),
            None => match self.engine.get(key) {
                Ok(record) => record.map(|record| record.to_vec()),
                Err(Fault::Damaged(_)) => {
                    self.core.damaged_count.fetch_add(1, Ordering::Relaxed);
                    return Ok(HeldRecord::Damaged);
                }
                Err(refused) => return Err(refused),
            },
        };
        let Some(record) = record else { return Ok(HeldRecord::Nothing) };
        Ok(match Head::read(&record).filter(|_| record::is_sound(key, &record)) {
            Some(head) => HeldRecord::Record(head, record),
            None => HeldRecord::Damaged,
        })
    }

    fn circumstances(&self, cache: &CacheState) -> Circumstances {
        Circumstances { now: self.core.now(), limits: self.core.limits, highest: cache.highest() }
    }
}

/// Leaves a directory that is whole and sealed, if that can be.
fn close(core: &Core) {
    let mut held = core.engine.write();
    if let Some(engine) = held.take() {
        let (key, record) = core.anchor_record();
        let anchored = engine.commit([(&key[..], Some(&record[..]))].into_iter(), false);
        let closed = anchored.and(engine.close());
        let sealed = closed
            .map_err(|fault| fault.to_string())
            .and_then(|()| core.directory.seal().map_err(|error| error.to_string()));
        if let Err(error) = sealed {
            tracing::warn!(
                directory = %core.options.directory.display(),
                error,
                "the disk tier was not closed in order; the next opening looks for damage"
            );
        }
    }
    core.directory.release();
}
