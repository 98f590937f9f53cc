use std::future::Future;
use std::pin::Pin;

use crate::{Error, ErrorKind, LoadContext, Loaded, Result, Version};

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

    fn validator<'a>(&'a self, key: &'a K) -> BoxFuture<'a, Result<Option<Version>>> {
        Box::pin(Origin::validator(self, key))
    }
}
