//! The journal: the suite that every journal passes, leases of lanes, and what is
//! told when Redis loses something.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_core::{
    Action, Death, DeathCause, ErrorKind, Journal, JournalOffset, JournalRecord, Key, LaneHolder,
    Survives, Version, Write,
};
use larder_redis::{Acknowledge, RedisJournal, RedisJournalOptions, RedisTier, Topology};
use larder_testkit::conformance::block_on;
use larder_testkit::conformance::journal::JournalHome;
use larder_testkit::proxy::{Direction, FaultProxy};
use larder_testkit::redis::{
    AfterRestart, Cluster, Flavour, RedisOptions, RedisServer, Replicated,
};

use crate::support::{connect, patient, wait_until};

larder_testkit::journal_conformance!(standalone, async { Home::new(RedisServer::start()).await });
larder_testkit::journal_conformance!(other_flavours, async {
    let flavour = *Flavour::installed().last().expect("Redis is always there");
    Home::new(RedisServer::launch(&RedisOptions { flavour, ..RedisOptions::default() })).await
});

/// A server, and a process that uses it.
struct Home {
    server: RedisServer,
    journal: RedisJournal,
}

impl Home {
    async fn new(server: RedisServer) -> Self {
        let journal = open(&connect(&server).await).await;
        Self { server, journal }
    }
}

impl JournalHome for Home {
    type Journal = RedisJournal;

    fn journal(&self) -> Arc<RedisJournal> {
        Arc::new(self.journal.clone())
    }

    async fn restart(self) -> Self {
        self.journal.close().await.expect("the server runs");
        Self::new(self.server).await
    }
}

fn options() -> RedisJournalOptions {
    let mut options = RedisJournalOptions::default();
    options.lanes = 4;
    options
}

async fn open(tier: &RedisTier) -> RedisJournal {
    open_with(tier, |_| ()).await
}

async fn open_with(
    tier: &RedisTier,
    change: impl FnOnce(&mut RedisJournalOptions),
) -> RedisJournal {
    let mut options = options();
    change(&mut options);
    RedisJournal::open(tier, options).await.expect("the server runs and allows everything")
}

fn put(value: u64) -> JournalRecord {
    JournalRecord {
        cache: "album".into(),
        write: Write::new(Key::new("album:1"), Action::Put(Bytes::from(value.to_string()))),
        version: Version::new(value),
        age: Duration::ZERO,
    }
}

async fn append(journal: &RedisJournal, lane: u16, value: u64) -> JournalOffset {
    journal.append(lane, &[put(value)]).await.expect("it is accepted")
}

async fn values(journal: &RedisJournal, lane: u16) -> Vec<u64> {
    let entries = journal.read(lane, JournalOffset::START, 10_000).await.expect("a read");
    entries.iter().map(|entry| entry.record.version.get()).collect()
}

#[test]
fn a_lane_is_held_by_one_process_until_its_lease_ends_or_it_leaves() {
    block_on(async {
        let server = RedisServer::start();
        let tier = connect(&server).await;
        let lease = Duration::from_millis(1500);
        let one = open_with(&tier, |options| options.lease = lease).await;
        let other = open_with(&tier, |options| options.lease = lease).await;
        assert_eq!(one.profile().name, other.profile().name);
        let claim = one.claim(2).await.expect("nobody has it");
        let refused = other.claim(2).await.expect_err("another one has it");
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
        let sharing = one.sharing().expect("it is shared");
        let census = sharing.renew(&[(2, claim.epoch)]).await.expect("a census");
        assert_eq!(census.lanes[2].holder, LaneHolder::Here);
        let theirs = other.sharing().expect("it is shared");
        let census = theirs.renew(&[(2, claim.epoch)]).await.expect("a census");
        assert_eq!((census.nodes, census.lanes[2].holder), (2, LaneHolder::Elsewhere));
        // It is not renewed any more: the other one gets it, later than this one.
        let mut next = None;
        wait_until("the lease ends", async || {
            next = other.claim(2).await.ok();
            next.is_some()
        })
        .await;
        let next = next.expect("just seen");
        assert!(next.epoch > claim.epoch);
        let late = one.trim(2, claim.epoch, JournalOffset::START).await.expect_err("it is late");
        assert_eq!(late.kind(), ErrorKind::Conflict);
        let census = sharing.renew(&[(2, claim.epoch)]).await.expect("a census");
        assert_eq!(census.lanes[2].holder, LaneHolder::Elsewhere);
        // Who leaves is followed at once.
        other.close().await.expect("the server runs");
        assert!(one.claim(2).await.expect("nobody has it").epoch > next.epoch);
        assert_eq!(sharing.renew(&[]).await.expect("a census").nodes, 1);
    });
}

