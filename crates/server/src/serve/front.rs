//! The existing Redis behind this server: its options, and whether it can be
//! used.

use larder_core::{Error, ErrorKind, Result};

use super::connect::with_source;
use super::secrets::{read, variable_value};
use crate::config::{
    Config, Diagnostic, Diagnostics, ExistingRedisOptions, RedisTopology, Settings,
};
use crate::front::{self, FrontOptions, FrontTopology, UpstreamOptions};

/// What the front is opened with, if there is a Redis to stand in front of.
///
/// # Errors
/// [`ErrorKind::Config`] if what the configuration names is not there.
pub(crate) fn options(config: &Config) -> Result<Option<FrontOptions>> {
    let front = &config.front;
    let urls = match (&front.url, &front.url_env) {
        _ if !front.urls.is_empty() => front.urls.clone(),
        (Some(url), _) => vec![url.clone()],
        (None, Some(name)) => addresses(&variable_value(name)?),
        (None, None) => return Ok(None),
    };
    let mut servers = urls.iter().map(|url| UpstreamOptions::parse(url));
    let Some(first) = servers.next() else { return Ok(None) };
    let mut upstream = first?;
    let others: Result<Vec<_>> =
        servers.map(|server| server.map(|server| (server.host, server.port))).collect();
    let password = read(front.password_env.as_deref(), front.password_file.as_deref())?;
    upstream.user = front.user.clone().or(upstream.user);
    upstream.password = password.or(upstream.password);
    upstream.ca_file.clone_from(&front.ca_file);
    upstream.connect_timeout = front.connect_timeout.0;
    upstream.reply_timeout = front.reply_timeout.0;
    let mut options = FrontOptions::new(upstream);
    options.others = others?;
    match front.topology {
        Some(RedisTopology::Cluster) => options.topology = FrontTopology::Cluster,
        Some(RedisTopology::Sentinel) => sentinels(front, &mut options)?,
        _ => {}
    }
    options.staleness_max = front.staleness_max.0;
    options.untracked_ttl = front.untracked_ttl.0;
    options.kept_bytes_max = usize::try_from(front.kept_size_max.0).unwrap_or(usize::MAX);
    options.not_kept.clone_from(&front.not_kept);
    Ok(Some(options))
}

/// The addresses are those of sentinels.
fn sentinels(front: &ExistingRedisOptions, options: &mut FrontOptions) -> Result<()> {
    let first = (options.upstream.host.clone(), options.upstream.port);
    let others = std::mem::take(&mut options.others);
    options.topology = FrontTopology::Sentinel {
        service: front.sentinel_service.clone().unwrap_or_default(),
        user: front.sentinel_user.clone(),
        password: read(
            front.sentinel_password_env.as_deref(),
            front.sentinel_password_file.as_deref(),
        )?,
        sentinels: [first].into_iter().chain(others).collect(),
    };
    Ok(())
}

/// Whether Redis answers, takes the login, and is one that can be stood in front
/// of. Returns the options with what was found out.
///
/// # Errors
/// Why not.
pub(super) async fn check(options: &FrontOptions) -> Result<FrontOptions> {
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

/// Whether an environment variable holds the URL of a Redis, or several.
pub(super) fn url_variable(name: &str) -> Result<()> {
    let value = variable_value(name)?;
    let wrong = addresses(&value).iter().any(|url| UpstreamOptions::parse(url).is_err());
    if !wrong {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Config, "an environment variable holds no URL of a Redis")
        .with("variable", name)
        .remedy(front::URL_REMEDY))
}

/// The URLs of a list with commas between.
fn addresses(list: &str) -> Vec<String> {
    list.split(',').map(|url| url.trim().to_owned()).collect()
}
