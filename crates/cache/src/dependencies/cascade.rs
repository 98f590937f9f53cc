//! What a change touches.
//!
//! A set of entries that is touched is a list of values, one for each parameter of
//! the keys: all known is one key, none known is any. It is followed along each edge
//! to a set of the dependent. What is invalidated is noted beside it: keys, tags, or
//! the whole cache.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use larder_core::{KeyPattern, LEVEL_TAG, Tag};

use super::bounds::CascadeBound;
use super::graph::{DependencyGraph, Edge, Node, TagForm, Template, Via, is_ambiguous};

/// Something of a cache or a service that changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Touch<'t> {
    /// The entry of this key, as the cache itself has it.
    Key(&'t str),
    /// Every entry with this tag.
    Tag(&'t str),
    /// Every entry; or some, and nobody can say which.
    All,
}

/// What a change touches beyond itself, in an order in which nothing is touched
/// before what it is computed from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[must_use]
pub struct Cascade {
    steps: Vec<Step>,
    bounds: Vec<(usize, CascadeBound)>,
}

/// What of one cache is touched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    node: usize,
    touched: Touched,
}

/// Keys and tags, or everything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Touched {
    /// These keys, as the cache itself has them, and every entry with one of these
    /// tags. Each stands here once.
    Some {
        /// The keys.
        keys: Vec<String>,
        /// The tags.
        tags: Vec<Tag>,
    },
    /// The whole cache.
    All,
}

impl Cascade {
    /// One step for each cache that is touched.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The bounds that were hit, and at which node.
    #[must_use]
    pub fn bounds_hit(&self) -> &[(usize, CascadeBound)] {
        &self.bounds
    }

    /// Whether it touches nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl Step {
    /// The place of the cache in the graph.
    #[must_use]
    pub const fn node(&self) -> usize {
        self.node
    }

    /// What of it is touched.
    #[must_use]
    pub const fn touched(&self) -> &Touched {
        &self.touched
    }
}

impl DependencyGraph {
    /// Whether a change of a node touches anything. Allocates nothing, unless a key is
    /// longer than 200 bytes.
    #[must_use]
    pub fn touches(&self, node: usize, touch: Touch<'_>) -> bool {
        let matches = |edge: &usize, text: &str| self.edges[*edge].matches(text);
        let outgoing = &self.outgoing[node];
        match touch {
            Touch::Key(_) if outgoing.is_empty() => false,
            Touch::Key(key) => {
                let of_node = &self.nodes[node];
                with_text(if of_node.is_bare { Some(&of_node.name) } else { None }, key, |text| {
                    outgoing.iter().any(|edge| matches(edge, text))
                })
            }
            Touch::Tag(tag) => {
                let is_of_node = !outgoing.is_empty() && self.may_have(node, tag);
                is_of_node || self.of_tags.iter().any(|edge| matches(edge, tag))
            }
            Touch::All => !outgoing.is_empty(),
        }
    }

