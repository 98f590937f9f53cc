mod writes;

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_core::{
    BatchError, Error, ErrorKind, LaneMark, LoadCause, LoadContext, Loaded, ManualClock, Origin,
    Result, Version, Write, WriteAbilities, Written,
};

use super::Gate;
use writes::Marks;
pub use writes::WriteFault;

/// An origin with a table of rows as its truth and a script of what goes wrong.
/// Clones share both, so a test keeps one and gives the other to the cache.
///
/// Each call of the origin takes the next [`Answer`] of the script; when the
/// script is empty it answers [`Answer::Truth`].
///
/// ```
/// use larder_core::{Error, ErrorKind};
/// use larder_testkit::faulty::{Answer, FaultyOrigin, Gate};
///
/// let origin = FaultyOrigin::new().with_rows([("ann", 1), ("bob", 2)]);
/// let gate = Gate::new();
/// origin.script([
///     Answer::Truth.held_at(&gate),
///     Answer::Fail(Error::new(ErrorKind::Unavailable, "the database is down")),
/// ]);
/// assert_eq!(origin.calls_count(), 0);
/// ```
#[derive(Debug)]
pub struct FaultyOrigin<K, V>(Arc<Inner<K, V>>);

#[derive(Debug)]
struct Inner<K, V> {
    state: Mutex<State<K, V>>,
    batch_limit: usize,
}

#[derive(Debug)]
struct State<K, V> {
    rows: HashMap<K, V>,
    takes_writes: bool,
    versions: HashMap<K, Version>,
    marks: Marks,
    script: VecDeque<Answer<V>>,
    write_script: VecDeque<WriteFault>,
    calls: Vec<Call<K>>,
    running: usize,
    running_most: usize,
    dropped: u64,
}

/// One call of the origin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call<K> {
    /// The keys asked for, in order: one for a single load.
    pub keys: Vec<K>,
    /// Why.
    pub cause: LoadCause,
    /// The version the caller held.
    pub held: Option<Version>,
}

/// How the origin treats one call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Answer<V> {
    /// What the rows say when the call *begins*, whatever happens while it
    /// waits: the old snapshot that an invalidation must win over.
    Truth,
    /// This, for every key of the call.
    Say(Loaded<V>),
    /// This error.
    Fail(Error),
    /// The loader panics.
    Panic,
    /// No answer, until the caller gives up.
    Hang,
    /// The answer, after this much time on the clock.
    After(ManualClock, Duration, Box<Self>),
    /// The answer, once the gate lets it pass.
    Held(Gate, Box<Self>),
}

impl<V> Answer<V> {
    /// The same answer, held back at a gate.
    #[must_use]
    pub fn held_at(self, gate: &Gate) -> Self {
        Self::Held(gate.clone(), Box::new(self))
    }

    /// The same answer, later.
    #[must_use]
    pub fn after(self, clock: &ManualClock, delay: Duration) -> Self {
        Self::After(clock.clone(), delay, Box::new(self))
    }

    /// An error that a later try may mend.
    #[must_use]
    pub fn unavailable() -> Self {
        Self::Fail(Error::new(ErrorKind::Unavailable, "the scripted origin is unreachable"))
    }
}

