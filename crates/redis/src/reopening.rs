//! A connection that is opened when it is first needed, and anew when it ended.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_core::{Error, Result};
use tokio::time::Instant;

/// For how long after a failed attempt none is made: the servers' time to come
/// back, and the callers' to be told at once.
const PAUSE: Duration = Duration::from_millis(100);

/// A place for a connection, which many use at a time.
pub(crate) struct Reopening<C> {
    live: Mutex<Option<Live<C>>>,
    /// Held by who opens it; the last failure and when it was.
    opening: tokio::sync::Mutex<Option<(Error, Instant)>>,
}

/// A connection that was open when it was asked for.
#[derive(Clone)]
pub(crate) struct Live<C> {
    pub(crate) open: C,
    /// Tells the connections of one place apart.
    number: u64,
}

impl<C: Clone> Reopening<C> {
    /// An empty place.
    pub(crate) fn new() -> Self {
        Self { live: Mutex::new(None), opening: tokio::sync::Mutex::new(None) }
    }

    /// The connection, which `opened` makes if there is none. Of many who need it one
    /// opens it.
    ///
    /// # Errors
    /// If it cannot be opened, or could not a moment ago, why.
    pub(crate) async fn get(&self, opened: impl Future<Output = Result<C>>) -> Result<Live<C>> {
        if let Some(live) = self.live().clone() {
            return Ok(live);
        }
        let mut failure = self.opening.lock().await;
        if let Some(live) = self.live().clone() {
            return Ok(live);
        }
        if let Some((error, at)) = &*failure
            && at.elapsed() < PAUSE
        {
            return Err(error.clone());
        }
        match opened.await {
            Ok(open) => {
                let live = Live { open, number: fastrand::u64(..) };
                *self.live() = Some(live.clone());
                *failure = None;
                Ok(live)
            }
            Err(error) => {
                *failure = Some((error.clone(), Instant::now()));
                Err(error)
            }
        }
    }

    /// Forgets a connection that has ended, unless another one has taken its place.
    pub(crate) fn close(&self, ended: &Live<C>) {
        self.close_if(|live| live.number == ended.number);
    }

    /// Forgets a connection that is not as it should be.
    pub(crate) fn close_unless(&self, is_right: impl FnOnce(&C) -> bool) {
        self.close_if(|live| !is_right(&live.open));
    }

    fn close_if(&self, is_to_go: impl FnOnce(&Live<C>) -> bool) {
        let mut live = self.live();
        if live.as_ref().is_some_and(is_to_go) {
            *live = None;
        }
    }

    fn live(&self) -> MutexGuard<'_, Option<Live<C>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use larder_core::ErrorKind;

    use super::*;

    /// A place, and how often something was opened for it.
    struct Counted {
        place: Reopening<u32>,
        attempts: AtomicU32,
    }

    impl Counted {
        fn new() -> Self {
            Self { place: Reopening::new(), attempts: AtomicU32::new(0) }
        }

        async fn get(&self) -> Live<u32> {
            let opened = async {
                let number = self.attempts.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok(number)
            };
            self.place.get(opened).await.expect("it opens")
        }

        async fn fail(&self) -> Error {
            let refused = async {
                self.attempts.fetch_add(1, Ordering::Relaxed);
                Err(Error::new(ErrorKind::Unavailable, "nobody is there"))
            };
            self.place.get(refused).await.err().expect("it does not open")
        }

        fn attempts(&self) -> u32 {
            self.attempts.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn of_many_who_need_it_one_opens_it() {
        let counted = Counted::new();
        let (one, two, three) = tokio::join!(counted.get(), counted.get(), counted.get());
        assert_eq!([one.open, two.open, three.open], [0; 3]);
        assert_eq!(counted.attempts(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_for_a_moment_and_then_it_is_tried_again() {
        let counted = Counted::new();
        for _ in 0..3 {
            assert_eq!(counted.fail().await.kind(), ErrorKind::Unavailable);
        }
        assert_eq!(counted.attempts(), 1, "the first failure answers the others");
        tokio::time::advance(PAUSE).await;
        assert_eq!(counted.get().await.open, 1);
    }

    #[tokio::test]
    async fn who_meets_the_end_of_one_does_not_close_the_next() {
        let counted = Counted::new();
        let first = counted.get().await;
        counted.place.close(&first);
        let second = counted.get().await;
        assert_eq!(second.open, 1);
        counted.place.close(&first);
        assert_eq!(counted.get().await.open, 1, "another one had taken its place");
        counted.place.close_unless(|open| *open == 1);
        assert_eq!(counted.get().await.open, 1);
        counted.place.close_unless(|open| *open == 7);
        assert_eq!(counted.get().await.open, 2);
    }
}
