//! What every [`Journal`] must do. Each function is one case and expects a journal
//! that nobody else uses.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_core::{
    Action, DeadLetter, Death, DeathCause, ErrorKind, Expected, Journal, JournalEntry,
    JournalOffset, JournalRecord, Key, Version, Write,
};

/// A journal that can be closed and opened again on what it left.
pub trait JournalHome: Send + Sized + 'static {
    /// The journal.
    type Journal: Journal;

    /// The journal, open. It has at least four lanes.
    fn journal(&self) -> Arc<Self::Journal>;

    /// Closes it and opens it again, as another process would. Handles of before
    /// are of no use any more.
    fn restart(self) -> impl Future<Output = Self> + Send;
}

/// Runs every case of the suite as a test of its own against a new journal.
///
/// The second argument is an expression for a future that makes the
/// [`JournalHome`]; it runs inside the test's runtime, once for each case.
#[macro_export]
macro_rules! journal_conformance {
    ($name:ident, $home:expr) => {
        $crate::journal_conformance! { @cases $name, $home,
            offsets_grow_by_one_in_each_lane
            records_read_back_as_they_were_written
            a_lane_is_read_from_any_place_in_pieces
            what_is_trimmed_is_gone_and_no_place_is_given_twice
            each_claim_has_a_later_epoch_and_an_old_owner_is_refused
            what_is_buried_is_a_letter_and_read_no_more
            a_letter_outlives_a_trim_and_can_be_dropped
            a_replay_is_a_new_record_and_the_letter_is_gone
            of_many_who_replay_a_letter_one_does
            appends_side_by_side_are_there_once_and_in_order
            everything_survives_a_restart
            a_record_grows_older
            what_is_wrong_is_refused_and_leaves_nothing
        }
    };
    (@cases $name:ident, $home:expr, $($case:ident)*) => {
        mod $name {
            #[allow(unused_imports, reason = "the expression may name what its module imports")]
            use super::*;
            $(
                #[test]
                fn $case() {
                    $crate::conformance::block_on(async {
                        $crate::conformance::journal::$case($home.await).await;
                    });
                }
            )*
        }
    };
}

/// From 1, without gaps, each lane for itself; a batch is one append.
pub async fn offsets_grow_by_one_in_each_lane<H: JournalHome>(home: H) {
    let journal = home.journal();
    for (lane, count, last) in [(0, 1, 1), (1, 3, 3), (0, 2, 3), (1, 1, 4), (3, 1, 1)] {
        let records: Vec<_> = (0..count).map(put).collect();
        let offset = journal.append(lane, &records).await.expect("it is accepted");
        assert_eq!(offset, JournalOffset(last), "lane {lane}");
    }
}

/// Every action and expectation, keys and values of any bytes.
pub async fn records_read_back_as_they_were_written<H: JournalHome>(home: H) {
    let journal = home.journal();
    let every_byte: Vec<u8> = (0..=255).collect();
    let key = || Key::new(&every_byte);
    let actions = [
        Action::Put(Bytes::from(every_byte.clone())),
        Action::Put(Bytes::new()),
        Action::Remove,
        Action::Patch(Bytes::from_static(b"{\"a\":1}")),
        Action::Add { field: "größe".into(), by: "-12.50".parse().expect("a number") },
    ];
    let expectations = [
        Expected::Anything,
        Expected::Absent,
        Expected::Present,
        Expected::Version(Version::new(u64::MAX)),
    ];
    let mut records = Vec::new();
    for action in actions {
        for expected in expectations {
            let write = Write::new(key(), action.clone()).expecting(expected);
            let version = Version::new(records.len() as u64);
            records.push(JournalRecord {
                cache: "käse".into(),
                write,
                version,
                age: Duration::ZERO,
            });
        }
    }
    journal.append(2, &records).await.expect("it is accepted");
    let found = all(&*journal, 2).await;
    assert_eq!(found.len(), records.len());
    for (entry, record) in found.iter().zip(&records) {
        assert_eq!((&entry.record.write, &entry.record.cache), (&record.write, &record.cache));
        assert_eq!(entry.record.version, record.version);
    }
}

