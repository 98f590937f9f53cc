use std::fmt;
use std::sync::Arc;
use std::thread;

use larder_core::{
    DeadLetter, Death, Error, ErrorKind, Journal, JournalEntry, JournalOffset, JournalProfile,
    JournalRecord, JournalUsage, LaneClaim, Result, Survives,
};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{oneshot, watch};

use crate::files::{Directory, Files};
use crate::log::{Log, stopped};
use crate::opening::Damage;
use crate::operation::Operation;
use crate::options::JournalOptions;
use crate::state::{Item, Lane, Letter};
use crate::time::JournalTime;
use crate::writer::{self, Answer, Order, Published, Queue, Shared, Work};

/// A journal in a directory of this machine. Clones are the same journal.
#[derive(Clone)]
pub struct DiskJournal(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    time: Arc<JournalTime>,
    profile: JournalProfile,
    openings: u64,
    /// How often each lane was claimed.
    claims: Mutex<Vec<u64>>,
    damages: Vec<Damage>,
    options: JournalOptions,
    /// Set when the thread that writes has ended.
    ended: watch::Receiver<bool>,
}

/// What a journal did since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct JournalStatistics {
    /// Groups written: one sync of the disk each.
    pub commits: u64,
    /// Writes and syncs that the disk refused.
    pub failures: u64,
    /// How often all was written anew after a failed sync.
    pub recoveries: u64,
    /// Files.
    pub segments: usize,
    /// Bytes at the end that a crash had torn. Nothing in them was acknowledged.
    pub torn_bytes: u64,
}

impl DiskJournal {
    /// Opens the journal of a directory, or makes one, and starts the thread that
    /// writes. What an earlier process left is read into memory.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the options are no good or another process has
    /// the directory, [`ErrorKind::Decode`] if acknowledged records are damaged,
    /// with the place, [`ErrorKind::Unavailable`] if the disk fails.
    pub async fn open(options: JournalOptions) -> Result<Self> {
        let opening = thread_call(move || {
            options.check()?;
            let files = Directory::take(&options.directory)?;
            Self::open_on(files, options)
        });
        opening.await?
    }

