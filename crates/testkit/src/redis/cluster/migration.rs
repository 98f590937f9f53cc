use super::{Cluster, RedisServer, Reply, expect_ok};

/// How long a node may take to hand over keys, in milliseconds.
const MIGRATE_TIMEOUT_MS: &str = "10000";

/// A slot on its way from one primary to another.
///
/// A test that drops it leaves the slot half moved.
#[derive(Debug)]
#[must_use = "a migration that nobody finishes leaves the slot half moved"]
pub struct Migration<'a> {
    cluster: &'a Cluster,
    slot: String,
    from: usize,
    to: usize,
}

impl<'a> Migration<'a> {
    pub(super) fn begin(cluster: &'a Cluster, slot: u16, to: usize) -> Self {
        let from = cluster.place_of(slot);
        let migration = Self { cluster, slot: slot.to_string(), from, to };
        // The new one first, or it sends back who is sent to it.
        migration.set_slot(to, "IMPORTING", from);
        migration.set_slot(from, "MIGRATING", to);
        migration
    }

    /// Moves at most this many keys, and returns how many.
    ///
    /// # Panics
    /// If a node refuses.
    pub fn move_keys(&self, count: usize) -> usize {
        let source = self.source();
        let count = count.to_string();
        let keys = source.command(&["CLUSTER", "GETKEYSINSLOT", &self.slot, &count]);
        let keys = keys.items();
        if keys.is_empty() {
            return 0;
        }
        let port = self.target().address().port().to_string();
        let mut migrate = ["MIGRATE", "127.0.0.1", &port, "", "0", MIGRATE_TIMEOUT_MS]
            .map(|argument| argument.as_bytes().to_vec())
            .to_vec();
        if let Some(password) = &source.options.password {
            migrate.extend([b"AUTH".to_vec(), password.clone().into_bytes()]);
        }
        migrate.push(b"KEYS".to_vec());
        migrate.extend(keys.iter().map(|key| match key {
            Reply::Bulk(key) => key.clone(),
            other => panic!("not a key: {other:?}"),
        }));
        let reply = source.command(&migrate);
        assert!(!reply.is_error(), "{source:?} keeps its keys: {reply:?}");
        keys.len()
    }

    /// Gives the slot to the new primary, with whatever keys were moved, and
    /// waits until every node that runs knows.
    ///
    /// # Panics
    /// If a node refuses: the old one does if it still has keys of the slot.
    pub fn finish(self) {
        let new = self.cluster.id(self.to);
        let command = ["CLUSTER", "SETSLOT", &self.slot, "NODE", &new];
        // The new one first: then the slot has an owner at every moment.
        expect_ok(self.target(), &command);
        expect_ok(self.source(), &command);
        self.cluster.wait_until_ready();
    }

    /// Leaves the slot where it was. Keys that were moved stay where they are.
    ///
    /// # Panics
    /// If a node refuses.
    pub fn abandon(self) {
        for server in [self.source(), self.target()] {
            expect_ok(server, &["CLUSTER", "SETSLOT", &self.slot, "STABLE"]);
        }
    }

    fn set_slot(&self, at: usize, state: &str, other: usize) {
        let other = self.cluster.id(other);
        expect_ok(&self.cluster.servers[at], &["CLUSTER", "SETSLOT", &self.slot, state, &other]);
    }

    fn source(&self) -> &RedisServer {
        &self.cluster.servers[self.from]
    }

    fn target(&self) -> &RedisServer {
        &self.cluster.servers[self.to]
    }
}
