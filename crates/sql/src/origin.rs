use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use larder_core::{
    Action, BatchError, Clock, Error, ErrorKind, Key, KeyPattern, LaneMark, LoadContext, Loaded,
    Origin, Outcome, Result, Value, Version, Write, WriteAbilities, Written,
};

use crate::database::Engines;
use crate::plan::{Plan, Request};
use crate::sink::Sink;
use crate::write::{BatchOrigin, Writes, version_in};

/// An origin whose values are rows as JSON text. Cloning costs a reference
/// count.
///
/// One statement answers a whole batch of keys. A key that no row can have (it
/// does not match the pattern, is not of the column's type, or is not the one
/// spelling of its value) is absent, and costs no statement.
#[derive(Clone)]
pub struct SqlOrigin {
    engines: Engines,
    plan: Arc<Plan>,
    /// How it writes, if it does.
    writes: Option<Arc<Writes>>,
}

impl SqlOrigin {
    pub(crate) fn new(engines: Engines, plan: Plan, writes: Option<Writes>) -> Self {
        Self { engines, plan: Arc::new(plan), writes: writes.map(Arc::new) }
    }

    pub(crate) const fn engines(&self) -> &Engines {
        &self.engines
    }

    /// What a batch has to know of it.
    pub(crate) fn batch_origin(&self) -> Result<BatchOrigin<'_>> {
        match &self.writes {
            Some(writes) => Ok(BatchOrigin { writes, read: &self.plan }),
            None => Err(Error::new(ErrorKind::Unsupported, "this origin only reads")
                .with("pattern", &self.plan.pattern)
                .remedy("make it with writing_table_origin or writing_query_origin")),
        }
    }

    /// The keys that it answers.
    #[must_use]
    pub fn key_pattern(&self) -> &KeyPattern {
        &self.plan.pattern
    }

    async fn load_batch(&self, keys: &[Key], context: &LoadContext) -> Vec<Result<Loaded<Bytes>>> {
        let mut answers: Vec<Result<Loaded<Bytes>>> =
            keys.iter().map(|_| Ok(Loaded::absent())).collect();
        // A key that was asked twice is loaded once.
        let mut places: HashMap<&[u8], usize> = HashMap::with_capacity(keys.len());
        let mut requests: Vec<Request> = Vec::with_capacity(keys.len());
        let mut askers: Vec<Vec<usize>> = Vec::with_capacity(keys.len());
        for (index, key) in keys.iter().enumerate() {
            if let Some(&place) = places.get(key.as_bytes()) {
                askers[place].push(index);
            } else if let Some(request) = self.plan.request(key.as_bytes()) {
                places.insert(key.as_bytes(), requests.len());
                requests.push(request);
                askers.push(vec![index]);
            }
        }
        let until = self.patience(context);
        let mut askers = askers.into_iter();
        for chunk in requests.chunks(self.plan.keys_max()) {
            for (answer, askers) in self.load_chunk(chunk, until).await.into_iter().zip(&mut askers)
            {
                for index in askers {
                    answers[index] = answer.clone();
                }
            }
        }
        answers
    }

    /// Answers with one statement; if the value of some key fails it, with a
    /// statement for each half, down to the key that is to blame, as long as
    /// there is time.
    async fn load_chunk(&self, requests: &[Request], until: Instant) -> Vec<Result<Loaded<Bytes>>> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut given_up: Option<Error> = None;
        // The next is the last.
        let mut parts = vec![requests];
        while let Some(part) = parts.pop() {
            if let Some(error) = &given_up {
                answers.extend(part.iter().map(|_| Err(error.clone())));
                continue;
            }
            let mut sink = Sink::new(&self.plan, self.engines.label(), part);
            let fetched = match self.writes {
                // A replica may not have yet what was written here a moment ago,
                // and what is read of it would be kept.
                Some(_) => self.engines.fetch_newest(&self.plan, part, &mut sink).await,
                None => self.engines.fetch(&self.plan, part, &mut sink).await,
            };
            match fetched {
                Ok(()) => answers.extend(sink.finish()),
                Err(failed) if failed.is_of_values && part.len() == 1 => {
                    answers.push(Err(failed.error));
                }
                Err(failed) if failed.is_of_values && Instant::now() < until => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                Err(failed) => {
                    parts.push(part);
                    given_up = Some(failed.error);
                }
            }
        }
        answers
    }

    /// Until when the keys of a batch that failed are told apart: half of the
    /// time that is left, so that those that are sound are answered in time.
    fn patience(&self, context: &LoadContext) -> Instant {
        let left = context.deadline.since(Clock::monotonic().precise_now());
        Instant::now() + (left / 2).min(self.engines.statement_timeout())
    }
}