/// Nothing twice, nothing left out, at most as many as asked for.
pub async fn a_lane_is_read_from_any_place_in_pieces<H: JournalHome>(home: H) {
    let journal = home.journal();
    for value in 1..=50 {
        journal.append(1, &[put(value)]).await.expect("it is accepted");
    }
    for piece in [1, 7, 50, 1000] {
        let mut after = JournalOffset::START;
        let mut found = Vec::new();
        loop {
            let entries = journal.read(1, after, piece).await.expect("a read");
            assert!(entries.len() <= piece);
            let Some(last) = entries.last() else { break };
            after = last.offset;
            found.extend(entries.iter().map(value));
        }
        assert_eq!(found, (1..=50).collect::<Vec<_>>(), "in pieces of {piece}");
    }
    assert!(journal.read(1, JournalOffset(u64::MAX), 5).await.expect("a read").is_empty());
    assert!(journal.read(1, JournalOffset::START, 0).await.expect("a read").is_empty());
    assert!(all(&*journal, 0).await.is_empty());
}

/// Also when all is trimmed, and over a restart. An older trim changes nothing.
pub async fn what_is_trimmed_is_gone_and_no_place_is_given_twice<H: JournalHome>(home: H) {
    let journal = home.journal();
    let epoch = journal.claim(0).await.expect("a claim").epoch;
    for value in 1..=5 {
        journal.append(0, &[put(value)]).await.expect("it is accepted");
    }
    journal.trim(0, epoch, JournalOffset(3)).await.expect("trimmed");
    journal.trim(0, epoch, JournalOffset(2)).await.expect("that was trimmed before");
    assert_eq!(values(&*journal, 0).await, [4, 5]);
    journal.trim(0, epoch, JournalOffset(5)).await.expect("trimmed");
    assert_eq!(journal.usage().records, 0);
    let home = home.restart().await;
    let journal = home.journal();
    let claim = journal.claim(0).await.expect("a claim");
    assert_eq!((claim.trimmed, claim.last), (JournalOffset(5), JournalOffset(5)));
    assert_eq!(journal.append(0, &[put(6)]).await.expect("accepted"), JournalOffset(6));
}

/// Within a process and over restarts.
pub async fn each_claim_has_a_later_epoch_and_an_old_owner_is_refused<H: JournalHome>(home: H) {
    let journal = home.journal();
    let last = journal.append(0, &[put(1)]).await.expect("it is accepted");
    let first = journal.claim(0).await.expect("a claim");
    assert_eq!(first.last, last);
    let second = journal.claim(0).await.expect("a claim").epoch;
    assert!(second > first.epoch);
    let death = Death::new(last, DeathCause::Refused, "no");
    let trimmed = journal.trim(0, first.epoch, last).await.expect_err("another owns it");
    let buried = journal.bury(0, first.epoch, &[death]).await.expect_err("another owns it");
    assert_eq!((trimmed.kind(), buried.kind()), (ErrorKind::Conflict, ErrorKind::Conflict));
    assert_eq!(values(&*journal, 0).await, [1]);
    let home = home.restart().await;
    assert!(home.journal().claim(0).await.expect("a claim").epoch > second);
}

/// It keeps its first reason; one that is not there is passed over.
pub async fn what_is_buried_is_a_letter_and_read_no_more<H: JournalHome>(home: H) {
    let journal = home.journal();
    let epoch = journal.claim(2).await.expect("a claim").epoch;
    let records: Vec<_> = (1..=4).map(put).collect();
    journal.append(2, &records).await.expect("it is accepted");
    let death = |offset, cause, reason| Death::new(JournalOffset(offset), cause, reason);
    let deaths = [
        death(2, DeathCause::Conflict, "first"),
        death(4, DeathCause::Missing, ""),
        death(99, DeathCause::Refused, "not there"),
    ];
    journal.bury(2, epoch, &deaths).await.expect("buried");
    let again = [death(2, DeathCause::Refused, "second")];
    journal.bury(2, epoch, &again).await.expect("it is buried already");
    assert_eq!(values(&*journal, 2).await, [1, 3]);
    let letters = letters(&*journal, 2).await;
    let found: Vec<_> = letters.iter().map(|letter| letter.death.clone()).collect();
    assert_eq!(found, deaths[..2]);
    assert_eq!(letters[0].record.write, put(2).write);
    assert_eq!(letters[0].lane, 2);
    let usage = journal.usage();
    assert_eq!((usage.records, usage.dead_letters), (2, 2));
    let behind_first = journal.dead_letters(2, JournalOffset(2), 10).await.expect("a list");
    assert_eq!(behind_first.len(), 1);
}

