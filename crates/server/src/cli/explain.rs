//! `larder explain`: what a key is, and why it is treated as it is.

use std::fmt::Write;

use clap::Args;
use larder::DependencyGraph;
use serde_json::Value;

use super::options::{DemoOptions, PolicyFlags, SourceOptions};
use super::{Failure, Outcome, block_on, print};
use crate::config::{Diagnostics, Overrides, Settings};
use crate::demo;
use crate::explanation::{Explanation, SettingExplanation, Subject, explain};
use crate::registry::Router;
use crate::serve::{PlannedCache, PlannedSource, connect, plan};

/// Explain a key: its cache, its policy, and where each value comes from
///
/// Reads the configuration and asks the databases which tables there are. With
/// --admin it asks a running server instead, which also knows what is cached.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  larder explain product:42 --config larder.toml
  larder explain product:42 --database sqlite:shop.db
  larder explain product:42 --demo
  larder explain product:42 --admin http://127.0.0.1:6381
")]
pub(crate) struct ExplainOptions {
    /// The key, as a Redis client would write it
    #[arg(value_name = "KEY")]
    key: String,

    #[command(flatten)]
    source: SourceOptions,

    #[command(flatten)]
    demo: DemoOptions,

    #[command(flatten)]
    policy: PolicyFlags,

    /// Ask the running server whose administration listens here
    #[arg(long, value_name = "URL", conflicts_with_all = ["database", "demo"])]
    admin: Option<String>,

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &ExplainOptions) -> Outcome {
    if let Some(admin) = &options.admin {
        let answer = super::remote::get(admin, &["explain", &options.key])?;
        return show_remote(&answer, options.json);
    }
    let explanation = block_on(explain_offline(options))??;
    if options.json {
        let text = serde_json::to_string_pretty(&explanation)?;
        return print(format_args!("{text}\n"));
    }
    print(text(&explanation))
}

async fn explain_offline(options: &ExplainOptions) -> Result<Explanation, Failure> {
    let mut overrides = Overrides {
        databases: options.source.database.clone(),
        policy: options.policy.options(),
        ..Overrides::default()
    };
    if options.demo.demo {
        let directory = options.demo.demo_dir.clone().unwrap_or_else(demo::default_directory);
        overrides.databases.push(format!("shop={}", demo::prepare(&directory).await?.url()));
    }
    let settings = Settings::load(options.source.config.as_deref(), &overrides)
        .map_err(Failure::Diagnostics)?;
    let (caches, graph) = match declared(&settings, &options.key) {
        Some(found) => found,
        None => {
            let connected = connect::connect(&settings)
                .await
                .map_err(|mistakes| Failure::Diagnostics(Diagnostics(mistakes)))?;
            let planned = plan(&settings, &connected.found);
            connected.close().await;
            (planned.caches, planned.dependencies.graph)
        }
    };
    let subjects: Vec<_> = caches.iter().map(|cache| Subject::planned(cache, &settings)).collect();
    Ok(explain(&settings, &subjects, graph.as_ref(), &options.key))
}

/// The cache of a key if a query of the configuration has it: then no database
/// needs to be asked, unless another may depend on it.
fn declared(
    settings: &Settings,
    key: &str,
) -> Option<(Vec<PlannedCache>, Option<DependencyGraph>)> {
    let planned = plan(settings, &[]);
    let tables = settings.config.caches.values().filter(|cache| cache.query.is_none());
    let is_known = planned.dependencies.mistakes.is_empty();
    if !is_known || tables.into_iter().any(|cache| !cache.depends_on.is_empty()) {
        return None;
    }
    let queries: Vec<_> = planned
        .caches
        .into_iter()
        .filter(|cache| matches!(cache.source, PlannedSource::Query(_)))
        .collect();
    let router = Router::new(queries.iter().map(|cache| cache.pattern.clone()));
    let index = router.find(key.as_bytes())?;
    Some((vec![queries[index].clone()], planned.dependencies.graph))
}

