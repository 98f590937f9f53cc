use std::fmt;
use std::time::Duration;

use super::{KeyRecord, Point, Read, Write};

/// What a recorded run must show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Guarantee {
    /// Every value read was current at some point during the read.
    Current,
    /// Every value read was current at some point between this long before the
    /// read began and the end of the read.
    Within(Duration),
    /// Reads and writes of each key can be put into one order that agrees with
    /// real time.
    Linearizable,
}

/// How much a check looked at. Assert on it, so that a run that recorded
/// nothing does not pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Keys read or written.
    pub keys: usize,
    /// Writes begun.
    pub writes: usize,
    /// Reads that returned.
    pub reads: usize,
}

/// A read that the guarantee forbids.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation(String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}

pub(super) fn key<V: Eq + fmt::Debug>(
    key: &dyn fmt::Debug,
    record: &KeyRecord<V>,
    guarantee: Guarantee,
) -> Result<(), Violation> {
    let bound = match guarantee {
        Guarantee::Within(bound) => bound,
        Guarantee::Current | Guarantee::Linearizable => Duration::ZERO,
    };
    let violation = |what| Violation(format!("{key:?}: {what}"));
    for read in &record.reads {
        one_read(read, &record.writes, bound).map_err(violation)?;
    }
    if guarantee == Guarantee::Linearizable {
        one_order(record).map_err(violation)?;
    }
    Ok(())
}

/// A read may see a write that began before the read ended, unless another
/// write came entirely after that one and was over (for longer than the bound)
/// when the read began.
fn one_read<V: Eq + fmt::Debug>(
    read: &Read<V>,
    writes: &[Write<V>],
    bound: Duration,
) -> Result<(), String> {
    let saw = format_args!("the read {} returned {:?}", span(read.begin, read.end), read.value)
        .to_string();
    let seen = writes
        .iter()
        .find(|write| write.value == read.value)
        .ok_or_else(|| format!("{saw}, which was never written"))?;
    if seen.begin.tick > read.end.tick {
        return Err(format!("{saw}, whose write {} had not begun", span(seen.begin, seen.end)));
    }
    let hides = |write: &&Write<V>| {
        write.begin.tick > seen.end.tick
            && write.end.tick < read.begin.tick
            && (bound.is_zero() || write.end.at + bound < read.begin.at)
    };
    match writes.iter().find(hides) {
        None => Ok(()),
        Some(write) => Err(format!(
            "{saw}, which was overwritten by {:?} {}",
            write.value,
            span(write.begin, write.end)
        )),
    }
}

/// The time that a write and the reads that saw it must occupy together in any
/// order: with `first_end` the earliest end and `last_begin` the latest begin
/// among them, the value was current from `first_end` to `last_begin` if
/// `first_end` comes first (a *forward* zone), and else at some single point
/// between them (a *backward* zone).
struct Zone<'r, V> {
    value: &'r V,
    first_end: u64,
    last_begin: u64,
}

impl<V> Zone<'_, V> {
    fn is_forward(&self) -> bool {
        self.first_end < self.last_begin
    }

    fn low(&self) -> u64 {
        self.first_end.min(self.last_begin)
    }

    fn high(&self) -> u64 {
        self.first_end.max(self.last_begin)
    }
}

/// The test of Gibbons and Korach ("Testing shared memories", SIAM Journal on
/// Computing 26, 1997) for a register whose written values are unique: an order
/// exists exactly if no two forward zones overlap and no backward zone lies
/// within a forward one.
fn one_order<V: Eq + fmt::Debug>(record: &KeyRecord<V>) -> Result<(), String> {
    let zones: Vec<Zone<'_, V>> =
        record.writes.iter().filter_map(|write| zone(write, &record.reads)).collect();
    for (index, one) in zones.iter().enumerate() {
        for other in &zones[index + 1..] {
            let clash = match (one.is_forward(), other.is_forward()) {
                (true, true) => one.low() < other.high() && other.low() < one.high(),
                (true, false) => one.low() < other.low() && other.high() < one.high(),
                (false, true) => other.low() < one.low() && one.high() < other.high(),
                (false, false) => false,
            };
            if clash {
                return Err(format!(
                    "the reads of {:?} and {:?} cannot be ordered: each value would have to be \
                     current while the other is (steps {}..{} and {}..{})",
                    one.value,
                    other.value,
                    one.low(),
                    one.high(),
                    other.low(),
                    other.high()
                ));
            }
        }
    }
    Ok(())
}

/// `None` for a write that never ended and that nobody saw: it need not have
/// happened.
fn zone<'r, V: Eq>(write: &'r Write<V>, reads: &[Read<V>]) -> Option<Zone<'r, V>> {
    let mut zone =
        Zone { value: &write.value, first_end: write.end.tick, last_begin: write.begin.tick };
    for read in reads.iter().filter(|read| read.value == write.value) {
        zone.first_end = zone.first_end.min(read.end.tick);
        zone.last_begin = zone.last_begin.max(read.begin.tick);
    }
    (zone.first_end != Point::NEVER.tick).then_some(zone)
}

fn span(begin: Point, end: Point) -> String {
    if end == Point::NEVER {
        format!("(steps {}.. without end)", begin.tick)
    } else {
        format!("(steps {}..{})", begin.tick, end.tick)
    }
}
