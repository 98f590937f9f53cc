//! Rules for `[redis]` and `[memcached]`, the tiers that many servers share.

use std::ops::RangeInclusive;
use std::time::Duration;

use larder_memcached::ServerAddress;
use larder_redis::CONNECTIONS_LIMIT;

use super::{Checker, sentinel};
use crate::config::policy::{self, without_remedy};
use crate::config::{
    ByteSize, DurationText, MemcachedTierOptions, RedisTierOptions, RedisTopology,
};

const MOMENT: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

const KEEP_ONE_PASSWORD: &str = "keep the one that holds the password";

pub(super) fn check(checker: &mut Checker<'_>) {
    let config = &checker.parsed.config;
    redis(checker, &config.redis);
    memcached(checker, &config.memcached);
    combinations(checker);
    idle_entries(checker);
}

/// An entry that nobody asks for ends in memory only: tiers below do not know who
/// asked.
fn idle_entries(checker: &mut Checker<'_>) {
    let config = &checker.parsed.config;
    let keeps_entries = config.redis.entries.unwrap_or(true) || config.memcached.is_set();
    let tier = match (config.redis.is_set() && keeps_entries, &config.disk.directory) {
        (true, _) => "[redis]",
        (false, Some(_)) => "[disk]",
        (false, None) => return,
    };
    let names = config.caches.iter().filter(|(_, options)| options.enabled != Some(false));
    let names: Vec<_> = names.map(|(name, _)| Some(name.as_str())).chain([None]).collect();
    for name in names {
        let effective = policy::resolve(config, name, None);
        let idle = effective.options().idle_ttl.and_then(|idle| idle.0);
        if idle.is_none() || !effective.class().may_leave_process() {
            continue;
        }
        let path = match name {
            Some(name) if checker.is_set(&["caches", name, "idle_ttl"]) => {
                vec!["caches", name, "idle_ttl"]
            }
            // Told once, with the defaults.
            Some(_) => continue,
            None => vec!["defaults", "idle_ttl"],
        };
        checker.error(
            &path,
            format!(
                "idle_ttl holds in memory alone: {tier} would go on serving what nobody asked for"
            ),
            "leave idle_ttl out and let ttl or max_age end entries, which hold in tiers, too",
        );
    }
}

/// Which tiers go together.
fn combinations(checker: &mut Checker<'_>) {
    let config = &checker.parsed.config;
    let has_redis =
        config.redis.is_set() || is_written(checker, "redis", &["url", "url_env", "urls"]);
    if config.memcached.is_set() && !has_redis {
        checker.error(
            &["memcached"],
            "[memcached] cannot tell other servers what changed",
            "add [redis] with a url: it is the bus, and the entries stay in memcached",
        );
    }
}

fn redis(checker: &mut Checker<'_>, redis: &RedisTierOptions) {
    let is_set = redis.is_set() || is_written(checker, "redis", &["url", "url_env", "urls"]);
    if !redis.is_default() && !is_set {
        checker.error(
            &["redis"],
            "[redis] names no server",
            "set url, or url_env to the name of an environment variable that holds it; the Redis \
             to stand in front of belongs into [front]",
        );
    }
    redis_urls(checker, redis);
    redis_logins(checker, redis);
    redis_limits(checker, redis);
}

fn redis_urls(checker: &mut Checker<'_>, redis: &RedisTierOptions) {
    let said = [redis.url.is_some(), redis.url_env.is_some(), !redis.urls.is_empty()];
    if said.iter().filter(|is_said| **is_said).count() > 1 {
        let option = if redis.url_env.is_some() { "url_env" } else { "urls" };
        let message = "of url, urls and url_env more than one is set";
        checker.error(&["redis", option], message, "keep the one that holds the URLs");
    }
    let (option, urls) = match &redis.url {
        Some(url) => ("url", std::slice::from_ref(url)),
        None => ("urls", redis.urls.as_slice()),
    };
    let mut options = larder_redis::RedisOptions::new("");
    for url in urls {
        options.urls = vec![url.clone()];
        if let Err(error) = options.validate() {
            let remedy = error.remedy_text().unwrap_or_default().to_owned();
            return checker.error(&["redis", option], without_remedy(&error), remedy);
        }
    }
    if urls.is_empty() {
        return;
    }
    options.urls = urls.to_vec();
    options.topology = match redis.topology {
        RedisTopology::Cluster => larder_redis::Topology::Cluster,
        _ => larder_redis::Topology::Standalone,
    };
    if let Err(error) = options.validate() {
        let remedy = error.remedy_text().unwrap_or_default().to_owned();
        checker.error(&["redis", option], without_remedy(&error), remedy);
    }
    let is_encrypted = |url: &String| url.starts_with("rediss:") || url.starts_with("valkeys:");
    if redis.ca_file.is_some() && !urls.iter().any(is_encrypted) {
        checker.error(
            &["redis", "ca_file"],
            "`ca_file` has no effect: these connections are not encrypted",
            "write the URL as rediss://, or leave ca_file out",
        );
    }
    let has_password = |url: &String| {
        url.rsplit_once('@').is_some_and(|(login, _)| login.matches(':').count() > 1)
    };
    let has_other = redis.password_env.is_some() || redis.password_file.is_some();
    if has_other && urls.iter().any(has_password) {
        let message = "a password stands in the URL and elsewhere";
        checker.error(&["redis", option], message, "keep password_env or password_file");
    }
}

