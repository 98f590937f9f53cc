//! Entries of a shared store that tell what made them.

use std::sync::atomic::{AtomicBool, Ordering};

use larder_core::{
    Capabilities, HeardUpTo, Key, Mark, PutCondition, PutOutcome, Result, Store, StoredEntry, Tag,
    Tags, Verb, Version, json_hash,
};
use larder_sql::Database;
use serde_json::json;

use super::plan::PlannedCache;

/// What makes the entries of a cache. What another query made, or the same one of
/// another database, is not what this one would.
pub(super) fn describe(planned: &PlannedCache, database: &Database) -> String {
    json_hash(&json!([database.label(), format!("{:?}", planned.source)]))
}

/// What a tag of this kind starts with. No template of a configuration makes one:
/// it has a control character.
const KIND: &str = "\u{1}made-by:";

/// A store whose entries carry what made them, the query and its database, as a
/// tag. What something else made is not there: another query would have made
/// something else of the same key. It is in the way of nothing: whoever loads the
/// key puts its own in that place.
///
/// It is not part of the cache's name because an invalidation is about the key,
/// whatever query fills it: while servers with the old query and with the new one
/// run side by side, each hears of the other's.
pub(super) struct MadeBy<S> {
    store: S,
    tag: Tag,
    /// Whether something else's entries were met.
    has_met_others: AtomicBool,
}

impl<S: Store> MadeBy<S> {
    /// A store of entries that were made by what this describes.
    pub(super) fn new(store: S, maker: &str) -> Self {
        let tag = Tag::new(&format!("{KIND}{maker}"));
        Self { store, tag, has_met_others: AtomicBool::new(false) }
    }

    /// An entry as its cache knows it, if it is one of ours.
    fn ours(&self, entry: StoredEntry) -> Option<StoredEntry> {
        if entry.tags.contains(&self.tag) {
            let others = entry.tags.iter().filter(|tag| **tag != self.tag).cloned();
            return Some(StoredEntry { tags: others.collect(), ..entry });
        }
        if !self.has_met_others.swap(true, Ordering::Relaxed) {
            tracing::info!(
                "the shared store has entries that another query made, or the same one of another \
                 database: servers that are to share them need the same configuration, the URL of \
                 the database included"
            );
        }
        None
    }
}

impl<S: Store> Store for MadeBy<S> {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<StoredEntry>>> {
        let entries = self.store.get_many(keys).await?;
        Ok(entries.into_iter().map(|entry| entry.and_then(|entry| self.ours(entry))).collect())
    }

    async fn put_many(
        &self,
        entries: &[(Key, StoredEntry)],
        condition: PutCondition,
    ) -> Result<Vec<PutOutcome>> {
        let marked: Vec<(Key, StoredEntry)> = entries
            .iter()
            .map(|(key, entry)| {
                let tags = entry.tags.union(&Tags::new([self.tag.clone()]));
                (key.clone(), StoredEntry { tags, ..entry.clone() })
            })
            .collect();
        self.store.put_many(&marked, condition).await
    }

    async fn invalidate_many(&self, keys: &[Key], at: Version, verb: Verb) -> Result<()> {
        self.store.invalidate_many(keys, at, verb).await
    }

    async fn mark(&self, marks: &[Mark]) -> Result<()> {
        self.store.mark(marks).await
    }

    async fn marks(&self) -> Result<Vec<Mark>> {
        self.store.marks().await
    }

    async fn newest_version(&self) -> Result<Version> {
        self.store.newest_version().await
    }

    async fn note_heard(&self, heard: HeardUpTo) -> Result<()> {
        self.store.note_heard(heard).await
    }

    async fn heard(&self) -> Result<Option<HeardUpTo>> {
        self.store.heard().await
    }
}

#[cfg(test)]
mod tests {
    use larder_testkit::conformance::{block_on, store::entry};
    use larder_testkit::faulty::FaultyStore;

    use super::*;

    fn stores() -> (MadeBy<FaultyStore>, MadeBy<FaultyStore>) {
        let store = FaultyStore::new(larder_core::Clock::monotonic());
        (MadeBy::new(store.clone(), "old"), MadeBy::new(store, "new"))
    }

    larder_testkit::store_conformance!(conforms, async { stores().0 });

    #[test]
    fn what_another_query_made_is_not_there_and_is_in_nobodys_way() {
        block_on(async {
            let (old, new) = stores();
            let key = Key::new("a");
            let put = async |store: &MadeBy<FaultyStore>, text: &str, version| {
                let entry = StoredEntry { tags: Tags::new(["t"]), ..entry(text, version) };
                store.put_many(&[(key.clone(), entry)], PutCondition::NewerThanHeld).await
            };
            put(&old, "old", 1).await.expect("it is put");
            let read = old.get(&key).await.expect("it answers").expect("it is there");
            assert_eq!(&*read.tags, &[Tag::new("t")], "what made it is nobody's tag");
            assert_eq!(new.get(&key).await.expect("it answers"), None);
            put(&new, "new", 2).await.expect("it is put");
            assert!(new.get(&key).await.expect("it answers").is_some());
            assert_eq!(old.get(&key).await.expect("it answers"), None);
            // An invalidation is about the key, whoever says it.
            let at = Version::new(3);
            old.invalidate_many(std::slice::from_ref(&key), at, Verb::Remove)
                .await
                .expect("it is told");
            assert_eq!(new.get(&key).await.expect("it answers"), None);
        });
    }
}
