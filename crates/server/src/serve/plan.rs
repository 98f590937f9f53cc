//! Which caches there will be: the configured ones, and one for each table that
//! is served without being declared.

use larder_core::KeyPattern;
use larder_sql::{Introspection, QueryOptions, Table, TableKind};

use super::dependencies::{PlannedDependencies, dependencies};
use crate::config::template::Template;
use crate::config::{CacheOptions, Diagnostic, KeyShape, OriginOptions, Settings, suggest};

/// What a database holds, under the name of its origin.
#[derive(Clone, Debug)]
pub struct Found {
    /// The origin's name.
    pub origin: String,
    /// Its tables.
    pub introspection: Introspection,
}

/// One cache to build.
#[derive(Clone, Debug)]
pub struct PlannedCache {
    /// Its name.
    pub name: String,
    /// Its entry in the configuration, if it has one.
    pub config_name: Option<String>,
    /// The origin it loads from.
    pub origin: String,
    /// Its keys.
    pub pattern: KeyPattern,
    /// What it loads.
    pub source: PlannedSource,
}

/// What a cache loads.
#[derive(Clone, Debug)]
pub enum PlannedSource {
    /// The rows of a table.
    Table(Box<Table>),
    /// What a query returns.
    Query(Box<QueryOptions>),
}

impl PlannedSource {
    /// In words: `table product`, `query`, `list query`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Table(table) if table.kind == TableKind::View => format!("view {}", table.name),
            Self::Table(table) => format!("table {}", table.name),
            Self::Query(query) if query.list => "list query".to_owned(),
            Self::Query(_) => "query".to_owned(),
        }
    }
}

/// A table that is not served, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SkippedTable {
    /// The origin it belongs to.
    pub origin: String,
    /// Its name.
    pub table: String,
    /// Why.
    pub reason: String,
    /// What to do to have it served; empty where nobody wants it served.
    pub remedy: String,
}

/// Every cache to build, and what stands in the way of others.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The caches.
    pub caches: Vec<PlannedCache>,
    /// The tables without one.
    pub skipped: Vec<SkippedTable>,
    /// What is wrong with the configuration.
    pub mistakes: Vec<Diagnostic>,
    /// What depends on what, as far as the caches are known.
    pub dependencies: PlannedDependencies,
}

/// Plans the caches of a configuration over what its databases hold.
#[must_use]
pub fn plan(settings: &Settings, found: &[Found]) -> Plan {
    let mut plan = Plan::default();
    for (name, options) in &settings.config.caches {
        if options.enabled == Some(false) {
            continue;
        }
        let Some(origin) = origin_of(settings, name, options, &mut plan) else { continue };
        match &options.query {
            Some(query) => plan_query(&mut plan, name, options, origin, query),
            None => plan_table(settings, &mut plan, name, options, origin, found),
        }
    }
    for found in found {
        if let Some(options) = settings.config.origins.get(&found.origin) {
            plan_undeclared(settings, &mut plan, options, found);
        }
    }
    plan.dependencies = dependencies(settings, &plan.caches);
    // What is not there may be in a database that was not asked.
    let is_asked = |name: &String| found.iter().any(|found| &found.origin == name);
    if settings.config.origins.keys().all(is_asked) {
        plan.mistakes.extend(plan.dependencies.mistakes.iter().cloned());
    }
    plan
}

/// The entry of the configuration that gives a table its policy, if one does.
#[must_use]
pub(super) fn entry_of_table<'s>(
    settings: &'s Settings,
    origin: &str,
    table: &Table,
) -> Option<&'s str> {
    let is_of_origin = |options: &CacheOptions| match &options.origin {
        Some(name) => name == origin,
        None => settings.config.origins.len() == 1,
    };
    settings
        .config
        .caches
        .iter()
        .filter(|(_, options)| options.query.is_none() && is_of_origin(options))
        .find(|(name, options)| is_called(table, options.table.as_deref().unwrap_or(name)))
        .map(|(name, _)| name.as_str())
}

fn origin_of<'s>(
    settings: &'s Settings,
    name: &str,
    options: &'s CacheOptions,
    plan: &mut Plan,
) -> Option<&'s str> {
    let origins = &settings.config.origins;
    let origin = match &options.origin {
        Some(origin) => origins.get_key_value(origin),
        None if origins.len() == 1 => origins.first_key_value(),
        None => None,
    };
    if origin.is_none() {
        plan.mistakes.push(settings.error_at(
            &["caches", name, "origin"],
            format!("the cache `{name}` has no origin to load from"),
            "declare one as [origins.NAME] with a url, or give --database URL".to_owned(),
        ));
    }
    origin.map(|(name, _)| name.as_str())
}

fn plan_query(plan: &mut Plan, name: &str, options: &CacheOptions, origin: &str, query: &str) {
    // Checked before; a mistake here was reported there.
    let Some(pattern) = options.key.as_deref().and_then(|key| key.parse::<KeyPattern>().ok())
    else {
        return;
    };
    let mut query = QueryOptions::new(pattern.clone(), query).list(options.list);
    for (parameter, kind) in &options.types {
        query = query.parameter_type(parameter, (*kind).into());
    }
    plan.caches.push(PlannedCache {
        name: name.to_owned(),
        config_name: Some(name.to_owned()),
        origin: origin.to_owned(),
        pattern,
        source: PlannedSource::Query(Box::new(query)),
    });
}

