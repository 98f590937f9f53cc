use std::path::Path;
use std::process::Command;

use toml::{Table, Value};

/// The committed text files of the project; in tests, a made-up set.
#[derive(Default)]
pub(super) struct Tree {
    pub(super) files: Vec<File>,
}

pub(super) struct File {
    /// Relative to the root, with `/` between its parts.
    pub(super) path: String,
    pub(super) text: String,
}

/// A package of the workspace.
pub(super) struct Crate<'t> {
    pub(super) name: String,
    /// The path of its manifest.
    pub(super) manifest: &'t str,
    pub(super) table: Table,
}

/// A dependency as a manifest declares it.
pub(super) struct Dependency {
    /// The name of the package, whatever the manifest calls it.
    pub(super) package: String,
    pub(super) is_dev: bool,
}

impl Tree {
    /// Reads what git tracks or would track. Files that are not text are left
    /// out.
    pub(super) fn read(root: &Path) -> Result<Self, String> {
        let listing = Command::new("git")
            .arg("-C")
            .arg(root)
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .output()
            .map_err(|error| format!("git cannot be started: {error}"))?;
        if !listing.status.success() {
            let said = String::from_utf8_lossy(&listing.stderr);
            return Err(format!("git cannot list {}: {said}", root.display()));
        }
        let mut files = Vec::new();
        for path in String::from_utf8_lossy(&listing.stdout).split_terminator('\0') {
            // A tracked file may be deleted in the work tree.
            let Ok(bytes) = std::fs::read(root.join(path)) else { continue };
            if let Ok(text) = String::from_utf8(bytes) {
                files.push(File { path: path.to_owned(), text });
            }
        }
        Ok(Self { files })
    }

    pub(super) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The packages, in the order of their manifests. A manifest that is not
    /// TOML never gets here: cargo would not have started this program.
    pub(super) fn crates(&self) -> Vec<Crate<'_>> {
        let manifests = self.files.iter().filter(|file| file.path.ends_with("Cargo.toml"));
        manifests
            .filter_map(|file| {
                let table: Table = file.text.parse().ok()?;
                let name = table.get("package")?.get("name")?.as_str()?.to_owned();
                Some(Crate { name, manifest: &file.path, table })
            })
            .collect()
    }
}

impl Crate<'_> {
    /// The folder of the package, relative to the root.
    pub(super) fn folder(&self) -> &str {
        self.manifest.trim_end_matches("Cargo.toml").trim_end_matches('/')
    }

    /// Every dependency of every kind, for every target.
    pub(super) fn dependencies(&self) -> Vec<Dependency> {
        let mut found = Vec::new();
        collect(&self.table, &mut found);
        let targets = self.table.get("target").and_then(Value::as_table);
        for target in targets.into_iter().flat_map(Table::values) {
            collect(target.as_table().unwrap_or(&Table::new()), &mut found);
        }
        found
    }
}

fn collect(table: &Table, found: &mut Vec<Dependency>) {
    for (kind, is_dev) in
        [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)]
    {
        for (name, declared) in table.get(kind).and_then(Value::as_table).into_iter().flatten() {
            let package = declared.get("package").and_then(Value::as_str).unwrap_or(name);
            found.push(Dependency { package: package.to_owned(), is_dev });
        }
    }
}

#[cfg(test)]
pub(super) mod made_up {
    use super::{File, Tree};

    /// A tree of these files.
    pub(in super::super) fn tree<const N: usize>(files: [(&str, &str); N]) -> Tree {
        let file = |(path, text): (&str, &str)| File { path: path.into(), text: text.into() };
        Tree { files: files.into_iter().map(file).collect() }
    }
}
