//! Calls whose options are set before they are awaited.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{Either, Ready, ready};
use larder_core::{
    BoxFuture, Error, ErrorKind, Expected, Result, Tag, Tags, Ttl, Version, Write, Written,
};

use crate::engine::{CacheKey, CacheValue, Engine};
use crate::hit::Hit;
use crate::pipeline::{PutTerms, Request, Source, WriteTerms};

/// A read that may load. Made by [`crate::Cache::get_or_load`] and
/// [`crate::Cache::get_or_load_with`].
#[must_use = "a call does nothing unless awaited"]
pub struct GetOrLoad<'c, K, V> {
    engine: &'c Arc<Engine<K, V>>,
    key: &'c K,
    source: Source<V>,
    request: Request,
}

impl<'c, K: CacheKey, V: CacheValue> GetOrLoad<'c, K, V> {
    /// How long the answer holds if this call loads it, where the loader says
    /// nothing else.
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.request.terms.ttl = Some(ttl.into());
        self
    }

    /// What invalidates the answer if this call loads it, beside what the loader
    /// and the cache's rule say.
    pub fn tags<T: Into<Tag>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.request.terms.tags = self.request.terms.tags.union(&Tags::new(tags));
        self
    }

    /// How long this caller waits at most, if less than the hard timeout. The
    /// load goes on.
    pub fn deadline(mut self, from_now: Duration) -> Self {
        self.request.deadline = Some(self.engine.clock.precise_now() + from_now);
        self
    }

    pub(crate) fn new(engine: &'c Arc<Engine<K, V>>, key: &'c K, source: Source<V>) -> Self {
        Self { engine, key, source, request: Request::default() }
    }
}

impl<'c, K: CacheKey, V: CacheValue> IntoFuture for GetOrLoad<'c, K, V> {
    type Output = Result<Hit<K, V>>;
    type IntoFuture = Loading<'c, K, V>;

    fn into_future(self) -> Loading<'c, K, V> {
        Loading(Step::Look(Some(self)))
    }
}

/// [`GetOrLoad`] under way. A hit in memory is answered by the first poll
/// without an allocation.
#[must_use = "a future does nothing unless awaited"]
pub struct Loading<'c, K, V>(Step<'c, K, V>);

enum Step<'c, K, V> {
    Look(Option<GetOrLoad<'c, K, V>>),
    Load(BoxFuture<'c, Result<Hit<K, V>>>),
}

// The boxed future is pinned by its box; the rest is never pinned.
impl<K, V> Unpin for Loading<'_, K, V> {}

impl<K: CacheKey, V: CacheValue> Future for Loading<'_, K, V> {
    type Output = Result<Hit<K, V>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Looks before anything is moved: a hit touches no more than it needs.
        if let Step::Look(Some(call)) = &self.0
            && let Some(hit) = call.engine.look(call.key)
        {
            return Poll::Ready(Ok(hit));
        }
        self.load(cx)
    }
}

impl<K: CacheKey, V: CacheValue> Loading<'_, K, V> {
    #[cold]
    #[inline(never)]
    fn load(&mut self, cx: &mut Context<'_>) -> Poll<Result<Hit<K, V>>> {
        if let Step::Look(call) = &mut self.0 {
            let GetOrLoad { engine, key, source, request } =
                call.take().expect("the call is taken once, by the first poll");
            self.0 = Step::Load(Box::pin(engine.load(key, request, source)));
        }
        match &mut self.0 {
            Step::Load(loading) => loading.as_mut().poll(cx),
            Step::Look(_) => unreachable!("it went on to load"),
        }
    }
}

type Found<K, V> = Result<Option<Hit<K, V>>>;

/// A look at the tiers. Made by [`crate::Cache::get`]. A hit in memory is
/// answered by the first poll without an allocation.
#[must_use = "a future does nothing unless awaited"]
pub struct Get<'c, K, V> {
    engine: &'c Arc<Engine<K, V>>,
    key: &'c K,
    /// Once memory has been found not to have it.
    below: Option<BoxFuture<'c, Found<K, V>>>,
}

impl<'c, K: CacheKey, V: CacheValue> Get<'c, K, V> {
    #[inline]
    pub(crate) fn new(engine: &'c Arc<Engine<K, V>>, key: &'c K) -> Self {
        Self { engine, key, below: None }
    }

