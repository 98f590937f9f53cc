use std::fmt;
use std::str::FromStr;

use larder_core::{Error, ErrorKind};

use super::WallClock;

/// How a [`Keyspace`](super::Keyspace) is made.
#[derive(Clone, Debug)]
pub struct KeyspaceOptions {
    /// How many bytes the entries and their tables may take; `None` sets no
    /// limit.
    pub memory_limit: Option<usize>,
    /// What goes when the limit is reached.
    pub eviction: EvictionPolicy,
    /// How many parts are locked one by one: a power of two from 1 to 65 536,
    /// else rounded up and capped. An empty part takes about 300 bytes.
    pub shard_count: usize,
    /// Where calendar time is read.
    pub clock: WallClock,
}

impl Default for KeyspaceOptions {
    fn default() -> Self {
        Self {
            memory_limit: None,
            eviction: EvictionPolicy::default(),
            shard_count: 1024,
            clock: WallClock::system(),
        }
    }
}

/// What is given up when the memory limit is reached, under Redis' names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum EvictionPolicy {
    /// Nothing: commands that need memory are refused.
    NoEviction,
    /// The entry used least often of late.
    #[default]
    AllKeysLfu,
    /// The entry not used for longest.
    AllKeysLru,
    /// Any entry.
    AllKeysRandom,
    /// Of the entries that expire, the one used least often of late.
    VolatileLfu,
    /// Of the entries that expire, the one not used for longest.
    VolatileLru,
    /// Any of the entries that expire.
    VolatileRandom,
    /// Of the entries that expire, the one that expires first.
    VolatileTtl,
}

impl EvictionPolicy {
    /// Every policy, in the order Redis lists them.
    pub const ALL: [Self; 8] = [
        Self::VolatileLru,
        Self::VolatileLfu,
        Self::VolatileRandom,
        Self::VolatileTtl,
        Self::AllKeysLru,
        Self::AllKeysLfu,
        Self::AllKeysRandom,
        Self::NoEviction,
    ];

    /// Redis' name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoEviction => "noeviction",
            Self::AllKeysLfu => "allkeys-lfu",
            Self::AllKeysLru => "allkeys-lru",
            Self::AllKeysRandom => "allkeys-random",
            Self::VolatileLfu => "volatile-lfu",
            Self::VolatileLru => "volatile-lru",
            Self::VolatileRandom => "volatile-random",
            Self::VolatileTtl => "volatile-ttl",
        }
    }

    /// Whether how often an entry is used is counted, in place of when it was
    /// last used.
    #[must_use]
    pub const fn counts_frequency(self) -> bool {
        matches!(self, Self::AllKeysLfu | Self::VolatileLfu)
    }

    /// Whether only entries that expire may go.
    pub(super) const fn spares_persistent(self) -> bool {
        matches!(
            self,
            Self::VolatileLfu | Self::VolatileLru | Self::VolatileRandom | Self::VolatileTtl
        )
    }

    pub(super) const fn from_index(index: u8) -> Self {
        match index {
            0 => Self::NoEviction,
            2 => Self::AllKeysLru,
            3 => Self::AllKeysRandom,
            4 => Self::VolatileLfu,
            5 => Self::VolatileLru,
            6 => Self::VolatileRandom,
            7 => Self::VolatileTtl,
            _ => Self::AllKeysLfu,
        }
    }
}

impl fmt::Display for EvictionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for EvictionPolicy {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|policy| policy.name().eq_ignore_ascii_case(name)).ok_or_else(
            || {
                Error::new(ErrorKind::Config, "there is no such eviction policy")
                    .with("policy", name)
                    .remedy(format!("use one of {}", Self::ALL.map(Self::name).join(", ")))
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_is_found_by_its_name_and_its_index() {
        for policy in EvictionPolicy::ALL {
            assert_eq!(policy.name().parse::<EvictionPolicy>().ok(), Some(policy));
            assert_eq!(EvictionPolicy::from_index(policy as u8), policy);
        }
        let error = "lru".parse::<EvictionPolicy>().expect_err("there is no policy of this name");
        assert!(error.to_string().contains("allkeys-lru"), "{error}");
    }
}
