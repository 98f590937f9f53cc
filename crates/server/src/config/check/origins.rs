//! Rules for `[origins.NAME]`.

use std::time::Duration;

use super::Checker;
use crate::config::{OriginOptions, TlsMode, database_url};

pub(super) fn check(checker: &mut Checker<'_>) {
    for (name, origin) in &checker.parsed.config.origins {
        super::caches::name(checker, &["origins", name], name);
        url(checker, name, origin);
        tables(checker, name, origin);
        limits(checker, name, origin);
        tls(checker, name, origin);
    }
}

fn url(checker: &mut Checker<'_>, name: &str, origin: &OriginOptions) {
    let path = |option: &'static str| ["origins", name, option];
    for (option, other, url, env) in [
        ("url", "url_env", &origin.url, &origin.url_env),
        ("replica_url", "replica_url_env", &origin.replica_url, &origin.replica_url_env),
    ] {
        if url.is_some() && env.is_some() {
            let message = format!("{option} and {other} are both set");
            checker.error(&path(other), message, "keep the one that holds the URL");
        }
        if let Some(url) = url
            && !database_url::is_known(url)
        {
            checker.error(
                &path(option),
                "this is not the URL of a database that Larder knows",
                database_url::REMEDY,
            );
        }
    }
    if origin.url.is_none()
        && origin.url_env.is_none()
        && !checker.is_set(&path("url"))
        && !checker.is_set(&path("url_env"))
    {
        checker.error(
            &["origins", name],
            format!("the origin `{name}` has no URL"),
            "set url, or url_env to the name of an environment variable that holds it",
        );
    }
}

fn tables(checker: &mut Checker<'_>, name: &str, origin: &OriginOptions) {
    if origin.serve_tables {
        return;
    }
    for (option, list) in
        [("include_tables", &origin.include_tables), ("exclude_tables", &origin.exclude_tables)]
    {
        if !list.is_empty() {
            checker.error(
                &["origins", name, option],
                format!("`{option}` has no effect: serve_tables is false"),
                "set serve_tables = true, or leave the list out",
            );
        }
    }
}

fn limits(checker: &mut Checker<'_>, name: &str, origin: &OriginOptions) {
    let mut range = |option: &'static str, value: u64, most: u64, usual: &str| {
        if !(1..=most).contains(&value) {
            checker.error(
                &["origins", name, option],
                format!("`{option}` cannot be {value}: it is from 1 to {most}"),
                format!("{usual} is usual"),
            );
        }
    };
    range("pool_size", origin.pool_size.into(), 1000, "8");
    range("write_pool_size", origin.write_pool_size.into(), 1000, "8");
    if let Some(loads) = origin.max_concurrent_loads {
        range("max_concurrent_loads", loads.into(), 100_000, "pool_size, the default,");
    }
    if let Some(loads) = origin.max_loads_per_second {
        range("max_loads_per_second", loads.into(), 1_000_000, "1000");
    }
    if let Some(loads) = origin.max_concurrent_loads.filter(|loads| *loads > origin.pool_size) {
        checker.warning(
            &["origins", name, "max_concurrent_loads"],
            format!("{loads} loads share a pool of {} connections", origin.pool_size),
            "those that wait for a connection longer than acquire_timeout count as failures of \
             the origin and open its breaker; raise pool_size, or leave max_concurrent_loads out",
        );
    }
    const TIMEOUTS: std::ops::RangeInclusive<Duration> =
        Duration::from_millis(1)..=Duration::from_secs(86_400);
    for (option, timeout) in [
        ("connect_timeout", origin.connect_timeout),
        ("acquire_timeout", origin.acquire_timeout),
        ("statement_timeout", origin.statement_timeout),
        ("idle_timeout", origin.idle_timeout),
    ] {
        if !TIMEOUTS.contains(&timeout.0) {
            checker.error(
                &["origins", name, option],
                format!("`{option}` cannot be {timeout}: it is from 1ms to 1d"),
                "leave it out for the default",
            );
        }
    }
    let breaker = ["origins", name, "breaker"];
    if origin.breaker.failures() == 0 {
        let path = [breaker[0], breaker[1], breaker[2], "failures"];
        checker.error(&path, "a breaker opens after at least 1 failure", "5 is usual");
    }
    if origin.breaker.open().is_zero() {
        let path = [breaker[0], breaker[1], breaker[2], "open"];
        checker.error(&path, "a breaker that opens for 0s has no effect", "60s is usual");
    }
}

fn tls(checker: &mut Checker<'_>, name: &str, origin: &OriginOptions) {
    let verifies =
        !matches!(origin.tls, Some(TlsMode::Disable | TlsMode::Prefer | TlsMode::Require));
    if origin.ca_file.is_some() && !verifies {
        checker.error(
            &["origins", name, "ca_file"],
            "`ca_file` has no effect: with this `tls`, no certificate is verified",
            "set tls = \"verify-full\", or leave ca_file out",
        );
    }
    if origin.tls.is_some() && origin.url.as_deref().is_some_and(|url| url.starts_with("sqlite:")) {
        checker.error(
            &["origins", name, "tls"],
            "a SQLite file has no connection to encrypt",
            "leave tls out",
        );
    }
}
