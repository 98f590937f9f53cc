//! Cascades against a naive model: every entry with every field, and a search from
//! entry to entry.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

const FIELDS: [&str; 4] = ["a", "b", "c", "d"];

/// The values of the fields of an entry, in the order of `FIELDS`.
type Row = [u8; 4];

/// What one parameter of a source's key is in a dependency.
#[derive(Clone, Copy, Debug)]
enum Part {
    Field(usize),
    Constant(u8),
}

#[derive(Clone, Debug)]
struct ModelEdge {
    /// `None`: the tag `t:…`.
    source: Option<usize>,
    dependent: usize,
    parts: [Part; 2],
}

#[derive(Clone, Debug)]
struct Model {
    /// How many of the fields are parameters of the key: 1 or 2.
    widths: Vec<usize>,
    rows: Vec<Vec<Row>>,
    edges: Vec<ModelEdge>,
    bounds: CascadeBounds,
}

impl Model {
    fn key(&self, node: usize, row: &Row) -> String {
        row[..self.widths[node]].iter().map(u8::to_string).collect::<Vec<_>>().join(":")
    }

    fn width(&self, edge: &ModelEdge) -> usize {
        edge.source.map_or(1, |source| self.widths[source])
    }

    /// The dependency as a configuration writes it.
    fn text(&self, edge: &ModelEdge) -> String {
        let part = |part: &Part| match part {
            Part::Field(field) => format!("{{{}}}", FIELDS[*field]),
            Part::Constant(value) => value.to_string(),
        };
        let parts: Vec<_> = edge.parts[..self.width(edge)].iter().map(part).collect();
        let head = edge.source.map_or_else(|| "tag:t".to_owned(), |source| format!("n{source}"));
        format!("{head}:{}", parts.join(":"))
    }

    /// What of its source a row depends on.
    fn wants(&self, edge: &ModelEdge, row: &Row) -> String {
        let part = |part: &Part| match part {
            Part::Field(field) => row[*field].to_string(),
            Part::Constant(value) => value.to_string(),
        };
        edge.parts[..self.width(edge)].iter().map(part).collect::<Vec<_>>().join(":")
    }

    fn graph(&self) -> DependencyGraph {
        let mut builder = DependencyGraph::builder().bounds(self.bounds);
        for (node, width) in self.widths.iter().enumerate() {
            let keys = ["{a}", "{a}:{b}"][width - 1];
            builder = builder.cache(&format!("n{node}"), keys);
        }
        for edge in &self.edges {
            builder = builder.depends(&format!("n{}", edge.dependent), &self.text(edge));
        }
        builder.build().expect("a graph")
    }

    /// Every entry that is computed, however indirectly, from one of these.
    fn affected(&self, first: Vec<(Option<usize>, String)>) -> BTreeSet<(usize, Row)> {
        let mut affected = BTreeSet::new();
        let mut left = VecDeque::from(first);
        while let Some((source, key)) = left.pop_front() {
            for edge in self.edges.iter().filter(|edge| edge.source == source) {
                let rows = self.rows[edge.dependent].iter();
                for row in rows.filter(|row| self.wants(edge, row) == key) {
                    if affected.insert((edge.dependent, *row)) {
                        left.push_back((Some(edge.dependent), self.key(edge.dependent, row)));
                    }
                }
            }
        }
        affected
    }

    /// Whether a cascade invalidates an entry.
    fn covers(&self, graph: &DependencyGraph, cascade: &Cascade, node: usize, row: &Row) -> bool {
        let field = |name: &str| {
            FIELDS.iter().position(|known| *known == name).map(|at| row[at].to_string())
        };
        let own: BTreeSet<_> =
            graph.dependencies_of(node).filter_map(|edge| edge.tag_of(field)).collect();
        cascade.steps().iter().filter(|step| step.node() == node).any(|step| match step.touched() {
            Touched::All => true,
            Touched::Some { keys, tags } => {
                keys.contains(&self.key(node, row))
                    || tags.iter().any(|tag| own.contains(tag.as_str()))
            }
        })
    }
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        6 => (0_usize..4).prop_map(Part::Field),
        1 => (0_u8..3).prop_map(Part::Constant),
    ]
}

fn model() -> impl Strategy<Value = Model> {
    const NODES: usize = 6;
    let row = prop::array::uniform4(0_u8..3);
    let rows = prop::collection::vec(prop::collection::vec(row, 0..12), NODES);
    let source = prop_oneof![5 => (0..NODES).prop_map(Some), 1 => Just(None)];
    // Two parameters have two names.
    let parts = (part(), part()).prop_map(|(one, other)| match (one, other) {
        (Part::Field(a), Part::Field(b)) if a == b => [one, Part::Field((a + 1) % 4)],
        _ => [one, other],
    });
    let edge = (source, 0..NODES, parts).prop_map(|(source, dependent, parts)| ModelEdge {
        source,
        dependent,
        parts,
    });
    let small = (1_usize..4, 1_usize..4, 1_usize..4, 1_usize..12).prop_map(|(d, k, t, total)| {
        CascadeBounds::default().depth(d).keys(k).tags(t).total(total)
    });
    let bounds = prop_oneof![Just(CascadeBounds::default()), small];
    (prop::collection::vec(1_usize..3, NODES), rows, prop::collection::vec(edge, 0..10), bounds)
        .prop_map(|(widths, rows, edges, bounds)| Model { widths, rows, edges, bounds })
}

