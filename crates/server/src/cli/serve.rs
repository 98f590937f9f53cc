//! `larder serve`.

use std::thread::available_parallelism;

use super::{Failure, Outcome, ServeOptions, is_terminal, print, say};
use crate::config::{Settings, redact};
use crate::{demo, logging, serve};

/// Loads, background refreshes and the administration share these threads;
/// clients are answered by the threads of the Redis door.
const LOADER_THREADS_MAX: usize = 4;

pub(crate) fn run(options: &ServeOptions) -> Outcome {
    let mut overrides = options.overrides();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(available_parallelism().map_or(1, usize::from).min(LOADER_THREADS_MAX))
        .thread_name("loader")
        .enable_all()
        .build()
        .map_err(|error| Failure::Message(format!("the runtime does not start: {error}")))?;
    let is_demo = options.demo.demo;
    if is_demo {
        let directory = options.demo.demo_dir.clone().unwrap_or_else(demo::default_directory);
        let demo = runtime.block_on(demo::prepare(&directory))?;
        overrides.databases.push(format!("shop={}", demo.url()));
    }
    let settings = Settings::load(options.source.config.as_deref(), &overrides)
        .map_err(Failure::Diagnostics)?;
    let server = &settings.config.server;
    logging::start(server.log_level, server.log_format)?;
    for warning in &settings.warnings {
        if is_terminal() {
            say(format_args!("{warning}\n"));
        } else {
            tracing::warn!("{}", warning.one_line());
        }
    }
    warn_of_passwords(options);
    let announce = |banner: String| {
        // Nothing depends on the banner being read.
        let _ = print(banner);
    };
    let served = runtime.block_on(serve::serve(settings, is_demo, announce));
    // Loads that ignore the shutdown must not hold up the exit.
    runtime.shutdown_background();
    served.map_err(Failure::Diagnostics)
}

/// A password among the arguments stands in the list of processes.
fn warn_of_passwords(options: &ServeOptions) {
    let is_in_arguments = |url: &String| {
        redact::url(url) != *url && std::env::args().any(|argument| argument.contains(url.as_str()))
    };
    if options.redis.iter().any(is_in_arguments) {
        tracing::warn!(
            "the password in --redis can be seen by everyone on this machine; set LARDER_REDIS instead"
        );
    }
    if options.source.database.iter().any(is_in_arguments) {
        tracing::warn!(
            "the password in --database can be seen by everyone on this machine; set LARDER_DATABASE instead"
        );
    }
}
