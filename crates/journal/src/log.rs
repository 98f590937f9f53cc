use std::io;
use std::sync::Arc;

use larder_core::{Error, ErrorKind, Moment, Result};
use parking_lot::Mutex;

use crate::files::{Files, LogFile};
use crate::opening::{DAMAGED_ENDING, Damage, UNFINISHED_ENDING, read, segment_name};
use crate::operation::{Checkpoint, Operation};
use crate::options::{JournalOptions, OnDamage};
use crate::segment::{FRAME_HEAD_BYTES, HEAD_BYTES, Head, frame_at, put_frame};
use crate::state::{Segment, State};
use crate::time::JournalTime;

/// The log on the disk. One thread has it.
///
/// Files are written one after another. A frame is written only when all before
/// it are durable, so that a crash can tear the last one at most. A file gets its
/// name when all that it begins with is durable.
pub(crate) struct Log<F: Files> {
    files: F,
    options: JournalOptions,
    head: Option<F::File>,
    number: u64,
    salt: u64,
    /// Of the head, as far as it is durable.
    length: u64,
    /// How long the file of the head is. From `length` on it has zeros: a sync of
    /// what replaces them need not tell the file system of a longer file, which
    /// takes it about as long as the rest.
    reserved: u64,
    /// The place of the next frame in the head.
    place: u64,
    /// Numbers that were given to files, successful or not.
    number_max: u64,
    journal: u64,
    name: Arc<str>,
    openings: u64,
    pub(crate) time: Arc<JournalTime>,
    pub(crate) state: Arc<Mutex<State>>,
    broken: Option<Broken>,
    pub(crate) counts: LogCounts,
}

/// What the log did since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct LogCounts {
    pub(crate) commits: u64,
    pub(crate) failures: u64,
    pub(crate) recoveries: u64,
    pub(crate) torn_bytes: u64,
}

/// Why nothing is written any more.
struct Broken {
    error: Error,
    tried_at: Moment,
}

/// Why operations were not written.
pub(crate) enum Failed {
    /// They are not in the log and never will be.
    NotThere(Error),
    /// A restart may find them.
    Unknown(Error),
}

