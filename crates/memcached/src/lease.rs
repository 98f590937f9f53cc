use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use larder_core::{Key, Lease, LeaseGrant, LeaseToken, Result};
use tokio::time::{Instant, sleep_until};

use crate::client::Route;
use crate::clock::{duration_micros, secs_up};
use crate::item::ItemNames;
use crate::protocol::{Reply, Request, WireKey};
use crate::server::{Session, jittered};
use crate::{Memcached, failure};

/// Memcached takes longer durations for points in time.
const SECS_MAX: u64 = 60 * 60 * 24 * 30;

/// The pauses between two looks of who waits.
const POLL_PAUSE: Duration = Duration::from_millis(10);
const POLL_PAUSE_MAX: Duration = Duration::from_millis(250);

/// Leases remembered at most.
const SEEN_MAX: usize = 4_096;

/// A token's lower bits are the number of the item's last change, the upper ones
/// say which run of the server gave it: numbers begin anew with each.
const CAS_BITS: u32 = 48;
const CAS_MASK: u64 = (1 << CAS_BITS) - 1;

/// Which of many nodes may load a key, by an item that memcached makes for the
/// first who asks for it (`mg` with `N`): the server tells one of all that it
/// has won.
///
/// Memcached counts whole seconds: a lease is granted for its duration rounded
/// up, and one more. Who does not get it is told the exact rest of it if this
/// node was granted it, and else the whole seconds that the server shows; past
/// that it may still be held for one or two. Memcached may evict a lease, or lose it by a restart: then a
/// second node loads, and versions decide whose answer is kept. A server that
/// died grants no leases; whoever asks gets its error.
///
/// Nothing wakes who waits: memcached has no messages. [`Lease::released`] looks
/// again after 10 ms, and then after longer and longer pauses up to 250 ms,
/// jittered: up to about a hundred small requests for a wait of 20 s.
///
/// # Cost
/// Asking and releasing are one round trip to each server that has some of the
/// keys, all at once.
pub struct MemcachedLease {
    client: Memcached,
    names: ItemNames,
    /// When the leases seen here end at the latest.
    seen: Mutex<HashMap<WireKey, Seen>>,
}

/// A lease that this node was granted or was refused.
struct Seen {
    token: LeaseToken,
    ends_at: Instant,
}

impl MemcachedLease {
    /// The leases of the cache with this name.
    #[must_use]
    pub fn new(client: &Memcached, cache: &str) -> Self {
        Self { client: client.clone(), names: ItemNames::new(cache), seen: Mutex::default() }
    }

    async fn acquire_group(
        &self,
        server: usize,
        names: Vec<WireKey>,
        duration: Duration,
    ) -> Result<Vec<LeaseGrant>> {
        let secs = secs_up(duration_micros(duration)).saturating_add(1).min(SECS_MAX);
        let ttl_secs = u32::try_from(secs).unwrap_or(u32::MAX);
        let session = self.client.session(server).await?;
        let request =
            |name: &WireKey| Request::get(name.clone()).with_cas().with_ttl().vivify(ttl_secs);
        let requests: Vec<Request> = names.iter().map(request).collect();
        let answers = session.call(&requests).await?;
        let grant = |(name, reply)| match reply {
            Reply::Done(flags) => {
                let token = token(&session, flags.cas.unwrap_or(0));
                if flags.is_won {
                    self.rest(name, token, duration);
                    return Ok(LeaseGrant::Granted(token));
                }
                let shown = Duration::from_secs(flags.ttl_secs.unwrap_or(ttl_secs).into());
                Ok(LeaseGrant::Held(self.rest(name, token, shown)))
            }
            Reply::Complaint(complaint) => {
                Err(failure::refused(self.client.address(server), &complaint))
            }
            _ => Err(failure::garbled(self.client.address(server), "no answer to a lease")),
        };
        names.into_iter().zip(answers.replies).map(grant).collect()
    }

