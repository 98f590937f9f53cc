//! What depends on what, drawn: as text, for Graphviz, and as a picture of our own.

mod dot;
mod layout;
mod svg;
mod text;

use std::collections::BTreeMap;

use larder::{Cascade, DependencyGraph, Touch, Touched};

pub use dot::dot;
pub use svg::svg;
pub use text::text;

/// A graph for people to look at, and perhaps what one change touches in it.
#[derive(Debug)]
pub struct Drawing<'g> {
    graph: &'g DependencyGraph,
    /// The cards: nodes that have to do with others, then tags.
    cards: Vec<Card>,
    /// From box to box.
    arrows: Vec<(usize, usize)>,
    change: Option<(Change, Cascade)>,
}

/// A cache, a service or a tag.
#[derive(Clone, Debug)]
struct Card {
    kind: Kind,
    title: String,
    /// The keys, and what it depends on.
    lines: Vec<Line>,
    layer: usize,
    state: State,
}

#[derive(Clone, Debug)]
struct Line {
    text: String,
    /// How a change is followed along it; none for the keys.
    precision: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Cache,
    Service,
    Tag,
}

/// What a change does to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Untouched,
    Changed,
    /// Some entries are touched.
    Some,
    All,
}

/// What changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A key, as dependencies write it, of this node.
    Key(usize, String),
    /// A tag.
    Tag(String),
    /// All of a node.
    All(usize),
}

impl Change {
    /// What a text means: `tag:NAME`, a key, or the name of a cache or service.
    #[must_use]
    pub fn read(graph: &DependencyGraph, text: &str) -> Option<Self> {
        if let Some(tag) = text.strip_prefix("tag:") {
            return Some(Self::Tag(tag.to_owned()));
        }
        if let Some(rest) = text.strip_prefix("service:") {
            let (name, key) = rest.split_once(':').map_or((rest, None), |(n, k)| (n, Some(k)));
            let node = graph.find(name)?;
            return Some(key.map_or(Self::All(node), |key| Self::Key(node, key.to_owned())));
        }
        let named = graph.find(text).map(Self::All);
        named.or_else(|| graph.owner(text).map(|node| Self::Key(node, text.to_owned())))
    }

    fn cascade(&self, graph: &DependencyGraph) -> Cascade {
        match self {
            Self::Key(node, key) => graph.cascade(graph.nodes()[*node].name(), &[Touch::Key(key)]),
            Self::Tag(tag) => graph.cascade_of_tag(tag),
            Self::All(node) => graph.cascade(graph.nodes()[*node].name(), &[Touch::All]),
        }
    }

    fn describe(&self, graph: &DependencyGraph) -> String {
        match self {
            Self::Key(node, key) if graph.nodes()[*node].is_service() => {
                format!("{key} of the service {}", graph.nodes()[*node].name())
            }
            Self::Key(_, key) => key.clone(),
            Self::Tag(tag) => format!("the tag {tag}"),
            Self::All(node) => format!("all of {}", graph.nodes()[*node].name()),
        }
    }
}

impl<'g> Drawing<'g> {
    /// The drawing of a graph, with what a change touches.
    #[must_use]
    pub fn new(graph: &'g DependencyGraph, change: Option<Change>) -> Self {
        let change = change.map(|change| {
            let cascade = change.cascade(graph);
            (change, cascade)
        });
        let mut drawing = Self { graph, cards: Vec::new(), arrows: Vec::new(), change };
        drawing.fill();
        drawing
    }

    fn fill(&mut self) {
        let graph = self.graph;
        let mut has_any = vec![false; graph.nodes().len()];
        let mut tags: BTreeMap<&str, usize> = BTreeMap::new();
        for edge in graph.edges() {
            has_any[edge.dependent()] = true;
            match edge.source() {
                Some(source) => has_any[source] = true,
                None => {
                    tags.insert(edge.text(), 0);
                }
            }
        }
        let layers = graph.layers();
        let of_tag = |node: usize| {
            graph.dependencies_of(node).any(|edge| edge.source().is_none()) && layers[node] == 0
        };
        // Tags stand on the left of all.
        let shift = usize::from((0..has_any.len()).any(of_tag));
        let mut places = vec![usize::MAX; graph.nodes().len()];
        for node in (0..has_any.len()).filter(|node| has_any[*node]) {
            places[node] = self.cards.len();
            let layer = layers[node] + if layers[node] == 0 && !of_tag(node) { 0 } else { shift };
            self.cards.push(self.node(node, layer));
        }
        for (text, place) in &mut tags {
            *place = self.cards.len();
            self.cards.push(self.tag(text));
        }
        for edge in graph.edges() {
            let from = edge.source().map_or_else(|| tags[edge.text()], |source| places[source]);
            let arrow = (from, places[edge.dependent()]);
            if !self.arrows.contains(&arrow) {
                self.arrows.push(arrow);
            }
        }
    }

    fn node(&self, node: usize, layer: usize) -> Card {
        let of_graph = &self.graph.nodes()[node];
        let keys = of_graph.pattern().map(|keys| Line { text: keys.to_owned(), precision: None });
        let of_edges = self
            .graph
            .dependencies_of(node)
            .map(|edge| Line { text: edge.text().to_owned(), precision: Some(edge.precision()) });
        Card {
            kind: if of_graph.is_service() { Kind::Service } else { Kind::Cache },
            title: of_graph.name().to_owned(),
            lines: keys.into_iter().chain(of_edges).collect(),
            layer,
            state: self.state(node),
        }
    }

    fn tag(&self, text: &str) -> Card {
        let is_it = |edge: &&larder::Edge| edge.text() == text && edge.source().is_none();
        let changed = self.change.as_ref().is_some_and(|(change, _)| match change {
            Change::Tag(tag) => {
                self.graph.edges().iter().find(is_it).is_some_and(|edge| edge.matches(tag))
            }
            _ => false,
        });
        let state = if changed { State::Changed } else { State::Untouched };
        Card { kind: Kind::Tag, title: text.to_owned(), lines: Vec::new(), layer: 0, state }
    }

    fn state(&self, node: usize) -> State {
        let Some((change, cascade)) = &self.change else { return State::Untouched };
        let step = cascade.steps().iter().find(|step| step.node() == node);
        match (step.map(|step| step.touched()), change) {
            (Some(Touched::All), _) => State::All,
            (Some(Touched::Some { .. }), _) => State::Some,
            (None, Change::Key(changed, _) | Change::All(changed)) if *changed == node => {
                State::Changed
            }
            _ => State::Untouched,
        }
    }

    /// What a change touches, in words; nothing without one.
    fn touched(&self) -> Vec<String> {
        let Some((change, cascade)) = &self.change else { return Vec::new() };
        let mut lines = vec![format!("a change of {} touches", change.describe(self.graph))];
        if cascade.is_empty() {
            lines.push("  nothing else".to_owned());
        }
        let steps = cascade.steps().iter().map(|step| format!("  {}", self.graph.describe(step)));
        lines.extend(steps);
        for (node, bound) in cascade.bounds_hit() {
            let name = self.graph.nodes()[*node].name();
            lines.push(format!(
                "  the bound of {} is hit at {name}: whole caches are touched instead",
                bound.name()
            ));
        }
        lines
    }
}
