//! The tiers that many servers share: opened before the caches that use them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder::{Fleet, FleetOptions, Stores};
use larder_core::{Error, ErrorKind, Key, Result};
use larder_memcached::{
    Credentials, Memcached, MemcachedOptions, MemcachedStore, ServerAddress, StoreOptions,
    TlsOptions, WhenDead,
};
use larder_redis::{RedisOptions, RedisTier, Topology};

use super::connect::with_source;
use super::made_by::MadeBy;
use super::secrets::{read, variable_value};
use crate::config::{
    ByteSize, DeadServerKeys, Diagnostic, RedisTierOptions, RedisTopology, Settings,
};

/// The pauses between two attempts to reach a tier that was not there at the
/// start.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);

/// What was invalidated refuses older entries for at least this long.
const FLOOR_WINDOW_LEAST: Duration = Duration::from_secs(600);
const FLOOR_WINDOW_MOST: Duration = Duration::from_secs(24 * 3600);

/// Announcing a change may take this long, however short a reply may take.
const BUS_TIMEOUT_LEAST: Duration = Duration::from_secs(1);

/// The tiers that this server shares with others.
#[derive(Clone, Debug)]
pub struct SharedTiers {
    /// The Redis that is bus, lease and perhaps store.
    pub redis: RedisTier,
    /// The memcached servers, if there are any.
    pub memcached: Option<Memcached>,
    /// Whether entries are kept in Redis.
    pub keeps_entries_in_redis: bool,
    /// The other servers.
    pub fleet: Fleet,
    memory_ttl: Option<Duration>,
    floor_window: Duration,
    compress_above: Option<usize>,
}

impl SharedTiers {
    /// Adds the places of one cache to its stores, if there are any. What is kept in
    /// them has the cache's own name: an invalidation, which carries it, is about
    /// the key, whatever made the entry.
    pub(super) fn add(
        &self,
        mut stores: Stores<Key, Bytes>,
        cache: &str,
        made_by: &str,
    ) -> Stores<Key, Bytes> {
        if self.memcached.is_none() && !self.keeps_entries_in_redis {
            // A lease is of no use to who cannot find what another has loaded.
            return stores;
        }
        stores = stores.memory_ttl(self.memory_ttl).lease(self.redis.lease(cache));
        if let Some(memcached) = &self.memcached {
            let mut options = StoreOptions::default();
            options.floor_window = self.floor_window;
            options.compress_above = self.compress_above;
            let store = MemcachedStore::with_options(memcached, cache, options);
            stores = stores.store("memcached", MadeBy::new(store, made_by));
        }
        if self.keeps_entries_in_redis {
            stores = stores.store("redis", MadeBy::new(self.redis.store(cache), made_by));
        }
        stores
    }
}

/// Makes the tiers that the configuration names, and tries them. One that cannot
/// be reached is none to wait for: it is looked for in the background.
///
/// # Errors
/// At its place in the file, if a login, a certificate or a right is missing.
pub(super) async fn open(settings: &Settings) -> Result<Option<SharedTiers>, Box<Diagnostic>> {
    let mistake = |section: &str, error: &Error| Box::new(mistake(settings, section, error));
    let redis = open_redis(settings).await.map_err(|error| mistake("redis", &error))?;
    let Some(redis) = redis else { return Ok(None) };
    let memcached = open_memcached(settings).await.map_err(|error| mistake("memcached", &error))?;
    let options = &settings.config.redis;
    let fleet = FleetOptions::default()
        .staleness_bound(options.staleness_bound.0)
        .timeout(options.reply_timeout.0.max(BUS_TIMEOUT_LEAST));
    let fleet = Fleet::join(Arc::new(redis.bus()), fleet).await;
    Ok(Some(SharedTiers {
        fleet: fleet.map_err(|error| mistake("redis", &error))?,
        keeps_entries_in_redis: options.entries.unwrap_or(memcached.is_none()),
        memory_ttl: options.memory_ttl.0,
        floor_window: floor_window(settings),
        compress_above: settings.config.memcached.compress_above.map(bytes),
        redis,
        memcached,
    }))
}

/// What is wrong with a tier, at its section.
fn mistake(settings: &Settings, section: &str, error: &Error) -> Diagnostic {
    let message = format!("[{section}] cannot be used: {}", with_source(error));
    let remedy = error.remedy_text().unwrap_or("check that it runs and can be reached").to_owned();
    settings.error_at(&[section], message, remedy)
}

/// What only the tiers themselves can tell about a configuration: whether they can
/// be reached, and whether they let this server in.
pub(super) async fn check(settings: &Settings) -> Vec<Diagnostic> {
    let redis = async {
        let Some(options) = redis_options(settings)? else { return Ok(()) };
        RedisTier::connect(options).await.map(drop)
    };
    let memcached = async {
        let Some(options) = memcached_options(settings)? else { return Ok(()) };
        Memcached::connect(options).await.map(drop)
    };
    let (redis, memcached) = tokio::join!(redis, memcached);
    [("redis", redis), ("memcached", memcached)]
        .into_iter()
        .filter_map(|(section, tried)| Some(mistake(settings, section, &tried.err()?)))
        .collect()
}

async fn open_redis(settings: &Settings) -> Result<Option<RedisTier>> {
    let Some(options) = redis_options(settings)? else { return Ok(None) };
    let tier = RedisTier::connect_lazily(options)?;
    match tier.check().await {
        Err(error) if error.kind() == ErrorKind::Config => return Err(error),
        Err(error) => {
            tracing::warn!(
                "Redis cannot be used now, the server works without it until it can: {error}"
            );
            tokio::spawn(look_for(tier.clone()));
        }
        Ok(()) => {}
    }
    Ok(Some(tier))
}

