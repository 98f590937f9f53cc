//! What a key is, and why it is treated as it is: which cache, which policy,
//! and where each value of it comes from.

use larder::{DependencyGraph, Edge, Touch};
use serde::Serialize;

use crate::config::policy::{Layer, Setting};
use crate::config::{Config, Settings, meaning_of, suggest};
use crate::keyspace::glob_matches;
use crate::registry::{Router, Served};
use crate::serve::journal::acknowledgement;
use crate::serve::{PlannedCache, entry_of};
use larder_core::{KeyPattern, Survives};

/// A cache, running or only planned.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its keys.
    pub pattern: &'a KeyPattern,
    /// The origin it loads from.
    pub origin: &'a str,
    /// What it loads, in words.
    pub source: String,
    /// Its entry in the configuration, if it has one.
    pub config_name: Option<&'a str>,
    /// The tags of its entries as the configuration writes them: for a running
    /// cache as it did at the start, whatever the file says by now.
    pub tags: &'a [String],
}

impl<'a> Subject<'a> {
    /// A planned cache.
    #[must_use]
    pub fn planned(cache: &'a PlannedCache, settings: &'a Settings) -> Self {
        let entry = cache.config_name.as_ref().and_then(|name| settings.config.caches.get(name));
        Self {
            name: &cache.name,
            pattern: &cache.pattern,
            origin: &cache.origin,
            source: cache.source.describe(),
            config_name: cache.config_name.as_deref(),
            tags: entry.map_or(&[], |options| &options.tags),
        }
    }

    /// A running cache.
    #[must_use]
    pub fn served(served: &'a Served, settings: &'a Settings) -> Self {
        Self {
            name: served.name(),
            pattern: &served.pattern,
            origin: &served.origin,
            source: served.source.describe(),
            config_name: entry_of(settings, served),
            tags: &served.tags,
        }
    }
}

/// Everything there is to say about a key.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The key.
    pub key: String,
    /// The cache it belongs to; none for a plain key.
    pub cache: Option<CacheExplanation>,
    /// Why it is a plain key, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
}

/// The cache of a key.
#[derive(Clone, Debug, Serialize)]
pub struct CacheExplanation {
    /// Its name.
    pub name: String,
    /// Its keys.
    pub pattern: String,
    /// The values of the key's parameters, in order.
    pub parameters: Vec<(String, String)>,
    /// The origin it loads from.
    pub origin: String,
    /// What it loads: a table, or a query.
    pub source: String,
    /// Where it is declared; none for a table that is served undeclared.
    pub declared_at: Option<String>,
    /// When a write of it is acknowledged: `committed` by the database, or what it then
    /// survives in the journal. None: it takes no writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<&'static str>,
    /// The tags of its entries.
    pub tags: Vec<String>,
    /// What its entries are computed from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<DependencyExplanation>,
    /// What a change of this key touches, cache by cache.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub touches: Vec<String>,
    /// Its policy.
    pub policy: Vec<SettingExplanation>,
}

/// One thing that a cache depends on.
#[derive(Clone, Debug, Serialize)]
pub struct DependencyExplanation {
    /// As it is declared.
    pub on: String,
    /// How a change of it is followed: to a `key`, to a `tag`, or to the whole
    /// `cache`.
    pub by: &'static str,
}

/// One option of a policy.
#[derive(Clone, Debug, Serialize)]
pub struct SettingExplanation {
    /// The option, its value and its layer.
    #[serde(flatten)]
    pub setting: Setting,
    /// Where the value is written, or that nobody wrote it.
    pub because: String,
    /// What the option means.
    pub meaning: String,
}

/// Explains a key against the caches there are.
#[must_use]
pub fn explain(
    settings: &Settings,
    caches: &[Subject<'_>],
    graph: Option<&DependencyGraph>,
    key: &str,
) -> Explanation {
    let router = Router::new(caches.iter().map(|cache| cache.pattern.clone()));
    let cache = router.find(key.as_bytes()).map(|index| &caches[index]);
    let remark = cache.is_none().then(|| remark(&settings.config, caches, key));
    let cache = cache.map(|cache| CacheExplanation {
        name: cache.name.to_owned(),
        pattern: cache.pattern.to_string(),
        parameters: parameters(cache.pattern, key),
        origin: cache.origin.to_owned(),
        source: cache.source.clone(),
        declared_at: cache.config_name.and_then(|name| settings.place(&["caches", name])),
        acknowledged: acknowledged(settings, cache.config_name),
        tags: cache.tags.to_vec(),
        depends_on: graph.map(|graph| depends_on(graph, cache.name)).unwrap_or_default(),
        touches: graph.map(|graph| touches(graph, cache.name, key)).unwrap_or_default(),
        policy: policy(settings, cache.config_name),
    });
    Explanation { key: key.to_owned(), cache, remark }
}

fn acknowledged(settings: &Settings, config_name: Option<&str>) -> Option<&'static str> {
    let write = settings.config.caches.get(config_name?)?.write.as_ref()?;
    // The journal of a server is on its disk.
    let survives = acknowledgement(Survives::PowerLoss);
    Some(if write.is_behind() { survives } else { "committed" })
}

