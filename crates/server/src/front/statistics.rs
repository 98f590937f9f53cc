//! What the front counts, beside what each worker counts for itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of the buckets of latencies, in microseconds.
const BUCKETS_MICROS: [u64; 14] = [
    50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 102_400, 409_600,
    1_638_400,
];

/// Whether Redis tells what changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TrackingState {
    /// There is no connection, or its answer is late: nothing is answered from
    /// memory.
    Lost,
    /// It does: values are kept until they change.
    Tracking,
    /// It refuses to: values are kept for a moment, or not at all.
    Refused,
}

impl TrackingState {
    /// The state with this number, as `as u8` gives it.
    pub(crate) const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Tracking,
            2 => Self::Refused,
            _ => Self::Lost,
        }
    }

    /// A word for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Tracking => "tracking",
            Self::Refused => "refused",
        }
    }
}

/// What all threads count together: rare things.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) invalidations: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) losses: AtomicU64,
    pub(crate) connects: AtomicU64,
    pub(crate) connect_failures: AtomicU64,
    pub(crate) disconnects: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) hold_ups: AtomicU64,
    pub(crate) give_ups: AtomicU64,
    pub(crate) redirections: AtomicU64,
    pub(crate) moved_slots: AtomicU64,
    latency_micros: AtomicU64,
    latency_buckets: [AtomicU64; BUCKETS_MICROS.len() + 1],
}

/// What the front counted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FrontStatistics {
    /// Whether Redis tells what changes.
    pub tracking: TrackingState,
    /// How many servers are listened to: one, or the primaries of a cluster.
    pub servers: usize,
    /// Whether the last attempt to reach each of them succeeded.
    pub is_reachable: bool,
    /// Reads answered from memory.
    pub hits: u64,
    /// Reads of strings that went to Redis.
    pub misses: u64,
    /// Commands that went to Redis, those reads among them.
    pub passed: u64,
    /// Values kept.
    pub fills: u64,
    /// Values not kept because an invalidation or a write crossed them.
    pub fills_discarded: u64,
    /// Keys that Redis said have changed.
    pub invalidations: u64,
    /// How often Redis said that everything has changed.
    pub flushes: u64,
    /// How often tracking was lost, and everything with it.
    pub losses: u64,
    /// Connections opened to Redis.
    pub connects: u64,
    /// Connections that could not be opened.
    pub connect_failures: u64,
    /// Connections that ended though they were in use.
    pub disconnects: u64,
    /// Connections that are open.
    pub connections: u64,
    /// How often a client that was slow to read held up the others of its link.
    pub hold_ups: u64,
    /// How often it did so for too long: what came for it was gathered in memory.
    pub give_ups: u64,
    /// Commands that a server of the cluster sent on to another.
    pub redirections: u64,
    /// How often slots of the cluster were seen to have another owner.
    pub moved_slots: u64,
    /// How long replies took, in seconds: how many were quicker than each bound.
    pub latency_buckets: Vec<(f64, u64)>,
    /// How long replies took, together.
    pub latency_seconds: f64,
}

impl Counters {
    /// Notes how long `count` replies took.
    pub(crate) fn note_latency(&self, latency: Duration, count: u64) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_MICROS.partition_point(|bound| *bound < micros);
        self.latency_buckets[bucket].fetch_add(count, Ordering::Relaxed);
        self.latency_micros.fetch_add(micros.saturating_mul(count), Ordering::Relaxed);
    }

    /// What is counted here; the rest is zero, and nothing is tracked.
    pub(crate) fn read(&self) -> FrontStatistics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let bounds = BUCKETS_MICROS.iter().map(|micros| *micros as f64 / 1e6);
        FrontStatistics {
            tracking: TrackingState::Lost,
            servers: 0,
            is_reachable: false,
            hits: 0,
            misses: 0,
            passed: 0,
            fills: 0,
            fills_discarded: 0,
            invalidations: read(&self.invalidations),
            flushes: read(&self.flushes),
            losses: read(&self.losses),
            connects: read(&self.connects),
            connect_failures: read(&self.connect_failures),
            disconnects: read(&self.disconnects),
            connections: read(&self.connections),
            hold_ups: read(&self.hold_ups),
            give_ups: read(&self.give_ups),
            redirections: read(&self.redirections),
            moved_slots: read(&self.moved_slots),
            latency_buckets: bounds
                .chain([f64::INFINITY])
                .zip(self.latency_buckets.iter().map(read))
                .collect(),
            latency_seconds: read(&self.latency_micros) as f64 / 1e6,
        }
    }
}