async fn open_memcached(settings: &Settings) -> Result<Option<Memcached>> {
    let Some(options) = memcached_options(settings)? else { return Ok(None) };
    match Memcached::connect(options.clone()).await {
        Ok(memcached) => Ok(Some(memcached)),
        Err(error) if error.kind() == ErrorKind::Config => Err(error),
        Err(error) => {
            tracing::warn!(
                "memcached cannot be used now, the server works without it until it can: {error}"
            );
            Memcached::connect_lazily(options).map(Some)
        }
    }
}

/// Tells in the log when Redis is there, and whether it lets this server in.
async fn look_for(tier: RedisTier) {
    let mut pause = RETRY_PAUSE;
    loop {
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        match tier.check().await {
            Ok(()) => {
                tracing::info!("Redis is there and is used");
                return;
            }
            Err(error) if error.kind() == ErrorKind::Config => {
                tracing::error!("Redis is there and cannot be used: {error}");
            }
            Err(error) => tracing::debug!(%error, "Redis is not there yet"),
        }
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
}

/// What Redis is connected with, if the configuration names one.
///
/// # Errors
/// [`ErrorKind::Config`] if what the configuration names is not there.
pub(crate) fn redis_options(settings: &Settings) -> Result<Option<RedisOptions>> {
    let redis = &settings.config.redis;
    let Some(urls) = urls(redis)? else { return Ok(None) };
    let mut options = RedisOptions::new("");
    options.urls = urls;
    options.topology = topology(redis)?;
    options.user.clone_from(&redis.user);
    options.password = read(redis.password_env.as_deref(), redis.password_file.as_deref())?;
    options.ca_file = redis.ca_file.as_ref().map(PathBuf::from);
    options.connections_max = redis.connections;
    options.connect_timeout = redis.connect_timeout.0;
    options.response_timeout = redis.reply_timeout.0;
    options.prefix.clone_from(&redis.prefix);
    options.value_bytes_max = bytes(redis.value_size_max);
    options.compress_above = redis.compress_above.map(bytes);
    options.read_from_replicas = redis.read_from_replicas;
    options.floor_window = floor_window(settings);
    Ok(Some(options))
}

fn bytes(size: ByteSize) -> usize {
    usize::try_from(size.0).unwrap_or(usize::MAX)
}

fn urls(redis: &RedisTierOptions) -> Result<Option<Vec<String>>> {
    match (&redis.url, &redis.url_env) {
        (Some(url), _) => Ok(Some(vec![url.clone()])),
        (None, Some(name)) => variable_value(name).map(|urls| Some(split(&urls))),
        (None, None) if redis.urls.is_empty() => Ok(None),
        (None, None) => Ok(Some(redis.urls.clone())),
    }
}

fn split(urls: &str) -> Vec<String> {
    urls.split(',').map(|url| url.trim().to_owned()).collect()
}

fn topology(redis: &RedisTierOptions) -> Result<Topology> {
    Ok(match redis.topology {
        RedisTopology::Standalone => Topology::Standalone,
        RedisTopology::Cluster => Topology::Cluster,
        RedisTopology::Sentinel => Topology::Sentinel {
            service: redis.sentinel_service.clone().unwrap_or_default(),
            user: redis.sentinel_user.clone(),
            password: read(
                redis.sentinel_password_env.as_deref(),
                redis.sentinel_password_file.as_deref(),
            )?,
        },
    })
}

/// Twice what a load may take, in whichever cache.
pub(super) fn floor_window(settings: &Settings) -> Duration {
    let caches = settings.config.caches.keys().map(|name| Some(name.as_str()));
    let longest = caches
        .chain([None])
        .map(|cache| settings.policy(cache).to_policy().get_hard_timeout())
        .max()
        .unwrap_or_default();
    longest.saturating_mul(2).clamp(FLOOR_WINDOW_LEAST, FLOOR_WINDOW_MOST)
}

/// What memcached is connected with, if the configuration names servers.
///
/// # Errors
/// As [`redis_options`].
pub(crate) fn memcached_options(settings: &Settings) -> Result<Option<MemcachedOptions>> {
    let memcached = &settings.config.memcached;
    if !memcached.is_set() {
        return Ok(None);
    }
    let servers: Vec<ServerAddress> =
        memcached.servers.iter().map(|server| server.parse()).collect::<Result<_>>()?;
    let mut options = MemcachedOptions::new(servers);
    options.connections_per_server = memcached.connections_per_server;
    options.connect_timeout = memcached.connect_timeout.0;
    options.response_timeout = memcached.reply_timeout.0;
    options.when_dead = match memcached.when_dead {
        DeadServerKeys::Miss => WhenDead::Miss,
        DeadServerKeys::Eject => WhenDead::Eject,
    };
    let password = read(memcached.password_env.as_deref(), memcached.password_file.as_deref())?;
    options.credentials = memcached
        .user
        .as_ref()
        .zip(password)
        .map(|(user, password)| Credentials::new(user, password));
    options.tls = memcached.tls.then(|| {
        let mut tls = TlsOptions::default();
        tls.ca_file = memcached.ca_file.as_ref().map(PathBuf::from);
        tls.server_name.clone_from(&memcached.server_name);
        tls
    });
    Ok(Some(options))
}

/// Whether an environment variable holds URLs of Redis servers.
pub(super) fn url_variable(name: &str) -> Result<()> {
    let mut options = RedisOptions::new("");
    options.urls = split(&variable_value(name)?);
    options.validate().map_err(|error| {
        Error::new(ErrorKind::Config, "an environment variable holds no URL of a Redis server")
            .with("variable", name)
            .with("reason", error.message())
            .remedy(error.remedy_text().unwrap_or_default().to_owned())
    })
}
