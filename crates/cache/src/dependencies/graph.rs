use std::collections::HashMap;

use larder_core::{Error, ErrorKind, KeyPattern, Result};

use super::bounds::CascadeBounds;
use super::components::Components;
use super::declaration::{self, Declared};

/// What depends on what: caches and services of others, with the keys of the one
/// from which those of the other follow. Names and patterns only.
///
/// A change of something is followed with [`DependencyGraph::cascade`].
///
/// ```
/// use larder::{DependencyGraph, Touch};
///
/// let graph = DependencyGraph::builder()
///     .cache("customer", "customer:{id}")
///     .cache("order", "order:{customer_id}:{number}")
///     .cache("basket", "basket:{customer_id}")
///     .depends("basket", "customer:{customer_id}")
///     .depends("order", "customer:{customer_id}")
///     .build()?;
/// let cascade = graph.cascade("customer", &[Touch::Key("customer:17")]);
/// let steps: Vec<_> = cascade.steps().iter().map(|step| graph.describe(step)).collect();
/// assert_eq!(steps, ["order: tag @customer:17", "basket: key basket:17"]);
/// # Ok::<_, larder::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DependencyGraph {
    pub(super) nodes: Vec<Node>,
    pub(super) edges: Vec<Edge>,
    /// The edges that leave each node, in the order of their declaration.
    pub(super) outgoing: Vec<Vec<usize>>,
    /// The edges that leave tags.
    pub(super) of_tags: Vec<usize>,
    pub(super) components: Components,
    pub(super) bounds: CascadeBounds,
    by_name: HashMap<String, usize>,
}

/// A cache, or a service of somebody else.
#[derive(Clone, Debug)]
pub struct Node {
    pub(super) name: String,
    /// The keys, after the name if the node is bare.
    pub(super) pattern: Option<KeyPattern>,
    /// Its keys stand in dependencies behind its name and a colon.
    pub(super) is_bare: bool,
    pub(super) is_service: bool,
    /// What all of its tags look like, if that is known.
    pub(super) tags: Option<Vec<TagForm>>,
}

/// What a tag looks like.
#[derive(Clone, Debug)]
pub(super) struct TagForm {
    /// How it begins.
    pub(super) prefix: String,
    pub(super) pattern: Option<KeyPattern>,
}

/// That the entries of one cache are computed from another, or from what a tag
/// stands for.
#[derive(Clone, Debug)]
pub struct Edge {
    /// `None`: a tag, of whatever cache.
    pub(super) source: Option<usize>,
    pub(super) dependent: usize,
    pub(super) text: String,
    pub(super) template: Template,
    pub(super) via: Via,
    /// The template differs from the keys of the source in nothing but the names of
    /// its parameters.
    pub(super) is_same_shape: bool,
}

/// Which changes of the source an edge is about.
#[derive(Clone, Debug)]
pub(super) enum Template {
    /// All of them.
    Any,
    /// Those of one key.
    Constant(String),
    /// Those of the keys that it matches.
    Pattern(KeyPattern),
}

/// How what is touched is found.
#[derive(Clone, Debug)]
pub(super) enum Via {
    /// Its key follows: for each parameter of it the parameter of the template.
    Key(Vec<usize>),
    /// Its entries carry a tag of what they were computed from.
    Tag,
    /// Its loaders say what they used.
    Loader,
    /// Nothing tells: all of the cache.
    All,
}

impl DependencyGraph {
    /// An empty graph.
    pub fn builder() -> GraphBuilder {
        GraphBuilder::default()
    }

    /// Whether what a cache depends on can be read, whatever caches there are.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that says why not.
    pub fn check_text(dependent: &str, on: &str) -> Result<()> {
        Declared::new(dependent, on, false).check()
    }

    /// Every cache and service, in the order of their declaration.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Every dependency, in the order of their declaration.
    #[must_use]
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// The place of the cache or service of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The groups of nodes that depend on each other in a circle, each in the order
    /// of declaration.
    #[must_use]
    pub fn cycles(&self) -> Vec<Vec<usize>> {
        let is_own_source = |node: usize| {
            self.outgoing[node].iter().any(|edge| self.edges[*edge].dependent == node)
        };
        let groups = self.components.groups().into_iter();
        groups.filter(|group| group.len() > 1 || is_own_source(group[0])).collect()
    }

    /// How far from what nothing depends on it each node lies at most, cycles counted
    /// as one: sources are 0, what depends on them 1, and so on.
    #[must_use]
    pub fn layers(&self) -> Vec<usize> {
        let mut of_component = vec![0; self.components.count()];
        for group in self.components.groups() {
            for node in group {
                let from = self.components.rank(node);
                for edge in &self.outgoing[node] {
                    let to = self.components.rank(self.edges[*edge].dependent);
                    if from != to {
                        of_component[to] = of_component[to].max(of_component[from] + 1);
                    }
                }
            }
        }
        (0..self.nodes.len()).map(|node| of_component[self.components.rank(node)]).collect()
    }

