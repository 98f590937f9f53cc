//! Users, rights and encryption between Larder and Redis; caches beside it.

use std::sync::Arc;
use std::time::Duration;

use larder_server::front::{TrackingState, UpstreamOptions, check};
use larder_server::resp::{DoorOptions, NoCaches, User};
use larder_testkit::certificates::Authority;
use larder_testkit::redis::{RedisOptions, RedisServer};

use super::{Client, counted, eventually, front_with, open, open_front, options, wait_for, warm};

fn with_users(users: &[&str]) -> RedisServer {
    RedisServer::launch(&RedisOptions {
        users: users.iter().map(|user| (*user).to_owned()).collect(),
        ..RedisOptions::default()
    })
}

fn url(redis: &RedisServer, login: &str) -> UpstreamOptions {
    UpstreamOptions::parse(&format!("redis://{login}@{}", redis.address())).expect("a URL")
}

#[test]
fn without_the_right_to_track_time_bounds_what_is_kept() {
    let redis = with_users(&["ann on >secret ~* &* +@all -client|tracking"]);
    let door = open_front(url(&redis, "ann:secret"), Arc::new(NoCaches), |front| {
        front.untracked_ttl = Duration::from_millis(200);
    });
    wait_for(&door, TrackingState::Refused);
    let mut client = Client::connect(door.address());
    client.ask("SET k 1");
    warm(&door, &mut client, "k");
    // The client's own writes are read at once, others within the bound.
    client.ask("SET k 2");
    assert_eq!(client.ask("GET k"), "$1\r\n2\r\n");
    redis.command(&["SET", "k", "3"]);
    eventually("the other's write", || client.ask("GET k") == "$1\r\n3\r\n");
    client.ask("EVAL redis.call('set','k','4') 0");
    assert_eq!(client.ask("GET k"), "$1\r\n4\r\n");
}

#[test]
fn without_the_right_to_track_nothing_may_be_kept() {
    let redis = with_users(&["ann on >secret ~* &* +@all -client|tracking"]);
    let door = open_front(url(&redis, "ann:secret"), Arc::new(NoCaches), |front| {
        front.untracked_ttl = Duration::ZERO;
    });
    wait_for(&door, TrackingState::Refused);
    let mut client = Client::connect(door.address());
    client.ask("SET k 1");
    for _ in 0..50 {
        assert_eq!(client.ask("GET k"), "$1\r\n1\r\n");
    }
    assert_eq!(counted(&door).hits, 0);
}

#[test]
fn without_the_right_to_ping_redis_is_not_stormed() {
    let redis = with_users(&["ann on >secret ~* &* +@all -ping"]);
    let door = open_front(url(&redis, "ann:secret"), Arc::new(NoCaches), |_| {});
    std::thread::sleep(Duration::from_secs(2));
    let connects = counted(&door).connects;
    assert!((1..20).contains(&connects), "{connects} were opened");
    let mut client = Client::connect(door.address());
    assert_eq!(client.ask("SET k 1"), "+OK\r\n");
    assert_eq!(client.ask("GET k"), "$1\r\n1\r\n");
}

#[test]
fn clients_log_in_to_larder_and_larder_to_redis() {
    let redis = with_users(&["ann on >secret ~* &* +@all"]);
    let mut front = larder_server::front::FrontOptions::new(url(&redis, "ann:secret"));
    front.staleness_max = Duration::from_secs(2);
    let door_options = DoorOptions {
        front: Some(front),
        users: vec![User { name: "bob".to_owned(), password: "hunter2".to_owned() }],
        ..options()
    };
    let door = open(&door_options);
    let mut client = Client::connect(door.address());
    for command in ["GET k", "HGET h f", "MULTI", "SUBSCRIBE c", "NOTHING"] {
        assert_eq!(client.ask(command), "-NOAUTH Authentication required.\r\n", "{command}");
    }
    assert!(client.ask("AUTH ann secret").starts_with("-WRONGPASS"));
    assert_eq!(client.ask("AUTH bob hunter2"), "+OK\r\n");
    assert_eq!(client.ask("HSET h f v"), ":1\r\n");
    assert_eq!(client.ask("ACL WHOAMI"), "$3\r\nann\r\n");
    client.ask("MULTI");
    assert!(client.ask("AUTH bob hunter2").starts_with("-ERR Command not allowed"));
    assert!(client.ask("EXEC").starts_with("-EXECABORT"));
    assert_eq!(client.ask("RESET"), "+RESET\r\n");
    assert!(client.ask("HGET h f").starts_with("-NOAUTH"));
}

