use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_core::{DeadLetter, Error, ErrorKind, Key, Result, Write, Written};

/// How writes wait for their origin, and how they are applied.
#[derive(Clone)]
#[non_exhaustive]
pub struct BehindOptions {
    /// A lane is applied as soon as this many records wait in it. A batch has at
    /// most this many writes, after coalescing.
    pub batch_records: usize,
    /// A lane is applied when its oldest record has waited for this long.
    pub batch_delay: Duration,
    /// The most bytes of keys and values in one batch, if it has more than one
    /// write.
    pub batch_bytes_max: usize,
    /// How many records a batch may be coalesced from.
    pub coalesced_records_max: usize,
    /// The most records that may wait, in all lanes; beyond it writes are refused.
    pub queue_records_max: usize,
    /// The most bytes of keys and values that may wait, in all lanes.
    pub queue_bytes_max: usize,
    /// How long one call of an origin may take. Then its outcome is unknown, and
    /// the origin is asked what it has.
    pub attempt_timeout: Duration,
    /// What a lane waits before the first retry. Doubled each time, and shortened
    /// at random by up to a half.
    pub retry_pause: Duration,
    /// The longest pause between two retries.
    pub retry_pause_max: Duration,
    /// How many retries of all lanes together there may be in a second, so that
    /// an origin that comes back is not met by all of them.
    pub retries_per_second: u32,
    /// Whether [`Action::Add`](larder_core::Action::Add) is accepted for an origin
    /// that keeps no marks. Such an origin gets each write *at least* once: after
    /// a crash, a timeout or a lost answer it gets some of them again, and adds
    /// again. A put, a removal or a patch that is repeated comes to the same.
    pub repeated_adds: bool,
    /// What is done when the journal holds writes of a cache that has no origin
    /// here: by default nothing is started. With `true` they become dead letters.
    pub bury_unknown_caches: bool,
    /// Who is told what became of writes.
    pub observer: Option<Arc<dyn BehindObserver>>,
}

/// Who is told what became of writes. Called by the task that applies a lane:
/// what takes long here makes the lane wait.
pub trait BehindObserver: Send + Sync + 'static {
    /// The origin has a write, which may stand for several that were coalesced.
    /// Nobody is told of one whose answer was lost.
    fn applied(&self, cache: &str, write: &Write<Key, Bytes>, written: &Written<Bytes>) {
        let _ = (cache, write, written);
    }

    /// A write has become a dead letter.
    fn buried(&self, letter: &DeadLetter) {
        let _ = letter;
    }
}

impl Default for BehindOptions {
    fn default() -> Self {
        Self {
            batch_records: 100,
            batch_delay: Duration::from_secs(5),
            batch_bytes_max: 4 << 20,
            coalesced_records_max: 10_000,
            queue_records_max: 500_000,
            queue_bytes_max: 128 << 20,
            attempt_timeout: Duration::from_secs(30),
            retry_pause: Duration::from_millis(100),
            retry_pause_max: Duration::from_secs(30),
            retries_per_second: 20,
            repeated_adds: false,
            bury_unknown_caches: false,
            observer: None,
        }
    }
}

impl BehindOptions {
    pub(super) fn check(&self) -> Result<()> {
        let bounds = [
            ("batch_records", self.batch_records),
            ("batch_bytes_max", self.batch_bytes_max),
            ("coalesced_records_max", self.coalesced_records_max),
            ("queue_records_max", self.queue_records_max),
            ("queue_bytes_max", self.queue_bytes_max),
            ("retries_per_second", self.retries_per_second as usize),
        ];
        if let Some((name, _)) = bounds.iter().find(|(_, value)| *value == 0) {
            return Err(Error::new(ErrorKind::Config, "a bound of write-behind is 0")
                .with("option", name)
                .remedy("give it 1 or more"));
        }
        if self.retry_pause.is_zero() || self.retry_pause > self.retry_pause_max {
            return Err(Error::new(
                ErrorKind::Config,
                "the pauses between retries contradict each other",
            )
            .with("retry_pause", format_args!("{:?}", self.retry_pause))
            .with("retry_pause_max", format_args!("{:?}", self.retry_pause_max))
            .remedy("retry_pause is more than 0 and at most retry_pause_max"));
        }
        if self.attempt_timeout.is_zero() {
            return Err(Error::new(ErrorKind::Config, "attempt_timeout is 0")
                .remedy("give an origin the time that a batch takes, and more"));
        }
        Ok(())
    }
}

impl fmt::Debug for BehindOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BehindOptions")
            .field("batch_records", &self.batch_records)
            .field("batch_delay", &self.batch_delay)
            .field("queue_records_max", &self.queue_records_max)
            .field("queue_bytes_max", &self.queue_bytes_max)
            .field("repeated_adds", &self.repeated_adds)
            .finish_non_exhaustive()
    }
}
