//! What every [`Origin`] must do, whatever it reads from.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::task::Poll;

use larder_core::{ErrorKind, LoadCause, LoadContext, Loaded, Moment, Origin, Outcome, Value};

/// An origin and what it is known to hold.
pub struct Fixture<O, K, V> {
    /// The origin.
    pub origin: O,
    /// Keys that have a value, with the value. At least two.
    pub present: Vec<(K, V)>,
    /// Keys that have none. At least one.
    pub absent: Vec<K>,
    /// What must live as long as the origin, such as a server's process.
    pub keep: Box<dyn std::any::Any + Send + Sync>,
}

impl<O, K, V> fmt::Debug for Fixture<O, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixture")
            .field("present", &self.present.len())
            .field("absent", &self.absent.len())
            .finish_non_exhaustive()
    }
}

/// Runs every case of the suite as a test of its own against a new fixture.
///
/// The second argument is an expression for a future that makes the
/// [`Fixture`]; it runs inside the test's runtime, once for each case.
///
/// ```no_run
/// # use larder_testkit::{conformance::origin::Fixture, faulty::FaultyOrigin};
/// larder_testkit::origin_conformance!(table, async {
///     Fixture {
///         origin: FaultyOrigin::new().with_rows([("ann", 1), ("bob", 2)]),
///         present: vec![("ann", 1), ("bob", 2)],
///         absent: vec!["eve"],
///         keep: Box::new(()),
///     }
/// });
/// ```
#[macro_export]
macro_rules! origin_conformance {
    ($name:ident, $fixture:expr) => {
        $crate::origin_conformance! { @cases $name, $fixture,
            a_key_with_a_value_loads_it
            a_key_without_a_value_is_absent
            a_batch_answers_in_the_order_asked
            a_batch_may_be_empty
            a_full_batch_is_answered
            loads_side_by_side_agree
            a_dropped_load_leaves_the_origin_usable
            a_write_is_read_back_or_refused
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
                        $crate::conformance::origin::$case($fixture.await).await;
                    });
                }
            )*
        }
    };
}

/// One key, one value.
pub async fn a_key_with_a_value_loads_it<O, K, V>(fixture: Fixture<O, K, V>)
where
    O: Origin<K, V>,
    K: TestKey,
    V: TestValue,
{
    assert!(fixture.present.len() >= 2, "a fixture has at least two keys with a value");
    for (key, value) in &fixture.present {
        let loaded = fixture.origin.load(key, &context()).await;
        assert_eq!(found(key, loaded), Some(value.clone()), "{key:?}");
    }
}

/// "There is none" is an answer, not an error.
pub async fn a_key_without_a_value_is_absent<O, K, V>(fixture: Fixture<O, K, V>)
where
    O: Origin<K, V>,
    K: TestKey,
    V: TestValue,
{
    assert!(!fixture.absent.is_empty(), "a fixture has at least one key without a value");
    for key in &fixture.absent {
        let loaded = fixture.origin.load(key, &context()).await;
        assert_eq!(found(key, loaded), None, "{key:?}");
    }
}

/// With missing keys between, and keys asked twice.
pub async fn a_batch_answers_in_the_order_asked<O, K, V>(fixture: Fixture<O, K, V>)
where
    O: Origin<K, V>,
    K: TestKey,
    V: TestValue,
{
    let mut asked: Vec<(K, Option<V>)> = Vec::new();
    for (key, value) in fixture.present.iter().rev() {
        asked.push((key.clone(), Some(value.clone())));
        asked.push((fixture.absent[0].clone(), None));
    }
    asked.push(asked[0].clone());
    for chunk in asked.chunks(fixture.origin.batch_limit()) {
        let keys: Vec<K> = chunk.iter().map(|(key, _)| key.clone()).collect();
        let answers = fixture.origin.load_many(&keys, &context()).await;
        assert_eq!(answers.len(), keys.len(), "one answer for each key");
        for ((key, expected), answer) in chunk.iter().zip(answers) {
            assert_eq!(found(key, answer), *expected, "{key:?} in a batch");
        }
    }
}

/// No keys, no answers.
pub async fn a_batch_may_be_empty<O, K, V>(fixture: Fixture<O, K, V>)
where
    O: Origin<K, V>,
    K: TestKey,
    V: TestValue,
{
    assert!(fixture.origin.load_many(&[], &context()).await.is_empty());
}

