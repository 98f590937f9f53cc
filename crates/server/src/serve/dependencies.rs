//! What the caches depend on, from what the configuration says of each.

use larder::{DependencyGraph, GraphBuilder};
use larder_sql::Table;

use super::connect::with_source;
use super::plan::{PlannedCache, PlannedSource};
use crate::config::{Diagnostic, Settings, suggest};

/// What depends on what, if anything does.
#[derive(Clone, Debug, Default)]
pub struct PlannedDependencies {
    /// The graph of the caches there will be.
    pub graph: Option<DependencyGraph>,
    /// Dependencies that are wrong, or whose caches are not known yet.
    pub mistakes: Vec<Diagnostic>,
}

/// The graph of these caches.
#[must_use]
pub(super) fn dependencies(settings: &Settings, caches: &[PlannedCache]) -> PlannedDependencies {
    let mut planned = PlannedDependencies::default();
    let mut builder = DependencyGraph::builder();
    let mut declared = Vec::new();
    for cache in caches {
        let options =
            cache.config_name.as_ref().and_then(|name| settings.config.caches.get_key_value(name));
        let tags = options.map_or(&[][..], |(_, options)| &options.tags);
        builder = builder.cache(&cache.name, cache.pattern.as_str());
        builder = builder.tags(&cache.name, tags.iter().cloned());
        let Some((config_name, options)) = options else { continue };
        let texts = options.depends_on.iter().enumerate();
        declared.extend(texts.map(|(at, text)| Line { cache, config_name, at, text }));
    }
    if declared.is_empty() {
        return planned;
    }
    let depends =
        |builder: GraphBuilder, line: &Line<'_>| builder.depends(&line.cache.name, line.text);
    let built = declared.iter().fold(builder, depends).build_what_can_be();
    let (graph, wrong) = match built {
        Ok(built) => built,
        Err(error) => {
            let cache = error.context().find(|(name, _)| *name == "cache");
            let name = cache.map(|(_, name)| name.to_owned()).unwrap_or_default();
            let remedy = error.remedy_text().unwrap_or_default().to_owned();
            planned.mistakes.push(settings.error_at(
                &["caches", &name],
                with_source(&error),
                remedy,
            ));
            return planned;
        }
    };
    for (place, error) in wrong {
        let line = &declared[place];
        let message =
            format!("`{}` depends on `{}`: {}", line.cache.name, line.text, error.message());
        let remedy = closest(line.text, caches)
            .or_else(|| error.remedy_text().map(str::to_owned))
            .unwrap_or_default();
        planned.mistakes.push(line.mistake(settings, message, remedy));
    }
    for line in &declared {
        line.check_fields(settings, &graph, &mut planned.mistakes);
    }
    planned.graph = Some(graph);
    planned
}

/// The caches that depend on each other in a circle, each said once, for people to
/// know: it is no mistake.
#[must_use]
pub fn cycles(settings: &Settings, graph: &DependencyGraph) -> Vec<Diagnostic> {
    let name = |node: &usize| graph.nodes()[*node].name().to_owned();
    let describe = |group: Vec<usize>| {
        let names: Vec<_> = group.iter().map(name).collect();
        let message = match names.as_slice() {
            [own] => format!("`{own}` depends on itself"),
            names => format!("{} depend on each other in a circle", names.join(", ")),
        };
        let remedy = "a change of one is followed once around; nothing needs to be done".to_owned();
        let entry = names.iter().find(|name| settings.config.caches.contains_key(*name));
        let entry = entry.map_or("", String::as_str);
        settings.error_at(&["caches", entry, "depends_on"], message, remedy).as_information()
    };
    graph.cycles().into_iter().map(describe).collect()
}

/// One entry of a `depends_on`.
struct Line<'p> {
    cache: &'p PlannedCache,
    config_name: &'p str,
    at: usize,
    text: &'p str,
}

impl Line<'_> {
    fn mistake(&self, settings: &Settings, message: String, remedy: String) -> Diagnostic {
        let at = self.at.to_string();
        settings.error_at(&["caches", self.config_name, "depends_on", &at], message, remedy)
    }

    /// What it names of a row has to be a column; of a query the columns are known
    /// only to the database.
    fn check_fields(
        &self,
        settings: &Settings,
        graph: &DependencyGraph,
        mistakes: &mut Vec<Diagnostic>,
    ) {
        let PlannedSource::Table(table) = &self.cache.source else { return };
        let Some(node) = graph.find(&self.cache.name) else { return };
        let of_line = |edge: &&larder::Edge| edge.text() == self.text;
        let Some(edge) = graph.dependencies_of(node).find(of_line) else { return };
        let is_known = |field: &String| {
            columns(table).any(|known| known == field)
                || table.key_pattern.parameters().contains(field)
        };
        for field in edge.fields().iter().filter(|field| !is_known(field)) {
            let remedy = match suggest::closest(field, columns(table)) {
                Some(known) => format!("did you mean `{known}`?"),
                None => {
                    format!("its columns are {}", columns(table).collect::<Vec<_>>().join(", "))
                }
            };
            let message = format!("the table `{}` has no column `{field}`", table.name);
            mistakes.push(self.mistake(settings, message, remedy));
        }
    }
}

fn columns(table: &Table) -> impl Iterator<Item = &str> {
    table.columns.iter().map(|column| column.name.as_str())
}

/// The cache that may be meant.
fn closest(text: &str, caches: &[PlannedCache]) -> Option<String> {
    let head = text.split(':').next().unwrap_or(text);
    let heads = caches.iter().map(|cache| cache.pattern.prefix().trim_end_matches(':'));
    let meant = suggest::closest(head, heads.filter(|known| *known != head))?;
    let cache = caches.iter().find(|it| it.pattern.prefix().trim_end_matches(':') == meant)?;
    Some(format!("did you mean the keys of `{}`, {}?", cache.name, cache.pattern))
}
