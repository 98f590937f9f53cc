use std::path::PathBuf;
use std::time::Duration;

use larder_core::{Clock, Error, ErrorKind, MachineClock, Result};

/// How a journal is opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JournalOptions {
    /// Where its files are, for one process alone.
    pub directory: PathBuf,
    /// Its name, to which a number is added that is drawn when it is made.
    pub name: String,
    /// How many lanes it has. Can be changed while no record waits.
    pub lanes: u16,
    /// The most that records and dead letters may take, in bytes. Memory holds
    /// them once, the disk at most three times, and two segments.
    pub bytes_max: u64,
    /// The most records and dead letters.
    pub records_max: usize,
    /// The largest record in bytes of its encoding.
    pub record_bytes_max: usize,
    /// How large a file grows before the next one is begun.
    pub segment_bytes: u64,
    /// What to do where a file is damaged.
    pub on_damage: OnDamage,
    /// How long a journal whose disk failed waits before it tries to recover
    /// again, when somebody wants to append.
    pub recovery_pause: Duration,
    /// By which ages go on.
    pub clock: Clock,
    /// By which ages go on from process to process.
    pub machine_clock: MachineClock,
}

/// What to do where a file is damaged, or missing, so that acknowledged records
/// cannot be read. A tail that was torn by a crash is no damage: nothing in it
/// was acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum OnDamage {
    /// Do not open, and say where.
    #[default]
    Refuse,
    /// Go on with everything that can be read, and report the rest. The files stay
    /// beside, with `.damaged` behind their names.
    KeepReadable,
}

impl JournalOptions {
    /// A journal in this directory, by default named `larder`, with 16 lanes and
    /// room for 256 MiB or a million records.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            name: "larder".to_owned(),
            lanes: 16,
            bytes_max: 256 << 20,
            records_max: 1_000_000,
            record_bytes_max: 8 << 20,
            segment_bytes: 16 << 20,
            on_damage: OnDamage::Refuse,
            recovery_pause: Duration::from_secs(1),
            clock: Clock::monotonic(),
            machine_clock: MachineClock::system(),
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let bad = |what: &'static str, value: String, remedy: &'static str| {
            Err(Error::new(ErrorKind::Config, what).with("value", value).remedy(remedy))
        };
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX {
            return bad(
                "a journal's name is empty or too long",
                self.name.clone(),
                "1 to 40 bytes",
            );
        }
        if self.lanes == 0 || self.lanes > LANES_MAX {
            return bad("a journal's lanes are out of range", self.lanes.to_string(), "1 to 4096");
        }
        let largest = self.record_bytes_max as u64;
        if !(1024..=RECORD_BYTES_LIMIT.min(self.bytes_max)).contains(&largest) {
            let remedy = "1 KiB to 1 GiB, and not more than bytes_max";
            return bad("record_bytes_max is out of range", largest.to_string(), remedy);
        }
        if self.segment_bytes < 4096 || self.records_max == 0 {
            let remedy = "segment_bytes is 4 KiB or more, records_max 1 or more";
            return bad(
                "a bound of a journal is too small",
                self.segment_bytes.to_string(),
                remedy,
            );
        }
        Ok(())
    }
}

const NAME_BYTES_MAX: usize = 40;
const LANES_MAX: u16 = 4096;
/// What a frame can hold with room to spare.
const RECORD_BYTES_LIMIT: u64 = 1 << 30;
