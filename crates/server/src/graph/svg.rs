use std::fmt::Write;

use super::layout::{Layout, Place, Size, layout};
use super::{Card, Drawing, Kind, State};

/// What a character of the monospaced type takes at most.
const CHARACTER: f64 = 7.5;
const LINE: f64 = 17.0;
const PADDING: f64 = 10.0;
const MARGIN: f64 = 24.0;
/// A longer text is cut, and shown whole when the pointer rests on it.
const LENGTH_MAX: usize = 48;
/// More lines of what a change touches do not fit under a picture.
const TOUCHED_MAX: usize = 40;
/// A box lists so many dependencies; how many more there are it says.
const LINES_MAX: usize = 9;

const STYLE: &str = "\
text{font:12px ui-monospace,'DejaVu Sans Mono',monospace;fill:#1f2937}\
.title{font-weight:bold}.keys{fill:#4b5563}.how{fill:#0f766e}\
.box{stroke:#374151;stroke-width:1.2;fill:#ffffff}.service{stroke-dasharray:5 3;fill:#f9fafb}\
.tag{fill:#f0fdfa;stroke:#0f766e}.changed{fill:#bfdbfe}.some{fill:#fde68a}.all{fill:#fecaca}\
.arrow{fill:none;stroke:#6b7280;stroke-width:1.3}.circle{stroke:#b91c1c;stroke-dasharray:4 3}";

/// The graph as a picture: a document of its own, which needs nothing else.
#[must_use]
pub fn svg(drawing: &Drawing<'_>) -> String {
    let sizes: Vec<Size> = drawing.cards.iter().map(size).collect();
    let layout = layout(&sizes, &drawing.arrows);
    let legend = legend(drawing);
    let longest = legend.iter().map(|line| line.chars().count()).max().unwrap_or_default();
    // Arcs of circles stand out on the right.
    let width = (layout.width + 2.0 * MARGIN + 60.0).max(longest as f64 * CHARACTER + 2.0 * MARGIN);
    let height = layout.height + 2.0 * MARGIN + LINE * (legend.len() as f64 + 1.0);
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" \
         width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         role=\"img\">\n<title>What depends on what</title>\n<style>{STYLE}</style>\n\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" \
         markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0 8 4 0 8z\" fill=\"#6b7280\"/></marker>\
         </defs>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <g transform=\"translate({MARGIN} {MARGIN})\">\n"
    );
    for (place, (from, to)) in drawing.arrows.iter().enumerate() {
        arrow(&mut text, &sizes, &layout, place, *from, *to);
    }
    for (it, (place, size)) in drawing.cards.iter().zip(layout.places.iter().zip(&sizes)) {
        draw(&mut text, it, *place, *size);
    }
    for (index, line) in legend.iter().enumerate() {
        let y = layout.height + MARGIN + LINE * (index as f64 + 1.0);
        let _ = writeln!(
            text,
            "<text x=\"0\" y=\"{y:.1}\" xml:space=\"preserve\">{}</text>",
            escaped(line)
        );
    }
    text.push_str("</g>\n</svg>\n");
    text
}

fn size(it: &Card) -> Size {
    let lines = shown(it);
    let widest = lines.iter().map(|(_, line)| line.chars().count()).max().unwrap_or_default();
    Size {
        width: widest as f64 * CHARACTER + 2.0 * PADDING,
        height: lines.len() as f64 * LINE + 2.0 * PADDING - 4.0,
        layer: it.layer,
    }
}

/// The lines of a box, each with its style.
fn shown(it: &Card) -> Vec<(&'static str, String)> {
    let mut lines = vec![("title", cut(&it.title))];
    let is_too_many = it.lines.len() > LINES_MAX;
    let count = if is_too_many { LINES_MAX - 1 } else { it.lines.len() };
    for line in &it.lines[..count] {
        lines.push(match line.precision {
            None => ("keys", cut(&line.text)),
            Some(how) => ("how", format!("\u{2190} {} ({how})", cut(&line.text))),
        });
    }
    if is_too_many {
        lines.push(("how", format!("and {} more", it.lines.len() - count)));
    }
    lines
}

