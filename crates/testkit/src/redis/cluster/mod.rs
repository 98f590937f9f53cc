mod migration;
mod nodes;

use std::net::SocketAddr;

use super::{Mode, RedisOptions, RedisServer, Reply};
use crate::process::{Port, wait_until};
use crate::proxy::FaultProxy;

pub use migration::Migration;

/// How many slots a cluster has.
pub const SLOTS: u16 = 16_384;

const PRIMARIES: usize = 3;
const REPLICAS: usize = 3;

/// How long a node is silent before the others take it for dead.
const NODE_TIMEOUT_MS: u32 = 1_000;

/// Three primaries with a replica each. A dead primary's replica takes over
/// within some seconds.
///
/// ```no_run
/// use larder_testkit::redis::Cluster;
///
/// let redis = Cluster::start();
/// let slot = Cluster::slot(b"{shop}:album:7");
/// let old = redis.place_of(slot);
/// redis.migrate_slot(slot, (old + 1) % 3);
/// assert_ne!(redis.place_of(slot), old);
/// let killed = redis.kill_primary(slot);
/// redis.wait_until_ready();
/// redis.servers()[killed].revive();
/// redis.wait_until_ready();
/// ```
#[derive(Debug)]
pub struct Cluster {
    servers: Vec<RedisServer>,
    /// Held for as long as the nodes use them among each other.
    bus_ports: Vec<Port>,
    /// One in front of each node, or none at all.
    proxies: Vec<FaultProxy>,
}

impl Cluster {
    /// Starts all six and waits until they serve every slot. Blocks: some seconds.
    ///
    /// # Panics
    /// If they do not.
    #[must_use]
    pub fn start() -> Self {
        Self::launch(&RedisOptions::default())
    }

    /// [`Cluster::start`] of nodes that have these options each, but for the port.
    ///
    /// # Panics
    /// As [`Cluster::start`].
    #[must_use]
    pub fn launch(options: &RedisOptions) -> Self {
        Self::assemble(options, false)
    }

    /// [`Cluster::launch`] with a proxy in front of each node. Clients that ask
    /// who serves what are told the addresses of the proxies, and so are replicas;
    /// how nodes find out who is dead does not pass through.
    ///
    /// # Panics
    /// As [`Cluster::start`].
    #[must_use]
    pub fn launch_behind_proxies(options: &RedisOptions) -> Self {
        Self::assemble(options, true)
    }

    fn assemble(options: &RedisOptions, behind_proxies: bool) -> Self {
        let options = RedisOptions { port: None, ..options.clone() };
        let mut cluster = Self { servers: Vec::new(), bus_ports: Vec::new(), proxies: Vec::new() };
        for _ in 0..PRIMARIES + REPLICAS {
            let bus_port = Port::reserve();
            let mut lines = format!(
                "cluster-enabled yes\ncluster-config-file nodes.conf\ncluster-port {}\n\
                 cluster-node-timeout {NODE_TIMEOUT_MS}\n\
                 cluster-replica-validity-factor 0\ncluster-allow-replica-migration no\n",
                bus_port.number()
            );
            let tls = if options.tls.is_some() { "tls-" } else { "" };
            if options.tls.is_some() {
                lines += "tls-cluster yes\n";
            }
            if behind_proxies {
                // It learns of its server when that has its port.
                let proxy = FaultProxy::start(bus_port.address());
                lines += &format!("cluster-announce-{tls}port {}\n", proxy.address().port());
                cluster.proxies.push(proxy);
            }
            let server = RedisServer::launch_as(Mode::Server, &options, &lines);
            if let Some(proxy) = cluster.proxies.last() {
                proxy.lead_to(server.address());
            }
            cluster.servers.push(server);
            cluster.bus_ports.push(bus_port);
        }
        cluster.introduce();
        cluster.wait_until_ready();
        cluster
    }

