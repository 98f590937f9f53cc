use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::compaction::filter::Factory;
use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};

use crate::reclaim::{Filters, Reclaim};

/// fjall, with one keyspace. Whatever it says or does about damaged files
/// becomes a [`Fault`], panics too.
pub(crate) struct Engine {
    database: Database,
    entries: Keyspace,
}

/// Why the engine cannot go on.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The machine refuses, the files are as they were: no room, no rights, too
    /// many open files.
    Refused(std::io::Error),
    /// The files cannot be used any more.
    Damaged(String),
}

/// A key and its record.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// fjall keeps one of these and at most four full ones that wait for the disk.
/// It is written into the keyspace when that is made, so it does not depend on
/// options.
const MEMTABLE_BYTES: u64 = 4 << 20;
const TABLE_BYTES: u64 = 4 << 20;
/// What merges take beside what they replace: all that is unmerged with the
/// level it goes to, and a table with its ten neighbours further down.
pub(crate) const MERGES_BYTES: u64 = 112 << 20;
/// What all of them take: small entries cost half as much again for their place.
pub(crate) const MEMTABLES_BYTES_MAX: u64 = 5 * MEMTABLE_BYTES * 3 / 2;
/// What it takes beside memtables and block cache: the indexes and filters of
/// upper tables, the buffers of merges and of its journal.
pub(crate) const OVERHEAD_BYTES: u64 = 10 << 20;
/// With more full ones fjall would wait, for ever if its worker has died.
const SEALED_MEMTABLES_MAX: usize = 2;
/// Tables not yet merged: more would take too much when they are. fjall itself
/// stops at 30.
const UNMERGED_TABLES_MAX: usize = 8;
const FILES_OPEN_MAX: usize = 256;
const KEYSPACE: &str = "larder";

impl Engine {
    /// Opens the directory or makes it. Blocks, for as long as the journals take
    /// to read.
    pub(crate) fn open(
        directory: &Path,
        cache_bytes: u64,
        reclaim: &Arc<Reclaim>,
    ) -> Result<Self, Fault> {
        let filters: Arc<dyn Factory> = Arc::new(Filters(AssertUnwindSafe(Arc::clone(reclaim))));
        guarded(|| {
            let database = Database::builder(directory)
                .cache_size(cache_bytes)
                .max_cached_files(Some(FILES_OPEN_MAX))
                // One: a second one would spin while the first one compacts.
                .worker_threads(1)
                .with_compaction_filter_factories(Arc::new(move |_| Some(Arc::clone(&filters))))
                .open()?;
            let entries = database.keyspace(KEYSPACE, || {
                KeyspaceCreateOptions::default()
                    .max_memtable_size(MEMTABLE_BYTES)
                    .compaction_strategy(Arc::new(
                        Leveled::default().with_table_target_size(TABLE_BYTES),
                    ))
            })?;
            Ok(Self { database, entries })
        })
    }

    /// Reads one key. A damaged block is a fault.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<fjall::Slice>, Fault> {
        guarded(|| self.entries.get(key))
    }

    /// Every key that starts with these bytes, in order.
    pub(crate) fn scan(&self, prefix: &[u8]) -> Result<Vec<Pair>, Fault> {
        guarded(|| {
            let pairs = self.database.snapshot().prefix(&self.entries, prefix);
            pairs
                .map(|pair| {
                    let (key, value) = pair.into_inner()?;
                    Ok((key.to_vec(), value.to_vec()))
                })
                .collect()
        })
    }

    /// Writes all or nothing; no key twice, `None` removes. Waits for the disk if that is asked, and in any
    /// case for as long as the engine is behind with its own work.
    pub(crate) fn commit<'a>(
        &self,
        changes: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
        sync: bool,
    ) -> Result<(), Fault> {
        guarded(|| {
            while self.is_behind() {
                // Says so if the engine has stopped for good.
                self.database.persist(PersistMode::Buffer)?;
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            let mode = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
            let mut batch = self.database.batch().durability(Some(mode));
            for (key, value) in changes {
                match value {
                    Some(value) => batch.insert(&self.entries, key, value),
                    None => batch.remove(&self.entries, key),
                }
            }
            batch.commit()
        })
    }

    /// Whether writes wait until tables are merged.
    pub(crate) fn is_behind(&self) -> bool {
        self.entries.sealed_memtable_count() > SEALED_MEMTABLES_MAX
            || self.entries.l0_table_count() > UNMERGED_TABLES_MAX
    }

    /// Merges tables where that is due, once. Returns whether anything changed.
    /// fjall's own worker merges once for each table it writes, which is too
    /// little with one worker.
    pub(crate) fn merge(&self) -> Result<bool, Fault> {
        guarded(|| {
            let tables = || (self.entries.table_count(), self.entries.disk_space());
            let before = tables();
            let strategy = Arc::clone(&self.entries.config.compaction_strategy);
            let oldest_read = self.database.supervisor.snapshot_tracker.get_seqno_safe_to_gc();
            self.entries.tree.compact(strategy, oldest_read)?;
            Ok(tables() != before)
        })
    }

    /// Rewrites everything without what is dead. Takes as much disk again for as
    /// long as it runs.
    pub(crate) fn compact(&self) -> Result<(), Fault> {
        guarded(|| {
            self.entries.rotate_memtable_and_wait()?;
            self.entries.major_compact()
        })
    }

    /// Says whether the engine has stopped for good.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        guarded(|| self.database.persist(PersistMode::Buffer))
    }

    /// Bytes of the tables.
    pub(crate) fn table_bytes(&self) -> u64 {
        self.entries.disk_space()
    }

    /// Waits until everything is on the disk, and closes the files.
    pub(crate) fn close(self) -> Result<(), Fault> {
        let persisted = guarded(|| self.database.persist(PersistMode::SyncAll));
        let closed = guarded(|| {
            drop(self);
            Ok(())
        });
        persisted.and(closed)
    }
}

/// fjall panics where it finds what it did not expect, damaged files included.
fn guarded<T>(work: impl FnOnce() -> fjall::Result<T>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(Fault::from),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(Fault::Damaged(text.unwrap_or("the engine panicked").to_owned()))
        }
    }
}

impl From<fjall::Error> for Fault {
    fn from(error: fjall::Error) -> Self {
        use std::io::ErrorKind::{
            NotADirectory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
        };

        let io = match error {
            fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => io,
            other => return Self::Damaged(other.to_string()),
        };
        let files_open_max = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
        let refused =
            [NotADirectory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull];
        let too_many = io
            .raw_os_error()
            .is_some_and(|code| files_open_max.iter().any(|errno| errno.raw_os_error() == code));
        if refused.contains(&io.kind()) || too_many {
            Self::Refused(io)
        } else {
            Self::Damaged(io.to_string())
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Damaged(what) => f.write_str(what),
        }
    }
}