    /// Whether anything depends on this node. Costs nothing.
    #[must_use]
    pub fn is_source(&self, node: usize) -> bool {
        !self.outgoing[node].is_empty()
    }

    /// The node that a key belongs to, written as dependencies write it.
    #[must_use]
    pub fn owner(&self, key: &str) -> Option<usize> {
        declaration::owner(&self.nodes, &self.by_name, key)
    }

    /// What bounds a cascade.
    #[must_use]
    pub fn bounds(&self) -> &CascadeBounds {
        &self.bounds
    }

    /// The declared dependencies of a node.
    pub fn dependencies_of(&self, node: usize) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| edge.dependent == node)
    }

    /// The edges that lead from a node to what depends on it.
    pub fn dependents_of(&self, node: usize) -> impl Iterator<Item = &Edge> {
        self.outgoing[node].iter().map(|edge| &self.edges[*edge])
    }
}

impl Node {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its keys, as dependencies write them, if they are known.
    #[must_use]
    pub fn pattern(&self) -> Option<&str> {
        self.pattern.as_ref().map(KeyPattern::as_str)
    }

    /// Whether it is somebody else's: it is heard of and never invalidated here.
    #[must_use]
    pub const fn is_service(&self) -> bool {
        self.is_service
    }

    /// The key of an entry as dependencies write it, in a text of the caller's.
    pub(super) fn write_key(&self, text: &mut String, key: &str) {
        if self.is_bare {
            text.push_str(&self.name);
            text.push(':');
        }
        text.push_str(key);
    }

    /// The key of an entry, of how dependencies write it.
    pub(super) fn strip<'t>(&self, text: &'t str) -> &'t str {
        if self.is_bare { text.get(self.name.len() + 1..).unwrap_or_default() } else { text }
    }
}

impl Edge {
    /// What is depended on: a cache or a service. `None`: a tag.
    #[must_use]
    pub const fn source(&self) -> Option<usize> {
        self.source
    }

    /// The cache that depends on it.
    #[must_use]
    pub const fn dependent(&self) -> usize {
        self.dependent
    }

    /// As it was declared.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How what is touched is found, in words: `key`, `tag`, `loader` or `cache`.
    #[must_use]
    pub const fn precision(&self) -> &'static str {
        match self.via {
            Via::Key(_) => "key",
            Via::Tag => "tag",
            Via::Loader => "loader",
            Via::All => "cache",
        }
    }

    /// Whether it is about this key, as dependencies write it, or this tag.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match &self.template {
            Template::Any => true,
            Template::Constant(constant) => constant == text,
            Template::Pattern(pattern) if self.source.is_none() && is_ambiguous(pattern, text) => {
                text.starts_with(pattern.prefix())
            }
            Template::Pattern(pattern) => pattern.matches(text),
        }
    }

    /// The names in it whose values an entry has to tell, so that it can carry a tag
    /// of what it was computed from: parameters of its key, or columns of its row.
    #[must_use]
    pub fn fields(&self) -> &[String] {
        match (&self.via, &self.template) {
            (Via::Tag, Template::Pattern(pattern)) => pattern.parameters(),
            _ => &[],
        }
    }

    /// The tag by which an entry with these fields is invalidated with what it was
    /// computed from; `None` if it needs none for this edge, or lacks a field.
    #[must_use]
    pub fn tag_of(&self, field: impl Fn(&str) -> Option<String>) -> Option<String> {
        let Template::Pattern(pattern) = &self.template else { return None };
        let names = self.fields();
        if names.is_empty() {
            return None;
        }
        let values: Option<Vec<String>> = names.iter().map(|name| field(name)).collect();
        Some(self.tag_text(pattern, &values?))
    }

    pub(super) fn tag_text(&self, pattern: &KeyPattern, values: &[String]) -> String {
        let kind = if self.source.is_none() { "@tag:" } else { "@" };
        format!("{kind}{}", pattern.key(values))
    }
}

/// Whether a value in a tag may hold a colon, so that nobody can tell where it ends.
pub(super) fn is_ambiguous(pattern: &KeyPattern, tag: &str) -> bool {
    let colons = |text: &str| text.matches(':').count();
    let takes_rest = pattern.parameters().len() == 1 && pattern.as_str().ends_with('}');
    !takes_rest && colons(tag) != colons(pattern.as_str())
}

/// Puts a [`DependencyGraph`] together.
#[must_use]
#[derive(Clone, Debug, Default)]
pub struct GraphBuilder {
    nodes: Vec<(String, Option<String>, Option<Vec<String>>)>,
    declared: Vec<Declared>,
    bounds: CascadeBounds,
}

/// More than any configuration has; a limit on what one can ask.
const NODES_MAX: usize = 65_536;
const EDGES_MAX: usize = 1 << 20;

