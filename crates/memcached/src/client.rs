use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use larder_core::{Error, ErrorKind, Result};

use crate::protocol::{Reply, Request, WireKey};
use crate::ring::Ring;
use crate::server::{Server, Session};
use crate::tls::Tls;
use crate::{MemcachedOptions, ServerAddress, WhenDead, failure};

/// Memcached servers as one: keys spread by weighted ketama, a few pipelined
/// connections to each, dead servers left out until they return.
///
/// Cloning costs a reference count; clones share the connections.
///
/// ```no_run
/// use larder_core::Store;
/// use larder_memcached::{Memcached, MemcachedOptions, MemcachedStore};
///
/// # async fn example() -> larder_core::Result<()> {
/// let options = MemcachedOptions::new(["cache-1:11211".parse()?, "cache-2:11211".parse()?]);
/// let memcached = Memcached::connect(options).await?;
/// let albums = MemcachedStore::new(&memcached, "album");
/// let held = albums.get(&"album:42".into()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Memcached(Arc<Inner>);

struct Inner {
    options: Arc<MemcachedOptions>,
    servers: Vec<Arc<Server>>,
    /// Where keys are while all servers live.
    homes: Ring,
    /// The servers that lived when it was made, one bit each, and their ring.
    living: ArcSwap<(u64, Ring)>,
}

/// Where a key is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Route {
    /// The server that has the key while all live.
    pub(crate) home: usize,
    /// The server to ask, if there is one.
    pub(crate) server: Option<usize>,
}

impl Route {
    /// Whether another server than the key's own is to be asked.
    pub(crate) fn is_stand_in(self) -> bool {
        self.server.is_some_and(|server| server != self.home)
    }
}

/// What is known of one server.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ServerState {
    /// Which one.
    pub address: ServerAddress,
    /// Whether nothing is sent to it until a probe succeeds.
    pub is_dead: bool,
    /// Connections that failed or could not be made, since the start.
    pub failures_count: u64,
}

