//! The control item of a cache: its generation and its watermarks.
//!
//! Every entry carries the generation that the cache had when it was put. The
//! control item says which one it has now. It never expires but may be evicted,
//! and with it watermarks are lost that entries may fall under. So whoever
//! finds it missing makes a new one with a new random generation, which makes
//! all entries of the old one misses: no watermark is needed for those any more.
//!
//! A node keeps to the generation that it knows until it meets an entry of
//! another, or reads the control item for another reason. That is safe: it has
//! heard of every watermark since it first read them. Only who starts later
//! depends on what the control item says.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use larder_core::{Mark, Result, Tag, Verb, Version};

use super::{ATTEMPTS_MAX, contended, pause_before, unusable};
use crate::Memcached;
use crate::item::payload_bytes_max;
use crate::protocol::{Mode, Reply, Request, WireKey};

const FORMAT: u8 = 1;
/// A control item takes no more than this, tags included.
const BYTES_MAX: usize = 256 << 10;
/// Entries of another generation do not make a node read the control item more
/// often than this.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);
/// It is read this often while the cache is, so that it is not evicted.
const TOUCH_PAUSE: Duration = Duration::from_secs(20);

/// A cache's control item, as this node knows it.
pub(super) struct Control {
    client: Memcached,
    name: WireKey,
    marks_max: usize,
    /// 0 until it was read.
    generation: AtomicU64,
    read_at: Mutex<Option<Instant>>,
}

/// What the control item says.
#[derive(Clone, PartialEq, Eq, Debug)]
struct State {
    generation: u64,
    marks: Vec<Mark>,
}

impl Control {
    pub(super) fn new(client: Memcached, name: WireKey, marks_max: usize) -> Self {
        let generation = AtomicU64::new(0);
        Self { client, name, marks_max, generation, read_at: Mutex::new(None) }
    }

    /// The generation that this node knows. The first call reads it.
    pub(super) async fn generation(&self) -> Result<u64> {
        match self.generation.load(Ordering::Acquire) {
            0 => Ok(self.update(|_| {}).await?.generation),
            known => Ok(known),
        }
    }

    /// The generation of now, unless it was read a moment ago.
    pub(super) async fn refreshed(&self) -> Result<u64> {
        if self.is_due(REFRESH_PAUSE) {
            // Who finds it missing here has nothing to hide from: it stays so.
            if let Some((_, state)) = self.read().await? {
                self.learn(&state);
            }
        }
        self.generation().await
    }

    /// Reads the control item if that was long ago. It is no failure if it
    /// cannot be.
    pub(super) async fn refresh_now_and_then(&self) {
        if self.is_due(TOUCH_PAUSE)
            && let Err(error) = self.refreshed().await
        {
            tracing::debug!(%error, "memcached: the control item cannot be read");
        }
    }

    /// The watermarks.
    pub(super) async fn marks(&self) -> Result<Vec<Mark>> {
        Ok(self.update(|_| {}).await?.marks)
    }

    /// Raises watermarks.
    pub(super) async fn raise(&self, marks: &[Mark]) -> Result<()> {
        if marks.is_empty() {
            return Ok(());
        }
        let bytes_max = payload_bytes_max(self.client.item_bytes_max()).min(BYTES_MAX);
        self.update(|state| {
            marks.iter().for_each(|mark| state.raise(mark));
            state.fold(self.marks_max, bytes_max);
        })
        .await?;
        Ok(())
    }

    /// Gives up every entry of the cache.
    pub(super) async fn renew(&self) -> Result<()> {
        let fresh = new_generation();
        self.update(|state| state.generation = fresh).await?;
        Ok(())
    }

