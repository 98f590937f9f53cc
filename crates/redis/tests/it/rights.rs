//! A user with exactly the rights that are documented, and with one fewer.

use larder_core::{Bus, ErrorKind, Key, Lease, PutCondition, Store, Subscription, Verb, Version};
use larder_redis::{RIGHTS, RedisOptions, RedisTier};
use larder_testkit::conformance::{block_on, store::entry};
use larder_testkit::redis::RedisServer;

use crate::support::{message, patient, removal, subscribe};

const PATTERNS: [&str; 4] = ["~larder:*", "~{larder}:*", "&larder:*", "&{larder}:*"];

/// Makes the user `app` on the server and tells how to connect as it.
fn app(server: &RedisServer, rights: &[&str], patterns: &[&str]) -> RedisOptions {
    let rights: Vec<String> = rights.iter().map(|right| format!("+{right}")).collect();
    let mut rules = vec!["ACL", "SETUSER", "app", "reset", "on", ">secret"];
    rules.extend(patterns);
    rules.extend(rights.iter().map(String::as_str));
    assert!(!server.command(&rules).is_error(), "{rules:?}");
    let mut options = patient(RedisOptions::new(format!("redis://{}", server.address())));
    options.user = Some("app".to_owned());
    options.password = Some("secret".to_owned());
    options
}

#[test]
fn the_rights_that_are_documented_are_enough() {
    block_on(async {
        let server = RedisServer::start();
        let tier = RedisTier::connect(app(&server, &RIGHTS, &PATTERNS)).await.expect("enough");
        let store = tier.store("album");
        let keys = [Key::new("a")];
        let put = [(Key::new("a"), entry("value", 1))];
        store.put_many(&put, PutCondition::NewerThanHeld).await.expect("a put");
        store.get_many(&keys).await.expect("a read");
        store.marks().await.expect("watermarks");
        store.invalidate_many(&keys, Version::new(2), Verb::Expire).await.expect("it expires");
        let mut subscription = subscribe(&tier, None).await;
        tier.bus().publish(&removal("a"), Version::ZERO).await.expect("it is announced");
        message(&mut subscription).await;
        subscription.next().await;
        let lease = tier.lease("album");
        lease.acquire_many(&keys, std::time::Duration::from_secs(1)).await.expect("granted");
        assert_eq!(server.command(&["ACL", "LOG"]).items(), [], "nothing was refused");
    });
}

#[test]
fn each_right_that_is_missing_is_named_with_the_server() {
    block_on(async {
        let server = RedisServer::start();
        for missing in RIGHTS {
            let rights: Vec<&str> =
                RIGHTS.iter().copied().filter(|right| *right != missing).collect();
            let error =
                RedisTier::connect(app(&server, &rights, &PATTERNS)).await.expect_err(missing);
            let text = error.to_string();
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
            let named = format!("'{missing}'");
            assert!(
                text.contains(&named) || text.contains(&format!("right: +{missing},")),
                "{missing}: {text}"
            );
            assert!(text.contains(&server.address().to_string()), "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
        for missing in PATTERNS {
            let patterns: Vec<&str> =
                PATTERNS.iter().copied().filter(|pattern| *pattern != missing).collect();
            let error = RedisTier::connect(app(&server, &RIGHTS, &patterns)).await;
            let error = error.expect_err(missing);
            assert_eq!(error.kind(), ErrorKind::Config, "{missing}: {error}");
            assert!(error.to_string().contains(missing), "{missing}: {error}");
        }
    });
}