    /// Opens a journal on other files than a directory's.
    ///
    /// # Errors
    /// As [`DiskJournal::open`].
    pub fn open_on<F: Files>(files: F, options: JournalOptions) -> Result<Self> {
        options.check()?;
        let (log, damages) = Log::open(files, options.clone())?;
        for damage in &damages {
            tracing::error!(
                file = damage.file,
                byte = damage.at,
                what = damage.what,
                "the journal is damaged: it goes on with what can be read"
            );
        }
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::default()),
            wake: Condvar::new(),
            state: Arc::clone(&log.state),
            published: Mutex::new(Published { counts: log.counts, is_broken: false }),
        });
        let profile = JournalProfile {
            name: log.name(),
            lanes: options.lanes,
            survives: Survives::PowerLoss,
            shared: false,
            record_bytes_max: options.record_bytes_max,
        };
        let (time, openings) = (Arc::clone(&log.time), log.openings());
        let (has_ended, ended) = watch::channel(false);
        let writer = Arc::clone(&shared);
        thread::Builder::new()
            .name("larder-journal".to_owned())
            .spawn(move || {
                writer::run(log, &writer);
                // The files are given back by now.
                has_ended.send_replace(true);
            })
            .map_err(no_thread)?;
        let claims = Mutex::new(vec![0; usize::from(options.lanes)]);
        Ok(Self(Arc::new(Inner {
            shared,
            time,
            profile,
            openings,
            claims,
            damages,
            options,
            ended,
        })))
    }

    /// Takes nothing more, writes what waits and gives the directory back.
    pub async fn close(&self) {
        self.0.shared.close();
        let mut ended = self.0.ended.clone();
        // An error says that the thread is gone, too.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// What it did.
    #[must_use]
    pub fn statistics(&self) -> JournalStatistics {
        let counts = self.0.shared.published.lock().counts;
        JournalStatistics {
            commits: counts.commits,
            failures: counts.failures,
            recoveries: counts.recoveries,
            segments: self.0.shared.state.lock().segments.len(),
            torn_bytes: counts.torn_bytes,
        }
    }

    /// What could not be read, with [`OnDamage::KeepReadable`](crate::OnDamage).
    #[must_use]
    pub fn damages(&self) -> &[Damage] {
        &self.0.damages
    }

    async fn order(&self, work: Work, bytes: u64, records: usize) -> Result<Answer> {
        let (reply, answer) = oneshot::channel();
        {
            let mut queue = self.0.shared.queue.lock();
            if records > 0 {
                self.check_room(&queue, bytes, records)?;
            }
            queue.push(Order { work, reply, bytes, records })?;
        }
        self.0.shared.wake.notify_one();
        answer.await.map_err(|_| stopped())?
    }

    fn check_room(&self, queue: &Queue, bytes: u64, records: usize) -> Result<()> {
        let state = self.0.shared.state.lock();
        let held = state.records + state.letters + queue.records;
        let (bytes_max, records_max) = (self.0.options.bytes_max, self.0.options.records_max);
        if state.bytes + queue.bytes + bytes <= bytes_max && held + records <= records_max {
            return Ok(());
        }
        let mostly_letters = state.letters > state.records;
        Err(Error::new(ErrorKind::Overloaded, "the journal is full: the write was not accepted")
            .with("records", state.records)
            .with("dead letters", state.letters)
            .with("bytes", state.bytes)
            .with("bytes_max", bytes_max)
            .with("records_max", records_max)
            .remedy(match mostly_letters {
                true => "replay or drop dead letters, or raise bytes_max and records_max",
                false => {
                    "try again when the origin has taken more, or raise bytes_max and records_max"
                }
            }))
    }

    fn check_lane(&self, lane: u16) -> Result<()> {
        if lane < self.0.profile.lanes {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, "the journal has no such lane")
            .with("lane", lane)
            .with("lanes", self.0.profile.lanes))
    }

    fn check_record(&self, record: &JournalRecord) -> Result<u64> {
        let bytes = record.encoded_length();
        let limit = self.0.profile.record_bytes_max;
        if bytes <= limit && record.cache.len() <= usize::from(u16::MAX) {
            return Ok(Operation::append_bytes(record) as u64);
        }
        Err(Error::new(ErrorKind::InvalidInput, "a record is too large for the journal")
            .with("bytes", bytes)
            .with("record_bytes_max", limit)
            .remedy("write smaller values, or raise record_bytes_max"))
    }

    fn check_epoch(&self, lane: u16, epoch: u64) -> Result<()> {
        self.check_lane(lane)?;
        let live = self.epoch(self.0.claims.lock()[usize::from(lane)]);
        if epoch == live {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Conflict, "the lane has another owner now")
            .with("lane", lane)
            .with("epoch", epoch)
            .with("epoch of the owner", live))
    }

    fn epoch(&self, claims: u64) -> u64 {
        (self.0.openings << CLAIM_BITS) | claims
    }

    /// Looks at a lane.
    fn with_lane<T>(&self, lane: u16, look: impl FnOnce(&Lane) -> T) -> Result<T> {
        self.check_lane(lane)?;
        let state = self.0.shared.state.lock();
        state.lane(lane).map(look).ok_or_else(stopped)
    }

    fn aged(&self, item: &Item) -> JournalRecord {
        JournalRecord { age: self.0.time.age(item.accepted), ..JournalRecord::clone(&item.record) }
    }
}

impl Journal for DiskJournal {
    fn profile(&self) -> JournalProfile {
        self.0.profile.clone()
    }

    fn usage(&self) -> JournalUsage {
        let is_broken = self.0.shared.published.lock().is_broken;
        let state = self.0.shared.state.lock();
        JournalUsage {
            records: state.records,
            dead_letters: state.letters,
            bytes: state.bytes,
            bytes_max: self.0.options.bytes_max,
            stored_bytes: state.segments.values().map(|segment| segment.bytes).sum(),
            writable: !is_broken,
        }
    }

    async fn claim(&self, lane: u16) -> Result<LaneClaim> {
        self.check_lane(lane)?;
        let claims = {
            let mut claims = self.0.claims.lock();
            let of_lane = &mut claims[usize::from(lane)];
            *of_lane = (*of_lane + 1).min((1 << CLAIM_BITS) - 1);
            *of_lane
        };
        let epoch = self.epoch(claims);
        self.with_lane(lane, |lane| LaneClaim {
            epoch,
            trimmed: JournalOffset(lane.trimmed),
            last: JournalOffset(lane.next - 1),
        })
    }

