//! The shared Redis: what the adapter's own probe finds, and whether the bus
//! brings back what it is given.

use std::time::{Duration, Instant};

use larder_core::{
    Announcement, Bus, BusEvent, Change, Error, ErrorKind, Key, Lease, LeaseGrant, Result, Store,
    Subscription, Verb, Version,
};
use larder_redis::{RedisSubscription, RedisTier};

use super::{Finding, Level, shown};
use crate::config::Settings;
use crate::serve::shared_tiers::redis_options;

/// A cache that nobody has: names of caches have no spaces.
const CACHE: &str = "larder doctor";

/// How long a message may be on its way.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long of a lease is asked for.
const LEASE: Duration = Duration::from_secs(2);

/// How slow a bus may be before it is told.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(100);

pub(super) async fn look(settings: &Settings) -> Vec<Finding> {
    let options = match redis_options(settings) {
        Ok(None) => return Vec::new(),
        Ok(Some(options)) => options,
        Err(error) => return vec![Finding::failure("redis", "?", "configuration", &error)],
    };
    let prefix = options.prefix.clone();
    let tier = match RedisTier::connect_lazily(options) {
        Ok(tier) => tier,
        Err(error) => return vec![Finding::failure("redis", "?", "configuration", &error)],
    };
    let mut findings: Vec<Finding> = tier.probe().await.into_iter().map(Finding::from).collect();
    if let Err(error) = tier.check().await {
        // The probe has found most of it, and knows more of each server.
        if !findings.iter().any(|finding| finding.level == Level::Failure) {
            findings.push(Finding::failure("redis", "?", "rights", &error));
        }
        return findings;
    }
    let at = format!("with the prefix {prefix}");
    findings.push(match store_and_lease(&tier).await {
        Ok(took) => Finding::fine("redis", &at, "round trip", shown(took)),
        Err(error) => Finding::failure("redis", &at, "round trip", &error),
    });
    findings.extend(look_at_bus(&tier, at).await);
    findings
}

/// Whether entries can be read and leases taken, and how long a read takes.
async fn store_and_lease(tier: &RedisTier) -> Result<Duration> {
    let key = own_key();
    let began = Instant::now();
    tier.store(CACHE).get(&key).await?;
    let took = began.elapsed();
    let lease = tier.lease(CACHE);
    let grants = lease.acquire_many(std::slice::from_ref(&key), LEASE).await?;
    let [LeaseGrant::Granted(token)] = grants[..] else {
        return Err(Error::new(ErrorKind::Unavailable, "a lease that nobody has is not granted"));
    };
    lease.release_many(&[(key, token)]).await?;
    Ok(took)
}

/// Whether a message comes back, and who else listens.
async fn look_at_bus(tier: &RedisTier, at: String) -> Vec<Finding> {
    let bus = tier.bus();
    let mut subscription = match bus.subscribe(None, Version::ZERO).await {
        Ok(subscription) => subscription,
        Err(error) => return vec![Finding::failure("bus", at, "subscription", &error)],
    };
    let key = own_key();
    let announcement = Announcement {
        cache: CACHE.to_owned(),
        change: Change::Keys(vec![key.clone()]),
        verb: Verb::Remove,
    };
    let began = Instant::now();
    let heard = async {
        bus.publish(&announcement, Version::ZERO).await?;
        tokio::time::timeout(PATIENCE, hear(&mut subscription, &key)).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "a message that was published did not come back")
                .with("waited", format!("{PATIENCE:?}"))
                .remedy(
                    "see that the user may use the channels of the prefix, and the server's load",
                ))
        })
    };
    let message = match heard.await {
        Ok(()) => round_trip(&at, began.elapsed()),
        Err(error) => Finding::failure("bus", &at, "message", &error),
    };
    vec![message, listeners(tier, &at).await]
}

async fn hear(subscription: &mut RedisSubscription, key: &Key) -> Result<()> {
    while let Some(event) = subscription.next().await {
        let BusEvent::Message(message) = event else { continue };
        let Change::Keys(keys) = &message.announcement.change else { continue };
        if message.announcement.cache == CACHE && keys.contains(key) {
            return Ok(());
        }
    }
    Err(Error::new(ErrorKind::Unavailable, "the subscription to the bus ended"))
}

fn round_trip(at: &str, took: Duration) -> Finding {
    let message = format!("published and heard back in {}", shown(took));
    match took > ROUND_TRIP_MAX {
        false => Finding::fine("bus", at, "message", message),
        true => Finding::new("bus", at, "message", Level::Warning, message)
            .remedy("see the load of Redis and the way to it: changes arrive as late elsewhere"),
    }
}

async fn listeners(tier: &RedisTier, at: &str) -> Finding {
    match tier.listeners().await {
        Ok(count) => {
            // One of them is ours.
            let message = match count.saturating_sub(1) {
                0 => "no server listens now".to_owned(),
                1 => "1 server listens".to_owned(),
                others => format!("{others} servers listen"),
            };
            Finding::fine("bus", at, "listeners", message)
        }
        Err(error) if error.kind() == ErrorKind::Config => {
            let message = "how many servers listen is not told to this user";
            Finding::new("bus", at, "listeners", Level::Warning, message)
                .remedy("allow +pubsub to know; nothing else needs it")
        }
        Err(error) => Finding::failure("bus", at, "listeners", &error),
    }
}

fn own_key() -> Key {
    Key::new(format!("{:016x}", fastrand::u64(..)))
}

impl From<larder_redis::Finding> for Finding {
    fn from(found: larder_redis::Finding) -> Self {
        let level = match found.level {
            larder_redis::Level::Fine => Level::Fine,
            larder_redis::Level::Warning => Level::Warning,
            larder_redis::Level::Failure => Level::Failure,
        };
        let finding = Self::new("redis", found.server, found.check, level, found.message);
        Self { remedy: found.remedy, ..finding }
    }
}