fn draw(text: &mut String, it: &Card, place: Place, size: Size) {
    let kind = match it.kind {
        Kind::Cache => "",
        Kind::Service => " service",
        Kind::Tag => " tag",
    };
    let state = match it.state {
        State::Untouched => "",
        State::Changed => " changed",
        State::Some => " some",
        State::All => " all",
    };
    let radius = if it.kind == Kind::Tag { size.height / 2.0 } else { 4.0 };
    let _ = write!(
        text,
        "<g><title>{}</title><rect class=\"box{kind}{state}\" x=\"{:.1}\" y=\"{:.1}\" \
         width=\"{:.1}\" height=\"{:.1}\" rx=\"{radius:.1}\"/>",
        escaped(&it.title),
        place.x,
        place.y,
        size.width,
        size.height
    );
    for (index, (style, line)) in shown(it).iter().enumerate() {
        let y = place.y + PADDING + LINE * (index as f64 + 1.0) - 6.0;
        let _ = write!(
            text,
            "<text class=\"{style}\" x=\"{:.1}\" y=\"{y:.1}\" xml:space=\"preserve\">{}</text>",
            place.x + PADDING,
            escaped(line)
        );
    }
    text.push_str("</g>\n");
}

fn arrow(text: &mut String, sizes: &[Size], layout: &Layout, at: usize, from: usize, to: usize) {
    let right = |at: usize| {
        let (place, size) = (layout.places[at], sizes[at]);
        (place.x + size.width, place.y + size.height / 2.0)
    };
    let left = |at: usize| (layout.places[at].x, layout.places[at].y + sizes[at].height / 2.0);
    if sizes[to].layer <= sizes[from].layer {
        // Around on the right: the two are of one circle, or one.
        let (mut start, mut end) = (right(from), right(to));
        let is_own = from == to;
        let spread = if is_own { 7.0 } else { 4.0 };
        let down = if start.1 <= end.1 { 1.0 } else { -1.0 };
        start.1 += spread * if is_own { -1.0 } else { down };
        end.1 += spread * if is_own { 1.0 } else { -down };
        let out = 26.0 + ((end.1 - start.1).abs() / 14.0).min(40.0);
        let reach = start.0.max(end.0) + out;
        let _ = writeln!(
            text,
            "<path class=\"arrow circle\" marker-end=\"url(#tip)\" d=\"M{:.1} {:.1}C{reach:.1} {:.1} \
             {reach:.1} {:.1} {:.1} {:.1}\"/>",
            start.0, start.1, start.1, end.1, end.0, end.1
        );
        return;
    }
    let mut path = String::new();
    let mut at_now = right(from);
    let _ = write!(path, "M{:.1} {:.1}", at_now.0, at_now.1);
    let mut curve = |path: &mut String, to: (f64, f64)| {
        let middle = (at_now.0 + to.0) / 2.0;
        let _ = write!(
            path,
            "C{middle:.1} {:.1} {middle:.1} {:.1} {:.1} {:.1}",
            at_now.1, to.1, to.0, to.1
        );
        at_now = to;
    };
    for (place, width) in &layout.routes[at] {
        curve(&mut path, (place.x, place.y));
        curve(&mut path, (place.x + width, place.y));
    }
    curve(&mut path, left(to));
    let _ = writeln!(text, "<path class=\"arrow\" marker-end=\"url(#tip)\" d=\"{path}\"/>");
}

fn legend(drawing: &Drawing<'_>) -> Vec<String> {
    let mut lines = drawing.touched();
    if lines.len() > TOUCHED_MAX {
        let more = lines.len() - TOUCHED_MAX;
        lines.truncate(TOUCHED_MAX);
        lines.push(format!("  and {more} more"));
    }
    if !lines.is_empty() {
        lines.push("blue: changed; yellow: some entries; red: the whole cache".to_owned());
    }
    const WIDTH_MAX: usize = 150;
    lines.iter().map(|line| cut_to(line, WIDTH_MAX)).collect()
}

fn cut(text: &str) -> String {
    cut_to(text, LENGTH_MAX)
}

fn cut_to(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars().take(length - 1).chain(['\u{2026}']).collect()
}

/// As XML takes it: what no document may hold is shown as a replacement.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
