use std::fmt::Write;

use super::{Drawing, Kind, State};

/// The graph in the language of Graphviz.
#[must_use]
pub fn dot(drawing: &Drawing<'_>) -> String {
    let mut text = String::from(
        "digraph dependencies {\n  rankdir=LR;\n  node [shape=box, fontname=\"monospace\", \
         fontsize=11];\n",
    );
    for (place, it) in drawing.cards.iter().enumerate() {
        let shape = match it.kind {
            Kind::Cache => "solid",
            Kind::Service => "dashed",
            Kind::Tag => "rounded",
        };
        let fill = match it.state {
            State::Untouched => "",
            State::Changed => ", fillcolor=\"#bfdbfe\"",
            State::Some => ", fillcolor=\"#fde68a\"",
            State::All => ", fillcolor=\"#fecaca\"",
        };
        let filled = if fill.is_empty() { "" } else { ",filled" };
        let mut label = escaped(&it.title);
        for line in &it.lines {
            let how = line.precision.map(|how| format!("from ({how}) ")).unwrap_or_default();
            let _ = write!(label, "\\n{how}{}", escaped(&line.text));
        }
        let _ = writeln!(text, "  n{place} [label=\"{label}\", style=\"{shape}{filled}\"{fill}];");
    }
    for (from, to) in &drawing.arrows {
        let _ = writeln!(text, "  n{from} -> n{to};");
    }
    for line in drawing.touched() {
        let _ = writeln!(text, "  // {}", line.replace(['\n', '\r'], " "));
    }
    text.push_str("}\n");
    text
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
