//! Which server is the primary now.

use std::sync::Arc;
use std::time::Duration;

use larder_core::{Error, ErrorKind, Result};
use redis::cluster_routing::Slot;
use redis::{AsyncConnectionConfig, Cmd, Value};

use crate::address::{Endpoint, ServerUrl};
use crate::connector::{Connector, Open, Pushes, text};
use crate::failure::failed;
use crate::{RedisOptions, Topology};

/// Finds servers by their roles, and opens connections to them.
#[derive(Clone)]
pub(crate) struct Discovery {
    connector: Arc<Connector>,
    sentinels: Connector,
    seeds: Vec<Endpoint>,
    topology: Topology,
    /// The slot of the keys that it is about: the control keys, or a journal's.
    control: Slot,
}

/// A primary of a cluster and a slot that it serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shard {
    pub(crate) first: u16,
    pub(crate) last: u16,
    pub(crate) primary: Endpoint,
}

impl Discovery {
    pub(crate) fn new(
        options: &RedisOptions,
        urls: &[ServerUrl],
        connector: Arc<Connector>,
        control: Slot,
    ) -> Self {
        let sentinels = match &options.topology {
            Topology::Sentinel { user, password, .. } => {
                connector.with_login(user.clone(), password.clone())
            }
            _ => Connector::clone(&connector),
        };
        let seeds = urls.iter().map(ServerUrl::endpoint).collect();
        Self { connector, sentinels, seeds, topology: options.topology.clone(), control }
    }

    /// The same for other keys than the control keys, with connections that wait
    /// this long for an answer.
    pub(crate) fn for_slot(&self, slot: Slot, response_timeout: Duration) -> Self {
        let connector = Arc::new(self.connector.with_response_timeout(response_timeout));
        Self { connector, control: slot, ..self.clone() }
    }

