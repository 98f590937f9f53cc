//! What a reader sees of writes that wait.

use larder::PendingBase;
use larder_core::{Action, Expected, Key, Write};
use larder_testkit::conformance::block_on;
use larder_testkit::faulty::{Gate, WriteAnswer};

use super::{CACHE, World, add, text};

#[test]
fn a_key_is_pending_until_its_last_write_is_applied() {
    block_on(async {
        let world = World::new().await;
        let key = Key::new("ann");
        let pending = || world.behind.pending(CACHE, &key);
        world.settle("it runs", |_| true).await;
        assert!(pending().is_none());
        world.add("ann", 2).await.expect("accepted");
        world.add("ann", 3).await.expect("accepted");
        let seen = pending().expect("it waits");
        assert_eq!(seen.base, PendingBase::Origin);
        assert_eq!(seen.changes, [add("ann", 5).action]);
        world.put("ann", "1").await.expect("accepted");
        world.add("ann", 7).await.expect("accepted");
        let seen = pending().expect("it waits");
        assert_eq!(seen.base, PendingBase::Value(text("1")));
        assert_eq!(seen.changes, [add("ann", 7).action]);
        world.write(Write::new(key.clone(), Action::Remove)).await.expect("accepted");
        assert_eq!(pending().expect("it waits").base, PendingBase::Absent);
        world.flush().await;
        assert!(pending().is_none());
        assert_eq!(world.value("ann"), None);
    });
}

#[test]
fn what_is_on_its_way_is_said_to_be_and_what_is_applied_is_not_counted_again() {
    block_on(async {
        let world = World::new().await;
        let key = Key::new("ann");
        world.table.set(key.clone(), "1");
        let gate = Gate::new();
        world.table.script([WriteAnswer::Held(gate.clone(), Box::new(WriteAnswer::Commit))]);
        world.add("ann", 2).await.expect("accepted");
        let flushed = tokio::spawn({
            let behind = world.behind.clone();
            async move { behind.flush().await }
        });
        gate.wait_for_arrivals(1).await;
        world.add("ann", 3).await.expect("accepted");
        let seen = world.behind.pending(CACHE, &key).expect("it waits");
        assert!(seen.applying && seen.changes == [add("ann", 5).action], "{seen:?}");
        gate.open();
        flushed.await.expect("it ends").expect("it is applied");
        world
            .settle("the batch is done", |world| {
                world.behind.pending(CACHE, &key).is_some_and(|seen| !seen.applying)
            })
            .await;
        let seen = world.behind.pending(CACHE, &key).expect("the second waits");
        assert_eq!((seen.base, seen.changes), (PendingBase::Origin, vec![add("ann", 3).action]));
        assert_eq!(world.total("ann"), Some(2));
    });
}

#[test]
fn a_write_that_may_fail_is_not_certain() {
    block_on(async {
        let world = World::new().await;
        let key = Key::new("ann");
        world.put("ann", "0").await.expect("accepted");
        world.flush().await;
        let put = Write::new(key.clone(), Action::Put(text("1"))).expecting(Expected::Absent);
        world.write(put).await.expect("accepted");
        assert!(!world.behind.pending(CACHE, &key).expect("it waits").certain);
        world.put("ann", "2").await.expect("accepted");
        assert!(world.behind.pending(CACHE, &key).expect("it waits").certain);
    });
}
