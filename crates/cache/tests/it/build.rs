//! Incoherent options are refused when a cache is built or changed (C6).

use larder::{Cache, ErrorKind, JsonCodec, Memory, Policy, Stores};
use larder_testkit::faulty::FaultyStore;

use crate::support::*;

#[tokio::test]
async fn an_incoherent_policy_is_refused_and_the_old_one_stays() {
    let world = world(plain());
    let error = world.users.set_policy(plain().sliding(true)).expect_err("no bound");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("max_age"), "it names the remedy: {error}");
    assert_eq!(*world.users.policy(), plain());
    world.users.set_policy(Policy::ttl(SECOND)).expect("coherent");
    assert_eq!(world.hit().await.fresh_for().map(|left| left <= SECOND), Some(true));
}

#[tokio::test]
async fn a_cache_of_nothing_is_refused() {
    let error = Cache::<String, i64>::builder("user").memory(Memory::entries(0)).build();
    assert!(error.expect_err("refused").to_string().contains("budget of zero"));
}

/// What memory drops as idle would come back from a store.
#[tokio::test]
async fn an_idle_ttl_that_stores_would_defeat_is_refused() {
    let build = |stores| {
        let policy = plain().idle_ttl(SECOND);
        Cache::<String, i64>::builder("user").stores(stores).policy(policy).build()
    };
    let store = FaultyStore::new(larder::Clock::monotonic()).local();
    let refused = build(Stores::new(JsonCodec).store("below", store));
    let error = refused.expect_err("the store knows nothing of it");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("idle TTL holds in memory alone"), "{error}");
    let remedy = error.remedy_text().expect("there is one");
    assert!(remedy.contains("leave idle_ttl out") && remedy.contains("max_age"), "{remedy}");
    build(Stores::new(JsonCodec)).expect("there are none after all");
    // Nor later.
    let store = FaultyStore::new(larder::Clock::monotonic()).local();
    let stores = Stores::new(JsonCodec).store("below", store);
    let users = Cache::<String, i64>::builder("user").stores(stores).policy(plain()).build();
    let refused = users.expect("a coherent cache").set_policy(plain().idle_ttl(SECOND));
    assert_eq!(refused.expect_err("the store knows nothing of it").kind(), ErrorKind::Config);
}

#[test]
fn outside_a_runtime_memory_works_and_a_load_says_what_is_missing() {
    let users = Cache::<String, i64>::builder("user").policy(plain()).build().expect("coherent");
    let ready = |future| futures_executor(future);
    ready(Box::pin(async {
        users.put(&ann(), 1).await.expect("put");
        assert!(users.get_memory("ann").is_some());
        let load = || async { Ok::<_, std::io::Error>(1) };
        let error = users.get_or_load_with(&"bob".to_owned(), load).await.expect_err("no runtime");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("runtime"), "{error}");
    }));
}

/// Polls a future that never waits.
fn futures_executor(mut future: std::pin::Pin<Box<dyn Future<Output = ()> + '_>>) {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(future.as_mut().poll(&mut context).is_ready());
}

fn runtime(with_timer: bool) -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    if with_timer {
        builder.enable_all();
    }
    builder.build().expect("a runtime")
}

#[test]
fn a_runtime_without_a_timer_is_refused() {
    let bare = runtime(false);
    let build = || Cache::<String, i64>::builder("user").policy(plain());
    let built = build().runtime(bare.handle().clone()).build();
    assert!(built.expect_err("refused").to_string().contains("enable_time"));
    let users = build().build().expect("it has no runtime yet");
    let load = || async { Ok::<_, std::io::Error>(1) };
    let loaded = bare.block_on(async { users.get_or_load_with(&ann(), load).await.map(|_| ()) });
    assert!(loaded.expect_err("refused").to_string().contains("enable_time"));
}

#[test]
fn a_cache_outlives_the_runtime_that_it_was_built_on() {
    let one = runtime(true);
    let build = || Cache::<String, i64>::builder("user").policy(plain()).build();
    let users = one.block_on(async { build() }).expect("coherent");
    drop(one);
    let load = || async { Ok::<_, std::io::Error>(1) };
    let two = runtime(true);
    let hit = two.block_on(async { users.get_or_load_with(&ann(), load).await });
    assert_eq!(hit.expect("loaded on the runtime of the reader").into_value(), Some(1));
    futures_executor(Box::pin(async {
        let bob = "bob".to_owned();
        let error = users.get_or_load_with(&bob, load).await.expect_err("there is none here");
        assert!(error.to_string().contains("has ended"), "{error}");
    }));
}

#[tokio::test]
async fn a_budget_of_bytes_that_is_accepted_keeps_something() {
    let build = |bytes| {
        Cache::<String, i64>::builder("user").memory(Memory::bytes(bytes)).policy(plain()).build()
    };
    let mut refused = 0;
    for kibibytes in 1..64 {
        match build(kibibytes * larder::KIB) {
            Ok(users) => {
                users.put(&ann(), 1).await.expect("put");
                assert!(users.get_memory("ann").is_some(), "{kibibytes} KiB keep nothing");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Config);
                assert!(error.remedy_text().is_some_and(|text| text.contains("at least")));
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && refused < 63, "{refused} of 63");
}
