use std::io;

use larder_core::{BatchError, Error, ErrorKind, JournalOffset, LaneMark, Result};
use larder_journal::files::{Files, LogFile};

use crate::FileOptions;
use crate::lines::{self, Marks};
use crate::name::{FileName, UNFINISHED};

/// What was done with audit files. Counters are of this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct FileStatistics {
    /// Records that were written.
    pub records: u64,
    /// Batches that were written.
    pub batches: u64,
    /// Files that were begun.
    pub begun: u64,
    /// Old files that were removed.
    pub removed: u64,
    /// Batches that failed, and will come again.
    pub failures: u64,
    /// Bytes behind the last whole batch that were cut off at the start.
    pub torn_bytes: u64,
    /// How often the newest file was missing, because somebody took it away.
    pub missed: u64,
}

/// The files of a directory, the newest of which is written.
///
/// - A file gets its name when its head is on the disk, and the head says how far
///   every lane was. So the newest file is all that must be read.
/// - A batch is one write and one sync. If either fails, nobody knows what the
///   disk has; the file is cut off where the last batch ended before anything
///   else is written, so nothing of it can come back.
pub(crate) struct Shelf<F: Files> {
    files: F,
    options: FileOptions,
    newest: Option<Newest<F::File>>,
    /// What is durable.
    marks: Marks,
    next_number: u64,
    statistics: FileStatistics,
}

struct Newest<File> {
    name: FileName,
    file: File,
    /// Up to here all is durable.
    length: u64,
    records: u64,
    /// A batch failed: there may be something behind `length`.
    has_rest: bool,
}

/// A batch before it is known where it will stand.
pub(crate) struct Lines {
    pub(crate) bytes: Vec<u8>,
    pub(crate) records: u64,
}

impl<F: Files> Shelf<F> {
    /// Takes the files that are there, and cuts off what a crash has torn.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the newest file is damaged or cannot be read.
    pub(crate) fn open(files: F, options: FileOptions) -> Result<Self> {
        options.check()?;
        let marks = Marks::default();
        let statistics = FileStatistics::default();
        let mut shelf = Self { files, options, newest: None, marks, next_number: 1, statistics };
        let names = shelf.files.names().map_err(|error| unreadable("", error))?;
        for name in names.iter().filter(|name| name.ends_with(UNFINISHED)) {
            shelf.files.remove(name).map_err(|error| unreadable(name, error))?;
        }
        let names = names.iter().filter_map(|name| FileName::read(name));
        if let Some(name) = names.max() {
            shelf.next_number = name.number.saturating_add(1);
            shelf.take(name)?;
        }
        Ok(shelf)
    }

    /// How far a lane is, on the disk.
    pub(crate) fn applied(&mut self, journal: &str, lane: u16) -> Result<Option<LaneMark>> {
        self.cut_rest()?;
        Ok(self.marks.get(journal, lane))
    }

    /// Appends a batch and keeps its mark, both or neither. Returns whether
    /// anything was appended: not if the mark is there already.
    pub(crate) fn append(&mut self, lines: Lines, mark: &LaneMark) -> Result<bool, BatchError> {
        let known = self.marks.get(&mark.journal, mark.lane);
        if let Some(known) = &known
            && known.epoch > mark.epoch
        {
            return Err(later_owner(mark, known).into());
        }
        if known.is_none() && self.marks.len() >= MARKS_MAX {
            return Err(too_many_marks().into());
        }
        let is_there = known.as_ref().is_some_and(|known| known.applied >= mark.applied);
        if is_there && known.as_ref().is_some_and(|known| known.epoch == mark.epoch) {
            return Ok(false);
        }
        let held = known.map_or(JournalOffset::START, |known| known.applied);
        let mark = LaneMark { applied: mark.applied.max(held), ..mark.clone() };
        let lines = if is_there { Lines { bytes: Vec::new(), records: 0 } } else { lines };
        let written = self.write(lines, &mark);
        self.statistics.failures += u64::from(written.is_err());
        written?;
        Ok(!is_there)
    }

