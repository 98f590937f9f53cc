//! Group commit: whatever comes while one call is on its way is the next call.

use std::sync::Arc;
use std::time::Duration;

use larder_core::{Error, ErrorKind, JournalOffset, Result};
use redis::Value;
use tokio::sync::{mpsc, oneshot};

use super::core::{Core, RECORD_OVERHEAD, Said};
use super::entry::foreign;
use super::link::{Link, Silence};
use super::options::Acknowledge;
use crate::connector::{Open, text};
use crate::reopening::Live;
use crate::script::{Call, JOURNAL_APPEND};

/// Records that somebody waits for.
pub(super) struct Order {
    pub(super) lane: u16,
    pub(super) records: Vec<Vec<u8>>,
    pub(super) reply: oneshot::Sender<Result<JournalOffset>>,
}

/// How many appends one call has at most.
const ORDERS_MAX: usize = 512;
/// How many bytes, unless one append alone has more.
const BYTES_MAX: usize = 4 << 20;
/// How often a call is made whose answer does not come. It happens once.
const TRIES: usize = 3;

/// Appends over a connection of its own, one call after the other.
pub(super) struct Appender {
    core: Arc<Core>,
    link: Link,
    orders: mpsc::Receiver<Order>,
    /// Taken, and not in the last call any more.
    next: Option<Order>,
    calls: u64,
}

impl Appender {
    pub(super) fn new(core: Arc<Core>, link: Link, orders: mpsc::Receiver<Order>) -> Self {
        Self { core, link, orders, next: None, calls: 0 }
    }

