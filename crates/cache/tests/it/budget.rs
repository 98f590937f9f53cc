//! The origin is worked no harder than its load budget says (R7).

use larder::{Breaker, BreakerState, ErrorKind, LoadBudget, OriginGuard};
use larder_testkit::faulty::Answer;

use crate::support::*;

fn world_under(budget: LoadBudget, policy: larder::Policy) -> World {
    let guard = OriginGuard::new("db", Breaker::default().failures(1), budget);
    world_with(policy, |builder| builder.origin_guard(guard))
}

#[tokio::test]
async fn nobody_waits_in_line_for_the_refusal_of_an_open_breaker() {
    let world = world_under(LoadBudget::concurrent(10).per_second(1), plain());
    world.origin.script([Answer::unavailable()]);
    assert!(world.users.get_or_load(&ann()).await.is_err());
    assert_eq!(world.users.origin_health(), BreakerState::Open);
    // The second's one load is spent, and no time passes.
    let error = world.users.get_or_load(&ann()).await.expect_err("it is not asked");
    assert_eq!(error.kind(), ErrorKind::BreakerOpen);
}

#[tokio::test]
async fn time_spent_in_our_own_line_does_not_open_the_breaker() {
    let world = world_under(LoadBudget::concurrent(5), plain());
    // Each load takes three of the five seconds of the hard timeout: those that
    // wait for a place first are cut short, and the origin is healthy.
    world.origin.script((0..10).map(|_| Answer::Truth.after(&world.clock, SECOND * 3)));
    let readers: Vec<_> = (0..10)
        .map(|number| {
            let users = world.users.clone();
            tokio::spawn(
                async move { users.get_or_load(&format!("user-{number}")).await.map(|_| ()) },
            )
        })
        .collect();
    for _ in 0..60 {
        for _ in 0..30 {
            tokio::task::yield_now().await;
        }
        world.clock.advance(SECOND / 10);
    }
    let mut failed = 0;
    for reader in readers {
        failed += usize::from(reader.await.expect("no panic").is_err());
    }
    assert_eq!(failed, 5, "the second five had two seconds");
    assert_eq!(world.users.origin_health(), BreakerState::Closed);
}
