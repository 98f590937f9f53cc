//! The disk tier: a directory that can be written, with room in it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{Finding, Level, shown};
use crate::config::{ByteSize, Settings};

/// The name of the file that the doctor writes and removes.
const PROBE: &str = "doctor";

pub(super) async fn look(settings: &Settings) -> Vec<Finding> {
    let Some(directory) = settings.config.disk.directory.clone() else { return Vec::new() };
    let budget = settings.config.disk.budget;
    let looked = tokio::task::spawn_blocking(move || look_at(Path::new(&directory), budget)).await;
    looked.unwrap_or_else(|_| {
        let message = "looking at the directory did not come to an end";
        vec![Finding::new("disk", "?", "directory", Level::Failure, message)]
    })
}

fn look_at(directory: &Path, budget: ByteSize) -> Vec<Finding> {
    let at = directory.display().to_string();
    let place = existing(directory);
    let mut findings = vec![match write_probe(&place) {
        Ok(took) if place == directory => {
            let message = format!("written and synced in {}", shown(took));
            Finding::fine("disk", &at, "directory", message)
        }
        Ok(_) => Finding::fine("disk", &at, "directory", "it can be made"),
        Err(error) => Finding::new(
            "disk",
            &at,
            "directory",
            Level::Failure,
            format!("{} cannot be written: {error}", place.display()),
        )
        .remedy("name a directory that this user may write to"),
    }];
    findings.extend(room(&at, directory, &place, budget));
    findings
}

/// The directory, or the nearest place above it that is there.
fn existing(directory: &Path) -> PathBuf {
    let found = directory.ancestors().find(|place| place.exists());
    found.filter(|place| !place.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

fn write_probe(place: &Path) -> io::Result<std::time::Duration> {
    let path = place.join(format!(".larder-{PROBE}-{}", std::process::id()));
    let began = Instant::now();
    let written = File::create_new(&path).and_then(|mut file| {
        file.write_all(b"larder doctor\n")?;
        file.sync_all()
    });
    let took = began.elapsed();
    // It is not there if it could not be made.
    let _ = fs::remove_file(&path);
    written.map(|()| took)
}

/// Whether the file system has what the budget allows and is not used yet.
fn room(at: &str, directory: &Path, place: &Path, budget: ByteSize) -> Option<Finding> {
    let system = rustix::fs::statvfs(place).ok()?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    let used = size_of(directory);
    let needed = budget.0.saturating_sub(used);
    let message = format!(
        "{} of {budget} used, {} free on the file system",
        crate::config::show_bytes(round(used)),
        crate::config::show_bytes(round(free))
    );
    Some(match free >= needed {
        true => Finding::fine("disk", at, "room", message),
        false => Finding::new("disk", at, "room", Level::Warning, message)
            .remedy("lower [disk] budget, or make room: a full disk keeps nothing new"),
    })
}

/// Whole mebibytes: the rest is of no interest.
fn round(bytes: u64) -> u64 {
    bytes >> 20 << 20
}

/// What the files below take. What vanishes meanwhile does not count.
fn size_of(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => size_of(&entry.path()),
            Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |data| data.len()),
            _ => 0,
        })
        .sum()
}
