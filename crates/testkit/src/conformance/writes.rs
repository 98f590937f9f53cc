//! What every [`Origin`] that takes writes must do.

use std::fmt;
use std::sync::Arc;

use larder_core::{
    Action, Decimal, ErrorKind, Expected, JournalOffset, LaneMark, LoadCause, LoadContext, Moment,
    Origin, Outcome, Value, Version, Write, Written,
};

use super::origin::{TestKey, TestValue};

/// An origin that takes writes, and what can be written to it.
pub struct WritingFixture<O, K, V> {
    /// The origin.
    pub origin: O,
    /// A hundred keys or more that have no value, with two values for each.
    pub rows: Vec<(K, V, V)>,
    /// A value as it is compared: without what the origin itself counts.
    pub plain: fn(&V) -> V,
    /// What turns the first value of the first key into its second, and leaves
    /// the rest, if the origin patches.
    pub patch: Option<V>,
    /// A member of the first key, what is added to it, and the first value with
    /// the sum, if the origin adds.
    pub sum: Option<(Arc<str>, Decimal, V)>,
    /// A write that the origin will never take.
    pub poison: Option<Write<K, V>>,
    /// What must live as long as the origin, such as a server's process.
    pub keep: Box<dyn std::any::Any + Send + Sync>,
}

impl<O, K, V> fmt::Debug for WritingFixture<O, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WritingFixture").field("rows", &self.rows.len()).finish_non_exhaustive()
    }
}

/// Runs every case of the suite of writes as a test of its own against a new
/// fixture.
///
/// The second argument is an expression for a future that makes the
/// [`WritingFixture`]; it runs inside the test's runtime, once for each case.
#[macro_export]
macro_rules! origin_writing_conformance {
    ($name:ident, $fixture:expr) => {
        $crate::origin_writing_conformance! { @cases $name, $fixture,
            a_put_is_read_back_whether_there_was_a_value_or_not
            a_removal_says_whether_there_was_a_value
            a_patch_leaves_what_it_does_not_name
            an_addition_is_exact
            what_is_expected_decides_and_a_conflict_is_an_answer
            a_version_that_is_not_there_any_more_changes_nothing
            a_batch_happens_in_its_order
            a_hundred_puts_are_read_back
            a_batch_with_a_poison_does_not_happen_and_says_which_it_is
            a_batch_under_a_mark_happens_once
            a_later_epoch_refuses_an_earlier_one
            writers_side_by_side_lose_nothing
        }
    };
    (@cases $name:ident, $fixture:expr, $($case:ident)*) => {
        mod $name {
            #[allow(unused_imports, reason = "the expression may name what its module imports")]
            use super::*;
            $(
                #[test]
                fn $case() {
                    $crate::conformance::block_on(async {
                        $crate::conformance::writes::$case($fixture.await).await;
                    });
                }
            )*
        }
    };
}

/// A put has the value in place when it is answered, and says what is there.
pub async fn a_put_is_read_back_whether_there_was_a_value_or_not<O, K, V>(
    fixture: WritingFixture<O, K, V>,
) where
    O: Origin<K, V>,
    K: TestKey,
    V: TestValue,
{
    let (key, first, second) = &fixture.rows[0];
    for value in [first, second, second] {
        let written = fixture.write(Write::new(key.clone(), put(value))).await;
        fixture.assert_done(&written, Some(value));
        fixture.assert_value(key, Some(value)).await;
    }
}

/// A removal of what is not there is no error.
pub async fn a_removal_says_whether_there_was_a_value<O, K, V>(fixture: WritingFixture<O, K, V>)
where
    O: Origin<K, V>,
    K: TestKey,
    V: TestValue,
{
    let (key, first, _) = &fixture.rows[0];
    fixture.write(Write::new(key.clone(), put(first))).await;
    for was_there in [true, false] {
        let written = fixture.write(Write::new(key.clone(), Action::Remove)).await;
        match written {
            Written::Done { changed, now, .. } => {
                assert_eq!(changed, was_there);
                assert_ne!(now.as_ref().and_then(Value::as_option), Some(first));
            }
            other => panic!("a removal is answered with {other:?}"),
        }
        fixture.assert_value(key, None).await;
    }
}

