//! Of several servers that share a Redis one loads a key, and the others wait.

use std::time::{Duration, Instant};

use larder_testkit::redis::RedisServer;
use tokio::task::JoinSet;

use crate::fleet::{Servers, redis_section};
use crate::serve::get;

/// A query that takes its time: it counts. A lease lasts half of the hard timeout.
const SLOW: &str = r#"
[caches.slow]
key = "slow:{id}"
query = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000000)
SELECT :id AS id, count(*) AS counted FROM n
"""
types = { id = "integer" }
hard_timeout = "8s"
"#;

const LEASE: Duration = Duration::from_secs(4);

const WON: &str = "larder_lease_requests_total{cache=\"slow\",outcome=\"won\"}";
const WAITED: &str = "larder_lease_requests_total{cache=\"slow\",outcome=\"waited\"}";

#[tokio::test]
async fn three_servers_with_many_clients_load_a_cold_key_once() {
    const CLIENTS: usize = 200;
    let redis = RedisServer::start();
    let servers = Servers::start(3, &(redis_section(&redis) + SLOW)).await;
    let mut clients = JoinSet::new();
    for server in &servers.running {
        for _ in 0..CLIENTS {
            let mut redis = server.redis().await;
            clients.spawn(async move { get(&mut redis, "slow:1").await });
        }
    }
    for row in clients.join_all().await {
        assert_eq!(row.as_deref(), Some(r#"{"id":1,"counted":6000000}"#));
    }
    assert_eq!(servers.loads("slow").await, 1.0);
}

/// Rows of any number, which a query makes up.
const NUMBERS: &str = r#"
[caches.number]
key = "number:{id}"
query = "SELECT :id AS id, 2 * :id AS twice"
types = { id = "integer" }
"#;

#[tokio::test]
async fn three_servers_load_a_thousand_cold_keys_once_each() {
    const KEYS: usize = 1000;
    const BATCH: usize = 50;
    let redis = RedisServer::start();
    let servers = Servers::start(3, &(redis_section(&redis) + NUMBERS)).await;
    let mut clients = JoinSet::new();
    for (number, server) in servers.running.iter().enumerate() {
        let mut redis = server.redis().await;
        // Each begins elsewhere, so that each leads and follows.
        let mut keys: Vec<String> = (0..KEYS).map(|id| format!("number:{id}")).collect();
        keys.rotate_left(number * KEYS / 3);
        clients.spawn(async move {
            for batch in keys.chunks(BATCH) {
                let rows: Vec<Option<String>> =
                    redis::cmd("MGET").arg(batch).query_async(&mut redis).await.expect("rows");
                assert!(rows.iter().all(Option::is_some), "{rows:?}");
            }
        });
    }
    clients.join_all().await;
    assert_eq!(servers.loads("number").await, KEYS as f64);
}

#[tokio::test]
async fn a_server_that_dies_with_a_load_costs_the_others_its_lease_and_no_error() {
    let redis = RedisServer::start();
    let mut servers = Servers::start(2, &(redis_section(&redis) + SLOW)).await;
    let leader = servers.running.remove(0);
    let mut connection = leader.redis().await;
    let doomed = tokio::spawn(async move {
        redis::cmd("GET").arg("slow:1").query_async::<Option<String>>(&mut connection).await
    });
    leader.wait_for_metric(WON, 1.0).await;
    let mut connection = servers.running[0].redis().await;
    let waiting = tokio::spawn(async move { get(&mut connection, "slow:1").await });
    servers.running[0].wait_for_metric(WAITED, 1.0).await;
    leader.signal("KILL");
    let killed = Instant::now();
    servers.running[0].wait_for_metric(WON, 1.0).await;
    let took = killed.elapsed();
    assert!(took < LEASE + Duration::from_secs(1), "it began {took:?} after the other's end");
    let row = waiting.await.expect("it does not panic");
    assert_eq!(row.as_deref(), Some(r#"{"id":1,"counted":6000000}"#));
    assert!(doomed.await.expect("it does not panic").is_err(), "its server was killed");
}
