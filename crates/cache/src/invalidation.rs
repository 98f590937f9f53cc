use std::time::Duration;

use larder_core::{Tag, Verb};

/// What [`crate::Cache::invalidate`] is to do: what is touched, how, and when.
///
/// ```
/// use std::time::Duration;
/// use larder::Invalidation;
///
/// // At once: no longer fresh.
/// let one = Invalidation::keys(["quote:42".to_owned()]);
/// // Each at a moment of its own within 30 s, and gone then.
/// let many = Invalidation::<String>::tags(["quotes"]).removing().gradually(Duration::from_secs(30));
/// # let _ = (one, many);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "it does nothing before it is given to a cache"]
pub struct Invalidation<K> {
    pub(crate) target: Target<K>,
    pub(crate) verb: Verb,
    pub(crate) window: Duration,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Target<K> {
    Keys(Vec<K>),
    Tags(Vec<Tag>),
    All,
}

impl<K> Invalidation<K> {
    /// Of these keys. A shared store gives them up at once also where memory does so
    /// gradually.
    pub fn keys(keys: impl IntoIterator<Item = K>) -> Self {
        Self::of(Target::Keys(keys.into_iter().collect()))
    }

    /// Of every entry with one of these tags. O(1) for each tag, however many entries
    /// there are.
    pub fn tags<T: Into<Tag>>(tags: impl IntoIterator<Item = T>) -> Self {
        Self::of(Target::Tags(tags.into_iter().map(Into::into).collect()))
    }

    /// Of everything in the cache. O(1).
    pub fn all() -> Self {
        Self::of(Target::All)
    }

    /// What is touched is gone. Else it is no longer fresh, and may be served stale
    /// where the policy allows that.
    pub fn removing(mut self) -> Self {
        self.verb = Verb::Remove;
        self
    }

    /// Each entry is touched at a moment of its own, spread evenly over this window, so
    /// that the origin is not asked for all of them at once. Until then an entry is
    /// served stale, because of [`crate::StaleReason::Suspect`], and not loaded anew;
    /// when the window is over all of them have been touched. The window is never
    /// longer than [`crate::Policy::stale_while_revalidate`], which says for how long
    /// anything may be served after it was known to be out of date: without that,
    /// everything is touched at once.
    pub fn gradually(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    fn of(target: Target<K>) -> Self {
        Self { target, verb: Verb::Expire, window: Duration::ZERO }
    }
}
