//! Stores that have not heard of everything: after a restart, while they cannot
//! be reached, and when a call ends halfway.

use larder::{Cache, JsonCodec, LoadContext, Loaded, ManualClock, Origin, Result, Stores};
use larder_testkit::faulty::{FaultyStore, Gate, StoreFault};

use crate::support::*;

/// Nine, and "not modified" of what is held.
struct Nines;

impl Origin<String, i64> for Nines {
    async fn load(&self, _: &String, context: &LoadContext) -> Result<Loaded<i64>> {
        Ok(if context.held.is_some() { Loaded::not_modified() } else { Loaded::value(9) })
    }
}

#[tokio::test]
async fn what_is_removed_by_tag_while_a_store_is_asked_is_not_renewed() {
    let clock = ManualClock::new();
    clock.advance(MINUTE * 600);
    let store = FaultyStore::new(clock.clone()).local();
    let users = Cache::<String, i64>::builder("user")
        .origin(Nines)
        .policy(plain().stale_if_error(MINUTE))
        .clock(clock.clone())
        .stores(Stores::new(JsonCodec).store("store", store.clone()))
        .build()
        .expect("a coherent cache");
    users.put(&ann(), 7).tags(["people"]).ttl(SECOND).await.expect("it is put");
    clock.advance(SECOND * 2);
    let gate = Gate::new();
    store.script([StoreFault::Held(gate.clone())]);
    let reader = tokio::spawn({
        let users = users.clone();
        async move { users.get_or_load(&ann()).await }
    });
    gate.wait_for_arrivals(1).await;
    users.remove_tag("people").await.expect("it is removed");
    gate.open();
    let hit = reader.await.expect("it ends").expect("it is loaded");
    assert_eq!(hit.value(), Some(&9));
}
