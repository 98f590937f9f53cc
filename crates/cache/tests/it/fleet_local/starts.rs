//! What a process finds in its store when it starts.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_process_that_starts_again_is_warm_and_hears_what_it_missed() {
    for is_killed in [false, true] {
        let world = World::new(plain());
        let other = world.other().await;
        let process = world.start().await;
        process.caught_up().await;
        for number in 0..8 {
            assert_eq!(process.read(&user(number)).await, (1, Tier::Origin));
        }
        process.pass(A_WHILE).await;
        match is_killed {
            true => process.kill(),
            false => process.stop().await,
        }
        for number in 0..8 {
            world.origin.set(user(number), 2);
        }
        other.users.remove(&user(0)).await.expect("it is announced");
        other.users.expire(&user(1)).await.expect("it is announced");
        other.users.remove_tag(team(&user(2))).await.expect("it is announced");
        other.users.expire_tag(team(&user(4))).await.expect("it is announced");
        let process = world.start().await;
        process.caught_up().await;
        for number in 0..8 {
            let expected = if number < 6 { (2, Tier::Origin) } else { (1, Tier::Store(0)) };
            assert_eq!(process.read(&user(number)).await, expected, "{number}, {is_killed}");
        }
        process.pass(A_WHILE).await;
        process.stop().await;
        other.users.clear().await.expect("it is announced");
        let process = world.start().await;
        process.caught_up().await;
        assert_eq!(process.read(&user(7)).await, (2, Tier::Origin));
    }
}