/// An origin that does not patch says so.
pub async fn a_patch_leaves_what_it_does_not_name<O, K, V>(fixture: WritingFixture<O, K, V>)
where
    O: Origin<K, V>,
    K: TestKey,
    V: TestValue,
{
    let (key, first, second) = &fixture.rows[0];
    let Some(patch) = &fixture.patch else {
        assert!(!fixture.origin.write_abilities().patch, "the fixture has no patch");
        let write = Write::new(key.clone(), Action::Patch(first.clone()));
        let error = fixture.origin.write(&write).await.expect_err("it does not patch");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        return;
    };
    let write = Write::new(key.clone(), Action::Patch(patch.clone()));
    assert_eq!(fixture.write(write.clone()).await, Written::Missing);
    fixture.assert_value(key, None).await;
    fixture.write(Write::new(key.clone(), put(first))).await;
    let written = fixture.write(write).await;
    fixture.assert_done(&written, Some(second));
    fixture.assert_value(key, Some(second)).await;
}

/// An origin that does not add says so.
pub async fn an_addition_is_exact<O, K, V>(fixture: WritingFixture<O, K, V>)
where
    O: Origin<K, V>,
    K: TestKey,
    V: TestValue,
{
    let (key, first, _) = &fixture.rows[0];
    let Some((field, by, sum)) = &fixture.sum else {
        assert!(!fixture.origin.write_abilities().add, "the fixture has no sum");
        let action = Action::Add { field: "n".into(), by: Decimal::from(1) };
        let error = fixture.origin.write(&Write::new(key.clone(), action)).await;
        assert_eq!(error.expect_err("it does not add").kind(), ErrorKind::Unsupported);
        return;
    };
    let write = Write::new(key.clone(), Action::Add { field: Arc::clone(field), by: *by });
    assert_eq!(fixture.write(write.clone()).await, Written::Missing);
    fixture.write(Write::new(key.clone(), put(first))).await;
    let written = fixture.write(write).await;
    fixture.assert_done(&written, Some(sum));
    fixture.assert_value(key, Some(sum)).await;
}

/// [`Expected::Absent`] and [`Expected::Present`].
pub async fn what_is_expected_decides_and_a_conflict_is_an_answer<O, K, V>(
    fixture: WritingFixture<O, K, V>,
) where
    O: Origin<K, V>,
    K: TestKey,
    V: TestValue,
{
    let (key, first, second) = &fixture.rows[0];
    let expecting = |value: &V, expected| Write::new(key.clone(), put(value)).expecting(expected);
    if !fixture.origin.write_abilities().presence {
        let error = fixture.origin.write(&expecting(first, Expected::Absent)).await;
        assert_eq!(error.expect_err("it cannot").kind(), ErrorKind::Unsupported);
        return;
    }
    let conflict = fixture.write(expecting(first, Expected::Present)).await;
    assert_eq!(conflict, Written::Conflict { version: None });
    fixture.assert_value(key, None).await;
    let written = fixture.write(expecting(first, Expected::Absent)).await;
    fixture.assert_done(&written, Some(first));
    let conflict = fixture.write(expecting(second, Expected::Absent)).await;
    assert!(matches!(conflict, Written::Conflict { .. }), "{conflict:?}");
    fixture.assert_value(key, Some(first)).await;
    let written = fixture.write(expecting(second, Expected::Present)).await;
    fixture.assert_done(&written, Some(second));
    let removal = Write::new(key.clone(), Action::Remove).expecting(Expected::Present);
    fixture.assert_done(&fixture.write(removal.clone()).await, None);
    assert_eq!(fixture.write(removal).await, Written::Conflict { version: None });
}

