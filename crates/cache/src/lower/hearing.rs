//! What a store of this process alone has heard of what others say.

use larder_core::HeardUpTo;
use tokio::sync::Notify;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// How far a store has heard that nobody else tells of changes: while its process
/// is down it hears nothing, and is to be told before it is read.
#[derive(Default)]
pub(crate) struct Hearing {
    state: Mutex<State>,
    /// The state's `ear` is known: one look for each read.
    has_caught_up: AtomicBool,
    /// Says that an attempt has ended.
    ended: Notify,
}

#[derive(Default)]
struct State {
    /// The listening that goes on from where it has caught up; `None`: it has not.
    ear: Option<u64>,
    noted: Option<HeardUpTo>,
    is_catching_up: bool,
    has_failed: bool,
}

impl Hearing {
    /// Whether it has heard of everything that this process has.
    pub(crate) fn has_caught_up(&self) -> bool {
        self.has_caught_up.load(Ordering::Acquire)
    }

    /// Under which listening it has heard everything.
    pub(crate) fn ear(&self) -> Option<u64> {
        self.state.lock().ear
    }

    /// Whether the caller is to have it catch up: it has not, and nobody else does.
    /// Whoever does says so with [`Hearing::caught_up`] or [`Hearing::fell_short`].
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.state.lock();
        let begins = state.ear.is_none() && !state.is_catching_up;
        state.is_catching_up |= begins;
        begins
    }

    /// It has heard everything up to where this listening goes on, if that is still
    /// the one of the process.
    pub(crate) fn caught_up(&self, ear: u64, of_process: impl FnOnce() -> Option<u64>) {
        let mut state = self.state.lock();
        state.is_catching_up = false;
        // Under the lock: a listening that begins now is told of after this.
        if of_process() == Some(ear) {
            (state.ear, state.has_failed) = (Some(ear), false);
            self.has_caught_up.store(true, Ordering::Release);
        }
        drop(state);
        self.ended.notify_waiters();
    }

    /// It could not be told of everything now.
    pub(crate) fn fell_short(&self) {
        let mut state = self.state.lock();
        (state.is_catching_up, state.has_failed) = (false, true);
        drop(state);
        self.ended.notify_waiters();
    }

    /// Whether an attempt has failed. Upkeep begins the next one.
    pub(crate) fn has_failed(&self) -> bool {
        self.state.lock().has_failed
    }

    /// Something may have been said that this process has not heard.
    pub(crate) fn begin_anew(&self) {
        let mut state = self.state.lock();
        state.ear = None;
        self.has_caught_up.store(false, Ordering::Release);
    }

    /// Waits until it has caught up. Returns whether it has: those who come after an
    /// attempt has failed do not wait.
    pub(crate) async fn first_attempt(&self) -> bool {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if self.has_caught_up() || self.state.lock().has_failed {
                return self.has_caught_up();
            }
            ended.await;
        }
    }

    /// Whether this is news to be noted.
    pub(crate) fn is_news(&self, heard: HeardUpTo) -> bool {
        self.state.lock().noted != Some(heard)
    }

    pub(crate) fn noted(&self, heard: HeardUpTo) {
        self.state.lock().noted = Some(heard);
    }
}
