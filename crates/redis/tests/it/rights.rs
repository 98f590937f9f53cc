//! A user with exactly the rights that are documented, and with one fewer.

use larder_core::{
    Action, Bus, Death, DeathCause, ErrorKind, Journal, JournalOffset, JournalRecord, Key, Lease,
    PutCondition, Result, Store, Subscription, Verb, Version, Write,
};
use larder_redis::{
    Acknowledge, JOURNAL_RIGHTS, RIGHTS, RedisJournal, RedisJournalOptions, RedisOptions, RedisTier,
};
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

/// Each is needed, and all together are enough.
#[test]
fn the_rights_of_a_journal_are_enough_and_none_is_too_many() {
    block_on(async {
        let server = RedisServer::start();
        for missing in [None].into_iter().chain(JOURNAL_RIGHTS.map(Some)) {
            server.command(&["FLUSHALL"]);
            let of_journal = JOURNAL_RIGHTS.into_iter().filter(|right| Some(*right) != missing);
            let rights: Vec<&str> = RIGHTS.into_iter().chain(of_journal).collect();
            let tier = RedisTier::connect(app(&server, &rights, &PATTERNS)).await;
            let worked = use_journal(&tier.expect("the rights of a tier are there")).await;
            match missing {
                None => worked.expect("enough"),
                Some(missing) => {
                    let error = worked.expect_err(missing);
                    let is_told = error.to_string().contains("lacks a right");
                    let caused = std::error::Error::source(&error).map(ToString::to_string);
                    let is_told = is_told || caused.is_some_and(|it| it.contains("lacks a right"));
                    assert!(is_told, "{missing}: {error}");
                }
            }
        }
    });
}

/// Everything that a journal does.
async fn use_journal(tier: &RedisTier) -> Result<()> {
    let mut options = RedisJournalOptions::default();
    options.acknowledge = Acknowledge::Replicas(0);
    let journal = RedisJournal::open(tier, options).await?;
    let claim = journal.claim(0).await?;
    let record = JournalRecord {
        cache: "album".into(),
        write: Write::new(Key::new("album:1"), Action::Remove),
        version: Version::new(1),
        age: std::time::Duration::ZERO,
    };
    journal.append(0, &[record.clone(), record.clone(), record]).await?;
    journal.read(0, JournalOffset::START, 10).await?;
    let death = |offset| Death::new(JournalOffset(offset), DeathCause::Refused, "no");
    journal.bury(0, claim.epoch, &[death(1), death(2)]).await?;
    journal.dead_letters(0, JournalOffset::START, 10).await?;
    journal.replay(0, JournalOffset(1), None).await?;
    journal.drop_letters(0, &[JournalOffset(2)]).await?;
    let sharing = journal.sharing().expect("it is shared");
    sharing.buried(0).await?;
    sharing.renew(&[(0, claim.epoch)]).await?;
    sharing.hurry(0, JournalOffset(3)).await?;
    sharing.news().await?;
    journal.trim(0, claim.epoch, JournalOffset(3)).await?;
    sharing.news().await?;
    sharing.release(&[(0, claim.epoch)]).await?;
    journal.close().await
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
