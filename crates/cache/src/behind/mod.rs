//! Write-behind: a write is acknowledged when the journal has it, and the origin
//! gets it later, once, in the order of its key.

mod attempt;
mod attendant;
mod fleet;
mod fold;
mod lane;
mod letters;
mod options;
mod pending;
mod reading;
mod retry;
mod shared;
mod statistics;
mod strand;
mod tenure;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, join_all, select};
use larder_core::{
    Action, Clock, Death, DeathCause, DynJournal, DynOrigin, Error, ErrorKind, Expected,
    JournalOffset, JournalProfile, JournalRecord, Key, LaneClaim, Result, Version, Write,
};
use tokio::sync::oneshot;
use xxhash_rust::xxh3::xxh3_64;

pub(crate) use attendant::{Attendant, Settled};
pub use letters::LetterId;
pub use options::{BehindObserver, BehindOptions};
pub use pending::{Pending, PendingBase};
pub use statistics::{BehindLane, BehindStatistics};

use lane::{Lane, unknown_cache};
use shared::{Reservation, Shared, Targets};
use statistics::count;
use strand::{Phase, Strand};
use worker::Worker;

/// Writes of many caches on their way to their origins, over one journal. Clones
/// are the same.
///
/// Each lane of the journal is applied by one task for each cache, so that an
/// origin that fails holds up nobody else's writes.
#[derive(Clone)]
pub struct WriteBehind(Arc<Handle>);

/// Dropped with the last handle: the tasks end, and what waits stays in the
/// journal.
struct Handle {
    shared: Arc<Shared>,
    targets: Targets,
}

impl WriteBehind {
    /// Takes over the journal: claims its lanes, reads what waits, and goes on
    /// from where each origin says it is. Needs a tokio runtime, on which the
    /// tasks run. An origin that cannot be reached is asked again until it
    /// answers; its writes wait, and more are accepted.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the options are no good, or the journal holds
    /// writes of a cache that is not among the targets; those of the journal.
    pub async fn open(
        journal: Arc<dyn DynJournal>,
        targets: impl IntoIterator<Item = (String, Arc<dyn DynOrigin<Key, Bytes>>)>,
        options: BehindOptions,
        clock: Clock,
    ) -> Result<Self> {
        options.check()?;
        let targets: Targets =
            targets.into_iter().map(|(cache, origin)| (Arc::from(cache), origin)).collect();
        let profile = journal.profile();
        let census = match journal.sharing() {
            Some(sharing) => Some(sharing.renew(&[]).await?),
            None => None,
        };
        let mut lanes = Vec::new();
        for number in 0..profile.lanes {
            let claim = match census.as_ref().and_then(|it| it.lanes.get(usize::from(number))) {
                // Claimed later, if it is this process' turn.
                Some(lane) => LaneClaim { epoch: 0, trimmed: lane.trimmed, last: lane.last },
                None => journal.claim(number).await?,
            };
            if census.is_none() {
                let bury = options.bury_unknown_caches;
                check_caches(&*journal, number, claim, &targets, bury).await?;
            }
            let strands = targets.iter().map(|(cache, origin)| {
                let mark_name = mark_name(&profile.name, cache);
                let strand = Strand::new(Arc::clone(cache), number, mark_name, Arc::clone(origin));
                (Arc::clone(cache), Arc::new(strand))
            });
            lanes.push(Arc::new(Lane::new(number, claim, strands.collect())));
        }
        let shared = Arc::new(Shared::new(journal, options, clock, lanes));
        shared.runtime.check(&shared.clock)?;
        for lane in &shared.lanes {
            let last = lane.last_claimed.lock().last;
            shared.note(lane, last).await?;
            if census.is_some() {
                continue;
            }
            lane.tenure.begin(lane.epoch(), None);
            for strand in lane.strands.values() {
                strand.set_phase(Phase::TakingOver);
                let worker =
                    Worker::new(shared.clone(), lane.clone(), strand.clone(), lane.epoch());
                shared.runtime.spawn(worker.run());
            }
        }
        if census.is_some() {
            fleet::start(&shared, targets.clone());
        }
        Ok(Self(Arc::new(Handle { shared, targets })))
    }

