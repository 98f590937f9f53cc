//! Several servers over one database that share a Redis, and perhaps memcached:
//! what one is told to give up, all give up.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use larder_testkit::certificates::Authority;
use larder_testkit::fleet::shift_wall_clock;
use larder_testkit::memcached::Memcached;
use larder_testkit::proxy::{Direction, FaultProxy};
use larder_testkit::redis::{
    AfterRestart, Cluster, RedisOptions, RedisServer, SENTINEL_NAME, Sentinel,
};
use redis::aio::MultiplexedConnection;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;

use crate::running::{PATIENCE, Running, larder};
use crate::serve::get;
use crate::shared_tiers::{config_with, user_without};

/// Servers with one configuration.
pub(crate) struct Servers {
    directory: TempDir,
    path: String,
    pub(crate) running: Vec<Running>,
}

impl Servers {
    pub(crate) async fn start(count: usize, sections: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = config_with(directory.path(), sections).await;
        let mut servers = Self { directory, path, running: Vec::new() };
        for _ in 0..count {
            servers.start_another();
        }
        servers
    }

    fn start_another(&mut self) {
        let home = self.directory.path().join(self.running.len().to_string());
        std::fs::create_dir_all(&home).expect("a directory for the log");
        self.running.push(Running::start(&home, &["--config", &self.path]));
    }

    async fn connections(&self) -> Vec<MultiplexedConnection> {
        let mut connections = Vec::new();
        for server in &self.running {
            connections.push(server.redis().await);
        }
        connections
    }

    /// How often all of them have read the origin for this cache.
    pub(crate) async fn loads(&self, cache: &str) -> f64 {
        let mut loads = 0.0;
        for server in &self.running {
            let sample = format!("larder_cache_loads_total{{cache=\"{cache}\"}}");
            loads += server.metric(&sample).await.expect("it is counted");
        }
        loads
    }

    /// Gives album 7 another title, in the database only.
    async fn rename_album(&self, title: &str) {
        let path = self.directory.path().join("music.db");
        rename_album(&path, title).await;
    }
}

async fn rename_album(path: &Path, title: &str) {
    let options = SqliteConnectOptions::new().filename(path);
    let mut connection = options.connect().await.expect("it is there");
    let update = sqlx::query("UPDATE album SET title = ? WHERE id = 7").bind(title);
    update.execute(&mut connection).await.expect("it is written");
    connection.close().await.expect("it can be closed");
}

/// Less than entries live: what takes longer was not heard of, but forgotten.
const AGREED_WITHIN: Duration = Duration::from_secs(30);

