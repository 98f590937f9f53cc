//! One call of an origin, and what its answer means.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use larder_core::{BatchError, Error, ErrorKind, LaneMark, Result, Written};

use super::fold::Batch;
use super::shared::Shared;
use super::strand::Strand;

/// Why a batch was not applied.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Another owner has the lane: nothing was or will be done.
    Fenced(Error),
    /// It may have happened, and may yet.
    Unknown(Error),
    /// It did not happen and may later.
    Later(Error),
    /// It will never happen. Which write is to blame, if that is known.
    Never(Option<usize>, Error),
}

/// Gives a batch to the origin.
pub(super) async fn write(
    shared: &Shared,
    strand: &Strand,
    batch: &Batch,
    mark: Option<&LaneMark>,
) -> Result<Vec<Written<Bytes>>, Refusal> {
    let call = strand.origin.write_all(&batch.writes, mark);
    let answer = within(shared, call, |error| BatchError { index: None, error }).await;
    answer.map_err(|BatchError { index, error }| {
        let index = index.filter(|index| *index < batch.writes.len());
        match error.kind() {
            ErrorKind::Conflict if mark.is_some() => Refusal::Fenced(error),
            ErrorKind::OutcomeUnknown | ErrorKind::Timeout | ErrorKind::Panicked => {
                Refusal::Unknown(error)
            }
            ErrorKind::InvalidInput
            | ErrorKind::OriginFailed
            | ErrorKind::Unsupported
            | ErrorKind::Decode
            | ErrorKind::Conflict => Refusal::Never(index, error),
            _ => Refusal::Later(error),
        }
    })
}

/// What the origin has of a strand, once no earlier owner can change it any more:
/// a mark of this epoch is there, so that every call of an earlier one that is
/// still on its way will be refused.
pub(super) async fn settle(shared: &Shared, strand: &Strand, epoch: u64) -> Result<u64, Refusal> {
    let before = applied(shared, strand).await?;
    if let Some(mark) = &before
        && mark.epoch > epoch
    {
        return Err(Refusal::Fenced(fenced(strand, epoch, mark.epoch)));
    }
    let held = before.map_or(0, |mark| mark.applied.0);
    let mark = strand.mark(epoch, held);
    match write(shared, strand, &Batch::default(), Some(&mark)).await {
        Ok(_) => {}
        Err(Refusal::Never(_, error) | Refusal::Unknown(error)) => {
            return Err(Refusal::Later(error));
        }
        Err(refusal) => return Err(refusal),
    }
    match applied(shared, strand).await? {
        Some(mark) if mark.epoch == epoch => Ok(mark.applied.0),
        Some(mark) if mark.epoch > epoch => Err(Refusal::Fenced(fenced(strand, epoch, mark.epoch))),
        _ => Err(Refusal::Fenced(
            Error::new(ErrorKind::Unsupported, "the origin does not keep the epoch of a mark")
                .with("cache", &strand.cache)
                .with("lane", strand.lane)
                .remedy("keep the mark of an empty batch, too; or say that it keeps no marks"),
        )),
    }
}

/// Whether the key is there, for a write of which only that is unknown.
pub(super) async fn is_there(
    shared: &Shared,
    strand: &Strand,
    key: &larder_core::Key,
) -> Result<bool, Refusal> {
    use larder_core::{LoadCause, LoadContext, Outcome, Value};

    let deadline = shared.clock.now() + shared.options.attempt_timeout;
    let context = LoadContext::new(LoadCause::Miss, deadline);
    let loaded = within(shared, strand.origin.load(key, &context), |error| error).await;
    let loaded = loaded.map_err(Refusal::Later)?;
    Ok(matches!(loaded.outcome, Outcome::Found(Value::Present(_))))
}

async fn applied(shared: &Shared, strand: &Strand) -> Result<Option<LaneMark>, Refusal> {
    let call = strand.origin.applied(&strand.mark_name, strand.lane);
    within(shared, call, |error| error).await.map_err(Refusal::Later)
}

fn fenced(strand: &Strand, epoch: u64, other: u64) -> Error {
    Error::new(ErrorKind::Conflict, "another owner has the lane: the origin has a later epoch")
        .with("cache", &strand.cache)
        .with("lane", strand.lane)
        .with("epoch", epoch)
        .with("epoch at the origin", other)
        .remedy(
            "let the other owner apply what is in the journal; \
             if this is a copy of an old journal, begin with an empty one",
        )
}

/// Ends a call that takes too long, or panics.
async fn within<T, E>(
    shared: &Shared,
    call: impl Future<Output = Result<T, E>>,
    failed: impl Fn(Error) -> E,
) -> Result<T, E> {
    let call = pin!(AssertUnwindSafe(call).catch_unwind());
    let at = shared.clock.precise_now() + shared.options.attempt_timeout;
    let late = pin!(shared.runtime.sleep_until(&shared.clock, at));
    match select(call, late).await {
        Either::Left((Ok(answer), _)) => answer,
        Either::Left((Err(_), _)) => {
            Err(failed(Error::new(ErrorKind::Panicked, "the origin panicked in a write")))
        }
        Either::Right(((), _)) => Err(failed(
            Error::new(ErrorKind::Timeout, "the origin did not answer a write in time")
                .with("attempt_timeout", format_args!("{:?}", shared.options.attempt_timeout)),
        )),
    }
}
