use std::future::Future;
use std::pin::Pin;

use crate::{
    Action, BatchError, Error, ErrorKind, Expected, LaneMark, LoadContext, Loaded, Outcome, Result,
    Value, Version, Write, WriteAbilities, Written,
};

/// A boxed future that can be sent between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where the truth is: a database, a service, a file.
///
/// Implementers write plain `async fn`. Only [`Origin::load`] is required.
///
/// ```
/// use larder_core::{LoadContext, Loaded, Origin, Result};
///
/// struct Squares;
///
/// impl Origin<u64, u64> for Squares {
///     async fn load(&self, key: &u64, _: &LoadContext) -> Result<Loaded<u64>> {
///         Ok(Loaded::from(key.checked_mul(*key)))
///     }
/// }
/// ```
///
/// # Cancel safety
/// The engine drops a load whose hard timeout passed. An implementation must
/// leave nothing half done when a future of it is dropped.
pub trait Origin<K, V>: Send + Sync + 'static
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Reads one key. That the key has no value is [`Loaded::absent`], not an
    /// error. Errors: [`ErrorKind::Unavailable`] for what a later try may mend,
    /// [`ErrorKind::OriginFailed`] for what it will not.
    fn load(
        &self,
        key: &K,
        context: &LoadContext,
    ) -> impl Future<Output = Result<Loaded<V>>> + Send;

    /// Reads many keys, one answer for each key in the order asked. Called with
    /// at most [`Origin::batch_limit`] keys, so the default is only ever asked
    /// for one.
    fn load_many(
        &self,
        keys: &[K],
        context: &LoadContext,
    ) -> impl Future<Output = Vec<Result<Loaded<V>>>> + Send {
        async move {
            let mut answers = Vec::with_capacity(keys.len());
            for key in keys {
                answers.push(self.load(key, context).await);
            }
            answers
        }
    }

    /// How many keys [`Origin::load_many`] answers with one round trip. At 1,
    /// the default, the engine calls [`Origin::load`] for each key instead, side
    /// by side.
    fn batch_limit(&self) -> usize {
        1
    }

    /// Writes one key and returns the version it now has, if the origin numbers
    /// its versions.
    fn store(&self, key: &K, value: &V) -> impl Future<Output = Result<Option<Version>>> + Send {
        let _ = (key, value);
        async { Err(read_only()) }
    }

    /// Removes one key.
    fn remove(&self, key: &K) -> impl Future<Output = Result<()>> + Send {
        let _ = key;
        async { Err(read_only()) }
    }

    /// What [`Origin::write`] and [`Origin::write_all`] can do. The default says
    /// that there are no writes; an origin that implements [`Origin::store`] and
    /// [`Origin::remove`] says [`WriteAbilities::SIMPLE`].
    fn write_abilities(&self) -> WriteAbilities {
        WriteAbilities::NONE
    }

    /// Makes one change, committed when this returns. One round trip, or two with
    /// an expectation.
    ///
    /// The default makes unconditional puts and removals of [`Origin::store`] and
    /// [`Origin::remove`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] and [`ErrorKind::OriginFailed`]: it will never
    /// be taken. [`ErrorKind::OutcomeUnknown`]: it was sent and not answered.
    /// Anything else: it did not happen.
    ///
    /// # Cancel safety
    /// A write whose future is dropped may or may not have happened.
    fn write(&self, write: &Write<K, V>) -> impl Future<Output = Result<Written<V>>> + Send {
        async move {
            let abilities = self.write_abilities();
            let (changed, now) = (true, None);
            match (&write.action, write.expected) {
                (Action::Remove, _) if !abilities.remove => Err(read_only()),
                (Action::Put(_), _) if !abilities.put => Err(read_only()),
                _ if !(abilities.put || abilities.remove) => Err(read_only()),
                (Action::Put(value), Expected::Anything) => {
                    let version = self.store(&write.key, value).await?;
                    Ok(Written::Done { changed, now, version })
                }
                (Action::Remove, Expected::Anything) => {
                    self.remove(&write.key).await?;
                    Ok(Written::Done { changed, now, version: None })
                }
                _ => Err(Error::new(ErrorKind::Unsupported, "this origin only puts and removes")
                    .remedy("write whole values without conditions")),
            }
        }
    }

    /// Makes all these changes in one transaction, or none of them, and keeps the
    /// mark in the same transaction. Answers in the order of the writes; one that
    /// is a conflict or missing does not stop the others.
    ///
    /// An origin whose marks are of a later epoch refuses with
    /// [`ErrorKind::Conflict`]; one that has applied this mark already answers
    /// that nothing changed. Either way it is decided in the transaction, with the
    /// mark's row locked. The epoch of a mark is kept whenever it is later, also
    /// if nothing is to be written or all is applied already: an empty batch is
    /// how a new owner makes sure that nothing of an earlier one comes any more.
    ///
    /// # Errors
    /// As [`Origin::write`]; of the default, [`ErrorKind::Unsupported`] for more
    /// than one write and for marks.
    ///
    /// # Cancel safety
    /// As [`Origin::write`]: all of them or none.
    fn write_all(
        &self,
        writes: &[Write<K, V>],
        mark: Option<&LaneMark>,
    ) -> impl Future<Output = Result<Vec<Written<V>>, BatchError>> + Send {
        async move {
            match (writes, mark) {
                ([], None) => Ok(Vec::new()),
                ([write], None) => match self.write(write).await {
                    Ok(written) => Ok(vec![written]),
                    Err(error) => Err(BatchError { index: Some(0), error }),
                },
                _ => Err(no_transactions().into()),
            }
        }
    }

    /// How far a lane of a journal has been applied, by the origin's own record.
    fn applied(
        &self,
        journal: &str,
        lane: u16,
    ) -> impl Future<Output = Result<Option<LaneMark>>> + Send {
        let _ = (journal, lane);
        async { Err(no_transactions()) }
    }

    /// What [`Origin::load`] would say of this value, which a write of the key has just
    /// committed: its tags, for how long it holds, whether it is to be kept. The default
    /// says nothing of it; an origin whose loads say something says the same here, or
    /// what was written would be kept where no invalidation of a tag reaches it. Called
    /// for each write whose value is kept: asks nobody.
    fn committed(&self, key: &K, value: Value<V>) -> Loaded<V> {
        let _ = key;
        Loaded { outcome: Outcome::Found(value), ..Loaded::absent() }
    }

    /// The version of the key now, by a probe that is cheaper than a load.
    /// `None` if the origin has no such probe.
    fn validator(&self, key: &K) -> impl Future<Output = Result<Option<Version>>> + Send {
        let _ = key;
        async { Ok(None) }
    }
}

