use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use larder_core::{Error, Expected, Outcome, Result, Value, Version, Written};

use super::failure::Failed;
use super::group::{Step, groups, steps};
use super::members::whole_number;
use super::table::version_number;
use super::transaction::Batch;
use super::value::Misfit;
use super::{Change, Group, Operation, Shape, TableWrites, Writes};
use crate::engine::Engine;
use crate::plan::{Plan, Request};
use crate::sink::Sink;

/// The writes of a batch on one connection: inside of a transaction, or a single
/// one that is a transaction by itself.
pub(super) struct Run<'r, E: Engine> {
    pub(super) engine: &'r E,
    pub(super) connection: &'r mut E::Connection,
    pub(super) batch: &'r Batch<'r>,
    pub(super) label: &'r str,
    /// For each statement.
    pub(super) timeout: Duration,
    answers: Vec<Option<Written<Bytes>>>,
}

/// A row as it is now, or that there is none.
type Row = Option<Bytes>;

impl<'r, E: Engine> Run<'r, E> {
    pub(super) fn new(
        engine: &'r E,
        connection: &'r mut E::Connection,
        batch: &'r Batch<'r>,
        label: &'r str,
        timeout: Duration,
    ) -> Self {
        let answers = vec![None; batch.operations.len()];
        Self { engine, connection, batch, label, timeout, answers }
    }

    /// Makes all the writes: with few statements, or in the order given with one
    /// for each, which tells which of them is to blame.
    pub(super) async fn all(mut self, is_grouped: bool) -> Result<Vec<Written<Bytes>>, Failed> {
        let origins: Vec<&Writes> = self.batch.origins.iter().map(|origin| origin.writes).collect();
        for step in steps(&origins, &self.batch.operations, is_grouped) {
            match step {
                Step::Wave(wave) => self.wave(&wave).await?,
                Step::Declared(origin, operation) => {
                    let made = self.declared(origin, operation).await;
                    made.map_err(|failed| failed.blame(operation.index))?;
                }
            }
        }
        let answered = self.answers.into_iter().collect::<Option<Vec<_>>>();
        answered.ok_or_else(|| Failed::of_larder(unanswered()))
    }