#[test]
fn others_are_woken_by_what_happens_and_by_nothing_else() {
    block_on(async {
        let server = RedisServer::start();
        let tier = connect(&server).await;
        let (one, other) = (open(&tier).await, open(&tier).await);
        let sharing = one.sharing().expect("it is shared");
        sharing.news().await.expect("it is connected");
        let asleep = tokio::time::timeout(Duration::from_millis(300), sharing.news()).await;
        assert!(asleep.is_err(), "nothing happened");
        sharing.news().await.expect("it is connected again");
        let claim = other.claim(0).await.expect("nobody has it");
        sharing.news().await.expect("a claim");
        append(&other, 0, 1).await;
        sharing.news().await.expect("a record");
        other.trim(0, claim.epoch, JournalOffset(1)).await.expect("trimmed");
        sharing.news().await.expect("a trim");
        let theirs = other.sharing().expect("it is shared");
        theirs.hurry(3, JournalOffset(7)).await.expect("asked");
        sharing.news().await.expect("somebody is in a hurry");
        let census = sharing.renew(&[]).await.expect("a census");
        assert_eq!(census.lanes[3].hurry_to, JournalOffset(7));
        assert_eq!(census.lanes[0].trimmed, JournalOffset(1));
        theirs.release(&[(0, claim.epoch)]).await.expect("given up");
        sharing.news().await.expect("a lane is free");
        let census = sharing.renew(&[]).await.expect("a census");
        assert_eq!(census.lanes[0].holder, LaneHolder::Nobody);
    });
}

#[test]
fn what_was_buried_is_known_until_it_is_trimmed_whatever_became_of_it() {
    block_on(async {
        let server = RedisServer::start();
        let journal = open(&connect(&server).await).await;
        let epoch = journal.claim(1).await.expect("a claim").epoch;
        for value in 1..=4 {
            append(&journal, 1, value).await;
        }
        let death = |offset| Death::new(JournalOffset(offset), DeathCause::Refused, "no");
        journal.bury(1, epoch, &[death(4), death(2), death(3)]).await.expect("buried");
        journal.replay(1, JournalOffset(2), None).await.expect("replayed");
        journal.drop_letters(1, &[JournalOffset(3)]).await.expect("dropped");
        let sharing = journal.sharing().expect("it is shared");
        let buried = sharing.buried(1).await.expect("a list");
        assert_eq!(buried, [2, 3, 4].map(JournalOffset));
        journal.trim(1, epoch, JournalOffset(3)).await.expect("trimmed");
        assert_eq!(sharing.buried(1).await.expect("a list"), [JournalOffset(4)]);
    });
}

#[test]
fn a_full_journal_refuses_and_takes_more_when_there_is_room() {
    block_on(async {
        let server = RedisServer::start();
        let tier = connect(&server).await;
        let journal = open_with(&tier, |options| options.records_max = 5).await;
        for value in 1..=5 {
            append(&journal, 0, value).await;
        }
        let refused = journal.append(1, &[put(6)]).await.expect_err("it is full");
        assert_eq!(refused.kind(), ErrorKind::Overloaded, "{refused}");
        let epoch = journal.claim(0).await.expect("a claim").epoch;
        let death = Death::new(JournalOffset(1), DeathCause::Refused, "no");
        journal.bury(0, epoch, &[death]).await.expect("a letter is never refused");
        journal.trim(0, epoch, JournalOffset(3)).await.expect("trimmed");
        journal.append(0, &[put(6), put(7)]).await.expect("there is room for two");
        let refused = journal.append(0, &[put(8)]).await.expect_err("a letter takes room, too");
        assert_eq!(refused.kind(), ErrorKind::Overloaded);
        assert_eq!(values(&journal, 0).await, [4, 5, 6, 7]);

        let small = open_with(&tier, |options| {
            (options.name, options.record_bytes_max) = ("small".to_owned(), 1024);
            options.bytes_max = 1500;
        });
        let small = small.await;
        let mut large = put(1);
        large.write.action = Action::Put(vec![7; 800].into());
        small.append(0, std::slice::from_ref(&large)).await.expect("there is room");
        let refused = small.append(0, &[large]).await.expect_err("there is none");
        assert_eq!(refused.kind(), ErrorKind::Overloaded, "{refused}");
        append(&small, 0, 1).await;
        let usage = small.usage();
        assert!(usage.bytes <= usage.bytes_max && usage.records == 2, "{usage:?}");
    });
}