impl<K, V> FaultyOrigin<K, V>
where
    K: Clone + Eq + Hash,
    V: Clone,
{
    /// An origin without rows that is asked one key at a time.
    #[must_use]
    pub fn new() -> Self {
        Self::with_batch_limit(1)
    }

    /// An origin without rows that takes up to `limit` keys in one call.
    #[must_use]
    pub fn with_batch_limit(limit: usize) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State {
                rows: HashMap::new(),
                takes_writes: false,
                versions: HashMap::new(),
                marks: Marks::new(),
                script: VecDeque::new(),
                write_script: VecDeque::new(),
                calls: Vec::new(),
                running: 0,
                running_most: 0,
                dropped: 0,
            }),
            batch_limit: limit,
        }))
    }

    /// The same origin with these rows added.
    #[must_use]
    pub fn with_rows(self, rows: impl IntoIterator<Item = (K, V)>) -> Self {
        self.state().rows.extend(rows);
        self
    }

    /// Changes a row behind the cache's back.
    pub fn set(&self, key: K, value: V) {
        self.state().rows.insert(key, value);
    }

    /// Deletes a row behind the cache's back.
    pub fn delete(&self, key: &K) {
        self.state().rows.remove(key);
    }

    /// Appends answers to the script.
    pub fn script(&self, answers: impl IntoIterator<Item = Answer<V>>) {
        self.state().script.extend(answers);
    }

    /// Forgets what is left of the script.
    pub fn clear_script(&self) {
        self.state().script.clear();
    }

    /// How often the origin was called; a batch is one call.
    #[must_use]
    pub fn calls_count(&self) -> usize {
        self.state().calls.len()
    }

    /// How often this key was asked for, alone or in a batch.
    #[must_use]
    pub fn loads_of(&self, key: &K) -> usize {
        self.state().calls.iter().flat_map(|call| &call.keys).filter(|asked| *asked == key).count()
    }

    /// Every call so far, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<Call<K>> {
        self.state().calls.clone()
    }

    /// The most calls that ran at the same time.
    #[must_use]
    pub fn running_most(&self) -> usize {
        self.state().running_most
    }

    /// How many calls run now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.state().running
    }

    /// How many calls were dropped before they answered: cancelled by a timeout,
    /// or ended by a panic.
    #[must_use]
    pub fn dropped_count(&self) -> u64 {
        self.state().dropped
    }

    /// Enters a call into the record and takes its answer and, for every key,
    /// what the rows say now.
    fn begin(
        &self,
        keys: &[K],
        context: &LoadContext,
    ) -> (Running<K, V>, Answer<V>, Vec<Loaded<V>>) {
        let mut state = self.state();
        state.calls.push(Call { keys: keys.to_vec(), cause: context.cause, held: context.held });
        state.running += 1;
        state.running_most = state.running_most.max(state.running);
        let answer = state.script.pop_front().unwrap_or(Answer::Truth);
        let truth = keys.iter().map(|key| Loaded::from(state.rows.get(key).cloned())).collect();
        (Running { origin: self.clone(), answered: false }, answer, truth)
    }

    async fn answer(&self, keys: &[K], context: &LoadContext) -> Vec<Result<Loaded<V>>> {
        let (mut running, mut answer, truth) = self.begin(keys, context);
        let answers = loop {
            answer = match answer {
                Answer::Truth => break truth.into_iter().map(Ok).collect(),
                Answer::Say(loaded) => break keys.iter().map(|_| Ok(loaded.clone())).collect(),
                Answer::Fail(error) => break keys.iter().map(|_| Err(error.clone())).collect(),
                Answer::Panic => panic!("the scripted loader panics"),
                Answer::Hang => std::future::pending().await,
                Answer::After(clock, delay, answer) => {
                    clock.sleep_until(clock.now() + delay).await;
                    *answer
                }
                Answer::Held(gate, answer) => {
                    gate.pass().await;
                    *answer
                }
            };
        };
        running.answered = true;
        answers
    }

    fn state(&self) -> MutexGuard<'_, State<K, V>> {
        self.0.state()
    }
}

