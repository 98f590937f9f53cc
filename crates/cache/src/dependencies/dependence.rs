use std::collections::BTreeMap;
use std::sync::Arc;

use larder_core::{Announcement, Error, ErrorKind, Key, Result, SharedKey, Tag, Tags, Verb};

use super::cascade::{Touch, Touched, loader_tag, loader_tag_of_many};
use super::graph::{Edge, Via};
use super::group::{Dependencies, Following, cascade_of, of_keys};

/// The value of a field of an entry, by name.
pub(crate) type FieldRule<K, V> = Arc<dyn Fn(&K, Option<&V>, &str) -> Option<String> + Send + Sync>;

/// A cache's place among those that depend on each other.
pub(crate) struct Dependence<K, V> {
    group: Dependencies,
    node: usize,
    encode: fn(&K) -> Key,
    pub(crate) decode: fn(&Key) -> Option<K>,
    fields: Option<FieldRule<K, V>>,
}

/// So many entries of other caches an answer may be derived from, each by its name.
/// Of more, any change of those caches invalidates it.
const SOURCES_MAX: usize = 64;

impl<K, V> Dependence<K, V> {
    pub(crate) fn new(
        group: Dependencies,
        node: usize,
        fields: Option<FieldRule<K, V>>,
        tagged_by_origin: bool,
    ) -> Result<Self>
    where
        K: SharedKey,
    {
        let graph = group.graph();
        let keys = graph.nodes()[node].pattern.as_ref().map_or(&[][..], |keys| keys.parameters());
        let of_value = graph
            .dependencies_of(node)
            .find(|edge| edge.fields().iter().any(|field| !keys.contains(field)));
        if let Some(edge) = of_value.filter(|_| fields.is_none() && !tagged_by_origin) {
            return Err(Error::new(
                ErrorKind::Config,
                "nobody says what the entries of this cache are computed from",
            )
            .with("depends on", edge.text())
            .remedy("tell the values in braces with CacheBuilder::fields"));
        }
        Ok(Self { group, node, encode: K::to_key, decode: K::from_key, fields })
    }

    pub(crate) fn group(&self) -> &Dependencies {
        &self.group
    }

    pub(crate) const fn node(&self) -> usize {
        self.node
    }

    /// Whether anything in this cache is computed from elsewhere.
    pub(crate) fn is_dependent(&self) -> bool {
        self.group.graph().dependencies_of(self.node).next().is_some()
    }

    /// What an announced change touches here, of whatever cache it is.
    pub(crate) fn touched_by(&self, announcement: &Announcement) -> Option<Touched> {
        let Announcement { cache, change, .. } = announcement;
        let cascade = cascade_of(self.group.graph(), cache, change);
        let here = cascade.steps().iter().find(|step| step.node() == self.node)?;
        Some(here.touched().clone())
    }

    /// What a change of these keys touches. Costs nothing where nothing depends on
    /// the cache, and no more than the key's text where nothing depends on them.
    pub(crate) fn of_keys<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k K, IntoIter: Clone>,
        verb: Verb,
    ) -> Option<Following>
    where
        K: 'k,
    {
        let graph = self.group.graph();
        let keys = keys.into_iter().map(self.encode);
        let touches = |key: Key| match std::str::from_utf8(key.as_bytes()) {
            Ok(text) => graph.touches(self.node, Touch::Key(text)),
            Err(_) => true,
        };
        if !graph.is_source(self.node) || !keys.clone().any(touches) {
            return None;
        }
        let keys: Vec<Key> = keys.collect();
        self.group.begin(self.node, &of_keys(&keys), verb)
    }

    /// What a change of a tag, or of everything, touches.
    pub(crate) fn of_mark(&self, tag: Option<&Tag>, verb: Verb) -> Option<Following> {
        let touch = tag.map_or(Touch::All, |tag| Touch::Tag(tag.as_str()));
        self.group.begin(self.node, &[touch], verb)
    }

    /// The tags by which an answer is invalidated together with what it was computed
    /// from: what its fields say, and what its loader did.
    ///
    /// # Errors
    /// It was derived from what nobody declared: nothing would invalidate it.
    pub(crate) fn tags(&self, key: &K, value: Option<&V>, sources: &Tags) -> Result<Tags> {
        let mut tags = Vec::new();
        let mut edges = self.group.graph().dependencies_of(self.node).peekable();
        if edges.peek().is_none() && sources.is_empty() {
            return Ok(Tags::NONE);
        }
        let parts = self.parts(key);
        for edge in edges {
            let field = |name: &str| {
                let of_key = parts.iter().find(|(known, _)| *known == name);
                of_key
                    .map(|(_, value)| value.clone())
                    .or_else(|| self.fields.as_ref().and_then(|fields| fields(key, value, name)))
            };
            tags.extend(edge.tag_of(field));
        }
        self.derived(sources, &mut tags)?;
        Ok(Tags::new(tags))
    }

    fn derived(&self, sources: &Tags, tags: &mut Vec<String>) -> Result<()> {
        let mut by_source: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for text in sources.iter().map(Tag::as_str) {
            let edge = self.loader_edge(text).ok_or_else(|| {
                Error::new(ErrorKind::Config, "an answer was derived from what is not declared")
                    .with("derived from", text)
                    .remedy("declare it with GraphBuilder::derives")
            })?;
            let source = edge.source.map(|source| self.group.graph().nodes()[source].name());
            by_source.entry(source.unwrap_or("tag")).or_default().push(text);
        }
        let is_too_many = sources.len() > SOURCES_MAX;
        for (source, texts) in by_source {
            if source != "tag" {
                tags.push(loader_tag(source));
            }
            if is_too_many && source != "tag" {
                tags.push(loader_tag_of_many(source));
            } else {
                tags.extend(texts.into_iter().map(|text| format!("@{text}")));
            }
        }
        Ok(())
    }

    /// The edge by which a loader may name what it used.
    fn loader_edge(&self, text: &str) -> Option<&Edge> {
        let graph = self.group.graph();
        let tag = text.strip_prefix("tag:");
        let source = if tag.is_some() { None } else { Some(graph.owner(text)?) };
        graph.dependencies_of(self.node).find(|edge| {
            let is_loader = matches!(edge.via, Via::Loader);
            is_loader && edge.source == source && edge.matches(tag.unwrap_or(text))
        })
    }

    /// The parameters of a key, by name.
    fn parts(&self, key: &K) -> Vec<(&str, String)> {
        let node = &self.group.graph().nodes()[self.node];
        let Some(pattern) = &node.pattern else { return Vec::new() };
        let key = (self.encode)(key);
        let Ok(raw) = std::str::from_utf8(key.as_bytes()) else { return Vec::new() };
        let mut text = String::with_capacity(raw.len() + 32);
        node.write_key(&mut text, raw);
        let values = pattern.match_key(&text).unwrap_or_default();
        let names = pattern.parameters().iter().map(String::as_str);
        names.zip(values.into_iter().map(std::borrow::Cow::into_owned)).collect()
    }
}
