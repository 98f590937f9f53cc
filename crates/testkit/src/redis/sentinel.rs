use std::net::SocketAddr;

use super::{Mode, RedisOptions, RedisServer, Replicated};
use crate::process::wait_until;

/// What the sentinels call the primary.
pub const SENTINEL_NAME: &str = "main";

/// How many sentinels there are, and how many must agree that a primary is down.
const SENTINELS: usize = 3;
const QUORUM: usize = 2;

const REPLICAS: usize = 2;

/// How long a primary is silent before a sentinel takes it for dead.
const DOWN_AFTER_MS: u32 = 500;

/// Three sentinels that watch a primary and two replicas, and fail over within
/// some seconds: half a second of silence, then an election.
///
/// ```no_run
/// use larder_testkit::redis::Sentinel;
///
/// let redis = Sentinel::start();
/// let old = redis.primary().address();
/// redis.primary().kill();
/// redis.wait_for_failover(old);
/// assert_ne!(redis.primary().address(), old);
/// ```
#[derive(Debug)]
pub struct Sentinel {
    sentinels: Vec<RedisServer>,
    servers: Replicated,
}

impl Sentinel {
    /// Starts all six, and waits until the sentinels know of each other and of the
    /// replicas. Blocks: some seconds.
    ///
    /// # Panics
    /// If they do not.
    #[must_use]
    pub fn start() -> Self {
        Self::launch(&RedisOptions::default())
    }

    /// [`Sentinel::start`] of servers that have these options each. The sentinels
    /// have their password and TLS, too, and know the servers' password.
    ///
    /// # Panics
    /// As [`Sentinel::start`].
    #[must_use]
    pub fn launch(options: &RedisOptions) -> Self {
        let servers = Replicated::launch(REPLICAS, options);
        let port = servers.primary().address().port();
        let mut lines = format!(
            "sentinel monitor {SENTINEL_NAME} 127.0.0.1 {port} {QUORUM}\n\
             sentinel down-after-milliseconds {SENTINEL_NAME} {DOWN_AFTER_MS}\n\
             sentinel failover-timeout {SENTINEL_NAME} 3000\n\
             sentinel parallel-syncs {SENTINEL_NAME} {REPLICAS}\n"
        );
        if let Some(password) = &options.password {
            lines += &format!(
                "sentinel auth-pass {SENTINEL_NAME} \"{password}\"\n\
                 sentinel sentinel-pass \"{password}\"\n"
            );
        }
        let own = RedisOptions {
            flavour: options.flavour,
            password: options.password.clone(),
            tls: options.tls.clone(),
            ..RedisOptions::default()
        };
        let sentinel = |_| RedisServer::launch_as(Mode::Sentinel, &own, &lines);
        let sentinels = (0..SENTINELS).map(sentinel).collect();
        let redis = Self { sentinels, servers };
        wait_until("the sentinels know everybody", || redis.is_ready());
        redis
    }

    /// The sentinels.
    #[must_use]
    pub fn sentinels(&self) -> &[RedisServer] {
        &self.sentinels
    }

    /// Where the sentinels listen.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sentinels.iter().map(RedisServer::address).collect()
    }

    /// The primary and the replicas, the first primary first.
    #[must_use]
    pub fn servers(&self) -> &[RedisServer] {
        self.servers.servers()
    }

    /// Who is the primary, as most sentinels that run say.
    ///
    /// # Panics
    /// If they do not agree in time.
    #[must_use]
    pub fn primary(&self) -> &RedisServer {
        let mut address = None;
        wait_until("most sentinels agree on a primary", || {
            address = self.agreed_primary();
            address.is_some()
        });
        let is_it = |server: &&RedisServer| Some(server.address()) == address;
        self.servers().iter().find(is_it).expect("the sentinels know no other servers")
    }

    /// Tells the sentinels to fail over although the primary lives, and waits
    /// until they have.
    ///
    /// # Panics
    /// If they do not.
    pub fn fail_over(&self) {
        let old = self.primary().address();
        let sentinel = self.sentinels.iter().find(|sentinel| sentinel.is_awake());
        let sentinel = sentinel.expect("a sentinel runs");
        wait_until("a sentinel completes a failover", || {
            let is_done = named_by(sentinel).is_some_and(|primary| primary != old);
            if !is_done {
                // Refused while one is under way. A machine that stands still for
                // a moment makes sentinels give one up.
                sentinel.command(&["SENTINEL", "FAILOVER", SENTINEL_NAME]);
            }
            is_done
        });
        self.wait_for_failover(old);
    }

    /// Waits until most sentinels name another primary than this one, and it
    /// takes writes.
    ///
    /// # Panics
    /// If that does not come about.
    pub fn wait_for_failover(&self, old: SocketAddr) {
        wait_until("the sentinels name another primary", || {
            self.agreed_primary().is_some_and(|primary| primary != old)
        });
        self.primary().wait_for_info("role", "master");
    }

    fn is_ready(&self) -> bool {
        self.sentinels.iter().all(|sentinel| {
            let quorum = sentinel.command(&["SENTINEL", "CKQUORUM", SENTINEL_NAME]);
            let all = format!("OK {SENTINELS} usable");
            let replicas = sentinel.command(&["SENTINEL", "REPLICAS", SENTINEL_NAME]);
            !quorum.is_error()
                && quorum.text().starts_with(&all)
                && replicas.items().len() == REPLICAS
        })
    }

    fn agreed_primary(&self) -> Option<SocketAddr> {
        let said: Vec<SocketAddr> = self.sentinels.iter().filter_map(named_by).collect();
        let votes = |address| said.iter().filter(|other| **other == address).count();
        said.iter().copied().find(|address| votes(*address) >= QUORUM)
    }
}

/// Whom a sentinel takes for the primary.
fn named_by(sentinel: &RedisServer) -> Option<SocketAddr> {
    let ask = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SENTINEL_NAME];
    let reply = sentinel.is_awake().then(|| sentinel.try_command(&ask).ok())??;
    let [host, port] = reply.items() else { return None };
    format!("{}:{}", host.text(), port.text()).parse().ok()
}
