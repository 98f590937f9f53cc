use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder::{BehindStatistics, WriteBehind};
use larder_core::{
    Action, Clock, DynJournal, DynOrigin, Error, ErrorKind, JournalOffset, Key, Result, Version,
    Write,
};

use crate::identifier::Identifiers;
use crate::{AuditOptions, json};

/// Takes records that are only ever appended. Clones are the same.
///
/// Each stream goes to an origin of its own, or several to one. A journal with
/// one lane stands between: its order is the order of all streams together.
#[derive(Clone)]
pub struct AuditBuffer {
    behind: WriteBehind,
    identifiers: Arc<Identifiers>,
    record_bytes_max: usize,
}

/// What is said of a record that was accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct AuditReceipt {
    /// The key of the record, which no other has: the stream, a colon and a UUID
    /// of version 7. What was appended after this was acknowledged has a larger
    /// one.
    pub key: Key,
    /// Its place in the journal: the order of acknowledgement.
    pub place: JournalOffset,
}

impl AuditBuffer {
    /// Takes over the journal, and goes on from where each origin says it is.
    /// Needs a tokio runtime. An origin that cannot be reached is asked again
    /// until it answers; records wait meanwhile, and more are accepted.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the journal has more than one lane, a stream has a
    /// name that cannot be part of a key, or its origin keeps no marks: it would
    /// get records twice; those of [`WriteBehind::open`].
    pub async fn open(
        journal: Arc<dyn DynJournal>,
        streams: impl IntoIterator<Item = (String, Arc<dyn DynOrigin<Key, Bytes>>)>,
        options: AuditOptions,
        clock: Clock,
    ) -> Result<Self> {
        let lanes = journal.profile().lanes;
        if lanes != 1 {
            return Err(Error::new(
                ErrorKind::Config,
                "the journal of an audit buffer has more than one lane",
            )
            .with("lanes", lanes)
            .remedy("give it a journal of its own with one lane: records have one order"));
        }
        let streams: Vec<_> = streams.into_iter().collect();
        for (stream, origin) in &streams {
            check_stream(stream, &**origin)?;
        }
        let behind = WriteBehind::open(journal, streams, options.behind, clock).await?;
        Ok(Self {
            behind,
            identifiers: Arc::new(Identifiers::new(options.machine_clock)),
            record_bytes_max: options.record_bytes_max,
        })
    }

    /// Accepts a record, a JSON object: once this returns, it survives what the
    /// journal's profile says, and the origin will have it, once and in its place.
    /// One sync of the journal, shared with all records that come at the same
    /// time.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if it is too large or no JSON object;
    /// [`ErrorKind::Overloaded`] if too much waits; those of
    /// [`WriteBehind::write`]. It was not accepted then, except with
    /// [`ErrorKind::OutcomeUnknown`].
    ///
    /// # Cancel safety
    /// If it is dropped, the record may or may not be accepted.
    pub async fn append(&self, stream: &str, record: impl Into<Bytes>) -> Result<AuditReceipt> {
        let write = self.write(stream, &record.into())?;
        let key = write.key.clone();
        let place = self.behind.write(stream, write, Version::ZERO).await?;
        Ok(AuditReceipt { key, place })
    }

    /// Accepts several records one behind the other, with one sync of the journal.
    ///
    /// # Errors
    /// As [`AuditBuffer::append`], and none of them was accepted; but as the buffer
    /// shuts down, some may have been.
    ///
    /// # Cancel safety
    /// As [`AuditBuffer::append`].
    pub async fn append_many(
        &self,
        stream: &str,
        records: impl IntoIterator<Item = Bytes>,
    ) -> Result<Vec<AuditReceipt>> {
        let writes = records.into_iter().map(|record| self.write(stream, &record));
        let writes: Vec<_> = writes.collect::<Result<_>>()?;
        let keys: Vec<Key> = writes.iter().map(|write| write.key.clone()).collect();
        let writes = writes.into_iter().map(|write| (write, Version::ZERO)).collect();
        let places = self.behind.write_many(stream, writes).await;
        let receipt = |(key, place): (Key, Result<JournalOffset>)| {
            place.map(|place| AuditReceipt { key, place })
        };
        keys.into_iter().zip(places).map(receipt).collect()
    }

    /// Passes on all that was accepted before this call, now. Returns when the
    /// origins have it. It waits for as long as an origin cannot be reached.
    ///
    /// # Errors
    /// As [`WriteBehind::flush`].
    ///
    /// # Cancel safety
    /// If it is dropped, everything is passed on nevertheless.
    pub async fn flush(&self) -> Result<()> {
        self.behind.flush().await
    }

    /// Accepts nothing more, passes on what waits for at most this long, and
    /// stops. Returns how many records are left: they stay in the journal, and are
    /// passed on after the next start.
    pub async fn shut_down(&self, at_most: Duration) -> usize {
        self.behind.shut_down(at_most).await
    }

    /// What was done and what waits.
    #[must_use]
    pub fn statistics(&self) -> BehindStatistics {
        self.behind.statistics()
    }

    /// The writes underneath: to see, replay and drop the records that an origin
    /// will never take.
    #[must_use]
    pub fn behind(&self) -> &WriteBehind {
        &self.behind
    }

    fn write(&self, stream: &str, record: &Bytes) -> Result<Write<Key, Bytes>> {
        if record.len() > self.record_bytes_max {
            return Err(Error::new(ErrorKind::InvalidInput, "an audit record is too large")
                .with("bytes", record.len())
                .with("record_bytes_max", self.record_bytes_max)
                .remedy("leave out what is large and say where it is, or raise the bound"));
        }
        let record = json::line(record)?;
        let key = Key::new(format!("{stream}:{}", self.identifiers.next()));
        Ok(Write::new(key, Action::Put(record)))
    }
}

impl fmt::Debug for AuditBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditBuffer")
            .field("behind", &self.behind)
            .field("record_bytes_max", &self.record_bytes_max)
            .finish_non_exhaustive()
    }
}

fn check_stream(stream: &str, origin: &dyn DynOrigin<Key, Bytes>) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
    if stream.is_empty() || stream.len() > STREAM_BYTES_MAX || !stream.bytes().all(is_plain) {
        return Err(Error::new(ErrorKind::Config, "this is no name of an audit stream")
            .with("stream", stream.escape_debug())
            .remedy("1 to 64 letters, digits, '_', '-', '.' and ':'"));
    }
    let abilities = origin.write_abilities();
    if !abilities.marks || !abilities.put {
        return Err(Error::new(
            ErrorKind::Config,
            "the origin of an audit stream keeps no marks, so it may get records twice",
        )
        .with("stream", stream)
        .remedy("use audit files or a SQL table that is written"));
    }
    Ok(())
}

const STREAM_BYTES_MAX: usize = 64;