#[test]
fn bytes_are_counted_to_the_last_one() {
    block_on(async {
        let server = RedisServer::start();
        let journal = open(&connect(&server).await).await;
        let mut random = fastrand::Rng::with_seed(6);
        let mut records = Vec::new();
        for value in 1..=60 {
            let mut record = put(value);
            record.write.action = Action::Put(vec![7; random.usize(0..300)].into());
            journal.append(0, std::slice::from_ref(&record)).await.expect("accepted");
            records.push(record);
        }
        let epoch = journal.claim(0).await.expect("a claim").epoch;
        let deaths: Vec<Death> = (1..=20)
            .map(|place| Death::new(JournalOffset(place * 3), DeathCause::Missing, "gone away"))
            .collect();
        journal.bury(0, epoch, &deaths).await.expect("buried");
        journal.trim(0, epoch, JournalOffset(31)).await.expect("trimmed");
        journal.replay(0, JournalOffset(6), None).await.expect("replayed").expect("a letter");
        journal.replay(0, JournalOffset(9), Some(&put(9))).await.expect("replayed").expect("one");
        journal.drop_letters(0, &[JournalOffset(3)]).await.expect("dropped");
        journal.trim(0, epoch, JournalOffset(62)).await.expect("trimmed");
        let letters: Vec<JournalOffset> = (4..=20).map(|n| JournalOffset(n * 3)).collect();
        assert_eq!(journal.usage().dead_letters, letters.len());
        assert_eq!(journal.drop_letters(0, &letters).await.expect("dropped"), letters.len());
        let usage = journal.usage();
        assert_eq!((usage.records, usage.dead_letters, usage.bytes), (0, 0, 0));
    });
}

/// The connection ends while calls are on their way: each record is there once.
#[test]
fn an_append_whose_answer_is_lost_happens_once() {
    block_on(async {
        let server = RedisServer::start();
        let proxy = FaultProxy::start(server.address());
        let url = format!("redis://{}", proxy.address());
        let tier = RedisTier::connect(patient(larder_redis::RedisOptions::new(url))).await;
        let journal = open(&tier.expect("it connects")).await;
        let (mut acknowledged, mut unknown) = (Vec::new(), Vec::new());
        for value in 1..=100_u64 {
            let before = server.calls("evalsha");
            if value % 5 == 0 {
                proxy.all().black_hole(Direction::ToClient);
            }
            let appending = {
                let journal = journal.clone();
                tokio::spawn(async move { journal.append(0, &[put(value)]).await })
            };
            if value % 5 == 0 {
                // Half of them once it has happened, and half of them somewhere before.
                if value % 10 == 0 {
                    wait_until("it has happened", async || server.calls("evalsha") > before).await;
                }
                proxy.all().reset();
                proxy.all().lift();
            }
            match appending.await.expect("it ends") {
                Ok(_) => acknowledged.push(value),
                Err(error) if error.kind() == ErrorKind::OutcomeUnknown => unknown.push(value),
                Err(_) => {}
            }
        }
        let found = values(&journal, 0).await;
        let mut once = found.clone();
        once.dedup();
        assert_eq!(once, found, "none is there twice, or out of order");
        assert!(found.is_sorted());
        let is_there = |value: &u64| found.binary_search(value).is_ok();
        assert!(acknowledged.iter().all(is_there));
        assert!(found.iter().all(|value| acknowledged.contains(value) || unknown.contains(value)));
        assert!(acknowledged.len() > 50, "{} acknowledged", acknowledged.len());
    });
}

#[test]
fn redis_that_comes_back_empty_is_told_and_no_place_is_given_twice() {
    block_on(async {
        let server = RedisServer::start();
        let tier = connect(&server).await;
        let (one, other) = (open(&tier).await, open(&tier).await);
        let claim = one.claim(0).await.expect("a claim");
        for value in 1..=9 {
            append(&one, 0, value).await;
        }
        one.trim(0, claim.epoch, JournalOffset(4)).await.expect("trimmed");
        assert_eq!(values(&other, 0).await.len(), 5);
        server.restart(AfterRestart::Empty);
        let mut offset = None;
        wait_until("it takes records again", async || {
            offset = one.append(0, &[put(10)]).await.ok();
            offset.is_some()
        })
        .await;
        assert!(offset.expect("just seen").0 > 9 + (1 << 31), "above all that was: {offset:?}");
        assert_eq!(one.profile().name, other.profile().name);
        let late = one.trim(0, claim.epoch, JournalOffset(9)).await.expect_err("claims are gone");
        assert_eq!(late.kind(), ErrorKind::Conflict);
        assert!(other.claim(0).await.expect("nobody has it").epoch > claim.epoch + 1);
        assert_eq!(values(&other, 0).await, [10]);
        assert_eq!(one.statistics().lost, 5);
        assert_eq!(one.statistics().histories_ended, 1);
        assert!(other.statistics().lost >= 5, "{:?}", other.statistics());
    });
}

