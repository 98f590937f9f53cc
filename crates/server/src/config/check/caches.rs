//! Rules for `[defaults]` and `[caches.NAME]`.

use larder::DependencyGraph;
use larder_core::KeyPattern;
use larder_sql::{Dialect, QueryOptions};

use super::{Checker, KeyShape, journal, writes};
use crate::config::template::Template;
use crate::config::{CacheOptions, PolicyOptions, policy, suggest};

pub(super) fn check(checker: &mut Checker<'_>) {
    ttl_and_class(checker, &["defaults"], &checker.parsed.config.defaults);
    let mut patterns: Vec<(&str, KeyPattern)> = Vec::new();
    for (cache_name, cache) in &checker.parsed.config.caches {
        let path = ["caches", cache_name.as_str()];
        name(checker, &path, cache_name);
        ttl_and_class(checker, &path, &cache.policy());
        if cache.enabled == Some(false) {
            continue;
        }
        source(checker, cache_name, cache);
        origin(checker, cache_name, cache);
        let pattern = key(checker, cache_name, cache);
        let dialects = dialects(checker, cache);
        writes::check(checker, cache_name, cache, pattern.as_ref(), &dialects);
        journal::cache(checker, cache_name, cache);
        tags(checker, cache_name, cache);
        depends_on(checker, cache_name, cache);
        ttl_by_age(checker, cache_name, cache);
        policy_rules(checker, cache_name, cache);
        if let Some(pattern) = pattern {
            overlap(checker, cache_name, &pattern, &patterns);
            patterns.push((cache_name, pattern));
        }
    }
}

/// Names stand in URLs, labels of metrics and file positions.
pub(super) fn name(checker: &mut Checker<'_>, path: &[&str], name: &str) {
    const NAME_LENGTH_MAX: usize = 64;
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > NAME_LENGTH_MAX || !name.chars().all(is_allowed) {
        checker.error(
            path,
            format!("\"{}\" cannot be a name", name.escape_debug()),
            "use up to 64 letters, digits, `_`, `-` and `.`",
        );
    }
}

fn ttl_and_class(checker: &mut Checker<'_>, path: &[&str], policy: &PolicyOptions) {
    if policy.ttl.is_some() && policy.ttl_class.is_some() {
        let path: Vec<_> = path.iter().copied().chain(["ttl_class"]).collect();
        checker.error(&path, "ttl and ttl_class are both set", "keep one of them");
    }
}

/// What the cache is filled from: a query, or a table.
fn source(checker: &mut Checker<'_>, name: &str, cache: &CacheOptions) {
    let path = |option: &'static str| ["caches", name, option];
    if cache.query.is_some() && cache.table.is_some() {
        checker.error(&path("table"), "query and table are both set", "keep one of them");
    }
    if cache.query.is_none() && !checker.is_set(&path("query")) {
        if cache.list {
            let message = "a table has one row for a key, so there is no list";
            checker.error(&path("list"), message, "write a query that returns the rows");
        }
        if cache.key.is_some() {
            checker.error(
                &path("key"),
                "the keys of a table are its name and its primary key",
                "leave key out, or write a query for keys of another form",
            );
        }
    }
}

fn origin(checker: &mut Checker<'_>, name: &str, cache: &CacheOptions) {
    let origins = &checker.parsed.config.origins;
    let path = ["caches", name, "origin"];
    match &cache.origin {
        Some(origin) if !origins.contains_key(origin) => {
            let remedy = match suggest::closest(origin, origins.keys().map(String::as_str)) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("declare it as [origins.{origin}] with a url"),
            };
            checker.error(&path, format!("there is no origin `{origin}`"), remedy);
        }
        None if origins.len() > 1 => {
            let names: Vec<_> = origins.keys().map(String::as_str).collect();
            checker.error(
                &path,
                format!("the cache `{name}` does not say which origin it asks"),
                format!("set origin to one of {}", names.join(", ")),
            );
        }
        // Where the file has none, `larder serve --database URL` may name it.
        _ => {}
    }
}