/// [`Expected::Version`], the version that a write tells, and the probe.
pub async fn a_version_that_is_not_there_any_more_changes_nothing<O, K, V>(
    fixture: WritingFixture<O, K, V>,
) where
    O: Origin<K, V>,
    K: TestKey,
    V: TestValue,
{
    let (key, first, second) = &fixture.rows[0];
    let at = |value: &V, version| {
        Write::new(key.clone(), put(value)).expecting(Expected::Version(version))
    };
    if !fixture.origin.write_abilities().versions {
        let error = fixture.origin.write(&at(first, Version::new(1))).await;
        assert_eq!(error.expect_err("it cannot").kind(), ErrorKind::Unsupported);
        return;
    }
    let conflict = fixture.write(at(first, Version::new(1))).await;
    assert_eq!(conflict, Written::Conflict { version: None });
    let start = fixture.version(Write::new(key.clone(), put(first))).await;
    assert_eq!(fixture.origin.validator(key).await.expect("it answers"), Some(start));
    let next = fixture.version(at(second, start)).await;
    assert!(next > start, "{next:?} comes after {start:?}");
    let conflict = fixture.write(at(first, start)).await;
    assert_eq!(conflict, Written::Conflict { version: Some(next) });
    let removal = Write::new(key.clone(), Action::Remove);
    let conflict = fixture.write(removal.clone().expecting(Expected::Version(start))).await;
    assert_eq!(conflict, Written::Conflict { version: Some(next) });
    fixture.assert_value(key, Some(second)).await;
    assert_eq!(fixture.origin.validator(key).await.expect("it answers"), Some(next));
    let removed = fixture.write(removal.expecting(Expected::Version(next))).await;
    fixture.assert_done(&removed, None);
    assert_eq!(fixture.origin.validator(key).await.expect("it answers"), None);
}

/// Several writes of one key, and a conflict that stops no other.
pub async fn a_batch_happens_in_its_order<O, K, V>(fixture: WritingFixture<O, K, V>)
where
    O: Origin<K, V>,
    K: TestKey,
    V: TestValue,
{
    if fixture.origin.write_abilities().batch_limit < 5 {
        return;
    }
    let ((one, first, second), (other, third, _)) = (&fixture.rows[0], &fixture.rows[1]);
    let write = |key: &K, action| Write::new(key.clone(), action);
    let mut writes = vec![
        write(one, put(first)),
        write(other, put(third)),
        write(one, put(second)),
        write(other, Action::Remove),
    ];
    if fixture.origin.write_abilities().presence {
        writes.insert(3, write(one, put(first)).expecting(Expected::Absent));
    }
    let answers = fixture.origin.write_all(&writes, None).await.expect("all of them are made");
    assert_eq!(answers.len(), writes.len());
    for (write, answer) in writes.iter().zip(&answers) {
        let is_conflict = matches!(answer, Written::Conflict { .. });
        assert_eq!(is_conflict, write.expected == Expected::Absent, "{write:?}: {answer:?}");
    }
    fixture.assert_value(one, Some(second)).await;
    fixture.assert_value(other, None).await;
    assert!(fixture.origin.write_all(&[], None).await.expect("nothing to do").is_empty());
}

/// One batch of a hundred, new and old.
pub async fn a_hundred_puts_are_read_back<O, K, V>(fixture: WritingFixture<O, K, V>)
where
    O: Origin<K, V>,
    K: TestKey,
    V: TestValue,
{
    if fixture.origin.write_abilities().batch_limit < 100 {
        return;
    }
    assert!(fixture.rows.len() >= 100, "a fixture has a hundred keys");
    let puts = |is_second: bool| {
        let row = |(key, first, second): &(K, V, V)| {
            Write::new(key.clone(), put(if is_second { second } else { first }))
        };
        fixture.rows.iter().rev().map(row).collect::<Vec<_>>()
    };
    for (writes, is_second) in [(&puts(false)[..50], false), (&puts(true)[..], true)] {
        let answers = fixture.origin.write_all(writes, None).await.expect("all are made");
        for (answer, row) in answers.iter().zip(fixture.rows.iter().rev()) {
            fixture.assert_done(answer, Some(if is_second { &row.2 } else { &row.1 }));
        }
    }
    for (key, _, second) in &fixture.rows {
        fixture.assert_value(key, Some(second)).await;
    }
}