    /// Reads the control item, makes one if there is none, changes it, and writes
    /// it back if that made a difference.
    async fn update(&self, change: impl Fn(&mut State)) -> Result<State> {
        let server = self.server()?;
        let session = self.client.session(server).await?;
        for attempt in 0..ATTEMPTS_MAX {
            pause_before(attempt).await;
            let held = self.read().await?;
            let (over, before) = match &held {
                Some((cas, state)) => (Some(*cas), Some(state)),
                None => (None, None),
            };
            let readable = before.filter(|state| state.generation != 0);
            let mut state = readable.cloned().unwrap_or_else(State::new);
            change(&mut state);
            if before == Some(&state) {
                self.learn(&state);
                return Ok(state);
            }
            let value = state.encode();
            let request = match over {
                Some(cas) => Request::set(self.name.clone(), value, Mode::Set).compare(cas),
                None => Request::set(self.name.clone(), value, Mode::Add),
            };
            let answers = session.call(&[request]).await?;
            match &answers.replies[..] {
                [Reply::Done(_)] => {
                    self.learn(&state);
                    return Ok(state);
                }
                [Reply::NotStored(_) | Reply::Exists(_) | Reply::NotFound(_)] => {}
                [reply, ..] => return Err(unusable(self.client.address(server), reply)),
                [] => {}
            }
        }
        Err(contended(self.client.address(server)))
    }

    /// What the control item says; `None` if there is none. What cannot be read
    /// is replaced by one of a new generation.
    async fn read(&self) -> Result<Option<(u64, State)>> {
        let server = self.server()?;
        let session = self.client.session(server).await?;
        let request = Request::get(self.name.clone()).with_value().with_cas();
        let answers = session.call(&[request]).await?;
        *self.read_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        match &answers.replies[..] {
            [Reply::Missing] => Ok(None),
            [Reply::Value(value, flags)] => {
                // No cache has this generation.
                let unreadable = || State { generation: 0, marks: Vec::new() };
                let state = State::decode(value).unwrap_or_else(unreadable);
                Ok(Some((flags.cas.unwrap_or(0), state)))
            }
            [reply, ..] => Err(unusable(self.client.address(server), reply)),
            [] => Ok(None),
        }
    }

    /// Its own server: one that stands in knows nothing.
    fn server(&self) -> Result<usize> {
        let route = self.client.route(self.name.as_bytes());
        match route.server {
            Some(server) if !route.is_stand_in() => Ok(server),
            _ => Err(self.client.dead_error(route)),
        }
    }

    fn learn(&self, state: &State) {
        self.generation.store(state.generation, Ordering::Release);
    }

    fn is_due(&self, pause: Duration) -> bool {
        let read_at = *self.read_at.lock().unwrap_or_else(PoisonError::into_inner);
        read_at.is_none_or(|read_at| read_at.elapsed() >= pause)
    }
}

impl State {
    fn new() -> Self {
        Self { generation: new_generation(), marks: Vec::new() }
    }

    fn raise(&mut self, mark: &Mark) {
        let held =
            self.marks.iter_mut().find(|held| (&held.tag, held.verb) == (&mark.tag, mark.verb));
        match held {
            Some(held) => held.version = held.version.max(mark.version),
            None => self.marks.push(mark.clone()),
        }
    }

    /// Makes the oldest watermarks of tags into watermarks of the whole cache
    /// until there are few enough. That kills more than was asked for, and
    /// nothing that is newer.
    fn fold(&mut self, marks_max: usize, bytes_max: usize) {
        self.marks.sort_by_key(|mark| (mark.tag.is_some(), mark.version));
        while self.marks.len() > marks_max || self.encoded_length() > bytes_max {
            let Some(oldest) = self.marks.iter().position(|mark| mark.tag.is_some()) else {
                return;
            };
            let mark = self.marks.remove(oldest);
            self.raise_for_all(mark.verb, mark.version);
        }
    }

    fn raise_for_all(&mut self, verb: Verb, version: Version) {
        let held = self.marks.iter_mut().find(|held| held.tag.is_none() && held.verb == verb);
        match held {
            Some(held) => held.version = held.version.max(version),
            None => self.marks.insert(0, Mark { tag: None, verb, version }),
        }
    }

    fn encoded_length(&self) -> usize {
        let length = |mark: &Mark| 12 + mark.tag.as_ref().map_or(0, |tag| tag.as_str().len());
        13 + self.marks.iter().map(length).sum::<usize>()
    }

    fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(self.encoded_length());
        bytes.put_u8(FORMAT);
        bytes.put_u64(self.generation);
        bytes.put_u32(u32::try_from(self.marks.len()).unwrap_or(u32::MAX));
        for Mark { tag, verb, version } in &self.marks {
            let name = tag.as_ref().map_or("", Tag::as_str);
            bytes.put_u8(u8::from(*verb == Verb::Remove));
            bytes.put_u8(u8::from(tag.is_some()));
            bytes.put_u64(version.get());
            bytes.put_u16(u16::try_from(name.len()).unwrap_or(u16::MAX));
            bytes.put_slice(name.as_bytes());
        }
        bytes.into()
    }

    fn decode(value: &Bytes) -> Option<Self> {
        let mut rest = value.clone();
        if rest.try_get_u8().ok()? != FORMAT {
            return None;
        }
        let generation = rest.try_get_u64().ok().filter(|generation| *generation != 0)?;
        let count = rest.try_get_u32().ok()?;
        let mut marks = Vec::new();
        for _ in 0..count {
            let verb = if rest.try_get_u8().ok()? == 0 { Verb::Expire } else { Verb::Remove };
            let has_tag = rest.try_get_u8().ok()? != 0;
            let version = Version::new(rest.try_get_u64().ok()?);
            let length = usize::from(rest.try_get_u16().ok()?);
            if rest.len() < length {
                return None;
            }
            let name = rest.split_to(length);
            let tag = has_tag.then(|| std::str::from_utf8(&name).map(Tag::new));
            marks.push(Mark { tag: tag.transpose().ok()?, verb, version });
        }
        Some(Self { generation, marks })
    }
}

fn new_generation() -> u64 {
    fastrand::u64(1..)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn mark(tag: Option<&str>, verb: Verb, version: u64) -> Mark {
        Mark { tag: tag.map(Tag::new), verb, version: Version::new(version) }
    }

    /// Whether an entry of this version and tag is dead, and how.
    fn is_dead(state: &State, tag: &str, version: u64, verb: Verb) -> bool {
        state.marks.iter().any(|mark| {
            mark.verb == verb
                && mark.tag.as_ref().is_none_or(|held| held.as_str() == tag)
                && mark.version > Version::new(version)
        })
    }

    proptest! {
        #[test]
        fn folding_kills_no_less_and_nothing_newer_than_all_marks(
            marks in vec((proptest::option::of("[a-d]"), any::<bool>(), 0..50_u64), 0..20),
            marks_max in 0..8_usize,
        ) {
            let mut state = State::new();
            for (tag, is_removal, version) in &marks {
                let verb = if *is_removal { Verb::Remove } else { Verb::Expire };
                state.raise(&mark(tag.as_deref(), verb, *version));
            }
            let before = state.clone();
            state.fold(marks_max, BYTES_MAX);
            prop_assert!(state.marks.len() <= marks_max.max(2));
            for verb in [Verb::Expire, Verb::Remove] {
                for version in 0..50 {
                    for tag in ["a", "b", "c", "d", "none"] {
                        if is_dead(&before, tag, version, verb) {
                            prop_assert!(is_dead(&state, tag, version, verb));
                        }
                    }
                    let newest = before.marks.iter().map(|mark| mark.version.get()).max();
                    if newest.is_none_or(|newest| newest <= version) {
                        prop_assert!(!is_dead(&state, "none", version, verb));
                    }
                }
            }
            prop_assert_eq!(State::decode(&state.encode()), Some(state));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in vec(any::<u8>(), 0..80), cut in 0..60_usize) {
            let _ = State::decode(&Bytes::from(bytes));
            let mut state = State::new();
            state.raise(&mark(Some("artist"), Verb::Remove, 7));
            let bytes = state.encode();
            let cut = cut.min(bytes.len());
            prop_assert_eq!(State::decode(&bytes.slice(..cut)).is_some(), cut == bytes.len());
        }
    }

    #[test]
    fn what_does_not_fit_is_folded() {
        let mut state = State::new();
        state.raise(&mark(Some(&"x".repeat(500)), Verb::Expire, 7));
        state.raise(&mark(Some("y"), Verb::Expire, 9));
        state.fold(10, 200);
        assert_eq!(state.marks, [mark(None, Verb::Expire, 7), mark(Some("y"), Verb::Expire, 9)]);
    }
}
