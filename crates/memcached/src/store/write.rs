use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use larder_core::{
    Error, ErrorKind, Frame, Key, PutCondition, PutOutcome, Result, StoredEntry, Version,
};

use super::fetch::{Held, ends_at, longer};
use super::{ATTEMPTS_MAX, MemcachedStore, contended, pause_before, unusable};
use crate::client::Route;
use crate::clock::{duration_micros, secs_up};
use crate::item::{self, EntryName};
use crate::protocol::{Mode, Reply, Request};
use crate::server::Session;

/// What has no end is kept for so long.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The last second that servers can count to.
const SECS_MAX: u64 = i32::MAX as u64;
/// A server's clock may be behind; what expires does so a little later.
const EXPIRY_SLACK_SECS: u64 = 3;

/// One call of put: what does not change from key to key.
struct Call {
    condition: PutCondition,
    /// When it began: ages are as of then.
    began_at: Instant,
    generation: u64,
}

/// One entry to put.
struct Put<'a> {
    key: &'a Key,
    name: EntryName,
    entry: &'a StoredEntry,
    /// Its place in the batch.
    index: usize,
    is_stand_in: bool,
}

/// What becomes of a put, seeing what is held.
enum Decision {
    Refused(Version),
    /// It is written over what has this number, or over nothing, with this floor
    /// and no shorter-lived than this.
    Written {
        over: Option<u64>,
        floor: Version,
        expires_at_secs_min: u32,
    },
}

impl MemcachedStore {
    pub(super) async fn write_many(
        &self,
        entries: &[(Key, StoredEntry)],
        condition: PutCondition,
    ) -> Result<Vec<PutOutcome>> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let began_at = Instant::now();
        let item_bytes_max = self.client.item_bytes_max();
        for (key, entry) in entries {
            self.check_length(key, entry, item_bytes_max)?;
        }
        let generation = self.control.generation().await?;
        let call = Call { condition, began_at, generation };
        let chosen = chosen(entries, condition);
        let names: Vec<EntryName> = entries.iter().map(|(key, _)| self.names.entry(key)).collect();
        let routes: Vec<Route> =
            names.iter().map(|name| self.client.route(name.wire.as_bytes())).collect();
        let groups = self.client.groups(&routes).into_iter().map(|(server, indexes)| {
            let is_chosen = |index: &usize| chosen[*index] == *index;
            let put = |index: usize| Put {
                key: &entries[index].0,
                name: names[index].clone(),
                entry: &entries[index].1,
                index,
                is_stand_in: routes[index].is_stand_in(),
            };
            let puts: Vec<Put<'_>> = indexes.into_iter().filter(is_chosen).map(put).collect();
            self.write_group(server, puts, &call)
        });
        let mut outcomes: Vec<Option<PutOutcome>> = vec![None; entries.len()];
        let mut first_error =
            routes.iter().find(|route| route.server.is_none()).map(|r| self.client.dead_error(*r));
        for result in join_all(groups).await {
            match result {
                Ok(group) => {
                    group.into_iter().for_each(|(index, outcome)| outcomes[index] = Some(outcome));
                }
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        if let Some(error) = first_error {
            return Err(error);
        }
        // Another of the batch took the place of those that were not chosen.
        let outcome = |index: usize| {
            let superseded = || PutOutcome::Refused(entries[chosen[index]].1.version);
            outcomes[index].unwrap_or_else(superseded)
        };
        Ok((0..entries.len()).map(outcome).collect())
    }

    fn check_length(&self, key: &Key, entry: &StoredEntry, item_bytes_max: usize) -> Result<()> {
        let value = entry.value.as_option().map_or(0, Bytes::len);
        let tags: usize = entry.tags.iter().map(|tag| 2 + tag.as_str().len()).sum();
        // As if the key were in the item, too: it is if it is long.
        let others = tags + key.as_bytes().len().saturating_sub(crate::protocol::KEY_BYTES_MAX / 2);
        let bytes_max = item::value_bytes_max(item_bytes_max).saturating_sub(others);
        if value <= bytes_max {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, "the value is too long for memcached")
            .with("key", key)
            .with("bytes", value)
            .with("bytes_max", bytes_max)
            .remedy("cache less in one value, or start memcached with a larger -I"))
    }

    async fn write_group(
        &self,
        server: usize,
        mut open: Vec<Put<'_>>,
        call: &Call,
    ) -> Result<Vec<(usize, PutOutcome)>> {
        let mut outcomes = Vec::with_capacity(open.len());
        if open.is_empty() {
            return Ok(outcomes);
        }
        let session = self.client.session(server).await?;
        self.settle(server, &session).await?;
        for attempt in 0..ATTEMPTS_MAX {
            pause_before(attempt).await;
            let entries = open.iter().map(|put| (put.key, &put.name));
            let held = self.fetch(&session, server, entries).await?;
            let current = self.generation_beside(call.generation, &held).await;
            let (mut writing, mut requests) = (Vec::new(), Vec::new());
            for (put, held) in open.into_iter().zip(held) {
                match decide(&put, held.as_ref(), call, current, &session) {
                    Decision::Refused(version) => {
                        outcomes.push((put.index, PutOutcome::Refused(version)));
                    }
                    Decision::Written { over, floor, expires_at_secs_min } => {
                        let shape = (over, floor, expires_at_secs_min);
                        requests.push(self.write_request(&put, shape, call, &session)?);
                        writing.push(put);
                    }
                }
            }
            open = Vec::new();
            let answers = session.call(&requests).await?;
            for (put, reply) in writing.into_iter().zip(answers.replies) {
                match reply {
                    Reply::Done(_) => outcomes.push((put.index, PutOutcome::Stored)),
                    Reply::NotStored(_) | Reply::Exists(_) | Reply::NotFound(_) => open.push(put),
                    reply => return Err(unusable(self.client.address(server), &reply)),
                }
            }
            if open.is_empty() {
                return Ok(outcomes);
            }
        }
        Err(contended(self.client.address(server)))
    }