/// As many keys as the origin says it takes, up to 10 000.
pub async fn a_full_batch_is_answered<O, K, V>(fixture: Fixture<O, K, V>)
where
    O: Origin<K, V>,
    K: TestKey,
    V: TestValue,
{
    let limit = fixture.origin.batch_limit();
    assert!(limit >= 1, "an origin takes at least one key");
    let known = fixture.present.iter().map(|(key, value)| (key, Some(value)));
    let unknown = fixture.absent.iter().map(|key| (key, None));
    let asked: Vec<_> = known.chain(unknown).cycle().take(limit.min(10_000)).collect();
    let keys: Vec<K> = asked.iter().map(|(key, _)| (*key).clone()).collect();
    let answers = fixture.origin.load_many(&keys, &context()).await;
    assert_eq!(answers.len(), keys.len());
    for ((key, expected), answer) in asked.into_iter().zip(answers) {
        assert_eq!(found(key, answer).as_ref(), expected, "{key:?}");
    }
}

/// Many loads at once get the answers that one at a time gets.
pub async fn loads_side_by_side_agree<O, K, V>(fixture: Fixture<O, K, V>)
where
    O: Origin<K, V>,
    K: TestKey,
    V: TestValue,
{
    let origin = Arc::new(fixture.origin);
    let mut loads = Vec::new();
    for (key, value) in fixture.present.iter().cycle().take(32).cloned() {
        let origin = Arc::clone(&origin);
        loads.push(tokio::spawn(async move {
            let loaded = origin.load(&key, &context()).await;
            assert_eq!(found(&key, loaded), Some(value), "{key:?}");
        }));
    }
    for load in loads {
        load.await.expect("every load finds its value");
    }
}

/// A load whose future is dropped at its first wait holds nothing: not a
/// connection of the pool, not a lock.
pub async fn a_dropped_load_leaves_the_origin_usable<O, K, V>(fixture: Fixture<O, K, V>)
where
    O: Origin<K, V>,
    K: TestKey,
    V: TestValue,
{
    let (key, value) = &fixture.present[0];
    for _ in 0..64 {
        let context = context();
        let mut load = std::pin::pin!(fixture.origin.load(key, &context));
        std::future::poll_fn(|cx| {
            let _ = load.as_mut().poll(cx);
            Poll::Ready(())
        })
        .await;
    }
    let loaded = fixture.origin.load(key, &context()).await;
    assert_eq!(found(key, loaded), Some(value.clone()));
}

/// An origin that takes writes shows them to the next load; one that does not
/// says so.
pub async fn a_write_is_read_back_or_refused<O, K, V>(fixture: Fixture<O, K, V>)
where
    O: Origin<K, V>,
    K: TestKey,
    V: TestValue,
{
    let (key, _) = &fixture.present[0];
    let (_, other) = &fixture.present[1];
    let written = fixture.origin.store(key, other).await;
    let removed = fixture.origin.remove(&fixture.present[1].0).await;
    match written {
        Ok(_) => {
            let loaded = fixture.origin.load(key, &context()).await;
            assert_eq!(found(key, loaded), Some(other.clone()), "{key:?} after a write");
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}"),
    }
    match removed {
        Ok(()) => {
            let key = &fixture.present[1].0;
            let loaded = fixture.origin.load(key, &context()).await;
            assert_eq!(found(key, loaded), None, "{key:?} after a removal");
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}"),
    }
}

/// What a key of a fixture must be.
pub trait TestKey: Clone + fmt::Debug + Send + Sync + 'static {}

impl<T: Clone + fmt::Debug + Send + Sync + 'static> TestKey for T {}

/// What a value of a fixture must be.
pub trait TestValue: Clone + PartialEq + fmt::Debug + Send + Sync + 'static {}

impl<T: Clone + PartialEq + fmt::Debug + Send + Sync + 'static> TestValue for T {}

fn context() -> LoadContext {
    LoadContext::new(LoadCause::Miss, Moment::NEVER)
}

fn found<K: TestKey, V>(key: &K, loaded: larder_core::Result<Loaded<V>>) -> Option<V> {
    let loaded = loaded.unwrap_or_else(|error| panic!("{key:?} failed to load: {error}"));
    match loaded.outcome {
        Outcome::Found(Value::Present(value)) => Some(value),
        Outcome::Found(Value::Absent) => None,
        _ => panic!("{key:?}: nothing was held, and the answer was not a plain finding"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faulty::FaultyOrigin;

    crate::origin_conformance!(one_by_one, async { fixture(FaultyOrigin::new()) });
    crate::origin_conformance!(in_batches, async { fixture(FaultyOrigin::with_batch_limit(5)) });

    fn fixture(
        origin: FaultyOrigin<String, u32>,
    ) -> Fixture<FaultyOrigin<String, u32>, String, u32> {
        let rows: Vec<(String, u32)> = (0..8).map(|n| (format!("row:{n}"), n)).collect();
        Fixture {
            origin: origin.with_rows(rows.clone()),
            present: rows,
            absent: vec!["row:missing".into(), "row:none".into()],
            keep: Box::new(()),
        }
    }
}