#[test]
fn a_journal_that_a_new_process_begins_anew_is_another_one_to_those_before() {
    block_on(async {
        let server = RedisServer::start();
        let old = open(&connect(&server).await).await;
        append(&old, 0, 1).await;
        server.restart(AfterRestart::Empty);
        let new = open(&connect(&server).await).await;
        assert_ne!(new.profile().name, old.profile().name);
        assert_eq!(append(&new, 0, 5).await, JournalOffset(1));
        let mut refused = old.append(0, &[put(2)]).await.expect_err("it is another one");
        if refused.kind() != ErrorKind::Conflict {
            // The connection had ended before.
            refused = old.append(0, &[put(2)]).await.expect_err("it is another one");
        }
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
        assert_eq!(old.statistics().lost, 1);
        assert!(!old.usage().writable);
        assert_eq!(values(&new, 0).await, [5]);
    });
}

#[test]
fn a_failover_that_loses_the_end_is_told_and_no_place_is_given_twice() {
    block_on(async {
        let redis = Replicated::start(1);
        let mut both = patient(larder_redis::RedisOptions::new(redis.servers()[0].url()));
        both.urls.push(redis.servers()[1].url());
        let tier = RedisTier::connect(both).await.expect("the servers run");
        let journal = open(&tier).await;
        let claim = journal.claim(1).await.expect("a claim");
        for value in 1..=3 {
            append(&journal, 1, value).await;
        }
        redis.wait_until_in_step();
        redis.hold_back(1);
        for value in 4..=6 {
            append(&journal, 1, value).await;
        }
        redis.servers()[0].kill();
        redis.promote(1);
        let mut offset = None;
        wait_until("the replica takes records", async || {
            offset = journal.append(1, &[put(7)]).await.ok();
            offset.is_some()
        })
        .await;
        assert!(offset.expect("just seen").0 > 1 << 31, "far above: {offset:?}");
        assert_eq!(values(&journal, 1).await, [1, 2, 3, 7]);
        wait_until("it is told", async || journal.statistics().lost == 3).await;
        let late = journal.trim(1, claim.epoch, JournalOffset(2)).await;
        assert_eq!(late.expect_err("epochs went on, too").kind(), ErrorKind::Conflict);
    });
}

#[test]
fn a_restart_that_loses_nothing_tells_of_no_loss() {
    block_on(async {
        let server = RedisServer::start();
        let journal = open(&connect(&server).await).await;
        let epoch = journal.claim(0).await.expect("a claim").epoch;
        for value in 1..=3 {
            append(&journal, 0, value).await;
        }
        let death = Death::new(JournalOffset(3), DeathCause::Refused, "no");
        journal.bury(0, epoch, &[death]).await.expect("buried");
        server.restart(AfterRestart::WithData);
        wait_until("it takes records again", async || journal.append(1, &[put(4)]).await.is_ok())
            .await;
        assert_eq!(values(&journal, 0).await, [1, 2]);
        assert_eq!(journal.statistics().histories_ended, 1);
        // What is looked at in the background is looked at in the order of lanes.
        let sharing = journal.sharing().expect("it is shared");
        sharing.renew(&[]).await.expect("a census");
        assert_eq!(journal.statistics().lost, 0);
    });
}

#[test]
fn what_an_acknowledgement_survives_is_waited_for() {
    block_on(async {
        let redis = Replicated::start(1);
        // A replica that follows counts once it has said so.
        let replicas = || redis.primary().command(&["WAIT", "1", "500"]).integer();
        wait_until("the replica says so", async || replicas() == 1).await;
        let tier = connect(redis.primary()).await;
        let journal = open_with(&tier, |options| {
            options.acknowledge = Acknowledge::Replicas(1);
            // A replica that has just come says what it has each second only.
            options.acknowledge_timeout = Duration::from_secs(3);
        });
        let journal = journal.await;
        assert_eq!(journal.profile().survives, Survives::Process);
        append(&journal, 0, 1).await;
        redis.hold_back(1);
        let unknown = journal.append(0, &[put(2)]).await.expect_err("no replica has it");
        assert_eq!(unknown.kind(), ErrorKind::OutcomeUnknown, "{unknown}");
        redis.let_follow(1);
        redis.wait_until_in_step();
        wait_until("the replica says so", async || replicas() == 1).await;
        append(&journal, 0, 3).await;
        assert_eq!(values(&journal, 0).await, [1, 2, 3]);
    });
}

