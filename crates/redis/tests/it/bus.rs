//! Announcements: order, replay, and that nothing is missing unsaid.

use std::time::{Duration, Instant};

use larder_core::{
    Announcement, Bus, BusEvent, BusPosition, Change, Key, PutCondition, PutOutcome, Store, Tag,
    Verb, Version,
};
use larder_testkit::conformance::{Kept, block_on, store::entry};
use larder_testkit::redis::{AfterRestart, RedisServer};

use crate::support::{
    PATIENCE, announcement, connect, message, news, next, options, publish, removal, subscribe,
    tagged, until_current,
};

larder_testkit::bus_conformance!(standalone, async {
    let server = RedisServer::start();
    let (one, two) = (connect(&server).await.bus(), connect(&server).await.bus());
    let server = std::sync::Arc::new(server);
    let two = Kept::new(two, std::sync::Arc::clone(&server));
    (Kept::new(one, server), two)
});

/// Without waiting for the next heartbeat.
#[test]
fn a_message_is_pushed_at_once() {
    block_on(async {
        let server = RedisServer::start();
        let mut options = options(&server);
        options.heartbeat = 2 * PATIENCE;
        let tier = larder_redis::RedisTier::connect(options).await.expect("the server runs");
        let mut subscription = subscribe(&tier, None).await;
        until_current(&mut subscription).await;
        for number in 0..100 {
            publish(&tier, &removal(&number.to_string())).await;
            let heard = message(&mut subscription).await;
            assert_eq!(heard.announcement, removal(&number.to_string()));
        }
    });
}

#[test]
fn every_node_hears_everything_once_and_in_order() {
    block_on(async {
        let server = RedisServer::start();
        let (here, there) = (connect(&server).await, connect(&server).await);
        let mut at_home = subscribe(&here, None).await;
        let mut away = subscribe(&there, None).await;
        let mut announced = Vec::new();
        for number in 0..300 {
            let tier = if number % 2 == 0 { &here } else { &there };
            let what = match number % 3 {
                0 => removal(&number.to_string()),
                1 => tagged(&number.to_string()),
                _ => announcement(Change::All, Verb::Expire),
            };
            announced.push((publish(tier, &what).await, what));
        }
        assert!(announced.is_sorted_by(|one, other| one.0 < other.0), "versions rise");
        for subscription in [&mut at_home, &mut away] {
            let mut position = None;
            for (version, what) in &announced {
                let heard = message(subscription).await;
                assert_eq!((heard.version, &heard.announcement), (*version, what));
                if let Some(BusPosition { epoch, sequence }) = position {
                    let due = BusPosition { epoch, sequence: sequence + 1 };
                    assert_eq!(heard.position, due);
                }
                position = Some(heard.position);
            }
            let (before, head, version) = until_current(subscription).await;
            assert_eq!(before, []);
            assert_eq!((Some(head), version), (position, announced[299].0));
        }
    });
}

#[test]
fn a_version_is_over_what_the_caller_knows() {
    block_on(async {
        let server = RedisServer::start();
        let tier = connect(&server).await;
        let first = publish(&tier, &removal("a")).await;
        let known = Version::new(first.get() + 1000);
        let second =
            tier.bus().publish(&removal("a"), known).await.expect("it is announced").version;
        assert!(second > known);
        let known = Version::new(second.get() + 1000);
        let mut subscription = tier.bus().subscribe(None, known).await.expect("the bus is there");
        let (_, _, version) = until_current(&mut subscription).await;
        assert!(version >= known, "whoever subscribes raises it, too");
        assert!(publish(&tier, &removal("a")).await > known);
    });
}