    async fn append(&self, lane: u16, records: &[JournalRecord]) -> Result<JournalOffset> {
        self.check_lane(lane)?;
        let mut bytes = 0;
        for record in records {
            bytes += self.check_record(record)?;
        }
        if records.is_empty() || bytes > APPEND_BYTES_MAX {
            return Err(Error::new(ErrorKind::InvalidInput, "an append is empty or too large")
                .with("bytes", bytes)
                .with("limit", APPEND_BYTES_MAX));
        }
        let records: Vec<_> = records.iter().cloned().map(Arc::new).collect();
        let count = records.len();
        match self.order(Work::Append { lane, records }, bytes, count).await? {
            Answer::At(offset) => Ok(JournalOffset(offset)),
            _ => Err(stopped()),
        }
    }

    async fn read(
        &self,
        lane: u16,
        after: JournalOffset,
        most: usize,
    ) -> Result<Vec<JournalEntry>> {
        self.with_lane(lane, |lane| {
            let records = lane.records.range(after.0.saturating_add(1)..).take(most);
            let entry = |(offset, item): (&u64, &Item)| JournalEntry {
                offset: JournalOffset(*offset),
                record: self.aged(item),
            };
            records.map(entry).collect()
        })
    }

    async fn trim(&self, lane: u16, epoch: u64, applied: JournalOffset) -> Result<()> {
        self.check_epoch(lane, epoch)?;
        let last = self.with_lane(lane, |lane| lane.next - 1)?;
        if applied.0 > last {
            return Err(Error::new(ErrorKind::InvalidInput, "a trim beyond the last record")
                .with("lane", lane)
                .with("offset", applied.0)
                .with("last", last));
        }
        self.order(Work::Trim { lane, through: applied.0 }, 0, 0).await.map(drop)
    }

    async fn bury(&self, lane: u16, epoch: u64, deaths: &[Death]) -> Result<()> {
        self.check_epoch(lane, epoch)?;
        self.order(Work::Bury { lane, deaths: deaths.to_vec() }, 0, 0).await.map(drop)
    }

    async fn dead_letters(
        &self,
        lane: u16,
        after: JournalOffset,
        most: usize,
    ) -> Result<Vec<DeadLetter>> {
        let number = lane;
        self.with_lane(lane, |lane| {
            let letters = lane.letters.range(after.0.saturating_add(1)..).take(most);
            let letters = letters.map(|(offset, letter)| DeadLetter {
                lane: number,
                record: self.aged(&letter.item),
                death: Death {
                    offset: JournalOffset(*offset),
                    cause: letter.cause,
                    reason: Arc::clone(&letter.reason),
                },
            });
            letters.collect()
        })
    }

    async fn replay(
        &self,
        lane: u16,
        letter: JournalOffset,
        instead: Option<&JournalRecord>,
    ) -> Result<Option<JournalOffset>> {
        self.check_lane(lane)?;
        // The letter gives back what it takes.
        let freed = self.with_lane(lane, |lane| lane.letters.get(&letter.0).map(Letter::bytes))?;
        let bytes = instead.map(|record| self.check_record(record)).transpose()?;
        let more = bytes.unwrap_or(0).saturating_sub(freed.unwrap_or(0));
        let records = usize::from(more > 0);
        let work = Work::Replay { lane, letter: letter.0, instead: instead.cloned().map(Arc::new) };
        match self.order(work, more, records).await? {
            Answer::At(offset) => Ok(Some(JournalOffset(offset))),
            _ => Ok(None),
        }
    }

    async fn drop_letters(&self, lane: u16, letters: &[JournalOffset]) -> Result<usize> {
        self.check_lane(lane)?;
        let letters = letters.iter().map(|letter| letter.0).collect();
        match self.order(Work::Forget { lane, letters }, 0, 0).await? {
            Answer::Count(count) => Ok(count),
            _ => Ok(0),
        }
    }
}

impl fmt::Debug for DiskJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskJournal").field("profile", &self.0.profile).finish_non_exhaustive()
    }
}

/// The thread writes what waits and ends.
impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    fn close(&self) {
        self.queue.lock().close();
        self.wake.notify_one();
    }
}

/// An epoch is how often the journal was opened, then how often the lane was
/// claimed since. It fits into what databases call a bigint.
const CLAIM_BITS: u32 = 32;
/// All of one append is one frame.
const APPEND_BYTES_MAX: u64 = 1 << 30;

/// Runs what blocks on a thread of its own.
async fn thread_call<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (reply, answer) = oneshot::channel();
    let builder = thread::Builder::new().name("larder-journal".to_owned());
    // Whoever does not wait any more drops what was opened.
    builder.spawn(move || drop(reply.send(call()))).map_err(no_thread)?;
    answer.await.map_err(|_| stopped())
}

fn no_thread(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the journal cannot start its thread").caused_by(error)
}