/// All or nothing.
pub async fn a_batch_with_a_poison_does_not_happen_and_says_which_it_is<O, K, V>(
    fixture: WritingFixture<O, K, V>,
) where
    O: Origin<K, V>,
    K: TestKey,
    V: TestValue,
{
    let Some(poison) = &fixture.poison else { return };
    let mut writes: Vec<_> = fixture.rows[..10]
        .iter()
        .map(|(key, first, _)| Write::new(key.clone(), put(first)))
        .collect();
    for place in [0, 5, 10] {
        writes.insert(place, poison.clone());
        let failed = fixture.origin.write_all(&writes, None).await.expect_err("it is poisoned");
        assert_eq!(failed.index, Some(place), "{failed}");
        assert!(!failed.error.is_retryable(), "it will never be taken: {failed}");
        for (key, ..) in &fixture.rows[..10] {
            fixture.assert_value(key, None).await;
        }
        writes.remove(place);
    }
}

/// What is applied is not applied again, and the origin says how far it is.
pub async fn a_batch_under_a_mark_happens_once<O, K, V>(fixture: WritingFixture<O, K, V>)
where
    O: Origin<K, V>,
    K: TestKey,
    V: TestValue,
{
    let (key, first, second) = &fixture.rows[0];
    let origin = &fixture.origin;
    if !origin.write_abilities().marks {
        let error = origin.write_all(&[], Some(&mark(1, 1))).await.expect_err("it cannot");
        assert_eq!(error.error.kind(), ErrorKind::Unsupported);
        return;
    }
    assert_eq!(origin.applied("conformance", 7).await.expect("it answers"), None);
    let puts = |value: &V| vec![Write::new(key.clone(), put(value))];
    let first_time = origin.write_all(&puts(first), Some(&mark(1, 10))).await;
    fixture.assert_done(&first_time.expect("it is new")[0], Some(first));
    for applied in [10, 9] {
        let again = origin.write_all(&puts(second), Some(&mark(1, applied))).await;
        let again = again.expect("it is applied");
        assert!(matches!(again[0], Written::Done { changed: false, .. }), "{again:?}");
        fixture.assert_value(key, Some(first)).await;
    }
    assert_eq!(origin.applied("conformance", 7).await.expect("it answers"), Some(mark(1, 10)));
    assert_eq!(origin.applied("conformance", 8).await.expect("it answers"), None);
    assert_eq!(origin.applied("other", 7).await.expect("it answers"), None);
    origin.write_all(&puts(second), Some(&mark(1, 11))).await.expect("it is new");
    fixture.assert_value(key, Some(second)).await;
    // A batch that fails moves no mark.
    if let Some(poison) = &fixture.poison {
        let failed = origin.write_all(std::slice::from_ref(poison), Some(&mark(1, 12))).await;
        failed.expect_err("it is poisoned");
        assert_eq!(origin.applied("conformance", 7).await.expect("it answers"), Some(mark(1, 11)));
    }
}

/// The fence.
pub async fn a_later_epoch_refuses_an_earlier_one<O, K, V>(fixture: WritingFixture<O, K, V>)
where
    O: Origin<K, V>,
    K: TestKey,
    V: TestValue,
{
    let origin = &fixture.origin;
    if !origin.write_abilities().marks {
        return;
    }
    let (key, first, second) = &fixture.rows[0];
    let puts = |value: &V| vec![Write::new(key.clone(), put(value))];
    origin.write_all(&puts(first), Some(&mark(3, 10))).await.expect("it is new");
    // A new owner that has nothing to apply yet makes itself known.
    origin.write_all(&[], Some(&mark(4, 10))).await.expect("it is the owner");
    assert_eq!(origin.applied("conformance", 7).await.expect("it answers"), Some(mark(4, 10)));
    let late = origin.write_all(&puts(second), Some(&mark(3, 11))).await;
    assert_eq!(late.expect_err("it lost the lane").error.kind(), ErrorKind::Conflict);
    fixture.assert_value(key, Some(first)).await;
    origin.write_all(&puts(second), Some(&mark(4, 11))).await.expect("it is the owner");
    fixture.assert_value(key, Some(second)).await;
}

