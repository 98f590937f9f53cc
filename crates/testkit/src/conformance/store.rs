//! What every [`Store`] must do. Each function is one case and expects a store
//! that no other case uses, or uses keys of its own in a shared one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_core::{
    Class, ErrorKind, Key, Mark, PutCondition, PutOutcome, Store, StoredEntry, Tag, Tags, Ttl,
    Value, Verb, Version,
};

/// Runs every case of the suite as a test of its own against a new store.
///
/// The second argument is an expression for a future that makes the store; it
/// runs inside the test's runtime, once for each case.
///
/// ```no_run
/// # use larder_core::Clock;
/// # use larder_testkit::faulty::FaultyStore;
/// larder_testkit::store_conformance!(in_memory, async { FaultyStore::new(Clock::monotonic()) });
/// ```
#[macro_export]
macro_rules! store_conformance {
    ($name:ident, $store:expr) => {
        $crate::store_conformance! { @cases $name, $store,
            missing_keys_are_none
            every_field_is_read_back
            answers_come_in_the_order_asked
            keys_and_values_are_any_bytes
            an_age_goes_on_growing
            only_a_newer_version_replaces
            of_one_version_the_younger_replaces
            a_vacant_put_needs_a_vacancy
            the_newest_of_a_batch_stays
            a_removal_hides_and_refuses_what_is_older
            a_removal_leaves_what_is_newer
            what_was_put_at_the_version_of_a_removal_stays
            what_expired_is_read_but_not_fresh
            watermarks_only_rise
            nothing_to_do_is_done
            the_newest_of_many_writers_stays
            a_thousand_keys_are_one_batch
            an_invalidation_wins_over_every_older_put_beside_it
            what_expires_beside_older_puts_is_not_fresh
            tags_are_any_text
            a_value_over_the_limit_is_refused
        }
    };
    (@cases $name:ident, $store:expr, $($case:ident)*) => {
        mod $name {
            #[allow(unused_imports, reason = "the expression may name what its module imports")]
            use super::*;
            $(
                #[test]
                fn $case() {
                    $crate::conformance::block_on(async {
                        $crate::conformance::store::$case($store.await).await;
                    });
                }
            )*
        }
    };
}

/// An entry with this text as its value, this version, and nothing special.
#[must_use]
pub fn entry(text: &str, version: u64) -> StoredEntry {
    StoredEntry {
        value: Value::Present(Bytes::copy_from_slice(text.as_bytes())),
        codec: 0,
        version: Version::new(version),
        age: Duration::ZERO,
        fresh_for: Ttl::secs(60),
        stale_for: Ttl::secs(60),
        load_cost: Duration::from_millis(2),
        tags: Tags::NONE,
        class: Class::Public,
    }
}

/// What is not there is not an error.
pub async fn missing_keys_are_none<S: Store>(store: S) {
    let key = Key::new("conformance:missing");
    assert_eq!(store.get(&key).await.expect("a read"), None);
    let many = store.get_many(&[key.clone(), key]).await.expect("a read");
    assert_eq!(many, [None, None]);
}

/// Present and absent values, tags, class and limits all survive.
pub async fn every_field_is_read_back<S: Store>(store: S) {
    let mut full = entry("value", 7);
    full.codec = 129;
    full.fresh_for = Ttl::secs(300);
    full.stale_for = Ttl::secs(7200);
    full.load_cost = Duration::from_micros(1500);
    full.tags = Tags::new(["artist:miles", "label:columbia"]);
    let mut unlimited = entry("", 8);
    unlimited.fresh_for = Ttl::Forever;
    unlimited.stale_for = Ttl::Forever;
    let mut absent = entry("", 9);
    absent.value = Value::Absent;
    for (name, put) in [("full", full), ("unlimited", unlimited), ("absent", absent)] {
        let key = Key::new(format!("conformance:fields:{name}"));
        put_one(&store, &key, put.clone()).await;
        let read = get_one(&store, &key).await.expect("it was put");
        assert_eq!(StoredEntry { age: put.age, ..read }, put, "{name}");
    }
}

