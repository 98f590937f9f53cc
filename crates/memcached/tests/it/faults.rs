use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder_core::{ErrorKind, Key, PutCondition, PutOutcome, Store, Verb, Version};
use larder_memcached::{Memcached, MemcachedOptions, MemcachedStore, WhenDead};
use larder_testkit::conformance::{block_on, store::entry};

use crate::support::{TestServer, options, put, servers, version, wait_until, wait_until_async};

fn keys(count: usize) -> Vec<Key> {
    (0..count).map(|n| Key::new(format!("key:{n}"))).collect()
}

async fn client(options: MemcachedOptions) -> Memcached {
    Memcached::connect(options).await.expect("they run")
}

fn dead_count(client: &Memcached) -> usize {
    client.servers().iter().filter(|server| server.is_dead).count()
}

/// A store over three servers that has the value `old` of sixty keys.
struct Filled {
    servers: Vec<TestServer>,
    client: Memcached,
    store: MemcachedStore,
    keys: Vec<Key>,
}

impl Filled {
    async fn new(when_dead: WhenDead, change: impl FnOnce(&mut MemcachedOptions)) -> Self {
        let servers = servers(3);
        let mut options = options(&servers);
        options.when_dead = when_dead;
        change(&mut options);
        let client = client(options).await;
        let store = MemcachedStore::new(&client, "album");
        let keys = keys(60);
        for key in &keys {
            put(&store, &key.to_string(), "old", 1).await;
        }
        Self { servers, client, store, keys }
    }
}

/// The server that does not have the control item, so that the others go on
/// knowing the watermarks.
fn other_than_control(servers: &[TestServer]) -> usize {
    let has = |server: &TestServer| server.ask(b"mg larder:c:album:\r\n").starts_with(b"HD");
    (0..servers.len()).find(|index| !has(&servers[*index])).expect("one has it, the others not")
}

