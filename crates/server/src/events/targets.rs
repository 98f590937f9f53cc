use std::collections::BTreeMap;
use std::time::Duration;

use larder::Invalidation;
use larder::event_rules::{EventTargets, Touched};
use larder_core::{BoxFuture, Error, ErrorKind, Key, KeyPattern, Result, Verb};

use crate::registry::{Router, Served};
use crate::resp::ServedCache;

/// The caches of this server, for rules to take effect on.
pub(crate) struct ServedCaches {
    caches: Vec<(ServedCache, KeyPattern)>,
    router: Router,
}

impl ServedCaches {
    pub(crate) fn new(served: &[Served]) -> Self {
        let caches: Vec<_> =
            served.iter().map(|it| (it.cache.clone(), it.pattern.clone())).collect();
        let router = Router::new(caches.iter().map(|(_, pattern)| pattern.clone()));
        Self { caches, router }
    }

    /// The cache of a key, and the key in the spelling that reads use.
    fn find(&self, key: &str) -> Option<(usize, Key)> {
        let place = self.router.find(key.as_bytes())?;
        let pattern = &self.caches[place].1;
        let values = pattern.match_key(key)?;
        Some((place, Key::new(pattern.key(values))))
    }

    fn named(&self, name: &str) -> Option<&ServedCache> {
        self.caches.iter().map(|(cache, _)| cache).find(|cache| cache.name() == name)
    }
}

impl EventTargets for ServedCaches {
    fn check(&self, touched: &Touched) -> Result<()> {
        if let Some(key) = touched.keys.iter().find(|key| self.find(key).is_none()) {
            return Err(Error::new(ErrorKind::InvalidInput, "a key belongs to no cache")
                .with("key", key)
                .remedy("compare the rule with the keys of the caches"));
        }
        match touched.caches.iter().find(|name| self.named(name).is_none()) {
            Some(name) => Err(Error::new(ErrorKind::InvalidInput, "there is no such cache")
                .with("cache", name)
                .remedy("compare the rule with the names of the caches")),
            None => Ok(()),
        }
    }

    fn invalidate(&self, touched: Touched) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let how = |what| how(what, touched.verb, touched.window);
            let mut keys: BTreeMap<usize, Vec<Key>> = BTreeMap::new();
            for (place, key) in touched.keys.iter().filter_map(|key| self.find(key)) {
                keys.entry(place).or_default().push(key);
            }
            for (place, keys) in keys {
                self.caches[place].0.invalidate(&how(Invalidation::keys(keys))).await?;
            }
            if !touched.tags.is_empty() {
                for (cache, _) in &self.caches {
                    cache.invalidate(&how(Invalidation::tags(touched.tags.clone()))).await?;
                }
            }
            for cache in touched.caches.iter().filter_map(|name| self.named(name)) {
                cache.invalidate(&how(Invalidation::all())).await?;
            }
            Ok(())
        })
    }
}

fn how(what: Invalidation<Key>, verb: Verb, window: Duration) -> Invalidation<Key> {
    let what = what.gradually(window);
    if verb == Verb::Remove { what.removing() } else { what }
}