/// Also when keys are missing or asked twice.
pub async fn answers_come_in_the_order_asked<S: Store>(store: S) {
    let keys: Vec<Key> = (0..100).map(|n| Key::new(format!("conformance:order:{n}"))).collect();
    let entries: Vec<(Key, StoredEntry)> =
        keys.iter().step_by(2).map(|key| (key.clone(), entry(&key.to_string(), 1))).collect();
    let outcomes = store.put_many(&entries, PutCondition::NewerThanHeld).await.expect("a put");
    assert_eq!(outcomes, vec![PutOutcome::Stored; entries.len()]);
    let asked: Vec<Key> = keys.iter().rev().chain(keys.iter()).cloned().collect();
    let answers = store.get_many(&asked).await.expect("a read");
    assert_eq!(answers.len(), asked.len());
    for (key, answer) in asked.iter().zip(answers) {
        let was_put = entries.iter().any(|(put, _)| put == key);
        let expected = was_put.then(|| Value::Present(Bytes::from(key.to_string())));
        assert_eq!(answer.map(|entry| entry.value), expected, "{key}");
    }
}

/// No byte is special in a key or a value, and a value may be empty or long.
pub async fn keys_and_values_are_any_bytes<S: Store>(store: S) {
    let every_byte: Vec<u8> = (0..=255).collect();
    let longest = store.capabilities().value_bytes_max.unwrap_or(usize::MAX).min(1 << 20);
    let long: Vec<u8> = (0..longest).map(|n| (n % 251) as u8).collect();
    for (key, value) in [
        (every_byte.clone(), every_byte.clone()),
        (b"conformance:\r\n \0".to_vec(), Vec::new()),
        (b"conformance:long".to_vec(), long),
    ] {
        let mut put = entry("", 1);
        put.value = Value::Present(Bytes::from(value));
        let key = Key::new(key);
        put_one(&store, &key, put.clone()).await;
        let read = get_one(&store, &key).await.expect("it was put");
        assert!(read.value == put.value, "{key}: other bytes came back than were put");
    }
}

/// A hit must never make an entry younger.
pub async fn an_age_goes_on_growing<S: Store>(store: S) {
    let key = Key::new("conformance:age");
    let mut put = entry("value", 1);
    put.age = Duration::from_secs(30);
    put_one(&store, &key, put).await;
    let first = get_one(&store, &key).await.expect("it was put").age;
    assert!(first >= Duration::from_secs(30), "it came back younger: {first:?}");
    assert!(first < Duration::from_secs(60), "it aged too fast: {first:?}");
    let second = get_one(&store, &key).await.expect("it is still there").age;
    assert!(second >= first, "{second:?} after {first:?}");
}

/// An older version is refused, and one that is equal and no younger. The
/// refusal names what is held.
pub async fn only_a_newer_version_replaces<S: Store>(store: S) {
    let key = Key::new("conformance:newer");
    put_one(&store, &key, entry("five", 5)).await;
    for (version, expected) in [
        (4, PutOutcome::Refused(Version::new(5))),
        (5, PutOutcome::Refused(Version::new(5))),
        (6, PutOutcome::Stored),
    ] {
        let mut other = entry("other", version);
        other.age = Duration::from_secs(1);
        let put = [(key.clone(), other)];
        let outcome = store.put_many(&put, PutCondition::NewerThanHeld).await.expect("a put");
        assert_eq!(outcome, [expected], "version {version} over version 5");
    }
    assert_eq!(get_one(&store, &key).await.map(|held| held.version), Some(Version::new(6)));
}

/// Where nothing was invalidated between two loads, both have one version.
pub async fn of_one_version_the_younger_replaces<S: Store>(store: S) {
    let key = Key::new("conformance:younger");
    let mut old = entry("old", 5);
    old.age = Duration::from_secs(30);
    put_one(&store, &key, old).await;
    put_one(&store, &key, entry("young", 5)).await;
    let held = get_one(&store, &key).await.expect("it was put");
    assert_eq!(held.value, Value::Present(Bytes::from_static(b"young")));
    assert!(held.age < Duration::from_secs(30), "{:?}", held.age);
}

/// Over anything, however old, it is refused.
pub async fn a_vacant_put_needs_a_vacancy<S: Store>(store: S) {
    let key = Key::new("conformance:vacant");
    for (version, expected) in [
        (5, PutOutcome::Stored),
        (6, PutOutcome::Refused(Version::new(5))),
        (4, PutOutcome::Refused(Version::new(5))),
    ] {
        let put = [(key.clone(), entry("value", version))];
        let outcome = store.put_many(&put, PutCondition::Vacant).await.expect("a put");
        assert_eq!(outcome, [expected], "version {version}");
    }
}

/// A key may stand more than once in a batch.
pub async fn the_newest_of_a_batch_stays<S: Store>(store: S) {
    let key = Key::new("conformance:batch");
    let put = [
        (key.clone(), entry("two", 2)),
        (key.clone(), entry("three", 3)),
        (key.clone(), entry("one", 1)),
    ];
    let outcomes = store.put_many(&put, PutCondition::NewerThanHeld).await.expect("a put");
    assert_eq!(outcomes.len(), 3);
    assert_eq!(get_one(&store, &key).await.map(|held| held.version), Some(Version::new(3)));
}