fn read_only() -> Error {
    Error::new(ErrorKind::Unsupported, "this origin does not take writes")
        .remedy("write to the database and invalidate the key, or implement Origin::store")
}

fn no_transactions() -> Error {
    Error::new(ErrorKind::Unsupported, "this origin has no transactions")
        .remedy("write one key at a time, or implement Origin::write_all")
}

/// [`Origin`] behind a pointer: the twin that the engine holds.
pub trait DynOrigin<K, V>: Send + Sync + 'static {
    /// [`Origin::load`].
    fn load<'a>(&'a self, key: &'a K, context: &'a LoadContext)
    -> BoxFuture<'a, Result<Loaded<V>>>;
    /// [`Origin::load_many`].
    fn load_many<'a>(
        &'a self,
        keys: &'a [K],
        context: &'a LoadContext,
    ) -> BoxFuture<'a, Vec<Result<Loaded<V>>>>;
    /// [`Origin::batch_limit`].
    fn batch_limit(&self) -> usize;
    /// [`Origin::store`].
    fn store<'a>(&'a self, key: &'a K, value: &'a V) -> BoxFuture<'a, Result<Option<Version>>>;
    /// [`Origin::remove`].
    fn remove<'a>(&'a self, key: &'a K) -> BoxFuture<'a, Result<()>>;
    /// [`Origin::write_abilities`].
    fn write_abilities(&self) -> WriteAbilities;
    /// [`Origin::write`].
    fn write<'a>(&'a self, write: &'a Write<K, V>) -> BoxFuture<'a, Result<Written<V>>>;
    /// [`Origin::write_all`].
    fn write_all<'a>(
        &'a self,
        writes: &'a [Write<K, V>],
        mark: Option<&'a LaneMark>,
    ) -> BoxFuture<'a, Result<Vec<Written<V>>, BatchError>>;
    /// [`Origin::applied`].
    fn applied<'a>(
        &'a self,
        journal: &'a str,
        lane: u16,
    ) -> BoxFuture<'a, Result<Option<LaneMark>>>;
    /// [`Origin::committed`].
    fn committed(&self, key: &K, value: Value<V>) -> Loaded<V>;
    /// [`Origin::validator`].
    fn validator<'a>(&'a self, key: &'a K) -> BoxFuture<'a, Result<Option<Version>>>;
}

impl<K, V, O> DynOrigin<K, V> for O
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
    O: Origin<K, V>,
{
    fn load<'a>(
        &'a self,
        key: &'a K,
        context: &'a LoadContext,
    ) -> BoxFuture<'a, Result<Loaded<V>>> {
        Box::pin(Origin::load(self, key, context))
    }

    fn load_many<'a>(
        &'a self,
        keys: &'a [K],
        context: &'a LoadContext,
    ) -> BoxFuture<'a, Vec<Result<Loaded<V>>>> {
        Box::pin(Origin::load_many(self, keys, context))
    }

    fn batch_limit(&self) -> usize {
        Origin::batch_limit(self)
    }

    fn store<'a>(&'a self, key: &'a K, value: &'a V) -> BoxFuture<'a, Result<Option<Version>>> {
        Box::pin(Origin::store(self, key, value))
    }

    fn remove<'a>(&'a self, key: &'a K) -> BoxFuture<'a, Result<()>> {
        Box::pin(Origin::remove(self, key))
    }

    fn write_abilities(&self) -> WriteAbilities {
        Origin::write_abilities(self)
    }

    fn write<'a>(&'a self, write: &'a Write<K, V>) -> BoxFuture<'a, Result<Written<V>>> {
        Box::pin(Origin::write(self, write))
    }

    fn write_all<'a>(
        &'a self,
        writes: &'a [Write<K, V>],
        mark: Option<&'a LaneMark>,
    ) -> BoxFuture<'a, Result<Vec<Written<V>>, BatchError>> {
        Box::pin(Origin::write_all(self, writes, mark))
    }

    fn applied<'a>(
        &'a self,
        journal: &'a str,
        lane: u16,
    ) -> BoxFuture<'a, Result<Option<LaneMark>>> {
        Box::pin(Origin::applied(self, journal, lane))
    }

    fn committed(&self, key: &K, value: Value<V>) -> Loaded<V> {
        Origin::committed(self, key, value)
    }

    fn validator<'a>(&'a self, key: &'a K) -> BoxFuture<'a, Result<Option<Version>>> {
        Box::pin(Origin::validator(self, key))
    }
}