    /// How long a lease lasts at most, as it is seen now and was seen before.
    fn rest(&self, name: WireKey, token: LeaseToken, at_most: Duration) -> Duration {
        let now = Instant::now();
        let ends_at = now.checked_add(at_most).unwrap_or(now);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= SEEN_MAX {
            seen.retain(|_, lease| lease.ends_at > now);
        }
        if seen.len() >= SEEN_MAX {
            seen.clear();
        }
        let lease = seen.entry(name).or_insert(Seen { token, ends_at });
        if lease.token != token {
            *lease = Seen { token, ends_at };
        }
        lease.ends_at = lease.ends_at.min(ends_at);
        (lease.ends_at - now).max(POLL_PAUSE)
    }

    async fn release_group(&self, server: usize, leases: Vec<(WireKey, LeaseToken)>) -> Result<()> {
        let session = self.client.session(server).await?;
        let requests: Vec<Request> = leases
            .into_iter()
            .filter(|(_, LeaseToken(number))| number >> CAS_BITS == run(&session))
            .map(|(name, LeaseToken(number))| Request::delete(name).compare(number & CAS_MASK))
            .collect();
        for reply in session.call(&requests).await?.replies {
            if let Reply::Complaint(complaint) = reply {
                return Err(failure::refused(self.client.address(server), &complaint));
            }
        }
        Ok(())
    }

    /// Whether a lease is held, as far as can be told.
    async fn is_held(&self, name: &WireKey) -> bool {
        let Some(server) = self.client.route(name.as_bytes()).server else { return true };
        let Ok(session) = self.client.session(server).await else { return true };
        match session.call(&[Request::get(name.clone())]).await {
            Ok(answers) => answers.replies != [Reply::Missing],
            Err(_) => true,
        }
    }

    fn routes(&self, names: &[WireKey]) -> Result<Vec<(usize, Vec<usize>)>> {
        let routes: Vec<Route> =
            names.iter().map(|name| self.client.route(name.as_bytes())).collect();
        match routes.iter().find(|route| route.server.is_none()) {
            Some(route) => Err(self.client.dead_error(*route)),
            None => Ok(self.client.groups(&routes)),
        }
    }
}

impl Lease for MemcachedLease {
    async fn acquire_many(&self, keys: &[Key], duration: Duration) -> Result<Vec<LeaseGrant>> {
        let names: Vec<WireKey> = keys.iter().map(|key| self.names.lease(key)).collect();
        let groups = self.routes(&names)?.into_iter().map(|(server, indexes)| {
            let names = indexes.iter().map(|index| names[*index].clone()).collect();
            async move { (indexes, self.acquire_group(server, names, duration).await) }
        });
        let mut grants = vec![LeaseGrant::Held(Duration::ZERO); keys.len()];
        for (indexes, group) in join_all(groups).await {
            for (index, grant) in indexes.into_iter().zip(group?) {
                grants[index] = grant;
            }
        }
        Ok(grants)
    }

    async fn release_many(&self, leases: &[(Key, LeaseToken)]) -> Result<()> {
        let names: Vec<WireKey> = leases.iter().map(|(key, _)| self.names.lease(key)).collect();
        let groups = self.routes(&names)?.into_iter().map(|(server, indexes)| {
            let lease = |index: usize| (names[index].clone(), leases[index].1);
            self.release_group(server, indexes.into_iter().map(lease).collect())
        });
        join_all(groups).await.into_iter().collect()
    }

    async fn released(&self, key: &Key, at_most: Duration) {
        let name = self.names.lease(key);
        let Some(deadline) = Instant::now().checked_add(at_most) else { return };
        let mut pause = POLL_PAUSE;
        let poll = async {
            while self.is_held(&name).await {
                sleep_until(Instant::now() + jittered(pause)).await;
                pause = (pause * 3 / 2).min(POLL_PAUSE_MAX);
            }
        };
        // Either way there is nothing more to say.
        let _ = tokio::time::timeout_at(deadline, poll).await;
    }
}

impl fmt::Debug for MemcachedLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemcachedLease").field("names", &self.names).finish_non_exhaustive()
    }
}

fn token(session: &Session, cas: u64) -> LeaseToken {
    LeaseToken(run(session) << CAS_BITS | cas & CAS_MASK)
}

/// Which run of the server this is, in 16 bits.
fn run(session: &Session) -> u64 {
    let mut hasher = DefaultHasher::new();
    session.incarnation.hash(&mut hasher);
    hasher.finish() >> CAS_BITS
}