#[test]
fn announcing_keys_invalidates_them_in_the_same_step() {
    block_on(async {
        let server = RedisServer::start();
        let tier = connect(&server).await;
        let store = tier.store("album");
        assert!(store.capabilities().follows_bus);
        let keys: Vec<Key> = ["removed", "never-held"].map(Key::new).into();
        let began = publish(&tier, &removal("other")).await;
        let early = |key: &Key| (key.clone(), entry("early", began.get()));
        let put = [early(&keys[0]), early(&Key::new("expired"))];
        store.put_many(&put, PutCondition::NewerThanHeld).await.expect("a put");
        let calls = server.calls("evalsha");
        let remove = announcement(Change::Keys(keys.clone()), Verb::Remove);
        let version = publish(&tier, &remove).await;
        assert_eq!(server.calls("evalsha") - calls, 1, "one round trip");
        let expire = announcement(Change::Keys(vec![Key::new("expired")]), Verb::Expire);
        publish(&tier, &expire).await;
        assert_eq!(store.get_many(&keys).await.expect("a read"), [None, None]);
        let stale = store.get(&Key::new("expired")).await.expect("a read").expect("stale");
        assert_eq!(stale.fresh_for, larder_core::Ttl::secs(0));
        for key in keys.iter().chain([&Key::new("expired")]) {
            let late = store.put_many(&[early(key)], PutCondition::NewerThanHeld).await;
            let late = late.expect("a put");
            assert!(matches!(late[..], [PutOutcome::Refused(at)] if at >= version), "{late:?}");
        }
    });
}

#[test]
fn announcing_tags_raises_watermarks_in_the_same_step() {
    block_on(async {
        let server = RedisServer::start();
        let tier = connect(&server).await;
        let store = tier.store("album");
        let first = publish(&tier, &tagged("artist:miles")).await;
        let second = publish(&tier, &announcement(Change::All, Verb::Expire)).await;
        let mut marks = store.marks().await.expect("watermarks");
        marks.sort_by_key(|mark| mark.version);
        let found: Vec<_> =
            marks.into_iter().map(|mark| (mark.tag, mark.verb, mark.version)).collect();
        let tag = Some(Tag::new("artist:miles"));
        assert_eq!(found, [(tag, Verb::Remove, first), (None, Verb::Expire, second)]);
        assert_eq!(tier.store("other").marks().await.expect("watermarks"), []);
    });
}

#[test]
fn many_keys_go_in_several_messages() {
    block_on(async {
        let server = RedisServer::start();
        let tier = connect(&server).await;
        let mut subscription = subscribe(&tier, None).await;
        let keys: Vec<Key> = (0..2500).map(|n| Key::new(n.to_string())).collect();
        let version = publish(&tier, &announcement(Change::Keys(keys.clone()), Verb::Remove)).await;
        let mut heard = Vec::new();
        let mut last = Version::ZERO;
        while heard.len() < keys.len() {
            let message = message(&mut subscription).await;
            last = message.version;
            let Announcement { change: Change::Keys(part), .. } = message.announcement else {
                panic!("keys were announced")
            };
            heard.extend(part);
        }
        assert_eq!((heard, last), (keys, version));
    });
}

#[test]
fn whoever_was_away_hears_what_was_said() {
    block_on(async {
        let server = RedisServer::start();
        let tier = connect(&server).await;
        let mut subscription = subscribe(&tier, None).await;
        publish(&tier, &removal("first")).await;
        let position = message(&mut subscription).await.position;
        drop(subscription);
        for number in 0..600 {
            publish(&tier, &removal(&number.to_string())).await;
        }
        let mut subscription = subscribe(&tier, Some(position)).await;
        for number in 0..600 {
            let heard = message(&mut subscription).await;
            assert_eq!(heard.announcement, removal(&number.to_string()));
        }
        until_current(&mut subscription).await;
    });
}

#[test]
fn what_was_trimmed_is_told_as_lost() {
    block_on(async {
        let server = RedisServer::start();
        let mut options = options(&server);
        options.stream_length_max = 1;
        let tier = larder_redis::RedisTier::connect(options).await.expect("the server runs");
        let mut subscription = subscribe(&tier, None).await;
        publish(&tier, &removal("first")).await;
        let position = message(&mut subscription).await.position;
        drop(subscription);
        let mut version = Version::ZERO;
        for number in 0..300 {
            version = publish(&tier, &removal(&number.to_string())).await;
        }
        assert!(server.command(&["XLEN", "{larder}:stream"]).integer() < 300, "it was trimmed");
        let mut subscription = subscribe(&tier, Some(position)).await;
        let head = BusPosition { epoch: position.epoch, sequence: position.sequence + 300 };
        // Whoever subscribes anew does not know whether it is the same server.
        let lost = BusEvent::Lost { head, version, is_intact: false };
        assert_eq!(next(&mut subscription).await, lost);
        publish(&tier, &removal("after")).await;
        assert_eq!(message(&mut subscription).await.announcement, removal("after"));
    });
}