/// Dropping says how many there were.
pub async fn a_letter_outlives_a_trim_and_can_be_dropped<H: JournalHome>(home: H) {
    let journal = home.journal();
    let epoch = journal.claim(1).await.expect("a claim").epoch;
    let records: Vec<_> = (1..=4).map(put).collect();
    journal.append(1, &records).await.expect("it is accepted");
    let deaths = [2, 3].map(|offset| Death::new(JournalOffset(offset), DeathCause::Refused, "no"));
    journal.bury(1, epoch, &deaths).await.expect("buried");
    journal.trim(1, epoch, JournalOffset(4)).await.expect("trimmed");
    assert_eq!(letters(&*journal, 1).await.len(), 2);
    let home = home.restart().await;
    let journal = home.journal();
    assert_eq!(letters(&*journal, 1).await.len(), 2);
    let asked = [JournalOffset(2), JournalOffset(1), JournalOffset(2)];
    assert_eq!(journal.drop_letters(1, &asked).await.expect("dropped"), 1);
    assert_eq!(letters(&*journal, 1).await[0].death.offset, JournalOffset(3));
    let home = home.restart().await;
    assert_eq!(letters(&*home.journal(), 1).await.len(), 1);
}

/// As it was, or something else instead.
pub async fn a_replay_is_a_new_record_and_the_letter_is_gone<H: JournalHome>(home: H) {
    let journal = home.journal();
    let epoch = journal.claim(0).await.expect("a claim").epoch;
    let records: Vec<_> = (1..=3).map(put).collect();
    journal.append(0, &records).await.expect("it is accepted");
    let deaths = [1, 2].map(|offset| Death::new(JournalOffset(offset), DeathCause::Refused, "no"));
    journal.bury(0, epoch, &deaths).await.expect("buried");
    let none = journal.replay(0, JournalOffset(3), None).await.expect("an answer");
    assert_eq!(none, None, "that is no letter");
    let replayed = journal.replay(0, JournalOffset(1), None).await.expect("an answer");
    assert_eq!(replayed, Some(JournalOffset(4)));
    let other = put(77);
    let replayed = journal.replay(0, JournalOffset(2), Some(&other)).await.expect("an answer");
    assert_eq!(replayed, Some(JournalOffset(5)));
    assert_eq!(journal.replay(0, JournalOffset(2), None).await.expect("an answer"), None);
    assert_eq!(values(&*journal, 0).await, [3, 1, 77]);
    assert!(letters(&*journal, 0).await.is_empty());
    let home = home.restart().await;
    assert_eq!(values(&*home.journal(), 0).await, [3, 1, 77]);
}

/// The others are told that there is none.
pub async fn of_many_who_replay_a_letter_one_does<H: JournalHome>(home: H) {
    let journal = home.journal();
    let epoch = journal.claim(0).await.expect("a claim").epoch;
    journal.append(0, &[put(1)]).await.expect("it is accepted");
    let death = Death::new(JournalOffset(1), DeathCause::Refused, "no");
    journal.bury(0, epoch, &[death]).await.expect("buried");
    let tasks = (0..16).map(|_| {
        let journal = Arc::clone(&journal);
        tokio::spawn(async move { journal.replay(0, JournalOffset(1), None).await })
    });
    let mut replayed = 0;
    for task in tasks.collect::<Vec<_>>() {
        let answer = task.await.expect("it ends").expect("an answer");
        replayed += usize::from(answer.is_some());
    }
    assert_eq!(replayed, 1);
    assert_eq!(values(&*journal, 0).await, [1]);
}

/// What one appender appended comes in its order.
pub async fn appends_side_by_side_are_there_once_and_in_order<H: JournalHome>(home: H) {
    let journal = home.journal();
    let tasks = (0..16_u64).map(|writer| {
        let journal = Arc::clone(&journal);
        tokio::spawn(async move {
            let mut offsets = Vec::new();
            for round in 0..20 {
                let records = [put(writer * 1000 + 2 * round), put(writer * 1000 + 2 * round + 1)];
                offsets.push(journal.append(3, &records).await.expect("it is accepted"));
            }
            offsets
        })
    });
    let mut given = BTreeSet::new();
    for task in tasks.collect::<Vec<_>>() {
        let offsets = task.await.expect("it ends");
        assert!(offsets.is_sorted());
        given.extend(offsets);
    }
    assert_eq!(given.len(), 320, "an offset is given once");
    let found = values(&*journal, 3).await;
    assert_eq!(found.len(), 640);
    for writer in 0..16 {
        let own: Vec<_> = found.iter().filter(|value| *value / 1000 == writer).collect();
        assert!(own.len() == 40 && own.is_sorted(), "writer {writer}: {own:?}");
    }
    assert!(found.chunks(2).all(|pair| pair[1] == pair[0] + 1), "a batch stays together");
}

