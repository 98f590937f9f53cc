use std::collections::BTreeMap;
use std::str::FromStr;

use larder_core::{BoxFuture, Error, ErrorKind, Result};

use super::{EventTargets, Touched};
use crate::cache::Cache;
use crate::engine::{CacheKey, CacheValue};
use crate::invalidation::{Invalidation, Target};

/// Caches of an application that rules take effect on, by name. A key is written with
/// the name of its cache before it: `portfolio:7`.
#[derive(Default)]
#[must_use]
pub struct CacheSet(BTreeMap<String, Box<dyn AnyCache>>);

/// A cache whatever its types.
trait AnyCache: Send + Sync {
    fn knows(&self, key: &str) -> bool;
    fn invalidate(&self, target: Target<String>, like: &Touched) -> BoxFuture<'_, Result<()>>;
}

impl CacheSet {
    /// No caches.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one whose keys can be read from text.
    pub fn cache<K, V>(mut self, cache: &Cache<K, V>) -> Self
    where
        K: CacheKey + FromStr,
        V: CacheValue,
    {
        self.0.insert(cache.name().to_owned(), Box::new(cache.clone()));
        self
    }

    fn of_key<'k>(&self, key: &'k str) -> Option<(&dyn AnyCache, &'k str)> {
        let (name, rest) = key.split_once(':')?;
        self.0.get(name).map(|cache| (cache.as_ref(), rest)).filter(|(it, rest)| it.knows(rest))
    }
}

impl<K: CacheKey + FromStr, V: CacheValue> AnyCache for Cache<K, V> {
    fn knows(&self, key: &str) -> bool {
        key.parse::<K>().is_ok()
    }

    fn invalidate(&self, target: Target<String>, like: &Touched) -> BoxFuture<'_, Result<()>> {
        let target = match target {
            Target::Keys(keys) => {
                Target::Keys(keys.iter().filter_map(|key| key.parse().ok()).collect())
            }
            Target::Tags(tags) => Target::Tags(tags),
            Target::All => Target::All,
        };
        let what = Invalidation { target, verb: like.verb, window: like.window };
        Box::pin(async move { Self::invalidate(self, &what).await.map(drop) })
    }
}

impl EventTargets for CacheSet {
    fn check(&self, touched: &Touched) -> Result<()> {
        let unknown = |what: &'static str, name: &str| {
            Error::new(ErrorKind::InvalidInput, what)
                .with("name", name)
                .remedy("give the set this cache, or change the rule")
        };
        if let Some(key) = touched.keys.iter().find(|key| self.of_key(key).is_none()) {
            return Err(unknown("a key is that of no cache", key));
        }
        match touched.caches.iter().find(|name| !self.0.contains_key(*name)) {
            Some(name) => Err(unknown("there is no such cache", name)),
            None => Ok(()),
        }
    }

    fn invalidate(&self, touched: Touched) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            for key in &touched.keys {
                let Some((cache, rest)) = self.of_key(key) else { continue };
                cache.invalidate(Target::Keys(vec![rest.to_owned()]), &touched).await?;
            }
            if !touched.tags.is_empty() {
                for cache in self.0.values() {
                    cache.invalidate(Target::Tags(touched.tags.clone()), &touched).await?;
                }
            }
            for cache in touched.caches.iter().filter_map(|name| self.0.get(name)) {
                cache.invalidate(Target::All, &touched).await?;
            }
            Ok(())
        })
    }
}