    pub(crate) fn seeds(&self) -> &[Endpoint] {
        &self.seeds
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// A connection to the primary that has these keys.
    ///
    /// # Errors
    /// Why the last server that was tried would not do.
    pub(crate) async fn open_primary(&self) -> Result<Open> {
        let mut last = no_server();
        for candidate in self.primaries(&mut last).await {
            match self.connector.open(&candidate).await {
                Ok(open) if open.hello.is_primary => return Ok(open),
                Ok(_) => last = not_primary(&candidate),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The same with what is pushed to it.
    ///
    /// # Errors
    /// As [`Discovery::open_primary`].
    pub(crate) async fn open_primary_pushed(&self) -> Result<(Open, Pushes)> {
        let mut last = no_server();
        for candidate in self.primaries(&mut last).await {
            match self.connector.open_pushed(&candidate).await {
                Ok(open) if open.0.hello.is_primary => return Ok(open),
                Ok(_) => last = not_primary(&candidate),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A connection to a replica, if there is one that answers; else to the
    /// primary.
    ///
    /// # Errors
    /// As [`Discovery::open_primary`].
    pub(crate) async fn open_replica(&self) -> Result<Open> {
        for candidate in self.replicas().await {
            if let Ok(open) = self.connector.open(&candidate).await
                && !open.hello.is_primary
            {
                return Ok(open);
            }
        }
        self.open_primary().await
    }

    /// Who serves which slots of a cluster.
    ///
    /// # Errors
    /// Why the last node that was asked did not say.
    pub(crate) async fn shards(&self) -> Result<Vec<Shard>> {
        let mut last = no_server();
        for seed in &self.seeds {
            let answer = ask(&self.connector, seed, redis::cmd("CLUSTER").arg("SLOTS")).await;
            match answer.map(|answer| read_shards(&answer, seed)) {
                Ok(shards) if !shards.is_empty() => return Ok(shards),
                Ok(_) => {
                    last = Error::new(ErrorKind::Config, "the server is not part of a cluster")
                        .with("server", seed)
                        .remedy("use the topology standalone, or name nodes of a cluster");
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Every server that is known, for a check of each.
    pub(crate) async fn servers(&self) -> Vec<Endpoint> {
        let mut servers = self.primaries(&mut no_server()).await;
        match &self.topology {
            Topology::Cluster => {
                let shards = self.shards().await.unwrap_or_default();
                servers = shards.into_iter().map(|shard| shard.primary).collect();
            }
            _ => servers.extend(self.replicas().await),
        }
        servers.extend(self.seeds.iter().filter(|_| !self.has_sentinels()).cloned());
        let mut unique: Vec<Endpoint> = Vec::with_capacity(servers.len());
        for server in servers {
            if !unique.contains(&server) {
                unique.push(server);
            }
        }
        unique
    }

    /// Who may be the primary, the likeliest first. What keeps this from knowing
    /// goes to `last`.
    async fn primaries(&self, last: &mut Error) -> Vec<Endpoint> {
        match &self.topology {
            Topology::Standalone => self.seeds.clone(),
            Topology::Cluster => match self.shards().await {
                Ok(shards) => shards
                    .into_iter()
                    .filter(|shard| {
                        (shard.first..=shard.last).any(|slot| Slot::new(slot) == Some(self.control))
                    })
                    .map(|shard| shard.primary)
                    .collect(),
                Err(error) => {
                    *last = error;
                    Vec::new()
                }
            },
            Topology::Sentinel { service, .. } => {
                let mut command = redis::cmd("SENTINEL");
                command.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
                let mut found = Vec::new();
                for seed in &self.seeds {
                    match ask(&self.sentinels, seed, &command).await {
                        Ok(answer) => match read_endpoint(&answer) {
                            Some(endpoint) if !found.contains(&endpoint) => found.push(endpoint),
                            Some(_) => {}
                            None => *last = unknown_service(seed, service),
                        },
                        Err(error) => *last = error,
                    }
                }
                found
            }
        }
    }

    async fn replicas(&self) -> Vec<Endpoint> {
        let Topology::Sentinel { service, .. } = &self.topology else {
            return self.seeds.clone();
        };
        let mut command = redis::cmd("SENTINEL");
        command.arg("REPLICAS").arg(service);
        for seed in &self.seeds {
            if let Ok(Value::Array(replicas)) = ask(&self.sentinels, seed, &command).await {
                let mut found: Vec<Endpoint> = replicas.iter().filter_map(read_replica).collect();
                fastrand::shuffle(&mut found);
                return found;
            }
        }
        Vec::new()
    }

    fn has_sentinels(&self) -> bool {
        matches!(self.topology, Topology::Sentinel { .. })
    }
}

/// One question on a connection of its own.
async fn ask(connector: &Connector, endpoint: &Endpoint, command: &Cmd) -> Result<Value> {
    let mut open = connector.open_with(endpoint, AsyncConnectionConfig::new()).await?;
    let answer = open.connection.send_packed_command(command).await;
    answer.and_then(Value::extract_error).map_err(|error| failed(&error, &endpoint.to_string()))
}

fn read_endpoint(answer: &Value) -> Option<Endpoint> {
    let Value::Array(parts) = answer else { return None };
    let [host, port, ..] = parts.as_slice() else { return None };
    Some(Endpoint { host: text(host)?, port: text(port)?.parse().ok()? })
}

fn read_replica(answer: &Value) -> Option<Endpoint> {
    let (mut host, mut port, mut flags) = (None, None, String::new());
    for (name, value) in answer.as_map_iter()? {
        match text(name)?.as_str() {
            "ip" => host = text(value),
            "port" => port = text(value).and_then(|port| port.parse().ok()),
            "flags" => flags = text(value).unwrap_or_default(),
            _ => {}
        }
    }
    let is_down = flags.contains("down") || flags.contains("disconnected");
    (!is_down).then_some(Endpoint { host: host?, port: port? })
}

/// An empty host means the one that was asked.
fn read_shards(answer: &Value, asked: &Endpoint) -> Vec<Shard> {
    let Value::Array(ranges) = answer else { return Vec::new() };
    let read = |range: &Value| {
        let Value::Array(parts) = range else { return None };
        let [Value::Int(first), Value::Int(last), primary, ..] = parts.as_slice() else {
            return None;
        };
        let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
        let Value::Array(node) = primary else { return None };
        let [host, Value::Int(port), ..] = node.as_slice() else { return None };
        let host = text(host).filter(|host| !host.is_empty()).unwrap_or_else(|| asked.host.clone());
        let primary = Endpoint { host, port: u16::try_from(*port).ok()? };
        Some(Shard { first, last: last.min(16_383), primary })
    };
    ranges.iter().filter_map(read).collect()
}

fn no_server() -> Error {
    Error::new(ErrorKind::Unavailable, "no Redis server was found")
}

fn not_primary(server: &Endpoint) -> Error {
    Error::new(ErrorKind::Unavailable, "the Redis server is a replica")
        .with("server", server)
        .remedy("name its primary, too; after a failover one appears by itself")
}

fn unknown_service(sentinel: &Endpoint, service: &str) -> Error {
    Error::new(ErrorKind::Config, "the sentinel does not know this service")
        .with("server", sentinel)
        .with("service", service)
        .remedy("use the name of `sentinel monitor` in the sentinel's configuration")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_read_and_nonsense_is_not() {
        let node =
            |host: &str, port| Value::Array(vec![Value::BulkString(host.into()), Value::Int(port)]);
        let range =
            |first, last, node| Value::Array(vec![Value::Int(first), Value::Int(last), node]);
        let asked = Endpoint { host: "seed".to_owned(), port: 1 };
        let answer = Value::Array(vec![
            range(0, 5, node("a", 7000)),
            range(6, 9, node("", 7001)),
            range(-1, 70_000, node("b", 7002)),
            range(10, 11, node("b", 70_000)),
            Value::Nil,
        ]);
        let shards = read_shards(&answer, &asked);
        let primaries: Vec<String> = shards.iter().map(|shard| shard.primary.to_string()).collect();
        assert_eq!(primaries, ["a:7000", "seed:7001"]);
        assert!(read_shards(&Value::Nil, &asked).is_empty());
    }
}