fn plan_table(
    settings: &Settings,
    plan: &mut Plan,
    name: &str,
    options: &CacheOptions,
    origin: &str,
    found: &[Found],
) {
    let wanted = options.table.as_deref().unwrap_or(name);
    let Some(found) = found.iter().find(|found| found.origin == origin) else { return };
    let tables = &found.introspection.tables;
    let Some(table) = tables.iter().find(|table| is_called(table, wanted)) else {
        let skipped = &found.introspection.skipped;
        let (message, remedy) = match skipped.iter().find(|it| it.name.eq_ignore_ascii_case(wanted))
        {
            Some(it) => {
                (format!("the table `{wanted}` cannot be served: {}", it.reason), it.remedy.clone())
            }
            None => {
                let known = tables.iter().map(|table| table.name.as_str());
                let remedy = match suggest::closest(wanted, known) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => "name a table of the database, or write a query".to_owned(),
                };
                (format!("the origin `{origin}` has no table `{wanted}`"), remedy)
            }
        };
        let path = ["caches", name, "table"];
        plan.mistakes.push(settings.error_at(&path, message, remedy));
        return;
    };
    check_columns(settings, plan, name, options, table);
    add_table(plan, name.to_owned(), Some(name.to_owned()), origin, table);
}

/// The columns that tags and rules name are there.
fn check_columns(
    settings: &Settings,
    plan: &mut Plan,
    name: &str,
    options: &CacheOptions,
    table: &Table,
) {
    let columns = || table.columns.iter().map(|column| column.name.as_str());
    let mut check = |option: &str, wanted: &str| {
        if columns().any(|known| known == wanted)
            || (option == "tags" && table.key_pattern.parameters().iter().any(|it| it == wanted))
        {
            return;
        }
        let remedy = match suggest::closest(wanted, columns()) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("its columns are {}", columns().collect::<Vec<_>>().join(", ")),
        };
        let message = format!("the table `{}` has no column `{wanted}`", table.name);
        plan.mistakes.push(settings.error_at(&["caches", name, option], message, remedy));
    };
    for tag in options.tags.iter().filter_map(|text| Template::parse(text).ok()) {
        tag.names().for_each(|wanted| check("tags", wanted));
    }
    if let Some(column) = options.ttl_by_age.as_ref().and_then(|rule| rule.column.as_deref()) {
        check("ttl_by_age", column);
    }
}

fn plan_undeclared(settings: &Settings, plan: &mut Plan, options: &OriginOptions, found: &Found) {
    if !options.serve_tables {
        return;
    }
    let is_left_out = |name: &str| {
        let included = &options.include_tables;
        (!included.is_empty() && !included.iter().any(|glob| matches_glob(glob, name)))
            || options.exclude_tables.iter().any(|glob| matches_glob(glob, name))
    };
    for table in &found.introspection.tables {
        // A declared cache serves the table; one that is turned off means not to.
        if is_left_out(&table.name) || entry_of_table(settings, &found.origin, table).is_some() {
            continue;
        }
        let name = table.key_pattern.prefix().trim_end_matches(':').to_owned();
        add_table(plan, name, None, &found.origin, table);
    }
    for skipped in &found.introspection.skipped {
        if !is_left_out(&skipped.name) {
            plan.skipped.push(SkippedTable {
                origin: found.origin.clone(),
                table: skipped.name.clone(),
                reason: skipped.reason.clone(),
                remedy: skipped.remedy.clone(),
            });
        }
    }
}

/// Adds the cache of a table, unless its keys or its name are taken.
fn add_table(
    plan: &mut Plan,
    name: String,
    config_name: Option<String>,
    origin: &str,
    table: &Table,
) {
    let shape = KeyShape::of(&table.key_pattern);
    let other = plan
        .caches
        .iter()
        .find(|cache| cache.name == name || KeyShape::of(&cache.pattern).is_same(&shape));
    if let Some(other) = other {
        let reason = format!("its keys {} belong to the cache `{}`", table.key_pattern, other.name);
        plan.skipped.push(SkippedTable {
            origin: origin.to_owned(),
            table: table.name.clone(),
            reason,
            remedy: "declare a cache with a query and a key of its own".to_owned(),
        });
        return;
    }
    plan.caches.push(PlannedCache {
        name,
        config_name,
        origin: origin.to_owned(),
        pattern: table.key_pattern.clone(),
        source: PlannedSource::Table(Box::new(table.clone())),
    });
}

fn is_called(table: &Table, name: &str) -> bool {
    table.name == name
        || name
            .split_once('.')
            .is_some_and(|(schema, name)| table.schema == schema && table.name == name)
}

/// Whether a name matches a pattern in which `*` stands for any text.
fn matches_glob(glob: &str, name: &str) -> bool {
    let mut parts = glob.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let parts: Vec<_> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (glob, name, matches) in [
            ("*", "anything", true),
            ("audit", "audit", true),
            ("audit", "audits", false),
            ("*_audit", "order_audit", true),
            ("*_audit", "order_audits", false),
            ("a*c*e", "abcde", true),
            ("a*c*e", "acd", false),
            ("ab*ba", "aba", false),
            ("", "", true),
        ] {
            assert_eq!(matches_glob(glob, name), matches, "{glob} {name}");
        }
    }
}
