//! Whether a configuration makes sense: what the parser cannot see, with the
//! place, the limit and the remedy.

mod caches;
mod events;
mod front;
mod journal;
mod keys;
mod origins;
mod sentinel;
mod server;
mod shared_tiers;
mod writes;

pub use keys::KeyShape;
pub use server::is_protected;
pub(crate) use writes::statement_path;

use std::ops::Range;

use super::diagnostic::{Diagnostic, Diagnostics};
use super::parse::Parsed;
use super::source::Source;

/// Reads a configuration and checks it.
#[must_use]
pub fn check(source: &Source) -> Parsed {
    let mut parsed = super::parse(source);
    if parsed.is_read {
        let mut checker = Checker { source, parsed: &parsed, found: Vec::new() };
        server::check(&mut checker);
        shared_tiers::check(&mut checker);
        front::check(&mut checker);
        origins::check(&mut checker);
        caches::check(&mut checker);
        journal::check(&mut checker);
        events::check(&mut checker);
        let found = checker.found;
        parsed.diagnostics.0.extend(found);
    }
    parsed.diagnostics.sort();
    parsed
}

/// What the rules share: the options, and a place to put what is wrong.
struct Checker<'a> {
    source: &'a Source,
    parsed: &'a Parsed,
    found: Vec<Diagnostic>,
}

impl Checker<'_> {
    /// Notes an error about the value of an option.
    fn error(&mut self, path: &[&str], message: impl Into<String>, remedy: impl Into<String>) {
        let diagnostic = Diagnostic::error(message).remedy(remedy);
        self.note(path, diagnostic);
    }

    /// Notes a warning about the value of an option.
    fn warning(&mut self, path: &[&str], message: impl Into<String>, remedy: impl Into<String>) {
        let diagnostic = Diagnostic::error(message).as_warning().remedy(remedy);
        self.note(path, diagnostic);
    }

    fn note(&mut self, path: &[&str], diagnostic: Diagnostic) {
        let locations = &self.parsed.locations;
        let span = match locations.find(path) {
            Some(spans) => Some(spans.value.clone()),
            None => locations.nearest(path).map(|spans| spans.key.clone()),
        };
        self.found.push(diagnostic.at(self.source, span));
    }

    /// Notes an error at a place inside the text of a string option.
    fn error_inside(
        &mut self,
        path: &[&str],
        inside: Range<usize>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let Some(spans) = self.parsed.locations.find(path) else {
            return self.error(path, message, remedy);
        };
        // Where the text holds escapes the offset cannot be told; the whole value is shown then.
        let written = &self.source.text[spans.value.clone()];
        let quotes = written.len() - written.trim_start_matches(['"', '\'']).len();
        let span = match written.contains('\\') || quotes > 1 {
            true => spans.value.clone(),
            false => {
                let start = spans.value.start + quotes;
                start + inside.start..start + inside.end
            }
        };
        self.found.push(Diagnostic::error(message).remedy(remedy).at(self.source, Some(span)));
    }

    /// Whether the file sets this option, even if to something unreadable.
    fn is_set(&self, path: &[&str]) -> bool {
        self.parsed.locations.find(path).is_some()
    }
}

/// Reads a configuration the way `larder check` does, for fuzzing: any bytes
/// give diagnostics or options, never a panic.
pub fn fuzz(bytes: &[u8]) -> Diagnostics {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let parsed = check(&Source { name: "fuzz.toml".to_owned(), text });
    // Rendering reads the spans of every diagnostic.
    let _ = parsed.diagnostics.to_string();
    parsed.diagnostics
}
