//! The disk tier: opened before the caches that use it.

use std::path::Path;

use larder::{Key, Stores};
use larder_core::Result;
use larder_disk::{DiskOptions, DiskTier, Durability};

use super::connect::with_source;
use crate::config::{Diagnostic, DiskDurability, Settings};

/// Opens the directory, if the configuration names one.
///
/// # Errors
/// At its place in the file, if it cannot be used.
pub(super) async fn open(settings: &Settings) -> Result<Option<DiskTier>, Box<Diagnostic>> {
    let config = &settings.config.disk;
    let Some(directory) = &config.directory else { return Ok(None) };
    let mut options = DiskOptions::new(Path::new(directory));
    options.disk_bytes_max = config.budget.0;
    options.memory_bytes_max = config.memory.0;
    options.durability = match config.durability {
        DiskDurability::Process => Durability::SurvivesKill,
        DiskDurability::Invalidations => Durability::InvalidationsSurvivePowerLoss,
        DiskDurability::All => Durability::AllSurvivesPowerLoss,
    };
    DiskTier::open(options).await.map(Some).map_err(|error| {
        let message = format!("the disk tier cannot be used: {}", with_source(&error));
        let remedy = error.remedy_text().unwrap_or("name a directory that this user may write to");
        Box::new(settings.error_at(&["disk", "directory"], message, remedy.to_owned()))
    })
}

/// Adds the place of one cache on the disk to its stores. What another query made
/// has another place: invalidations find it by the cache, which tells it of them.
///
/// # Errors
/// If the cache cannot have a place on the disk.
pub(super) fn add(
    stores: Stores<Key, bytes::Bytes>,
    disk: &DiskTier,
    cache: &str,
    made_by: &str,
) -> Result<Stores<Key, bytes::Bytes>> {
    let name = format!("{cache}@{made_by}");
    Ok(stores.store("disk", disk.store(&name)?))
}
