use std::fmt;
use std::sync::Arc;

use larder_core::Result;
use redis::cluster_routing::Slot;

use crate::bus::RedisBus;
use crate::connector::Connector;
use crate::discovery::Discovery;
use crate::keys::Names;
use crate::lease::RedisLease;
use crate::links::Links;
use crate::shared::Shared;
use crate::store::RedisStore;
use crate::{RedisOptions, probe, rights};

/// Redis or Valkey as a shared tier: [`RedisStore`]s, one for each cache, the
/// [`RedisBus`] and [`RedisLease`]s, over the same few connections.
///
/// Cloning costs a reference count. It reconnects by itself. Needs a Tokio
/// runtime.
#[derive(Clone)]
pub struct RedisTier(pub(crate) Arc<Shared>);

impl RedisTier {
    /// Connects, and checks that everything a tier does is allowed.
    ///
    /// # Errors
    /// [`larder_core::ErrorKind::Config`] for a wrong option, password, certificate
    /// or missing right, with the server and the right;
    /// [`larder_core::ErrorKind::Unavailable`] or
    /// [`larder_core::ErrorKind::Timeout`] for a server that does not answer.
    pub async fn connect(options: RedisOptions) -> Result<Self> {
        let tier = Self::connect_lazily(options)?;
        tier.check().await?;
        Ok(tier)
    }

    /// Connects to nothing before something is asked: for a process that has to
    /// start while this tier is down. Whether it may be used, [`RedisTier::check`]
    /// tells.
    ///
    /// # Errors
    /// [`larder_core::ErrorKind::Config`] for a wrong option, or certificates that
    /// cannot be read.
    pub fn connect_lazily(options: RedisOptions) -> Result<Self> {
        let urls = options.check()?;
        let names = Names::new(&options.prefix);
        // The check refuses an empty list.
        let connector = Arc::new(Connector::new(&options, &urls[0])?);
        let control = Slot::for_key(names.clock());
        let discovery = Discovery::new(&options, &urls, connector, control);
        let links = Links::new(&options, &discovery);
        Ok(Self(Arc::new(Shared::new(options, names, links, discovery))))
    }

    /// Connects, and tries everything that a tier does. About ten round trips.
    ///
    /// # Errors
    /// As [`RedisTier::connect`].
    ///
    /// # Cancel safety
    /// Dropped, it leaves nothing behind but keys that expire in a moment.
    pub async fn check(&self) -> Result<()> {
        self.0.links.open().await?;
        rights::check(&self.0).await?;
        self.0.rejoin(None).await
    }

    /// The store of one cache.
    #[must_use]
    pub fn store(&self, cache: &str) -> RedisStore {
        RedisStore::new(Arc::clone(&self.0), cache)
    }

    /// The bus. All caches of all tiers with one prefix share it.
    #[must_use]
    pub fn bus(&self) -> RedisBus {
        RedisBus::new(Arc::clone(&self.0))
    }

    /// The leases of one cache.
    #[must_use]
    pub fn lease(&self, cache: &str) -> RedisLease {
        RedisLease::new(Arc::clone(&self.0), cache)
    }

    /// How many connections listen to the bus now: one for each subscription,
    /// those of this tier included. Two round trips.
    ///
    /// # Errors
    /// [`larder_core::ErrorKind::Config`] if the user may not ask, which takes the
    /// right `+pubsub`; [`larder_core::ErrorKind::Unavailable`] if nobody answers.
    pub async fn listeners(&self) -> Result<u64> {
        probe::listeners(&self.0).await
    }

    /// Looks at each server and says what is wrong and what to do about it. Opens
    /// connections of its own, and takes about a quarter of a second.
    pub async fn probe(&self) -> Vec<probe::Finding> {
        probe::run(&self.0).await
    }
}

impl fmt::Debug for RedisTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisTier").field(&self.0.options).finish()
    }
}
