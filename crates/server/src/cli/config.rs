//! `larder config`: the configuration that holds, its schema, an example.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::options::SourceOptions;
use super::{Failure, Outcome, print};
use crate::config::{self, Overrides, Settings, redact};

/// Print the configuration in force, its schema, or an example
#[derive(Args, Clone, Debug)]
pub(crate) struct ConfigOptions {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum ConfigCommand {
    Print(PrintOptions),
    Schema(SchemaOptions),
    Example(ExampleOptions),
}

/// Print every option with the value that holds, passwords blotted out
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  larder config print --config larder.toml
  larder config print --format json | jq .memory
")]
struct PrintOptions {
    #[command(flatten)]
    source: SourceOptions,

    /// How to print it
    #[arg(long, value_enum, default_value = "toml")]
    format: Format,
}

/// Print the JSON Schema of the configuration, for editors
#[derive(Args, Clone, Debug)]
struct SchemaOptions {}

/// Print a configuration with every option and a word about each
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  larder config example > larder.toml\n")]
struct ExampleOptions {}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Format {
    /// As a configuration file
    Toml,
    /// As JSON
    Json,
}

pub(crate) fn run(options: &ConfigOptions) -> Outcome {
    match &options.command {
        ConfigCommand::Print(options) => print_effective(options),
        ConfigCommand::Schema(_) => print(config::schema_text()),
        ConfigCommand::Example(_) => print(config::EXAMPLE),
    }
}

fn print_effective(options: &PrintOptions) -> Outcome {
    let overrides =
        Overrides { databases: options.source.database.clone(), ..Overrides::default() };
    let settings = Settings::load(options.source.config.as_deref(), &overrides)
        .map_err(Failure::Diagnostics)?;
    match options.format {
        Format::Toml => {
            let text = toml::to_string(&effective(&settings)?)?;
            print(text)
        }
        Format::Json => {
            let text = serde_json::to_string_pretty(&effective(&settings)?)?;
            print(format_args!("{text}\n"))
        }
    }
}

/// The options as they hold: defaults filled in, policies resolved for each
/// cache, secrets blotted out.
fn effective(settings: &Settings) -> Result<Value, Failure> {
    let mut config = settings.config.clone();
    config.defaults = settings.policy(None).options().clone();
    for origin in config.origins.values_mut() {
        origin.max_concurrent_loads = Some(origin.max_concurrent_loads());
        for url in [&mut origin.url, &mut origin.replica_url].into_iter().flatten() {
            *url = redact::url(url);
        }
    }
    let redis = &mut config.redis;
    for url in config
        .front
        .url
        .iter_mut()
        .chain(&mut config.front.urls)
        .chain(&mut redis.url)
        .chain(&mut redis.urls)
    {
        *url = redact::url(url);
    }
    let mut value = serde_json::to_value(&config)?;
    for name in settings.config.caches.keys() {
        let policy = serde_json::to_value(settings.policy(Some(name)).options())?;
        let cache = &mut value["caches"][name];
        // The class stands for a TTL, which is printed.
        if let Some(cache) = cache.as_object_mut() {
            cache.remove("ttl_class");
            cache.extend(policy.as_object().cloned().unwrap_or_default());
        }
    }
    Ok(value)
}
