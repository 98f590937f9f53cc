//! What the door counts. Each worker counts for itself, so that counting costs
//! no traffic between cores; readers add the workers up.

use std::ops::{AddAssign, SubAssign};
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread counts up and every thread may read.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds to the number. Only the thread that owns the counter may.
    #[inline]
    pub(crate) fn add(&self, amount: u64) {
        // One writer: a read and a write do what a locked addition would.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// The number.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one worker counted since it started.
#[derive(Debug)]
pub(crate) struct WorkerCounters {
    pub(crate) connections: Counter,
    pub(crate) rejected_connections: Counter,
    pub(crate) commands: Counter,
    pub(crate) input_bytes: Counter,
    pub(crate) output_bytes: Counter,
    pub(crate) cache_hits: Counter,
    pub(crate) cache_misses: Counter,
    pub(crate) front_hits: Counter,
    pub(crate) front_misses: Counter,
    pub(crate) front_passed: Counter,
    pub(crate) front_fills: Counter,
    pub(crate) front_fills_discarded: Counter,
    pub(crate) timeouts: Counter,
    pub(crate) protocol_errors: Counter,
    /// By the command's place in the table.
    pub(crate) by_command: Vec<CommandCounters>,
}

/// What became of the calls of one command.
#[derive(Debug, Default)]
pub(crate) struct CommandCounters {
    pub(crate) calls: Counter,
    pub(crate) failed: Counter,
    pub(crate) rejected: Counter,
}

impl WorkerCounters {
    pub(crate) fn new(commands_count: usize) -> Self {
        Self {
            connections: Counter::default(),
            rejected_connections: Counter::default(),
            commands: Counter::default(),
            input_bytes: Counter::default(),
            output_bytes: Counter::default(),
            cache_hits: Counter::default(),
            cache_misses: Counter::default(),
            front_hits: Counter::default(),
            front_misses: Counter::default(),
            front_passed: Counter::default(),
            front_fills: Counter::default(),
            front_fills_discarded: Counter::default(),
            timeouts: Counter::default(),
            protocol_errors: Counter::default(),
            by_command: (0..commands_count).map(|_| CommandCounters::default()).collect(),
        }
    }
}

/// What the door counted, over all of its workers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct DoorStatistics {
    /// Connections accepted.
    pub connections: u64,
    /// Connections refused because the door was full.
    pub rejected_connections: u64,
    /// Commands answered, failed ones included.
    pub commands: u64,
    /// Bytes read from clients.
    pub input_bytes: u64,
    /// Bytes written to clients.
    pub output_bytes: u64,
    /// Reads of cached keys answered from memory at once.
    pub cache_hits: u64,
    /// Reads of cached keys that had to wait.
    pub cache_misses: u64,
    /// Clients disconnected because they idled or stalled.
    pub timeouts: u64,
    /// Clients disconnected because what they sent was no command.
    pub protocol_errors: u64,
    /// For each command of the table: calls, calls answered with an error, and
    /// calls refused before they ran.
    pub by_command: Vec<CommandStatistics>,
}

/// What became of the calls of one command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct CommandStatistics {
    /// The command's name.
    pub name: &'static str,
    /// How often it ran.
    pub calls: u64,
    /// How often it ran and answered with an error.
    pub failed: u64,
    /// How often it was refused before it ran.
    pub rejected: u64,
}

impl DoorStatistics {
    /// The sum of what the workers counted. `names` are those of the table.
    pub(crate) fn sum<'a>(
        workers: impl Iterator<Item = &'a WorkerCounters>,
        names: impl Iterator<Item = &'static str>,
    ) -> Self {
        let mut total = Self {
            by_command: names
                .map(|name| CommandStatistics { name, ..CommandStatistics::default() })
                .collect(),
            ..Self::default()
        };
        for worker in workers {
            total.connections += worker.connections.get();
            total.rejected_connections += worker.rejected_connections.get();
            total.commands += worker.commands.get();
            total.input_bytes += worker.input_bytes.get();
            total.output_bytes += worker.output_bytes.get();
            total.cache_hits += worker.cache_hits.get();
            total.cache_misses += worker.cache_misses.get();
            total.timeouts += worker.timeouts.get();
            total.protocol_errors += worker.protocol_errors.get();
            for (sum, command) in total.by_command.iter_mut().zip(&worker.by_command) {
                *sum += CommandStatistics {
                    name: sum.name,
                    calls: command.calls.get(),
                    failed: command.failed.get(),
                    rejected: command.rejected.get(),
                };
            }
        }
        total
    }

    /// How many calls were answered with an error.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.by_command.iter().map(|command| command.failed + command.rejected).sum()
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub(crate) fn since(mut self, earlier: &Self) -> Self {
        self.connections -= earlier.connections;
        self.rejected_connections -= earlier.rejected_connections;
        self.commands -= earlier.commands;
        self.input_bytes -= earlier.input_bytes;
        self.output_bytes -= earlier.output_bytes;
        self.cache_hits -= earlier.cache_hits;
        self.cache_misses -= earlier.cache_misses;
        self.timeouts -= earlier.timeouts;
        self.protocol_errors -= earlier.protocol_errors;
        for (sum, earlier) in self.by_command.iter_mut().zip(&earlier.by_command) {
            *sum -= *earlier;
        }
        self
    }
}

impl AddAssign for CommandStatistics {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.failed += other.failed;
        self.rejected += other.rejected;
    }
}

impl SubAssign for CommandStatistics {
    fn sub_assign(&mut self, other: Self) {
        self.calls -= other.calls;
        self.failed -= other.failed;
        self.rejected -= other.rejected;
    }
}