#[test]
fn a_position_of_another_epoch_cannot_be_continued() {
    block_on(async {
        let server = RedisServer::start();
        let tier = connect(&server).await;
        publish(&tier, &removal("first")).await;
        let (_, head, _) = until_current(&mut subscribe(&tier, None).await).await;
        let other = BusPosition { epoch: head.epoch ^ 1, ..head };
        let mut subscription = subscribe(&tier, Some(other)).await;
        let event = next(&mut subscription).await;
        assert!(matches!(event, BusEvent::Lost { head: at, .. } if at == head), "{event:?}");
        let ahead = BusPosition { sequence: head.sequence + 5, ..head };
        let event = next(&mut subscribe(&tier, Some(ahead)).await).await;
        assert!(matches!(event, BusEvent::Lost { .. }), "{event:?}");
    });
}

#[test]
fn a_server_emptied_is_told_as_lost_although_nobody_announces_anything() {
    block_on(async {
        let server = RedisServer::start();
        let (tier, other) = (connect(&server).await, connect(&server).await);
        let (mut here, mut there) = (subscribe(&tier, None).await, subscribe(&other, None).await);
        let version = publish(&tier, &removal("a")).await;
        let epoch = message(&mut here).await.position.epoch;
        message(&mut there).await;
        server.command(&["FLUSHALL"]);
        for subscription in [&mut here, &mut there] {
            let event = news(subscription).await;
            let BusEvent::Lost { head, version: now, is_intact: false } = event else {
                panic!("{event:?}")
            };
            assert_ne!(head.epoch, epoch);
            assert!(now > version, "{now} after {version}");
        }
        let next = publish(&other, &removal("b")).await;
        assert!(next > version);
        let heard = [message(&mut here).await, message(&mut there).await];
        assert_eq!(heard[0], heard[1]);
        assert_eq!(heard[0].version, next);
    });
}

#[test]
fn a_server_that_comes_back_empty_is_told_as_lost() {
    block_on(async {
        let server = RedisServer::start();
        let tier = connect(&server).await;
        let mut subscription = subscribe(&tier, None).await;
        let version = publish(&tier, &removal("a")).await;
        message(&mut subscription).await;
        server.restart(AfterRestart::Empty);
        assert_eq!(news(&mut subscription).await, BusEvent::Reconnected);
        let event = news(&mut subscription).await;
        let BusEvent::Lost { version: now, .. } = event else { panic!("{event:?}") };
        assert!(now > version);
        assert!(publish(&tier, &removal("b")).await > version);
        assert_eq!(message(&mut subscription).await.announcement, removal("b"));
    });
}

#[test]
fn a_server_that_comes_back_with_its_data_has_lost_nothing() {
    block_on(async {
        let server = RedisServer::start();
        let tier = connect(&server).await;
        let mut subscription = subscribe(&tier, None).await;
        let first = publish(&tier, &removal("a")).await;
        message(&mut subscription).await;
        server.restart(AfterRestart::WithData);
        assert_eq!(news(&mut subscription).await, BusEvent::Reconnected);
        let second = publish(&tier, &removal("b")).await;
        assert!(second > first);
        assert_eq!(message(&mut subscription).await.version, second);
    });
}