    /// Writes of different rows.
    async fn wave(&mut self, wave: &[(usize, &'r Operation)]) -> Result<(), Failed> {
        let mut shaped = Vec::with_capacity(wave.len());
        let batch = self.batch;
        for (place, origin) in batch.origins.iter().enumerate() {
            let Writes::Table(table) = origin.writes else { continue };
            let table: &TableWrites = table;
            let of_origin = || wave.iter().filter(|(at, _)| *at == place).map(|(_, it)| *it);
            if E::RETURNS_ROWS {
                shaped.extend(of_origin().filter_map(|it| Some((table, Shape::of(it)?, it))));
            } else {
                shaped.extend(self.look(table, of_origin().collect()).await?);
            }
        }
        shaped.sort_by_key(|(_, _, operation)| operation.index);
        for group in groups(shaped) {
            let only = match group.operations.as_slice() {
                [one] => Some(one.index),
                _ => None,
            };
            let made = if E::RETURNS_ROWS {
                self.returning(&group).await
            } else {
                self.blind(&group).await
            };
            made.map_err(|failed| match only {
                Some(index) => failed.blame(index),
                None => failed,
            })?;
        }
        Ok(())
    }

    /// Looks at the rows whose presence or version decides, and holds them.
    /// Answers what is decided, and says of the others how they are written.
    async fn look(
        &mut self,
        table: &'r TableWrites,
        operations: Vec<&'r Operation>,
    ) -> Result<Vec<(&'r TableWrites, Shape, &'r Operation)>, Failed> {
        let needs_look = |operation: &&&Operation| {
            !matches!(Shape::of(operation), Some(Shape::Upsert(_)) | None)
        };
        let looked: Vec<&Operation> = operations.iter().filter(needs_look).copied().collect();
        let mut rows = self.rows(&table.look, &looked).await?.into_iter();
        let mut shaped = Vec::with_capacity(operations.len());
        for operation in operations {
            let Some(shape) = Shape::of(operation) else { continue };
            if matches!(shape, Shape::Upsert(_)) {
                shaped.push((table, shape, operation));
                continue;
            }
            let row = rows.next().flatten();
            match decide(table, operation, row.as_deref()) {
                Some(answer) => self.answers[operation.index] = Some(answer),
                // What is there is held: it is still there.
                None => shaped.push((
                    table,
                    match shape {
                        Shape::Replace(columns) => Shape::Upsert(columns),
                        shape => shape,
                    },
                    operation,
                )),
            }
        }
        Ok(shaped)
    }

    /// A group by a database that tells the rows that it wrote.
    async fn returning(&mut self, group: &Group<'r>) -> Result<(), Failed> {
        let read = self.read_of(group.table);
        let requests = requests(&group.operations);
        let mut sink = Sink::new(read, self.label, &requests);
        for bound in E::statements(group) {
            let running = self.engine.returning(self.connection, &bound, read, &mut sink);
            timed(self.timeout, running, self.label).await?;
        }
        let rows: Vec<Row> = present(sink);
        let mut missed = Vec::new();
        for (operation, row) in group.operations.iter().zip(rows) {
            match row {
                Some(row) => self.answer(group.table, operation, Some(row)),
                None => missed.push(*operation),
            }
        }
        self.missed(group.table, &missed).await
    }

    /// A group by a database that tells no more than how many rows it wrote.
    async fn blind(&mut self, group: &Group<'r>) -> Result<(), Failed> {
        let mut written = 0;
        for bound in E::statements(group) {
            let running = self.engine.execute(self.connection, &bound);
            written += timed(self.timeout, running, self.label).await?;
        }
        let expected = group.operations.len() as u64;
        if matches!(group.shape, Shape::Add(_)) && written < expected {
            let Some(operation) = group.operations.first() else { return Ok(()) };
            return Err(Failed::of_values(no_sum(group.table, operation)));
        }
        if group.shape == Shape::Delete {
            group.operations.iter().for_each(|it| self.answer(group.table, it, None));
            return Ok(());
        }
        let read = self.read_of(group.table);
        let rows = self.rows(read, &group.operations).await?;
        for (operation, row) in group.operations.iter().zip(rows) {
            if row.is_none() {
                return Err(Failed::of_values(other_spelling(group.table)).blame(operation.index));
            }
            self.answer(group.table, operation, row);
        }
        Ok(())
    }

    /// Why some writes found no row to write: what is there instead.
    async fn missed(
        &mut self,
        table: &'r TableWrites,
        operations: &[&'r Operation],
    ) -> Result<(), Failed> {
        let is_asked = |operation: &&&Operation| {
            let of_version = table.version.is_some() && operation.expected != Expected::Anything;
            of_version || matches!(operation.change, Change::Add(..))
        };
        let asked: Vec<&Operation> = operations.iter().filter(is_asked).copied().collect();
        let mut rows = self.rows(&table.probe, &asked).await?.into_iter();
        for operation in operations {
            let row = if is_asked(&operation) { rows.next().flatten() } else { None };
            let version = row.as_deref().and_then(|row| version_of(table, row));
            let answer = match (&operation.change, operation.expected) {
                (Change::Put(_), Expected::Anything) => {
                    return Err(Failed::of_values(other_spelling(table)).blame(operation.index));
                }
                (Change::Add(..), expected)
                    if row.is_some()
                        && (expected == Expected::Anything
                            || expected == Expected::Present
                            || version.map(Expected::Version) == Some(expected)) =>
                {
                    let failed = Failed::of_values(no_sum(table, operation));
                    return Err(failed.blame(operation.index));
                }
                (Change::Remove, Expected::Anything) => {
                    Written::Done { changed: false, now: Some(Value::Absent), version: None }
                }
                (_, Expected::Anything) => Written::Missing,
                _ => Written::Conflict { version },
            };
            self.answers[operation.index] = Some(answer);
        }
        Ok(())
    }

    /// A declared statement, and what the query says of the key afterwards.
    async fn declared(&mut self, place: usize, operation: &'r Operation) -> Result<(), Failed> {
        let origin = &self.batch.origins[place];
        let (Writes::Declared(declared), Change::Declared(which, arguments)) =
            (origin.writes, &operation.change)
        else {
            return Ok(());
        };
        let bound = declared.bound(*which, arguments);
        let running = self.engine.execute(self.connection, &bound);
        let written = timed(self.timeout, running, self.label).await?;
        let row = match origin.read.is_list() {
            true => None,
            false => self.rows(origin.read, &[operation]).await?.pop().flatten(),
        };
        let answer = declared.answer(*which, operation.expected, written, row, origin.read);
        self.answers[operation.index] = Some(answer.map_err(Failed::of_values)?);
        Ok(())
    }

    fn answer(&mut self, table: &TableWrites, operation: &Operation, row: Row) {
        let is_removal = matches!(operation.change, Change::Remove);
        let version = row.as_deref().filter(|_| !is_removal);
        let version = version.and_then(|row| version_of(table, row));
        let now = match row {
            Some(row) if !is_removal && !row.is_empty() => Some(Value::Present(row)),
            _ if is_removal => Some(Value::Absent),
            _ => None,
        };
        self.answers[operation.index] = Some(Written::Done { changed: true, now, version });
    }

    /// The plan that loads the rows of this table.
    fn read_of(&self, table: &TableWrites) -> &'r Plan {
        let is_its = |origin: &&super::transaction::BatchOrigin<'r>| matches!(origin.writes, Writes::Table(known) if std::ptr::eq(&**known, table));
        self.batch.origins.iter().find(is_its).map_or(&self.batch.origins[0], |it| it).read
    }

    /// The rows of these writes as this connection sees them.
    async fn rows(&mut self, plan: &Plan, operations: &[&Operation]) -> Result<Vec<Row>, Failed> {
        let mut rows = Vec::with_capacity(operations.len());
        for some in operations.chunks(plan.keys_max()) {
            let requests = requests(some);
            let mut sink = Sink::new(plan, self.label, &requests);
            let running = self.engine.run(self.connection, plan, &requests, &mut sink);
            timed(self.timeout, running, self.label).await?;
            rows.extend(present(sink));
        }
        Ok(rows)
    }
}

/// Runs a statement for as long as it may take.
pub(super) async fn timed<T>(
    timeout: Duration,
    running: impl Future<Output = sqlx::Result<T>>,
    label: &str,
) -> Result<T, Failed> {
    match tokio::time::timeout(timeout, running).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Failed::of_statement(error)),
        Err(_) => Err(Failed::of_time(label, timeout)),
    }
}