impl<K, V> Inner<K, V> {
    /// A scripted panic never happens under this lock, so a poisoned lock still
    /// guards a consistent state.
    fn state(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V> Clone for FaultyOrigin<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V> Default for FaultyOrigin<K, V>
where
    K: Clone + Eq + Hash,
    V: Clone,
{
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> Origin<K, V> for FaultyOrigin<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    async fn load(&self, key: &K, context: &LoadContext) -> Result<Loaded<V>> {
        let answers = self.answer(std::slice::from_ref(key), context).await;
        answers.into_iter().next().expect("one answer for the one key")
    }

    async fn load_many(&self, keys: &[K], context: &LoadContext) -> Vec<Result<Loaded<V>>> {
        self.answer(keys, context).await
    }

    fn batch_limit(&self) -> usize {
        self.0.batch_limit
    }

    async fn store(&self, key: &K, value: &V) -> Result<Option<Version>> {
        self.set(key.clone(), value.clone());
        Ok(None)
    }

    async fn remove(&self, key: &K) -> Result<()> {
        self.delete(key);
        Ok(())
    }

    fn write_abilities(&self) -> WriteAbilities {
        self.abilities()
    }

    async fn write(&self, write: &Write<K, V>) -> Result<Written<V>> {
        let written = self.transaction(std::slice::from_ref(write), None);
        let mut written = written.map_err(|failed| failed.error)?;
        Ok(written.pop().expect("one answer for the one write"))
    }

    async fn write_all(
        &self,
        writes: &[Write<K, V>],
        mark: Option<&LaneMark>,
    ) -> Result<Vec<Written<V>>, BatchError> {
        self.transaction(writes, mark)
    }

    async fn applied(&self, journal: &str, lane: u16) -> Result<Option<LaneMark>> {
        Ok(self.state().marks.get(&(journal.to_owned(), lane)).cloned())
    }

    async fn validator(&self, key: &K) -> Result<Option<Version>> {
        Ok(self.version(key))
    }
}

/// A call that runs; knows whether it ended with an answer.
struct Running<K, V> {
    origin: FaultyOrigin<K, V>,
    answered: bool,
}

impl<K, V> Drop for Running<K, V> {
    fn drop(&mut self) {
        let mut state = self.origin.0.state();
        state.running -= 1;
        if !self.answered {
            state.dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::block_on;
    use larder_core::{Moment, Outcome, Value};

    fn context() -> LoadContext {
        LoadContext::new(LoadCause::Miss, Moment::NEVER)
    }

    fn found(loaded: Result<Loaded<i32>>) -> Option<i32> {
        match loaded.expect("an answer").outcome {
            Outcome::Found(Value::Present(value)) => Some(value),
            _ => None,
        }
    }

    #[test]
    fn a_held_read_answers_with_what_was_true_when_it_began() {
        block_on(async {
            let origin = FaultyOrigin::new().with_rows([("ann", 1)]);
            let gate = Gate::new();
            origin.script([Answer::Truth.held_at(&gate)]);
            let read = tokio::spawn({
                let origin = origin.clone();
                async move { origin.load(&"ann", &context()).await }
            });
            gate.wait_for_arrivals(1).await;
            origin.set("ann", 2);
            gate.open();
            assert_eq!(found(read.await.expect("the load ends")), Some(1));
            assert_eq!(found(origin.load(&"ann", &context()).await), Some(2));
            assert_eq!(origin.loads_of(&"ann"), 2);
        });
    }

    #[test]
    fn a_hanging_call_is_counted_as_dropped_when_its_caller_gives_up() {
        block_on(async {
            let origin = FaultyOrigin::<_, i32>::new();
            origin.script([Answer::Hang]);
            let read = tokio::spawn({
                let origin = origin.clone();
                async move { origin.load(&"ann", &context()).await }
            });
            while origin.running() == 0 {
                tokio::task::yield_now().await;
            }
            read.abort();
            assert!(read.await.expect_err("it was cancelled").is_cancelled());
            assert_eq!((origin.running(), origin.dropped_count()), (0, 1));
        });
    }

    #[test]
    fn a_batch_is_one_call_and_the_script_is_taken_in_order() {
        block_on(async {
            let clock = ManualClock::new();
            let origin = FaultyOrigin::with_batch_limit(10).with_rows([("ann", 1)]);
            origin.script([
                Answer::unavailable(),
                Answer::Truth.after(&clock, Duration::from_secs(1)),
            ]);
            let failed = origin.load_many(&["ann", "bob"], &context()).await;
            assert!(failed.iter().all(Result::is_err));
            let batch = tokio::spawn({
                let origin = origin.clone();
                async move { origin.load_many(&["ann", "bob"], &context()).await }
            });
            while clock.sleepers_count() == 0 {
                tokio::task::yield_now().await;
            }
            clock.advance(Duration::from_secs(1));
            let answers = batch.await.expect("the batch ends");
            assert_eq!(answers.into_iter().map(found).collect::<Vec<_>>(), [Some(1), None]);
            assert_eq!(origin.calls_count(), 2);
        });
    }
}
