//! `larder graph`: what depends on what, and what a change touches.

use clap::{Args, ValueEnum};
use larder::DependencyGraph;

use super::options::{DemoOptions, SourceOptions};
use super::{Failure, Outcome, block_on, print};
use crate::config::{Diagnostics, Overrides, Settings};
use crate::demo;
use crate::graph::{Change, Drawing, dot, svg, text};
use crate::serve::{Plan, connect, plan};

/// Show what depends on what, and what a change would touch
///
/// Reads `depends_on` of the caches in the configuration, and asks the databases
/// which tables there are if it names any. Nothing is changed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  larder graph --config larder.toml
  larder graph --config larder.toml --touched customer:17
  larder graph --config larder.toml --touched tag:price-list:2 --format svg > graph.svg
  larder graph --config larder.toml --format dot | dot -Tpdf > graph.pdf
")]
pub(crate) struct GraphOptions {
    #[command(flatten)]
    source: SourceOptions,

    #[command(flatten)]
    demo: DemoOptions,

    /// How to show it
    #[arg(long, value_enum, default_value = "text")]
    format: Format,

    /// Also show what a change of this would touch: a key, tag:NAME, service:NAME:KEY, or the
    /// name of a cache for all of it
    #[arg(long, value_name = "KEY")]
    touched: Option<String>,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Format {
    /// For people
    Text,
    /// For Graphviz
    Dot,
    /// A picture
    Svg,
}

pub(crate) fn run(options: &GraphOptions) -> Outcome {
    let planned = block_on(plan_of(options))??;
    let Some(graph) = planned.dependencies.graph else {
        return Err(Failure::Message(
            "no cache depends on anything: write depends_on = [\"customer:{customer_id}\"] or the \
             like into the [caches.NAME] of one that does"
                .to_owned(),
        ));
    };
    let change = options.touched.as_deref().map(|text| change(&graph, text)).transpose()?;
    let drawing = Drawing::new(&graph, change);
    print(match options.format {
        Format::Text => text(&drawing),
        Format::Dot => dot(&drawing),
        Format::Svg => svg(&drawing),
    })
}

fn change(graph: &DependencyGraph, text: &str) -> Result<Change, Failure> {
    Change::read(graph, text).ok_or_else(|| {
        Failure::Message(format!(
            "`{text}` is no key of a cache here; write a key, tag:NAME, service:NAME:KEY, or the \
             name of a cache"
        ))
    })
}

async fn plan_of(options: &GraphOptions) -> Result<Plan, Failure> {
    let mut overrides =
        Overrides { databases: options.source.database.clone(), ..Overrides::default() };
    if options.demo.demo {
        let directory = options.demo.demo_dir.clone().unwrap_or_else(demo::default_directory);
        overrides.databases.push(format!("shop={}", demo::prepare(&directory).await?.url()));
    }
    let settings = Settings::load(options.source.config.as_deref(), &overrides)
        .map_err(Failure::Diagnostics)?;
    let offline = plan(&settings, &[]);
    let is_queried = |name: &str| offline.caches.iter().any(|cache| cache.name == name);
    let mut with_any =
        settings.config.caches.iter().filter(|(_, cache)| !cache.depends_on.is_empty());
    if offline.dependencies.mistakes.is_empty() && with_any.all(|(name, _)| is_queried(name)) {
        return Ok(offline);
    }
    let connected = connect::connect(&settings)
        .await
        .map_err(|mistakes| Failure::Diagnostics(Diagnostics(mistakes)))?;
    let planned = plan(&settings, &connected.found);
    connected.close().await;
    if planned.mistakes.is_empty() {
        return Ok(planned);
    }
    Err(Failure::Diagnostics(Diagnostics(planned.mistakes)))
}
