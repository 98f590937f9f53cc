//! What a load is computed from: whether its loader was given something stale.
//!
//! A loader may read other caches. What it makes of a stale answer is no fresher than
//! that answer, however late it was made. So each poll of a loader says on its thread
//! that it runs, and whatever gives a reader something else than a fresh answer notes
//! it there. A fresh answer notes nothing and looks at nothing.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
#[cfg(not(shuttle))]
use std::thread_local;

#[cfg(shuttle)]
use shuttle::thread_local;

use crate::hit::StaleReason;

/// The worst of what a load was given by other caches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Basis {
    /// Nothing that was not fresh.
    Fresh,
    /// Something stale, first of all because of this.
    Stale(StaleReason),
    /// A fallback: not from an origin at all.
    Fallback,
}

impl Basis {
    /// The worse of two.
    pub(crate) const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Fresh, other) | (Self::Stale(_), other @ Self::Fallback) => other,
            (worse, _) => worse,
        }
    }

    /// Why what is computed from it is stale; `None` if it is not.
    pub(crate) const fn stale_reason(self) -> Option<StaleReason> {
        match self {
            Self::Fresh => None,
            Self::Stale(reason) => Some(reason),
            Self::Fallback => Some(StaleReason::OriginFailed),
        }
    }
}

/// Runs a loader to its end. Tells what it was given while it was polled; what tasks
/// that it spawns are given is not seen.
pub(crate) async fn observe<F: Future>(loader: F) -> (F::Output, Basis) {
    let mut loader = pin!(loader);
    let mut basis = Basis::Fresh;
    let output = poll_fn(|context| {
        let _watch = Watch::begin(&mut basis);
        loader.as_mut().poll(context)
    })
    .await;
    (output, basis)
}

/// [`observe`] for what does not wait.
pub(crate) fn observe_call<T>(call: impl FnOnce() -> T) -> (T, Basis) {
    let mut basis = Basis::Fresh;
    let output = {
        let _watch = Watch::begin(&mut basis);
        call()
    };
    (output, basis)
}

/// Notes that a reader was given this. Tells it to the loader that runs on this
/// thread, if the reader is one.
pub(crate) fn note(basis: Basis) {
    GIVEN.with(|given| given.set(given.get().map(|before| before.and(basis))));
}

thread_local! {
    /// What the loader polled on this thread was given so far, if one is.
    static GIVEN: Cell<Option<Basis>> = const { Cell::new(None) };
}

/// One poll of a loader. A loader within a loader notes for itself.
struct Watch<'b> {
    basis: &'b mut Basis,
    outer: Option<Basis>,
}

impl<'b> Watch<'b> {
    fn begin(basis: &'b mut Basis) -> Self {
        let outer = GIVEN.with(|given| given.replace(Some(*basis)));
        Self { basis, outer }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let given = GIVEN.with(|given| given.replace(self.outer));
        *self.basis = given.unwrap_or(*self.basis);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE: Basis = Basis::Stale(StaleReason::Revalidating);

    #[test]
    fn each_loader_knows_what_it_was_given_itself() {
        note(Basis::Fallback);
        let (inner, outer) = observe_call(|| {
            note(STALE);
            let ((), inner) = observe_call(|| note(Basis::Fallback));
            inner
        });
        assert_eq!((inner, outer), (Basis::Fallback, STALE));
        let ((), after) = observe_call(|| ());
        assert_eq!(after, Basis::Fresh);
    }

    #[test]
    fn a_panic_leaves_nothing_behind() {
        let unwound = std::panic::catch_unwind(|| observe_call(|| -> () { panic!("scripted") }));
        assert!(unwound.is_err());
        assert!(GIVEN.with(Cell::get).is_none());
    }

    #[tokio::test]
    async fn it_is_remembered_from_poll_to_poll_and_others_do_not_see_it() {
        let loader = observe(async {
            note(STALE);
            tokio::task::yield_now().await;
        });
        let other = observe(async {
            tokio::task::yield_now().await;
        });
        let (((), first), ((), second)) = futures_util::future::join(loader, other).await;
        assert_eq!((first, second), (STALE, Basis::Fresh));
    }
}