/// Writers that each take the version as they find it: of two that found the
/// same one wins.
pub async fn writers_side_by_side_lose_nothing<O, K, V>(fixture: WritingFixture<O, K, V>)
where
    O: Origin<K, V>,
    K: TestKey,
    V: TestValue,
{
    const WRITERS: usize = 8;
    const ROUNDS: usize = 5;
    if !fixture.origin.write_abilities().versions {
        return;
    }
    let (key, first, second) = fixture.rows[0].clone();
    let start = fixture.version(Write::new(key.clone(), put(&first))).await;
    let origin = Arc::new(fixture.origin);
    let writers = (0..WRITERS).map(|_| {
        let (origin, key, second) = (Arc::clone(&origin), key.clone(), second.clone());
        tokio::spawn(async move {
            let mut expected = start;
            let mut won = 0;
            while won < ROUNDS {
                let write =
                    Write::new(key.clone(), put(&second)).expecting(Expected::Version(expected));
                match origin.write(&write).await.expect("it is answered") {
                    Written::Done { version: Some(version), .. } => {
                        won += 1;
                        expected = version;
                    }
                    Written::Conflict { version: Some(version) } => expected = version,
                    other => panic!("the row is there: {other:?}"),
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("each writer wins in the end");
    }
    let last = origin.validator(&key).await.expect("it answers").expect("it is there");
    let mut expected = start;
    (0..WRITERS * ROUNDS).for_each(|_| expected = expected.above());
    assert_eq!(last, expected, "each write that was done counts once");
}

impl<O, K, V> WritingFixture<O, K, V>
where
    O: Origin<K, V>,
    K: TestKey,
    V: TestValue,
{
    async fn write(&self, write: Write<K, V>) -> Written<V> {
        self.origin.write(&write).await.unwrap_or_else(|error| panic!("{write:?}: {error}"))
    }

    async fn version(&self, write: Write<K, V>) -> Version {
        match self.write(write).await {
            Written::Done { version: Some(version), .. } => version,
            other => panic!("an origin of versions tells the one that it wrote: {other:?}"),
        }
    }

    /// It was done, and what is told of the value now is right.
    fn assert_done(&self, written: &Written<V>, expected: Option<&V>) {
        let Written::Done { now, .. } = written else { panic!("it was not done: {written:?}") };
        if let Some(now) = now {
            let now = now.as_option().map(self.plain);
            assert_eq!(now, expected.map(self.plain));
        }
    }

    async fn assert_value(&self, key: &K, expected: Option<&V>) {
        let context = LoadContext::new(LoadCause::Miss, Moment::NEVER);
        let loaded = self.origin.load(key, &context).await;
        let found = match loaded.unwrap_or_else(|error| panic!("{key:?}: {error}")).outcome {
            Outcome::Found(Value::Present(value)) => Some((self.plain)(&value)),
            Outcome::Found(Value::Absent) => None,
            _ => panic!("{key:?}: the answer was not a plain finding"),
        };
        assert_eq!(found, expected.map(self.plain), "{key:?}");
    }
}

fn put<V: Clone>(value: &V) -> Action<V> {
    Action::Put(value.clone())
}

fn mark(epoch: u64, applied: u64) -> LaneMark {
    LaneMark { journal: "conformance".into(), lane: 7, epoch, applied: JournalOffset(applied) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faulty::FaultyOrigin;

    crate::origin_writing_conformance!(faulty, async {
        let rows = (0..100).map(|n| (format!("row:{n}"), n, n + 1_000)).collect();
        WritingFixture {
            origin: FaultyOrigin::<String, u32>::new().taking_writes(),
            rows,
            plain: |value| *value,
            patch: None,
            sum: None,
            poison: Some(Write::new("row:1".to_owned(), Action::Patch(1))),
            keep: Box::new(()),
        }
    });
}