/// The policy of a cache, each option with where it comes from.
#[must_use]
pub fn policy(settings: &Settings, config_name: Option<&str>) -> Vec<SettingExplanation> {
    let effective = settings.policy(config_name);
    effective
        .settings
        .into_iter()
        .map(|setting| {
            let because = because(settings, config_name, &setting);
            let meaning = meaning_of(setting.option);
            SettingExplanation { setting, because, meaning }
        })
        .collect()
}

fn because(settings: &Settings, config_name: Option<&str>, setting: &Setting) -> String {
    let option = if setting.class.is_some() { "ttl_class" } else { setting.option };
    let class = setting.class.as_ref().map_or_else(String::new, |class| format!(", class {class}"));
    let at = |path: &[&str], section: String| match settings.place(path) {
        Some(place) => format!("{section} at {place}{class}"),
        None => format!("{section}{class}"),
    };
    match setting.from {
        Layer::BuiltIn => "default".to_owned(),
        Layer::CommandLine => format!("flag --{}", setting.option.replace('_', "-")),
        Layer::Defaults => at(&["defaults", option], "[defaults]".to_owned()),
        Layer::Cache => {
            let name = config_name.unwrap_or_default();
            at(&["caches", name, option], format!("[caches.{name}]"))
        }
    }
}

fn depends_on(graph: &DependencyGraph, cache: &str) -> Vec<DependencyExplanation> {
    let edges = graph.find(cache).into_iter().flat_map(|node| graph.dependencies_of(node));
    let explain =
        |edge: &Edge| DependencyExplanation { on: edge.text().to_owned(), by: edge.precision() };
    edges.map(explain).collect()
}

fn touches(graph: &DependencyGraph, cache: &str, key: &str) -> Vec<String> {
    let cascade = graph.cascade(cache, &[Touch::Key(key)]);
    cascade.steps().iter().map(|step| graph.describe(step)).collect()
}

fn parameters(pattern: &KeyPattern, key: &str) -> Vec<(String, String)> {
    let values = pattern.match_key(key).unwrap_or_default();
    let names = pattern.parameters().iter().cloned();
    names.zip(values.into_iter().map(|value| value.into_owned())).collect()
}

/// Why a key is plain.
fn remark(config: &Config, caches: &[Subject<'_>], key: &str) -> String {
    let front = &config.front;
    if front.is_set() {
        let is_kept =
            !front.not_kept.iter().any(|glob| glob_matches(glob.as_bytes(), key.as_bytes()));
        return match is_kept {
            true => "it belongs to the Redis behind this server; a string is kept in memory while \
                     Redis tells of changes"
                .to_owned(),
            false => {
                "it belongs to the Redis behind this server; `not_kept` keeps it out of memory"
                    .to_owned()
            }
        };
    }
    if caches.is_empty() {
        return match config.origins.is_empty() {
            true => "no database is served: every key is a plain key".to_owned(),
            false => {
                "no table is served and no query declared: every key is a plain key".to_owned()
            }
        };
    }
    let head = key.split(':').next().unwrap_or_default();
    let disabled = config.caches.iter().find(|(name, options)| {
        options.enabled == Some(false) && (*name == head || options.table.as_deref() == Some(head))
    });
    if let Some((name, _)) = disabled {
        return format!("the cache `{name}` is turned off, so its keys are plain keys");
    }
    let patterns = caches.iter().map(|cache| cache.pattern.prefix().trim_end_matches(':'));
    match suggest::closest(head, patterns) {
        Some(meant) => {
            let cache = caches.iter().find(|it| it.pattern.prefix().trim_end_matches(':') == meant);
            let pattern = cache.map(|cache| cache.pattern.to_string()).unwrap_or_default();
            format!("it matches no cache, so it is a plain key; the closest pattern is {pattern}")
        }
        None => "it matches no cache, so it is a plain key, as in Redis".to_owned(),
    }
}