    /// What changes of the cache or service of this name touch. Costs nothing for a
    /// change that touches nothing, and at most what [`super::CascadeBounds`] allow
    /// for any other. A name that the graph does not know touches nothing but by tag.
    pub fn cascade(&self, name: &str, touches: &[Touch<'_>]) -> Cascade {
        match self.find(name) {
            Some(node) if touches.iter().any(|touch| self.touches(node, *touch)) => {
                let changes: Vec<_> = touches.iter().map(|touch| (Some(node), *touch)).collect();
                Course::new(self).run(&changes)
            }
            Some(_) => Cascade::default(),
            None if self.of_tags.is_empty() => Cascade::default(),
            None => {
                let changes: Vec<_> = touches.iter().map(|touch| (None, *touch)).collect();
                Course::new(self).run(&changes)
            }
        }
    }

    /// What is touched where this tag is invalidated in every cache whose tags are
    /// known.
    pub fn cascade_of_tag(&self, tag: &str) -> Cascade {
        let is_known = |node: &usize| self.nodes[*node].tags.is_some() && self.may_have(*node, tag);
        let known = (0..self.nodes.len()).filter(is_known).map(Some);
        let changes: Vec<_> = known.chain([None]).map(|node| (node, Touch::Tag(tag))).collect();
        Course::new(self).run(&changes)
    }

    /// A step in words: `order: key order:7, tag @customer:17`.
    #[must_use]
    pub fn describe(&self, step: &Step) -> String {
        let name = &self.nodes[step.node].name;
        let Touched::Some { keys, tags } = &step.touched else {
            return format!("{name}: the whole cache");
        };
        let keys = keys.iter().map(|key| format!("key {key}"));
        let tags = tags.iter().map(|tag| format!("tag {tag}"));
        format!("{name}: {}", keys.chain(tags).collect::<Vec<_>>().join(", "))
    }
}

/// The value of each parameter of a cache's keys, where it is known.
type Set = Vec<Option<String>>;

/// What is known of a change that is followed along an edge.
enum From<'c> {
    /// A key, as dependencies write it, or a tag.
    Text(&'c str),
    /// Entries of a cache.
    Set(&'c Set),
}

/// One cascade under way.
struct Course<'g> {
    graph: &'g DependencyGraph,
    /// By place in the order, then by place in the graph.
    reached: BTreeMap<(usize, usize), Reached>,
    /// Where there is something to follow.
    open: BTreeSet<(usize, usize)>,
    bounds: Vec<(usize, CascadeBound)>,
    noted: usize,
}

/// What of one cache has been reached.
#[derive(Default)]
struct Reached {
    keys: BTreeSet<String>,
    tags: BTreeSet<String>,
    is_all: bool,
    /// What has been followed, or is to be.
    seen: HashSet<Set>,
    open: Vec<(Set, usize)>,
    /// Whatever depends on it is touched as a whole already.
    is_swept: bool,
}

impl<'g> Course<'g> {
    fn new(graph: &'g DependencyGraph) -> Self {
        let (reached, open) = (BTreeMap::new(), BTreeSet::new());
        Self { graph, reached, open, bounds: Vec::new(), noted: 0 }
    }