/// The explanation for people.
fn text(explanation: &Explanation) -> String {
    let mut text = format!("{}\n", explanation.key);
    if let Some(remark) = &explanation.remark {
        let _ = writeln!(text, "  plain key: {remark}");
    }
    let Some(cache) = &explanation.cache else { return text };
    let place = cache.declared_at.as_deref().unwrap_or("served without being declared");
    let _ = writeln!(text, "  cache    {} ({place})", cache.name);
    let _ = writeln!(text, "  pattern  {}", cache.pattern);
    for (name, value) in &cache.parameters {
        let _ = writeln!(text, "           {name} = {value}");
    }
    let _ = writeln!(text, "  source   {} of the origin {}", cache.source, cache.origin);
    if let Some(acknowledged) = cache.acknowledged {
        let _ = writeln!(text, "  writes   acknowledged: {acknowledged}");
    }
    if !cache.tags.is_empty() {
        let _ = writeln!(text, "  tags     {}", cache.tags.join(", "));
    }
    for (index, dependency) in cache.depends_on.iter().enumerate() {
        let label = if index == 0 { "depends" } else { "" };
        let _ = writeln!(text, "  {label:7}  on {} (by {})", dependency.on, dependency.by);
    }
    for (index, touched) in cache.touches.iter().enumerate() {
        let label = if index == 0 { "touches" } else { "" };
        let _ = writeln!(text, "  {label:7}  {touched}");
    }
    text.push_str("  policy\n");
    policy_text(&mut text, &cache.policy);
    text
}

fn policy_text(text: &mut String, policy: &[SettingExplanation]) {
    let width = |of: fn(&SettingExplanation) -> &str| {
        policy.iter().map(|it| of(it).len()).max().unwrap_or_default()
    };
    let (options, values) = (width(|it| it.setting.option), width(|it| &it.setting.value));
    for it in policy {
        let (option, value) = (it.setting.option, &it.setting.value);
        let _ = writeln!(text, "    {option:options$}  {value:values$}  {}", it.because);
    }
}

/// What a running server said of the key.
fn show_remote(answer: &Value, is_json: bool) -> Outcome {
    if is_json {
        let text = serde_json::to_string_pretty(answer)?;
        return print(format_args!("{text}\n"));
    }
    let mut shown = format!("{}\n", answer["key"].as_str().unwrap_or_default());
    if let Some(remark) = answer["remark"].as_str() {
        let _ = writeln!(shown, "  plain key: {remark}");
    }
    let cache = &answer["cache"];
    if cache.is_object() {
        for (label, name) in
            [("cache", "name"), ("pattern", "pattern"), ("source", "source"), ("origin", "origin")]
        {
            let _ = writeln!(shown, "  {label:8} {}", cache[name].as_str().unwrap_or_default());
        }
        if let Some(acknowledged) = cache["acknowledged"].as_str() {
            let _ = writeln!(shown, "  writes   acknowledged: {acknowledged}");
        }
        for dependency in cache["depends_on"].as_array().into_iter().flatten() {
            let part = |name: &str| dependency[name].as_str().unwrap_or_default().to_owned();
            let _ = writeln!(shown, "  depends  on {} (by {})", part("on"), part("by"));
        }
        for touched in cache["touches"].as_array().into_iter().flatten() {
            let _ = writeln!(shown, "  touches  {}", touched.as_str().unwrap_or_default());
        }
        for setting in cache["policy"].as_array().into_iter().flatten() {
            let part = |name: &str| setting[name].as_str().unwrap_or_default().to_owned();
            let _ = writeln!(
                shown,
                "    {:22}  {:8}  {}",
                part("option"),
                part("value"),
                part("because")
            );
        }
    }
    let entry = &answer["entry"];
    if let Some(members) = entry.as_object() {
        shown.push_str("  entry\n");
        for (name, value) in members {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let _ = writeln!(shown, "    {name:22}  {value}");
        }
    } else if cache.is_object() {
        shown.push_str("  entry    none: the next read loads it\n");
    }
    print(shown)
}
