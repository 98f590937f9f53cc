//! Rules for `[front]`.

use std::time::Duration;

use super::Checker;
use crate::config::ExistingRedisOptions;
use crate::front::{URL_REMEDY, UpstreamOptions};

pub(super) fn check(checker: &mut Checker<'_>) {
    let front = &checker.parsed.config.front;
    address(checker, front);
    secrets(checker, front);
    limits(checker, front);
    let is_written = front.is_set()
        || checker.is_set(&["front", "url"])
        || checker.is_set(&["front", "url_env"]);
    if !front.is_default() && !is_written {
        checker.error(
            &["front"],
            "[front] names no Redis to stand in front of",
            "set url, or url_env to the name of an environment variable that holds it",
        );
    }
}

fn address(checker: &mut Checker<'_>, front: &ExistingRedisOptions) {
    if front.url.is_some() && front.url_env.is_some() {
        let message = "url and url_env are both set";
        checker.error(&["front", "url_env"], message, "keep the one that holds the URL");
    }
    let Some(url) = &front.url else { return };
    match UpstreamOptions::parse(url) {
        Err(_) => {
            checker.error(&["front", "url"], "this is not the URL of a Redis", URL_REMEDY);
        }
        Ok(upstream) if front.ca_file.is_some() && !upstream.is_tls => checker.error(
            &["front", "ca_file"],
            "`ca_file` has no effect: this connection is not encrypted",
            "write the URL as rediss://, or leave ca_file out",
        ),
        Ok(upstream) => {
            let has_other = front.password_env.is_some() || front.password_file.is_some();
            if upstream.password.is_some() && has_other {
                checker.error(
                    &["front", "url"],
                    "a password stands in the URL and elsewhere",
                    "keep password_env or password_file",
                );
            }
        }
    }
}

fn secrets(checker: &mut Checker<'_>, front: &ExistingRedisOptions) {
    if front.password_env.is_some() && front.password_file.is_some() {
        let message = "password_env and password_file are both set";
        checker.error(&["front", "password_file"], message, "keep the one that holds the password");
    }
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