/// What was loaded before the removal must not come back.
pub async fn a_removal_hides_and_refuses_what_is_older<S: Store>(store: S) {
    let held = Key::new("conformance:removed:held");
    let never_held = Key::new("conformance:removed:never-held");
    put_one(&store, &held, entry("value", 5)).await;
    let keys = [held, never_held];
    store.invalidate_many(&keys, Version::new(9), Verb::Remove).await.expect("a removal");
    store.invalidate_many(&keys, Version::new(7), Verb::Remove).await.expect("a late removal");
    for key in &keys {
        assert_eq!(get_one(&store, key).await, None, "{key}");
        for condition in [PutCondition::NewerThanHeld, PutCondition::Vacant] {
            let put = [(key.clone(), entry("late", 8))];
            let outcome = store.put_many(&put, condition).await.expect("a put");
            assert!(
                matches!(outcome[..], [PutOutcome::Refused(_)]),
                "{key}: {condition:?} of version 8 over a removal at 9 gave {outcome:?}"
            );
        }
        put_one(&store, key, entry("new", 10)).await;
        assert_eq!(get_one(&store, key).await.map(|entry| entry.version), Some(Version::new(10)));
    }
}

/// Removals that were overtaken on the way change nothing.
pub async fn a_removal_leaves_what_is_newer<S: Store>(store: S) {
    let key = Key::new("conformance:removed:newer");
    put_one(&store, &key, entry("value", 5)).await;
    for verb in [Verb::Remove, Verb::Expire] {
        let keys = std::slice::from_ref(&key);
        store.invalidate_many(keys, Version::new(4), verb).await.expect("it is invalidated");
        let held = get_one(&store, &key).await.expect("it is newer");
        assert_eq!((held.version, held.fresh_for), (Version::new(5), Ttl::secs(60)), "{verb:?}");
    }
}

/// Whoever writes announces a change first, and then puts with its version.
pub async fn what_was_put_at_the_version_of_a_removal_stays<S: Store>(store: S) {
    let key = Key::new("conformance:removed:equal");
    let keys = std::slice::from_ref(&key);
    store.invalidate_many(keys, Version::new(5), Verb::Remove).await.expect("a removal");
    put_one(&store, &key, entry("written", 5)).await;
    assert_eq!(get_one(&store, &key).await.map(|held| held.version), Some(Version::new(5)));
    // Also when the removal is told once more, or late.
    for verb in [Verb::Remove, Verb::Expire] {
        store.invalidate_many(keys, Version::new(5), verb).await.expect("a late removal");
        let held = get_one(&store, &key).await.expect("it is not older");
        assert_eq!((held.version, held.fresh_for), (Version::new(5), Ttl::secs(60)), "{verb:?}");
    }
    let late = [(key.clone(), entry("late", 4))];
    let outcome = store.put_many(&late, PutCondition::NewerThanHeld).await.expect("a put");
    assert!(matches!(outcome[..], [PutOutcome::Refused(_)]), "{outcome:?}");
}

/// It may be served stale, and what was loaded before it expired is refused.
pub async fn what_expired_is_read_but_not_fresh<S: Store>(store: S) {
    let key = Key::new("conformance:expired");
    put_one(&store, &key, entry("value", 5)).await;
    let keys = std::slice::from_ref(&key);
    store.invalidate_many(keys, Version::new(9), Verb::Expire).await.expect("it expires");
    let held = get_one(&store, &key).await.expect("it may be served stale");
    assert_eq!(held.value, Value::Present(Bytes::from_static(b"value")));
    assert_eq!((held.fresh_for, held.stale_for), (Ttl::For(Duration::ZERO), Ttl::secs(60)));
    let late = [(key.clone(), entry("late", 8))];
    let outcome = store.put_many(&late, PutCondition::NewerThanHeld).await.expect("a put");
    assert!(matches!(outcome[..], [PutOutcome::Refused(_)]), "{outcome:?}");
    put_one(&store, &key, entry("new", 9)).await;
    let held = get_one(&store, &key).await.expect("it was put");
    assert_eq!((held.version, held.fresh_for), (Version::new(9), Ttl::secs(60)));
}

