//! A journal that fails for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use larder::{BehindOptions, Clock, ErrorKind, Version, WriteBehind};
use larder_core::{
    Action, DeadLetter, Death, DynOrigin, Error, Journal, JournalEntry, JournalOffset,
    JournalProfile, JournalRecord, JournalUsage, Key, LaneClaim, Result, Write,
};
use larder_journal::DiskJournal;
use larder_testkit::conformance::block_on;

use super::{CACHE, World, text};

/// Refuses whatever changes it, as long as it is told to.
#[derive(Clone)]
struct Refusing(DiskJournal, Arc<AtomicBool>);

impl Refusing {
    fn check(&self) -> Result<()> {
        if self.1.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "the scripted journal cannot write"));
        }
        Ok(())
    }
}

impl Journal for Refusing {
    fn profile(&self) -> JournalProfile {
        Journal::profile(&self.0)
    }

    fn usage(&self) -> JournalUsage {
        Journal::usage(&self.0)
    }

    async fn claim(&self, lane: u16) -> Result<LaneClaim> {
        Journal::claim(&self.0, lane).await
    }

    async fn append(&self, lane: u16, records: &[JournalRecord]) -> Result<JournalOffset> {
        self.check()?;
        Journal::append(&self.0, lane, records).await
    }

    async fn read(
        &self,
        lane: u16,
        after: JournalOffset,
        most: usize,
    ) -> Result<Vec<JournalEntry>> {
        Journal::read(&self.0, lane, after, most).await
    }

    async fn trim(&self, lane: u16, epoch: u64, applied: JournalOffset) -> Result<()> {
        self.check()?;
        Journal::trim(&self.0, lane, epoch, applied).await
    }

    async fn bury(&self, lane: u16, epoch: u64, deaths: &[Death]) -> Result<()> {
        self.check()?;
        Journal::bury(&self.0, lane, epoch, deaths).await
    }

    async fn dead_letters(
        &self,
        lane: u16,
        after: JournalOffset,
        most: usize,
    ) -> Result<Vec<DeadLetter>> {
        Journal::dead_letters(&self.0, lane, after, most).await
    }

    async fn replay(
        &self,
        lane: u16,
        letter: JournalOffset,
        instead: Option<&JournalRecord>,
    ) -> Result<Option<JournalOffset>> {
        self.check()?;
        Journal::replay(&self.0, lane, letter, instead).await
    }

    async fn drop_letters(&self, lane: u16, letters: &[JournalOffset]) -> Result<usize> {
        self.check()?;
        Journal::drop_letters(&self.0, lane, letters).await
    }
}

#[test]
fn a_journal_that_cannot_write_accepts_nothing_and_loses_nothing() {
    block_on(async {
        let world = World::new().await;
        world.behind.shut_down(super::LATER).await;
        let refuses = Arc::new(AtomicBool::new(false));
        let journal = Refusing(world.journal.clone(), Arc::clone(&refuses));
        let origin: Arc<dyn DynOrigin<Key, Bytes>> = Arc::new(world.table.clone());
        let behind = WriteBehind::open(
            Arc::new(journal),
            [(CACHE.to_owned(), origin)],
            BehindOptions::default(),
            Clock::from(world.clock.clone()),
        );
        let behind = behind.await.expect("it opens");
        let put = |value: &str| {
            let write = Write::new(Key::new("ann"), Action::Put(text(value)));
            behind.write(CACHE, write, Version::new(1))
        };
        world.table.poison("bad", true);
        put("1").await.expect("accepted");
        put("bad").await.expect("accepted");

        refuses.store(true, Ordering::SeqCst);
        let refused = put("2").await.expect_err("it is not in the journal");
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        let statistics = behind.statistics();
        assert_eq!((statistics.accepted, statistics.depth_records), (2, 2));

        // The bad one cannot be buried, so nothing passes it.
        let flush = tokio::spawn({
            let behind = behind.clone();
            async move { behind.flush().await }
        });
        world
            .settle("the lane waits for the journal", |_| {
                behind.statistics().lanes.iter().any(|lane| lane.failing.is_some())
            })
            .await;
        assert!(world.table.row(&Key::new("ann")).is_none() && !flush.is_finished());
        assert_eq!(behind.statistics().buried, 0);

        refuses.store(false, Ordering::SeqCst);
        world.while_time_passes(flush).await.expect("it ends").expect("all is applied");
        assert_eq!(world.value("ann").as_deref(), Some("1"));
        let statistics = behind.statistics();
        assert_eq!(
            (statistics.buried, statistics.depth_records, statistics.depth_bytes),
            (1, 0, 0)
        );
        put("3").await.expect("accepted");
        world.while_time_passes(behind.flush()).await.expect("applied");
        assert_eq!(world.value("ann").as_deref(), Some("3"));
        let is_trimmed = |_: &World| behind.statistics().journal.records == 0;
        world.settle("the journal is trimmed", is_trimmed).await;
    });
}
