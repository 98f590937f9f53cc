//! Rules for `[caches.NAME.write]`.

use larder_core::KeyPattern;
use larder_sql::{Dialect, QueryOptions};

use super::Checker;
use crate::config::{CacheOptions, policy};

/// The place of a statement in the file, by its name.
pub(crate) fn statement_path<'p>(cache: &'p str, statement: &'p str) -> Vec<&'p str> {
    let mut path = vec!["caches", cache, "write"];
    match statement.split_once('.') {
        Some((add, field)) => path.extend([add, field]),
        None => path.push(statement),
    }
    path
}

/// `pattern` is that of a cache with a query.
pub(super) fn check(
    checker: &mut Checker<'_>,
    name: &str,
    cache: &CacheOptions,
    pattern: Option<&KeyPattern>,
    dialects: &[Dialect],
) {
    let Some(write) = &cache.write else { return };
    let statements = write.statements();
    let Some(query) = &cache.query else {
        if let Some((statement, _)) = statements.first() {
            checker.error(
                &statement_path(name, statement),
                "a table is written without statements",
                "leave it out, or write a query too",
            );
        }
        return;
    };
    if statements.is_empty() {
        checker.error(
            &["caches", name, "write"],
            "a query is not written without statements",
            "add put, remove, patch or add, or serve the table itself",
        );
        return;
    }
    let Some(pattern) = pattern else { return };
    let options = QueryOptions::new(pattern.clone(), query).list(cache.list);
    let written = write.to_sql();
    let mut errors = Vec::new();
    // Where the kind of database is not known, what one kind accepts will do.
    for dialect in dialects {
        match options.check_writes(*dialect, &written) {
            Ok(()) => return,
            Err(error) => errors.push(error),
        }
    }
    let Some(error) = errors.first() else { return };
    let of = |wanted: &str| error.context().find(|(name, _)| *name == wanted).map(|(_, it)| it);
    let remedy = error.remedy_text().unwrap_or("write one INSERT, UPDATE or DELETE").to_owned();
    let message = policy::without_remedy(error);
    let Some(statement) = of("statement") else {
        return checker.error(&["caches", name, "write"], message, remedy);
    };
    let path = statement_path(name, statement);
    let text = statements.iter().find(|(known, _)| known == statement).map_or("", |(_, it)| it);
    let place = of("parameter").and_then(|it| Some((text.find(&format!(":{it}"))?, it.len() + 1)));
    match place {
        Some((at, length)) => checker.error_inside(&path, at..at + length, message, remedy),
        None => checker.error(&path, message, remedy),
    }
}
