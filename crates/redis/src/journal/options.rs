use std::time::Duration;

use larder_core::{Error, ErrorKind, Result, Survives};

/// How a journal in Redis is.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RedisJournalOptions {
    /// Its name, the same in every process that shares it: letters, digits, `-`,
    /// `_` and `.`. To what origins are told a number is added that is drawn when
    /// the journal is made.
    pub name: String,
    /// How many lanes it has, the same in every process. Cannot be changed.
    pub lanes: u16,
    /// The most that records and dead letters may take, in bytes.
    pub bytes_max: u64,
    /// The most records and dead letters.
    pub records_max: usize,
    /// The largest record in bytes of its encoding.
    pub record_bytes_max: usize,
    /// For how long a claim of a lane holds that is not renewed. It is renewed four
    /// times as often. So long nobody applies what waits in the lanes of a node
    /// that died.
    pub lease: Duration,
    /// When an append is acknowledged.
    pub acknowledge: Acknowledge,
    /// How long an append waits for disks and replicas. Then its outcome is
    /// unknown: Redis has it, and not as safely as was asked for.
    pub acknowledge_timeout: Duration,
}

/// When a record counts as appended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Acknowledge {
    /// When the primary has it in memory. With `appendfsync everysec` a loss of
    /// power takes about the last second; a failover takes what no replica had.
    /// [`Survives::Process`].
    #[default]
    Memory,
    /// When so many replicas have it in memory, too (`WAIT`): a failover to one of
    /// them keeps it. [`Survives::Process`] still: a loss of power may take it.
    Replicas(u8),
    /// When it is on the primary's disk (`WAITAOF 1 0`, Redis or Valkey 7.2 with
    /// `appendonly yes`). With `appendfsync everysec` that takes up to a second,
    /// with `always` as long as one sync, with `no` it is never acknowledged.
    /// [`Survives::PowerLoss`].
    Disk,
    /// When it is on the primary's disk and on those of so many replicas
    /// (`WAITAOF 1 n`). [`Survives::DiskLoss`].
    Disks(u8),
}

impl Acknowledge {
    /// What an acknowledged record survives.
    #[must_use]
    pub const fn survives(self) -> Survives {
        match self {
            Self::Memory | Self::Replicas(_) => Survives::Process,
            Self::Disk | Self::Disks(0) => Survives::PowerLoss,
            Self::Disks(_) => Survives::DiskLoss,
        }
    }
}

impl Default for RedisJournalOptions {
    /// Named `behind`, with 16 lanes, room for 256 MiB or a million records, and
    /// claims of 10 s.
    fn default() -> Self {
        Self {
            name: "behind".to_owned(),
            lanes: 16,
            bytes_max: 256 << 20,
            records_max: 1_000_000,
            record_bytes_max: 8 << 20,
            lease: Duration::from_secs(10),
            acknowledge: Acknowledge::Memory,
            acknowledge_timeout: Duration::from_secs(5),
        }
    }
}

impl RedisJournalOptions {
    /// Checks what can be checked without a server.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], with the option and a remedy.
    pub fn validate(&self) -> Result<()> {
        let wrong = |what: &'static str, value: String, remedy: &'static str| {
            Err(Error::new(ErrorKind::Config, what).with("value", value).remedy(remedy))
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if self.name.is_empty() || self.name.len() > 40 || !self.name.bytes().all(is_plain) {
            let remedy = "use 1 to 40 letters, digits, -, _ and .";
            return wrong("a journal's name cannot stand in a key", self.name.clone(), remedy);
        }
        if self.lanes == 0 || self.lanes > LANES_MAX {
            return wrong("a journal's lanes are out of range", self.lanes.to_string(), "1 to 256");
        }
        let largest = self.record_bytes_max as u64;
        if !(1024..=RECORD_BYTES_LIMIT.min(self.bytes_max)).contains(&largest) {
            let remedy = "1 KiB to 256 MiB, and not more than bytes_max";
            return wrong("record_bytes_max is out of range", largest.to_string(), remedy);
        }
        if self.records_max == 0 || self.bytes_max > BYTES_LIMIT {
            let remedy = "records_max is 1 or more, bytes_max at most 1 PiB";
            return wrong(
                "a bound of a journal is out of range",
                self.bytes_max.to_string(),
                remedy,
            );
        }
        let hour = Duration::from_secs(3600);
        if !(Duration::from_millis(100)..=hour).contains(&self.lease) {
            let value = format!("{:?}", self.lease);
            return wrong("the lease of a lane is out of range", value, "100 ms to 1 hour");
        }
        if !(Duration::from_millis(1)..=hour).contains(&self.acknowledge_timeout) {
            let value = format!("{:?}", self.acknowledge_timeout);
            return wrong("acknowledge_timeout is out of range", value, "1 ms to 1 hour");
        }
        Ok(())
    }
}

/// Each is looked at in every renewal.
const LANES_MAX: u16 = 256;
/// Half of the longest string that Redis keeps.
const RECORD_BYTES_LIMIT: u64 = 256 << 20;
/// Scripts count exactly up to 2^53.
const BYTES_LIMIT: u64 = 1 << 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_with_a_remedy() {
        let wrong: [fn(&mut RedisJournalOptions); 6] = [
            |options| options.name = "a{b".to_owned(),
            |options| options.lanes = 0,
            |options| options.record_bytes_max = 10,
            |options| options.records_max = 0,
            |options| options.lease = Duration::ZERO,
            |options| options.acknowledge_timeout = Duration::ZERO,
        ];
        for change in wrong {
            let mut options = RedisJournalOptions::default();
            change(&mut options);
            let error = options.validate().expect_err("it is refused");
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.remedy_text().is_some());
        }
        RedisJournalOptions::default().validate().expect("the defaults are fine");
    }

    #[test]
    fn no_more_is_promised_than_is_waited_for() {
        let promised = [
            (Acknowledge::Memory, Survives::Process),
            (Acknowledge::Replicas(2), Survives::Process),
            (Acknowledge::Disk, Survives::PowerLoss),
            (Acknowledge::Disks(0), Survives::PowerLoss),
            (Acknowledge::Disks(1), Survives::DiskLoss),
        ];
        for (acknowledge, survives) in promised {
            assert_eq!(acknowledge.survives(), survives, "{acknowledge:?}");
        }
    }
}