/// Waits until a key's answer has this text; returns how long that took.
async fn wait_for(redis: &mut MultiplexedConnection, key: &str, text: &str) -> Duration {
    let began = Instant::now();
    loop {
        let answer = get(redis, key).await.expect("the row is there");
        if answer.contains(text) {
            return began.elapsed();
        }
        assert!(began.elapsed() < AGREED_WITHIN, "{key} stays {answer}, {text} is due");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn tell(redis: &mut MultiplexedConnection, words: &[&str]) -> redis::RedisResult<i64> {
    redis::cmd(words[0]).arg(&words[1..]).query_async(redis).await
}

/// Removes album 7 as soon as that can be announced.
async fn remove_album_when_possible(redis: &mut MultiplexedConnection) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = tell(redis, &["LARDER.REMOVE", "KEY", "album:7"]).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Less than the bound after which memory is not trusted anyway, and enough for a
/// busy machine: what is heard at all is heard far sooner.
const HEARD_WITHIN: Duration = Duration::from_secs(4);

pub(crate) fn redis_section(redis: &RedisServer) -> String {
    format!("[redis]\nurl = \"redis://{}\"\n", redis.address())
}

/// The section for a cluster.
pub(crate) fn cluster_section(cluster: &Cluster) -> String {
    format!("[redis]\nurls = {}\ntopology = \"cluster\"\n", urls(&cluster.addresses()))
}

/// The section for a primary that sentinels watch.
pub(crate) fn sentinel_section(sentinel: &Sentinel) -> String {
    format!(
        "[redis]\nurls = {}\ntopology = \"sentinel\"\nsentinel_service = \"{SENTINEL_NAME}\"\n",
        urls(&sentinel.addresses())
    )
}

fn urls(addresses: &[SocketAddr]) -> String {
    let urls = addresses.iter().map(|address| format!("\"redis://{address}\""));
    format!("[{}]", urls.collect::<Vec<_>>().join(", "))
}

/// What holds whatever keeps the entries.
async fn agree(sections: &str, store: &str) {
    let servers = Servers::start(3, sections).await;
    let mut redis = servers.connections().await;
    // Stores are filled behind the answer.
    let fills = format!("larder_store_fills_total{{cache=\"album\",store=\"{store}\"}}");
    for node in &mut redis {
        assert!(get(node, "album:7").await.expect("it is there").contains("Kind of Blue"));
        servers.running[0].wait_for_metric(&fills, 1.0).await;
    }
    assert_eq!(servers.loads("album").await, 1.0, "two of three had it from {store}");
    let hits = format!("larder_store_hits_total{{cache=\"album\",store=\"{store}\"}}");
    assert_eq!(servers.running[2].metric(&hits).await, Some(1.0));

    servers.rename_album("So What").await;
    assert!(get(&mut redis[1], "album:7").await.expect("it is there").contains("Kind of Blue"));
    assert_eq!(tell(&mut redis[0], &["LARDER.REMOVE", "KEY", "album:7"]).await, Ok(1));
    for node in &mut redis {
        let took = wait_for(node, "album:7", "So What").await;
        assert!(took < HEARD_WITHIN, "it was heard after {took:?} only");
        servers.running[0].wait_for_metric(&fills, 2.0).await;
    }
    assert_eq!(servers.loads("album").await, 2.0, "two of three had it from {store}");

    servers.rename_album("Freddie Freeloader").await;
    tell(&mut redis[2], &["LARDER.REMOVE", "TAG", "artist:3"]).await.expect("it is announced");
    for node in &mut redis {
        assert!(wait_for(node, "album:7", "Freddie").await < HEARD_WITHIN);
    }
    servers.rename_album("Blue in Green").await;
    let cleared: redis::RedisResult<redis::Value> =
        redis::cmd("LARDER.CLEAR").arg("album").query_async(&mut redis[1]).await;
    cleared.expect("it is announced");
    for node in &mut redis {
        assert!(wait_for(node, "album:7", "Green").await < HEARD_WITHIN);
    }

    let titles: Vec<Option<String>> = redis::cmd("MGET")
        .arg(&["album:7", "album:8"])
        .query_async(&mut redis[2])
        .await
        .expect("both");
    assert!(titles[0].as_ref().is_some_and(|title| title.contains("Green")), "{titles:?}");
    assert!(titles[1].as_ref().is_some_and(|title| title.contains("Milestones")), "{titles:?}");
}

#[tokio::test]
async fn servers_that_share_a_redis_agree() {
    let redis = RedisServer::start();
    agree(&redis_section(&redis), "redis").await;
}

#[tokio::test]
async fn servers_that_share_memcached_agree_over_the_bus_of_redis() {
    let (redis, memcached) = (RedisServer::start(), Memcached::start());
    let memcached = format!("\n[memcached]\nservers = [\"{}\"]\n", memcached.address());
    agree(&(redis_section(&redis) + &memcached), "memcached").await;
}

#[tokio::test]
async fn servers_agree_over_tls_with_no_more_rights_than_needed() {
    let authority = Authority::new();
    let redis = RedisServer::launch(&RedisOptions {
        users: vec![user_without(&[])],
        password: Some("hunter3".to_owned()),
        ..RedisOptions::with_tls(&authority)
    });
    let directory = tempfile::tempdir().expect("a temporary directory");
    let password = directory.path().join("password");
    std::fs::write(&password, "hunter2\n").expect("it can be written");
    let section = format!(
        "[redis]\nurl = \"rediss://app@{}\"\nca_file = \"{}\"\npassword_file = \"{}\"\n",
        redis.address(),
        authority.certificate().display(),
        password.display()
    );
    agree(&section, "redis").await;
}

#[tokio::test]
async fn servers_that_share_a_cluster_agree() {
    agree(&cluster_section(&Cluster::start()), "redis").await;
}

#[tokio::test]
async fn servers_that_ask_sentinels_agree() {
    agree(&sentinel_section(&Sentinel::start()), "redis").await;
}

#[tokio::test]
async fn servers_agree_again_after_a_failover() {
    let sentinel = Sentinel::start();
    let servers = Servers::start(2, &sentinel_section(&sentinel)).await;
    let mut nodes = servers.connections().await;
    for node in &mut nodes {
        get(node, "album:7").await.expect("it is there");
    }
    let old = sentinel.primary();
    old.kill();
    servers.rename_album("So What").await;
    // Reads go on; what cannot be announced is, later.
    let refused = tell(&mut nodes[0], &["LARDER.REMOVE", "KEY", "album:7"]).await;
    refused.expect_err("nobody can be told");
    sentinel.wait_for_failover(old.address());
    for node in &mut nodes {
        wait_for(node, "album:7", "So What").await;
    }
    servers.rename_album("Freddie Freeloader").await;
    remove_album_when_possible(&mut nodes[1]).await;
    for node in &mut nodes {
        wait_for(node, "album:7", "Freddie").await;
    }
}

#[tokio::test]
async fn a_redis_without_entries_is_bus_only() {
    let redis = RedisServer::start();
    let servers = Servers::start(2, &(redis_section(&redis) + "entries = false\n")).await;
    let mut nodes = servers.connections().await;
    for node in &mut nodes {
        get(node, "album:7").await.expect("it is there");
    }
    assert_eq!(servers.loads("album").await, 2.0, "each has its own");
    servers.rename_album("So What").await;
    assert_eq!(tell(&mut nodes[1], &["LARDER.REMOVE", "KEY", "album:7"]).await, Ok(1));
    assert!(wait_for(&mut nodes[0], "album:7", "So What").await < HEARD_WITHIN);
    let (_, page) = servers.running[0].page("/caches/album").await;
    assert_eq!(page["stores"], serde_json::json!([]));
}

#[tokio::test]
async fn a_server_that_starts_again_is_warm_and_serves_nothing_that_was_removed_meanwhile() {
    let redis = RedisServer::start();
    let mut servers = Servers::start(2, &redis_section(&redis)).await;
    let mut nodes = servers.connections().await;
    for key in ["album:7", "album:8", "artist:3"] {
        get(&mut nodes[1], key).await.expect("it is there");
    }
    // Stores are filled behind the answer.
    let fills = "larder_store_fills_total{cache=\"artist\",store=\"redis\"}";
    servers.running[1].wait_for_metric(fills, 1.0).await;
    let mut stopped = servers.running.pop().expect("there are two");
    stopped.signal("KILL");
    stopped.wait();
    servers.rename_album("So What").await;
    tell(&mut nodes[0], &["LARDER.REMOVE", "TAG", "artist:3"]).await.expect("it is announced");

    servers.start_another();
    let mut node = servers.running[1].redis().await;
    assert!(get(&mut node, "album:7").await.expect("it is there").contains("So What"));
    get(&mut node, "artist:3").await.expect("it is there");
    let loads = servers.running[1].metric("larder_cache_loads_total{cache=\"artist\"}").await;
    assert_eq!(loads, Some(0.0), "it came from Redis");
}

#[tokio::test]
async fn without_redis_servers_go_on_within_their_bound_and_agree_again_afterwards() {
    let redis = RedisServer::start();
    let section = redis_section(&redis) + "staleness_bound = \"1s\"\n";
    let servers = Servers::start(2, &section).await;
    let mut nodes = servers.connections().await;
    for node in &mut nodes {
        get(node, "album:7").await.expect("it is there");
    }
    redis.kill();
    servers.rename_album("So What").await;
    let refused = tell(&mut nodes[0], &["LARDER.REMOVE", "KEY", "album:7"]).await;
    let error = refused.expect_err("nobody can be told").to_string();
    assert!(error.contains("other nodes are told as soon as"), "{error}");
    // Here it holds at once; elsewhere when the bus has been silent for the bound.
    assert!(get(&mut nodes[0], "album:7").await.expect("it is there").contains("So What"));
    let took = wait_for(&mut nodes[1], "album:7", "So What").await;
    assert!(took < Duration::from_secs(1) + HEARD_WITHIN, "it took {took:?}");
    let silence = servers.running[1].metric("larder_fleet_silence_seconds").await;
    assert!(silence.is_some_and(|secs| secs >= 1.0), "{silence:?}");

    redis.restart(AfterRestart::Empty);
    // What could not be told is told now, and changes are heard again.
    servers.running[0].wait_for_metric("larder_fleet_announced_total", 1.0).await;
    servers.rename_album("Freddie Freeloader").await;
    remove_album_when_possible(&mut nodes[1]).await;
    for node in &mut nodes {
        wait_for(node, "album:7", "Freddie").await;
    }
}

#[tokio::test]
async fn the_redis_in_front_of_which_servers_stand_may_be_the_one_they_share() {
    let redis = RedisServer::start();
    let front = format!("\n[front]\nurl = \"redis://{}\"\n", redis.address());
    let servers = Servers::start(2, &(redis_section(&redis) + &front)).await;
    let mut nodes = servers.connections().await;
    redis.command(&["SET", "plain", "from Redis"]);
    for node in &mut nodes {
        assert_eq!(get(node, "plain").await.as_deref(), Some("from Redis"));
        assert!(get(node, "album:7").await.expect("it is there").contains("Kind of Blue"));
    }
    servers.rename_album("So What").await;
    assert_eq!(tell(&mut nodes[0], &["LARDER.REMOVE", "KEY", "album:7"]).await, Ok(1));
    assert!(wait_for(&mut nodes[1], "album:7", "So What").await < HEARD_WITHIN);
    let written: redis::RedisResult<String> =
        redis::cmd("SET").arg("plain").arg("new").query_async(&mut nodes[0]).await;
    assert_eq!(written.as_deref(), Ok("OK"));
    wait_for(&mut nodes[1], "plain", "new").await;
}

#[tokio::test]
async fn a_redis_that_stands_still_costs_time_and_no_error() {
    let redis = RedisServer::start();
    let servers = Servers::start(2, &redis_section(&redis)).await;
    let mut nodes = servers.connections().await;
    get(&mut nodes[0], "album:7").await.expect("it is there");
    redis.pause();
    for node in &mut nodes {
        let began = Instant::now();
        let album = get(node, "album:8").await.expect("it is there");
        assert!(album.contains("Milestones"), "{album}");
        assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    }
    let failures = "larder_store_failures_total{cache=\"album\",store=\"redis\"}";
    servers.running[1].wait_for_metric(failures, 1.0).await;
    redis.resume();
    servers.rename_album("So What").await;
    remove_album_when_possible(&mut nodes[1]).await;
    for node in &mut nodes {
        wait_for(node, "album:7", "So What").await;
    }
}

#[tokio::test]
async fn a_server_that_was_stopped_serves_nothing_of_before() {
    // Longer than the bound, and than every lease of this cache.
    const STOPPED: Duration = Duration::from_secs(4);
    let redis = RedisServer::start();
    let servers = Servers::start(2, &(redis_section(&redis) + "staleness_bound = \"1s\"\n")).await;
    let mut nodes = servers.connections().await;
    for round in 0..2 {
        for node in &mut nodes {
            get(node, "album:7").await.expect("it is there");
        }
        servers.running[1].signal("STOP");
        let title = format!("Take {round}");
        servers.rename_album(&title).await;
        tell(&mut nodes[0], &["LARDER.REMOVE", "KEY", "album:7"]).await.expect("it is announced");
        // Read meanwhile, so that the store has the new one.
        wait_for(&mut nodes[0], "album:7", &title).await;
        tokio::time::sleep(STOPPED).await;
        servers.running[1].signal("CONT");
        let answer = get(&mut nodes[1], "album:7").await.expect("it is there");
        assert!(answer.contains(&title), "{answer} is what it had before");
    }
}

/// The first one's change is not announced, what the second one loads does not reach
/// the store, both heal, in either order, and the first one's clock is an hour ahead.
#[tokio::test]
async fn of_two_changes_whose_parts_fail_the_newer_one_stays() {
    const HOUR: i64 = 3600;
    for first_heals_first in [true, false] {
        let redis = RedisServer::start();
        let proxies = [FaultProxy::start(redis.address()), FaultProxy::start(redis.address())];
        let mut servers = Servers::start(0, &redis_section(&redis)).await;
        for (number, proxy) in proxies.iter().enumerate() {
            let home = servers.directory.path().join(format!("node-{number}"));
            std::fs::create_dir_all(&home).expect("a directory for the log");
            let config = std::fs::read_to_string(&servers.path).expect("it was written");
            let [direct, led] = [redis.address(), proxy.address()].map(|at| at.to_string());
            let path = home.join("larder.toml");
            std::fs::write(&path, config.replace(&direct, &led)).expect("it can be written");
            let path = path.to_str().expect("the path is text");
            servers.running.push(Running::start_with(&home, &["--config", path], |command| {
                if number == 0 {
                    shift_wall_clock(command, HOUR);
                }
            }));
        }
        let mut nodes = servers.connections().await;
        for node in &mut nodes {
            get(node, "album:7").await.expect("it is there");
        }
        proxies[0].all().stall(Direction::Both);
        servers.rename_album("The first").await;
        tell(&mut nodes[0], &["LARDER.REMOVE", "KEY", "album:7"]).await.expect_err("unheard");
        servers.rename_album("The second").await;
        tell(&mut nodes[1], &["LARDER.REMOVE", "KEY", "album:7"]).await.expect("it is announced");
        proxies[1].all().stall(Direction::Both);
        wait_for(&mut nodes[1], "album:7", "The second").await;
        let order = if first_heals_first { [0, 1] } else { [1, 0] };
        for healed in order {
            proxies[healed].lift();
            wait_for(&mut nodes[healed], "album:7", "The second").await;
        }
        servers.start_another();
        let mut nodes = servers.connections().await;
        for node in &mut nodes {
            wait_for(node, "album:7", "The second").await;
        }
        // What was not announced is, and changes nothing any more.
        servers.running[0].wait_for_metric("larder_fleet_announced_total", 1.0).await;
        for node in &mut nodes {
            wait_for(node, "album:7", "The second").await;
        }
    }
}

#[tokio::test]
async fn without_memcached_changes_are_heard_and_it_is_told_what_it_missed() {
    let (redis, memcached) = (RedisServer::start(), Memcached::start());
    let section = format!("\n[memcached]\nservers = [\"{}\"]\n", memcached.address());
    let servers = Servers::start(2, &(redis_section(&redis) + &section)).await;
    let mut nodes = servers.connections().await;
    for node in &mut nodes {
        get(node, "album:7").await.expect("it is there");
    }
    // It keeps what it has, and cannot be told.
    memcached.pause();
    servers.rename_album("So What").await;
    tell(&mut nodes[0], &["LARDER.REMOVE", "KEY", "album:7"]).await.expect("the bus has it");
    for node in &mut nodes {
        wait_for(node, "album:7", "So What").await;
    }
    let behind = "larder_store_behind{cache=\"album\",store=\"memcached\"}";
    assert_eq!(servers.running[0].metric(behind).await, Some(1.0));
    memcached.resume();
    // Asked again, it is told first.
    let deadline = Instant::now() + PATIENCE;
    while servers.running[0].metric(behind).await != Some(0.0) {
        assert!(Instant::now() < deadline, "it is not told; log:\n{}", servers.running[0].log());
        get(&mut nodes[0], "album:8").await.expect("it is there");
        tell(&mut nodes[0], &["LARDER.REMOVE", "KEY", "album:8"]).await.expect("the bus has it");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for node in &mut nodes {
        assert!(get(node, "album:7").await.expect("it is there").contains("So What"));
    }
}

#[tokio::test]
async fn servers_with_another_query_have_other_entries_and_hear_of_the_same_changes() {
    let redis = RedisServer::start();
    let mut servers = Servers::start(1, &redis_section(&redis)).await;
    let text = std::fs::read_to_string(&servers.path).expect("it is there");
    servers.path = servers.directory.path().join("new.toml").display().to_string();
    let text = text.replace("SELECT id, title", "SELECT title");
    std::fs::write(&servers.path, text).expect("it can be written");
    servers.start_another();
    let mut nodes = servers.connections().await;
    let (old, new) = (r#"{"id":7,"title":"#, r#"[{"title":"#);
    for (node, start) in nodes.iter_mut().zip([old, new]) {
        let list = get(node, "artist:3:albums").await.expect("it is there");
        assert!(list.contains(start) && list.contains("Kind of Blue"), "{list}");
        // The store is filled behind the answer.
        let fills = "larder_store_fills_total{cache=\"albums_of_artist\",store=\"redis\"}";
        servers.running[0].wait_for_metric(fills, 1.0).await;
    }
    servers.rename_album("So What").await;
    let words = ["LARDER.REMOVE", "KEY", "artist:3:albums"];
    tell(&mut nodes[0], &words).await.expect("it is announced");
    let log = servers.running[1].log();
    assert!(log.contains("entries that another query made"), "{log}");
    for (node, start) in nodes.iter_mut().zip([old, new]) {
        wait_for(node, "artist:3:albums", "So What").await;
        assert!(get(node, "artist:3:albums").await.expect("it is there").contains(start));
    }
}

#[tokio::test]
async fn a_server_that_starts_without_redis_joins_when_it_is_there() {
    let redis = RedisServer::start();
    redis.kill();
    let servers = Servers::start(2, &redis_section(&redis)).await;
    let mut nodes = servers.connections().await;
    for node in &mut nodes {
        assert!(get(node, "album:7").await.expect("it is there").contains("Kind of Blue"));
    }
    redis.revive();
    for server in &servers.running {
        // A sign of life of the bus.
        let deadline = Instant::now() + PATIENCE;
        while server.metric("larder_fleet_silence_seconds").await.is_none_or(|secs| secs > 1.0) {
            assert!(Instant::now() < deadline, "it does not join: {}", server.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    servers.rename_album("So What").await;
    tell(&mut nodes[0], &["LARDER.REMOVE", "KEY", "album:7"]).await.expect("it is announced");
    for node in &mut nodes {
        wait_for(node, "album:7", "So What").await;
    }
}

#[tokio::test]
async fn what_may_not_leave_the_process_is_in_no_store_and_invalidated_all_the_same() {
    let redis = RedisServer::start();
    let section =
        redis_section(&redis) + "\n[caches.artist]\ntable = \"artist\"\nclass = \"preference\"\n";
    let servers = Servers::start(2, &section).await;
    let mut nodes = servers.connections().await;
    for node in &mut nodes {
        get(node, "artist:3").await.expect("it is there");
    }
    let (_, page) = servers.running[0].page("/caches/artist").await;
    assert_eq!(page["stores"], serde_json::json!([]));
    let keys = redis.command(&["KEYS", "*artist*"]);
    assert!(!format!("{keys:?}").contains("larder:e:artist"), "{keys:?}");
    tell(&mut nodes[0], &["LARDER.REMOVE", "KEY", "artist:3"]).await.expect("it is announced");
    let sample = "larder_cache_loads_total{cache=\"artist\"}";
    let deadline = Instant::now() + HEARD_WITHIN;
    while servers.running[1].metric(sample).await != Some(2.0) {
        assert!(Instant::now() < deadline, "the other server keeps it");
        get(&mut nodes[1], "artist:3").await.expect("it is there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_doctor_counts_who_listens_and_every_metric_of_the_bus_is_there() {
    let redis = RedisServer::start();
    let servers = Servers::start(2, &redis_section(&redis)).await;
    let output =
        larder().args(["doctor", "--config", &servers.path]).output().expect("the doctor runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("2 servers listen"), "{said}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let reference = std::fs::read_to_string(root.join("docs/reference/metrics.md"));
    let reference = reference.expect("it is there");
    let named = |start: &str| -> Vec<String> {
        let rows = reference.lines().filter(|line| line.starts_with(start));
        rows.filter_map(|row| Some(row.split('`').nth(1)?.to_owned())).collect()
    };
    let (bus, leases) = (named("| `larder_fleet_"), named("| `larder_lease_"));
    assert_eq!((bus.len(), leases.len()), (8, 2), "{bus:?} {leases:?}");
    for name in bus {
        assert!(servers.running[0].metric(&name).await.is_some(), "{name}");
    }
    let page = servers.running[0].request(reqwest::Method::GET, "/metrics").await;
    let page = page.text().await.expect("metrics are text");
    for name in leases {
        assert!(page.contains(&format!("\n{name}{{cache=\"album\",")), "{name}: {page}");
    }
}