/// Reads and writes go on while a server dies and returns: no call takes long,
/// nothing wrong is read, and its keys come back.
#[test]
fn a_server_that_dies_under_load_and_returns_costs_no_wrong_answer() {
    for when_dead in [WhenDead::Miss, WhenDead::Eject] {
        block_on(async move {
            let servers = Arc::new(servers(3));
            let mut options = options(&servers);
            options.when_dead = when_dead;
            let client = client(options).await;
            let store = Arc::new(MemcachedStore::new(&client, "album"));
            store.marks().await.expect("the first watermarks");
            let keys = Arc::new(keys(200));
            let (stops, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
            let workers: Vec<_> = (0..4_u64)
                .map(|worker| {
                    let (store, keys) = (Arc::clone(&store), Arc::clone(&keys));
                    let (stops, reads) = (Arc::clone(&stops), Arc::clone(&reads));
                    tokio::spawn(async move {
                        let mut round = 0;
                        while !stops.load(Ordering::Relaxed) {
                            round += 1;
                            let entries: Vec<_> = keys
                                .iter()
                                .map(|key| {
                                    (key.clone(), entry(&key.to_string(), round * 4 + worker))
                                })
                                .collect();
                            // Fails for the keys of a server that is dying.
                            let _ = store.put_many(&entries, PutCondition::NewerThanHeld).await;
                            let Ok(read) = store.get_many(&keys).await else { continue };
                            for (key, held) in keys.iter().zip(read) {
                                let value = held.and_then(|held| held.value.as_option().cloned());
                                assert!(
                                    value.is_none_or(|value| value == key.to_string()),
                                    "{key} has another's value"
                                );
                            }
                            reads.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            let victim = other_than_control(&servers);
            let reads_go_on = || {
                let before = reads.load(Ordering::Relaxed);
                wait_until("reads go on", || reads.load(Ordering::Relaxed) > before + 8);
            };
            let watch = tokio::task::block_in_place(|| {
                reads_go_on();
                servers[victim].kill();
                wait_until("it counts as dead", || dead_count(&client) == 1);
                reads_go_on();
                servers[victim].revive();
                wait_until("it is back", || dead_count(&client) == 0);
                reads_go_on();
                servers[victim].statistic("curr_items")
            });
            assert!(watch > 0, "{when_dead:?}: its keys came back to it");
            stops.store(true, Ordering::Relaxed);
            for worker in workers {
                worker.await.expect("nothing wrong was read");
            }
        });
    }
}

/// With `Miss` its keys miss, with `Eject` others have them.
#[test]
fn the_keys_of_a_dead_server_miss_or_move_as_was_chosen() {
    block_on(async {
        for (when_dead, moves) in [(WhenDead::Miss, false), (WhenDead::Eject, true)] {
            let Filled { servers, client, store, keys } = Filled::new(when_dead, |options| {
                // No probe comes in the way.
                options.probe_pauses = (Duration::from_secs(600), Duration::from_secs(600));
            })
            .await;
            let victim = other_than_control(&servers);
            servers[victim].kill();
            wait_until_async("it counts as dead", async || {
                // Reads are answered by the others all the while.
                store.get_many(&keys).await.expect("two servers live");
                dead_count(&client) == 1
            })
            .await;
            let read = store.get_many(&keys).await.expect("two servers live");
            let missing: Vec<&Key> =
                keys.iter().zip(&read).filter(|(_, held)| held.is_none()).map(|(k, _)| k).collect();
            assert!((5..40).contains(&missing.len()), "{} of 60 miss", missing.len());
            let entries: Vec<_> =
                missing.iter().map(|key| ((*key).clone(), entry("new", 2))).collect();
            let outcome = store.put_many(&entries, PutCondition::NewerThanHeld).await;
            if moves {
                assert_eq!(
                    outcome.expect("others stand in"),
                    vec![PutOutcome::Stored; entries.len()]
                );
                let read = store.get_many(&keys).await.expect("two servers live");
                assert!(read.iter().all(Option::is_some));
            } else {
                assert_eq!(outcome.expect_err("nobody has them").kind(), ErrorKind::Unavailable);
            }
        }
    });
}

/// The server lives and keeps its items, but the way to it is cut for a while.
/// What was invalidated meanwhile must not be read once it is back.
#[test]
fn what_was_invalidated_while_a_server_was_out_of_reach_is_dead_when_it_returns() {
    for when_dead in [WhenDead::Miss, WhenDead::Eject] {
        block_on(async move {
            let Filled { servers, client, store, keys } = Filled::new(when_dead, |options| {
                options.response_timeout = Duration::from_millis(300);
                options.connect_timeout = Duration::from_millis(600);
            })
            .await;
            let victim = other_than_control(&servers);
            servers[victim].pause();
            wait_until_async("it counts as dead", async || {
                let _ = store.get_many(&keys).await;
                dead_count(&client) == 1
            })
            .await;
            let result = store.invalidate_many(&keys, Version::new(5), Verb::Remove).await;
            assert_eq!(result.is_ok(), when_dead == WhenDead::Eject, "{result:?}");
            assert!(store.owed_count() > 0);
            servers[victim].resume();
            wait_until_async("it is back", async || {
                let _ = store.get_many(&keys).await;
                dead_count(&client) == 0
            })
            .await;
            let read = wait_for_answers(&store, &keys).await;
            assert_eq!(read.iter().flatten().count(), 0, "{when_dead:?}");
            assert_eq!(store.owed_count(), 0);
            for key in &keys {
                let late = [(key.clone(), entry("late", 4))];
                let outcome = store.put_many(&late, PutCondition::NewerThanHeld).await;
                assert!(matches!(outcome.expect("a put")[..], [PutOutcome::Refused(_)]), "{key}");
            }
        });
    }
}

async fn wait_for_answers(
    store: &MemcachedStore,
    keys: &[Key],
) -> Vec<Option<larder_core::StoredEntry>> {
    let mut answers = Vec::new();
    wait_until_async("what is owed is made good", async || {
        answers = store.get_many(keys).await.unwrap_or_default();
        !answers.is_empty() && store.owed_count() == 0
    })
    .await;
    answers
}

/// A caller that leaves, by a deadline of its own, may have cut an invalidation
/// in half: it is made good by whoever comes next.
#[test]
fn an_invalidation_whose_caller_left_is_made_good() {
    block_on(async {
        let servers = servers(1);
        let client = client(options(&servers)).await;
        let store = MemcachedStore::new(&client, "album");
        put(&store, "k", "old", 1).await;
        servers[0].pause();
        let keys = [Key::new("k")];
        let left = store.invalidate_many(&keys, Version::new(5), Verb::Remove);
        let left = tokio::time::timeout(Duration::from_millis(50), left).await;
        assert!(left.is_err(), "nobody answered");
        assert_eq!(store.owed_count(), 1);
        servers[0].resume();
        assert_eq!(version(&store, "k").await, None);
        assert_eq!(store.owed_count(), 0);
    });
}

#[test]
fn a_server_that_stands_still_fails_calls_in_time_and_then_at_once() {
    block_on(async {
        let servers = servers(1);
        let mut options = options(&servers);
        options.response_timeout = Duration::from_millis(200);
        options.connect_timeout = Duration::from_millis(200);
        let client = client(options).await;
        let store = MemcachedStore::new(&client, "album");
        put(&store, "k", "value", 1).await;
        servers[0].pause();
        let began = Instant::now();
        let error = store.get(&Key::new("k")).await.expect_err("it stands still");
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        wait_until_async("it counts as dead", async || {
            let _ = store.get(&Key::new("k")).await;
            dead_count(&client) == 1
        })
        .await;
        let began = Instant::now();
        for _ in 0..1_000 {
            let error = store.get(&Key::new("k")).await.expect_err("it is dead");
            assert_eq!(error.kind(), ErrorKind::Unavailable);
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        servers[0].resume();
        wait_until("it is back", || dead_count(&client) == 0);
        assert_eq!(version(&store, "k").await, Some(1));
    });
}

/// A restart empties the server, and the connection from before is gone: the
/// next call may fail, and then everything is as in the beginning.
#[test]
fn a_restarted_server_is_used_again() {
    block_on(async {
        let servers = servers(1);
        let client = client(options(&servers)).await;
        let store = MemcachedStore::new(&client, "album");
        put(&store, "k", "value", 1).await;
        servers[0].kill();
        servers[0].revive();
        wait_until_async("it is used again", async || store.get(&Key::new("k")).await.is_ok())
            .await;
        assert_eq!(version(&store, "k").await, None);
        put(&store, "k", "value", 1).await;
        assert_eq!(version(&store, "k").await, Some(1));
    });
}

#[test]
fn a_client_that_connects_lazily_needs_no_server_before_it_is_used() {
    block_on(async {
        let servers = servers(1);
        servers[0].kill();
        let client = Memcached::connect_lazily(options(&servers)).expect("options are right");
        let store = MemcachedStore::new(&client, "album");
        assert!(store.get(&Key::new("k")).await.is_err());
        servers[0].revive();
        wait_until_async("it is found", async || store.get(&Key::new("k")).await.is_ok()).await;
    });
}
