//! Nobody reads a value that is older than the bound, whoever writes and
//! whatever breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder_server::front::TrackingState;
use larder_server::resp::Door;
use larder_testkit::redis::{AfterRestart, RedisOptions, RedisServer};

use super::{Client, SHORT, counted, eventually, front, front_with, wait_for, warm};

#[test]
fn a_direct_write_is_seen_at_once() {
    let redis = RedisServer::start();
    let door = front(&redis);
    let mut client = Client::connect(door.address());
    let mut direct = Client::connect(redis.address());
    for number in 0..500 {
        direct.ask(&format!("SET k {number:05}"));
        let written = Instant::now();
        let expected = format!("$5\r\n{number:05}\r\n");
        while client.ask("GET k") != expected {
            assert!(written.elapsed() < Duration::from_secs(1), "write {number} is not seen");
        }
    }
    let counted = counted(&door);
    assert!(counted.invalidations >= 500, "{counted:?}");
}

#[test]
fn what_happens_to_keys_is_noticed_whatever_it_is() {
    let redis = RedisServer::start();
    let door = front(&redis);
    let mut client = Client::connect(door.address());
    for (change, expected) in [
        ("DEL k", "$-1\r\n"),
        ("APPEND k x", "$2\r\n1x\r\n"),
        ("RENAME k j", "$-1\r\n"),
        ("FLUSHALL", "$-1\r\n"),
        ("FLUSHDB", "$-1\r\n"),
        ("PEXPIRE k 1", "$-1\r\n"),
        ("EVAL redis.call('set','k','lua') 0", "$3\r\nlua\r\n"),
    ] {
        for address in [redis.address(), door.address()] {
            let mut writer = Client::connect(address);
            writer.ask("SET k 1");
            eventually("the write", || client.ask("GET k") == "$1\r\n1\r\n");
            warm(&door, &mut client, "k");
            writer.ask(change);
            eventually(change, || client.ask("GET k") == expected);
        }
    }
}

#[test]
fn a_value_does_not_outlive_its_key() {
    let redis = RedisServer::start();
    let door = front(&redis);
    // Redis itself forgets expired keys only when it comes across them.
    redis.command(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    let mut client = Client::connect(door.address());
    client.ask("SET k v PX 400");
    let set_at = Instant::now();
    assert_eq!(warm(&door, &mut client, "k"), "$1\r\nv\r\n");
    eventually("the end of the key", || client.ask("GET k") == "$-1\r\n");
    assert!(set_at.elapsed() < Duration::from_millis(900), "after {:?}", set_at.elapsed());
}

/// One key of a race: the newest value that was acknowledged.
struct Race {
    acknowledged: Vec<AtomicU64>,
    is_over: AtomicBool,
    checked: AtomicU64,
}

const KEYS: usize = 8;

/// Writes rising numbers, directly and through the door, while readers check
/// that none reads one that was overwritten for longer than `bound`. Meanwhile
/// `disturb` runs.
pub(super) fn race(
    redis: &RedisServer,
    door: &Door,
    bound: Duration,
    disturb: impl FnOnce(),
) -> u64 {
    let race = Arc::new(Race {
        acknowledged: (0..KEYS).map(|_| AtomicU64::new(0)).collect(),
        is_over: AtomicBool::new(false),
        checked: AtomicU64::new(0),
    });
    let (direct, through) = (redis.address(), door.address());
    let mut threads = Vec::new();
    for (index, address) in [direct, through].into_iter().enumerate() {
        let race = Arc::clone(&race);
        threads.push(std::thread::spawn(move || write(&race, index, address)));
    }
    for _ in 0..3 {
        let race = Arc::clone(&race);
        threads.push(std::thread::spawn(move || read(&race, through, bound)));
    }
    disturb();
    race.is_over.store(true, Ordering::Release);
    for thread in threads {
        thread.join().expect("no reader read an old value");
    }
    race.checked.load(Ordering::Relaxed)
}

/// Each writer has keys of its own, so that it alone says which value is newest.
fn write(race: &Race, index: usize, address: std::net::SocketAddr) {
    let mut client = None;
    for number in 1.. {
        if race.is_over.load(Ordering::Acquire) {
            return;
        }
        let key = (number as usize % (KEYS / 2)) * 2 + index;
        let command = format!("SET key:{key} {number}");
        if exchange(&mut client, address, &command).is_some_and(|reply| reply == "+OK\r\n") {
            race.acknowledged[key].store(number, Ordering::Release);
        }
        std::thread::sleep(Duration::from_micros(300));
    }
}

fn read(race: &Race, address: std::net::SocketAddr, bound: Duration) {
    let mut client = None;
    // What was acknowledged, and when that was first noticed.
    let mut known: Vec<Vec<(u64, Instant)>> = vec![Vec::new(); KEYS];
    for turn in 0.. {
        if race.is_over.load(Ordering::Acquire) {
            return;
        }
        let key = turn % KEYS;
        let newest = race.acknowledged[key].load(Ordering::Acquire);
        let asked = Instant::now();
        if known[key].last().is_none_or(|(number, _)| *number < newest) {
            known[key].push((newest, asked));
        }
        let Some(reply) = exchange(&mut client, address, &format!("GET key:{key}")) else {
            continue;
        };
        if reply.starts_with('-') {
            continue;
        }
        let found = reply.lines().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
        let newer = known[key].iter().find(|(number, _)| *number > found);
        if let Some((number, since)) = newer {
            let age = asked.duration_since(*since);
            assert!(
                age <= bound,
                "read {found}, though {number} was acknowledged {age:?} before the read began"
            );
        }
        race.checked.fetch_add(1, Ordering::Relaxed);
        if known[key].len() > 10_000 {
            known[key].drain(..5_000);
        }
    }
}

/// One command and its reply; `None` if the connection broke.
fn exchange(
    client: &mut Option<std::net::TcpStream>,
    address: std::net::SocketAddr,
    command: &str,
) -> Option<String> {
    use std::io::{Read, Write};
    let mut attempt = || -> std::io::Result<String> {
        let stream = match client {
            Some(stream) => stream,
            None => client.insert(std::net::TcpStream::connect(address)?),
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(super::super::REPLY_WAIT))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut reply = Vec::new();
        while super::super::reply_length(&reply).is_none() {
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => reply.extend_from_slice(&chunk[..count]),
            }
        }
        Ok(String::from_utf8_lossy(&reply).into_owned())
    };
    match attempt() {
        Ok(reply) => Some(reply),
        Err(_) => {
            *client = None;
            std::thread::sleep(Duration::from_millis(5));
            None
        }
    }
}