    fn run(mut self, changes: &[(Option<usize>, Touch<'_>)]) -> Cascade {
        // What changed is not touched again on the way round a cycle.
        let mut changed = HashSet::new();
        for (node, touch) in changes {
            self.begin(*node, *touch);
            match (node, touch) {
                (Some(node), Touch::Key(key)) => {
                    changed.insert((*node, (*key).to_owned()));
                }
                (Some(node), Touch::All) => self.at(*node).is_all = true,
                _ => {}
            }
        }
        while let Some((node, set, depth)) = self.next() {
            if depth >= self.graph.bounds.depth {
                self.sweep(node, CascadeBound::Depth);
            } else if self.noted > self.graph.bounds.total {
                self.sweep(node, CascadeBound::Total);
            } else {
                for edge in &self.graph.outgoing[node] {
                    self.follow(&self.graph.edges[*edge], &From::Set(&set), depth + 1);
                }
            }
        }
        let steps = self.reached.into_iter().filter_map(|((_, node), reached)| {
            let touched = reached.into_touched(|key| changed.contains(&(node, key.clone())))?;
            let is_all = changes.contains(&(Some(node), Touch::All));
            (!is_all).then_some(Step { node, touched })
        });
        Cascade { steps: steps.collect(), bounds: self.bounds }
    }

    /// Follows what changed itself one step.
    fn begin(&mut self, node: Option<usize>, touch: Touch<'_>) {
        let graph = self.graph;
        if let Touch::Tag(tag) = touch {
            for edge in &graph.of_tags {
                self.follow(&graph.edges[*edge], &From::Text(tag), 1);
            }
        }
        let Some(node) = node else { return };
        let any = || vec![None; graph.parameters(node)];
        let (text, set) = match touch {
            Touch::Key(key) => {
                let mut text = String::with_capacity(key.len() + 32);
                graph.nodes[node].write_key(&mut text, key);
                if let Some(pattern) = &graph.nodes[node].pattern
                    && let Some(values) = pattern.match_key(&text)
                {
                    let set = values.into_iter().map(|value| Some(value.into_owned())).collect();
                    self.at(node).seen.insert(set);
                }
                (text, None)
            }
            Touch::Tag(tag) if !graph.may_have(node, tag) => return,
            Touch::Tag(tag) => (String::new(), Some(graph.tagged(node, tag).unwrap_or_else(any))),
            Touch::All => (String::new(), Some(any())),
        };
        let from = set.as_ref().map_or(From::Text(&text), From::Set);
        for edge in &graph.outgoing[node] {
            self.follow(&graph.edges[*edge], &from, 1);
        }
    }

    /// What is to be followed next: first what others may depend on.
    fn next(&mut self) -> Option<(usize, Set, usize)> {
        loop {
            let place = *self.open.first()?;
            match self.at(place.1).open.pop() {
                Some((set, depth)) => return Some((place.1, set, depth)),
                None => self.open.remove(&place),
            };
        }
    }

    fn follow(&mut self, edge: &Edge, from: &From<'_>, depth: usize) {
        let Some(source) = self.graph.read(edge, from) else { return };
        let graph = self.graph;
        let parameters = graph.parameters(edge.dependent);
        let is_known = source.values.iter().all(Option::is_some);
        let known = || source.values.iter().flatten().cloned().collect::<Vec<_>>();
        match (&edge.via, &edge.template) {
            (Via::Key(places), _) if places.iter().all(|at| source.values[*at].is_some()) => {
                let set = places.iter().map(|at| source.values[*at].clone()).collect();
                self.reach_key(edge.dependent, set, depth);
            }
            (Via::Tag, Template::Pattern(pattern)) if is_known => {
                let tag = edge.tag_text(pattern, &known());
                let set = graph.named(edge.dependent, pattern, &source.values);
                self.reach_tags(edge.dependent, [tag], set, depth);
            }
            (Via::Loader, _) => {
                let tags = graph.loader_tags(edge, source.text);
                self.reach_tags(edge.dependent, tags, vec![None; parameters], depth);
            }
            _ => self.reach_all(edge.dependent, depth),
        }
    }

    fn reach_key(&mut self, node: usize, set: Set, depth: usize) {
        let graph = self.graph;
        let Some(pattern) = &graph.nodes[node].pattern else {
            return self.reach_all(node, depth);
        };
        // Nobody knows how those spell it who make the keys.
        let values: Vec<&String> = set.iter().flatten().collect();
        let keys: Vec<String> = {
            let spelled = pattern.spellings(&values);
            spelled.iter().map(|text| graph.nodes[node].strip(text).to_owned()).collect()
        };
        let reached = self.at(node);
        let before = reached.keys.len();
        if reached.is_all {
            return;
        }
        reached.keys.extend(keys);
        let added = reached.keys.len() - before;
        if added == 0 {
            return;
        }
        if reached.keys.len() > graph.bounds.keys {
            self.bounds.push((node, CascadeBound::Keys));
            return self.reach_all(node, depth);
        }
        self.noted += added;
        self.open(node, set, depth);
    }

    fn reach_tags(
        &mut self,
        node: usize,
        tags: impl IntoIterator<Item = String>,
        set: Set,
        depth: usize,
    ) {
        let limit = self.graph.bounds.tags;
        let reached = self.at(node);
        if reached.is_all {
            return;
        }
        let before = reached.tags.len();
        reached.tags.extend(tags);
        let added = reached.tags.len() - before;
        if reached.tags.len() > limit {
            self.bounds.push((node, CascadeBound::Tags));
            return self.reach_all(node, depth);
        }
        self.noted += added;
        self.open(node, set, depth);
    }

    fn reach_all(&mut self, node: usize, depth: usize) {
        self.at(node).is_all = true;
        self.open(node, vec![None; self.graph.parameters(node)], depth);
    }

    /// Has a set followed, unless it was, or everything is.
    fn open(&mut self, node: usize, set: Set, depth: usize) {
        let has_dependents = !self.graph.outgoing[node].is_empty();
        let any = vec![None; set.len()];
        let reached = self.at(node);
        if !has_dependents || reached.is_swept || reached.seen.contains(&any) {
            return;
        }
        if reached.seen.insert(set.clone()) {
            reached.open.push((set, depth));
            self.open.insert((self.graph.components.rank(node), node));
        }
    }

    /// Touches everything that depends on a node as a whole.
    fn sweep(&mut self, from: usize, bound: CascadeBound) {
        self.bounds.push((from, bound));
        let mut left = vec![from];
        while let Some(node) = left.pop() {
            let reached = self.at(node);
            reached.open.clear();
            if std::mem::replace(&mut reached.is_swept, true) {
                continue;
            }
            for edge in &self.graph.outgoing[node] {
                let dependent = self.graph.edges[*edge].dependent;
                self.at(dependent).is_all = true;
                left.push(dependent);
            }
        }
    }

    fn at(&mut self, node: usize) -> &mut Reached {
        self.reached.entry((self.graph.components.rank(node), node)).or_default()
    }
}

impl Reached {
    /// `None` if nothing is touched but what had changed before.
    fn into_touched(self, is_changed: impl Fn(&String) -> bool) -> Option<Touched> {
        if self.is_all {
            return Some(Touched::All);
        }
        let keys: Vec<_> = self.keys.into_iter().filter(|key| !is_changed(key)).collect();
        let tags: Vec<_> = self.tags.into_iter().map(Tag::from).collect();
        (!keys.is_empty() || !tags.is_empty()).then_some(Touched::Some { keys, tags })
    }
}

/// What an edge makes of a change of its source.
struct Read<'f> {
    /// The values of its template, where they are known.
    values: Vec<Option<String>>,
    /// The key or the tag, if it is one.
    text: Option<Cow<'f, str>>,
}

impl DependencyGraph {
    /// `None` if the edge is about other entries.
    fn read<'f>(&self, edge: &Edge, from: &From<'f>) -> Option<Read<'f>> {
        let text = match from {
            From::Text(text) => Some(Cow::Borrowed(*text)),
            From::Set(set) => {
                let source = &self.nodes[edge.source?];
                let values: Option<Vec<&String>> = set.iter().map(Option::as_ref).collect();
                let key = source.pattern.as_ref().zip(values);
                key.map(|(pattern, values)| pattern.key(values).into())
            }
        };
        let values = match (&edge.template, &text, from) {
            (Template::Any, ..) => Vec::new(),
            (Template::Constant(constant), Some(text), _) => {
                let is_it = constant == text;
                return is_it.then(|| Read { values: Vec::new(), text: Some(text.clone()) });
            }
            (Template::Pattern(pattern), Some(tag), _) if edge.source.is_none() => {
                values_of_tag(pattern, tag)
                    .or_else(|| edge.matches(tag).then(|| nothing_of(pattern)))?
            }
            (Template::Pattern(pattern), Some(text), _) => {
                let values = pattern.match_key(text)?;
                values.into_iter().map(|value| Some(value.into_owned())).collect()
            }
            (Template::Pattern(_), None, From::Set(set)) if edge.is_same_shape => (*set).clone(),
            (Template::Pattern(pattern), ..) => nothing_of(pattern),
            (Template::Constant(_), ..) => Vec::new(),
        };
        Some(Read { values, text })
    }

