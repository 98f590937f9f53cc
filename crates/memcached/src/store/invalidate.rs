use std::collections::HashSet;

use bytes::Bytes;
use futures_util::future::join_all;
use larder_core::{Frame, Key, Result, Verb, Version, frame_layout};

use super::fetch::Held;
use super::write::{expiry_secs, store_request};
use super::{ATTEMPTS_MAX, MemcachedStore, contended, pause_before, unusable};
use crate::client::Route;
use crate::clock::duration_micros;
use crate::item::{self, EntryName};
use crate::protocol::Reply;
use crate::server::Session;

/// An invalidation of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Invalidation {
    pub(super) key: Key,
    pub(super) at: Version,
    pub(super) verb: Verb,
}

impl MemcachedStore {
    pub(super) async fn invalidate_all(&self, keys: &[Key], at: Version, verb: Verb) -> Result<()> {
        let mut seen = HashSet::with_capacity(keys.len());
        let all: Vec<Invalidation> = keys
            .iter()
            .filter(|key| seen.insert(*key))
            .map(|key| Invalidation { key: key.clone(), at, verb })
            .collect();
        let route = |invalidation: &Invalidation| {
            self.client.route(self.names.entry(&invalidation.key).wire.as_bytes())
        };
        let routes: Vec<Route> = all.iter().map(route).collect();
        let mut first_error = None;
        for (invalidation, route) in all.iter().zip(&routes) {
            // Its own server hears of it when it returns.
            if route.server != Some(route.home) {
                self.debts.owe(route.home, std::slice::from_ref(invalidation));
            }
            if route.server.is_none() {
                first_error = first_error.or_else(|| Some(self.client.dead_error(*route)));
            }
        }
        let groups = self.client.groups(&routes).into_iter().map(|(server, indexes)| {
            let group: Vec<Invalidation> =
                indexes.into_iter().map(|index| all[index].clone()).collect();
            self.invalidate_group(server, group)
        });
        for result in join_all(groups).await {
            first_error = first_error.or(result.err());
        }
        first_error.map_or(Ok(()), Err)
    }

    async fn invalidate_group(&self, server: usize, group: Vec<Invalidation>) -> Result<()> {
        let promise = self.debts.promise(server, group);
        let session = self.client.session(server).await?;
        self.settle(server, &session).await?;
        self.apply(&session, server, promise.invalidations()).await?;
        promise.keep();
        Ok(())
    }

    /// Invalidates items of one server, each where what it holds is older.
    /// Two round trips, and two more for each time that others write them.
    pub(super) async fn apply(
        &self,
        session: &Session,
        server: usize,
        group: &[Invalidation],
    ) -> Result<()> {
        let named = |invalidation: &Invalidation| {
            (invalidation.clone(), self.names.entry(&invalidation.key))
        };
        let mut open: Vec<(Invalidation, EntryName)> = group.iter().map(named).collect();
        for attempt in 0..ATTEMPTS_MAX {
            pause_before(attempt).await;
            let entries = open.iter().map(|(invalidation, name)| (&invalidation.key, name));
            let held = self.fetch(session, server, entries).await?;
            let floors_until =
                session.clock.now_at_least() + duration_micros(self.options.floor_window);
            let (mut writing, mut requests) = (Vec::new(), Vec::new());
            for ((invalidation, name), held) in open.into_iter().zip(held) {
                let Some(frame) = replacement(&invalidation, held.as_ref()) else { continue };
                let (generation, expires_at_secs) =
                    held.as_ref().map_or((0, 0), |held| kept(&frame, held));
                let expires_at = expiry_secs(floors_until).max(expires_at_secs);
                let value = item::encode(&name, &invalidation.key, generation, frame.bytes());
                let over = held.map(|held| held.cas);
                requests.push(store_request(&name, value, over, expires_at));
                writing.push((invalidation, name));
            }
            open = Vec::new();
            let answers = session.call(&requests).await?;
            for (written, reply) in writing.into_iter().zip(answers.replies) {
                match reply {
                    Reply::Done(_) => {}
                    Reply::NotStored(_) | Reply::Exists(_) | Reply::NotFound(_) => {
                        open.push(written);
                    }
                    reply => return Err(unusable(self.client.address(server), &reply)),
                }
            }
            if open.is_empty() {
                return Ok(());
            }
        }
        Err(contended(self.client.address(server)))
    }
}

/// What is written in place of what is held.
enum Replacement {
    Gravestone(Vec<u8>),
    /// The entry as it was, but expired.
    Expired(Vec<u8>),
}

impl Replacement {
    fn bytes(&self) -> &[u8] {
        let (Self::Gravestone(bytes) | Self::Expired(bytes)) = self;
        bytes
    }
}

/// What to write, or `None` if what is held is not older.
fn replacement(invalidation: &Invalidation, held: Option<&Held>) -> Option<Replacement> {
    let at = invalidation.at;
    let gravestone = |at| Some(Replacement::Gravestone(Frame::encode_gravestone(at)));
    let Some(item) = held.and_then(|held| held.item.as_ref()) else { return gravestone(at) };
    match &item.frame {
        Frame::Gravestone(floor) if *floor >= at => None,
        Frame::Gravestone(_) => gravestone(at),
        Frame::Entry { entry, .. } if entry.version >= at => None,
        Frame::Entry { floor, .. } => match invalidation.verb {
            Verb::Remove => gravestone(at.max(*floor)),
            Verb::Expire => Some(Replacement::Expired(expired(&item.bytes, at.max(*floor)))),
        },
    }
}

/// The generation of what stays, and until when that has to stay.
fn kept(replacement: &Replacement, held: &Held) -> (u64, u32) {
    match (replacement, &held.item) {
        (Replacement::Expired(_), Some(item)) => (item.generation, held.expires_at_secs),
        // An earlier gravestone may have been there for longer.
        _ => (0, 0),
    }
}

/// The frame of an entry with another floor and the mark of what has expired.
fn expired(frame: &Bytes, floor: Version) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[frame_layout::FLAGS] |= frame_layout::FLAG_EXPIRED;
    frame[frame_layout::FLOOR].copy_from_slice(&floor.get().to_be_bytes());
    frame
}
