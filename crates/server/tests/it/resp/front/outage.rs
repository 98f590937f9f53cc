//! A Redis that is not there: clear errors, no hang, nothing wrong afterwards.

use std::time::{Duration, Instant};

use larder_server::front::TrackingState;
use larder_testkit::redis::RedisServer;

use super::{Client, counted, encode, eventually, front, front_with, text, wait_for, warm};

#[test]
fn commands_fail_clearly_while_redis_is_away_and_work_when_it_is_back() {
    let redis = RedisServer::start();
    let door = front(&redis);
    let mut client = Client::connect(door.address());
    client.ask("SET k v");
    warm(&door, &mut client, "k");
    redis.kill();
    eventually("the outage", || counted(&door).tracking == TrackingState::Lost);
    for command in ["GET k", "SET k w", "HGET h f", "BLPOP l 1", "MULTI", "SUBSCRIBE c"] {
        let asked = Instant::now();
        let reply = client.ask(command);
        assert!(reply.starts_with("-UNAVAILABLE Redis cannot be reached"), "{command}: {reply}");
        assert!(asked.elapsed() < Duration::from_secs(3), "{command} took {:?}", asked.elapsed());
    }
    assert_eq!(client.ask("PING"), "+PONG\r\n");
    let mut pipeline = encode(&["GET", "k"]).repeat(20);
    pipeline.extend(encode(&["PING"]));
    client.send(&pipeline);
    for _ in 0..20 {
        assert!(text(&client.reply()).starts_with("-UNAVAILABLE"));
    }
    assert_eq!(text(&client.reply()), "+PONG\r\n");
    redis.revive();
    eventually("Redis", || client.ask("SET k back") == "+OK\r\n");
    assert_eq!(client.ask("GET k"), "$4\r\nback\r\n");
    assert_eq!(client.ask("BLPOP none 0.01"), "*-1\r\n");
    wait_for(&door, TrackingState::Tracking);
    warm(&door, &mut client, "k");
}

#[test]
fn a_silent_redis_is_given_up_after_the_timeout() {
    let redis = RedisServer::start();
    let door = front_with(&redis, |front| {
        front.upstream.reply_timeout = Duration::from_millis(500);
        front.upstream.connect_timeout = Duration::from_millis(500);
    });
    wait_for(&door, TrackingState::Tracking);
    let mut client = Client::connect(door.address());
    client.ask("SET k v");
    redis.pause();
    let asked = Instant::now();
    let reply = client.ask("HGET h f");
    assert!(reply.starts_with("-UNAVAILABLE"), "{reply}");
    assert!(asked.elapsed() < Duration::from_secs(5), "after {:?}", asked.elapsed());
    redis.resume();
    eventually("Redis", || client.ask("HGET h f") == "$-1\r\n");
}

#[test]
fn a_transaction_that_was_lost_ends_its_client() {
    let redis = RedisServer::start();
    let door = front(&redis);
    let mut client = Client::connect(door.address());
    client.ask("MULTI");
    client.ask("SET k v");
    redis.kill();
    assert_eq!(client.rest(), b"", "as Redis itself would have done");
}

#[test]
fn a_door_may_open_before_its_redis() {
    let redis = RedisServer::start();
    redis.kill();
    let door = front_with(&redis, |_| {});
    let mut client = Client::connect(door.address());
    assert!(client.ask("GET k").starts_with("-UNAVAILABLE"));
    redis.revive();
    eventually("Redis", || client.ask("GET k") == "$-1\r\n");
    wait_for(&door, TrackingState::Tracking);
}
