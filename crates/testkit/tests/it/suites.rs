//! The store suite notices stores that break their promises.

use larder_core::{
    Capabilities, Clock, Key, Mark, PutCondition, PutOutcome, Result, Store, StoredEntry, Tag,
    Verb, Version,
};
use larder_testkit::conformance::{block_on, store as cases};
use larder_testkit::faulty::FaultyStore;

/// How a store breaks its promises.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    /// It puts wherever nothing is held, whatever was removed.
    PutsAnywhere,
    /// It answers no more than this in one batch.
    CutsAt(usize),
    /// It removes what is there, and does not remember that it did.
    Forgets,
    /// It keeps what of a tag is plain.
    SpoilsTags,
}

struct Flawed(FaultyStore, Flaw);

impl Store for Flawed {
    fn capabilities(&self) -> Capabilities {
        Store::capabilities(&self.0)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<StoredEntry>>> {
        let mut answers = Store::get_many(&self.0, keys).await?;
        if let Flaw::CutsAt(count) = self.1 {
            answers.iter_mut().skip(count).for_each(|answer| *answer = None);
        }
        Ok(answers)
    }

    async fn put_many(
        &self,
        entries: &[(Key, StoredEntry)],
        condition: PutCondition,
    ) -> Result<Vec<PutOutcome>> {
        let is_vacant = Store::get(&self.0, &entries[0].0).await?.is_none();
        if self.1 == Flaw::PutsAnywhere && is_vacant {
            let mut entries = entries.to_vec();
            // Else the store underneath would refuse it.
            entries.iter_mut().for_each(|(_, entry)| entry.version = Version::new(99));
            return Store::put_many(&self.0, &entries, condition).await;
        }
        Store::put_many(&self.0, entries, condition).await
    }

    async fn invalidate_many(&self, keys: &[Key], at: Version, verb: Verb) -> Result<()> {
        if self.1 != Flaw::Forgets {
            return Store::invalidate_many(&self.0, keys, at, verb).await;
        }
        for key in keys {
            let held = Store::get(&self.0, key).await?.map(|held| held.version);
            if let Some(version) = held.filter(|version| *version < at) {
                let key = std::slice::from_ref(key);
                Store::invalidate_many(&self.0, key, version.above(), verb).await?;
            }
        }
        Ok(())
    }

    async fn mark(&self, marks: &[Mark]) -> Result<()> {
        let mut marks = marks.to_vec();
        if self.1 == Flaw::SpoilsTags {
            let plain = |tag: &Tag| Tag::new(&tag.as_str().replace(|c: char| !c.is_ascii(), "?"));
            marks.iter_mut().for_each(|mark| mark.tag = mark.tag.as_ref().map(plain));
        }
        Store::mark(&self.0, &marks).await
    }

    async fn marks(&self) -> Result<Vec<Mark>> {
        Store::marks(&self.0).await
    }
}

fn flawed(flaw: Flaw) -> Flawed {
    Flawed(FaultyStore::new(Clock::monotonic()), flaw)
}

#[test]
#[should_panic(expected = "after a removal at 7")]
fn a_put_that_does_not_heed_a_removal_is_noticed() {
    let store = flawed(Flaw::PutsAnywhere);
    block_on(cases::an_invalidation_wins_over_every_older_put_beside_it(store));
}

#[test]
#[should_panic(expected = "conformance:thousand:512")]
fn a_batch_that_is_cut_off_is_noticed() {
    block_on(cases::a_thousand_keys_are_one_batch(flawed(Flaw::CutsAt(512))));
}

#[test]
#[should_panic(expected = "over a removal at 9")]
fn a_removal_that_is_not_remembered_is_noticed() {
    block_on(cases::a_removal_hides_and_refuses_what_is_older(flawed(Flaw::Forgets)));
}

#[test]
#[should_panic(expected = "assertion `left == right` failed")]
fn tags_that_are_spoilt_are_noticed() {
    block_on(cases::tags_are_any_text(flawed(Flaw::SpoilsTags)));
}