    /// What the journal is: what an acknowledged write survives, among others.
    #[must_use]
    pub fn profile(&self) -> JournalProfile {
        self.shared().profile.clone()
    }

    /// Accepts a write: once this returns, it survives what the journal's profile
    /// says, and the origin will have it, or it will be a dead letter. One sync of
    /// the journal, shared with all writes that come at the same time.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] if too much waits; [`ErrorKind::Unsupported`] if
    /// the origin cannot do it; [`ErrorKind::Conflict`] if another owner has the
    /// lane; [`ErrorKind::ShuttingDown`]; those of the journal. It was not accepted
    /// then, except with [`ErrorKind::OutcomeUnknown`].
    ///
    /// # Cancel safety
    /// If it is dropped, the write may or may not be accepted.
    pub async fn write(
        &self,
        cache: &str,
        write: Write<Key, Bytes>,
        version: Version,
    ) -> Result<JournalOffset> {
        let answers = self.write_many(cache, vec![(write, version)]).await;
        answers.into_iter().next().unwrap_or_else(|| Err(shutting_down()))
    }

    /// Accepts many writes, one answer for each. Those of one lane are accepted
    /// together or not at all.
    ///
    /// # Cancel safety
    /// As [`WriteBehind::write`].
    pub async fn write_many(
        &self,
        cache: &str,
        writes: Vec<(Write<Key, Bytes>, Version)>,
    ) -> Vec<Result<JournalOffset>> {
        let Some((cache, _)) = self.0.targets.get_key_value(cache) else {
            return writes.iter().map(|_| Err(no_such_cache(cache))).collect();
        };
        let mut answers: Vec<Option<Result<JournalOffset>>> = vec![None; writes.len()];
        let mut by_lane: BTreeMap<u16, (Vec<usize>, Vec<JournalRecord>)> = BTreeMap::new();
        for (index, (write, version)) in writes.into_iter().enumerate() {
            if let Err(error) = self.check(cache, std::slice::from_ref(&write)) {
                answers[index] = Some(Err(error));
                continue;
            }
            let lane = by_lane.entry(self.shared().lane(&write.key).number).or_default();
            lane.0.push(index);
            let cache = Arc::clone(cache);
            lane.1.push(JournalRecord { cache, write, version, age: Duration::ZERO });
        }
        let accepted = by_lane.into_iter().map(|(lane, (indices, records))| async move {
            let count = records.len() as u64;
            (indices, count, self.accept(lane, records).await)
        });
        for (indices, count, accepted) in join_all(accepted).await {
            for (place, index) in (0..).zip(indices) {
                let offset = accepted.clone().map(|last| JournalOffset(last.0 + 1 - count + place));
                answers[index] = Some(offset);
            }
        }
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(shutting_down()))).collect()
    }

    /// What a key will be once all is applied that was accepted; `None` if nothing
    /// of it waits. For as long as there is something, an older value must not be
    /// read from the origin alone.
    #[must_use]
    pub fn pending(&self, cache: &str, key: &Key) -> Option<Pending> {
        self.shared().lane(key).strands.get(cache)?.pending(key)
    }

    /// Applies all that was accepted before this call, now. Returns when the
    /// origins have it, or it is a dead letter. It waits for as long as an origin
    /// cannot be reached.
    ///
    /// # Errors
    /// Why a lane has stopped for good, and [`ErrorKind::ShuttingDown`].
    ///
    /// # Cancel safety
    /// If it is dropped, everything is applied nevertheless.
    pub async fn flush(&self) -> Result<()> {
        let shared = self.shared();
        let waits: Vec<(&Arc<Strand>, u64)> = shared
            .lanes
            .iter()
            .flat_map(|lane| lane.strands.values().map(|strand| (strand, lane.seen())))
            .collect();
        for (strand, to) in &waits {
            strand.flush(*to);
        }
        if shared.profile.shared {
            let lanes = shared.lanes.iter().filter(|lane| lane.waiting() > 0);
            fleet::hurry(shared, lanes.map(|lane| (lane.number, lane.seen()))).await;
        }
        Self::applied(shared, waits).await
    }

    /// Waits until these are applied, each strand up to a place.
    async fn applied(shared: &Shared, waits: Vec<(&Arc<Strand>, u64)>) -> Result<()> {
        for (strand, to) in waits {
            loop {
                let mut progress = pin!(strand.progress.notified());
                progress.as_mut().enable();
                if strand.first().is_none_or(|first| first > to) {
                    break;
                }
                if let Some(error) = strand.stopped() {
                    return Err(error);
                }
                if shared.is_stopped() {
                    return Err(shutting_down());
                }
                progress.await;
            }
        }
        Ok(())
    }

    /// Accepts nothing more, applies what waits for at most this long, and stops.
    /// Returns how many records are left: they stay in the journal, and are
    /// applied after the next start. Of a journal that others share, only what is in
    /// the lanes of this process is applied and counted; other processes are told
    /// that they can have these lanes.
    pub async fn shut_down(&self, at_most: Duration) -> usize {
        let shared = self.shared();
        shared.is_closing.store(true, Release);
        let until = shared.clock.precise_now() + at_most;
        let late = pin!(shared.runtime.sleep_until(&shared.clock, until));
        if let Either::Left((Err(error), _)) = select(pin!(self.flush_held()), late).await {
            tracing::warn!(%error, "not all writes behind could be applied");
        }
        let held: Vec<&Arc<Lane>> =
            shared.lanes.iter().filter(|lane| lane.tenure.number() > 0).collect();
        let left = held.iter().map(|lane| lane.waiting()).sum();
        shared.stop();
        if shared.profile.shared {
            let late = shared.runtime.sleep_until(&shared.clock, until + LEAVING);
            select(pin!(shared.fleet.left()), pin!(late)).await;
        }
        left
    }

    /// Applies what waits in the lanes that this process applies.
    async fn flush_held(&self) -> Result<()> {
        let shared = self.shared();
        if !shared.profile.shared {
            return self.flush().await;
        }
        let held = shared.lanes.iter().filter(|lane| lane.tenure.number() > 0);
        let strands = |lane: &'_ Arc<Lane>| (lane.seen(), Arc::clone(lane));
        let held: Vec<(u64, Arc<Lane>)> = held.map(strands).collect();
        let waits: Vec<(&Arc<Strand>, u64)> = held
            .iter()
            .flat_map(|(to, lane)| lane.strands.values().map(move |strand| (strand, *to)))
            .collect();
        for (strand, to) in &waits {
            strand.flush(*to);
        }
        Self::applied(shared, waits).await
    }

    /// What was done and what waits.
    #[must_use]
    pub fn statistics(&self) -> BehindStatistics {
        let shared = self.shared();
        let mut statistics = shared.counters.read();
        statistics.journal = shared.journal.usage();
        let now = shared.clock.now();
        statistics.nodes = shared.fleet.nodes();
        for lane in &shared.lanes {
            statistics.lanes_held += usize::from(lane.tenure.number() > 0);
            for strand in lane.strands.values() {
                let glance = strand.glance(now);
                let stopped = strand.stopped();
                statistics.oldest_age = statistics.oldest_age.max(glance.oldest_age);
                if glance.records > 0 || stopped.is_some() {
                    statistics.lanes.push(BehindLane {
                        cache: strand.cache.to_string(),
                        lane: lane.number,
                        records: glance.records,
                        oldest_age: glance.oldest_age,
                        failing: glance.failing,
                        stopped,
                    });
                }
            }
        }
        statistics
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// Appends to the journal in a task of its own, so that what the journal has
    /// is known here, whether anybody waits for it or not.
    async fn accept(&self, lane: u16, records: Vec<JournalRecord>) -> Result<JournalOffset> {
        let shared = Arc::clone(self.shared());
        let place = Reservation::take(&shared, &records)?;
        let (reply, answer) = oneshot::channel();
        self.shared().runtime.spawn(async move {
            let lane = &shared.lanes[usize::from(lane)];
            let appended = shared.journal.append(lane.number, &records).await;
            let records_count = records.len();
            let accepted = match appended {
                Ok(offset) if shared.profile.shared => {
                    if let Err(error) = lane.note_own(&shared, records, offset).await {
                        // It is in the journal, and is heard of later.
                        tracing::debug!(%error, lane = lane.number, "a write is not noted yet");
                    }
                    Ok(offset)
                }
                Ok(offset) => shared.note(lane, offset).await.map(|()| offset),
                Err(error) => Err(error),
            };
            match &accepted {
                Ok(_) => count(&shared.counters.accepted, records_count),
                Err(error) if error.kind() == ErrorKind::Overloaded => {
                    count(&shared.counters.refused_full, records_count);
                }
                Err(_) => {}
            }
            drop(place);
            // Whoever does not wait any more does not want to know.
            let _ = reply.send(accepted);
        });
        answer.await.unwrap_or_else(|_| Err(shutting_down()))
    }

    /// Whether writes can be taken: before anything is acknowledged.
    fn check(&self, cache: &str, writes: &[Write<Key, Bytes>]) -> Result<()> {
        let shared = self.shared();
        if shared.is_closing.load(Acquire) {
            return Err(shutting_down());
        }
        for write in writes {
            let strand = shared.lane(&write.key).strands.get(cache);
            let strand = strand.ok_or_else(|| no_such_cache(cache))?;
            if let Some(error) = strand.stopped().filter(|_| !shared.profile.shared) {
                return Err(error);
            }
            let abilities = strand.abilities;
            let expects = match write.expected {
                Expected::Anything => true,
                Expected::Version(_) => abilities.versions,
                _ => abilities.presence,
            };
            let acts = match write.action {
                Action::Put(_) | Action::Remove => abilities.put,
                Action::Patch(_) => abilities.patch,
                Action::Add { .. } => abilities.add,
                _ => false,
            };
            if !expects || !acts {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "the origin cannot make this write",
                )
                .with("cache", cache)
                .remedy("write what it can: see its write abilities"));
            }
            let is_add = matches!(write.action, Action::Add { .. });
            if is_add && !abilities.marks && !shared.options.repeated_adds {
                return Err(repeated_add(cache));
            }
        }
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl fmt::Debug for WriteBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteBehind")
            .field("journal", &self.shared().profile)
            .field("options", &self.shared().options)
            .finish_non_exhaustive()
    }
}

