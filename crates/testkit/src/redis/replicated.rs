use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Mode, RedisOptions, RedisServer};
use crate::process::{Port, wait_until};

/// A primary and its replicas, with nobody who fails over but the test.
///
/// ```no_run
/// use larder_testkit::redis::Replicated;
///
/// let redis = Replicated::start(1);
/// redis.primary().command(&["SET", "early", "1"]);
/// redis.wait_until_in_step();
/// redis.hold_back(1);
/// redis.primary().command(&["SET", "late", "2"]);
/// redis.primary().kill();
/// redis.promote(1);
/// assert_eq!(redis.primary().command(&["EXISTS", "early", "late"]).integer(), 1);
/// ```
#[derive(Debug)]
pub struct Replicated {
    servers: Vec<RedisServer>,
    primary: AtomicUsize,
    /// Where nobody listens: who is told to follow it hears nothing.
    nowhere: Port,
}

impl Replicated {
    /// Starts a primary and this many replicas, and waits until they are in step.
    ///
    /// # Panics
    /// If a server does not start.
    #[must_use]
    pub fn start(replicas: usize) -> Self {
        Self::launch(replicas, &RedisOptions::default())
    }

    /// [`Replicated::start`] of servers that have these options each, but for the
    /// port, which only the primary takes.
    ///
    /// # Panics
    /// If a server does not start.
    #[must_use]
    pub fn launch(replicas: usize, options: &RedisOptions) -> Self {
        let primary = RedisServer::launch(options);
        let lines = format!("replicaof 127.0.0.1 {}\n", primary.address().port());
        let options = RedisOptions { port: None, ..options.clone() };
        let mut servers = vec![primary];
        servers
            .extend((0..replicas).map(|_| RedisServer::launch_as(Mode::Server, &options, &lines)));
        let redis = Self { servers, primary: AtomicUsize::new(0), nowhere: Port::reserve() };
        redis.wait_until_in_step();
        redis
    }

    /// Every server, the first primary first. Replicas are told apart by their
    /// place here: 1 and up.
    #[must_use]
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// The primary: the first server until another is promoted.
    #[must_use]
    pub fn primary(&self) -> &RedisServer {
        &self.servers[self.primary.load(Ordering::Relaxed)]
    }

    /// Every server that runs, does not stand still and is not the primary.
    #[must_use]
    pub fn replicas(&self) -> Vec<&RedisServer> {
        let primary = self.primary.load(Ordering::Relaxed);
        let others = self.servers.iter().enumerate().filter(|(place, _)| *place != primary);
        others.map(|(_, server)| server).filter(|server| server.is_awake()).collect()
    }

    /// Waits until each of [`Replicated::replicas`] has everything that the primary has.
    ///
    /// # Panics
    /// If one does not catch up, such as one that is held back.
    pub fn wait_until_in_step(&self) {
        let primary = self.primary();
        for replica in self.replicas() {
            replica.wait_for_info("master_link_status", "up");
            wait_until("the replica is in step", || {
                let offset = |server: &RedisServer| server.info("master_repl_offset");
                offset(primary) == offset(replica)
            });
        }
    }

    /// Cuts a replica off: it stays a replica, answers reads, and hears of no
    /// write any more. Then the primary can acknowledge what the replica lacks.
    ///
    /// # Panics
    /// If the server does not answer.
    pub fn hold_back(&self, replica: usize) {
        let replica = &self.servers[replica];
        follow(replica, self.nowhere.number());
        replica.wait_for_info("master_link_status", "down");
    }

    /// Makes a server follow the primary: a replica that was held back, or an old
    /// primary. What only the old one had is gone.
    ///
    /// # Panics
    /// If the server does not answer.
    pub fn let_follow(&self, replica: usize) {
        follow(&self.servers[replica], self.primary().address().port());
    }

    /// Makes a replica the primary, and the replicas that run its replicas. The
    /// old primary is told nothing: if it runs, there are two.
    ///
    /// # Panics
    /// If a server does not answer.
    pub fn promote(&self, replica: usize) {
        let promoted = &self.servers[replica];
        let reply = promoted.command(&["REPLICAOF", "NO", "ONE"]);
        assert!(!reply.is_error(), "{reply:?}");
        let old = self.primary.swap(replica, Ordering::Relaxed);
        for (place, server) in self.servers.iter().enumerate() {
            if place != old && place != replica && server.is_awake() {
                follow(server, promoted.address().port());
            }
        }
    }
}

fn follow(replica: &RedisServer, port: u16) {
    let reply = replica.command(&["REPLICAOF", "127.0.0.1", &port.to_string()]);
    assert!(!reply.is_error(), "{reply:?}");
}
