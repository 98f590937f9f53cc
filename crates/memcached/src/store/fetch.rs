use std::time::Instant;

use larder_core::{Frame, Key, Result, Ttl};

use super::{MemcachedStore, unusable};
use crate::clock::duration_micros;
use crate::item::{self, EntryName, Item};
use crate::protocol::{Reply, Request};
use crate::server::Session;

/// What is held under a name.
#[derive(Debug)]
pub(super) struct Held {
    /// The number of its last change.
    pub(super) cas: u64,
    /// When it expires, by the server's clock.
    pub(super) expires_at_secs: u32,
    /// A time of the server's clock that was not passed when this was read;
    /// `None` if that cannot be told.
    pub(super) now_micros: Option<u64>,
    /// What it says; `None` if it is another key's or none of ours.
    pub(super) item: Option<Item>,
}

impl Held {
    /// Whether it is an entry whose TTLs have all passed: it is there only for
    /// the sake of its floor.
    pub(super) fn is_over(&self) -> bool {
        match self.item.as_ref().map(|item| &item.frame) {
            Some(Frame::Entry { entry, read_at_micros, .. }) => {
                let Some(now) = self.now_micros else { return true };
                ends_at(*read_at_micros, longer(entry.fresh_for, entry.stale_for))
                    .is_some_and(|end| now >= end)
            }
            _ => false,
        }
    }
}

/// When a TTL that counts from a moment ends; `None`: never.
pub(super) fn ends_at(from_micros: u64, ttl: Ttl) -> Option<u64> {
    ttl.duration().map(|duration| from_micros.saturating_add(duration_micros(duration)))
}

/// The longer of two TTLs.
pub(super) fn longer(one: Ttl, other: Ttl) -> Ttl {
    if one.min(other) == one { other } else { one }
}

impl MemcachedStore {
    /// Reads items of one server. One round trip.
    pub(super) async fn fetch<'a>(
        &self,
        session: &Session,
        server: usize,
        entries: impl Iterator<Item = (&'a Key, &'a EntryName)> + Clone,
    ) -> Result<Vec<Option<Held>>> {
        let request = |(_, name): (&Key, &EntryName)| {
            let get = Request::get(name.wire.clone());
            get.with_value().with_cas().with_ttl().with_client_flags()
        };
        let requests: Vec<Request> = entries.clone().map(request).collect();
        let asked_at = Instant::now();
        let answers = session.call(&requests).await?;
        let held = |((key, name), reply)| match reply {
            Reply::Missing => Ok(None),
            Reply::Value(value, flags) => {
                let expires_at_secs = flags.client_flags.unwrap_or(0);
                // What a server shows of its clock: the end less what is left.
                let now_micros = flags.ttl_secs.and_then(|left| {
                    let shown = u64::from(expires_at_secs).checked_sub(u64::from(left))?;
                    session.clock.now_at_most(shown, asked_at)
                });
                let item = item::decode(name, key, &value);
                let cas = flags.cas.unwrap_or(0);
                Ok(Some(Held { cas, expires_at_secs, now_micros, item }))
            }
            reply => Err(unusable(self.client.address(server), &reply)),
        };
        entries.zip(answers.replies).map(held).collect()
    }
}
