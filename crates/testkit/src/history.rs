//! Proof from a recorded run that no read saw what it must not see.
//!
//! A test records when each write and each read began and ended. A write here
//! is everything up to the point where the change must be visible: the change
//! at the origin *and* the invalidation. [`History::check`] then judges every
//! read against every write:
//!
//! - [`Guarantee::Current`]: the value read was current at some point between
//!   the read's begin and end (a regular register).
//! - [`Guarantee::Within`]: it was current at some point not longer before the
//!   read began than the bound (eventual consistency with a staleness bound).
//! - [`Guarantee::Linearizable`]: reads and writes of a key can be put into one
//!   order that agrees with real time. On top of `Current` it forbids that a
//!   later read sees an older value than an earlier read did.
//!
//! Written values must be unique for each key: that is what lets the check name
//! the write that a read saw, and be fast.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use larder_core::{Clock, Moment};

mod check;

pub use check::{Guarantee, Summary, Violation};

/// A record of reads and writes, made from many threads. Clones share it.
///
/// ```
/// use larder_core::Clock;
/// use larder_testkit::history::{Guarantee, History};
///
/// let history = History::new(Clock::monotonic());
/// history.begin_write("ann", Some(1)).committed();
/// let read = history.begin_read("ann");
/// history.begin_write("ann", Some(2)).committed();
/// read.returned(Some(1)); // It was current when the read began.
/// history.check(Guarantee::Current).expect("every read saw a current value");
///
/// history.begin_read("ann").returned(Some(1)); // Too late for the first value.
/// let violation = history.check(Guarantee::Current).expect_err("a stale read");
/// assert!(violation.to_string().contains("was overwritten"));
/// ```
#[derive(Debug)]
pub struct History<K, V>(Arc<Inner<K, V>>);

#[derive(Debug)]
struct Inner<K, V> {
    clock: Clock,
    record: Mutex<Record<K, V>>,
}

#[derive(Debug)]
struct Record<K, V> {
    ticks: u64,
    keys: HashMap<K, KeyRecord<V>>,
}

#[derive(Clone, Debug)]
struct KeyRecord<V> {
    writes: Vec<Write<V>>,
    reads: Vec<Read<V>>,
}

/// A point of a run: its place in the order of all points, and the time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Point {
    tick: u64,
    at: Moment,
}

impl Point {
    /// After every point of the run: the end of a write that never reported it.
    const NEVER: Self = Self { tick: u64::MAX, at: Moment::NEVER };
}

#[derive(Clone, Debug)]
struct Write<V> {
    value: V,
    begin: Point,
    end: Point,
}

#[derive(Clone, Debug)]
struct Read<V> {
    value: V,
    begin: Point,
    end: Point,
}

impl<K, V> History<K, V>
where
    K: Clone + Eq + Hash + fmt::Debug,
    V: Clone + Eq + fmt::Debug,
{
    /// An empty record that tells the time by this clock.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let record = Mutex::new(Record { ticks: 0, keys: HashMap::new() });
        Self(Arc::new(Inner { clock, record }))
    }

    /// Call this before a write is started. What a key is before its first
    /// recorded write is unknown, and a read of it a violation: record the
    /// initial value too. A removal writes "no value"; give such values a number
    /// if there is more than one of them.
    ///
    /// # Panics
    /// If this value was written to the key before.
    pub fn begin_write(&self, key: K, value: V) -> WriteInProgress<K, V> {
        let mut record = self.record();
        let begin = self.point(&mut record);
        let writes = &mut record.key(&key).writes;
        assert!(
            writes.iter().all(|write| write.value != value),
            "{key:?}: {value:?} was written before; written values must be unique"
        );
        writes.push(Write { value, begin, end: Point::NEVER });
        let index = writes.len() - 1;
        drop(record);
        WriteInProgress { history: self.clone(), key, index }
    }

    /// Call this before a read is started.
    pub fn begin_read(&self, key: K) -> ReadInProgress<K, V> {
        let begin = self.point(&mut self.record());
        ReadInProgress { history: self.clone(), key, begin }
    }

    /// Judges every read. Costs the product of reads and writes for each key.
    ///
    /// # Errors
    /// The first read that the guarantee forbids, with the write it saw and the
    /// write that should have hidden it.
    pub fn check(&self, guarantee: Guarantee) -> Result<Summary, Violation> {
        let record = self.record();
        let mut summary = Summary::default();
        for (key, operations) in &record.keys {
            check::key(key, operations, guarantee)?;
            summary.keys += 1;
            summary.writes += operations.writes.len();
            summary.reads += operations.reads.len();
        }
        Ok(summary)
    }

    fn point(&self, record: &mut Record<K, V>) -> Point {
        record.ticks += 1;
        Point { tick: record.ticks, at: self.0.clock.precise_now() }
    }
}

