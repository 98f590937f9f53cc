//! From a policy and a loader's answer to the moments written into an entry.

use std::time::Duration;

use larder_core::{Entry, Moment, Ttl};
use larder_memory::{Lifetime, Sliding};

use super::Policy;

impl Limits {
    /// Until when the entry is served as fresh and at all, no longer than this.
    pub(crate) fn at_most(mut self, until: Moment) -> Self {
        self.fresh_until = self.fresh_until.min(until);
        self.lifetime.attention_at = self.lifetime.attention_at.min(until);
        self
    }

    /// Of what was computed from something stale: it is fresh at no time, so that a
    /// read has it made anew. `None`: nor may it be served stale.
    pub(crate) fn never_fresh(mut self, policy: &Policy, start: Moment) -> Option<Self> {
        self.stale_until = self.stale_until.min(start + policy.stale_window());
        self.lifetime.sliding = None;
        (self.stale_until > start).then(|| self.at_most(start))
    }
}

/// The moments of one entry.
pub(crate) struct Limits {
    pub(crate) fresh_until: Moment,
    pub(crate) stale_until: Moment,
    pub(crate) lifetime: Lifetime,
}

/// What decides how long one answer holds.
pub(crate) struct Answer {
    pub(crate) present: bool,
    pub(crate) origin_read_at: Moment,
    pub(crate) load_cost: Duration,
    /// What the loader, the request or the TTL rule said, if any of them did.
    pub(crate) ttl: Option<Ttl>,
    /// How long it holds at most, if it renews an earlier answer.
    pub(crate) at_most: Option<Duration>,
    /// Whether an origin stands behind the cache, so that a refresh is possible.
    pub(crate) refreshable: bool,
}

/// The moments for an answer, or `None` if it is not to be kept.
pub(crate) fn limits(policy: &Policy, answer: &Answer) -> Option<Limits> {
    let ttl = if answer.present {
        answer.ttl.unwrap_or(policy.ttl)
    } else {
        // A loader that gives "there is none" a TTL of its own knows better.
        answer.ttl.or(policy.negative_ttl.map(Ttl::For))?
    };
    if ttl.duration() == Some(Duration::ZERO) {
        return None;
    }
    let start = answer.origin_read_at;
    let oldest = policy.max_age.map_or(Moment::NEVER, |age| start + age);
    let at_most = answer.at_most.map_or(Moment::NEVER, |most| start + most);
    let fresh_until = jittered(ttl, policy.jitter).from_start(start).min(oldest).min(at_most);
    let stale_until = (fresh_until + policy.stale_window()).min(oldest);
    let sliding = (policy.sliding && answer.present)
        .then(|| ttl.duration().map(|base| Sliding { base, limit: oldest }))
        .flatten();
    let attention_at = attention_at(policy, answer, fresh_until);
    Some(Limits {
        fresh_until,
        stale_until,
        lifetime: Lifetime { idle: policy.idle_ttl, sliding, attention_at },
    })
}

/// The moments in memory for an entry that stores have, too: memory asks them
/// again after `memory_ttl`. With them comes when the entry itself is due for an
/// early refresh.
pub(crate) fn limits_below_stores<V>(
    policy: &Policy,
    entry: &Entry<V>,
    age: Duration,
    now: Moment,
    memory_ttl: Option<Duration>,
) -> (Limits, Moment) {
    let start = entry.origin_read_at;
    // Counted from now: the entry may be older than this machine's clock.
    let oldest = policy.max_age.map_or(Moment::NEVER, |oldest| now + oldest.saturating_sub(age));
    let asked_again = memory_ttl.map_or(Moment::NEVER, |ttl| now + ttl);
    let fresh_until = entry.fresh_until.min(oldest).min(asked_again);
    let answer = Answer {
        present: entry.value.is_present(),
        origin_read_at: start,
        load_cost: entry.load_cost,
        ttl: None,
        at_most: None,
        refreshable: true,
    };
    let due_at = attention_at(policy, &answer, entry.fresh_until);
    let attention_at = due_at.min(fresh_until);
    let limits = Limits {
        fresh_until,
        stale_until: entry.stale_until.min(oldest).max(fresh_until),
        lifetime: Lifetime { idle: policy.idle_ttl, sliding: None, attention_at },
    };
    (limits, due_at)
}

/// When a read has more to do than return the entry: it may refresh early, or
/// the entry is no longer fresh.
fn attention_at(policy: &Policy, answer: &Answer, fresh_until: Moment) -> Moment {
    if !answer.refreshable || fresh_until.is_never() {
        return fresh_until;
    }
    let ahead = policy.refresh_ahead.map_or(fresh_until, |share| {
        let held = fresh_until.since(answer.origin_read_at);
        answer.origin_read_at + held.mul_f64(share)
    });
    let early = policy
        .early_refresh_beta
        .map_or(fresh_until, |beta| fresh_until - early_window(answer.load_cost, beta));
    ahead.min(early)
}

/// −ln of the smallest chance worth a look: below e^−16 ≈ 10⁻⁷ a draw is not
/// worth what it costs each read.
const EARLY_DRAWS: f64 = 16.0;

fn early_window(load_cost: Duration, beta: f64) -> Duration {
    // A load that took absurdly long must not overflow the product.
    Duration::try_from_secs_f64(load_cost.as_secs_f64() * beta * EARLY_DRAWS)
        .unwrap_or(Duration::MAX)
}

/// Shortens, never lengthens: a declared TTL is a bound.
fn jittered(ttl: Ttl, share: f64) -> Ttl {
    match ttl {
        Ttl::For(duration) if share > 0.0 => {
            // Of a duration without end even "all of it" may round up beyond what a
            // `Duration` holds.
            let seconds = duration.as_secs_f64() * (1.0 - share * fastrand::f64());
            Ttl::For(Duration::try_from_secs_f64(seconds).unwrap_or(duration).min(duration))
        }
        other => other,
    }
}
