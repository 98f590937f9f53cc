//! Sentinels name another primary, and everything goes there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_server::front::{FrontOptions, FrontTopology, TrackingState, UpstreamOptions, check};
use larder_server::resp::{Door, NoCaches};
use larder_testkit::redis::{RedisOptions, SENTINEL_NAME, Sentinel};

use super::{Client, eventually, open_front, wait_for, warm};

const PASSWORD: &str = "hunter2";

/// What the sentinels lead to.
fn options(redis: &Sentinel, service: &str, password: &str) -> FrontOptions {
    let first = redis.addresses()[0];
    let url = format!("redis://:{PASSWORD}@{first}");
    let mut options = FrontOptions::new(UpstreamOptions::parse(&url).expect("it is a URL"));
    options.topology = FrontTopology::Sentinel {
        service: service.to_owned(),
        user: None,
        password: Some(password.to_owned()),
        sentinels: redis.addresses().iter().map(|it| (it.ip().to_string(), it.port())).collect(),
    };
    options
}

fn found(options: &FrontOptions) -> Result<FrontOptions, String> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(check(options)).map_err(|error| error.to_string())
}

fn open(redis: &Sentinel) -> Door {
    let options = found(&options(redis, SENTINEL_NAME, PASSWORD)).expect("it can be used");
    assert_eq!(options.upstream.port, redis.primary().address().port());
    let door = open_front(options.upstream.clone(), Arc::new(NoCaches), |it| *it = options);
    wait_for(&door, TrackingState::Tracking);
    door
}

#[test]
#[allow(clippy::print_stdout, reason = "the times are what is shown")]
fn a_failover_is_followed() {
    let redis = Sentinel::launch(&RedisOptions::with_password(PASSWORD));
    let door = open(&redis);
    let mut client = Client::connect(door.address());
    client.ask("SET k old");
    client.ask("SET gone no");
    warm(&door, &mut client, "k");
    for is_killed in [false, true] {
        let old = redis.primary().address();
        let began = Instant::now();
        if is_killed {
            redis.primary().kill();
        } else {
            redis.fail_over();
        }
        redis.wait_for_failover(old);
        // Past Larder, at the new one: memory must not know better.
        redis.primary().command(&["SET", "k", "new"]);
        let told = Instant::now();
        let mut answer = String::new();
        while answer != "$3\r\nnew\r\n" {
            answer = client.ask("GET k");
            let is_declared = answer.starts_with("-UNAVAILABLE") || answer.starts_with("-LOADING");
            assert!(answer.starts_with('$') || is_declared, "{answer}");
            assert!(told.elapsed() < Duration::from_secs(5), "still {answer}");
        }
        eventually("a write", || client.ask("SET k old") == "+OK\r\n");
        println!("killed: {is_killed}; followed after {:.0?}", began.elapsed());
        assert_eq!(redis.primary().command(&["GET", "k"]).text(), "old");
        wait_for(&door, TrackingState::Tracking);
        assert_eq!(warm(&door, &mut client, "k"), "$3\r\nold\r\n");
        client.ask("MULTI");
        client.ask("SET k old");
        assert_eq!(client.ask("EXEC"), "*1\r\n+OK\r\n");
    }
}

#[test]
fn mistakes_are_told_before_it_begins() {
    let redis = Sentinel::launch(&RedisOptions::with_password(PASSWORD));
    let unknown = found(&options(&redis, "nobody", PASSWORD)).expect_err("there is none");
    assert!(unknown.contains("No such master"), "{unknown}");
    let wrong = found(&options(&redis, SENTINEL_NAME, "hunter3")).expect_err("it is wrong");
    assert!(wrong.contains("WRONGPASS") && !wrong.contains("hunter3"), "{wrong}");
    let mut wrong = options(&redis, SENTINEL_NAME, PASSWORD);
    wrong.upstream.password = Some("hunter4".to_owned());
    let wrong = found(&wrong).expect_err("it is wrong");
    assert!(wrong.contains("WRONGPASS") && !wrong.contains("hunter4"), "{wrong}");
    let debug = format!("{:?}", options(&redis, SENTINEL_NAME, PASSWORD));
    assert!(!debug.contains(PASSWORD), "{debug}");
    for sentinel in &redis.sentinels()[1..] {
        sentinel.kill();
    }
    found(&options(&redis, SENTINEL_NAME, PASSWORD)).expect("one is enough");
}