    /// The generation of now, if anything held is of another than is known.
    async fn generation_beside(&self, known: u64, held: &[Option<Held>]) -> u64 {
        let items = held.iter().flatten().filter_map(|held| held.item.as_ref());
        let mut entries = items.filter(|item| matches!(item.frame, Frame::Entry { .. }));
        if entries.any(|entry| entry.generation != known) {
            self.control.refreshed().await.unwrap_or(known)
        } else {
            known
        }
    }

    fn write_request(
        &self,
        put: &Put<'_>,
        (over, floor, expires_at_secs_min): (Option<u64>, Version, u32),
        call: &Call,
        session: &Session,
    ) -> Result<Request> {
        let now = session.clock.at_least(call.began_at);
        let read_at = read_at_micros(put.entry, now);
        let above = self.options.compress_above;
        let frame = Frame::encode_packed(put.entry, floor, read_at, above)?;
        let value = item::encode(&put.name, put.key, call.generation, &frame);
        let lives_for = longer(put.entry.fresh_for, put.entry.stale_for);
        let end = ends_at(read_at, lives_for).unwrap_or(now + duration_micros(FOREVER));
        let mut expires_at = expiry_secs(end).max(expires_at_secs_min);
        if put.is_stand_in {
            let latest = now.saturating_add(duration_micros(self.options.stand_in_ttl));
            expires_at = expires_at.min(expiry_secs(latest));
        }
        Ok(store_request(&put.name, value, over, expires_at))
    }
}

/// Stores over what has this number, or over nothing. What is expired already
/// is stored as such.
pub(super) fn store_request(
    name: &EntryName,
    value: Bytes,
    over: Option<u64>,
    expires_at_secs: u32,
) -> Request {
    let request = match over {
        Some(cas) => Request::set(name.wire.clone(), value, Mode::Set).compare(cas),
        None => Request::set(name.wire.clone(), value, Mode::Add),
    };
    request.expires_at(expires_at_secs).client_flags(expires_at_secs)
}

/// The second at which the server is to forget what ends at this time.
pub(super) fn expiry_secs(end_micros: u64) -> u32 {
    let secs = secs_up(end_micros).saturating_add(EXPIRY_SLACK_SECS).min(SECS_MAX);
    u32::try_from(secs).unwrap_or(u32::MAX)
}

fn read_at_micros(entry: &StoredEntry, now_micros: u64) -> u64 {
    now_micros.saturating_sub(duration_micros(entry.age))
}

/// For each entry the one of its key that is put: the newest, of equal ones the
/// first; the first of all if the condition is a vacancy.
fn chosen(entries: &[(Key, StoredEntry)], condition: PutCondition) -> Vec<usize> {
    let mut best: HashMap<&Key, usize> = HashMap::with_capacity(entries.len());
    for (index, (key, entry)) in entries.iter().enumerate() {
        let held = best.entry(key).or_insert(index);
        let rank = |entry: &StoredEntry| (entry.version, std::cmp::Reverse(entry.age));
        let is_newer = rank(entry) > rank(&entries[*held].1);
        if is_newer && condition == PutCondition::NewerThanHeld {
            *held = index;
        }
    }
    entries.iter().map(|(key, _)| best[key]).collect()
}

fn decide(
    put: &Put<'_>,
    held: Option<&Held>,
    call: &Call,
    current_generation: u64,
    session: &Session,
) -> Decision {
    let version = put.entry.version;
    let Some(held) = held else {
        let floor = Version::ZERO;
        return Decision::Written { over: None, floor, expires_at_secs_min: 0 };
    };
    let over_it = |floor: Version| Decision::Written {
        over: Some(held.cas),
        floor,
        // A floor holds no shorter because of what is put over it.
        expires_at_secs_min: if floor == Version::ZERO { 0 } else { held.expires_at_secs },
    };
    let Some(item) = &held.item else { return over_it(Version::ZERO) };
    match &item.frame {
        Frame::Gravestone(floor) if version < *floor => Decision::Refused(*floor),
        Frame::Gravestone(floor) => over_it(*floor),
        Frame::Entry { floor, .. } if version < *floor => Decision::Refused(*floor),
        // What this put was loaded under is gone.
        Frame::Entry { entry, .. } if current_generation != call.generation => {
            Decision::Refused(entry.version)
        }
        Frame::Entry { floor, .. } if item.generation != current_generation || held.is_over() => {
            over_it(*floor)
        }
        Frame::Entry { entry, floor, read_at_micros, .. } => {
            let now = session.clock.at_least(call.began_at);
            let rank = (version, self::read_at_micros(put.entry, now));
            let is_newer = rank > (entry.version, *read_at_micros);
            match call.condition {
                PutCondition::NewerThanHeld if is_newer => over_it(*floor),
                // A condition that this store does not know is not met.
                _ => Decision::Refused(entry.version.max(*floor)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_rounded_up_and_within_what_servers_count() {
        assert_eq!(expiry_secs(1_000_001), 2 + 3);
        assert_eq!(expiry_secs(u64::MAX), i32::MAX as u32);
    }
}
