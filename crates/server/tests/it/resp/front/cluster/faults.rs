//! A slot moves and a primary dies while clients read and write: nobody reads a
//! value that is too old, and errors are those that were declared.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use larder_testkit::redis::{Cluster, RedisOptions};

use super::super::coherence::SCHEDULING;
use super::{Client, counted, front_of, key_of, wait_until_tracked};

const KEYS_EACH: usize = 3;

/// What clients may be told while the cluster is not whole.
const DECLARED: [&str; 4] = ["-UNAVAILABLE", "-CLUSTERDOWN", "-TRYAGAIN", "-LOADING"];

struct Race {
    cluster: Cluster,
    keys: Vec<String>,
    acknowledged: Vec<AtomicU64>,
    is_over: AtomicBool,
    reads: AtomicU64,
    errors: AtomicU64,
    undeclared: Mutex<Option<String>>,
}

#[test]
#[allow(clippy::print_stdout, reason = "the times are part of the proof")]
fn no_move_of_a_slot_and_no_death_of_a_primary_shows_an_old_value() {
    let cluster = Cluster::launch(&RedisOptions::default());
    let door = front_of(&cluster);
    let keys: Vec<_> = (0..3)
        .flat_map(|place| {
            (0..KEYS_EACH).map(move |number| format!("{{{}}}{number}", key_of(place)))
        })
        .collect();
    let race = Arc::new(Race {
        acknowledged: keys.iter().map(|_| AtomicU64::new(0)).collect(),
        keys,
        cluster,
        is_over: AtomicBool::new(false),
        reads: AtomicU64::new(0),
        errors: AtomicU64::new(0),
        undeclared: Mutex::default(),
    });
    let address = door.address();
    let mut threads = vec![spawn(&race, move |race| write(race, address))];
    for _ in 0..3 {
        threads.push(spawn(&race, move |race| read(race, address)));
    }
    std::thread::sleep(Duration::from_millis(500));
    let moved = time(|| {
        let slot = Cluster::slot(race.keys[0].as_bytes());
        race.cluster.migrate_slot(slot, 1);
        wait_for_write(address, &race.keys[0]);
    });
    std::thread::sleep(Duration::from_millis(500));
    let victim = &race.keys[KEYS_EACH * 2];
    let killed = race.cluster.kill_primary(Cluster::slot(victim.as_bytes()));
    let died = time(|| wait_for_write(address, victim));
    race.cluster.wait_until_ready();
    wait_until_tracked(&door, 3);
    std::thread::sleep(Duration::from_millis(500));
    race.cluster.servers()[killed].revive();
    race.cluster.wait_until_ready();
    std::thread::sleep(Duration::from_millis(500));
    race.is_over.store(true, Ordering::Release);
    for thread in threads {
        thread.join().expect("no reader read an old value");
    }
    let counted = counted(&door);
    let reads = race.reads.load(Ordering::Relaxed);
    let errors = race.errors.load(Ordering::Relaxed);
    println!(
        "slot moved: {moved:.0?} until it could be written; primary killed: {died:.0?}; {reads} \
         reads, none too old, {errors} declared errors; {:.0} % from memory, {} redirections",
        100.0 * counted.hits as f64 / (counted.hits + counted.misses).max(1) as f64,
        counted.redirections,
    );
    let undeclared = race.undeclared.lock().expect("no thread panicked").take();
    assert_eq!(undeclared, None, "an error that was not declared");
    assert!(reads > 1000 && counted.hits > 0 && counted.redirections > 0, "{counted:?}");
}

fn time(what: impl FnOnce()) -> Duration {
    let began = Instant::now();
    what();
    began.elapsed()
}

fn spawn(
    race: &Arc<Race>,
    run: impl FnOnce(&Race) + Send + 'static,
) -> std::thread::JoinHandle<()> {
    let race = Arc::clone(race);
    std::thread::spawn(move || run(&race))
}

fn wait_for_write(address: std::net::SocketAddr, key: &str) {
    let mut client = Client::connect(address);
    super::eventually("a write", || client.ask(&format!("SET {key}:other x")) == "+OK\r\n");
}

/// Writes rising numbers: through Larder and past it, one turn each.
fn write(race: &Race, address: std::net::SocketAddr) {
    let mut through = Client::connect(address);
    for number in 1.. {
        if race.is_over.load(Ordering::Acquire) {
            return;
        }
        let place = number as usize % race.keys.len();
        let key = &race.keys[place];
        let is_written = if (number as usize / race.keys.len()).is_multiple_of(2) {
            race.note(&through.ask(&format!("SET {key} {number}")))
        } else {
            write_past(race, key, number)
        };
        // A primary that dies takes with it what its replica has not.
        if is_written && is_replicated(race) {
            race.acknowledged[place].store(number, Ordering::Release);
        }
    }
}

