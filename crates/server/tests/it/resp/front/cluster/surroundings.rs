//! Encryption, users and rights between Larder and a cluster.

use std::sync::Arc;

use larder_server::front::{FrontOptions, FrontTopology, TrackingState, UpstreamOptions, check};
use larder_server::resp::NoCaches;
use larder_testkit::certificates::Authority;
use larder_testkit::redis::{Cluster, RedisOptions, RedisServer};

use super::{Client, counted, eventually, key_of, open_front, wait_for, wait_until_tracked, warm};

/// A user that may do no more than Larder needs, and clients.
const USER: &str = "ann on >secret ~* &* +@read +@write +@transaction +@scripting +@connection \
                    +@pubsub -@dangerous +cluster|info +cluster|shards";

fn found(options: &FrontOptions) -> Result<FrontOptions, String> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(check(options)).map_err(|error| error.to_string())
}

#[test]
fn a_cluster_may_be_encrypted_and_its_user_restricted() {
    let authority = Authority::new();
    let cluster = Cluster::launch(&RedisOptions {
        users: vec![USER.to_owned()],
        ..RedisOptions::with_tls(&authority)
    });
    let address = cluster.servers()[4].address();
    let url = format!("rediss://ann:secret@{address}");
    let mut upstream = UpstreamOptions::parse(&url).expect("it is a URL");
    upstream.ca_file = Some(authority.certificate().display().to_string());
    // A replica tells who the primaries are, too, and what it is part of.
    let options = found(&FrontOptions::new(upstream.clone())).expect("it can be used");
    assert_eq!(options.topology, FrontTopology::Cluster);
    let door = open_front(upstream.clone(), Arc::new(NoCaches), |front| *front = options);
    wait_until_tracked(&door, 3);
    let mut client = Client::connect(door.address());
    for place in 0..3 {
        let key = key_of(place);
        assert_eq!(client.ask(&format!("SET {key} {place}")), "+OK\r\n");
        assert_eq!(warm(&door, &mut client, &key), format!("$1\r\n{place}\r\n"));
        client.ask("MULTI");
        client.ask(&format!("INCR {key}"));
        assert_eq!(client.ask("EXEC"), format!("*1\r\n:{}\r\n", place + 1));
        assert_eq!(client.ask(&format!("BLPOP {{{key}}}none 0.01")), "*-1\r\n");
    }
    assert!(client.ask("DBSIZE").starts_with(':') || client.ask("DBSIZE").starts_with("-NOPERM"));
    upstream.password = Some("hunter2".to_owned());
    let wrong = found(&FrontOptions::new(upstream.clone())).expect_err("the password is wrong");
    assert!(wrong.contains("WRONGPASS") && !wrong.contains("hunter2"), "{wrong}");
    upstream.password = Some("secret".to_owned());
    upstream.ca_file = None;
    let strange = found(&FrontOptions::new(upstream)).expect_err("the authority is unknown");
    assert!(strange.contains("certificate"), "{strange}");
}

#[test]
fn a_right_that_is_missing_is_named() {
    let cluster = Cluster::launch(&RedisOptions {
        users: vec!["ann on >secret ~* &* +@all -cluster|shards".to_owned()],
        ..RedisOptions::default()
    });
    let url = format!("redis://ann:secret@{}", cluster.servers()[0].address());
    let upstream = UpstreamOptions::parse(&url).expect("it is a URL");
    let refused = found(&FrontOptions::new(upstream)).expect_err("it cannot be used");
    assert!(refused.contains("NOPERM") && refused.contains("CLUSTER SHARDS"), "{refused}");
    assert!(refused.contains(&cluster.servers()[0].address().to_string()), "{refused}");
}

#[test]
fn one_of_the_addresses_is_enough() {
    let cluster = Cluster::start();
    let dead = RedisServer::start();
    dead.kill();
    let upstream = format!("redis://{}", dead.address());
    let upstream = UpstreamOptions::parse(&upstream).expect("it is a URL");
    let live = cluster.servers()[1].address();
    let mut options = FrontOptions::new(upstream.clone());
    options.others = vec![(live.ip().to_string(), live.port())];
    let options = found(&options).expect("one answers");
    assert_eq!(options.topology, FrontTopology::Cluster);
    let door = open_front(upstream, Arc::new(NoCaches), |front| *front = options);
    wait_until_tracked(&door, 3);
    let mut client = Client::connect(door.address());
    assert_eq!(client.ask("SET k v"), "+OK\r\n");
    assert_eq!(warm(&door, &mut client, "k"), "$1\r\nv\r\n");
    // Several addresses of servers that are no cluster are a mistake.
    let alone = RedisServer::start();
    let mut options = FrontOptions::new(
        UpstreamOptions::parse(&format!("redis://{}", alone.address())).expect("it is a URL"),
    );
    options.others = vec![(live.ip().to_string(), live.port())];
    let refused = found(&options).expect_err("it is no cluster");
    assert!(refused.contains("no cluster"), "{refused}");
}

#[test]
fn without_the_right_to_track_time_bounds_what_is_kept() {
    let cluster = Cluster::launch(&RedisOptions {
        users: vec!["ann on >secret ~* &* +@all -client|tracking".to_owned()],
        ..RedisOptions::default()
    });
    let url = format!("redis://ann:secret@{}", cluster.servers()[0].address());
    let upstream = UpstreamOptions::parse(&url).expect("it is a URL");
    let door = open_front(upstream, Arc::new(NoCaches), |front| {
        front.topology = FrontTopology::Cluster;
        front.untracked_ttl = std::time::Duration::from_millis(200);
    });
    wait_for(&door, TrackingState::Refused);
    let mut client = Client::connect(door.address());
    for place in 0..3 {
        let key = key_of(place);
        client.ask(&format!("SET {key} 1"));
        warm(&door, &mut client, &key);
        client.ask(&format!("SET {key} 2"));
        assert_eq!(client.ask(&format!("GET {key}")), "$1\r\n2\r\n");
        cluster.servers()[place].command(&["SET", &key, "3"]);
        eventually("the other's write", || client.ask(&format!("GET {key}")) == "$1\r\n3\r\n");
    }
    assert!(counted(&door).hits > 0);
}
