use std::time::Duration;

use bytes::Bytes;
use larder_core::{BatchError, Error, ErrorKind, Expected, LaneMark, Result, Written};

use super::apply::{Run, timed};
use super::failure::{Cause, Class, Failed, class, of_write};
use super::lanes::{self, Fence, Mark};
use super::{Change, Operation, Writes, lanes_table};
use crate::engine::{Engine, Pools};
use crate::plan::Plan;
use crate::pool::Lease;

/// Writes that happen together.
pub(crate) struct Batch<'b> {
    pub(crate) origins: Vec<BatchOrigin<'b>>,
    /// Each with the place of its origin.
    pub(crate) operations: Vec<(usize, Operation)>,
    pub(crate) mark: Option<&'b LaneMark>,
}

/// An origin that a batch writes to.
#[derive(Clone, Copy)]
pub(crate) struct BatchOrigin<'b> {
    pub(crate) writes: &'b Writes,
    pub(crate) read: &'b Plan,
}

/// How often a transaction is tried that others were in the way of.
const TRIES_MAX: u32 = 8;
/// Before the second try at most; it doubles, and each pause is a random part of
/// it: together some 2.5 s.
const PAUSE: Duration = Duration::from_millis(20);
/// A connection that was idle for longer is asked whether it is still there
/// before it is given a statement that commits by itself.
const IDLE_TRUSTED: Duration = Duration::from_millis(500);

impl<E: Engine> Pools<E> {
    /// Makes all writes of a batch in one transaction.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection: the transaction is rolled
    /// back, unless its commit was sent.
    pub(crate) async fn write(&self, batch: &Batch<'_>) -> Result<Vec<Written<Bytes>>, BatchError> {
        let mark = batch.mark.map(Mark::new).transpose()?;
        if batch.operations.is_empty() && mark.is_none() {
            return Ok(Vec::new());
        }
        let is_single = mark.is_none() && is_by_itself::<E>(batch);
        let mut is_grouped = true;
        let mut tries = 1;
        loop {
            let tried = if is_single {
                self.by_itself(batch).await
            } else {
                self.together(batch, mark.as_ref(), is_grouped).await
            };
            let failed = match tried {
                Ok(written) => return Ok(written),
                Err(Ended::Surely(failed)) => failed,
                Err(Ended::Unknown(error)) => {
                    return Err(BatchError { index: only(batch), error });
                }
            };
            match failed.class(E::DIALECT) {
                Class::Again if tries < TRIES_MAX => {
                    pause(tries).await;
                    tries += 1;
                }
                Class::NoTable if mark.is_some() && tries < TRIES_MAX && names_lanes(&failed) => {
                    self.make_lanes().await?;
                    tries += 1;
                }
                // Somebody may have put what was not there a moment ago.
                Class::Values if tries == 1 && expects_absence(batch) => tries += 1,
                // In the order given, with a statement for each: that may mend
                // it, and else it tells which of them is to blame.
                Class::Values if is_grouped && failed.index.is_none() && !is_single => {
                    is_grouped = false;
                }
                _ => {
                    let index = failed.index.or_else(|| only(batch));
                    let error = failed.into_error(E::DIALECT, self.writing().label());
                    return Err(BatchError { index, error: self.with_tries(error, tries) });
                }
            }
        }
    }

    /// What the table of lanes says; `None` if there is no such table yet.
    pub(crate) async fn applied(&self, journal: &str, lane: u16) -> Result<Option<LaneMark>> {
        let select = lanes::select(E::DIALECT, journal, lane.into(), false);
        let label = self.primary.label();
        loop {
            let mut lease = self.primary.acquire().await?;
            let (engine, connection) = lease.parts();
            let running = engine.numbers(connection, &select);
            match timed(self.patience(), running, label).await {
                Ok(known) => {
                    lease.release();
                    return Ok(lanes::mark_of(journal, lane, known));
                }
                Err(failed) => {
                    let class = failed.class(E::DIALECT);
                    if class == Class::Lost && lease.is_reused() {
                        continue;
                    }
                    if failed.is_sound(E::DIALECT) {
                        lease.release();
                    }
                    if class == Class::NoTable {
                        return Ok(None);
                    }
                    return Err(failed.into_error(E::DIALECT, label));
                }
            }
        }
    }