    fn parameters(&self, node: usize) -> usize {
        self.nodes[node].pattern.as_ref().map_or(0, |pattern| pattern.parameters().len())
    }

    /// What of a cache's keys is known from fields with these names.
    fn named(&self, node: usize, names: &KeyPattern, values: &Set) -> Set {
        let value = |name: &String| {
            let place = names.parameters().iter().position(|known| known == name)?;
            values[place].clone()
        };
        let keys = self.nodes[node].pattern.as_ref();
        keys.map_or_else(Vec::new, |keys| keys.parameters().iter().map(value).collect())
    }

    /// Whether entries of a cache may have this tag.
    fn may_have(&self, node: usize, tag: &str) -> bool {
        let is_of = |form: &TagForm| tag.starts_with(&form.prefix);
        // What depends on something has tags of that, and any key those of its levels.
        self.nodes[node].tags.as_ref().is_none_or(|forms| forms.iter().any(is_of))
            || tag.starts_with('@')
            || tag.starts_with(LEVEL_TAG)
    }

    /// What is known of the keys of entries with this tag.
    fn tagged(&self, node: usize, tag: &str) -> Option<Set> {
        let forms = self.nodes[node].tags.as_ref()?;
        let mut matching = forms.iter().filter(|form| tag.starts_with(&form.prefix));
        let form = matching.next().filter(|_| matching.next().is_none())?;
        let pattern = form.pattern.as_ref()?;
        Some(self.named(node, pattern, &values_of_tag(pattern, tag)?))
    }