/// The pattern of a cache with a query, if it is one.
fn key(checker: &mut Checker<'_>, name: &str, cache: &CacheOptions) -> Option<KeyPattern> {
    let path = ["caches", name, "key"];
    let query = cache.query.as_deref()?;
    let Some(text) = &cache.key else {
        if !checker.is_set(&path) {
            checker.error(
                &path,
                format!("the cache `{name}` has a query and no key"),
                format!("add key = \"{name}:{{id}}\" with the parameters of the query"),
            );
        }
        return None;
    };
    let pattern: KeyPattern = match text.parse() {
        Ok(pattern) => pattern,
        Err(error) => {
            let text = error.to_string();
            let (what, remedy) = text.split_once("; ").unwrap_or((&text, ""));
            checker.error(&path, what, remedy);
            return None;
        }
    };
    query_rules(checker, name, cache, query, &pattern);
    for parameter in cache.types.keys() {
        if !pattern.parameters().contains(parameter) {
            checker.error(
                &["caches", name, "types", parameter],
                format!("the key has no parameter `{parameter}`"),
                format!("its parameters are {}", pattern.parameters().join(", ")),
            );
        }
    }
    Some(pattern)
}

/// The kinds of database that it can be: where that is not known, what one kind
/// accepts will do.
fn dialects(checker: &Checker<'_>, cache: &CacheOptions) -> Vec<Dialect> {
    let origins = &checker.parsed.config.origins;
    let origin =
        cache.origin.as_ref().map_or_else(|| origins.values().next(), |it| origins.get(it));
    let url = origin.and_then(|origin| origin.url.as_deref());
    match url.and_then(Dialect::of_url) {
        Some(dialect) => vec![dialect],
        None => vec![Dialect::Postgres, Dialect::MySql, Dialect::Sqlite],
    }
}

/// The query is one SELECT with the parameters of the key.
fn query_rules(
    checker: &mut Checker<'_>,
    name: &str,
    cache: &CacheOptions,
    query: &str,
    pattern: &KeyPattern,
) {
    let dialects = dialects(checker, cache);
    let options = QueryOptions::new(pattern.clone(), query);
    let mut errors = Vec::new();
    for dialect in dialects {
        match options.check(dialect) {
            Ok(()) => return,
            Err(error) => errors.push(error),
        }
    }
    let Some(error) = errors.first() else { return };
    let parameter = error.context().find(|(name, _)| *name == "parameter").map(|(_, it)| it);
    let known = pattern.parameters().iter().map(String::as_str);
    let meant =
        parameter.and_then(|it| suggest::closest(it, known)).filter(|it| Some(*it) != parameter);
    let remedy = match meant {
        Some(meant) => format!("did you mean :{meant}?"),
        None => error.remedy_text().unwrap_or("write one SELECT").to_owned(),
    };
    let path = ["caches", name, "query"];
    let place = parameter.and_then(|it| Some((query.find(&format!(":{it}"))?, it.len() + 1)));
    let message = policy::without_remedy(error);
    match place {
        Some((at, length)) => checker.error_inside(&path, at..at + length, message, remedy),
        None => checker.error(&path, message, remedy),
    }
}

fn tags(checker: &mut Checker<'_>, name: &str, cache: &CacheOptions) {
    for (index, tag) in cache.tags.iter().enumerate() {
        if let Err(error) = Template::parse(tag) {
            let index = index.to_string();
            let path = ["caches", name, "tags", index.as_str()];
            checker.error_inside(
                &path,
                error.at..tag.len().max(error.at + 1),
                format!("the tag \"{}\": {}", tag.escape_debug(), error.why),
                "write it like artist:{artist_id}",
            );
        }
    }
}

