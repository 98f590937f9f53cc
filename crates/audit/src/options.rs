use std::path::PathBuf;
use std::time::Duration;

use larder::BehindOptions;
use larder_core::{Error, ErrorKind, MachineClock, Result};

/// How an audit buffer accepts records.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AuditOptions {
    /// When records are passed on, how many may wait, and how often is tried. By
    /// default a hundred records or 300 s; everything else as in write-behind.
    pub behind: BehindOptions,
    /// The largest record in bytes; 64 KiB.
    pub record_bytes_max: usize,
    /// What identifiers are drawn by.
    pub machine_clock: MachineClock,
}

impl Default for AuditOptions {
    fn default() -> Self {
        let mut behind = BehindOptions::default();
        behind.batch_records = 100;
        behind.batch_delay = Duration::from_secs(300);
        Self { behind, record_bytes_max: 64 << 10, machine_clock: MachineClock::system() }
    }
}

/// Where audit files are, and when the next one is begun.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FileOptions {
    /// The directory, for one process alone.
    pub directory: PathBuf,
    /// A file that would grow beyond this is closed before the batch, unless it
    /// is empty: a batch is never divided. 64 MiB.
    pub file_bytes_max: u64,
    /// A file that is older is closed before the next batch. 24 hours.
    pub file_age_max: Duration,
    /// How many closed files are kept: the oldest are removed. 100.
    pub files_max: usize,
    /// How long after it was closed a file is kept, if there is such a bound.
    /// None.
    pub kept_for: Option<Duration>,
    /// By which files are named and become old.
    pub machine_clock: MachineClock,
}

impl FileOptions {
    /// Files in this directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            file_bytes_max: 64 << 20,
            file_age_max: Duration::from_secs(24 * 3600),
            files_max: 100,
            kept_for: None,
            machine_clock: MachineClock::system(),
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        if !(FILE_BYTES_LEAST..=FILE_BYTES_MOST).contains(&self.file_bytes_max) {
            return Err(Error::new(ErrorKind::Config, "file_bytes_max is out of range")
                .with("file_bytes_max", self.file_bytes_max)
                .remedy("1 KiB to 1 GiB: the newest file is read at the start"));
        }
        if self.files_max == 0 || self.file_age_max < Duration::from_secs(1) {
            return Err(Error::new(ErrorKind::Config, "a bound of audit files is too small")
                .with("files_max", self.files_max)
                .with("file_age_max", format_args!("{:?}", self.file_age_max))
                .remedy("keep one file or more, of one second or more"));
        }
        Ok(())
    }
}

const FILE_BYTES_LEAST: u64 = 1 << 10;
const FILE_BYTES_MOST: u64 = 1 << 30;
