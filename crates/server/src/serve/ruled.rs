//! An origin whose answers carry the tags and the TTL that the rules of their
//! cache give them.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use larder_core::{
    BatchError, Key, LaneMark, LoadContext, Loaded, Origin, Outcome, Result, Value, Version, Write,
    WriteAbilities, Written,
};

use super::rows::RowRules;

/// An origin under the rules of one cache.
#[derive(Debug)]
pub(super) struct RuledOrigin<O> {
    origin: O,
    rules: RowRules,
    cache: String,
    has_warned: AtomicBool,
}

impl<O> RuledOrigin<O> {
    /// The origin of this cache under its rules.
    pub(super) fn new(origin: O, rules: RowRules, cache: &str) -> Self {
        Self { origin, rules, cache: cache.to_owned(), has_warned: AtomicBool::new(false) }
    }

    /// The answer with its tags and its TTL. One whose tags cannot be told is
    /// given to whoever waits and not kept: no invalidation would reach it.
    fn ruled(&self, key: &Key, mut loaded: Loaded<Bytes>) -> Loaded<Bytes> {
        let Outcome::Found(value) = &loaded.outcome else { return loaded };
        match self.rules.read(key, value.as_option().map(|text| text.as_ref())) {
            Ok(said) => {
                loaded.tags = loaded.tags.union(&said.tags);
                loaded.ttl = loaded.ttl.or(said.ttl);
            }
            Err(reason) => {
                self.warn(key, &reason);
                loaded.outcome = Outcome::DontCache(value.clone());
            }
        }
        loaded
    }

    /// Warns once for each cache: a row that is never kept is loaded often.
    fn warn(&self, key: &Key, reason: &str) {
        let cache = &self.cache;
        if self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::debug!("the tags of {key} cannot be told: {reason}");
        } else {
            tracing::warn!(
                "an answer of the cache `{cache}` is not kept, because its tags cannot be told: \
                 {reason} (key: {key}); leave the column out of `tags` and `ttl_by_age`, or mend \
                 the row"
            );
        }
    }
}

impl<O: Origin<Key, Bytes>> Origin<Key, Bytes> for RuledOrigin<O> {
    async fn load(&self, key: &Key, context: &LoadContext) -> Result<Loaded<Bytes>> {
        Ok(self.ruled(key, self.origin.load(key, context).await?))
    }

    async fn load_many(&self, keys: &[Key], context: &LoadContext) -> Vec<Result<Loaded<Bytes>>> {
        let answers = self.origin.load_many(keys, context).await;
        let ruled = |(key, answer): (&Key, Result<_>)| answer.map(|loaded| self.ruled(key, loaded));
        keys.iter().zip(answers).map(ruled).collect()
    }

    fn batch_limit(&self) -> usize {
        self.origin.batch_limit()
    }

    async fn store(&self, key: &Key, value: &Bytes) -> Result<Option<Version>> {
        self.origin.store(key, value).await
    }

    async fn remove(&self, key: &Key) -> Result<()> {
        self.origin.remove(key).await
    }

    fn write_abilities(&self) -> WriteAbilities {
        self.origin.write_abilities()
    }

    async fn write(&self, write: &Write<Key, Bytes>) -> Result<Written<Bytes>> {
        self.origin.write(write).await
    }

    async fn write_all(
        &self,
        writes: &[Write<Key, Bytes>],
        mark: Option<&LaneMark>,
    ) -> Result<Vec<Written<Bytes>>, BatchError> {
        self.origin.write_all(writes, mark).await
    }

    async fn applied(&self, journal: &str, lane: u16) -> Result<Option<LaneMark>> {
        self.origin.applied(journal, lane).await
    }

    fn committed(&self, key: &Key, value: Value<Bytes>) -> Loaded<Bytes> {
        self.ruled(key, self.origin.committed(key, value))
    }

    async fn validator(&self, key: &Key) -> Result<Option<Version>> {
        self.origin.validator(key).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use larder::{Cache, Policy};
    use larder_core::Ttl;

    use super::*;

    /// A row that is the text of its key behind the colon.
    struct Echo;

    impl Origin<Key, Bytes> for Echo {
        async fn load(&self, key: &Key, _: &LoadContext) -> Result<Loaded<Bytes>> {
            Ok(Loaded::value(Bytes::copy_from_slice(&key.as_bytes()[2..])))
        }
    }

    #[tokio::test]
    async fn what_cannot_be_tagged_is_answered_and_not_kept() {
        let options = toml::from_str("tags = ['of:{a}']").expect("options");
        let rules = RowRules::new("k:{id}".parse().expect("a pattern"), &options, Vec::new());
        let origin = RuledOrigin::new(Echo, rules.expect("there are some"), "k");
        let cache = Cache::builder("k")
            .origin(origin)
            .policy(Policy::ttl(Ttl::For(Duration::from_secs(60))))
            .build()
            .expect("a cache");
        for (row, is_kept) in [(r#"{"a":1,"b":1e400}"#, true), (r#"{"a":"\ud800"}"#, false)] {
            let key = Key::new(format!("k:{row}"));
            let hit = cache.get_or_load(&key).await.expect("it is answered");
            assert_eq!(hit.value().expect("it is there").as_ref(), row.as_bytes());
            assert_eq!(cache.get_memory(&key).is_some(), is_kept, "{row}");
        }
        cache.remove_tag("of:1").await.expect("it is removed");
        assert!(cache.get_memory(&Key::new(r#"k:{"a":1,"b":1e400}"#)).is_none());
    }
}
