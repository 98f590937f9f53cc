//! How far the lanes of journals have been applied, in a table of the database
//! itself: kept in the transaction of the writes, so that each happens once.

use std::time::Duration;

use larder_core::{Error, ErrorKind, JournalOffset, LaneMark, Result};

use super::apply::timed;
use super::failure::{Class, Failed};
use super::{Argument, Bound};
use crate::Dialect;
use crate::engine::Engine;

/// The statement that makes the table of lanes; [`Database`](crate::Database)
/// runs it when it first keeps a mark, unless it is told not to.
#[must_use]
pub fn lanes_table(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Postgres | Dialect::Sqlite => {
            "CREATE TABLE IF NOT EXISTS larder_lanes (journal varchar(190) NOT NULL, \
             lane integer NOT NULL, epoch bigint NOT NULL, applied bigint NOT NULL, \
             PRIMARY KEY (journal, lane))"
        }
        Dialect::MySql => {
            "CREATE TABLE IF NOT EXISTS larder_lanes (\
             journal varchar(190) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, \
             lane integer NOT NULL, epoch bigint NOT NULL, applied bigint NOT NULL, \
             PRIMARY KEY (journal, lane)) ENGINE=InnoDB"
        }
    }
}

/// A mark as the table keeps it.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    journal: String,
    lane: i64,
    epoch: i64,
    applied: i64,
}

/// What is to become of the writes under a mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fence {
    Apply,
    /// They are applied already.
    Skip,
}

impl Mark {
    pub(super) fn new(mark: &LaneMark) -> Result<Self> {
        let number = |name: &'static str, number: u64| {
            i64::try_from(number).map_err(|_| {
                Error::new(ErrorKind::InvalidInput, "a mark is out of range")
                    .with(name, number)
                    .remedy("count from 0")
            })
        };
        if mark.journal.is_empty() || mark.journal.chars().count() > JOURNAL_MAX {
            return Err(Error::new(ErrorKind::InvalidInput, "this is no name of a journal")
                .with("characters", mark.journal.chars().count())
                .remedy(format!("write 1 to {JOURNAL_MAX} characters")));
        }
        Ok(Self {
            journal: mark.journal.to_string(),
            lane: mark.lane.into(),
            epoch: number("epoch", mark.epoch)?,
            applied: number("applied", mark.applied.0)?,
        })
    }
}

const JOURNAL_MAX: usize = 190;

/// Holds the mark of the lane until the transaction ends, and moves it.
pub(super) async fn keep<E: Engine>(
    engine: &E,
    connection: &mut E::Connection,
    mark: &Mark,
    timeout: Duration,
    label: &str,
) -> Result<Fence, Failed> {
    let select = select(E::DIALECT, &mark.journal, mark.lane, true);
    let known = timed(timeout, engine.numbers(connection, &select), label).await?;
    let (fence, applied) = match known {
        Some((epoch, _)) if epoch > mark.epoch => {
            return Err(Failed::of_larder(
                Error::new(ErrorKind::Conflict, "the lane has a later owner")
                    .with("lane", mark.lane)
                    .with("epoch", mark.epoch)
                    .with("its epoch", epoch)
                    .remedy("give the lane up: its owner applies what is left of it"),
            ));
        }
        Some((epoch, applied)) if applied >= mark.applied => {
            if epoch == mark.epoch {
                return Ok(Fence::Skip);
            }
            (Fence::Skip, applied)
        }
        _ => (Fence::Apply, mark.applied),
    };
    let change = match known {
        Some(_) => update(E::DIALECT, mark, applied),
        None => insert(E::DIALECT, mark, applied),
    };
    let changed = timed(timeout, engine.execute(connection, &change), label).await;
    changed.map_err(|failed| match failed.class(E::DIALECT) {
        // Somebody else made the first mark of the lane.
        Class::Values => Failed::of_race(failed.into_error(E::DIALECT, label)),
        _ => failed,
    })?;
    Ok(fence)
}

/// What the table says of a lane.
pub(super) fn mark_of(journal: &str, lane: u16, known: Option<(i64, i64)>) -> Option<LaneMark> {
    let (epoch, applied) = known?;
    Some(LaneMark {
        journal: journal.into(),
        lane,
        epoch: u64::try_from(epoch).unwrap_or(0),
        applied: JournalOffset(u64::try_from(applied).unwrap_or(0)),
    })
}

/// The statement that reads the mark of a lane.
pub(super) fn select(dialect: Dialect, journal: &str, lane: i64, is_held: bool) -> Bound {
    let [first, second, ..] = places(dialect);
    let hold = if is_held && dialect != Dialect::Sqlite { " FOR UPDATE" } else { "" };
    Bound {
        sql: format!(
            "SELECT epoch, applied FROM larder_lanes \
             WHERE journal = {first} AND lane = {second}{hold}"
        ),
        arguments: vec![Argument::Text(journal.to_owned()), Argument::Signed(lane)],
        is_kept: true,
    }
}

fn insert(dialect: Dialect, mark: &Mark, applied: i64) -> Bound {
    let [first, second, third, fourth] = places(dialect);
    Bound {
        sql: format!(
            "INSERT INTO larder_lanes (epoch, applied, journal, lane) \
             VALUES ({first}, {second}, {third}, {fourth})"
        ),
        arguments: arguments(mark, applied),
        is_kept: true,
    }
}

fn update(dialect: Dialect, mark: &Mark, applied: i64) -> Bound {
    let [first, second, third, fourth] = places(dialect);
    Bound {
        sql: format!(
            "UPDATE larder_lanes SET epoch = {first}, applied = {second} \
             WHERE journal = {third} AND lane = {fourth}"
        ),
        arguments: arguments(mark, applied),
        is_kept: true,
    }
}

fn arguments(mark: &Mark, applied: i64) -> Vec<Argument> {
    vec![
        Argument::Signed(mark.epoch),
        Argument::Signed(applied),
        Argument::Text(mark.journal.clone()),
        Argument::Signed(mark.lane),
    ]
}

fn places(dialect: Dialect) -> [&'static str; 4] {
    match dialect {
        Dialect::Postgres => ["$1", "$2", "$3", "$4"],
        Dialect::MySql | Dialect::Sqlite => ["?"; 4],
    }
}