fn redis_logins(checker: &mut Checker<'_>, redis: &RedisTierOptions) {
    if redis.password_env.is_some() && redis.password_file.is_some() {
        let message = "password_env and password_file are both set";
        checker.error(&["redis", "password_file"], message, KEEP_ONE_PASSWORD);
    }
    sentinel::check(
        checker,
        "redis",
        redis.topology == RedisTopology::Sentinel,
        &sentinel::Said {
            service: &redis.sentinel_service,
            user: &redis.sentinel_user,
            password_env: &redis.sentinel_password_env,
            password_file: &redis.sentinel_password_file,
        },
    );
}

fn redis_limits(checker: &mut Checker<'_>, redis: &RedisTierOptions) {
    let least = if redis.read_from_replicas { 4 } else { 3 };
    if !(least..=CONNECTIONS_LIMIT).contains(&redis.connections) {
        checker.error(
            &["redis", "connections"],
            format!(
                "`connections` cannot be {}: it is from {least} to {CONNECTIONS_LIMIT}",
                redis.connections
            ),
            "4 is usual: commands share them",
        );
    }
    if redis.read_from_replicas {
        checker.warning(
            &["redis", "read_from_replicas"],
            "what was removed may be read once more from a replica that lags behind, and is then \
             served for up to memory_ttl",
            "leave it out unless answers may be that old",
        );
    }
    durations(
        checker,
        "redis",
        [
            ("connect_timeout", redis.connect_timeout, MOMENT..=HOUR, "1ms to 1h"),
            ("reply_timeout", redis.reply_timeout, MOMENT..=HOUR, "1ms to 1h"),
            // The bus proves itself each half second.
            ("staleness_bound", redis.staleness_bound, SECOND..=HOUR, "1s to 1h"),
        ],
    );
    if redis.memory_ttl.0.is_some_and(|ttl| ttl.is_zero()) {
        let message = "a memory_ttl of zero would keep nothing in memory";
        checker.error(&["redis", "memory_ttl"], message, "1m is usual");
    }
    let largest = 256 << 20;
    if !(1..=largest).contains(&redis.value_size_max.0) {
        checker.error(
            &["redis", "value_size_max"],
            format!(
                "the largest value cannot be {}: it is from 1B to {}",
                redis.value_size_max,
                ByteSize(largest)
            ),
            "8MiB is usual",
        );
    }
    let mut options = larder_redis::RedisOptions::new("redis://localhost");
    options.prefix.clone_from(&redis.prefix);
    if let Err(error) = options.validate() {
        let remedy = error.remedy_text().unwrap_or_default().to_owned();
        checker.error(&["redis", "prefix"], without_remedy(&error), remedy);
    }
}

fn memcached(checker: &mut Checker<'_>, memcached: &MemcachedTierOptions) {
    if !memcached.is_set() {
        if !memcached.is_default() && !is_written(checker, "memcached", &["servers"]) {
            let remedy = "set servers, such as [\"cache-1:11211\"]";
            checker.error(&["memcached"], "[memcached] names no server", remedy);
        }
        return;
    }
    memcached_servers(checker, memcached);
    let has_password = memcached.password_env.is_some() || memcached.password_file.is_some();
    if memcached.password_env.is_some() && memcached.password_file.is_some() {
        let message = "password_env and password_file are both set";
        checker.error(&["memcached", "password_file"], message, KEEP_ONE_PASSWORD);
    }
    if memcached.user.is_some() != has_password {
        let message = "memcached takes a user and a password, or neither";
        checker.error(&["memcached"], message, "set user, and password_env or password_file");
    }
    for (option, is_said) in
        [("ca_file", memcached.ca_file.is_some()), ("server_name", memcached.server_name.is_some())]
    {
        if is_said && !memcached.tls {
            let message = format!("`{option}` has no effect: these connections are not encrypted");
            let remedy = format!("set tls = true, or leave {option} out");
            checker.error(&["memcached", option], message, remedy);
        }
    }
    durations(
        checker,
        "memcached",
        [
            ("connect_timeout", memcached.connect_timeout, MOMENT..=HOUR, "1ms to 1h"),
            ("reply_timeout", memcached.reply_timeout, MOMENT..=HOUR, "1ms to 1h"),
        ],
    );
}

fn memcached_servers(checker: &mut Checker<'_>, memcached: &MemcachedTierOptions) {
    let mut addresses = Vec::with_capacity(memcached.servers.len());
    for server in &memcached.servers {
        match server.parse::<ServerAddress>() {
            Ok(address) => addresses.push(address),
            Err(error) => {
                let remedy = error.remedy_text().unwrap_or_default().to_owned();
                return checker.error(&["memcached", "servers"], without_remedy(&error), remedy);
            }
        }
    }
    let mut options = larder_memcached::MemcachedOptions::new(addresses);
    options.connections_per_server = memcached.connections_per_server;
    if let Err(error) = options.validate() {
        let remedy = error.remedy_text().unwrap_or_default().to_owned();
        checker.error(&["memcached", "servers"], without_remedy(&error), remedy);
    }
}

/// Whether the file sets one of these, even if to something unreadable.
fn is_written(checker: &Checker<'_>, section: &str, options: &[&str]) -> bool {
    options.iter().any(|option| checker.is_set(&[section, option]))
}

/// An option, its value, what it may be, and that in words.
type DurationRule = (&'static str, DurationText, RangeInclusive<Duration>, &'static str);

fn durations<const N: usize>(checker: &mut Checker<'_>, section: &str, rules: [DurationRule; N]) {
    for (option, value, range, shown) in rules {
        if !range.contains(&value.0) {
            checker.error(
                &[section, option],
                format!("`{option}` cannot be {value}: it is from {shown}"),
                "leave it out for the default",
            );
        }
    }
}