impl Origin<Key, Bytes> for SqlOrigin {
    /// One statement, or none for a key that no row can have.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection in use; nothing is left behind.
    async fn load(&self, key: &Key, context: &LoadContext) -> Result<Loaded<Bytes>> {
        let mut answers = self.load_batch(std::slice::from_ref(key), context).await;
        answers.pop().unwrap_or_else(|| {
            Err(Error::new(ErrorKind::OriginFailed, "a load of one key has no answer"))
        })
    }

    /// One statement for all keys up to [`Origin::batch_limit`], unless the
    /// query has so many parameters that the database takes fewer at once. A key
    /// whose value fails the statement fails alone: the others are asked for
    /// again without it.
    ///
    /// # Cancel safety
    /// As [`SqlOrigin::load`].
    async fn load_many(&self, keys: &[Key], context: &LoadContext) -> Vec<Result<Loaded<Bytes>>> {
        self.load_batch(keys, context).await
    }

    fn batch_limit(&self) -> usize {
        self.plan.keys_max()
    }

    /// A put without expectation; the value is the row as JSON.
    async fn store(&self, key: &Key, value: &Bytes) -> Result<Option<Version>> {
        let write = Write::new(key.clone(), Action::Put(value.clone()));
        match Origin::write(self, &write).await? {
            Written::Done { version, .. } => Ok(version),
            _ => Err(Error::new(ErrorKind::OriginFailed, "a put was not made")),
        }
    }

    /// A removal without expectation.
    async fn remove(&self, key: &Key) -> Result<()> {
        Origin::write(self, &Write::new(key.clone(), Action::Remove)).await.map(drop)
    }

    fn write_abilities(&self) -> WriteAbilities {
        let Some(writes) = &self.writes else { return WriteAbilities::NONE };
        let mut abilities = writes.abilities();
        abilities.settles_within = self.engines.settled_after();
        abilities
    }

    /// Postgres: one round trip for a table, or two where what was expected is
    /// not there. MySQL: four or five, of which two begin and end the
    /// transaction. A declared statement costs four everywhere.
    ///
    /// # Cancel safety
    /// A write whose future is dropped may or may not have happened.
    async fn write(&self, write: &Write<Key, Bytes>) -> Result<Written<Bytes>> {
        let answers = self.engines.write_all(&[(self, write)], None).await;
        let mut answers = answers.map_err(|failed| failed.error)?;
        answers
            .pop()
            .ok_or_else(|| Error::new(ErrorKind::OriginFailed, "a write of one key has no answer"))
    }

    /// One transaction. Writes of one kind, with the same members, are one
    /// statement; patches and additions of MySQL and SQLite are one each.
    ///
    /// # Cancel safety
    /// As [`SqlOrigin::write`], all of them or none.
    async fn write_all(
        &self,
        writes: &[Write<Key, Bytes>],
        mark: Option<&LaneMark>,
    ) -> Result<Vec<Written<Bytes>>, BatchError> {
        let writes: Vec<_> = writes.iter().map(|write| (self, write)).collect();
        self.engines.write_all(&writes, mark).await
    }

    async fn applied(&self, journal: &str, lane: u16) -> Result<Option<LaneMark>> {
        self.engines.applied(journal, lane).await
    }

    /// A list is not kept: its statement may leave rows of it, and no rows are an empty
    /// list.
    fn committed(&self, _: &Key, value: Value<Bytes>) -> Loaded<Bytes> {
        let outcome = match self.plan.is_list() {
            true => Outcome::DontCache(value),
            false => Outcome::Found(value),
        };
        Loaded { outcome, ..Loaded::absent() }
    }

    /// One statement to the primary that reads the version column by key; of a
    /// declared query the query itself. `None` without a version column, and for
    /// a key that is not there.
    async fn validator(&self, key: &Key) -> Result<Option<Version>> {
        let probe = self.writes.as_ref().and_then(|writes| writes.probe(&self.plan));
        let Some((plan, member)) = probe else { return Ok(None) };
        let Some(request) = plan.request(key.as_bytes()) else { return Ok(None) };
        let requests = [request];
        let mut sink = Sink::new(plan, self.engines.label(), &requests);
        let asked = self.engines.fetch_newest(plan, &requests, &mut sink).await;
        asked.map_err(|failed| failed.error)?;
        let Some(row) = sink.finish().pop().transpose()? else { return Ok(None) };
        Ok(match row.outcome {
            Outcome::Found(Value::Present(row)) => version_in(&row, member),
            _ => None,
        })
    }
}

impl fmt::Debug for SqlOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlOrigin")
            .field("database", &self.engines.label())
            .field("pattern", &self.plan.pattern)
            .finish_non_exhaustive()
    }
}