    /// The tags of what a loader derived from a change of the source.
    fn loader_tags(&self, edge: &Edge, text: Option<Cow<'_, str>>) -> Vec<String> {
        let Some(source) = edge.source else {
            return text.map(|tag| format!("@tag:{tag}")).into_iter().collect();
        };
        let Node { name, pattern, .. } = &self.nodes[source];
        let Some(key) = text else { return vec![loader_tag(name)] };
        let values = pattern.as_ref().and_then(|pattern| pattern.match_key(&key));
        let spelled = pattern.as_ref().zip(values).map(|(it, values)| it.spellings(&values));
        let mut keys = spelled.unwrap_or_default();
        if !keys.iter().any(|known| *known == key) {
            keys.push(key.into_owned());
        }
        let tags = keys.iter().map(|key| format!("@{key}"));
        tags.chain([loader_tag_of_many(name)]).collect()
    }
}

/// The values in a tag, in which nothing is escaped. `None` if it cannot be told where
/// one ends and the next begins.
fn values_of_tag(pattern: &KeyPattern, tag: &str) -> Option<Set> {
    if is_ambiguous(pattern, tag) {
        return None;
    }
    let escaped = tag.replace('%', "%25");
    let values = pattern.match_key(&escaped)?;
    Some(values.into_iter().map(|value| Some(value.into_owned())).collect())
}

fn nothing_of(pattern: &KeyPattern) -> Set {
    vec![None; pattern.parameters().len()]
}

/// The tag of everything that was derived from a cache.
pub(super) fn loader_tag(name: &str) -> String {
    format!("@{name}")
}

/// The tag of what was derived from too many entries of a cache to name them.
pub(super) fn loader_tag_of_many(name: &str) -> String {
    format!("@{name}:*")
}

/// Runs over a text that is put together on the stack, unless it is long.
fn with_text<T>(name: Option<&str>, key: &str, run: impl FnOnce(&str) -> T) -> T {
    let Some(name) = name else { return run(key) };
    let mut buffer = [0_u8; 256];
    let length = name.len() + 1 + key.len();
    if let Some(text) = buffer.get_mut(..length) {
        text[..name.len()].copy_from_slice(name.as_bytes());
        text[name.len()] = b':';
        text[name.len() + 1..].copy_from_slice(key.as_bytes());
        if let Ok(text) = std::str::from_utf8(text) {
            return run(text);
        }
    }
    run(&format!("{name}:{key}"))
}
