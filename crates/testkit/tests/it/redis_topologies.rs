//! Sentinel and Cluster fail over and move slots when tests make them.

use larder_testkit::certificates::Authority;
use larder_testkit::proxy::Direction;
use larder_testkit::redis::{Cluster, RedisOptions, Sentinel};

fn secured(authority: &Authority) -> RedisOptions {
    RedisOptions { password: Some("sesame".to_owned()), ..RedisOptions::with_tls(authority) }
}

#[test]
fn sentinels_replace_a_dead_primary() {
    let redis = Sentinel::start();
    assert_eq!(redis.primary().address(), redis.servers()[0].address());
    redis.primary().command(&["SET", "a", "1"]);
    redis.fail_over();
    let second = redis.primary().address();
    assert_ne!(second, redis.servers()[0].address());
    redis.primary().kill();
    redis.wait_for_failover(second);
    assert_eq!(redis.primary().command(&["GET", "a"]).text(), "1");
    assert_eq!(redis.primary().command(&["SET", "a", "2"]).text(), "OK");
}

#[test]
fn sentinels_work_with_tls_and_a_password() {
    let redis = Sentinel::launch(&secured(&Authority::new()));
    redis.fail_over();
    assert_ne!(redis.primary().address(), redis.servers()[0].address());
}

#[test]
fn a_cluster_moves_slots_and_replaces_a_dead_primary() {
    let redis = Cluster::start();
    let slot = Cluster::slot(b"{shop}");
    let old = redis.place_of(slot);
    let new = (old + 1) % 3;
    assert_eq!(redis.replicas_of(old), [old + 3]);
    for number in 0..250 {
        redis.servers()[old].command(&["SET", &format!("{{shop}}:{number}"), "value"]);
    }

    let migration = redis.begin_migration(slot, new);
    assert_eq!(migration.move_keys(100), 100);
    let missing = redis.servers()[old].command(&["GET", "{shop}:missing"]);
    let ask = format!("Error(\"ASK {slot} {}\")", redis.servers()[new].address());
    assert_eq!(format!("{missing:?}"), ask);
    migration.abandon();
    let migration = redis.begin_migration(slot, new);
    while migration.move_keys(100) > 0 {}
    migration.finish();
    assert_eq!(redis.place_of(slot), new);
    let moved = redis.servers()[old].command(&["GET", "{shop}:1"]);
    let there = format!("Error(\"MOVED {slot} {}\")", redis.servers()[new].address());
    assert_eq!(format!("{moved:?}"), there);
    assert_eq!(redis.primary_of(slot).command(&["DBSIZE"]).integer(), 250);

    redis.migrate_slot(slot, old);
    assert_eq!(redis.primary_of(slot).command(&["DBSIZE"]).integer(), 250);
    assert_eq!(redis.kill_primary(slot), old);
    redis.wait_until_ready();
    assert_eq!(redis.place_of(slot), old + 3);
    assert_eq!(redis.primary_of(slot).command(&["DBSIZE"]).integer(), 250);
    redis.servers()[old].revive();
    redis.wait_until_ready();
    assert_eq!(redis.replicas_of(old + 3), [old]);
}

#[test]
fn a_cluster_works_with_tls_and_a_password() {
    let redis = Cluster::launch(&secured(&Authority::new()));
    let slot = Cluster::slot(b"a");
    let old = redis.place_of(slot);
    redis.primary_of(slot).command(&["SET", "a", "1"]);
    redis.migrate_slot(slot, (old + 1) % 3);
    assert_eq!(redis.place_of(slot), (old + 1) % 3);
    assert_eq!(redis.primary_of(slot).command(&["GET", "a"]).text(), "1");
}

#[test]
fn clients_of_a_cluster_are_sent_through_its_proxies() {
    let redis = Cluster::launch_behind_proxies(&RedisOptions::default());
    let slot = Cluster::slot(b"a");
    let place = redis.place_of(slot);
    let other = &redis.servers()[(place + 1) % 3];
    let moved = other.command(&["GET", "a"]);
    let there = format!("Error(\"MOVED {slot} {}\")", redis.proxy(place).address());
    assert_eq!(format!("{moved:?}"), there);
    let before = redis.proxy(place).bytes(Direction::ToServer);
    let to = redis.proxy(place).address().port().to_string();
    let set = std::process::Command::new("redis-cli").args(["-p", &to, "SET", "a", "1"]).output();
    assert_eq!(String::from_utf8_lossy(&set.expect("redis-cli is installed").stdout), "OK\n");
    assert!(redis.proxy(place).bytes(Direction::ToServer) > before);
    redis.migrate_slot(slot, (place + 1) % 3);
    assert_eq!(redis.primary_of(slot).command(&["GET", "a"]).text(), "1");
    redis.kill_primary(slot);
    redis.wait_until_ready();
    assert_eq!(redis.place_of(slot), (place + 1) % 3 + 3);
}
