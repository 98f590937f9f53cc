use super::Finding;
use super::tree::{File, Tree};

const RUST_LINES_MAX: usize = 700;
const README_LINES_MAX: usize = 150;

/// What must not stand in committed text. The patterns are put together from
/// pieces so that this file does not contain them.
const LEFT_OVERS: [(&str, &str); 8] = [
    (concat!("/ho", "me/"), "a path of one machine"),
    (concat!("/ro", "ot/"), "a path of one machine"),
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("/Us", "ers/"), "a path of one machine"),
    (concat!(":\\Us", "ers\\"), "a path of one machine"),
    (concat!("TO", "DO"), "a note of unfinished work"),
    (concat!("FIX", "ME"), "a note of unfinished work"),
    (concat!("to", "do!"), "unfinished code"),
];

/// A file longer than this is more than one thing.
pub(super) fn rust_files_are_short(tree: &Tree) -> Vec<Finding> {
    let rust = tree.files.iter().filter(|file| file.path.ends_with(".rs"));
    rust.filter_map(|file| too_long(file, RUST_LINES_MAX)).collect()
}

/// The README is the front door, not the house.
pub(super) fn the_readme_is_short(tree: &Tree) -> Vec<Finding> {
    const README: &str = "README.md";
    match tree.file(README) {
        None => vec![Finding::in_file(README, "it is missing")],
        Some(file) => too_long(file, README_LINES_MAX).into_iter().collect(),
    }
}

/// No path of somebody's machine and no note of unfinished work.
pub(super) fn nothing_is_left_over(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        for (index, line) in file.text.lines().enumerate() {
            for (pattern, what) in LEFT_OVERS {
                if stands_alone(line, pattern) {
                    let what = format!("{what}: `{pattern}`");
                    findings.push(Finding::on_line(&file.path, index + 1, what));
                }
            }
        }
    }
    findings
}

fn too_long(file: &File, lines_max: usize) -> Option<Finding> {
    let lines = file.text.lines().count();
    let what = || format!("it has {lines} lines; {lines_max} is the most");
    (lines > lines_max).then(|| Finding::in_file(&file.path, what()))
}

/// Whether the pattern occurs other than as a part of a longer word or path.
fn stands_alone(line: &str, pattern: &str) -> bool {
    line.match_indices(pattern).any(|(at, _)| {
        let joins = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
        let before = line[..at].chars().next_back();
        let after = line[at + pattern.len()..].chars().next();
        // What follows a path pattern is the rest of the path.
        let ends = pattern.ends_with(['/', '\\', '!']) || !after.is_some_and(joins);
        let starts = pattern.starts_with(':') || !before.is_some_and(joins);
        starts && ends
    })
}

#[cfg(test)]
mod tests {
    use super::super::tree::made_up::tree;
    use super::*;

    #[test]
    fn a_rust_file_may_have_the_limit_and_not_one_line_more() {
        let longest = "\n".repeat(RUST_LINES_MAX);
        let longer = "\n".repeat(RUST_LINES_MAX + 1);
        let files = [("a.rs", &*longest), ("b.rs", &*longer), ("c.md", &*longer)];
        let found = rust_files_are_short(&tree(files));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].to_string(), "b.rs: it has 701 lines; 700 is the most");
    }

    #[test]
    fn the_readme_must_be_there_and_short() {
        assert_eq!(the_readme_is_short(&tree([])).len(), 1);
        let longest = "\n".repeat(README_LINES_MAX);
        assert_eq!(the_readme_is_short(&tree([("README.md", &longest)])), []);
        let longer = "\n".repeat(README_LINES_MAX + 1);
        assert_eq!(the_readme_is_short(&tree([("README.md", &longer)])).len(), 1);
    }

    #[test]
    fn each_left_over_is_found_where_it_stands() {
        for (pattern, _) in LEFT_OVERS {
            let text = format!("fine\n// see {pattern} ann\n");
            let found = nothing_is_left_over(&tree([("notes.md", &text)]));
            assert_eq!(found.len(), 1, "{pattern}");
            assert_eq!((found[0].path.as_str(), found[0].line), ("notes.md", Some(2)));
        }
    }

    #[test]
    fn longer_words_and_relative_paths_are_no_left_overs() {
        for text in [
            concat!("MASTO", "DON"),
            concat!("TO", "DOS"),
            concat!("net", "work/", "http"),
            concat!("frame", "wo", "rk/x"),
            concat!("api/wo", "rk/"),
            concat!("../wo", "rk/x"),
        ] {
            assert_eq!(nothing_is_left_over(&tree([("a.md", text)])), [], "{text}");
        }
    }
}
