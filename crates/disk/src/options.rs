use std::path::PathBuf;
use std::time::Duration;

use larder_core::{Clock, Error, ErrorKind, MachineClock, Result};

/// Where a disk tier keeps its files and how much it may take.
///
/// ```
/// use larder_disk::{DiskOptions, Durability};
///
/// let mut options = DiskOptions::new("/var/cache/larder");
/// options.disk_bytes_max = 4 << 30;
/// options.durability = Durability::InvalidationsSurvivePowerLoss;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DiskOptions {
    /// The directory. It is made if it is not there, for this user only (0700).
    /// One process uses it at a time.
    pub directory: PathBuf,
    /// How many bytes the directory may take, journals included. At least
    /// [`DiskOptions::DISK_BYTES_MIN`].
    pub disk_bytes_max: u64,
    /// How many bytes of memory the tier takes at most, for its caches, buffers
    /// and queues. At least [`DiskOptions::MEMORY_BYTES_MIN`].
    pub memory_bytes_max: u64,
    /// What is safe once it was acknowledged.
    pub durability: Durability,
    /// How long a load may take: for this long after an invalidation of a key no
    /// older version is put.
    pub floor_window: Duration,
    /// For how long watermarks are kept, and so the greatest age of an entry,
    /// whatever its own limits say: what outlived the watermarks could be dead
    /// without anybody knowing.
    pub marks_retention: Duration,
    /// The longest value in bytes; a longer one is refused.
    pub value_bytes_max: usize,
    /// Threads that read. One more writes.
    pub read_threads: usize,
    /// The clock that ages are told by while the process runs.
    pub clock: Clock,
    /// The clocks that tell how long the process was away.
    pub machine_clock: MachineClock,
}

/// What survives what. Whatever the choice, what is found after a crash is what
/// was written up to some moment, nothing later: never a bus position without
/// the invalidations before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Durability {
    /// What was acknowledged survives the end of the process, kill -9 too. A
    /// power loss may take the last seconds, invalidations included: only a bus
    /// whose messages are replayed from [`larder_core::Store::heard`] brings
    /// them back.
    #[default]
    SurvivesKill,
    /// Invalidations and watermarks also survive a power loss; entries put in the
    /// last seconds may not. Each invalidation waits for the disk, together with
    /// those that wait at the same time.
    InvalidationsSurvivePowerLoss,
    /// Everything acknowledged survives a power loss. Each put waits for the disk,
    /// too.
    AllSurvivesPowerLoss,
}

impl DiskOptions {
    /// The smallest budget of the directory: journals and the room that merging
    /// needs take some 230 MiB of any.
    pub const DISK_BYTES_MIN: u64 = 512 << 20;
    /// The smallest budget of memory.
    pub const MEMORY_BYTES_MIN: u64 = 48 << 20;

    /// The defaults: 1 GiB of disk, 64 MiB of memory, what was acknowledged
    /// survives a kill, loads take at most 10 minutes, watermarks are kept for 7
    /// days, values have at most 1 MiB, two threads read.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            disk_bytes_max: 1 << 30,
            memory_bytes_max: 64 << 20,
            durability: Durability::default(),
            floor_window: Duration::from_secs(10 * 60),
            marks_retention: Duration::from_secs(7 * 24 * 3600),
            value_bytes_max: 1 << 20,
            read_threads: 2,
            clock: Clock::monotonic(),
            machine_clock: MachineClock::system(),
        }
    }

    /// # Errors
    /// [`ErrorKind::Config`] for what cannot be kept or contradicts itself.
    pub(crate) fn validate(&self) -> Result<()> {
        self.at_least("disk_bytes_max", self.disk_bytes_max, Self::DISK_BYTES_MIN)?;
        self.at_least("memory_bytes_max", self.memory_bytes_max, Self::MEMORY_BYTES_MIN)?;
        self.at_least("read_threads", self.read_threads as u64, 1)?;
        if self.value_bytes_max > VALUE_BYTES_LIMIT {
            return Err(Error::new(ErrorKind::Config, "values on disk cannot be that long")
                .with("value_bytes_max", self.value_bytes_max)
                .with("limit", VALUE_BYTES_LIMIT)
                .remedy("keep longer values in an object store"));
        }
        if self.floor_window >= self.marks_retention {
            return Err(Error::new(ErrorKind::Config, "a load may outlive the watermarks")
                .with("floor_window", format!("{:?}", self.floor_window))
                .with("marks_retention", format!("{:?}", self.marks_retention))
                .remedy("make marks_retention longer than floor_window"));
        }
        Ok(())
    }

    fn at_least(&self, option: &'static str, value: u64, least: u64) -> Result<()> {
        if value >= least {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Config, "too little for a disk tier")
            .with("option", option)
            .with("value", value)
            .with("least", least)
            .remedy("raise the option or leave the disk tier out"))
    }
}

/// A value is read and written as a whole, in memory.
const VALUE_BYTES_LIMIT: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_can_be_kept() {
        assert!(DiskOptions::new("x").validate().is_ok());
    }

    #[test]
    fn what_cannot_be_kept_is_refused_with_a_remedy() {
        let refuse = |change: fn(&mut DiskOptions)| {
            let mut options = DiskOptions::new("x");
            change(&mut options);
            let error = options.validate().expect_err("it cannot be kept");
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.remedy_text().is_some(), "{error}");
        };
        refuse(|options| options.disk_bytes_max = 1);
        refuse(|options| options.memory_bytes_max = 1);
        refuse(|options| options.read_threads = 0);
        refuse(|options| options.value_bytes_max = 1 << 30);
        refuse(|options| options.floor_window = options.marks_retention);
    }
}
