//! What a change of one cache does to those that depend on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_core::{
    BoxFuture, Error, ErrorKind, Key, Mark, Result, Tag, Tags, Value, Verb, Version,
};

use crate::dependencies::{Dependence, Dependent, Following, Touched};
use crate::engine::{CacheKey, CacheValue, Engine};

impl<K: CacheKey, V: CacheValue> Engine<K, V> {
    /// Hears what caches do that this one depends on.
    pub(crate) fn attend_dependencies(self: &Arc<Self>) {
        let Some(dependence) = &self.dependence else { return };
        let member: Arc<dyn Dependent> = Arc::clone(self) as _;
        dependence.group().join(dependence.node(), Arc::downgrade(&member));
    }

    /// Whether anything in this cache is computed from others.
    pub(super) fn is_dependent(&self) -> bool {
        self.dependence.as_ref().is_some_and(Dependence::is_dependent)
    }

    /// What a change of keys is to touch, here and in the stores; other nodes see to
    /// that themselves when they hear of the change. To be begun before anything is
    /// waited for, and finished once the change is done.
    pub(super) fn follow_keys<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k K, IntoIter: Clone>,
        verb: Verb,
    ) -> Option<Following> {
        self.dependence.as_ref()?.of_keys(keys, verb)
    }

    /// The same of a tag, or of everything.
    pub(super) fn follow_mark(&self, tag: Option<&Tag>, verb: Verb) -> Option<Following> {
        self.dependence.as_ref()?.of_mark(tag, verb)
    }

    /// Touches what is to be touched by a change that has this version in a fleet. One
    /// that could not be announced has a number that another change may get.
    pub(super) async fn finish(
        &self,
        following: Option<Following>,
        version: Version,
        is_announced: bool,
    ) {
        if let Some(following) = following {
            let version = self.seat.is_some().then_some(version);
            Box::pin(following.finish(version, is_announced)).await;
        }
    }

    /// The tags by which an answer is invalidated with what it was computed from.
    ///
    /// # Errors
    /// It cannot be told what would invalidate it.
    pub(super) fn dependency_tags(
        &self,
        key: &K,
        value: &Value<V>,
        sources: &Tags,
    ) -> Result<Tags> {
        match &self.dependence {
            Some(dependence) => dependence.tags(key, value.as_option(), sources),
            None if sources.is_empty() => Ok(Tags::NONE),
            None => Err(Error::new(
                ErrorKind::Config,
                "an answer was derived from others, and the cache has no dependencies",
            )
            .remedy("join it with CacheBuilder::dependencies")),
        }
    }

    /// Warns once: what is never kept is loaded often.
    pub(super) fn warn_of_sources(&self, error: &Error) {
        static HAS_WARNED: AtomicBool = AtomicBool::new(false);
        let cache = &self.name;
        if HAS_WARNED.swap(true, Ordering::Relaxed) {
            tracing::debug!(cache, %error, "an answer is not kept");
        } else {
            tracing::warn!(cache, %error, "an answer is not kept: nothing would invalidate it");
        }
    }

    fn touch_keys(self: &Arc<Self>, keys: &[String], verb: Verb, version: Option<Version>) {
        let keys: Vec<Key> = keys.iter().map(Key::new).collect();
        self.note_keys(&keys, verb, version.unwrap_or_else(|| self.memory.versions().next()));
        let decode =
            self.dependence.as_ref().map(|dependence: &Dependence<K, V>| dependence.decode);
        for key in decode.iter().flat_map(|decode| keys.iter().filter_map(decode)) {
            match (version, verb) {
                // What began with the number of the change may have read what was
                // there before: a key can be fenced, whatever it began with.
                (Some(version), _) => self.invalidate_older(&key, verb, version.above()),
                (None, Verb::Expire) => drop(self.expire_in_memory(&key)),
                (None, Verb::Remove) => drop(self.remove_in_memory(&key)),
            }
        }
    }

    fn touch_marks(self: &Arc<Self>, tags: Vec<Option<Tag>>, verb: Verb, version: Option<Version>) {
        let version = version.unwrap_or_else(|| self.memory.versions().next());
        let marks: Vec<_> = tags.into_iter().map(|tag| Mark { tag, verb, version }).collect();
        for tier in self.lower.iter().flat_map(|lower| lower.tiers_to_tell(false)) {
            tier.mark_later(&marks);
        }
        marks.iter().for_each(|mark| self.raise_in_memory(mark));
    }

    /// Hides what the stores have before memory gives it up: nobody announces it to
    /// them.
    fn note_keys(&self, keys: &[Key], verb: Verb, version: Version) {
        for tier in self.lower.iter().flat_map(|lower| lower.tiers_to_tell(false)) {
            tier.invalidate_later(keys, version, verb);
        }
    }
}

impl<K: CacheKey, V: CacheValue> Dependent for Engine<K, V> {
    fn prepare(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.meet_stores().await })
    }

    fn touch(self: Arc<Self>, touched: &Touched, verb: Verb, version: Option<Version>) {
        match touched {
            Touched::All => self.touch_marks(vec![None], verb, version),
            Touched::Some { keys, tags } => {
                if !keys.is_empty() {
                    self.touch_keys(keys, verb, version);
                }
                if !tags.is_empty() {
                    self.touch_marks(tags.iter().cloned().map(Some).collect(), verb, version);
                }
            }
        }
    }

    fn settle(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.catch_stores_up().await })
    }

    fn settle_later(self: Arc<Self>) {
        if self.lower.is_some() {
            let engine = Arc::clone(&self);
            self.runtime.spawn(async move { engine.catch_stores_up().await });
        }
    }
}
