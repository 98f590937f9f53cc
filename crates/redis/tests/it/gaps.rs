//! Messages that one reader has missed: whether the server has been the primary all
//! along, so that its entries have what was announced meanwhile.

use larder_core::BusEvent;
use larder_redis::{RedisOptions, RedisSubscription, RedisTier};
use larder_testkit::conformance::block_on;
use larder_testkit::proxy::{Direction, FaultProxy};
use larder_testkit::redis::{RedisOptions as ServerOptions, Replicated};

use crate::support::{connect, message, news, patient, publish, removal, subscribe, until_current};

/// A reader behind a proxy stands still, misses messages, and comes back to
/// whatever `meanwhile` has made of the servers. Returns whether it says that
/// nothing but its messages is missing.
async fn comes_back(
    servers: &Replicated,
    options: RedisOptions,
    proxy: &FaultProxy,
    meanwhile: impl AsyncFnOnce(),
) -> bool {
    let tier = RedisTier::connect_lazily(options).expect("the options are right");
    let mut reader = subscribe(&tier, None).await;
    publish(&connect(servers.primary()).await, &removal("heard")).await;
    message(&mut reader).await;
    until_current(&mut reader).await;
    // What is on its way is lost; lifted, the connection breaks.
    proxy.all().black_hole(Direction::ToClient);
    publish(&connect(servers.primary()).await, &removal("missed")).await;
    servers.wait_until_in_step();
    meanwhile().await;
    let trimmed = servers.primary().command(&["XTRIM", "{larder}:stream", "MAXLEN", "0"]);
    assert!(!trimmed.is_error(), "{trimmed:?}");
    proxy.lift();
    proxy.all().reset();
    lost(&mut reader).await
}

async fn lost(reader: &mut RedisSubscription) -> bool {
    loop {
        match news(reader).await {
            BusEvent::Lost { is_intact, .. } => return is_intact,
            BusEvent::Reconnected => {}
            event => panic!("{event:?}"),
        }
    }
}

fn through(proxy: &FaultProxy) -> RedisOptions {
    patient(RedisOptions::new(format!("redis://{}", proxy.address())))
}

#[test]
fn a_server_that_was_the_primary_all_along_has_what_was_missed() {
    block_on(async {
        let servers = Replicated::start(0);
        let proxy = FaultProxy::start(servers.primary().address());
        assert!(comes_back(&servers, through(&proxy), &proxy, async || {}).await);
    });
}

/// It has everything, but nobody can know that.
#[test]
fn one_that_has_taken_over_may_lack_something() {
    block_on(async {
        let servers = Replicated::start(1);
        let proxy = FaultProxy::start(servers.primary().address());
        let take_over = async || {
            servers.primary().kill();
            servers.promote(1);
            proxy.lead_to(servers.primary().address());
            // In the history of before.
            publish(&connect(servers.primary()).await, &removal("later")).await;
        };
        assert!(!comes_back(&servers, through(&proxy), &proxy, take_over).await);
    });
}

/// The same server is the primary again, with what another made of the history.
#[test]
fn one_that_was_a_replica_for_a_while_may_lack_something() {
    block_on(async {
        let servers = Replicated::start(1);
        let proxy = FaultProxy::start(servers.primary().address());
        let there_and_back = async || {
            servers.promote(1);
            servers.let_follow(0);
            servers.wait_until_in_step();
            servers.promote(0);
            publish(&connect(servers.primary()).await, &removal("later")).await;
        };
        assert!(!comes_back(&servers, through(&proxy), &proxy, there_and_back).await);
    });
}

#[test]
fn who_may_not_ask_who_it_is_does_not_know() {
    block_on(async {
        let rights = larder_redis::RIGHTS.iter().filter(|right| **right != "info");
        let rights: Vec<String> = rights.map(|right| format!("+{right}")).collect();
        let user = format!("app on >pass ~* &* {}", rights.join(" "));
        let options = ServerOptions { users: vec![user], ..ServerOptions::default() };
        let servers = Replicated::launch(0, &options);
        let proxy = FaultProxy::start(servers.primary().address());
        let mut options = through(&proxy);
        (options.user, options.password) = (Some("app".to_owned()), Some("pass".to_owned()));
        assert!(!comes_back(&servers, options, &proxy, async || {}).await);
    });
}