fn write_past(race: &Race, key: &str, number: u64) -> bool {
    let slot = Cluster::slot(key.as_bytes());
    let server = race.cluster.primary_of(slot);
    let command = ["SET", key, &number.to_string()];
    server.try_command(&command).is_ok_and(|reply| !reply.is_error())
}

/// Whether every primary's replica has all that was written so far.
fn is_replicated(race: &Race) -> bool {
    (0..3).all(|place| {
        let key = format!("{}:barrier", key_of(place));
        let server = race.cluster.primary_of(Cluster::slot(key.as_bytes()));
        let Ok(mut connection) = server.connect() else { return false };
        let is_set =
            connection.call(&["SET", key.as_str(), "x"]).is_ok_and(|reply| !reply.is_error());
        let waited = connection.call(&["WAIT", "1", "200"]);
        is_set && waited.is_ok_and(|reply| !reply.is_error() && reply.integer() >= 1)
    })
}

fn read(race: &Race, address: std::net::SocketAddr) {
    let mut client = Client::connect(address);
    let mut known: Vec<VecDeque<(u64, Instant)>> = vec![VecDeque::new(); race.keys.len()];
    let bound = Duration::from_secs(1) + SCHEDULING;
    for turn in 0.. {
        if race.is_over.load(Ordering::Acquire) {
            return;
        }
        let place = turn % race.keys.len();
        let newest = race.acknowledged[place].load(Ordering::Acquire);
        let asked = Instant::now();
        let known = &mut known[place];
        if known.back().is_none_or(|(number, _)| *number < newest) {
            known.push_back((newest, asked));
        }
        let reply = client.ask(&format!("GET {}", race.keys[place]));
        if !race.note(&reply) {
            continue;
        }
        let found: u64 = reply.lines().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
        while known.len() > 1 && known[0].0 <= found {
            known.pop_front();
        }
        if let Some((number, since)) = known.iter().find(|(number, _)| *number > found) {
            let age = asked.duration_since(*since);
            assert!(age <= bound, "read {found}, though {number} was acknowledged {age:?} before");
        }
        race.reads.fetch_add(1, Ordering::Relaxed);
    }
}

impl Race {
    /// Whether this is no error; those that are declared are counted.
    fn note(&self, reply: &str) -> bool {
        if !reply.starts_with('-') {
            return true;
        }
        if DECLARED.iter().any(|code| reply.starts_with(code)) {
            self.errors.fetch_add(1, Ordering::Relaxed);
        } else {
            *self.undeclared.lock().expect("no thread panicked") = Some(reply.to_owned());
        }
        std::thread::sleep(Duration::from_millis(5));
        false
    }
}

/// A primary that stands still is replaced, and does not know when it goes on.
#[test]
fn a_primary_that_slept_is_not_believed() {
    let cluster = Cluster::start();
    let door = front_of(&cluster);
    let mut client = Client::connect(door.address());
    let key = key_of(1);
    client.ask(&format!("SET {key} old"));
    super::warm(&door, &mut client, &key);
    let slot = Cluster::slot(key.as_bytes());
    let sleeper = cluster.place_of(slot);
    cluster.servers()[sleeper].pause();
    super::eventually("another primary", || {
        let awake = cluster.servers().iter().find(|server| server.is_awake());
        let view = awake.expect("five run").command(&["CLUSTER", "SLOTS"]);
        let old = i64::from(cluster.servers()[sleeper].address().port());
        let owner = view.items().iter().find_map(|range| match range.items() {
            [first, last, primary, ..]
                if (first.integer()..=last.integer()).contains(&i64::from(slot)) =>
            {
                Some(primary.items()[1].integer())
            }
            _ => None,
        });
        owner.is_some_and(|owner| owner != old)
    });
    cluster.wait_until_ready();
    cluster.primary_of(slot).command(&["SET", &key, "new"]);
    let mut check = |how_long: Duration| {
        let (began, mut answers) = (Instant::now(), 0);
        while began.elapsed() < how_long {
            let reply = client.ask(&format!("GET {key}"));
            assert_ne!(reply, "$3\r\nold\r\n", "{:?} after it was overwritten", began.elapsed());
            answers += u32::from(reply == "$3\r\nnew\r\n");
        }
        answers
    };
    check(Duration::from_millis(300));
    cluster.servers()[sleeper].resume();
    assert!(check(Duration::from_secs(2)) > 0, "the new one answers");
    cluster.wait_until_ready();
    super::eventually("the new value", || {
        Client::connect(door.address()).ask(&format!("GET {key}")) == "$3\r\nnew\r\n"
    });
}
