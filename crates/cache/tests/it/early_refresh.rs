//! Refreshing before expiry (P5, R3).

use larder::Freshness;
use larder_testkit::faulty::Answer;

use crate::support::*;

#[tokio::test]
async fn refresh_ahead_begins_at_its_share_of_the_ttl_and_nobody_waits() {
    let world = world(plain().refresh_ahead(0.8));
    world.read().await;
    world.origin.set(ann(), 2);
    world.clock.advance(SECOND * 47);
    assert_eq!(world.read().await, Some(1));
    assert_eq!(world.loads(), 1);
    world.clock.advance(SECOND);
    let hit = world.hit().await;
    assert_eq!((hit.freshness(), hit.value()), (Freshness::Fresh, Some(&1)));
    world
        .settle("the refresh landed", |world| {
            world.loads() == 2 && world.users.statistics().loads_in_flight == 0
        })
        .await;
    assert_eq!(world.read().await, Some(2));
    world.clock.advance(SECOND * 47);
    assert_eq!(world.read().await, Some(2), "the TTL began anew");
    assert_eq!(world.loads(), 2);
}

#[tokio::test]
async fn a_failed_refresh_ahead_costs_nobody_anything() {
    let world = world(plain().refresh_ahead(0.5));
    world.read().await;
    world.clock.advance(SECOND * 40);
    world.origin.script([Answer::unavailable()]);
    assert!(world.hit().await.is_fresh());
    world.settle("the refresh failed", |world| world.users.statistics().load_failures == 1).await;
    assert!(world.hit().await.is_fresh());
}

/// The share of readers that refresh early, `left` before expiry, for a load
/// that took `cost`: e^(−left / (cost·β)) by the formula.
async fn early_share(cost: u32, left: u32, beta: f64) -> f64 {
    const READERS: u32 = 600;
    let policy = larder::Policy::ttl(SECOND * 600).jitter(0.0).early_refresh_beta(beta);
    let world = world(policy.hard_timeout(SECOND * 100));
    let keys: Vec<String> = (0..READERS).map(|number| format!("user-{number}")).collect();
    world.origin.script([Answer::Truth.after(&world.clock, SECOND * cost)]);
    let (users, asked) = (world.users.clone(), keys.clone());
    let load = tokio::spawn(async move { users.get_or_load_many(&asked).await.len() });
    world.settle("the load runs", |world| world.origin.running() == 1).await;
    world.advance_past_sleepers(4, SECOND * cost).await;
    load.await.expect("no panic");
    world.clock.advance(SECOND * (10 - cost));
    // Absent keys have the negative TTL of ten seconds; put real ones.
    for key in &keys {
        world.origin.set(key.clone(), 1);
    }
    world.origin.script([Answer::Truth.after(&world.clock, SECOND * cost)]);
    let (users, asked) = (world.users.clone(), keys.clone());
    let load = tokio::spawn(async move { users.get_or_load_many(&asked).await.len() });
    world.settle("the load runs", |world| world.origin.running() == 1).await;
    world.advance_past_sleepers(4, SECOND * cost).await;
    load.await.expect("no panic");
    world.clock.advance(SECOND * (600 - cost - left));
    for key in &keys {
        assert!(world.users.get_memory(key.as_str()).is_some_and(|hit| hit.is_fresh()));
    }
    world.users.statistics().refreshes as f64 / f64::from(READERS)
}

#[tokio::test]
async fn early_refresh_follows_its_formula() {
    for (cost, left, beta) in [(5_u32, 5_u32, 1.0), (5, 10, 1.0), (5, 10, 2.0), (2, 10, 1.0)] {
        let expected = (-f64::from(left) / (f64::from(cost) * beta)).exp();
        let share = early_share(cost, left, beta).await;
        // Four standard deviations of 600 draws.
        let tolerance = 4.0 * (expected * (1.0 - expected) / 600.0).sqrt();
        assert!(
            (share - expected).abs() < tolerance,
            "{cost} {left} {beta}: {share} against {expected}"
        );
    }
}
