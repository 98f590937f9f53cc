//! What a configuration names outside itself, environment variables and files,
//! and whether it is there.

use larder_core::{Error, ErrorKind, Result};

use super::secrets::{file_value, variable_value};
use crate::config::{Diagnostic, Settings, database_url, policy};

/// Everything that the configuration names and that is not there, or not as it
/// must be: what cannot be served for want of it.
#[must_use]
pub fn check_surroundings(settings: &Settings) -> Vec<Diagnostic> {
    let mut missing = Vec::new();
    let mut note = |path: &[&str], found: Result<()>| {
        if let Err(error) = found {
            missing.push(describe(settings, path, &error));
        }
    };
    let server = &settings.config.server;
    if let Some(name) = &server.password_env {
        note(&["server", "password_env"], variable(name));
    }
    if let Some(path) = &server.password_file {
        note(&["server", "password_file"], file_value(path).map(drop));
    }
    for (user, options) in &server.users {
        if let Some(name) = &options.password_env {
            note(&["server", "users", user, "password_env"], variable(name));
        }
        if let Some(path) = &options.password_file {
            note(&["server", "users", user, "password_file"], file_value(path).map(drop));
        }
    }
    let front = &settings.config.front;
    if let Some(name) = &front.url_env {
        note(&["front", "url_env"], super::front::url_variable(name));
    }
    let (redis, memcached) = (&settings.config.redis, &settings.config.memcached);
    if let Some(name) = &redis.url_env {
        note(&["redis", "url_env"], super::shared_tiers::url_variable(name));
    }
    for (section, option, name) in [
        ("front", "password_env", &front.password_env),
        ("front", "sentinel_password_env", &front.sentinel_password_env),
        ("redis", "password_env", &redis.password_env),
        ("redis", "sentinel_password_env", &redis.sentinel_password_env),
        ("memcached", "password_env", &memcached.password_env),
    ] {
        if let Some(name) = name {
            note(&[section, option], variable(name));
        }
    }
    for (section, option, path) in [
        ("front", "password_file", &front.password_file),
        ("front", "sentinel_password_file", &front.sentinel_password_file),
        ("redis", "password_file", &redis.password_file),
        ("redis", "sentinel_password_file", &redis.sentinel_password_file),
        ("memcached", "password_file", &memcached.password_file),
    ] {
        if let Some(path) = path {
            note(&[section, option], file_value(path).map(drop));
        }
    }
    for (section, path) in
        [("front", &front.ca_file), ("redis", &redis.ca_file), ("memcached", &memcached.ca_file)]
    {
        if let Some(path) = path {
            note(&[section, "ca_file"], certificates(path));
        }
    }
    for (origin, options) in &settings.config.origins {
        for (option, variable) in
            [("url_env", &options.url_env), ("replica_url_env", &options.replica_url_env)]
        {
            if let Some(name) = variable {
                note(&["origins", origin, option], url(name));
            }
        }
        if let Some(path) = &options.ca_file {
            note(&["origins", origin, "ca_file"], certificates(path));
        }
    }
    missing
}

/// The error at the option's place; what a flag says has none.
fn describe(settings: &Settings, path: &[&str], error: &Error) -> Diagnostic {
    let remedy = error.remedy_text().unwrap_or_default().to_owned();
    let message = policy::without_remedy(error);
    let is_flag = path == ["server", "password_env"] && settings.overrides.password_env.is_some();
    match is_flag {
        true => Diagnostic::error(message).remedy(remedy),
        false => settings.error_at(path, message, remedy),
    }
}

fn variable(name: &str) -> Result<()> {
    variable_value(name).map(drop)
}

fn url(name: &str) -> Result<()> {
    if database_url::is_known(&variable_value(name)?) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Config, "an environment variable holds no URL of a database")
        .with("variable", name)
        .remedy(database_url::REMEDY))
}

/// A file of certificates is small.
const CERTIFICATES_BYTES_MAX: u64 = 16 << 20;

fn certificates(path: &str) -> Result<()> {
    use std::io::Read;
    let refuse = |why: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Config, "a certificate file cannot be used")
            .with("file", path)
            .with("reason", why)
            .remedy("it holds certificates in PEM, readable by this user")
    };
    let file = std::fs::File::open(path).map_err(|error| refuse(&error))?;
    let mut text = Vec::new();
    file.take(CERTIFICATES_BYTES_MAX).read_to_end(&mut text).map_err(|error| refuse(&error))?;
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    if text.windows(BEGIN.len()).any(|part| part == BEGIN) {
        return Ok(());
    }
    Err(refuse(&"it holds no certificate"))
}
