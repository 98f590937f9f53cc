/// The strongly connected components of a graph, in topological order (Tarjan,
/// without recursion).
#[derive(Clone, Debug)]
pub(super) struct Components {
    /// The component of each node; those that depend have higher numbers.
    ranks: Vec<usize>,
    count: usize,
}

/// A node under way: which, and how many of its successors have been seen to.
struct Visit {
    node: usize,
    next: Vec<usize>,
    seen: usize,
}

const UNKNOWN: usize = usize::MAX;

impl Components {
    pub(super) fn of(nodes: usize, next: impl Fn(usize) -> Vec<usize>) -> Self {
        let mut search = Search {
            index: vec![UNKNOWN; nodes],
            lowest: vec![UNKNOWN; nodes],
            ranks: vec![UNKNOWN; nodes],
            stack: Vec::new(),
            found: 0,
            count: 0,
        };
        for root in 0..nodes {
            if search.index[root] == UNKNOWN {
                search.from(root, &next);
            }
        }
        // Tarjan finds what nothing leads out of first.
        let count = search.count;
        let ranks = search.ranks.into_iter().map(|rank| count - 1 - rank).collect();
        Self { ranks, count }
    }

    /// The place of a node's component in the order.
    pub(super) fn rank(&self, node: usize) -> usize {
        self.ranks[node]
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The nodes of each component, in topological order.
    pub(super) fn groups(&self) -> Vec<Vec<usize>> {
        let mut groups = vec![Vec::new(); self.count];
        for (node, rank) in self.ranks.iter().enumerate() {
            groups[*rank].push(node);
        }
        groups
    }
}

struct Search {
    index: Vec<usize>,
    lowest: Vec<usize>,
    ranks: Vec<usize>,
    stack: Vec<usize>,
    found: usize,
    count: usize,
}

impl Search {
    fn from(&mut self, root: usize, next: &impl Fn(usize) -> Vec<usize>) {
        let mut visits = vec![self.enter(root, next)];
        while let Some(visit) = visits.last_mut() {
            let node = visit.node;
            if let Some(successor) = visit.next.get(visit.seen).copied() {
                visit.seen += 1;
                if self.index[successor] == UNKNOWN {
                    visits.push(self.enter(successor, next));
                } else if self.ranks[successor] == UNKNOWN {
                    self.lowest[node] = self.lowest[node].min(self.index[successor]);
                }
                continue;
            }
            visits.pop();
            if let Some(parent) = visits.last() {
                let lowest = self.lowest[node];
                self.lowest[parent.node] = self.lowest[parent.node].min(lowest);
            }
            if self.lowest[node] == self.index[node] {
                self.close(node);
            }
        }
    }

    fn enter(&mut self, node: usize, next: &impl Fn(usize) -> Vec<usize>) -> Visit {
        self.index[node] = self.found;
        self.lowest[node] = self.found;
        self.found += 1;
        self.stack.push(node);
        Visit { node, next: next(node), seen: 0 }
    }

    /// All above this node on the stack are one component with it.
    fn close(&mut self, node: usize) {
        while let Some(member) = self.stack.pop() {
            self.ranks[member] = self.count;
            if member == node {
                break;
            }
        }
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reachable(edges: &[(usize, usize)], from: usize) -> Vec<bool> {
        let mut seen = vec![false; 12];
        let mut left = vec![from];
        while let Some(node) = left.pop() {
            for (_, to) in edges.iter().filter(|(source, _)| *source == node) {
                if !std::mem::replace(&mut seen[*to], true) {
                    left.push(*to);
                }
            }
        }
        seen
    }

    proptest! {
        #[test]
        fn who_reaches_each_other_is_one_and_sources_come_first(
            edges in prop::collection::vec((0_usize..12, 0_usize..12), 0..40),
        ) {
            let next = |node: usize| {
                edges.iter().filter(|edge| edge.0 == node).map(|edge| edge.1).collect()
            };
            let components = Components::of(12, next);
            for a in 0..12 {
                let from_a = reachable(&edges, a);
                for b in (0..12).filter(|b| *b != a) {
                    let both = from_a[b] && reachable(&edges, b)[a];
                    prop_assert_eq!(components.rank(a) == components.rank(b), both);
                    if from_a[b] {
                        prop_assert!(components.rank(a) <= components.rank(b));
                    }
                }
            }
        }
    }
}
