use std::time::Duration;

use futures_util::future::{join, join_all};
use larder_core::{Error, Frame, Key, Result, StoredEntry};

use super::MemcachedStore;
use super::fetch::Held;
use crate::client::Route;
use crate::item::{self, EntryName};

/// An entry that was read, and the generation that it belongs to.
type Found = (u64, StoredEntry);

impl MemcachedStore {
    pub(super) async fn read_many(&self, keys: &[Key]) -> Result<Vec<Option<StoredEntry>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let generation = self.control.generation().await?;
        let names: Vec<EntryName> = keys.iter().map(|key| self.names.entry(key)).collect();
        let routes: Vec<Route> =
            names.iter().map(|name| self.client.route(name.wire.as_bytes())).collect();
        let groups = self.client.groups(&routes).into_iter().map(|(server, indexes)| {
            let names = &names;
            async move {
                let found = self.read_group(server, &indexes, keys, names).await;
                (indexes, found)
            }
        });
        // The control item is read now and then, so that it is not evicted.
        let (groups, ()) = join(join_all(groups), self.control.refresh_now_and_then()).await;
        let mut found: Vec<Option<Found>> = keys.iter().map(|_| None).collect();
        let mut first_error = None;
        let mut is_answered = false;
        for (indexes, result) in groups {
            match result {
                Ok(entries) => {
                    is_answered = true;
                    for (index, entry) in indexes.into_iter().zip(entries) {
                        found[index] = entry;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, keys = indexes.len(), "memcached: read as misses");
                    first_error = first_error.or(Some(error));
                }
            }
        }
        self.fail_if_nobody_answered(is_answered, first_error, &routes)?;
        let generation = self.settled_generation(generation, &found).await;
        let is_valid = |(written_in, entry)| (written_in == generation).then_some(entry);
        Ok(found.into_iter().map(|found| found.and_then(is_valid)).collect())
    }

    /// The generation to judge by: that of now, if something was found of
    /// another one than is known here.
    async fn settled_generation(&self, known: u64, found: &[Option<Found>]) -> u64 {
        let is_foreign =
            |found: &Option<Found>| found.as_ref().is_some_and(|(written, _)| *written != known);
        if !found.iter().any(is_foreign) {
            return known;
        }
        self.control.refreshed().await.unwrap_or(known)
    }

    /// A dead server is a miss as long as others live.
    fn fail_if_nobody_answered(
        &self,
        is_answered: bool,
        first_error: Option<Error>,
        routes: &[Route],
    ) -> Result<()> {
        match first_error {
            _ if is_answered => Ok(()),
            Some(error) => Err(error),
            None if self.client.servers().iter().all(|server| server.is_dead) => {
                Err(self.client.dead_error(routes[0]))
            }
            None => Ok(()),
        }
    }

    async fn read_group(
        &self,
        server: usize,
        indexes: &[usize],
        keys: &[Key],
        names: &[EntryName],
    ) -> Result<Vec<Option<Found>>> {
        let session = self.client.session(server).await?;
        self.settle(server, &session).await?;
        let entries = indexes.iter().map(|index| (&keys[*index], &names[*index]));
        let held = self.fetch(&session, server, entries).await?;
        let value_bytes_max = item::value_bytes_max(self.client.item_bytes_max());
        let readable = |held| readable(held, value_bytes_max);
        Ok(held.into_iter().map(|held| held.and_then(readable)).collect())
    }
}

/// The entry of an item, aged, if it may still be read.
fn readable(held: Held, value_bytes_max: usize) -> Option<Found> {
    if held.is_over() {
        return None;
    }
    let (now, item) = (held.now_micros?, held.item?);
    match item.frame.unpacked(value_bytes_max).ok()? {
        Frame::Entry { entry, read_at_micros, .. } => {
            let age = Duration::from_micros(now.saturating_sub(read_at_micros));
            Some((item.generation, StoredEntry { age, ..entry }))
        }
        Frame::Gravestone(_) => None,
    }
}
