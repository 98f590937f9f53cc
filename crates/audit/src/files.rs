use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use larder_core::{
    Action, BatchError, Error, ErrorKind, Expected, Key, LaneMark, LoadContext, Loaded, Origin,
    Result, Write, WriteAbilities, Written,
};
use larder_journal::files::{Directory, Files};
use parking_lot::Mutex;

use crate::shelf::{Lines, Shelf};
use crate::{FileOptions, FileStatistics, json, lines};

/// Files that records are appended to: an origin that only takes. Clones are the
/// same.
///
/// It keeps the marks of journals in the files themselves, with one write and one
/// sync for a batch, so that each record is in them once. Files have mode 0600.
pub struct AuditFiles<F: Files = Directory> {
    shelf: Arc<Mutex<Shelf<F>>>,
}

impl AuditFiles {
    /// Takes a directory, makes it if it is not there, and goes on with the newest
    /// file in it. Reads that file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the options are no good, another process has the
    /// directory, it cannot be used, or the newest file is damaged.
    pub async fn open(options: FileOptions) -> Result<Self> {
        let opened = tokio::task::spawn_blocking(move || {
            options.check()?;
            let directory = Directory::take(&options.directory)?;
            Self::open_on(directory, options)
        });
        opened.await.unwrap_or_else(|_| Err(stopped()))
    }
}

impl<F: Files> AuditFiles<F> {
    /// Opens files that are somewhere else than in a directory.
    ///
    /// # Errors
    /// As [`AuditFiles::open`].
    pub fn open_on(files: F, options: FileOptions) -> Result<Self> {
        Ok(Self { shelf: Arc::new(Mutex::new(Shelf::open(files, options)?)) })
    }

    /// What was done. Waits for a batch that is being written.
    #[must_use]
    pub fn statistics(&self) -> FileStatistics {
        self.shelf.lock().statistics()
    }

    /// Does something with the files where waiting for a disk holds up nobody.
    async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Shelf<F>) -> Result<T, BatchError> + Send + 'static,
    ) -> Result<T, BatchError>
    where
        F::File: 'static,
    {
        let shelf = Arc::clone(&self.shelf);
        let done = tokio::task::spawn_blocking(move || act(&mut shelf.lock()));
        done.await.unwrap_or_else(|_| Err(stopped().into()))
    }
}

impl<F: Files> Origin<Key, Bytes> for AuditFiles<F> {
    async fn load(&self, _: &Key, _: &LoadContext) -> Result<Loaded<Bytes>> {
        Err(Error::new(ErrorKind::Unsupported, "audit files are not read by key")
            .remedy("read the files, or give the stream a SQL table"))
    }

    fn write_abilities(&self) -> WriteAbilities {
        let mut abilities = WriteAbilities::NONE;
        abilities.put = true;
        abilities.marks = true;
        abilities.batch_limit = BATCH_LIMIT;
        abilities
    }

    async fn write_all(
        &self,
        writes: &[Write<Key, Bytes>],
        mark: Option<&LaneMark>,
    ) -> Result<Vec<Written<Bytes>>, BatchError> {
        let Some(mark) = mark.cloned() else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "audit files take records from a journal only",
            )
            .remedy("write through an audit buffer")
            .into());
        };
        let count = writes.len();
        let lines = lines_of(writes)?;
        let changed = self.with(move |shelf| shelf.append(lines, &mark)).await?;
        Ok(vec![Written::Done { changed, now: None, version: None }; count])
    }

    async fn applied(&self, journal: &str, lane: u16) -> Result<Option<LaneMark>> {
        let journal = journal.to_owned();
        let applied = self.with(move |shelf| Ok(shelf.applied(&journal, lane)?)).await;
        applied.map_err(|failed| failed.error)
    }
}

/// More than a batch ever has.
const BATCH_LIMIT: usize = 10_000;

fn lines_of(writes: &[Write<Key, Bytes>]) -> Result<Lines, BatchError> {
    let mut bytes = Vec::new();
    for (index, write) in writes.iter().enumerate() {
        let record = match (&write.action, write.expected) {
            (Action::Put(record), Expected::Anything) => json::line(record),
            _ => Err(Error::new(ErrorKind::Unsupported, "audit files are only appended to")
                .remedy("put each record under a key of its own")),
        };
        let record = record.map_err(|error| BatchError { index: Some(index), error })?;
        lines::put_record(&mut bytes, &write.key, &record);
    }
    Ok(Lines { bytes, records: writes.len() as u64 })
}

fn stopped() -> Error {
    Error::new(ErrorKind::OutcomeUnknown, "the runtime ended, or a panic, while files were written")
}

impl<F: Files> Clone for AuditFiles<F> {
    fn clone(&self) -> Self {
        Self { shelf: Arc::clone(&self.shelf) }
    }
}

impl<F: Files> fmt::Debug for AuditFiles<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditFiles").finish_non_exhaustive()
    }
}