/// Servers since 7.2 can say what is on a disk; of others nothing is promised.
#[test]
fn only_a_server_that_tells_of_its_disk_is_trusted_with_it() {
    block_on(async {
        for flavour in Flavour::installed() {
            for durable in [true, false] {
                let options = RedisOptions { flavour, durable, ..RedisOptions::default() };
                // Durable ones of the tests leave it to the kernel, which is not enough.
                let options = options.arguments(["--appendfsync", "always"]);
                let server = RedisServer::launch(&options);
                let version = server.info("redis_version").expect("a server has one");
                let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
                let tells = (parts.next(), parts.next()) >= (Some(7), Some(2));
                let mut wanted = self::options();
                wanted.acknowledge = Acknowledge::Disk;
                let opened = RedisJournal::open(&connect(&server).await, wanted).await;
                match opened {
                    Ok(journal) => {
                        assert!(tells && durable, "{version} promises a disk");
                        assert_eq!(journal.profile().survives, Survives::PowerLoss);
                        append(&journal, 0, 1).await;
                        server.kill();
                        server.revive();
                        let after = open(&connect(&server).await).await;
                        assert_eq!(values(&after, 0).await, [1]);
                    }
                    Err(error) => {
                        assert!(!(tells && durable), "{version}: {error}");
                        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
                    }
                }
            }
        }
    });
}

#[test]
fn a_journal_has_its_lanes_for_good_and_its_name_for_itself() {
    block_on(async {
        let server = RedisServer::start();
        let tier = connect(&server).await;
        let journal = open(&tier).await;
        append(&journal, 0, 1).await;
        let mut more = options();
        more.lanes = 5;
        let error = RedisJournal::open(&tier, more).await.expect_err("it has four");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        let audit = open_with(&tier, |options| options.name = "audit".to_owned()).await;
        assert!(values(&audit, 0).await.is_empty());
    });
}

#[test]
fn a_cluster_has_a_journal_too_and_follows_it_to_another_node() {
    block_on(async {
        let cluster = Cluster::start();
        let mut options = patient(larder_redis::RedisOptions::new("redis://unused"));
        options.urls = cluster.servers().iter().map(RedisServer::url).collect();
        options.topology = Topology::Cluster;
        let tier = RedisTier::connect(options).await.expect("the cluster runs");
        let journal = open(&tier).await;
        let epoch = journal.claim(3).await.expect("a claim").epoch;
        for lane in 0..4 {
            append(&journal, lane, 1).await;
        }
        let death = Death::new(JournalOffset(1), DeathCause::Refused, "no");
        journal.bury(3, epoch, &[death]).await.expect("buried");
        journal.replay(3, JournalOffset(1), None).await.expect("replayed");
        journal.trim(3, epoch, JournalOffset(2)).await.expect("trimmed");
        let sharing = journal.sharing().expect("it is shared");
        sharing.news().await.expect("it is connected");
        append(&journal, 3, 2).await;
        sharing.news().await.expect("a record");

        // Another node has its slot: nothing is lost, and it is found there.
        let slot = Cluster::slot(b"{larder.behind}");
        cluster.migrate_slot(slot, (cluster.place_of(slot) + 1) % 3);
        let mut offset = None;
        wait_until("it is found there", async || {
            offset = journal.append(3, &[put(3)]).await.ok();
            offset.is_some()
        })
        .await;
        assert_eq!(values(&journal, 3).await, [2, 3]);
        assert!(offset.expect("just seen").0 > 1 << 31, "{offset:?}");
        // Its primary dies.
        cluster.kill_primary(slot);
        cluster.wait_until_ready();
        wait_until("its replica has it", async || journal.append(2, &[put(4)]).await.is_ok()).await;
        assert!(journal.statistics().histories_ended >= 2);
        let claim = journal.claim(3).await.expect("a claim");
        journal.trim(3, claim.epoch, offset.expect("just seen")).await.expect("trimmed");
        assert!(values(&journal, 3).await.is_empty());
    });
}
