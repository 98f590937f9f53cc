//! The driver's connection to a cluster, made anew when it gets stuck.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use larder_core::{Error, Result};
use redis::cluster_async::ClusterConnection;
use redis::cluster_read_routing::RandomReplicaStrategy;
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, Slot, SlotAddr};
use redis::{Cmd, RedisError, RedisResult, Value};

use crate::RedisOptions;
use crate::discovery::Discovery;
use crate::failure::{ends_connection, failed};
use crate::links::Trouble;

/// For how long after a failed attempt none is made.
const PAUSE: Duration = Duration::from_millis(100);

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
    live: Mutex<Option<Live>>,
    /// Held by who opens it; the last failure and when it was.
    opening: tokio::sync::Mutex<Option<(Error, Instant)>>,
}

#[derive(Clone)]
struct Live {
    connection: ClusterConnection,
    /// Tells one from the next.
    number: u64,
}

impl ClusterLink {
    pub(crate) fn new(options: &RedisOptions, discovery: &Discovery) -> Self {
        let name = discovery.seeds().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Self {
            options: options.clone(),
            discovery: discovery.clone(),
            name,
            live: Mutex::new(None),
            opening: tokio::sync::Mutex::new(None),
        }
    }

    /// # Errors
    /// If the cluster cannot be used, why.
    pub(crate) async fn open(&self) -> Result<()> {
        self.live_or_new().await.map(drop)
    }

    /// Sends a command to the node that has the key.
    pub(crate) async fn send(
        &self,
        command: &Cmd,
        key: &[u8],
        reads: bool,
    ) -> Result<Value, Trouble> {
        let Live { mut connection, number } = self.live_or_new().await.map_err(Trouble::Closed)?;
        let reads_replica = reads && self.options.read_from_replicas;
        let place = if reads_replica { SlotAddr::ReplicaRequired } else { SlotAddr::Master };
        let route = Route::with_slot(Slot::for_key(key), place);
        let route = RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(route));
        let answer = connection.route_command(command.clone(), route).await;
        answer.and_then(Value::extract_error).map_err(|error| {
            let is_lost = error.kind() == redis::ErrorKind::ClusterConnectionNotFound;
            if is_lost || ends_connection(&error) {
                self.close(number);
            }
            Trouble::Driver(error, self.name.clone())
        })
    }

    /// The connection, opened if there is none. Of many who need it one opens it.
    async fn live_or_new(&self) -> Result<Live> {
        if let Some(live) = self.live().clone() {
            return Ok(live);
        }
        let mut failure = self.opening.lock().await;
        if let Some(live) = self.live().clone() {
            return Ok(live);
        }
        if let Some((error, at)) = &*failure
            && at.elapsed() < PAUSE
        {
            return Err(error.clone());
        }
        match self.connect().await {
            Ok(connection) => {
                let live = Live { connection, number: fastrand::u64(..) };
                *self.live() = Some(live.clone());
                *failure = None;
                Ok(live)
            }
            Err(error) => {
                *failure = Some((error.clone(), Instant::now()));
                Err(error)
            }
        }
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

    /// Forgets a connection, unless another one has taken its place.
    fn close(&self, number: u64) {
        let mut live = self.live();
        if live.as_ref().is_some_and(|live| live.number == number) {
            *live = None;
        }
    }

    fn live(&self) -> MutexGuard<'_, Option<Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