    pub(crate) fn statistics(&self) -> FileStatistics {
        self.statistics
    }

    fn write(&mut self, lines: Lines, mark: &LaneMark) -> Result<()> {
        let Lines { mut bytes, records } = lines;
        self.cut_rest()?;
        self.look()?;
        if self.is_due(bytes.len() as u64) {
            self.begin()?;
        }
        let Some(newest) = &mut self.newest else {
            return Err(Error::new(ErrorKind::Unavailable, "there is no audit file to write"));
        };
        lines::end_batch(&mut bytes, newest.name.number, newest.length, records, mark);
        newest.has_rest = true;
        let written = newest.file.write_at(&bytes, newest.length);
        let synced = written.and_then(|()| newest.file.sync());
        synced.map_err(|error| unwritable(&newest.name.spell(), error))?;
        newest.has_rest = false;
        newest.length += bytes.len() as u64;
        newest.records += records;
        self.marks.set(mark);
        self.statistics.records += records;
        self.statistics.batches += 1;
        Ok(())
    }

    /// Takes the newest file to go on with it.
    fn take(&mut self, name: FileName) -> Result<()> {
        let spelled = name.spell();
        let failed = |error| unreadable(&spelled, error);
        let bytes = self.files.read(&spelled).map_err(failed)?;
        let contents = lines::read(&bytes, name.number).map_err(|at| damaged(&spelled, at))?;
        let mut file = self.files.open(&spelled).map_err(failed)?;
        let torn = bytes.len() as u64 - contents.whole;
        if torn > 0 {
            file.truncate(contents.whole).and_then(|()| file.sync()).map_err(failed)?;
            self.statistics.torn_bytes += torn;
        }
        let lines::Contents { marks, records, whole } = contents;
        self.marks = marks;
        self.newest = Some(Newest { name, file, length: whole, records, has_rest: false });
        // Its name may have been seen before it was durable.
        self.files.sync_names().map_err(failed)
    }

