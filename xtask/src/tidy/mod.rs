//! Rules about the tree that no compiler checks.
//!
//! Each rule is a function from a [`Tree`] to what it finds wrong; [`RULES`] is
//! the whole list.

mod layers;
mod text;
mod tree;

use std::fmt;
use std::path::Path;

use tree::Tree;

type Rule = fn(&Tree) -> Vec<Finding>;

/// Every rule, with the name that its findings carry.
const RULES: [(&str, Rule); 6] = [
    ("layers", layers::dependencies_point_down),
    ("lints", layers::lints_are_inherited),
    ("map", layers::the_map_names_every_crate),
    ("length", text::rust_files_are_short),
    ("readme", text::the_readme_is_short),
    ("wording", text::nothing_is_left_over),
];

/// Something that breaks a rule.
#[derive(PartialEq, Eq, Debug)]
struct Finding {
    path: String,
    /// Counted from one; `None` if it is about the whole file.
    line: Option<usize>,
    what: String,
}

impl Finding {
    fn in_file(path: impl Into<String>, what: impl Into<String>) -> Self {
        Self { path: path.into(), line: None, what: what.into() }
    }

    fn on_line(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: Some(line), what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path, self.what),
            None => write!(f, "{}: {}", self.path, self.what),
        }
    }
}

/// Applies every rule to the tree at `root`. The error lists all findings.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let tree = Tree::read(root)?;
    let mut report = String::new();
    let mut findings_count = 0;
    for (name, rule) in RULES {
        for finding in rule(&tree) {
            findings_count += 1;
            report.push_str(&format!("{finding} [{name}]\n"));
        }
    }
    if findings_count > 0 {
        return Err(format!("{report}tidy: {findings_count} findings"));
    }
    println!(
        "tidy: {} rules hold for {} files in {} crates",
        RULES.len(),
        tree.files.len(),
        tree.crates().len()
    );
    Ok(())
}