/// What can be told without a database: that they can be read.
fn depends_on(checker: &mut Checker<'_>, name: &str, cache: &CacheOptions) {
    for (index, text) in cache.depends_on.iter().enumerate() {
        if let Err(error) = DependencyGraph::check_text(name, text) {
            let index = index.to_string();
            let remedy = error.remedy_text().unwrap_or(DEPENDS_ON).to_owned();
            let message =
                format!("the dependency \"{}\": {}", text.escape_debug(), error.message());
            checker.error(&["caches", name, "depends_on", &index], message, remedy);
        }
    }
}

const DEPENDS_ON: &str = "write it like `customer:{customer_id}`, `tag:price-list:{list}` or \
                          `service:billing:invoice:{id}`";

fn ttl_by_age(checker: &mut Checker<'_>, name: &str, cache: &CacheOptions) {
    let Some(options) = &cache.ttl_by_age else { return };
    let path = |option: &'static str| ["caches", name, "ttl_by_age", option];
    if options.column.is_none() && !checker.is_set(&path("column")) {
        checker.error(
            &path("column"),
            "`ttl_by_age` lacks the column that says when a row was changed",
            "add column = \"updated_at\" or the like",
        );
    }
    let Some(rules) = &options.rules else { return };
    for pair in rules.windows(2) {
        if pair[1].under <= pair[0].under {
            checker.error(
                &path("rules"),
                format!(
                    "the rule under {} never applies: {} comes first",
                    pair[1].under, pair[0].under
                ),
                "put the rules in order of age",
            );
        }
    }
    if rules.is_empty() {
        let message = "a list of rules without a rule";
        checker.error(&path("rules"), message, "leave `rules` out for the default ones");
    }
}

fn policy_rules(checker: &mut Checker<'_>, name: &str, cache: &CacheOptions) {
    let effective = policy::resolve(&checker.parsed.config, Some(name), None);
    // A cache always has an origin: if not in the file, then on the command line.
    if effective.ttl().duration().is_some_and(|ttl| ttl.is_zero()) {
        let message = format!("`{name}` would keep nothing: its ttl is 0s");
        checker.error(&["caches", name, "ttl"], message, "set a duration, or enabled = false");
        return;
    }
    for problem in effective.to_policy().problems(true) {
        let option = policy::option_of(&problem).unwrap_or("ttl");
        let own = ["caches", name, option];
        let path = if checker.is_set(&own) || !checker.is_set(&["defaults", option]) {
            own
        } else {
            ["caches", name, ""]
        };
        let remedy = problem.remedy_text().unwrap_or_default().to_owned();
        checker.error(&path, policy::without_remedy(&problem), remedy);
    }
    let class = effective.class();
    if !class.may_be_cached() {
        checker.warning(
            &["caches", name, "class"],
            format!("{class} data is never kept: each read of `{name}` asks the origin"),
            "leave the cache out if clients need not read this data through Larder",
        );
    } else if cache.negative_ttl.is_some_and(|ttl| {
        ttl.0.zip(effective.ttl().duration()).is_some_and(|(negative, ttl)| negative > ttl)
    }) {
        checker.warning(
            &["caches", name, "negative_ttl"],
            "\"there is none\" is believed longer than a value is",
            "make negative_ttl shorter than ttl",
        );
    }
}

fn overlap(
    checker: &mut Checker<'_>,
    name: &str,
    pattern: &KeyPattern,
    others: &[(&str, KeyPattern)],
) {
    let shape = KeyShape::of(pattern);
    let path = ["caches", name, "key"];
    for (other_name, other) in others {
        let other_shape = KeyShape::of(other);
        if shape.is_same(&other_shape) {
            checker.error(
                &path,
                format!("the keys {pattern} already belong to the cache `{other_name}`"),
                "give one of them another first part",
            );
        } else if shape.overlaps(&other_shape) && shape.rank() == other_shape.rank() {
            checker.error(
                &path,
                format!("some keys match both {pattern} and {other} of the cache `{other_name}`"),
                "make one of them longer or more specific",
            );
        }
    }
}