/// What the machine may add to a bound when other work stops threads.
pub(super) const SCHEDULING: Duration = Duration::from_millis(500);

#[test]
fn under_load_nobody_reads_an_old_value() {
    let redis = RedisServer::start();
    let door = front(&redis);
    let checked = race(&redis, &door, SCHEDULING, || std::thread::sleep(Duration::from_secs(3)));
    let counted = counted(&door);
    assert!(checked > 1000 && counted.hits > 0 && counted.invalidations > 0, "{counted:?}");
}

#[test]
fn not_when_the_tracking_connection_is_cut_again_and_again() {
    let redis = RedisServer::start();
    let door = front(&redis);
    race(&redis, &door, SCHEDULING, || {
        for _ in 0..10 {
            // By protocol: shared connections of this test speak RESP2.
            let list = redis.command(&["CLIENT", "LIST"]).text();
            let tracking = list.lines().find(|line| line.contains("flags=tB"));
            if let Some(id) = tracking.and_then(|line| line.strip_prefix("id=")) {
                let id = id.split(' ').next().unwrap_or_default();
                redis.command(&["CLIENT", "KILL", "ID", id]);
            }
            std::thread::sleep(SHORT);
        }
    });
    assert!(counted(&door).losses >= 5, "{:?}", counted(&door));
    wait_for(&door, TrackingState::Tracking);
}

#[test]
fn not_when_redis_stalls_or_is_killed() {
    // What it acknowledged it still has afterwards: else old values were right.
    let options = RedisOptions { durable: true, ..RedisOptions::default() };
    let redis = RedisServer::launch(&options);
    let door = front(&redis);
    let bound = Duration::from_secs(1) + SCHEDULING;
    race(&redis, &door, bound, || {
        redis.pause();
        std::thread::sleep(Duration::from_secs(2));
        redis.resume();
        std::thread::sleep(SHORT);
        redis.kill();
        std::thread::sleep(SHORT);
        redis.revive();
        std::thread::sleep(Duration::from_secs(1));
    });
    wait_for(&door, TrackingState::Tracking);
}

#[test]
fn a_restarted_redis_is_not_answered_for() {
    let redis = RedisServer::start();
    let door = front(&redis);
    let mut client = Client::connect(door.address());
    client.ask("SET k old");
    warm(&door, &mut client, "k");
    redis.restart(AfterRestart::Empty);
    eventually("an answer", || !client.ask("GET k").starts_with('-'));
    assert_eq!(client.ask("GET k"), "$-1\r\n");
}

/// A stalled Redis sends no invalidations: after the bound its silence is
/// noticed, and reads wait for it like everything else.
#[test]
fn silence_ends_answers_from_memory() {
    let redis = RedisServer::start();
    let door = front_with(&redis, |front| front.staleness_max = SHORT);
    wait_for(&door, TrackingState::Tracking);
    let mut client = Client::connect(door.address());
    client.ask("SET k v");
    warm(&door, &mut client, "k");
    redis.pause();
    let paused = Instant::now();
    while counted(&door).tracking == TrackingState::Tracking && paused.elapsed() < SHORT * 2 {
        let before = counted(&door).hits;
        client.send_command(&["GET", "k"]);
        std::thread::sleep(Duration::from_millis(5));
        if counted(&door).hits == before {
            // It went to Redis, which sleeps.
            assert!(paused.elapsed() > Duration::from_millis(50), "memory held before");
            redis.resume();
            while !client.reply().is_empty() {
                if client.received.is_empty() {
                    break;
                }
            }
            return;
        }
        client.reply();
    }
    redis.resume();
    panic!("memory answered for {:?} while Redis slept", paused.elapsed());
}