    /// Cuts off what a failed batch has left.
    fn cut_rest(&mut self) -> Result<()> {
        let Some(newest) = self.newest.as_mut().filter(|newest| newest.has_rest) else {
            return Ok(());
        };
        let name = newest.name.spell();
        let cut = || -> io::Result<F::File> {
            // A descriptor whose sync failed is not used again.
            let mut file = self.files.open(&name)?;
            file.truncate(newest.length)?;
            file.sync()?;
            Ok(file)
        };
        match cut() {
            Ok(file) => {
                newest.file = file;
                newest.has_rest = false;
                Ok(())
            }
            // It was taken away with everything in it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.give_up(&name);
                Ok(())
            }
            Err(error) => Err(unwritable(&name, error)),
        }
    }

    /// Looks whether somebody has taken the newest file away: what is written to
    /// it would be nowhere.
    fn look(&mut self) -> Result<()> {
        let Some(newest) = &self.newest else { return Ok(()) };
        let name = newest.name.spell();
        let names = self.files.names().map_err(|error| unwritable(&name, error))?;
        if !names.contains(&name) {
            self.give_up(&name);
        }
        Ok(())
    }

    fn give_up(&mut self, name: &str) {
        tracing::warn!(file = name, "an audit file was taken away while it was written");
        self.statistics.missed += 1;
        self.newest = None;
    }

    /// Whether a batch of this size belongs into another file.
    fn is_due(&self, bytes: u64) -> bool {
        let Some(newest) = &self.newest else { return true };
        let age = self.options.machine_clock.now().since_1970.saturating_sub(newest.name.began);
        let is_full = newest.length.saturating_add(bytes) > self.options.file_bytes_max;
        // The lines of marks alone fill a file, too, if slowly.
        let is_empty = newest.records == 0 && newest.length < self.options.file_bytes_max;
        (is_full || age >= self.options.file_age_max) && !is_empty
    }

    /// Begins a file. It has its name once its head is on the disk.
    fn begin(&mut self) -> Result<()> {
        // Whatever comes of it, the file before is never written again: the newest
        // one, which is all that is read at the start, may be there already.
        self.newest = None;
        let began = self.options.machine_clock.now().since_1970;
        let began = std::time::Duration::from_secs(began.as_secs());
        let name = FileName { number: self.next_number, began };
        self.next_number = self.next_number.saturating_add(1);
        let spelled = name.spell();
        let file = self.make(&spelled, name.number);
        let (file, length) = file.map_err(|error| unwritable(&spelled, error))?;
        self.newest = Some(Newest { name, file, length, records: 0, has_rest: false });
        self.statistics.begun += 1;
        if let Err(error) = self.prune(name) {
            tracing::warn!(%error, "an old audit file could not be removed");
        }
        Ok(())
    }

    fn make(&self, name: &str, number: u64) -> io::Result<(F::File, u64)> {
        let unfinished = format!("{name}{UNFINISHED}");
        let head = lines::head(number, &self.marks);
        let mut file = self.files.create(&unfinished)?;
        file.write_at(&head, 0)?;
        file.sync()?;
        self.files.rename(&unfinished, name)?;
        self.files.sync_names()?;
        Ok((file, head.len() as u64))
    }

    /// Removes the oldest files: those that are too many, and those that were
    /// closed, because the next one was begun, for too long.
    fn prune(&mut self, newest: FileName) -> io::Result<()> {
        let names = self.files.names()?;
        for name in names.iter().filter(|name| name.ends_with(UNFINISHED)) {
            self.files.remove(name)?;
        }
        let mut names: Vec<FileName> =
            names.iter().filter_map(|name| FileName::read(name)).collect();
        names.sort_unstable();
        let old = names.iter().filter(|name| **name < newest).count();
        let too_many = old.saturating_sub(self.options.files_max);
        for (at, name) in names[..old].iter().enumerate() {
            let closed = names.get(at + 1).map_or(newest.began, |next| next.began);
            let closed_for = newest.began.saturating_sub(closed);
            let is_too_old = self.options.kept_for.is_some_and(|kept| closed_for > kept);
            if at < too_many || is_too_old {
                self.files.remove(&name.spell())?;
                self.statistics.removed += 1;
            }
        }
        Ok(())
    }
}

/// How many journals and streams have ever written to one directory.
const MARKS_MAX: usize = 10_000;

fn unwritable(file: &str, error: io::Error) -> Error {
    let remedy = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room on the disk: the records wait in the journal and are written then"
        }
        _ => "look at the disk and the directory: the records wait in the journal",
    };
    Error::new(ErrorKind::Unavailable, "an audit file cannot be written")
        .with("file", file)
        .caused_by(error)
        .remedy(remedy)
}

fn unreadable(file: &str, error: io::Error) -> Error {
    Error::new(ErrorKind::Config, "the audit files cannot be used")
        .with("file", file)
        .caused_by(error)
        .remedy("make the directory and its files readable and writable for this user")
}

fn damaged(file: &str, at: u64) -> Error {
    Error::new(ErrorKind::Config, "the newest audit file is damaged")
        .with("file", file)
        .with("byte", at)
        .remedy(
            "restore the file; or move it away, and the one before it is gone on with: \
             what was lost with it the journal may not have any more",
        )
}

fn later_owner(mark: &LaneMark, known: &LaneMark) -> Error {
    Error::new(ErrorKind::Conflict, "the lane has a later owner")
        .with("lane", mark.lane)
        .with("epoch", mark.epoch)
        .with("its epoch", known.epoch)
        .remedy("give the lane up: its owner appends what is left of it")
}

fn too_many_marks() -> Error {
    Error::new(ErrorKind::Unavailable, "too many journals have written to these audit files")
        .with("marks", MARKS_MAX)
        .remedy("begin with another directory")
}
