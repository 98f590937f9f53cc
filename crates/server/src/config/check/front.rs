//! Rules for `[front]`.

use std::time::Duration;

use super::{Checker, sentinel};
use crate::config::{ExistingRedisOptions, RedisTopology};
use crate::front::{URL_REMEDY, UpstreamOptions};

pub(super) fn check(checker: &mut Checker<'_>) {
    let front = &checker.parsed.config.front;
    address(checker, front);
    secrets(checker, front);
    limits(checker, front);
    let names = ["url", "urls", "url_env"];
    let is_written =
        front.is_set() || names.into_iter().any(|name| checker.is_set(&["front", name]));
    if !front.is_default() && !is_written {
        checker.error(
            &["front"],
            "[front] names no Redis to stand in front of",
            "set url, or url_env to the name of an environment variable that holds it",
        );
    }
}

fn address(checker: &mut Checker<'_>, front: &ExistingRedisOptions) {
    let said = [front.url.is_some(), front.url_env.is_some(), !front.urls.is_empty()];
    if said.iter().filter(|is_said| **is_said).count() > 1 {
        let option = if front.url_env.is_some() { "url_env" } else { "urls" };
        let message = "of url, urls and url_env more than one is set";
        checker.error(&["front", option], message, "keep the one that holds the URLs");
    }
    let (option, urls) = match &front.url {
        Some(url) => ("url", std::slice::from_ref(url)),
        None => ("urls", front.urls.as_slice()),
    };
    let mut servers = Vec::new();
    for url in urls {
        match UpstreamOptions::parse(url) {
            Ok(server) => servers.push(server),
            Err(_) => {
                let message = "this is not the URL of a Redis";
                return checker.error(&["front", option], message, URL_REMEDY);
            }
        }
    }
    let Some(first) = servers.first() else { return };
    if servers.iter().any(|server| server.is_tls != first.is_tls) {
        checker.error(
            &["front", option],
            "some URLs are encrypted and some are not",
            "use rediss:// for all, or redis:// for all",
        );
    }
    if front.topology == Some(RedisTopology::Standalone) && servers.len() > 1 {
        checker.error(
            &["front", "topology"],
            "a single Redis has one address, and there are several",
            "set topology = \"cluster\", or keep one URL",
        );
    }
    let may_be_cluster = match front.topology {
        None => servers.len() > 1,
        Some(topology) => topology == RedisTopology::Cluster,
    };
    if may_be_cluster && servers.iter().any(|server| server.database > 0) {
        checker.error(
            &["front", option],
            "a cluster has no numbered databases",
            "take the number out of the URL",
        );
    }
    if front.ca_file.is_some() && !first.is_tls {
        checker.error(
            &["front", "ca_file"],
            "`ca_file` has no effect: this connection is not encrypted",
            "write the URL as rediss://, or leave ca_file out",
        );
    }
    let has_other = front.password_env.is_some() || front.password_file.is_some();
    if servers.iter().any(|server| server.password.is_some()) && has_other {
        checker.error(
            &["front", option],
            "a password stands in the URL and elsewhere",
            "keep password_env or password_file",
        );
    }
    if front.user.is_some() && servers.iter().any(|server| server.user.is_some()) {
        let message = "a user stands in the URL and elsewhere";
        checker.error(&["front", "user"], message, "keep one of the two");
    }
}

fn secrets(checker: &mut Checker<'_>, front: &ExistingRedisOptions) {
    if front.password_env.is_some() && front.password_file.is_some() {
        let message = "password_env and password_file are both set";
        checker.error(&["front", "password_file"], message, "keep the one that holds the password");
    }
    sentinel::check(
        checker,
        "front",
        front.topology == Some(RedisTopology::Sentinel),
        &sentinel::Said {
            service: &front.sentinel_service,
            user: &front.sentinel_user,
            password_env: &front.sentinel_password_env,
            password_file: &front.sentinel_password_file,
        },
    );
}

fn limits(checker: &mut Checker<'_>, front: &ExistingRedisOptions) {
    const MOMENT: Duration = Duration::from_millis(1);
    const HOUR: Duration = Duration::from_secs(3600);
    let ranges = [
        ("connect_timeout", front.connect_timeout, MOMENT..=HOUR, "1ms to 1h"),
        ("reply_timeout", front.reply_timeout, MOMENT..=HOUR, "1ms to 1h"),
        // Below it, a heartbeat's answer would be late at every turn.
        (
            "staleness_max",
            front.staleness_max,
            Duration::from_millis(100)..=Duration::from_secs(60),
            "100ms to 60s",
        ),
        ("untracked_ttl", front.untracked_ttl, Duration::ZERO..=HOUR, "0s to 1h"),
    ];
    for (option, value, range, shown) in ranges {
        if !range.contains(&value.0) {
            checker.error(
                &["front", option],
                format!("`{option}` cannot be {value}: it is from {shown}"),
                "leave it out for the default",
            );
        }
    }
    let most = checker.parsed.config.server.value_size_max;
    // The default is never too large: nothing larger than what passes is kept.
    if front.kept_size_max.0 > most.0 && checker.is_set(&["front", "kept_size_max"]) {
        checker.error(
            &["front", "kept_size_max"],
            format!(
                "values up to {} are kept, but none larger than {most} passes",
                front.kept_size_max
            ),
            "lower it, or raise [server] value_size_max",
        );
    }
}
