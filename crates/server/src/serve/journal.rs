//! Where writes wait for their database: opened before the caches that use it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder::{Clock, WriteBehind};
use larder_core::{DynOrigin, ErrorKind, Key, Result, Survives};
use larder_journal::{DiskJournal, JournalStatistics};

use super::connect::with_source;
use crate::config::{Diagnostic, Settings};

/// A cache's origin, of which the journal and the cache have one each.
pub(super) type Target = (String, Arc<dyn DynOrigin<Key, Bytes>>);

/// The journal of this server.
#[derive(Clone, Debug)]
pub struct Journal {
    /// What waits, and how it is applied.
    pub behind: WriteBehind,
    /// Its directory.
    pub directory: String,
    disk: DiskJournal,
    targets: Targets,
}

#[derive(Clone)]
struct Targets(Arc<Vec<Target>>);

impl std::fmt::Debug for Targets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(cache, _)| cache)).finish()
    }
}

/// Opens the journal if a cache writes behind, or the configuration names its directory:
/// something may wait in it.
///
/// # Errors
/// At its place in the file, if it cannot be used.
pub(super) async fn open(
    settings: &Settings,
    targets: Vec<Target>,
) -> Result<Option<Journal>, Box<Diagnostic>> {
    let config = &settings.config.journal;
    let Some(directory) = settings.config.journal_directory() else { return Ok(None) };
    if targets.is_empty() && config.directory.is_none() {
        return Ok(None);
    }
    let mistake = |error: larder_core::Error| {
        let (path, remedy): (&[&str], _) = match error.kind() {
            ErrorKind::Config if error.context().any(|(name, _)| name == "cache") => (
                &["journal"],
                "say write.mode = \"behind\" in this cache until nothing of it waits, or \
                 bury_unknown_caches = true",
            ),
            _ => (&["journal", "directory"], "name a directory that this user may write to"),
        };
        let message = format!("the journal cannot be used: {}", with_source(&error));
        let remedy = error.remedy_text().unwrap_or(remedy).to_owned();
        Box::new(settings.error_at(path, message, remedy))
    };
    let disk = DiskJournal::open(config.to_journal(&directory)).await.map_err(mistake)?;
    let behind = WriteBehind::open(
        Arc::new(disk.clone()),
        targets.iter().cloned(),
        config.to_behind(),
        Clock::monotonic(),
    );
    let behind = behind.await.map_err(mistake)?;
    Ok(Some(Journal { behind, directory, disk, targets: Targets(Arc::new(targets)) }))
}

impl Journal {
    /// The origin of a cache that writes behind.
    pub(super) fn origin(&self, cache: &str) -> Option<Arc<dyn DynOrigin<Key, Bytes>>> {
        let found = self.targets.0.iter().find(|(name, _)| name == cache);
        found.map(|(_, origin)| Arc::clone(origin))
    }

    /// What the journal's disk has done.
    #[must_use]
    pub fn disk_statistics(&self) -> JournalStatistics {
        self.disk.statistics()
    }

    /// Accepts nothing more, applies what waits for at most this long, and gives the
    /// directory back. What is left is applied after the next start.
    pub(super) async fn shut_down(&self, at_most: Duration) {
        let left = self.behind.shut_down(at_most).await;
        if left > 0 {
            tracing::warn!(
                left,
                "not all writes could be applied: they are in the journal, and are applied after \
                 the next start"
            );
        }
        self.disk.close().await;
    }
}

/// What an acknowledged write survives, in a word.
#[must_use]
pub fn acknowledgement(survives: Survives) -> &'static str {
    match survives {
        Survives::Process => "survives-process",
        Survives::PowerLoss => "survives-power-loss",
        Survives::DiskLoss => "survives-disk",
        _ => "unknown",
    }
}