impl<K, V> History<K, V> {
    fn record(&self) -> MutexGuard<'_, Record<K, V>> {
        self.0.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V> Clone for History<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Clone + Eq + Hash, V> Record<K, V> {
    fn key(&mut self, key: &K) -> &mut KeyRecord<V> {
        self.keys
            .entry(key.clone())
            .or_insert_with(|| KeyRecord { writes: Vec::new(), reads: Vec::new() })
    }
}

/// A write that has begun. Dropped without [`WriteInProgress::committed`], it
/// may have happened at any later time, or never.
#[derive(Debug)]
#[must_use = "a write that never commits makes the check weaker"]
pub struct WriteInProgress<K, V> {
    history: History<K, V>,
    key: K,
    index: usize,
}

impl<K, V> WriteInProgress<K, V>
where
    K: Clone + Eq + Hash + fmt::Debug,
    V: Clone + Eq + fmt::Debug,
{
    /// From here on, a read that begins must see this value or a newer one.
    pub fn committed(self) {
        let mut record = self.history.record();
        let end = self.history.point(&mut record);
        record.key(&self.key).writes[self.index].end = end;
    }
}

/// A read that has begun. Dropped without [`ReadInProgress::returned`], it saw
/// nothing.
#[derive(Debug)]
#[must_use = "a read that reports nothing proves nothing"]
pub struct ReadInProgress<K, V> {
    history: History<K, V>,
    key: K,
    begin: Point,
}

impl<K, V> ReadInProgress<K, V>
where
    K: Clone + Eq + Hash + fmt::Debug,
    V: Clone + Eq + fmt::Debug,
{
    /// The read is over and saw this.
    pub fn returned(self, value: V) {
        let mut record = self.history.record();
        let end = self.history.point(&mut record);
        record.key(&self.key).reads.push(Read { value, begin: self.begin, end });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_core::ManualClock;
    use std::time::Duration;

    fn history() -> History<&'static str, u32> {
        History::new(Clock::from(ManualClock::new()))
    }

    #[test]
    fn a_value_nobody_wrote_is_a_violation() {
        let history = history();
        history.begin_write("k", 1).committed();
        history.begin_read("k").returned(7);
        let violation = history.check(Guarantee::Current).expect_err("7 came from nowhere");
        assert!(violation.to_string().contains("never written"), "{violation}");
    }

    #[test]
    fn a_read_that_ended_before_the_write_began_cannot_have_seen_it() {
        let history = history();
        history.begin_write("k", 1).committed();
        let early = history.begin_read("k");
        early.returned(2);
        history.begin_write("k", 2).committed();
        let violation = history.check(Guarantee::Current).expect_err("2 comes from the future");
        assert!(violation.to_string().contains("had not begun"), "{violation}");
    }

    #[test]
    fn while_a_write_runs_both_values_are_current() {
        let history = history();
        history.begin_write("k", 1).committed();
        let write = history.begin_write("k", 2);
        history.begin_read("k").returned(1);
        history.begin_read("k").returned(2);
        write.committed();
        let summary = history.check(Guarantee::Current).expect("both are allowed");
        assert_eq!((summary.keys, summary.writes, summary.reads), (1, 2, 2));
    }

    #[test]
    fn a_write_that_never_reported_may_have_happened_or_not() {
        let history = history();
        history.begin_write("k", 1).committed();
        drop(history.begin_write("k", 2));
        history.begin_read("k").returned(1);
        history.begin_read("k").returned(2);
        history.check(Guarantee::Linearizable).expect("it happened between the reads");
    }

    #[test]
    fn going_back_to_an_older_value_is_current_but_not_linearizable() {
        let history = history();
        history.begin_write("k", 1).committed();
        let write = history.begin_write("k", 2);
        history.begin_read("k").returned(2);
        history.begin_read("k").returned(1);
        write.committed();
        history.check(Guarantee::Current).expect("both were current while the write ran");
        let violation = history.check(Guarantee::Linearizable).expect_err("new, then old");
        assert!(violation.to_string().contains("cannot be ordered"), "{violation}");
    }

    #[test]
    fn a_bound_forgives_as_much_staleness_as_it_says() {
        let clock = ManualClock::new();
        let history = History::new(Clock::from(clock.clone()));
        history.begin_write("k", 1).committed();
        history.begin_write("k", 2).committed();
        clock.advance(Duration::from_secs(5));
        history.begin_read("k").returned(1);
        history.check(Guarantee::Current).expect_err("it is stale");
        history.check(Guarantee::Within(Duration::from_secs(4))).expect_err("by 5 seconds");
        history.check(Guarantee::Within(Duration::from_secs(5))).expect("which is allowed");
    }
}