/// Whether the row that is there decides the write, and how.
fn decide(
    table: &TableWrites,
    operation: &Operation,
    row: Option<&[u8]>,
) -> Option<Written<Bytes>> {
    let Some(row) = row else {
        return match (&operation.change, operation.expected) {
            (Change::Put(_), Expected::Absent) => None,
            (Change::Remove, Expected::Anything) => {
                Some(Written::Done { changed: false, now: Some(Value::Absent), version: None })
            }
            (_, Expected::Anything) => Some(Written::Missing),
            _ => Some(Written::Conflict { version: None }),
        };
    };
    let version = version_of(table, row);
    let holds = match operation.expected {
        Expected::Absent => false,
        Expected::Version(expected) => version == Some(expected),
        _ => true,
    };
    (!holds).then_some(Written::Conflict { version })
}

fn version_of(table: &TableWrites, row: &[u8]) -> Option<Version> {
    whole_number(row, table.version_name()?).map(Version::new)
}

fn requests(operations: &[&Operation]) -> Vec<Request> {
    operations.iter().map(|operation| operation.request.clone()).collect()
}

/// The rows that the sink took; one that cannot be read counts as taken, and
/// has nothing to show.
fn present(sink: Sink<'_>) -> Vec<Row> {
    let row = |loaded: Result<larder_core::Loaded<Bytes>>| match loaded.map(|it| it.outcome) {
        Ok(Outcome::Found(Value::Present(row))) => Some(row),
        Ok(_) => None,
        Err(_) => Some(Bytes::new()),
    };
    sink.finish().into_iter().map(row).collect()
}

/// The database holds two keys for equal that differ in their spelling.
fn other_spelling(table: &TableWrites) -> Error {
    table
        .invalid("the database spells this key otherwise")
        .remedy("write the key as the row's JSON spells it; see how keys are spelled in the guide")
}

fn no_sum(table: &TableWrites, operation: &Operation) -> Error {
    let Change::Add(at, _) = operation.change else { return unanswered() };
    let misfit = Misfit::new(
        "it is null, no number, or the sum is out of its range",
        "put a number into the column first",
    );
    table.misfit(at, misfit)
}

fn unanswered() -> Error {
    Error::new(larder_core::ErrorKind::OriginFailed, "a write of the batch has no answer")
}

/// The version that a write expects, as a column counts it.
pub(crate) fn expected_number(expected: Expected) -> Option<i64> {
    match expected {
        Expected::Version(version) => version_number(version),
        _ => None,
    }
}
