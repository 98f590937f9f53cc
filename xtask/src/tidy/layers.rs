use super::Finding;
use super::tree::{Crate, Dependency, Tree};

/// Where a package stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// On a floor: it may use what is on lower floors, and nothing beside it.
    Floor(u8),
    /// On the first floor, for tests: others may only dev-depend on it.
    TestKit,
    /// Beside the house: it may use everything, and nothing may use it.
    Tool,
}

/// The house. A new crate gets its line here.
const PLACES: [(&str, Place); 14] = [
    ("larder-core", Place::Floor(0)),
    ("larder-memory", Place::Floor(1)),
    ("larder-redis", Place::Floor(1)),
    ("larder-sql", Place::Floor(1)),
    ("larder-disk", Place::Floor(1)),
    ("larder-journal", Place::Floor(1)),
    ("larder-memcached", Place::Floor(1)),
    ("larder-testkit", Place::TestKit),
    ("larder", Place::Floor(2)),
    ("larder-audit", Place::Floor(3)),
    ("larder-server", Place::Floor(4)),
    ("larder-bench", Place::Tool),
    ("larder-fuzz", Place::Tool),
    ("xtask", Place::Tool),
];

/// Dependencies between packages of the project point down.
pub(super) fn dependencies_point_down(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in tree.crates() {
        let Some(place) = place_of(&package.name) else {
            let what =
                format!("{} stands on no floor; give it one in the tidy check", package.name);
            findings.push(Finding::in_file(package.manifest, what));
            continue;
        };
        let own = package.dependencies().into_iter().filter_map(|dependency| {
            let target = place_of(&dependency.package)?;
            let why = forbidden(place, target, &dependency)?;
            Some(format!("{} depends on {}: {why}", package.name, dependency.package))
        });
        findings.extend(own.map(|what| Finding::in_file(package.manifest, what)));
    }
    findings
}

/// Every package takes the lints of the workspace.
pub(super) fn lints_are_inherited(tree: &Tree) -> Vec<Finding> {
    let inherits = |package: &Crate<'_>| {
        let lints = package.table.get("lints").and_then(|lints| lints.get("workspace"));
        lints.and_then(toml::Value::as_bool) == Some(true)
    };
    let without = tree.crates().into_iter().filter(|package| !inherits(package));
    without
        .map(|package| Finding::in_file(package.manifest, "it lacks `[lints] workspace = true`"))
        .collect()
}

/// `ARCHITECTURE.md` names the folder of every package.
pub(super) fn the_map_names_every_crate(tree: &Tree) -> Vec<Finding> {
    const MAP: &str = "ARCHITECTURE.md";
    let Some(map) = tree.file(MAP) else {
        return vec![Finding::in_file(MAP, "it is missing")];
    };
    let crates = tree.crates();
    let unnamed = crates.iter().filter(|package| !names(&map.text, package.folder()));
    unnamed
        .map(|package| Finding::in_file(MAP, format!("it does not name {}", package.folder())))
        .collect()
}

fn place_of(package: &str) -> Option<Place> {
    PLACES.iter().find(|(name, _)| *name == package).map(|(_, place)| *place)
}

/// Why a package at `from` may not depend on one at `to`, if it may not.
fn forbidden(from: Place, to: Place, dependency: &Dependency) -> Option<&'static str> {
    let higher = "a lower floor must not see a higher one";
    let sibling = "packages on one floor must not see each other";
    match (from, to) {
        (_, Place::Tool) => Some("nothing depends on a tool"),
        (Place::Tool, _) => None,
        (Place::TestKit, Place::TestKit) => Some(sibling),
        (_, Place::TestKit) if dependency.is_dev => None,
        (_, Place::TestKit) => Some("the testkit is for tests: make it a dev-dependency"),
        (Place::TestKit, Place::Floor(to)) => (to > 0).then_some(higher),
        (Place::Floor(from), Place::Floor(to)) if to > from => Some(higher),
        (Place::Floor(from), Place::Floor(to)) if to == from => Some(sibling),
        (Place::Floor(_), Place::Floor(_)) => None,
    }
}