/// Each tag has a watermark for each verb, and so has the whole cache.
pub async fn watermarks_only_rise<S: Store>(store: S) {
    let mark = |tag: Option<&str>, verb, version| Mark {
        tag: tag.map(Tag::new),
        verb,
        version: Version::new(version),
    };
    store.mark(&[]).await.expect("nothing to do");
    let first = [
        mark(Some("artist:miles"), Verb::Remove, 7),
        mark(Some("artist:miles"), Verb::Expire, 9),
        mark(None, Verb::Remove, 3),
    ];
    store.mark(&first).await.expect("they are marked");
    let second = [
        mark(Some("artist:miles"), Verb::Remove, 6),
        mark(Some("label\r\n\0"), Verb::Remove, 8),
        mark(None, Verb::Remove, 4),
    ];
    store.mark(&second).await.expect("they are marked");
    let mut marks = store.marks().await.expect("the watermarks");
    marks.sort_by_key(|mark| mark.version);
    let expected = [
        mark(None, Verb::Remove, 4),
        mark(Some("artist:miles"), Verb::Remove, 7),
        mark(Some("label\r\n\0"), Verb::Remove, 8),
        mark(Some("artist:miles"), Verb::Expire, 9),
    ];
    assert_eq!(marks, expected);
}

/// Empty batches succeed.
pub async fn nothing_to_do_is_done<S: Store>(store: S) {
    assert_eq!(store.get_many(&[]).await.expect("a read"), []);
    assert_eq!(store.put_many(&[], PutCondition::NewerThanHeld).await.expect("a put"), []);
    store.invalidate_many(&[], Version::new(1), Verb::Remove).await.expect("a removal");
}