    /// How long after an unknown outcome a write may still commit.
    pub(crate) fn settled_after(&self) -> Duration {
        // A transaction that nobody goes on with ends after one timeout; a
        // commit or a statement that has begun ends after another.
        self.statement_timeout() * 2 + Duration::from_secs(1)
    }

    /// Several writes, or one that takes several statements.
    async fn together(
        &self,
        batch: &Batch<'_>,
        mark: Option<&Mark>,
        is_grouped: bool,
    ) -> Result<Vec<Written<Bytes>>, Ended> {
        let mut lease = self.begun().await?;
        match self.inside(&mut lease, batch, mark, is_grouped).await {
            Ok(written) => {
                self.commit(lease).await?;
                Ok(written)
            }
            Err(failed) => {
                self.rollback(lease, failed.is_sound(E::DIALECT)).await;
                Err(Ended::Surely(failed))
            }
        }
    }

    async fn inside(
        &self,
        lease: &mut Lease<E>,
        batch: &Batch<'_>,
        mark: Option<&Mark>,
        is_grouped: bool,
    ) -> Result<Vec<Written<Bytes>>, Failed> {
        let label = self.writing().label();
        let (engine, connection) = lease.parts();
        if let Some(mark) = mark {
            let fence = lanes::keep(engine, connection, mark, self.patience(), label).await?;
            if fence == Fence::Skip {
                let skipped = |_| Written::Done { changed: false, now: None, version: None };
                return Ok(batch.operations.iter().map(skipped).collect());
            }
        }
        Run::new(engine, connection, batch, label, self.patience()).all(is_grouped).await
    }

    /// A connection in a transaction. One that had been idle and is closed is
    /// replaced: nothing was sent on it that matters.
    async fn begun(&self) -> Result<Lease<E>, Ended> {
        loop {
            let mut lease = self.writing().acquire().await.map_err(Ended::here)?;
            let (engine, connection) = lease.parts();
            let running = engine.execute_plain(connection, E::BEGIN);
            match timed(self.patience(), running, self.writing().label()).await {
                Ok(()) => return Ok(lease),
                Err(failed)
                    if lease.is_reused()
                        && failed.class(E::DIALECT) == Class::Lost
                        && !matches!(failed.cause, Cause::Silence(_)) => {}
                Err(failed) => return Err(Ended::Surely(failed)),
            }
        }
    }

    /// Commits. From here on silence is no answer.
    async fn commit(&self, mut lease: Lease<E>) -> Result<(), Ended> {
        let (engine, connection) = lease.parts();
        let running = engine.execute_plain(connection, "COMMIT");
        match timed(self.patience(), running, self.writing().label()).await {
            Ok(()) => {
                lease.release();
                Ok(())
            }
            Err(failed) => {
                if let Some(unknown) = self.unknown(&failed) {
                    return Err(Ended::Unknown(unknown));
                }
                self.rollback(lease, failed.is_sound(E::DIALECT)).await;
                Err(Ended::Surely(failed))
            }
        }
    }

    /// A single write whose one statement commits by itself.
    async fn by_itself(&self, batch: &Batch<'_>) -> Result<Vec<Written<Bytes>>, Ended> {
        let mut lease = loop {
            let mut lease = self.writing().acquire().await.map_err(Ended::here)?;
            if lease.idle_for() < IDLE_TRUSTED {
                break lease;
            }
            let (engine, connection) = lease.parts();
            let running = engine.ping(connection);
            if timed(self.patience(), running, self.writing().label()).await.is_ok() {
                break lease;
            }
        };
        let label = self.writing().label();
        let (engine, connection) = lease.parts();
        let run = Run::new(engine, connection, batch, label, self.patience());
        match run.all(true).await {
            Ok(written) => {
                lease.release();
                Ok(written)
            }
            Err(failed) => match self.unknown(&failed) {
                Some(unknown) => Err(Ended::Unknown(unknown)),
                None => {
                    if failed.is_sound(E::DIALECT) {
                        lease.release();
                    }
                    Err(Ended::Surely(failed))
                }
            },
        }
    }

