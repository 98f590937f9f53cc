//! Which cache a key belongs to.

use std::collections::BTreeMap;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use larder::Statistics;
use larder::event_rules::EventRules;
use larder_core::KeyPattern;

use crate::config::KeyShape;
use crate::resp::{Routes, ServedCache};
use crate::serve::PlannedSource;

/// One cache that is served.
#[derive(Debug)]
pub struct Served {
    /// The cache.
    pub cache: ServedCache,
    /// Its keys.
    pub pattern: KeyPattern,
    /// The name of the origin it loads from.
    pub origin: String,
    /// What of the origin it loads.
    pub source: PlannedSource,
    /// Its entry in the configuration, if it has one.
    pub config_name: Option<String>,
    /// Its part of the memory budget, in bytes.
    pub memory_bytes: usize,
    /// The tags of its entries as the configuration writes them.
    pub tags: Vec<String>,
}

impl Served {
    /// The cache's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.cache.name()
    }
}

/// Reads that memory could not answer, whatever answered them: what `misses`
/// means to whoever asks this server.
#[must_use]
pub fn misses(statistics: &Statistics) -> u64 {
    statistics.requests() - statistics.hits - statistics.stale()
}

/// Every cache that is served, found by key.
#[derive(Debug, Default)]
pub struct Registry {
    served: Vec<Served>,
    router: Router,
    by_name: BTreeMap<String, usize>,
    events: Option<EventRules>,
}

impl Registry {
    /// The registry of these caches. Where two patterns match a key, the one
    /// with more parts wins, then the one with more literal text.
    #[must_use]
    pub fn new(served: Vec<Served>) -> Self {
        let router = Router::new(served.iter().map(|served| served.pattern.clone()));
        let names = served.iter().enumerate();
        let by_name = names.map(|(index, served)| (served.name().to_owned(), index)).collect();
        Self { served, router, by_name, events: None }
    }

    /// The same, for a door at which events arrive.
    #[must_use]
    pub fn with_events(self, events: EventRules) -> Self {
        Self { events: Some(events), ..self }
    }

    /// Every cache, in the order of the configuration.
    #[must_use]
    pub fn served(&self) -> &[Served] {
        &self.served
    }

    /// The cache of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Served> {
        self.by_name.get(name).map(|index| &self.served[*index])
    }

    /// The cache that a key belongs to; `None` for a plain key. Allocates
    /// nothing.
    #[inline]
    #[must_use]
    pub fn find(&self, key: &[u8]) -> Option<&Served> {
        self.router.find(key).map(|index| &self.served[index])
    }
}

impl Routes for Registry {
    #[inline]
    fn route(&self, key: &[u8]) -> Option<&ServedCache> {
        self.find(key).map(|served| &served.cache)
    }

    fn caches(&self) -> Vec<&ServedCache> {
        self.served.iter().map(|served| &served.cache).collect()
    }

    fn is_empty(&self) -> bool {
        self.served.is_empty()
    }

    fn events(&self) -> Option<&EventRules> {
        self.events.as_ref()
    }
}

/// Finds the pattern of a key by the key's first part.
#[derive(Debug, Default)]
pub struct Router {
    /// By everything up to the first colon, that included.
    by_head: HashMap<Box<[u8]>, Vec<Route>, FixedState>,
    /// Patterns whose literal text before the first parameter has no colon.
    others: Vec<Route>,
}

#[derive(Debug)]
struct Route {
    index: usize,
    pattern: KeyPattern,
    /// The pattern is this much literal text and one parameter that takes the
    /// rest: the length of a key and its beginning tell.
    is_prefix: bool,
    rank: (usize, usize),
}

impl Router {
    /// The router over these patterns; it answers with their places.
    pub fn new(patterns: impl IntoIterator<Item = KeyPattern>) -> Self {
        let mut router = Self::default();
        for (index, pattern) in patterns.into_iter().enumerate() {
            let prefix = pattern.prefix();
            let is_prefix = pattern.parameters().len() == 1 && pattern.as_str().ends_with('}');
            let head = prefix.find(':').map(|colon| prefix.as_bytes()[..=colon].into());
            let rank = KeyShape::of(&pattern).rank();
            let route = Route { index, pattern, is_prefix, rank };
            match head {
                Some(head) => router.by_head.entry(head).or_default().push(route),
                None => router.others.push(route),
            }
        }
        for routes in router.by_head.values_mut().chain([&mut router.others]) {
            routes.sort_by_key(|route| (std::cmp::Reverse(route.rank), route.index));
        }
        router
    }

    /// The place of the pattern that a key belongs to. Allocates nothing. A key
    /// that is not UTF-8 belongs to none.
    #[inline]
    #[must_use]
    pub fn find(&self, key: &[u8]) -> Option<usize> {
        if !self.by_head.is_empty()
            && let Some(colon) = key.iter().position(|byte| *byte == b':')
            && let Some(routes) = self.by_head.get(&key[..=colon])
            && let Some(index) = first_match(routes, key)
        {
            return Some(index);
        }
        if self.others.is_empty() { None } else { first_match(&self.others, key) }
    }
}

fn first_match(routes: &[Route], key: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(key).ok()?;
    let route = routes.iter().find(|route| {
        if route.is_prefix {
            let prefix = route.pattern.prefix();
            text.len() > prefix.len() && text.starts_with(prefix)
        } else {
            route.pattern.matches(text)
        }
    })?;
    Some(route.index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn router(patterns: &[&str]) -> Router {
        Router::new(patterns.iter().map(|text| text.parse().expect("a pattern")))
    }

    #[test]
    fn the_more_specific_pattern_wins() {
        let router =
            router(&["order:{id}", "order:{id}:lines", "user-{id}", "user-x{id}", "a:b:{c}"]);
        for (key, index) in [
            ("order:7", Some(0)),
            ("order:7:lines", Some(1)),
            ("order:7:other", Some(0)),
            ("order:", None),
            ("order", None),
            ("orders:7", None),
            ("user-7", Some(2)),
            ("user-x7", Some(3)),
            ("user-x", Some(2)),
            ("a:b:c", Some(4)),
            ("a:x:c", None),
            ("", None),
            (":", None),
        ] {
            assert_eq!(router.find(key.as_bytes()), index, "{key}");
        }
    }

    #[test]
    fn bytes_that_are_not_text_are_a_plain_key() {
        assert_eq!(router(&["a:{b}"]).find(b"a:\xff"), None);
        assert_eq!(Router::default().find(b"a:b"), None);
    }

    proptest! {
        #[test]
        fn the_router_agrees_with_the_patterns(key in "[ab]{0,2}(:[ab]{0,2}){0,3}") {
            let texts = ["a:{x}", "a:{x}:b", "a:b:{x}:{y}", "b:{x}:{y}", "a{x}", "bb-{x}"];
            let found = router(&texts).find(key.as_bytes());
            let matching: Vec<_> = texts
                .iter()
                .enumerate()
                .filter(|(_, text)| {
                    let pattern: KeyPattern = text.parse().expect("a pattern");
                    pattern.matches(&key)
                })
                .collect();
            prop_assert_eq!(found.is_some(), !matching.is_empty());
            if let Some(index) = found {
                prop_assert!(matching.iter().any(|(place, _)| *place == index));
            }
        }
    }
}