    #[cold]
    #[inline(never)]
    fn find(&mut self, cx: &mut Context<'_>) -> Poll<Found<K, V>> {
        if self.below.is_none() && self.engine.lower.is_none() {
            return Poll::Ready(Ok(self.engine.missed()));
        }
        let (engine, key) = (self.engine, self.key);
        self.below.get_or_insert_with(|| Box::pin(engine.find(key))).as_mut().poll(cx)
    }
}

// The boxed future is pinned by its box; the rest is never pinned.
impl<K, V> Unpin for Get<'_, K, V> {}

impl<K: CacheKey, V: CacheValue> Future for Get<'_, K, V> {
    type Output = Found<K, V>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.below.is_none()
            && let Some(hit) = self.engine.look(self.key)
        {
            return Poll::Ready(Ok(Some(hit)));
        }
        self.find(cx)
    }
}

/// A write of one value. Made by [`crate::Cache::put`].
#[must_use = "a call does nothing unless awaited"]
pub struct Put<'c, K, V> {
    engine: &'c Arc<Engine<K, V>>,
    key: &'c K,
    value: V,
    terms: PutTerms,
}

impl<'c, K: CacheKey, V: CacheValue> Put<'c, K, V> {
    /// How long the value holds.
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.terms.ttl = Some(ttl.into());
        self
    }

    /// What invalidates the value, beside what the cache's rule says.
    pub fn tags<T: Into<Tag>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.terms.tags = self.terms.tags.union(&Tags::new(tags));
        self
    }

    /// From which entries of other caches it was computed, as
    /// [`larder_core::Loaded::derived_from`] says.
    pub fn derived_from<T: Into<Tag>>(mut self, sources: impl IntoIterator<Item = T>) -> Self {
        self.terms.sources = Tags::new(sources);
        self
    }

    pub(crate) fn new(engine: &'c Arc<Engine<K, V>>, key: &'c K, value: V) -> Self {
        Self { engine, key, value, terms: PutTerms::default() }
    }
}

impl<'c, K: CacheKey, V: CacheValue> IntoFuture for Put<'c, K, V> {
    type Output = Result<Version>;
    /// Where there are neither stores nor other nodes, nothing is waited for or allocated.
    type IntoFuture = Either<Ready<Result<Version>>, BoxFuture<'c, Result<Version>>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { engine, key, value, terms } = self;
        if engine.lower.is_none() && engine.seat.is_none() && engine.dependence.is_none() {
            let put = engine.put_in_memory(key, value, &terms, None);
            return Either::Left(ready(put.map(|(version, _)| version)));
        }
        Either::Right(Box::pin(async move { engine.put(key, value, &terms).await }))
    }
}

/// A write to the origin. Made by [`crate::Cache::write`].
#[must_use = "a call does nothing unless awaited"]
pub struct WriteThrough<'c, K, V> {
    engine: &'c Arc<Engine<K, V>>,
    write: Write<K, V>,
    terms: WriteTerms,
}

impl<'c, K: CacheKey, V: CacheValue> WriteThrough<'c, K, V> {
    /// What must be there for it to happen; anything, unless this is said.
    pub fn expecting(mut self, expected: Expected) -> Self {
        self.write.expected = expected;
        self
    }

    /// How long the value holds in the cache.
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.terms.terms.ttl = Some(ttl.into());
        self
    }

    /// What invalidates the value, beside what the cache's rule says.
    pub fn tags<T: Into<Tag>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.terms.terms.tags = self.terms.terms.tags.union(&Tags::new(tags));
        self
    }

    /// Keeps nothing of it: the next read loads it (P6).
    pub fn around(mut self) -> Self {
        self.terms.around = true;
        self
    }

    pub(crate) fn new(engine: &'c Arc<Engine<K, V>>, write: Write<K, V>) -> Self {
        Self { engine, write, terms: WriteTerms::default() }
    }
}

impl<'c, K: CacheKey, V: CacheValue> IntoFuture for WriteThrough<'c, K, V> {
    type Output = Result<Written<V>>;
    type IntoFuture = BoxFuture<'c, Result<Written<V>>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { engine, write, terms } = self;
        Box::pin(async move {
            let written = engine.write(vec![write], terms).await;
            let mut written = written.map_err(|failed| failed.error)?;
            written.pop().ok_or_else(|| {
                Error::new(ErrorKind::OutcomeUnknown, "a write of one key has no answer")
            })
        })
    }
}