    /// The error of a commit that was sent and not answered; `None` if the
    /// database said that it did not happen.
    fn unknown(&self, failed: &Failed) -> Option<Error> {
        let reason = match &failed.cause {
            Cause::Statement(error) if is_answer(E::DIALECT, error) => return None,
            Cause::Statement(error) => of_write(E::DIALECT, self.writing().label(), error),
            Cause::Silence(error) => error.clone(),
            Cause::Value(_) | Cause::Race(_) | Cause::Here(_) => return None,
        };
        Some(
            Error::new(ErrorKind::OutcomeUnknown, "the database did not say whether it committed")
                .with("database", self.writing().label())
                .with("settled after", format!("{:?}", self.settled_after()))
                .caused_by(reason)
                .remedy("read the rows when that time has passed, before writing again"),
        )
    }

    /// Ends the transaction; a connection that cannot even do that is closed,
    /// which ends it too.
    async fn rollback(&self, mut lease: Lease<E>, is_sound: bool) {
        if !is_sound {
            return;
        }
        let (engine, connection) = lease.parts();
        let running = engine.execute_plain(connection, "ROLLBACK");
        if timed(self.patience(), running, self.writing().label()).await.is_ok() {
            lease.release();
        }
    }

    /// Makes the table of lanes.
    async fn make_lanes(&self) -> Result<()> {
        let ddl = lanes_table(E::DIALECT);
        let label = self.writing().label();
        let refused = |reason: Option<Error>| {
            let error = Error::new(ErrorKind::Config, "the table larder_lanes is not there")
                .with("database", label)
                .remedy(format!("make it: {ddl}"));
            match reason {
                Some(reason) => error.caused_by(reason),
                None => error,
            }
        };
        if !self.makes_lanes() {
            return Err(refused(None));
        }
        let mut lease = self.writing().acquire().await?;
        let (engine, connection) = lease.parts();
        match timed(self.patience(), engine.execute_plain(connection, ddl), label).await {
            Ok(()) => {
                lease.release();
                Ok(())
            }
            // Two that make it at once can be in each other's way.
            Err(failed) => match failed.class(E::DIALECT) {
                Class::Values | Class::Again => Ok(()),
                _ => Err(refused(Some(failed.into_error(E::DIALECT, label)))),
            },
        }
    }

    fn with_tries(&self, error: Error, tries: u32) -> Error {
        if tries > 1 { error.with("tries", tries) } else { error }
    }

    /// How long a statement is waited for: the server ends it before.
    fn patience(&self) -> Duration {
        self.statement_timeout() + crate::engine::GRACE
    }
}

/// How a try ended that did not succeed.
enum Ended {
    /// Nothing was committed.
    Surely(Failed),
    Unknown(Error),
}

impl Ended {
    fn here(error: Error) -> Self {
        Self::Surely(Failed::of_larder(error))
    }
}

/// Whether an error is the server's word that the statement did not happen. One
/// that ends the connection may come after the commit.
fn is_answer(dialect: crate::Dialect, error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(database) = error else { return false };
    // Ended because nobody went on with it.
    let is_idle_timeout = database.code().as_deref() == Some("25P03");
    is_idle_timeout || class(dialect, error) != Class::Lost
}

/// Whether the batch is one write that is one statement: then it needs no
/// transaction around it.
fn is_by_itself<E: Engine>(batch: &Batch<'_>) -> bool {
    let ([(origin, operation)], true) = (batch.operations.as_slice(), E::RETURNS_ROWS) else {
        return false;
    };
    let Writes::Table(table) = batch.origins[*origin].writes else { return false };
    table.is_exact || !matches!(operation.change, Change::Put(_))
}

fn expects_absence(batch: &Batch<'_>) -> bool {
    batch.operations.iter().any(|(_, operation)| operation.expected == Expected::Absent)
}

fn only(batch: &Batch<'_>) -> Option<usize> {
    match batch.operations.as_slice() {
        [(_, one)] => Some(one.index),
        _ => None,
    }
}

fn names_lanes(failed: &Failed) -> bool {
    matches!(&failed.cause, Cause::Statement(sqlx::Error::Database(error))
        if error.message().contains("larder_lanes"))
}

async fn pause(tries: u32) {
    let most = PAUSE * 2_u32.saturating_pow(tries - 1);
    tokio::time::sleep(most.mul_f64(fastrand::f64())).await;
}