    /// Works until nobody can append any more.
    pub(super) async fn run(mut self) {
        while let Some(orders) = self.take().await {
            self.calls += 1;
            match self.commit(&orders).await {
                Ok(answers) => reply(&self.core, orders, &answers),
                Err(error) => {
                    for order in orders {
                        // Whoever does not wait any more does not want to know.
                        let _ = order.reply.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// All that waits, as far as it fits into one call.
    async fn take(&mut self) -> Option<Vec<Order>> {
        let first = match self.next.take() {
            Some(order) => order,
            None => self.orders.recv().await?,
        };
        let mut bytes = size(&first);
        let mut orders = vec![first];
        while orders.len() < ORDERS_MAX {
            let Ok(order) = self.orders.try_recv() else { break };
            bytes += size(&order);
            if bytes > BYTES_MAX {
                self.next = Some(order);
                break;
            }
            orders.push(order);
        }
        Some(orders)
    }

    /// Appends, and waits until it is as safe as was asked for. The answers are
    /// words of the script, one for each order.
    async fn commit(&self, orders: &[Order]) -> Result<Vec<String>> {
        let call = self.script(orders);
        let (rest, live) = self.append(&call).await?;
        let answers = rest.first().and_then(text).ok_or_else(foreign)?;
        let answers: Vec<String> = answers.split(' ').map(str::to_owned).collect();
        if answers.len() != orders.len() {
            return Err(foreign());
        }
        self.wait_for_copies(live).await?;
        Ok(answers)
    }

    /// Calls the script until it answers: it knows a call that it has had.
    async fn append(&self, call: &Call) -> Result<(Vec<Value>, Live<Open>)> {
        let mut is_unknown = false;
        for attempt in 1.. {
            let (answer, live) = match self.link.call_once(call).await {
                Ok((answer, live)) => (self.core.refuse_other(self.core.hear(answer)?)?, live),
                Err(Silence { error, is_nothing_done, .. }) => {
                    is_unknown |= !is_nothing_done;
                    if attempt < TRIES && error.kind() != ErrorKind::Config {
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                    return Err(if is_unknown { unknown(error) } else { error });
                }
            };
            match answer {
                Said::Done(rest) => return Ok((rest, live)),
                Said::Gone if attempt < TRIES => {
                    if is_unknown {
                        // It may have been accepted by a journal that is no more.
                        let gone = Error::new(ErrorKind::Unavailable, "the journal is gone");
                        self.core.restore().await?;
                        return Err(unknown(gone));
                    }
                    self.core.restore().await?;
                }
                _ => return Err(foreign()),
            }
        }
        Err(foreign())
    }

    async fn wait_for_copies(&self, mut live: Live<Open>) -> Result<()> {
        let millis = self.core.options.acknowledge_timeout.as_millis();
        let (mut command, wanted) = match self.core.options.acknowledge {
            Acknowledge::Memory | Acknowledge::Replicas(0) => return Ok(()),
            Acknowledge::Replicas(replicas) => {
                let mut command = redis::cmd("WAIT");
                command.arg(replicas);
                (command, [0, replicas])
            }
            Acknowledge::Disk => (waitaof(0), [1, 0]),
            Acknowledge::Disks(replicas) => (waitaof(replicas), [1, replicas]),
        };
        command.arg(u64::try_from(millis).unwrap_or(u64::MAX));
        // It waits for what went over this connection: over another one it would
        // say nothing of it.
        let answer = self.link.ask_over(&mut live, &command).await.map_err(unknown)?;
        let reached = match answer {
            Value::Int(replicas) => [0, replicas],
            Value::Array(counts) => match counts.as_slice() {
                [Value::Int(local), Value::Int(replicas)] => [*local, *replicas],
                _ => return Err(foreign()),
            },
            _ => return Err(foreign()),
        };
        if reached.iter().zip(wanted).all(|(reached, wanted)| *reached >= i64::from(wanted)) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::OutcomeUnknown,
            "Redis has a write, but not on as many disks or replicas as was asked for",
        )
        .with("own disk", reached[0])
        .with("replicas", reached[1])
        .with("wanted", wanted[1])
        .with("acknowledge_timeout", format_args!("{:?}", self.core.options.acknowledge_timeout))
        .remedy("see whether the replicas follow; ask for fewer of them, or wait for longer"))
    }

    fn script(&self, orders: &[Order]) -> Call {
        let core = &self.core;
        let mut lanes: Vec<u16> = orders.iter().map(|order| order.lane).collect();
        lanes.sort_unstable();
        lanes.dedup();
        let streams = lanes.iter().map(|lane| core.keys.stream(*lane));
        let keys = std::iter::once(core.keys.news()).chain(streams).collect();
        let mut call = core
            .script(&JOURNAL_APPEND, keys)
            .argument(core.node.as_bytes())
            .number(self.calls)
            .number(core.options.records_max)
            .number(core.options.bytes_max)
            .number(RECORD_OVERHEAD);
        for order in orders {
            let place = lanes.binary_search(&order.lane).unwrap_or(0);
            // Behind the head and the news, counted from 1.
            call = call.number(place + 3).number(order.lane).number(order.records.len());
            for record in &order.records {
                call = call.argument(record.as_slice());
            }
        }
        call
    }
}

/// How long a server may be gone before the next try.
const PAUSE: Duration = Duration::from_millis(110);

fn waitaof(replicas: u8) -> redis::Cmd {
    let mut command = redis::cmd("WAITAOF");
    command.arg(1).arg(replicas);
    command
}

fn size(order: &Order) -> usize {
    order.records.iter().map(Vec::len).sum()
}

fn reply(core: &Core, orders: Vec<Order>, answers: &[String]) {
    for (order, answer) in orders.into_iter().zip(answers) {
        let answer = match answer.parse::<u64>() {
            Ok(offset) => {
                core.known().saw(order.lane, offset);
                Ok(JournalOffset(offset))
            }
            Err(_) => Err(full(core)),
        };
        let _ = order.reply.send(answer);
    }
}

/// # Errors
/// Always: there is no room.
pub(super) fn full(core: &Core) -> Error {
    let known = core.known().clone();
    let remedy = if known.dead_letters > known.records {
        "replay or drop dead letters, which take most of its room"
    } else {
        "try again when the origin has taken some, or raise bytes_max or records_max"
    };
    Error::new(ErrorKind::Overloaded, "the journal is full: the write was not accepted")
        .with("records", known.records)
        .with("dead letters", known.dead_letters)
        .with("records_max", core.options.records_max)
        .with("bytes", known.bytes)
        .with("bytes_max", core.options.bytes_max)
        .remedy(remedy)
}

/// The error of a call that may have been made.
pub(super) fn unknown(error: Error) -> Error {
    Error::new(ErrorKind::OutcomeUnknown, "it is not known whether the journal has a write")
        .caused_by(error)
        .remedy("look at what became of it before it is written again")
}
