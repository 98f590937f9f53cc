use std::fmt::Write;

use super::{Drawing, Kind};

/// The graph as text: what depends on nothing first, each with what it depends on and
/// how a change is followed.
#[must_use]
pub fn text(drawing: &Drawing<'_>) -> String {
    let mut text = String::new();
    let mut cards: Vec<_> = drawing.cards.iter().collect();
    cards.sort_by_key(|it| (it.layer, it.kind == Kind::Cache));
    let lines = || drawing.cards.iter().flat_map(|it| &it.lines);
    let width = lines().map(|line| line.text.chars().count()).max().unwrap_or_default();
    for it in cards {
        let kind = match it.kind {
            Kind::Cache => "",
            Kind::Service => "service ",
            Kind::Tag => "",
        };
        let _ = writeln!(text, "{kind}{}", it.title);
        for line in &it.lines {
            let _ = match line.precision {
                None => writeln!(text, "  keys  {}", line.text),
                Some(how) => writeln!(text, "  from  {:width$}  by {how}", line.text),
            };
        }
    }
    let names = |group: Vec<usize>| {
        let names: Vec<_> = group.iter().map(|at| drawing.graph.nodes()[*at].name()).collect();
        names.join(", ")
    };
    for group in drawing.graph.cycles() {
        let _ = writeln!(text, "in a circle: {}", names(group));
    }
    let touched = drawing.touched();
    if !touched.is_empty() {
        let _ = writeln!(text, "\n{}", touched.join("\n"));
    }
    text
}
