//! The driver's connection to a cluster, made anew when it gets stuck.

use larder_core::Result;
use redis::cluster_async::ClusterConnection;
use redis::cluster_read_routing::RandomReplicaStrategy;
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, Slot, SlotAddr};
use redis::{Cmd, RedisError, RedisResult, Value};

use crate::RedisOptions;
use crate::discovery::Discovery;
use crate::failure::{ends_connection, failed};
use crate::links::Trouble;
use crate::reopening::Reopening;

/// How often the driver follows a moved slot before it gives up.
const RETRIES: u32 = 5;

/// Connections to every node of a cluster.
///
/// The driver follows moved slots by itself. After the death of a primary that it
/// was talking to it may wait for ever, though (seen with redis 1.8.1, three times
/// of four): whoever meets a timeout throws the whole of it away.
pub(crate) struct ClusterLink {
    options: RedisOptions,
    discovery: Discovery,
    name: String,
    place: Reopening<ClusterConnection>,
}

impl ClusterLink {
    pub(crate) fn new(options: &RedisOptions, discovery: &Discovery) -> Self {
        let name = discovery.seeds().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Self {
            options: options.clone(),
            discovery: discovery.clone(),
            name,
            place: Reopening::new(),
        }
    }

    /// # Errors
    /// If the cluster cannot be used, why.
    pub(crate) async fn open(&self) -> Result<()> {
        self.place.get(self.connect()).await.map(drop)
    }

    /// Sends a command to the node that has the key.
    pub(crate) async fn send(
        &self,
        command: &Cmd,
        key: &[u8],
        reads: bool,
    ) -> Result<Value, Trouble> {
        let live = self.place.get(self.connect()).await;
        let mut live = live.map_err(Trouble::Closed)?;
        let reads_replica = reads && self.options.read_from_replicas;
        let place = if reads_replica { SlotAddr::ReplicaRequired } else { SlotAddr::Master };
        let route = Route::with_slot(Slot::for_key(key), place);
        let route = RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(route));
        let answer = live.open.route_command(command.clone(), route).await;
        answer.and_then(Value::extract_error).map_err(|error| {
            let is_lost = error.kind() == redis::ErrorKind::ClusterConnectionNotFound;
            if is_lost || ends_connection(&error) {
                self.place.close(&live);
            }
            Trouble::Driver(error, self.name.clone())
        })
    }

    async fn connect(&self) -> Result<ClusterConnection> {
        // This says better than the driver why a node cannot be used.
        self.discovery.open_primary().await?;
        let connector = self.discovery.connector();
        let options = &self.options;
        let open = async {
            let seeds = self.discovery.seeds().iter().map(|seed| connector.info(seed));
            let seeds: Vec<_> = seeds.collect::<RedisResult<_>>()?;
            let mut builder = redis::cluster::ClusterClient::builder(seeds)
                .retries(RETRIES)
                .max_retry_wait(500)
                .connection_timeout(options.connect_timeout)
                .response_timeout(options.response_timeout)
                .overall_response_timeout(Some(options.response_timeout))
                .tcp_settings(connector.tcp_settings());
            if let Some(certificates) = connector.certificates() {
                builder = builder.certs(certificates);
            }
            if options.read_from_replicas {
                builder = builder.read_routing_strategy(RandomReplicaStrategy);
            }
            builder.build()?.get_async_connection().await
        };
        open.await.map_err(|error: RedisError| failed(&error, &self.name))
    }
}