impl Memcached {
    /// Connects to every server once. Those that cannot be reached are tried
    /// again later.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the options contradict each other, or if a
    /// server refuses the credentials, has a certificate that is not trusted,
    /// is too old or runs without compare-and-swap; the error of the first
    /// server if none can be reached.
    pub async fn connect(options: MemcachedOptions) -> Result<Self> {
        let client = Self::connect_lazily(options)?;
        let results = join_all(client.0.servers.iter().map(Server::session)).await;
        let mut first_error = None;
        let mut is_reached = false;
        for result in results {
            match result {
                Ok(_) => is_reached = true,
                Err(error) if error.kind() == ErrorKind::Config => return Err(error),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        match first_error {
            Some(error) if !is_reached => Err(error),
            _ => Ok(client),
        }
    }

    /// Connects to nothing before something is asked: for a process that has to
    /// start while this tier is down.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the options contradict each other or the
    /// certificates cannot be read.
    pub fn connect_lazily(options: MemcachedOptions) -> Result<Self> {
        options.check()?;
        let tls = options.tls.as_ref().map(Tls::new).transpose()?;
        let options = Arc::new(options);
        let server = |address: &ServerAddress| {
            Server::new(address.clone(), Arc::clone(&options), tls.clone())
        };
        let servers: Vec<Arc<Server>> = options.servers.iter().map(server).collect();
        let homes = Ring::new(&options.servers, |_| true);
        let living = ArcSwap::from_pointee((mask(&servers), homes.clone()));
        Ok(Self(Arc::new(Inner { options, servers, homes, living })))
    }

    /// Sends requests of the meta protocol, each to the server that has the key
    /// beside it. One answer for each request; one round trip for each server,
    /// all at the same time.
    ///
    /// A complaint of a server is a [`Reply::Complaint`]; an error means that
    /// there was no answer, and what was asked may have been done.
    ///
    /// # Cancel safety
    /// Dropping the future gives up waiting. What was sent may be done.
    pub async fn call_many(&self, requests: &[(WireKey, Request)]) -> Vec<Result<Reply>> {
        let routes: Vec<Route> =
            requests.iter().map(|(key, _)| self.route(key.as_bytes())).collect();
        let groups = join_all(self.groups(&routes).into_iter().map(|(server, indexes)| {
            let batch: Vec<Request> =
                indexes.iter().map(|index| requests[*index].1.clone()).collect();
            async move {
                let answers = match self.session(server).await {
                    Ok(session) => session.call(&batch).await,
                    Err(error) => Err(error),
                };
                (indexes, answers)
            }
        }));
        let mut results: Vec<Result<Reply>> =
            routes.iter().map(|route| Err(self.dead_error(*route))).collect();
        for (indexes, answers) in groups.await {
            match answers {
                Ok(answers) => {
                    for (index, reply) in indexes.into_iter().zip(answers.replies) {
                        results[index] = Ok(reply);
                    }
                }
                Err(error) => {
                    indexes.into_iter().for_each(|index| results[index] = Err(error.clone()));
                }
            }
        }
        results
    }

    /// What is known of each server, in the order of the options.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerState> {
        let state = |server: &Arc<Server>| ServerState {
            address: server.address.clone(),
            is_dead: server.is_dead(),
            failures_count: server.failures_total(),
        };
        self.0.servers.iter().map(state).collect()
    }

    pub(crate) fn servers_count(&self) -> usize {
        self.0.servers.len()
    }

    /// The largest item that every server takes.
    pub(crate) fn item_bytes_max(&self) -> usize {
        self.0.servers.iter().map(|server| server.item_bytes_max()).min().unwrap_or_default()
    }

    /// Which server to ask for a key, as it is sent.
    pub(crate) fn route(&self, key: &[u8]) -> Route {
        let home = self.0.homes.server(key).expect("options name at least one server");
        if !self.0.servers[home].is_dead() {
            return Route { home, server: Some(home) };
        }
        let server = match self.0.options.when_dead {
            WhenDead::Miss => None,
            WhenDead::Eject => self.living_ring().1.server(key),
        };
        Route { home, server }
    }

    /// The places of routes that lead to the same server.
    pub(crate) fn groups(&self, routes: &[Route]) -> Vec<(usize, Vec<usize>)> {
        let mut groups: Vec<(usize, Vec<usize>)> = Vec::new();
        let mut group_of = vec![None; self.0.servers.len()];
        for (index, route) in routes.iter().enumerate() {
            let Some(server) = route.server else { continue };
            let group = *group_of[server].get_or_insert_with(|| {
                groups.push((server, Vec::new()));
                groups.len() - 1
            });
            groups[group].1.push(index);
        }
        groups
    }

    pub(crate) async fn session(&self, server: usize) -> Result<Arc<Session>> {
        self.0.servers[server].session().await
    }

    pub(crate) fn address(&self, server: usize) -> &ServerAddress {
        &self.0.servers[server].address
    }

    pub(crate) fn dead_error(&self, route: Route) -> Error {
        failure::dead(self.address(route.home))
    }

    fn living_ring(&self) -> Arc<(u64, Ring)> {
        let known = self.0.living.load_full();
        let living = mask(&self.0.servers);
        if known.0 == living {
            return known;
        }
        let ring = Ring::new(&self.0.options.servers, |index| living & (1 << index) != 0);
        let fresh = Arc::new((living, ring));
        self.0.living.store(Arc::clone(&fresh));
        fresh
    }
}

impl fmt::Debug for Memcached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memcached").field("servers", &self.servers()).finish_non_exhaustive()
    }
}

/// Which servers live, one bit each: options allow at most 50.
fn mask(servers: &[Arc<Server>]) -> u64 {
    let bit = |(index, server): (usize, &Arc<Server>)| u64::from(!server.is_dead()) << index;
    servers.iter().enumerate().map(bit).fold(0, |mask, bit| mask | bit)
}
