//! What a cache promises about its answers: how long they hold, what may stand
//! in for them, and how long anyone waits.

mod age_rule;
mod lifetime;
mod validate;

use std::time::Duration;

pub use age_rule::TtlByAge;
pub(crate) use lifetime::{Answer, Limits, limits, limits_below_stores};
pub(crate) use validate::{Around, validate};

use larder_core::{Class, Ttl, TtlClass};

/// What a cache promises about its answers.
///
/// Every duration counts from the *start* of the read at the origin.
///
/// ```
/// use std::time::Duration;
/// use larder::Policy;
///
/// let policy = Policy::ttl(Duration::from_secs(300))
///     .stale_while_revalidate(Duration::from_secs(60))
///     .stale_if_error(Duration::from_secs(7200))
///     .negative_ttl(Duration::from_secs(10))
///     .refresh_ahead(0.8);
/// # let _ = policy;
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Policy {
    pub(crate) ttl: Ttl,
    pub(crate) negative_ttl: Option<Duration>,
    pub(crate) idle_ttl: Option<Duration>,
    pub(crate) sliding: bool,
    pub(crate) max_age: Option<Duration>,
    pub(crate) jitter: f64,
    pub(crate) stale_while_revalidate: Duration,
    pub(crate) stale_if_error: Duration,
    pub(crate) refresh_ahead: Option<f64>,
    pub(crate) early_refresh_beta: Option<f64>,
    pub(crate) soft_timeout: Duration,
    pub(crate) hard_timeout: Duration,
    pub(crate) class: Class,
}

impl Policy {
    /// Answers hold this long. Everything else starts at its default.
    pub fn ttl(ttl: impl Into<Ttl>) -> Self {
        Self {
            ttl: ttl.into(),
            negative_ttl: Some(Duration::from_secs(10)),
            idle_ttl: None,
            sliding: false,
            max_age: None,
            jitter: 0.1,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            refresh_ahead: None,
            early_refresh_beta: Some(1.0),
            soft_timeout: Duration::from_millis(200),
            hard_timeout: Duration::from_secs(5),
            class: Class::Public,
        }
    }

    /// How long "the origin has no such key" holds (K7, R6). Default 10 s.
    /// `None`: such answers are not kept.
    pub fn negative_ttl(mut self, ttl: impl Into<Option<Duration>>) -> Self {
        self.negative_ttl = ttl.into();
        self
    }

    /// Drops what nobody asked for during this long. Default: never.
    pub fn idle_ttl(mut self, ttl: impl Into<Option<Duration>>) -> Self {
        self.idle_ttl = ttl.into();
        self
    }

    /// On access, what is left becomes `min(ttl, left × 1.5)` (K3). A cache with
    /// an origin needs [`Policy::max_age`] beside it. Default: off.
    pub fn sliding(mut self, sliding: bool) -> Self {
        self.sliding = sliding;
        self
    }

    /// The staleness bound (C4): no answer older than this is given, whatever
    /// sliding, stale windows or a loader's own TTL say. A load that takes longer
    /// is cancelled as at the hard timeout. Default: none.
    pub fn max_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.max_age = age.into();
        self
    }

    /// Shortens each TTL by a random share of up to this much, so that what was
    /// loaded together does not expire together (K6). Default 0.1.
    pub fn jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    /// For this long after it expires, an answer is served stale at once while
    /// it is refreshed in the background. Default: not.
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.stale_while_revalidate = window;
        self
    }

    /// For this long after it expires, an answer is served stale when the
    /// origin fails or is slow (R5, R8). Default: not.
    pub fn stale_if_error(mut self, window: Duration) -> Self {
        self.stale_if_error = window;
        self
    }

    /// A read after this share of the TTL starts a refresh in the background
    /// (P5); 0.8 is usual. Default: off.
    pub fn refresh_ahead(mut self, share: impl Into<Option<f64>>) -> Self {
        self.refresh_ahead = share.into();
        self
    }

    /// The β of probabilistic early refresh (R3, "XFetch"; Vattani, Chierichetti,
    /// Lowenstein: Optimal Probabilistic Cache Stampede Prevention, VLDB 2015): a
    /// read refreshes early when `now − Δ·β·ln(rand) ≥ expiry`, Δ being what the
    /// last load took. Default 1.0; `None`: off.
    pub fn early_refresh_beta(mut self, beta: impl Into<Option<f64>>) -> Self {
        self.early_refresh_beta = beta.into();
        self
    }

    /// How long a reader waits for a load when a stale answer is at hand: then
    /// it gets that, and the load finishes in the background. Default 200 ms.
    pub fn soft_timeout(mut self, timeout: Duration) -> Self {
        self.soft_timeout = timeout;
        self
    }

    /// How long a load may take before it is cancelled, and how long any reader
    /// waits. Default 5 s.
    pub fn hard_timeout(mut self, timeout: Duration) -> Self {
        self.hard_timeout = timeout;
        self
    }

    /// How sensitive the data is. Personal data and credentials are never kept.
    /// Default: public.
    pub fn class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// Everything that contradicts itself in a policy for a cache that has an
    /// origin, or has none: what `build` and `set_policy` would refuse, each
    /// with its remedy. Empty if the policy is sound.
    #[must_use]
    pub fn problems(&self, has_origin: bool) -> Vec<larder_core::Error> {
        validate::problems(self, Around { has_origin, has_stores: false, writes_behind: false })
    }

    /// How long answers hold.
    #[must_use]
    pub fn get_ttl(&self) -> Ttl {
        self.ttl
    }

    /// How long anyone waits at most.
    #[must_use]
    pub fn get_hard_timeout(&self) -> Duration {
        self.hard_timeout
    }

    /// How sensitive the data is.
    #[must_use]
    pub fn get_class(&self) -> Class {
        self.class
    }

    /// How long one call of the origin may take: what takes longer is too old to
    /// be given to anyone.
    pub(crate) fn load_time_max(&self) -> Duration {
        self.max_age.map_or(self.hard_timeout, |age| age.min(self.hard_timeout))
    }

    /// For how long after an answer expires it may still be served.
    #[must_use]
    pub fn stale_window(&self) -> Duration {
        self.stale_while_revalidate.max(self.stale_if_error)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::ttl(TtlClass::Default)
    }
}

impl From<TtlClass> for Policy {
    fn from(class: TtlClass) -> Self {
        Self::ttl(class)
    }
}