/// Whether the text contains the folder as a whole path, so that `crates/core`
/// is not found in `crates/core-extra`.
fn names(text: &str, folder: &str) -> bool {
    text.match_indices(folder).any(|(at, _)| {
        let next = text[at + folder.len()..].chars().next();
        !next.is_some_and(|next| next.is_alphanumeric() || next == '-' || next == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::super::tree::made_up::tree;
    use super::*;

    fn whats(findings: Vec<Finding>) -> Vec<String> {
        findings.into_iter().map(|finding| finding.to_string()).collect()
    }

    /// What the rule says about a package with this dependency section.
    fn judge(name: &str, section: &str) -> Vec<String> {
        let manifest = format!("[package]\nname = \"{name}\"\n{section}\n");
        whats(dependencies_point_down(&tree([("a/Cargo.toml", &manifest)])))
    }

    #[test]
    fn a_lower_floor_must_not_see_a_higher_one() {
        let found = judge("larder-memory", "[dependencies]\nlarder.workspace = true");
        assert_eq!(
            found,
            [
                "a/Cargo.toml: larder-memory depends on larder: a lower floor must not see a higher one"
            ]
        );
        assert_eq!(judge("larder", "[dependencies]\nlarder-memory.workspace = true"), [""; 0]);
    }

    #[test]
    fn every_kind_of_dependency_counts_under_every_name() {
        for section in [
            "[build-dependencies]\nlarder = \"0.1\"",
            "[dev-dependencies]\nlarder = \"0.1\"",
            "[target.'cfg(unix)'.dependencies]\nlarder = \"0.1\"",
            "[dependencies]\nengine = { package = \"larder\", version = \"0.1\" }",
            "[dependencies.engine]\npackage = \"larder\"\npath = \"../cache\"",
        ] {
            assert_eq!(judge("larder-core", section).len(), 1, "{section}");
        }
    }

    #[test]
    fn siblings_must_not_see_each_other() {
        let found = judge("larder-sql", "[dependencies]\nlarder-memory.workspace = true");
        assert!(found[0].contains("packages on one floor"), "{found:?}");
    }

    #[test]
    fn the_testkit_is_for_tests() {
        let kit = "larder-testkit.workspace = true";
        let found = judge("larder", &format!("[dependencies]\n{kit}"));
        assert!(found[0].contains("make it a dev-dependency"), "{found:?}");
        assert_eq!(judge("larder", &format!("[dev-dependencies]\n{kit}")), [""; 0]);
        let found = judge("larder-testkit", "[dependencies]\nlarder-memory.workspace = true");
        assert!(found[0].contains("a higher one"), "{found:?}");
    }

    #[test]
    fn a_tool_uses_everything_and_nothing_uses_it() {
        assert_eq!(judge("larder-bench", "[dependencies]\nlarder-server = \"0.1\""), [""; 0]);
        let found = judge("larder-server", "[dependencies]\nlarder-bench = \"0.1\"");
        assert!(found[0].contains("nothing depends on a tool"), "{found:?}");
    }

    #[test]
    fn a_package_without_a_floor_is_found() {
        assert!(judge("larder-novelty", "")[0].contains("stands on no floor"));
    }

    #[test]
    fn lints_must_be_inherited() {
        let bare = "[package]\nname = \"larder\"\n";
        let declined = "[package]\nname = \"larder\"\n[lints]\nworkspace = false\n";
        let taken = "[package]\nname = \"larder\"\n[lints]\nworkspace = true\n";
        for (manifest, count) in [(bare, 1), (declined, 1), (taken, 0)] {
            let found = lints_are_inherited(&tree([("a/Cargo.toml", manifest)]));
            assert_eq!(found.len(), count, "{manifest}");
        }
    }

    #[test]
    fn the_map_must_name_each_folder() {
        let manifest = "[package]\nname = \"larder-core\"\n";
        for (map, count) in
            [("`crates/core`: the contract", 0), ("`crates/core-extra`", 1), ("nothing", 1)]
        {
            let files = [("crates/core/Cargo.toml", manifest), ("ARCHITECTURE.md", map)];
            assert_eq!(the_map_names_every_crate(&tree(files)).len(), count, "{map}");
        }
        let found = whats(the_map_names_every_crate(&tree([("crates/core/Cargo.toml", manifest)])));
        assert_eq!(found, ["ARCHITECTURE.md: it is missing"]);
    }
}