impl GraphBuilder {
    /// A cache whose keys look like this. A pattern that begins with a parameter,
    /// such as `{id}`, is that of a cache of numbers or of parts: in dependencies its
    /// name stands before it, as in `order:{id}`. One that begins with text, such as
    /// `order:{id}`, is that of keys that carry their name themselves.
    pub fn cache(mut self, name: &str, keys: &str) -> Self {
        self.nodes.push((name.to_owned(), Some(keys.to_owned()), None));
        self
    }

    /// Says that every tag of a cache looks like one of these, such as
    /// `artist:{artist_id}`, where `{artist_id}` is what a parameter of its key is
    /// called: a change by tag then touches less of what depends on the cache, and
    /// nothing if it is none of these.
    pub fn tags<T: Into<String>>(mut self, cache: &str, tags: impl IntoIterator<Item = T>) -> Self {
        if let Some((_, _, known)) = self.nodes.iter_mut().find(|(name, ..)| name == cache) {
            known.get_or_insert_default().extend(tags.into_iter().map(Into::into));
        }
        self
    }

    /// A cache whose keys nobody knows: in dependencies its name stands before them.
    pub fn cache_of_any_keys(mut self, name: &str) -> Self {
        self.nodes.push((name.to_owned(), None, None));
        self
    }

    /// A cache depends on something:
    ///
    /// | written | it is computed from |
    /// |---|---|
    /// | `customer:{customer_id}` | the entry of another cache with this key |
    /// | `rates:EUR` | one entry of another cache |
    /// | `rates` | any entry of the cache of this name |
    /// | `tag:price-list:{list}` | whatever has this tag, in any cache |
    /// | `service:billing:invoice:{id}` | what is announced under this name by others |
    /// | `service:billing` | anything announced under this name |
    ///
    /// Where the parameters of the dependent's key are all among those in braces, its
    /// keys follow. Where not, its entries carry a tag of what they were computed from,
    /// and the values in braces are fields of theirs.
    pub fn depends(mut self, dependent: &str, on: &str) -> Self {
        self.declared.push(Declared::new(dependent, on, false));
        self
    }

    /// A cache whose loaders say for each answer what of another cache they used, by
    /// [`larder_core::Loaded::derived_from`].
    pub fn derives(mut self, dependent: &str, source: &str) -> Self {
        self.declared.push(Declared::new(dependent, source, true));
        self
    }

    /// What bounds a cascade. Default: [`CascadeBounds::default`].
    pub fn bounds(mut self, bounds: CascadeBounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// The graph.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the first dependency that is wrong, and the
    /// remedy.
    pub fn build(self) -> Result<DependencyGraph> {
        let (graph, wrong) = self.build_what_can_be()?;
        wrong.into_iter().next().map_or(Ok(graph), |(_, error)| Err(error))
    }

    /// The graph without the dependencies that are wrong, and these: which, counted
    /// from 0 in the order of their declaration, and why.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if not a dependency is wrong but a cache, or a bound.
    pub fn build_what_can_be(self) -> Result<(DependencyGraph, Vec<(usize, Error)>)> {
        self.bounds.check()?;
        let mut wrong = Vec::new();
        let mut nodes: Vec<Node> = Vec::with_capacity(self.nodes.len());
        let mut by_name = HashMap::new();
        for (name, keys, tags) in &self.nodes {
            nodes.push(declaration::node(name, keys.as_deref(), tags.as_deref())?);
            if by_name.insert(name.clone(), nodes.len() - 1).is_some() {
                return Err(Error::new(ErrorKind::Config, "a cache is declared twice")
                    .with("cache", name)
                    .remedy("declare each cache once; caches of one name are one node"));
            }
        }
        let mut edges = Vec::with_capacity(self.declared.len());
        for (place, declared) in self.declared.iter().enumerate() {
            match declared.resolve(&mut nodes, &mut by_name) {
                Ok(edge) => edges.push(edge),
                Err(error) => wrong.push((place, error)),
            }
        }
        if nodes.len() > NODES_MAX || edges.len() > EDGES_MAX {
            return Err(Error::new(ErrorKind::Config, "so many dependencies are not followed")
                .with("caches", nodes.len())
                .with("dependencies", edges.len())
                .remedy("divide them over several groups"));
        }
        let mut outgoing = vec![Vec::new(); nodes.len()];
        let mut of_tags = Vec::new();
        for (index, edge) in edges.iter().enumerate() {
            match edge.source {
                Some(source) => outgoing[source].push(index),
                None => of_tags.push(index),
            }
        }
        let next = |node: usize| outgoing[node].iter().map(|edge| edges[*edge].dependent);
        let components = Components::of(nodes.len(), |node| next(node).collect());
        let bounds = self.bounds;
        let graph =
            DependencyGraph { nodes, edges, outgoing, of_tags, components, bounds, by_name };
        Ok((graph, wrong))
    }
}
