//! The one place that names synchronisation primitives, so that the whole tier
//! can run under a model checker (`--cfg shuttle`).

#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(not(shuttle))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// How keys are hashed. Random seeds keep an outsider from choosing keys that
/// collide; under the model checker a run has to be repeatable.
#[cfg(not(shuttle))]
pub(crate) type Hashing = foldhash::fast::RandomState;
#[cfg(shuttle)]
pub(crate) type Hashing = foldhash::fast::FixedState;

/// A lock that does not poison: no invariant of this crate is broken where
/// foreign code can panic.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(Inner<T>);

#[cfg(not(shuttle))]
type Inner<T> = parking_lot::Mutex<T>;
#[cfg(shuttle)]
type Inner<T> = shuttle::sync::Mutex<T>;

#[cfg(not(shuttle))]
type Guard<'a, T> = parking_lot::MutexGuard<'a, T>;
#[cfg(shuttle)]
type Guard<'a, T> = shuttle::sync::MutexGuard<'a, T>;

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Inner::new(value))
    }

    #[cfg(not(shuttle))]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        self.0.lock()
    }

    #[cfg(shuttle)]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The lock if nobody holds it.
    #[cfg(not(shuttle))]
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.0.try_lock()
    }

    /// The lock if nobody holds it.
    #[cfg(shuttle)]
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.0.try_lock().ok()
    }
}

/// Keeps what every hit reads on cache lines that nothing else writes. Two
/// lines, because processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

impl<T> std::ops::Deref for Padded<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}