/// The stream is the truth, pushes only save the wait: the loss of the last
/// message is seen although no other follows.
#[test]
fn a_message_that_was_not_pushed_is_heard_at_the_next_heartbeat() {
    block_on(async {
        let server = RedisServer::start();
        let tier = connect(&server).await;
        let mut subscription = subscribe(&tier, None).await;
        let (_, head, version) = until_current(&mut subscription).await;
        let template = publish(&tier, &removal("a")).await;
        assert!(template > version);
        let sequence = message(&mut subscription).await.position.sequence;
        assert_eq!(sequence, head.sequence + 1);
        let stream = server.command(&["XRANGE", "{larder}:stream", "-", "+"]);
        let fields = &stream.items()[0].items()[1];
        let larder_testkit::redis::Reply::Bulk(announcement) = &fields.items()[3] else {
            panic!("{fields:?}")
        };
        let (id, next_version) = (format!("{}-5", sequence + 1), (template.get() + 1).to_string());
        let next_sequence = (sequence + 1).to_string();
        let parts: [&[u8]; 7] = [
            b"XADD",
            b"{larder}:stream",
            id.as_bytes(),
            b"version",
            next_version.as_bytes(),
            b"announcement",
            announcement,
        ];
        server.command(&parts);
        let clock = ["HSET", "{larder}:clock", "sequence", &next_sequence, "last", &id];
        server.command(&[&clock[..], &["version", &next_version]].concat());
        let heard = message(&mut subscription).await;
        assert_eq!(heard.position.sequence, sequence + 1);
        assert_eq!(heard.announcement, removal("a"));
        let current = next(&mut subscription).await;
        assert!(matches!(current, BusEvent::Current { .. }), "{current:?}");
    });
}

#[test]
fn an_announcement_of_a_later_format_may_have_touched_anything() {
    block_on(async {
        let server = RedisServer::start();
        let tier = connect(&server).await;
        let mut subscription = subscribe(&tier, None).await;
        let (_, head, version) = until_current(&mut subscription).await;
        let id = format!("{}-5", head.sequence + 1);
        let number = (head.sequence + 1).to_string();
        let next_version = (version.get() + 1).to_string();
        let add =
            ["XADD", "{larder}:stream", &id, "version", &next_version, "announcement", "\x02?"];
        server.command(&add);
        let clock = ["HSET", "{larder}:clock", "sequence", &number, "last", &id];
        server.command(&[&clock[..], &["version", &next_version]].concat());
        let event = news(&mut subscription).await;
        assert!(
            matches!(event, BusEvent::Lost { head: at, .. } if at.sequence == head.sequence + 1),
            "{event:?}"
        );
        publish(&tier, &removal("after")).await;
        assert_eq!(message(&mut subscription).await.announcement, removal("after"));
    });
}

#[test]
fn a_node_without_traffic_costs_four_messages_a_second() {
    block_on(async {
        let server = RedisServer::start();
        let mut options = options(&server);
        options.heartbeat = larder_redis::RedisOptions::new("redis://h").heartbeat;
        let tier = larder_redis::RedisTier::connect(options).await.expect("the server runs");
        let mut subscription = subscribe(&tier, None).await;
        until_current(&mut subscription).await;
        let mut monitor = server.connect().expect("it runs");
        monitor.send(&["MONITOR"]).expect("it runs");
        monitor.set_patience(Duration::from_millis(50)).expect("it can be set");
        let start = Instant::now();
        let mut requests = 0;
        while start.elapsed() < Duration::from_secs(4) {
            // What scripts do inside the server is marked; it costs no message.
            if let Ok(line) = monitor.read()
                && line.text() != "OK"
                && !line.text().contains(" lua]")
            {
                requests += 1;
            }
        }
        assert!((4..=9).contains(&requests), "{requests} requests in 4 s, each with an answer");
    });
}

#[test]
fn a_subscriber_that_does_not_listen_loses_nothing() {
    block_on(async {
        let server = RedisServer::start();
        let tier = connect(&server).await;
        let mut subscription = subscribe(&tier, None).await;
        for number in 0..6000 {
            publish(&tier, &tagged(&(number % 7).to_string())).await;
        }
        for number in 0..6000 {
            let heard = message(&mut subscription).await;
            assert_eq!(heard.announcement, tagged(&(number % 7).to_string()));
        }
        until_current(&mut subscription).await;
    });
}
