//! The existing Redis behind this server: its options, and whether it can be
//! used.

use larder_core::{Error, ErrorKind, Result};

use super::connect::with_source;
use super::secrets::{read, variable_value};
use crate::config::{Config, Diagnostic, Diagnostics, Settings};
use crate::front::{self, FrontOptions, UpstreamOptions};

/// What the front is opened with, if there is a Redis to stand in front of.
///
/// # Errors
/// [`ErrorKind::Config`] if what the configuration names is not there.
pub(crate) fn options(config: &Config) -> Result<Option<FrontOptions>> {
    let front = &config.front;
    let url = match (&front.url, &front.url_env) {
        (Some(url), _) => url.clone(),
        (None, Some(name)) => variable_value(name)?,
        (None, None) => return Ok(None),
    };
    let mut upstream = UpstreamOptions::parse(&url)?;
    let password = read(front.password_env.as_deref(), front.password_file.as_deref())?;
    upstream.password = password.or(upstream.password);
    upstream.ca_file.clone_from(&front.ca_file);
    upstream.connect_timeout = front.connect_timeout.0;
    upstream.reply_timeout = front.reply_timeout.0;
    let mut options = FrontOptions::new(upstream);
    options.staleness_max = front.staleness_max.0;
    options.untracked_ttl = front.untracked_ttl.0;
    options.kept_bytes_max = usize::try_from(front.kept_size_max.0).unwrap_or(usize::MAX);
    options.not_kept.clone_from(&front.not_kept);
    Ok(Some(options))
}

/// Whether Redis answers, takes the login, and is one that can be stood in front
/// of.
///
/// # Errors
/// Why not.
pub(super) async fn check(options: &FrontOptions) -> Result<()> {
    front::check(options).await
}

/// What is wrong, at its place in the file.
pub(super) fn mistake(settings: &Settings, error: &Error) -> Diagnostics {
    let remedy = error.remedy_text().unwrap_or_default().to_owned();
    let message = with_source(error);
    Diagnostics(vec![match settings.overrides.redis {
        Some(_) => Diagnostic::error(message).remedy(remedy),
        None => settings.error_at(&["front"], message, remedy),
    }])
}

/// Whether an environment variable holds the URL of a Redis.
pub(super) fn url_variable(name: &str) -> Result<()> {
    UpstreamOptions::parse(&variable_value(name)?).map(drop).map_err(|_| {
        Error::new(ErrorKind::Config, "an environment variable holds no URL of a Redis")
            .with("variable", name)
            .remedy(front::URL_REMEDY)
    })
}