/// Versions are compared and written in one step.
pub async fn the_newest_of_many_writers_stays<S: Store>(store: S) {
    const WRITERS: u64 = 32;
    let store = Arc::new(store);
    let key = Key::new("conformance:writers");
    let writers: Vec<_> = (1..=WRITERS)
        .map(|number| {
            let (store, key) = (Arc::clone(&store), key.clone());
            // A permutation, so that new versions do not all arrive last.
            let version = number * 19 % (WRITERS + 1);
            tokio::spawn(async move {
                let put = [(key, entry("value", version))];
                store.put_many(&put, PutCondition::NewerThanHeld).await
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("the writer ends").expect("a put");
    }
    let held = store.get(&key).await.expect("a read").expect("they wrote");
    assert_eq!(held.version, Version::new(WRITERS));
}

/// Batches are not cut off, mixed up or refused.
pub async fn a_thousand_keys_are_one_batch<S: Store>(store: S) {
    const COUNT: usize = 1_000;
    let keys: Vec<Key> =
        (0..COUNT).map(|n| Key::new(format!("conformance:thousand:{n}"))).collect();
    let entries: Vec<(Key, StoredEntry)> =
        keys.iter().map(|key| (key.clone(), entry(&key.to_string(), 5))).collect();
    let outcomes = store.put_many(&entries, PutCondition::NewerThanHeld).await.expect("a put");
    assert_eq!(outcomes, [PutOutcome::Stored; COUNT]);
    let read = store.get_many(&keys).await.expect("a read");
    assert_eq!(read.len(), COUNT);
    for (key, held) in keys.iter().zip(read) {
        let expected = Value::Present(Bytes::from(key.to_string()));
        assert_eq!(held.map(|held| held.value), Some(expected), "{key}");
    }
    let (removed, kept) = keys.split_at(COUNT / 2);
    store.invalidate_many(removed, Version::new(9), Verb::Remove).await.expect("a removal");
    let read = store.get_many(&keys).await.expect("a read");
    let held = read.iter().filter(|held| held.is_some()).count();
    assert_eq!((held, read[..removed.len()].iter().flatten().count()), (kept.len(), 0));
    let late: Vec<(Key, StoredEntry)> =
        keys.iter().map(|key| (key.clone(), entry("late", 4))).collect();
    let outcomes = store.put_many(&late, PutCondition::NewerThanHeld).await.expect("a put");
    let refused = |outcome: &&PutOutcome| matches!(outcome, PutOutcome::Refused(_));
    assert_eq!(outcomes.iter().filter(refused).count(), COUNT, "what is late is refused");
}

/// Whichever comes first: a load that began before a removal is not kept after
/// it, and one that began after it is.
pub async fn an_invalidation_wins_over_every_older_put_beside_it<S: Store>(store: S) {
    let store = invalidate_beside_puts(store, Verb::Remove, "raced:removed").await;
    for number in 0..RACES {
        let key = Key::new(format!("conformance:raced:removed:{number}"));
        let held = get_one(&*store, &key).await.map(|held| held.version);
        let expected = (number % 2 == 1).then_some(Version::new(NEWER));
        assert_eq!(held, expected, "{key} after a removal at {INVALIDATED_AT}");
    }
}

/// The same of what may be served stale.
pub async fn what_expires_beside_older_puts_is_not_fresh<S: Store>(store: S) {
    let store = invalidate_beside_puts(store, Verb::Expire, "raced:expired").await;
    for number in 0..RACES {
        let key = Key::new(format!("conformance:raced:expired:{number}"));
        // What came late is refused, so that nothing need be there.
        let Some(held) = get_one(&*store, &key).await else { continue };
        let is_fresh = held.fresh_for != Ttl::For(Duration::ZERO);
        let is_newer = held.version == Version::new(NEWER);
        assert_eq!(is_fresh, is_newer, "{key}: {held:?} after it expired at {INVALIDATED_AT}");
        assert_eq!(is_newer, number % 2 == 1, "{key}: {held:?}");
    }
}

/// Of entries and of watermarks alike.
pub async fn tags_are_any_text<S: Store>(store: S) {
    let long = "é".repeat(500);
    let names =
        ["", " ", "\0\r\n", "artist:{miles}", "*?[a]", "e\u{301}", "é", "\u{10FFFF}", &long];
    let key = Key::new("conformance:tags");
    let mut put = entry("value", 1);
    put.tags = Tags::new(names);
    put_one(&store, &key, put.clone()).await;
    let held = get_one(&store, &key).await.expect("it was put");
    assert_eq!(held.tags, put.tags);
    let mut marks: Vec<Mark> = (1..)
        .zip(names)
        .map(|(version, name)| Mark {
            tag: Some(Tag::new(name)),
            verb: Verb::Remove,
            version: Version::new(version),
        })
        .collect();
    // The whole cache is something else than the tag without a name.
    marks.push(Mark { tag: None, verb: Verb::Remove, version: Version::new(100) });
    store.mark(&marks).await.expect("they are marked");
    let mut held = store.marks().await.expect("the watermarks");
    held.sort_by_key(|mark| mark.version);
    assert_eq!(held, marks);
}

/// How many keys are raced for, and the versions that meet there.
const RACES: u64 = 24;
const OLDER: u64 = 5;
const INVALIDATED_AT: u64 = 7;
const NEWER: u64 = 9;

/// Invalidates keys while others put what is older; and, of every second key,
/// what is newer.
async fn invalidate_beside_puts<S: Store>(store: S, verb: Verb, name: &str) -> Arc<S> {
    let store = Arc::new(store);
    let mut tasks = Vec::new();
    for number in 0..RACES {
        let key = Key::new(format!("conformance:{name}:{number}"));
        let put = |version| {
            let (store, key) = (Arc::clone(&store), key.clone());
            tokio::spawn(async move {
                let put = [(key, entry("value", version))];
                store.put_many(&put, PutCondition::NewerThanHeld).await.expect("a put");
            })
        };
        let invalidate = || {
            let (store, key) = (Arc::clone(&store), key.clone());
            tokio::spawn(async move {
                let at = Version::new(INVALIDATED_AT);
                store.invalidate_many(&[key], at, verb).await.expect("it is invalidated");
            })
        };
        // Not always in the same order.
        if number % 4 < 2 {
            tasks.extend([put(OLDER), invalidate(), put(OLDER)]);
        } else {
            tasks.extend([invalidate(), put(OLDER), put(OLDER)]);
        }
        if number % 2 == 1 {
            tasks.push(put(NEWER));
        }
    }
    for task in tasks {
        task.await.expect("the task ends");
    }
    store
}

/// And not cut off. A store without a limit has nothing to show here.
pub async fn a_value_over_the_limit_is_refused<S: Store>(store: S) {
    let Some(limit) = store.capabilities().value_bytes_max else { return };
    let key = Key::new("conformance:limit");
    let mut put = entry("", 1);
    put.value = Value::Present(Bytes::from(vec![b'x'; limit + 1]));
    let put = [(key.clone(), put)];
    let error = store.put_many(&put, PutCondition::NewerThanHeld).await.expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(get_one(&store, &key).await, None);
}

async fn put_one<S: Store>(store: &S, key: &Key, entry: StoredEntry) {
    let put = [(key.clone(), entry)];
    let outcome = store.put_many(&put, PutCondition::NewerThanHeld).await.expect("a put");
    assert_eq!(outcome, [PutOutcome::Stored], "{key}");
}

async fn get_one<S: Store>(store: &S, key: &Key) -> Option<StoredEntry> {
    store.get(key).await.expect("a read")
}