    /// Every node: at first three primaries and then the replica of each, in the
    /// same order. Nodes are told apart by their place here.
    #[must_use]
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// Where clients find the nodes, dead or alive: their proxies, if they have
    /// any.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        if self.proxies.is_empty() {
            self.servers.iter().map(RedisServer::address).collect()
        } else {
            self.proxies.iter().map(FaultProxy::address).collect()
        }
    }

    /// The proxy in front of the node at this place.
    ///
    /// # Panics
    /// If the cluster was not launched with proxies.
    #[must_use]
    pub fn proxy(&self, place: usize) -> &FaultProxy {
        &self.proxies[place]
    }

    /// The slot of a key: of what stands in its first braces, if anything does.
    #[must_use]
    pub fn slot(key: &[u8]) -> u16 {
        let braced = key.iter().position(|byte| *byte == b'{').and_then(|open| {
            let rest = &key[open + 1..];
            let close = rest.iter().position(|byte| *byte == b'}')?;
            (close > 0).then_some(&rest[..close])
        });
        crc16(braced.unwrap_or(key)) % SLOTS
    }

    /// The place of the primary that serves a slot, as the first node that runs
    /// sees it.
    ///
    /// # Panics
    /// If nobody serves it.
    #[must_use]
    pub fn place_of(&self, slot: u16) -> usize {
        let nodes = self.view();
        let node = nodes.iter().find(|node| node.serves(slot));
        let node = node.unwrap_or_else(|| panic!("nobody serves slot {slot}"));
        self.place(&node.id).expect("the cluster has no other nodes")
    }

    /// The primary that serves a slot.
    ///
    /// # Panics
    /// If nobody serves it.
    #[must_use]
    pub fn primary_of(&self, slot: u16) -> &RedisServer {
        &self.servers[self.place_of(slot)]
    }

    /// The places of the replicas of a primary.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn replicas_of(&self, place: usize) -> Vec<usize> {
        let id = self.id(place);
        let nodes = self.view();
        let replicas = nodes.iter().filter(|node| node.primary.as_deref() == Some(&id));
        replicas.filter_map(|node| self.place(&node.id)).collect()
    }

    /// Kills the primary that serves a slot, and returns its place.
    ///
    /// # Panics
    /// If nobody serves it.
    pub fn kill_primary(&self, slot: u16) -> usize {
        let place = self.place_of(slot);
        self.servers[place].kill();
        place
    }

    /// Moves a slot and its keys to the primary at this place. Nothing happens if
    /// it has it.
    ///
    /// # Panics
    /// If a node refuses.
    pub fn migrate_slot(&self, slot: u16, to: usize) {
        if self.place_of(slot) != to {
            let migration = self.begin_migration(slot, to);
            while migration.move_keys(100) > 0 {}
            migration.finish();
        }
    }

    /// Begins to move a slot: until it is finished, its old primary sends clients
    /// that ask for a key it does not have to the new one (`ASK`).
    ///
    /// # Panics
    /// If a node refuses.
    pub fn begin_migration(&self, slot: u16, to: usize) -> Migration<'_> {
        Migration::begin(self, slot, to)
    }

    /// Waits until every node that runs and does not stand still says that all is
    /// well, all agree on who serves what, whoever serves is one of them, and
    /// replicas are in touch with their primaries.
    ///
    /// # Panics
    /// If that does not come about.
    pub fn wait_until_ready(&self) {
        wait_until("the cluster serves every slot", || self.is_ready());
    }

    /// Makes the nodes one cluster.
    fn introduce(&self) {
        let (primaries, replicas) = self.servers.split_at(PRIMARIES);
        for (place, server) in self.servers.iter().enumerate() {
            // Else two primaries have one epoch until they have sorted it out.
            expect_ok(server, &["CLUSTER", "SET-CONFIG-EPOCH", &(place + 1).to_string()]);
        }
        for (place, primary) in primaries.iter().enumerate() {
            let bound = |place| place * usize::from(SLOTS) / PRIMARIES;
            let (first, last) = (bound(place).to_string(), (bound(place + 1) - 1).to_string());
            expect_ok(primary, &["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
        }
        for (server, bus) in self.servers.iter().zip(&self.bus_ports).skip(1) {
            let (port, bus) = (server.address().port().to_string(), bus.number().to_string());
            expect_ok(&self.servers[0], &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        wait_until("the nodes know each other", || {
            self.servers.iter().all(|server| {
                let nodes = nodes::of(server);
                nodes.len() == self.servers.len() && nodes.iter().all(|node| node.is_well())
            })
        });
        for (replica, primary) in replicas.iter().zip(primaries) {
            let id = primary.command(&["CLUSTER", "MYID"]).text();
            expect_ok(replica, &["CLUSTER", "REPLICATE", &id]);
        }
    }

    fn is_ready(&self) -> bool {
        let running: Vec<&RedisServer> =
            self.servers.iter().filter(|server| server.is_awake()).collect();
        let ids: Vec<String> =
            running.iter().map(|server| server.command(&["CLUSTER", "MYID"]).text()).collect();
        let mut owners = None;
        running.iter().all(|server| {
            let nodes = nodes::of(server);
            let mut seen: Vec<(String, Vec<(u16, u16)>)> = nodes
                .iter()
                .filter(|node| !node.slots.is_empty())
                .map(|node| (node.id.clone(), node.slots.clone()))
                .collect();
            seen.sort();
            let info = server.command(&["CLUSTER", "INFO"]).text();
            let link = server.info("master_link_status");
            info.contains("cluster_state:ok")
                && link.is_none_or(|link| link == "up")
                && seen.iter().all(|(id, _)| ids.contains(id))
                && nodes.iter().filter(|node| ids.contains(&node.id)).all(nodes::Node::is_well)
                && *owners.get_or_insert_with(|| seen.clone()) == seen
        })
    }

    /// How the first node that runs sees the cluster.
    fn view(&self) -> Vec<nodes::Node> {
        let server = self.servers.iter().find(|server| server.is_awake());
        nodes::of(server.expect("a node runs"))
    }

    fn id(&self, place: usize) -> String {
        self.servers[place].command(&["CLUSTER", "MYID"]).text()
    }

    /// The place of a node; also of one that died, which is known by its port.
    fn place(&self, id: &str) -> Option<usize> {
        let nodes = self.view();
        let port = nodes.iter().find(|node| node.id == id)?.port;
        self.addresses().iter().position(|address| address.port() == port)
    }
}

fn expect_ok(server: &RedisServer, command: &[&str]) {
    let reply = server.command(command);
    assert!(!reply.is_error(), "{server:?} refuses {command:?}: {reply:?}");
}

/// CRC-16/XMODEM, as the specification of Redis Cluster has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(Cluster::slot(b"foo"), 12_182);
        assert_eq!(Cluster::slot(b"a{foo}b{bar}"), 12_182);
        assert_eq!(Cluster::slot(b"{}foo"), crc16(b"{}foo") % SLOTS);
    }
}
