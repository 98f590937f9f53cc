//! The log: what is written where. Keys, values and secrets do not stand in
//! messages above the level `debug`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{LogFormat, LogLevel};

/// The environment variable that goes before the configured level.
const VARIABLE: &str = "LARDER_LOG";

/// Starts the log on standard error.
///
/// # Errors
/// If a log was started already.
pub fn start(level: LogLevel, format: LogFormat) -> Result<(), TryInitError> {
    let registry = tracing_subscriber::registry().with(filter(level));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
        LogFormat::Plain => registry.with(layer.with_ansi(false)).try_init(),
        LogFormat::Auto => registry
            .with(layer.with_ansi(std::io::stderr().is_terminal()).with_target(false))
            .try_init(),
    }
}

/// Larder's own messages at the level asked for; those of its dependencies only
/// from `warn` on, unless the variable says otherwise.
fn filter(level: LogLevel) -> EnvFilter {
    let level = level.name();
    let default = format!(
        "warn,larder={level},larder_core={level},larder_memory={level},larder_sql={level},larder_server={level}"
    );
    match std::env::var(VARIABLE) {
        Ok(directives) if !directives.is_empty() => {
            EnvFilter::new(format!("{default},{directives}"))
        }
        _ => EnvFilter::new(default),
    }
}