fn check_shape(graph: &DependencyGraph, cascade: &Cascade) {
    let places: BTreeMap<_, _> =
        cascade.steps().iter().enumerate().map(|(at, step)| (step.node(), at)).collect();
    assert_eq!(places.len(), cascade.steps().len(), "one step a cache");
    for edge in graph.edges() {
        let Some(source) = edge.source() else { continue };
        let one = graph.components.rank(source) == graph.components.rank(edge.dependent());
        if let (Some(from), Some(to)) = (places.get(&source), places.get(&edge.dependent()))
            && !one
        {
            assert!(from < to, "sources come first");
        }
    }
    for step in cascade.steps() {
        let Touched::Some { keys, tags } = step.touched() else { continue };
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
        assert_eq!(tags.iter().collect::<BTreeSet<_>>().len(), tags.len());
        assert!(keys.len() <= graph.bounds().keys && tags.len() <= graph.bounds().tags);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        if cfg!(debug_assertions) { 2000 } else { 20_000 }
    ))]

    /// Whatever is computed from what changed is invalidated, with any bounds.
    #[test]
    fn a_cascade_covers_what_a_search_of_all_entries_finds(
        model in model(),
        node in 0_usize..6,
        row in prop::array::uniform4(0_u8..3),
    ) {
        let graph = model.graph();
        let key = model.key(node, &row);
        let name = format!("n{node}");
        let cascade = graph.cascade(&name, &[Touch::Key(&key)]);
        check_shape(&graph, &cascade);
        for (dependent, affected) in model.affected(vec![(Some(node), key.clone())]) {
            let is_itself = dependent == node && model.key(node, &affected) == key;
            prop_assert!(
                is_itself || model.covers(&graph, &cascade, dependent, &affected),
                "n{dependent} {affected:?} after {key} of n{node}: {cascade:?}"
            );
        }
        if !graph.touches(node, Touch::Key(&key)) {
            prop_assert!(model.affected(vec![(Some(node), key)]).is_empty());
        }
    }

    /// The same of a tag that some entries of the cache have, and of all of it.
    #[test]
    fn a_tag_and_a_whole_cache_are_followed(
        model in model(),
        node in 0_usize..6,
        value in 0_u8..3,
        tagged in prop::collection::vec(any::<bool>(), 12),
    ) {
        let graph = model.graph();
        let name = format!("n{node}");
        let tag = format!("t:{value}");
        let keys = |rows: Vec<&Row>| -> Vec<_> {
            rows.into_iter().map(|row| (Some(node), model.key(node, row))).collect()
        };
        let rows = model.rows[node].iter().zip(&tagged).filter(|(_, is)| **is).map(|(row, _)| row);
        let mut changed = keys(rows.collect());
        changed.push((None, value.to_string()));
        let cascade = graph.cascade(&name, &[Touch::Tag(&tag)]);
        check_shape(&graph, &cascade);
        for (dependent, affected) in model.affected(changed) {
            let covered = model.covers(&graph, &cascade, dependent, &affected);
            let is_tagged = dependent == node
                && model.rows[node].iter().zip(&tagged).any(|(row, is)| *is && *row == affected);
            prop_assert!(covered || is_tagged, "n{dependent} {affected:?}: {cascade:?}");
        }
        let cascade = graph.cascade(&name, &[Touch::All]);
        check_shape(&graph, &cascade);
        for (dependent, affected) in model.affected(keys(model.rows[node].iter().collect())) {
            let covered = model.covers(&graph, &cascade, dependent, &affected);
            prop_assert!(covered || dependent == node, "n{dependent} {affected:?}: {cascade:?}");
        }
    }

    /// Where every key follows from the one before, nothing else is touched.
    #[test]
    fn where_keys_follow_a_cascade_is_exact(
        edges in prop::collection::vec((0_usize..6, 0_usize..6), 0..14),
        node in 0_usize..6,
    ) {
        let parts = [Part::Field(0), Part::Field(1)];
        let model = Model {
            widths: vec![2; 6],
            rows: vec![(0..3).flat_map(|a| (0..3).map(move |b| [a, b, 0, 0])).collect(); 6],
            edges: edges
                .into_iter()
                .map(|(source, dependent)| ModelEdge { source: Some(source), dependent, parts })
                .collect(),
            bounds: CascadeBounds::default(),
        };
        let graph = model.graph();
        let cascade = graph.cascade(&format!("n{node}"), &[Touch::Key("1:2")]);
        let touched: BTreeSet<_> = cascade
            .steps()
            .iter()
            .flat_map(|step| match step.touched() {
                Touched::All => panic!("nothing is unknown here: {cascade:?}"),
                Touched::Some { keys, tags } => {
                    assert!(tags.is_empty());
                    keys.iter().map(|key| (step.node(), key.clone()))
                }
            })
            .collect();
        let affected = model.affected(vec![(Some(node), "1:2".to_owned())]);
        let wanted: BTreeSet<_> =
            affected.iter().map(|(at, row)| (*at, model.key(*at, row))).collect();
        let itself = (node, "1:2".to_owned());
        prop_assert_eq!(touched, wanted.into_iter().filter(|it| *it != itself).collect());
    }
}