/// Records, letters, trims, places and the name.
pub async fn everything_survives_a_restart<H: JournalHome>(mut home: H) {
    let name = home.journal().profile().name;
    let mut expected = Vec::new();
    for round in 1..=6_u64 {
        let journal = home.journal();
        assert_eq!(journal.profile().name, name);
        let epoch = journal.claim(2).await.expect("a claim").epoch;
        assert_eq!(values(&*journal, 2).await, expected, "round {round}");
        for value in [round * 10, round * 10 + 1, round * 10 + 2] {
            journal.append(2, &[put(value)]).await.expect("it is accepted");
            expected.push(value);
        }
        let entries = all(&*journal, 2).await;
        let death = Death::new(entries[1].offset, DeathCause::Refused, "no");
        journal.bury(2, epoch, &[death]).await.expect("buried");
        journal.trim(2, epoch, entries[0].offset).await.expect("trimmed");
        expected.drain(..2);
        home = home.restart().await;
        let buried = letters(&*home.journal(), 2).await;
        assert_eq!(buried.len() as u64, round);
    }
}

/// By which lag is told.
pub async fn a_record_grows_older<H: JournalHome>(home: H) {
    let journal = home.journal();
    let aged = JournalRecord { age: Duration::from_secs(90), ..put(1) };
    journal.append(0, &[aged]).await.expect("it is accepted");
    let first = all(&*journal, 0).await[0].record.age;
    assert!(first >= Duration::from_secs(90) && first < Duration::from_secs(900), "{first:?}");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(all(&*journal, 0).await[0].record.age > first);
}

/// An unknown lane, nothing to append, a record that is too large, a trim of what
/// was never there.
pub async fn what_is_wrong_is_refused_and_leaves_nothing<H: JournalHome>(home: H) {
    let journal = home.journal();
    let profile = journal.profile();
    assert!(profile.lanes >= 4, "the suite needs four lanes");
    let mut large = put(1);
    large.write.action = Action::Put(vec![7; profile.record_bytes_max + 1].into());
    let epoch = journal.claim(0).await.expect("a claim").epoch;
    let refused = [
        journal.append(profile.lanes, &[put(1)]).await.map(drop),
        journal.append(0, &[]).await.map(drop),
        journal.append(0, &[put(1), large]).await.map(drop),
        journal.trim(0, epoch, JournalOffset(1)).await,
        journal.read(profile.lanes, JournalOffset::START, 1).await.map(drop),
        journal.claim(profile.lanes).await.map(drop),
    ];
    for (place, answer) in refused.into_iter().enumerate() {
        let error = answer.expect_err("it is wrong");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{place}: {error}");
    }
    assert!(all(&*journal, 0).await.is_empty());
    assert_eq!(journal.append(0, &[put(1)]).await.expect("accepted"), JournalOffset(1));
}

/// A record that says itself which one it is.
fn put(value: u64) -> JournalRecord {
    let action = Action::Put(Bytes::from(value.to_string()));
    JournalRecord {
        cache: "conformance".into(),
        write: Write::new(Key::new("conformance:journal"), action),
        version: Version::new(value),
        age: Duration::ZERO,
    }
}

fn value(entry: &JournalEntry) -> u64 {
    let expected = put(entry.record.version.get());
    assert_eq!(entry.record.write, expected.write);
    entry.record.version.get()
}

async fn all<J: Journal>(journal: &J, lane: u16) -> Vec<JournalEntry> {
    journal.read(lane, JournalOffset::START, 10_000).await.expect("a read")
}

async fn values<J: Journal>(journal: &J, lane: u16) -> Vec<u64> {
    all(journal, lane).await.iter().map(value).collect()
}

async fn letters<J: Journal>(journal: &J, lane: u16) -> Vec<DeadLetter> {
    journal.dead_letters(lane, JournalOffset::START, 10_000).await.expect("a list")
}