impl<F: Files> Log<F> {
    /// Reads the log and begins a new segment, so that what a crash left at the
    /// end of the last one is never written behind.
    pub(crate) fn open(files: F, options: JournalOptions) -> Result<(Self, Vec<Damage>)> {
        let opened = read(&files)?;
        if !opened.damages.is_empty() && options.on_damage == OnDamage::Refuse {
            return Err(refused(&opened.damages));
        }
        let checkpoint = opened.checkpoint.unwrap_or_default();
        let is_new = opened.journal.is_none();
        let journal = opened.journal.unwrap_or_else(|| fastrand::u64(1..));
        let mut state = opened.state;
        if !opened.damages.is_empty() {
            state.forget_missing();
        }
        let waiting = state.records + state.letters;
        if !is_new && checkpoint.lanes_used != options.lanes && waiting > 0 {
            return Err(lanes_changed(checkpoint.lanes_used, options.lanes, waiting));
        }
        state.grow(options.lanes);
        let name = match is_new || checkpoint.name.is_empty() {
            true => format!("{}-{journal:016x}", options.name),
            false => checkpoint.name,
        };
        let before = (!is_new).then_some((checkpoint.time, checkpoint.machine));
        let time = JournalTime::start(options.clock.clone(), options.machine_clock.clone(), before);
        let counts = LogCounts { torn_bytes: opened.torn_bytes, ..LogCounts::default() };
        let mut log = Self {
            files,
            head: None,
            number: opened.number_max,
            salt: 0,
            length: opened.length,
            reserved: opened.length,
            place: 0,
            number_max: opened.number_max,
            journal,
            name: Arc::from(name),
            openings: checkpoint.openings + 1,
            time: Arc::new(time),
            state: Arc::new(Mutex::new(state)),
            broken: None,
            counts,
            options,
        };
        log.begin_after(opened.damages.is_empty())?;
        log.clear_away(&opened.stale, &opened.damages);
        Ok((log, opened.damages))
    }

    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    pub(crate) fn openings(&self) -> u64 {
        self.openings
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Writes operations as one frame, in one step, and returns when they are
    /// durable.
    pub(crate) fn commit(&mut self, operations: Vec<Operation>) -> Result<(), Failed> {
        self.recover_if_due().map_err(Failed::NotThere)?;
        if self.length >= self.options.segment_bytes {
            self.roll().map_err(Failed::NotThere)?;
        }
        self.write(operations)?;
        self.counts.commits += 1;
        self.free();
        Ok(())
    }

    /// Writes what only spares work, such as at the end.
    pub(crate) fn write(&mut self, operations: Vec<Operation>) -> Result<(), Failed> {
        let mut frame = Vec::new();
        put_frame(&mut frame, self.salt, self.place, |into| {
            operations.iter().for_each(|operation| operation.encode(into));
        });
        let length = self.length;
        let end = length + frame.len() as u64;
        if end > self.reserved {
            let ahead = self.options.segment_bytes.saturating_sub(end);
            let ahead = ahead.min(self.options.segment_bytes / RESERVED_PARTS);
            self.reserved = end + ahead;
            frame.resize(frame.len() + usize::try_from(ahead).unwrap_or(0), 0);
        }
        let Some(head) = &mut self.head else {
            return Err(Failed::NotThere(stopped()));
        };
        if let Err(error) = head.write_at(&frame, length) {
            self.counts.failures += 1;
            let refusal = refused_by_disk(&error);
            // Room may be scarce: in this file no more is taken than is needed.
            self.reserved = u64::MAX;
            // A part of it may be there, even all of it: it must not be found later.
            return match head.truncate(length).and_then(|()| head.sync()) {
                Ok(()) => Err(Failed::NotThere(refusal)),
                Err(error) => Err(self.fail(&error)),
            };
        }
        if let Err(error) = head.sync() {
            self.counts.failures += 1;
            return Err(self.fail(&error));
        }
        self.length = end;
        self.place += 1;
        let mut state = self.state.lock();
        for operation in operations {
            state.apply(operation, self.number);
        }
        state.segments.entry(self.number).or_default().bytes = self.length;
        Ok(())
    }

    /// After a failed sync nobody knows what the file has: it is never written
    /// or synced again. All that was acknowledged is written anew into another
    /// one.
    fn fail(&mut self, error: &io::Error) -> Failed {
        self.head = None;
        tracing::error!(%error, "the journal's disk failed to sync: it writes all anew");
        let refusal = refused_by_disk(error);
        let tried_at = self.options.clock.now();
        self.broken = Some(Broken { error: refusal.clone(), tried_at });
        match self.rewrite() {
            Ok(()) => Failed::NotThere(refusal),
            Err(_) => Failed::Unknown(
                Error::new(
                    ErrorKind::OutcomeUnknown,
                    "the journal's disk failed while a record was written",
                )
                .caused_by(refusal)
                .remedy("the record may be found after a restart; look before it is written again"),
            ),
        }
    }

    fn recover_if_due(&mut self) -> Result<()> {
        let Some(broken) = &mut self.broken else { return Ok(()) };
        let now = self.options.clock.now();
        if now.since(broken.tried_at) < self.options.recovery_pause {
            return Err(broken.error.clone());
        }
        broken.tried_at = now;
        let error = broken.error.clone();
        self.rewrite().map_err(|_| error)
    }

    /// Writes all that is held into a new segment beside which nothing else
    /// counts, reads it back from the disk, and goes on in it.
    fn rewrite(&mut self) -> Result<()> {
        let begun = self.begin(true).and_then(|head| self.name_it(head));
        if let Err(error) = begun {
            tracing::error!(%error, "the journal cannot recover yet");
            return Err(refused_by_disk(&error));
        }
        self.broken = None;
        self.counts.recoveries += 1;
        self.free();
        Ok(())
    }

    /// Begins the next segment. What is behind `length` in this one never counts.
    fn roll(&mut self) -> Result<()> {
        let head = self.begin(false).map_err(|error| {
            self.counts.failures += 1;
            refused_by_disk(&error)
        })?;
        self.name_it(head).map_err(|error| {
            // Whether the next segment is there, nobody knows: if it is, nothing
            // counts that is written behind the end of this one.
            self.counts.failures += 1;
            match self.fail(&error) {
                Failed::NotThere(error) | Failed::Unknown(error) => error,
            }
        })
    }

    fn begin_after(&mut self, is_whole: bool) -> Result<()> {
        let cannot = |error: io::Error| {
            Error::new(ErrorKind::Unavailable, "the journal cannot begin a file")
                .caused_by(error)
                .remedy("look at the disk and the room on it; nothing was changed")
        };
        // What is damaged is left behind.
        let head = self.begin(!is_whole).map_err(cannot)?;
        self.name_it(head).map_err(cannot)
    }

    /// Writes the beginning of the next segment under a name that does not count
    /// yet. With `alone`, everything that is held is in it.
    fn begin(&mut self, alone: bool) -> io::Result<Begun<F::File>> {
        let number = self.number_max + 1;
        let oldest = self.state.lock().segments.keys().next().copied();
        let head = Head {
            number,
            salt: fastrand::u64(..),
            base: if alone { number } else { oldest.unwrap_or(number) },
            previous_length: if alone { 0 } else { self.length },
            journal: self.journal,
        };
        let carried = if alone { self.state.lock().carry(u64::MAX) } else { Vec::new() };
        let mut bytes = head.encode();
        let mut place = 1;
        put_frame(&mut bytes, head.salt, 0, |into| self.checkpoint().encode(into));
        for operations in carried.chunks(CARRIED_TOGETHER) {
            put_frame(&mut bytes, head.salt, place, |into| {
                operations.iter().for_each(|operation| operation.encode(into));
            });
            place += 1;
        }
        let name = unfinished_name(&head);
        let mut file = self.files.create(&name)?;
        let written = file.write_at(&bytes, 0).and_then(|()| file.sync());
        let is_there = written.and_then(|()| match alone {
            true => self.check(&name, &bytes),
            false => Ok(()),
        });
        if let Err(error) = is_there {
            let _ = self.files.remove(&name);
            return Err(error);
        }
        Ok(Begun { file, head, place, length: bytes.len() as u64, carried })
    }

    /// What was written after a failure is believed when it was read from the
    /// disk.
    fn check(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        match self.files.read(name)? == bytes {
            true => Ok(()),
            false => Err(io::Error::other("what was written cannot be read back")),
        }
    }

    /// Gives a segment its name, and goes on in it.
    fn name_it(&mut self, begun: Begun<F::File>) -> io::Result<()> {
        let Begun { file, head, place, length, carried } = begun;
        // From here on the number may be taken, whatever the disk says.
        self.number_max = head.number;
        self.files.rename(&unfinished_name(&head), &segment_name(head.number))?;
        self.files.sync_names()?;
        self.head = Some(file);
        (self.number, self.salt) = (head.number, head.salt);
        (self.place, self.length, self.reserved) = (place, length, length);
        let mut state = self.state.lock();
        state.segments.insert(head.number, Segment { bytes: length, live: 0 });
        for operation in carried {
            state.apply(operation, head.number);
        }
        Ok(())
    }

    fn checkpoint(&self) -> Operation {
        let (time, machine) = self.time.anchor();
        Operation::Checkpoint(Checkpoint {
            name: self.name.to_string(),
            openings: self.openings,
            lanes_used: self.options.lanes,
            time,
            machine,
            lanes: self.state.lock().lane_checkpoints(),
        })
    }

    /// Removes the oldest segments, as far as nothing in them is held, and writes
    /// again what keeps the last of them for too long. What fails is tried again
    /// after the next commit.
    fn free(&mut self) {
        self.remove_oldest();
        let (oldest, is_too_much) = {
            let state = self.state.lock();
            let stored: u64 = state.segments.values().map(|segment| segment.bytes).sum();
            let enough = 2 * state.bytes + 2 * self.options.segment_bytes;
            (state.segments.keys().next().copied(), stored > enough)
        };
        let Some(oldest) = oldest.filter(|oldest| is_too_much && *oldest != self.number) else {
            return;
        };
        let carried = self.state.lock().carry(oldest);
        for operations in carried.chunks(CARRIED_TOGETHER) {
            if self.write(operations.to_vec()).is_err() {
                return;
            }
        }
        self.remove_oldest();
    }

    fn remove_oldest(&mut self) {
        loop {
            let oldest = self.state.lock().segments.iter().next().map(|(n, used)| (*n, *used));
            let Some((number, used)) = oldest else { return };
            if used.live > 0 || number == self.number {
                return;
            }
            let removed = match self.files.remove(&segment_name(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => self.files.sync_names(),
            };
            if let Err(error) = removed {
                tracing::warn!(%error, "a file of the journal cannot be removed yet");
                return;
            }
            self.state.lock().segments.remove(&number);
        }
    }

    /// Sets damaged files aside, and removes those that are not part of the log.
    fn clear_away(&mut self, stale: &[String], damages: &[Damage]) {
        let mut damaged: Vec<&str> = damages.iter().map(|damage| &*damage.file).collect();
        damaged.dedup();
        for name in damaged.into_iter().filter(|name| !name.is_empty()) {
            let _ = self.files.rename(name, &format!("{name}{DAMAGED_ENDING}"));
        }
        for name in stale {
            let _ = self.files.remove(name);
        }
        self.remove_oldest();
    }
}

/// A segment that has no name yet.
struct Begun<File> {
    file: File,
    head: Head,
    place: u64,
    length: u64,
    carried: Vec<Operation>,
}

/// A head grows by this part of a whole segment.
const RESERVED_PARTS: u64 = 16;

/// Items of a frame that is not one commit.
const CARRIED_TOGETHER: usize = 256;

/// Never twice the same: what failed once is not written again.
fn unfinished_name(head: &Head) -> String {
    format!("{:016x}-{:016x}{UNFINISHED_ENDING}", head.number, head.salt)
}

pub(crate) fn stopped() -> Error {
    Error::new(ErrorKind::ShuttingDown, "the journal is closed")
}

fn refused_by_disk(error: &io::Error) -> Error {
    let is_full = matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    );
    let remedy = match is_full {
        true => "make room on the journal's disk; it goes on by itself",
        false => "look at the journal's disk; it goes on by itself when it can write again",
    };
    Error::new(ErrorKind::Unavailable, "the journal cannot write: nothing is accepted")
        .with("cause", error)
        .remedy(remedy)
}

fn refused(damages: &[Damage]) -> Error {
    let first = &damages[0];
    Error::new(ErrorKind::Decode, "the journal is damaged: acknowledged writes cannot be read")
        .with("file", &first.file)
        .with("byte", first.at)
        .with("what", &first.what)
        .with("damages", damages.len())
        .remedy("restore its files, or open it with OnDamage::KeepReadable to go on without them")
}

fn lanes_changed(before: u16, now: u16, waiting: usize) -> Error {
    Error::new(ErrorKind::Config, "the number of lanes changed while records wait in them")
        .with("lanes before", before)
        .with("lanes now", now)
        .with("records and dead letters", waiting)
        .remedy("start with the number before until the journal is empty, then change it")
}

/// Reads whatever stands in a file, for fuzzing: as it is, and as the body of a
/// frame whose checksum is right.
#[doc(hidden)]
pub fn check_segment(bytes: &[u8]) {
    if let Some(head) = Head::decode(bytes) {
        let mut at = HEAD_BYTES;
        while let Some((_, body)) = frame_at(bytes, at, head.salt) {
            at += FRAME_HEAD_BYTES + body.len();
        }
    }
    let Some(operations) = Operation::decode_all(bytes) else { return };
    let mut again = Vec::new();
    operations.iter().for_each(|operation| operation.encode(&mut again));
    assert_eq!(again, bytes, "a second encoding of one frame");
    let mut state = State::default();
    for operation in operations {
        state.apply(operation, 1);
    }
    let _ = state.missing();
    assert!(
        state.segments.values().map(|segment| segment.live).sum::<usize>()
            == state.records + state.letters
    );
}