/// Nobody says what was invalidated: what is older is loaded anew, and stands in
/// for an origin that fails.
#[tokio::test(start_paused = true)]
async fn what_the_bus_does_not_know_any_more_is_in_doubt() {
    type Lose = fn(&World);
    let ways: [(&str, Lose); 2] = [
        ("trimmed", |world| world.bus.trim()),
        ("another epoch", |world| world.bus.change_epoch()),
    ];
    for (way, lose) in ways {
        let world = World::new(plain().stale_if_error(MINUTE).stale_while_revalidate(MINUTE));
        let other = world.other().await;
        let process = world.start().await;
        process.caught_up().await;
        for number in 0..3 {
            process.read(&user(number)).await;
        }
        process.pass(A_WHILE).await;
        process.stop().await;
        other.users.remove(&user(0)).await.expect("it is announced");
        (0..3).for_each(|number| world.origin.set(user(number), 2));
        lose(&world);
        // Also when it is started more than once before anybody reads.
        let process = world.start().await;
        process.caught_up().await;
        process.pass(A_WHILE).await;
        process.kill();
        let process = world.start().await;
        process.caught_up().await;
        world.origin.script([Answer::unavailable()]);
        let hit = process.users.get_or_load(&user(2)).await.expect("it is better than nothing");
        assert_eq!(stale_reason(&hit), Some(StaleReason::OriginFailed), "{way}");
        for number in 0..3 {
            assert_eq!(process.read(&user(number)).await, (2, Tier::Origin), "{way}, {number}");
        }
        let statistics = &process.users.stores()[0];
        assert_eq!(statistics.suspects, 4, "{way}: {statistics:?}");
        // What is there from now on is as good as any.
        process.pass(A_WHILE).await;
        process.stop().await;
        let process = world.start().await;
        process.caught_up().await;
        assert_eq!(process.read(&user(1)).await, (2, Tier::Store(0)), "{way}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_heard_of_the_bus_is_in_doubt_and_numbers_go_on_above_it() {
    let world = World::new(plain());
    // From when there was one process.
    let alone = Cache::<String, i64>::builder("user")
        .origin(world.origin.clone())
        .policy(plain())
        .stores(Stores::new(JsonCodec).store("disk", world.disk.clone()))
        .build()
        .expect("a coherent cache");
    for _ in 0..50 {
        alone.remove(&ann()).await.expect("it is removed");
    }
    alone.get_or_load(&ann()).await.expect("it is answered");
    drop(alone);
    world.origin.set(ann(), 2);
    let process = world.start().await;
    process.caught_up().await;
    assert_eq!(process.read(&ann()).await, (2, Tier::Origin));
    let newest = Store::newest_version(&process.store).await.expect("it answers");
    let change = process.users.clear().await.expect("it is announced");
    assert!(change > Version::new(50) && change > newest, "{change} after {newest}");
    // Above what is there, although nobody else knows of it.
    process.read(&ann()).await;
    process.pass(A_WHILE).await;
    process.stop().await;
    let process = world.start().await;
    process.caught_up().await;
    assert_eq!(process.read(&ann()).await, (2, Tier::Store(0)));
}

/// Not read before it has heard, and not waited for beyond the first attempt.
#[tokio::test(start_paused = true)]
async fn without_the_bus_a_store_is_not_read_and_with_it_it_is_again() {
    let world = World::new(plain());
    let other = world.other().await;
    let process = world.start().await;
    process.caught_up().await;
    process.read(&user(0)).await;
    process.read(&user(1)).await;
    process.pass(A_WHILE).await;
    process.stop().await;
    world.origin.set(user(0), 2);
    other.users.remove(&user(0)).await.expect("it is announced");
    let bus = world.bus.join();
    bus.stall();
    let process = world.start_at(bus.clone()).await;
    assert_eq!(process.read(&user(0)).await, (2, Tier::Origin));
    assert!(!process.users.until_caught_up(Duration::ZERO).await);
    world.origin.set(user(0), 3);
    other.users.remove(&user(0)).await.expect("it is announced");
    bus.resume();
    process.caught_up().await;
    process.pass(A_WHILE).await;
    assert_eq!(process.read(&user(0)).await, (3, Tier::Origin));
    assert_eq!(process.read(&user(1)).await, (1, Tier::Store(0)), "it is valid, and was here");
}

/// A store that hears nothing knows no more than memory.
#[tokio::test(start_paused = true)]
async fn without_a_sign_of_life_the_store_is_not_read_either() {
    let world = World::new(plain());
    let other = world.other().await;
    let process = world.start().await;
    process.caught_up().await;
    process.read(&user(0)).await;
    process.pass(A_WHILE).await;
    process.bus.stall();
    process.users.inspect(&user(0)).expect("it is in memory");
    world.origin.set(user(0), 2);
    other.users.remove(&user(0)).await.expect("it is announced");
    process.pass(BOUND + Duration::from_millis(100)).await;
    assert_eq!(process.read(&user(0)).await, (2, Tier::Origin));
    process.bus.resume();
    process.pass(A_WHILE).await;
    process.read(&user(0)).await;
    assert_eq!(process.read(&user(0)).await, (2, Tier::Memory));
}

/// What is noted is never ahead of what the store was told.
#[tokio::test(start_paused = true)]
async fn a_place_is_noted_only_once_the_store_was_told_of_all_before_it() {
    let world = World::new(plain());
    let other = world.other().await;
    let process = world.start().await;
    process.caught_up().await;
    process.read(&user(0)).await;
    process.pass(A_WHILE).await;
    let place = async || Store::heard(&world.disk).await.expect("it answers");
    let before = place().await.expect("it was noted");
    let gate = Gate::new();
    world.disk.script([StoreFault::Held(gate.clone())]);
    other.users.remove(&user(0)).await.expect("it is announced");
    gate.wait_for_arrivals(1).await;
    // Noting tells it once more, and that is refused.
    world.disk.script(vec![StoreFault::Refused; 3]);
    process.pass(Duration::from_millis(600)).await;
    assert_eq!(place().await, Some(before));
    process.store.end_process();
    gate.open();
    world.origin.set(user(0), 2);
    world.disk.script(vec![StoreFault::None; 0]);
    let process = world.start().await;
    process.caught_up().await;
    assert_eq!(process.read(&user(0)).await, (2, Tier::Origin), "it is told by the replay");
    process.pass(A_WHILE).await;
    let after = place().await.expect("it is noted");
    assert_eq!(
        after.position,
        BusPosition { sequence: before.position.sequence + 1, ..before.position }
    );
}

/// Without traffic nothing is written.
#[tokio::test(start_paused = true)]
async fn a_place_that_is_known_is_not_noted_again() {
    let world = World::new(plain());
    let process = world.start().await;
    process.caught_up().await;
    process.pass(A_WHILE).await;
    let calls = world.disk.calls_count();
    process.pass(A_WHILE * 3).await;
    assert_eq!(world.disk.calls_count(), calls);
}

/// Of a process that has missed something, too, the store is in doubt, and stays so
/// when it starts again.
#[tokio::test(start_paused = true)]
async fn what_a_running_process_misses_its_store_has_missed() {
    let world = World::new(plain());
    let other = world.other().await;
    let process = world.start().await;
    process.caught_up().await;
    process.read(&user(0)).await;
    process.pass(A_WHILE).await;
    process.bus.lose(1);
    other.users.remove(&user(0)).await.expect("it is announced");
    world.origin.set(user(0), 2);
    process.pass(A_WHILE).await;
    process.kill();
    let process = world.start().await;
    process.caught_up().await;
    assert_eq!(process.read(&user(0)).await, (2, Tier::Origin));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_note_how_far_it_has_heard_is_in_doubt_at_every_start() {
    struct Forgetful(FaultyStore);
    impl Store for Forgetful {
        fn capabilities(&self) -> Capabilities {
            Store::capabilities(&self.0)
        }
        async fn get_many(
            &self,
            keys: &[larder::Key],
        ) -> larder::Result<Vec<Option<larder_core::StoredEntry>>> {
            self.0.get_many(keys).await
        }
        async fn put_many(
            &self,
            entries: &[(larder::Key, larder_core::StoredEntry)],
            condition: larder_core::PutCondition,
        ) -> larder::Result<Vec<larder_core::PutOutcome>> {
            self.0.put_many(entries, condition).await
        }
        async fn invalidate_many(
            &self,
            keys: &[larder::Key],
            at: Version,
            verb: larder_core::Verb,
        ) -> larder::Result<()> {
            self.0.invalidate_many(keys, at, verb).await
        }
        async fn mark(&self, marks: &[larder_core::Mark]) -> larder::Result<()> {
            self.0.mark(marks).await
        }
        async fn marks(&self) -> larder::Result<Vec<larder_core::Mark>> {
            self.0.marks().await
        }
        async fn newest_version(&self) -> larder::Result<Version> {
            Store::newest_version(&self.0).await
        }
    }
    let world = World::new(plain());
    let mut tiers = Vec::new();
    for _ in 0..2 {
        let fleet = Fleet::join(Arc::new(world.bus.join()), FleetOptions::default()).await;
        let (fleet, clock) = (fleet.expect("it joins"), ManualClock::new());
        let stores = Stores::new(JsonCodec).store("own", Forgetful(world.disk.opened_again()));
        let users = world.cache(&fleet, &clock).stores(stores).build().expect("a coherent cache");
        assert!(users.until_caught_up(MINUTE).await);
        tiers.push(users.get_or_load(&ann()).await.expect("it is answered").tier());
    }
    assert_eq!(tiers, [Tier::Origin; 2]);
    let heard: Option<HeardUpTo> = Store::heard(&world.disk).await.expect("it answers");
    assert_eq!(heard, None);
}

/// A bus whose subscriptions end when told.
#[derive(Clone)]
struct Ending(FaultyBus, Arc<tokio::sync::Notify>);

struct EndingEar(<FaultyBus as Bus>::Subscription, Arc<tokio::sync::Notify>);

impl Bus for Ending {
    type Subscription = EndingEar;

    async fn publish(
        &self,
        announcement: &Announcement,
        after: Version,
    ) -> larder::Result<larder_core::Published> {
        Bus::publish(&self.0, announcement, after).await
    }

    async fn subscribe(
        &self,
        after: Option<BusPosition>,
        known: Version,
    ) -> larder::Result<EndingEar> {
        Ok(EndingEar(Bus::subscribe(&self.0, after, known).await?, Arc::clone(&self.1)))
    }
}

impl Subscription for EndingEar {
    async fn next(&mut self) -> Option<BusEvent> {
        tokio::select! {
            biased;
            () = self.1.notified() => None,
            event = self.0.next() => event,
        }
    }
}

/// Between two subscriptions nobody listens.
#[tokio::test(start_paused = true)]
async fn what_is_said_while_the_process_does_not_listen_is_heard_by_its_store() {
    let world = World::new(plain());
    let other = world.other().await;
    let bus = Ending(world.bus.join(), Arc::default());
    let fleet = Fleet::join(Arc::new(bus.clone()), FleetOptions::default()).await;
    let (fleet, clock, store) = (fleet.expect("it joins"), ManualClock::new(), &world.disk);
    clock.advance(MINUTE);
    let stores = Stores::new(JsonCodec).store("disk", store.clone());
    let users = world.cache(&fleet, &clock).stores(stores).build().expect("a coherent cache");
    let bus_of_process = world.bus.join();
    let process = Process { users, fleet, bus: bus_of_process, store: store.clone(), clock };
    process.caught_up().await;
    process.read(&user(0)).await;
    process.read(&user(2)).await;
    process.pass(A_WHILE).await;
    // Nothing runs between the two: what is announced here is heard by neither.
    bus.1.notify_one();
    world.origin.set(user(0), 2);
    other.users.remove(&user(0)).await.expect("it is announced");
    process.pass(A_WHILE).await;
    process.caught_up().await;
    assert_eq!(process.read(&user(0)).await, (2, Tier::Origin));
    assert_eq!(process.read(&user(2)).await, (1, Tier::Store(0)), "it is valid still");
}