#[test]
fn a_stranger_gets_no_connection_of_its_own() {
    let redis = RedisServer::start();
    let upstream = UpstreamOptions::parse(&format!("redis://{}", redis.address()));
    let door_options = DoorOptions {
        front: Some(larder_server::front::FrontOptions::new(upstream.expect("a URL"))),
        users: vec![User { name: "bob".to_owned(), password: "hunter2".to_owned() }],
        ..options()
    };
    let door = open(&door_options);
    let mut client = Client::connect(door.address());
    for command in ["CLIENT TRACKING ON", "CLIENT PAUSE 1000", "CLIENT CACHING YES"] {
        assert_eq!(client.ask(command), "-NOAUTH Authentication required.\r\n", "{command}");
    }
    assert_eq!(client.ask("AUTH bob hunter2"), "+OK\r\n");
    assert_eq!(client.ask("SET k v"), "+OK\r\n");
}

#[test]
fn mistakes_are_told_before_it_begins() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let check = |upstream: UpstreamOptions| {
        let front = larder_server::front::FrontOptions::new(upstream);
        let found = runtime.block_on(check(&front)).map_err(|error| error.to_string());
        found.map(|found| found.is_cluster())
    };
    let redis = with_users(&["ann on >secret ~* &* +@all"]);
    assert_eq!(check(url(&redis, "ann:secret")), Ok(false));
    let wrong = check(url(&redis, "ann:hunter2")).expect_err("the password is wrong");
    assert!(wrong.contains("WRONGPASS") && !wrong.contains("hunter2"), "{wrong}");
    redis.kill();
    let gone = check(url(&redis, "ann:secret")).expect_err("nobody is there");
    assert!(gone.contains("cannot be reached"), "{gone}");
    let cluster = RedisServer::start_with(&["--cluster-enabled", "yes"]);
    let refused = check(url(&cluster, "default")).expect_err("nobody has slots");
    assert!(refused.contains("does not serve every slot"), "{refused}");
}

#[test]
fn the_connection_to_redis_may_be_encrypted() {
    let authority = Authority::new();
    let redis = RedisServer::launch(&RedisOptions::with_tls(&authority));
    let mut upstream = UpstreamOptions::parse(&redis.url()).expect("a URL");
    assert!(upstream.is_tls, "{}", redis.url());
    upstream.ca_file = redis.certificate().map(|path| path.display().to_string());
    let door = open_front(upstream.clone(), Arc::new(NoCaches), |_| {});
    wait_for(&door, TrackingState::Tracking);
    let mut client = Client::connect(door.address());
    client.ask("SET k v");
    assert_eq!(warm(&door, &mut client, "k"), "$1\r\nv\r\n");
    let large = "x".repeat(3 << 20);
    client.ask(&format!("SET large {large}"));
    assert_eq!(client.ask("GET large").len(), large.len() + "$3145728\r\n\r\n".len());
    client.ask("MULTI");
    client.ask("INCR n");
    assert_eq!(client.ask("EXEC"), "*1\r\n:1\r\n");
    upstream.ca_file = None;
    let strict = open_front(upstream, Arc::new(NoCaches), |_| {});
    let reply = Client::connect(strict.address()).ask("GET k");
    assert!(reply.starts_with("-UNAVAILABLE"), "an unknown authority: {reply}");
}

#[test]
fn some_keys_are_never_kept() {
    let redis = RedisServer::start();
    let door = front_with(&redis, |front| front.not_kept = vec!["session:*".to_owned()]);
    wait_for(&door, TrackingState::Tracking);
    let mut client = Client::connect(door.address());
    client.ask("SET session:1 v");
    for _ in 0..20 {
        assert_eq!(client.ask("GET session:1"), "$1\r\nv\r\n");
    }
    assert_eq!(counted(&door).hits, 0);
    client.ask("SET k v");
    warm(&door, &mut client, "k");
}

#[test]
fn information_tells_what_goes_on() {
    let redis = RedisServer::start();
    let door = super::front(&redis);
    let mut client = Client::connect(door.address());
    client.ask("SET k v");
    warm(&door, &mut client, "k");
    let info = client.ask("INFO larder");
    for line in ["front_tracking:tracking", "front_reachable:1", "front_memory_hits:"] {
        assert!(info.contains(line), "{info}");
    }
    assert!(client.ask("INFO server").contains("redis_git_sha1"), "Redis' own");
    let explained = client.ask("LARDER.EXPLAIN k");
    assert!(explained.contains("key of Redis") && explained.contains("in-memory"), "{explained}");
}