/// How long a process that ends may take to tell others that it does.
const LEAVING: Duration = Duration::from_secs(2);

/// The name under which an origin keeps the marks of a cache. Databases bound it:
/// of a long name of a cache there is the beginning, and a hash.
fn mark_name(journal: &str, cache: &str) -> Arc<str> {
    if cache.len() <= CACHE_NAME_BYTES_MAX {
        return Arc::from(format!("{journal}/{cache}"));
    }
    let beginning = &cache[..cache.floor_char_boundary(CACHE_NAME_BYTES_MAX / 2)];
    Arc::from(format!("{journal}/{beginning}~{:016x}", xxh3_64(cache.as_bytes())))
}

const CACHE_NAME_BYTES_MAX: usize = 80;

/// Looks for records that nobody would apply.
async fn check_caches(
    journal: &dyn DynJournal,
    lane: u16,
    claim: LaneClaim,
    targets: &Targets,
    bury: bool,
) -> Result<()> {
    let mut after = claim.trimmed;
    loop {
        let entries = journal.read(lane, after, 1024).await?;
        let Some(last) = entries.last() else { return Ok(()) };
        after = last.offset;
        let is_unknown = |record: &JournalRecord| !targets.contains_key(&record.cache);
        let unknown = entries.iter().filter(|entry| is_unknown(&entry.record));
        let mut deaths = Vec::new();
        for entry in unknown {
            let error = unknown_cache(lane, &entry.record.cache);
            if !bury {
                return Err(error);
            }
            deaths.push(Death::new(entry.offset, DeathCause::Refused, &error.to_string()));
        }
        if !deaths.is_empty() {
            journal.bury(lane, claim.epoch, &deaths).await?;
        }
    }
}

fn no_such_cache(cache: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, "no writes behind are configured for this cache")
        .with("cache", cache)
}

fn repeated_add(cache: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "an addition could be applied twice: the origin keeps no marks",
    )
    .with("cache", cache)
    .remedy("write through, or set repeated_adds if adding twice after a crash does no harm")
}

fn shutting_down() -> Error {
    Error::new(ErrorKind::ShuttingDown, "write-behind is shutting down")
}
