//! Writes that are acknowledged before the origin has them (P4).
//!
//! ```text
//! journal   has the write: it is acknowledged from here on
//! memory    shows it, or nothing; a load under way that does not know of it is fenced
//! answer
//!   … later, when the lane is applied:
//! others    are told that the keys are being written; stores give up what they have
//! origin    commits
//! memory    has what the origin says, with what waits still
//! others    are told that it is over
//! ```
//! For as long as something of a key waits, nothing is read of it that does not have
//! what waits in it: no store is asked, and what the origin says is answered only with
//! the changes made to it. What memory has is only a copy of that, which may be evicted
//! or expire.

mod applied;
mod load;
mod show;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use larder_core::{
    Action, BatchError, Codec, Error, ErrorKind, Expected, JournalOffset, Key, Result, SharedKey,
    Value, Write, Written,
};
use larder_memory::Resident;
use tokio::sync::oneshot;

use super::departure::Crew;
use super::through::WriteTerms;
use crate::behind::{Pending, WriteBehind};
use crate::engine::{CacheKey, CacheValue, Engine};
use crate::sync::Mutex;

/// Where the writes of a cache wait, and what memory shows of them.
pub(crate) struct Behind<K, V> {
    pub(crate) writes: WriteBehind,
    pub(crate) cache: String,
    pub(crate) encode: fn(&K) -> Key,
    pub(crate) decode: fn(&Key) -> Option<K>,
    codec: Arc<dyn Codec<V>>,
    /// The keys of which memory has shown what waits: no more than may wait. Changed only
    /// under the lock of the key's flights.
    shown: Mutex<HashMap<K, Option<Base<K, V>>>>,
}

/// What the origin had under what memory shows. It holds until the origin has another
/// of the writes that wait, and for as long as memory keeps what was made of it.
pub(crate) struct Base<K, V> {
    value: Value<Bytes>,
    first: JournalOffset,
    resident: Resident<K, V>,
}

impl<K, V> Clone for Base<K, V> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), first: self.first, resident: self.resident.clone() }
    }
}

type Outcome<V> = Result<Vec<Written<V>>, BatchError>;

impl<K: CacheKey, V: CacheValue> Behind<K, V> {
    pub(crate) fn new(writes: WriteBehind, cache: &str, codec: Arc<dyn Codec<V>>) -> Self
    where
        K: SharedKey,
    {
        Self {
            writes,
            cache: cache.to_owned(),
            encode: K::to_key,
            decode: K::from_key,
            codec,
            shown: Mutex::new(HashMap::new()),
        }
    }

    /// What waits of a key.
    fn pending(&self, key: &K) -> Option<Pending> {
        self.writes.pending(&self.cache, &(self.encode)(key))
    }

    /// Whether still exactly this waits of a key.
    fn is_still(&self, key: &K, pending: Option<&Pending>) -> bool {
        let place = |pending: &Pending| (pending.first, pending.offset);
        self.pending(key).as_ref().map(place) == pending.map(place)
    }

    fn encode_value(&self, value: &Value<V>) -> Result<Value<Bytes>> {
        Ok(match value {
            Value::Present(value) => Value::Present(self.codec.encode(value)?),
            Value::Absent => Value::Absent,
        })
    }

    fn decode_value(&self, value: &Value<Bytes>) -> Result<Value<V>> {
        Ok(match value {
            Value::Present(bytes) => Value::Present(self.codec.decode(bytes)?),
            Value::Absent => Value::Absent,
        })
    }

    fn encode_write(&self, write: &Write<K, V>) -> Result<Write<Key, Bytes>> {
        if write.expected != Expected::Anything {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "what is expected cannot be told before the origin has the write",
            )
            .remedy("leave the expectation out, or write this cache through"));
        }
        let action = match &write.action {
            Action::Put(value) => Action::Put(self.codec.encode(value)?),
            Action::Patch(value) => Action::Patch(self.codec.encode(value)?),
            Action::Remove => Action::Remove,
            Action::Add { field, by } => Action::Add { field: Arc::clone(field), by: *by },
            _ => {
                return Err(Error::new(ErrorKind::Unsupported, "a journal cannot hold this write"));
            }
        };
        Ok(Write::new((self.encode)(&write.key), action))
    }
}

impl<K: CacheKey, V: CacheValue> Engine<K, V> {
    /// Has the journal accept these writes, in a task of its own, so that memory shows
    /// what was accepted whoever leaves.
    pub(super) async fn write_behind(
        self: &Arc<Self>,
        behind: &Behind<K, V>,
        writes: Vec<Write<K, V>>,
        terms: WriteTerms,
    ) -> Outcome<V> {
        let crew = Crew::new(self);
        self.runtime.check(&self.clock).and_then(|()| self.refuse_when_closing())?;
        let mut encoded = Vec::with_capacity(writes.len());
        for (index, write) in writes.iter().enumerate() {
            match behind.encode_write(write) {
                Ok(write) => encoded.push((write, self.begin_version())),
                Err(error) => {
                    let error = error.with("cache", &self.name);
                    return Err(BatchError { index: Some(index), error });
                }
            }
        }
        let (tell, told) = oneshot::channel();
        self.runtime.spawn(async move {
            let engine = &crew.engine;
            let outcome = match &engine.behind {
                Some(behind) => engine.accept(behind, &writes, encoded, &terms).await,
                None => Ok(Vec::new()),
            };
            // Whoever asked may have left.
            let _ = tell.send(outcome);
        });
        told.await.unwrap_or_else(|_| {
            let message = "the tokio runtime ended before the write was acknowledged";
            Err(Error::new(ErrorKind::OutcomeUnknown, message).with("cache", &self.name).into())
        })
    }

    async fn accept(
        &self,
        behind: &Behind<K, V>,
        writes: &[Write<K, V>],
        encoded: Vec<(Write<Key, Bytes>, larder_core::Version)>,
        terms: &WriteTerms,
    ) -> Outcome<V> {
        let answers = behind.writes.write_many(&behind.cache, encoded).await;
        let mut written = Vec::with_capacity(writes.len());
        let mut failed = None;
        for (index, (write, answer)) in writes.iter().zip(answers).enumerate() {
            match answer {
                Ok(offset) => {
                    let now = self.show_accepted(behind, &write.key, offset, terms);
                    written.push(Written::Done { changed: true, now, version: None });
                }
                Err(error) => failed = failed.or(Some((index, error))),
            }
        }
        let Some((index, error)) = failed else { return Ok(written) };
        let error = match written.is_empty() {
            true => error,
            false => {
                Error::new(ErrorKind::OutcomeUnknown, "the journal has only some of these writes")
                    .with("accepted", written.len())
                    .with("of", writes.len())
                    .caused_by(error)
                    .remedy("read the keys to see which, or write fewer at once")
            }
        };
        Err(BatchError { index: Some(index), error: error.with("cache", &self.name) })
    }

    /// Refuses a value that would stand in for what waits for the origin.
    pub(super) fn refuse_put(&self) -> Result<()> {
        match &self.behind {
            None => Ok(()),
            Some(_) => Err(Error::new(
                ErrorKind::Unsupported,
                "the values of this cache come from its origin and its journal",
            )
            .with("cache", &self.name)
            .remedy("write it with `write`, which is acknowledged by the journal")),
        }
    }
}
