use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use larder_core::{Death, Error, JournalRecord, Result};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::files::Files;
use crate::log::{Failed, Log, LogCounts, stopped};
use crate::operation::Operation;
use crate::state::State;

/// What the one thread that writes is asked to do, and who waits for it.
pub(crate) struct Order {
    pub(crate) work: Work,
    pub(crate) reply: oneshot::Sender<Result<Answer>>,
    /// What was reserved for it in the queue.
    pub(crate) bytes: u64,
    pub(crate) records: usize,
}

pub(crate) enum Work {
    Append { lane: u16, records: Vec<Arc<JournalRecord>> },
    Trim { lane: u16, through: u64 },
    Bury { lane: u16, deaths: Vec<Death> },
    Replay { lane: u16, letter: u64, instead: Option<Arc<JournalRecord>> },
    Forget { lane: u16, letters: Vec<u64> },
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Done,
    /// The last offset that was given.
    At(u64),
    /// There is no such letter.
    Nothing,
    Count(usize),
}

/// What the thread and those who ask it share.
pub(crate) struct Shared {
    pub(crate) queue: Mutex<Queue>,
    pub(crate) wake: Condvar,
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) published: Mutex<Published>,
}

#[derive(Default)]
pub(crate) struct Queue {
    orders: VecDeque<Order>,
    /// What waits here, not yet counted in the state.
    pub(crate) bytes: u64,
    pub(crate) records: usize,
    is_closed: bool,
}

/// What the thread says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Published {
    pub(crate) counts: LogCounts,
    pub(crate) is_broken: bool,
}

impl Queue {
    /// Puts an order in, unless the journal is closed.
    pub(crate) fn push(&mut self, order: Order) -> Result<()> {
        if self.is_closed {
            return Err(stopped());
        }
        self.bytes += order.bytes;
        self.records += order.records;
        self.orders.push_back(order);
        Ok(())
    }

    pub(crate) fn close(&mut self) {
        self.is_closed = true;
    }
}

/// Writes until the journal is closed and nothing waits: all that came while the
/// last group was on its way to the disk is the next one.
pub(crate) fn run<F: Files>(mut log: Log<F>, shared: &Shared) {
    loop {
        let group = next_group(shared);
        if group.is_empty() {
            return;
        }
        let bytes: u64 = group.iter().map(|order| order.bytes).sum();
        let records: usize = group.iter().map(|order| order.records).sum();
        let (operations, answers) = plan(&group, &log);
        // What changes nothing needs no frame.
        let done = if operations.is_empty() { Ok(()) } else { log.commit(operations) };
        *shared.published.lock() = Published { counts: log.counts, is_broken: log.is_broken() };
        let mut queue = shared.queue.lock();
        queue.bytes -= bytes;
        queue.records -= records;
        drop(queue);
        let failed: Option<Error> = done.err().map(|failed| match failed {
            Failed::NotThere(error) | Failed::Unknown(error) => error,
        });
        for (order, answer) in group.into_iter().zip(answers) {
            // Whoever does not wait any more does not want to know.
            let _ = order.reply.send(failed.clone().map_or(Ok(answer), Err));
        }
    }
}

/// Waits for orders. None: the journal is closed.
fn next_group(shared: &Shared) -> Vec<Order> {
    let mut queue = shared.queue.lock();
    while queue.orders.is_empty() {
        if queue.is_closed {
            return Vec::new();
        }
        shared.wake.wait(&mut queue);
    }
    let mut group = Vec::new();
    let mut bytes = 0;
    while bytes < GROUP_BYTES_MAX
        && let Some(order) = queue.orders.pop_front()
    {
        bytes += order.bytes;
        group.push(order);
    }
    group
}

/// What the group comes to, as if one came after the other.
fn plan<F: Files>(group: &[Order], log: &Log<F>) -> (Vec<Operation>, Vec<Answer>) {
    let now = log.time.now();
    let state = log.state.lock();
    let mut planned = Planned { state: &state, next: HashMap::new(), resolved: HashSet::new() };
    let mut operations = Vec::new();
    let mut answers = Vec::with_capacity(group.len());
    for order in group {
        answers.push(planned.add(&order.work, now, &mut operations));
    }
    (operations, answers)
}

struct Planned<'a> {
    state: &'a State,
    /// The next offset of lanes that are appended to.
    next: HashMap<u16, u64>,
    /// Letters that are replayed or dropped.
    resolved: HashSet<(u16, u64)>,
}

impl Planned<'_> {
    fn add(&mut self, work: &Work, now: u64, operations: &mut Vec<Operation>) -> Answer {
        match work {
            Work::Append { lane, records } => {
                let mut last = 0;
                for record in records {
                    last = self.append(*lane, record, now, operations);
                }
                Answer::At(last)
            }
            Work::Trim { lane, through } => {
                let trimmed = self.state.lane(*lane).map_or(u64::MAX, |lane| lane.trimmed);
                if *through > trimmed {
                    operations.push(Operation::Trim { lane: *lane, through: *through });
                }
                Answer::Done
            }
            Work::Bury { lane, deaths } => {
                let held = self.state.lane(*lane);
                let there = deaths.iter().filter(|death| {
                    held.is_some_and(|held| held.records.contains_key(&death.offset.0))
                });
                operations.extend(there.map(|death| Operation::Bury {
                    lane: *lane,
                    offset: death.offset.0,
                    cause: death.cause,
                    reason: Arc::clone(&death.reason),
                }));
                Answer::Done
            }
            Work::Replay { lane, letter, instead } => {
                let Some(record) = self.resolve(*lane, *letter, operations) else {
                    return Answer::Nothing;
                };
                let record = instead.clone().unwrap_or(record);
                Answer::At(self.append(*lane, &record, now, operations))
            }
            Work::Forget { lane, letters } => {
                let dropped = letters
                    .iter()
                    .filter(|letter| self.resolve(*lane, **letter, operations).is_some());
                Answer::Count(dropped.count())
            }
        }
    }

    fn append(
        &mut self,
        lane: u16,
        record: &Arc<JournalRecord>,
        now: u64,
        operations: &mut Vec<Operation>,
    ) -> u64 {
        let next = self.next.entry(lane);
        let next = next.or_insert_with(|| self.state.lane(lane).map_or(1, |lane| lane.next));
        let offset = *next;
        *next += 1;
        let record = Arc::clone(record);
        let age = u64::try_from(record.age.as_micros()).unwrap_or(u64::MAX);
        let accepted = now.saturating_sub(age);
        operations.push(Operation::Append { lane, offset, accepted, record });
        offset
    }

    /// Drops a letter, once, and says what it holds.
    fn resolve(
        &mut self,
        lane: u16,
        letter: u64,
        operations: &mut Vec<Operation>,
    ) -> Option<Arc<JournalRecord>> {
        let held = self.state.lane(lane)?.letters.get(&letter)?;
        self.resolved.insert((lane, letter)).then(|| {
            operations.push(Operation::Forget { lane, offset: letter });
            Arc::clone(&held.item.record)
        })
    }
}

/// A frame is hardly ever larger than this and one order.
const GROUP_BYTES_MAX: u64 = 4 << 20;
