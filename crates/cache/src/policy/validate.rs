//! Refuses policies whose parts contradict each other, with the remedy (C6).

use std::time::Duration;

use larder_core::{Error, ErrorKind, Result, Ttl};

use super::Policy;

/// What a cache has beside its policy.
#[derive(Clone, Copy)]
pub(crate) struct Around {
    pub(crate) has_origin: bool,
    pub(crate) has_stores: bool,
    pub(crate) writes_behind: bool,
}

/// Checks a policy for a cache that has this around it.
pub(crate) fn validate(cache: &str, policy: &Policy, around: Around) -> Result<()> {
    for rule in RULES {
        if let Err(error) = rule(policy, around) {
            return Err(error.with("cache", cache));
        }
    }
    Ok(())
}

/// Everything wrong with a policy, one error for each rule it breaks.
pub(super) fn problems(policy: &Policy, around: Around) -> Vec<Error> {
    RULES.iter().filter_map(|rule| rule(policy, around).err()).collect()
}

type Rule = fn(&Policy, Around) -> Result<()>;

const RULES: &[Rule] =
    &[ttl, idle, idle_above_stores, sliding, ages, shares, timeouts, origin, class, behind];

fn ttl(policy: &Policy, _: Around) -> Result<()> {
    let zero = |name: &'static str| {
        refuse("a TTL of zero keeps nothing")
            .with("option", name)
            .remedy("set a duration, or answer Loaded::dont_cache for what must not be kept")
    };
    if policy.ttl == Ttl::For(Duration::ZERO) {
        return Err(zero("ttl"));
    }
    if policy.negative_ttl == Some(Duration::ZERO) {
        return Err(zero("negative_ttl").remedy("set a duration, or none to keep no such answers"));
    }
    Ok(())
}

fn idle(policy: &Policy, _: Around) -> Result<()> {
    match (policy.idle_ttl, policy.ttl) {
        (Some(Duration::ZERO), _) => Err(refuse("an idle TTL of zero keeps nothing")
            .remedy("set a duration, or leave idle_ttl out")),
        (Some(idle), Ttl::For(ttl))
            if !policy.sliding && idle >= ttl.saturating_add(policy.stale_window()) =>
        {
            Err(refuse("the idle TTL can never take effect: entries expire before it")
                .with("idle_ttl", show(idle))
                .with("ttl", show(ttl))
                .remedy("make idle_ttl shorter than ttl, or leave it out"))
        }
        _ => Ok(()),
    }
}

/// Stores do not know when an entry was last asked for, so what memory drops as
/// idle would come back from them as if nothing had happened.
fn idle_above_stores(policy: &Policy, Around { has_stores, .. }: Around) -> Result<()> {
    let Some(idle) = policy.idle_ttl.filter(|_| has_stores) else { return Ok(()) };
    Err(refuse(
        "the idle TTL holds in memory alone: the stores would go on serving what nobody asked for",
    )
    .with("idle_ttl", show(idle))
    .remedy(
        "leave idle_ttl out and let ttl or max_age end entries, which hold in stores, too; or \
         declare no stores for this cache",
    ))
}

fn sliding(policy: &Policy, Around { has_origin, .. }: Around) -> Result<()> {
    if !policy.sliding {
        return Ok(());
    }
    if policy.ttl == Ttl::Forever {
        return Err(refuse("what never expires cannot slide")
            .remedy("give ttl a duration, or turn sliding off"));
    }
    if policy.max_age.is_some_and(|max_age| policy.ttl == Ttl::For(max_age)) {
        return Err(refuse("a TTL as long as max_age cannot slide")
            .with("max_age", show(policy.max_age.unwrap_or_default()))
            .remedy("make max_age longer than ttl, or turn sliding off"));
    }
    if has_origin && policy.max_age.is_none() {
        return Err(refuse(
            "a sliding TTL over an origin has no staleness bound: what is read \
                           often would never be read again at the origin",
        )
        .remedy("set max_age to the oldest answer you accept, or turn sliding off"));
    }
    Ok(())
}

fn ages(policy: &Policy, _: Around) -> Result<()> {
    match (policy.max_age, policy.ttl) {
        (Some(max_age), Ttl::For(ttl)) if max_age < ttl => {
            Err(refuse("answers would be fresh beyond the staleness bound")
                .with("ttl", show(ttl))
                .with("max_age", show(max_age))
                .remedy("make max_age at least as long as ttl"))
        }
        (Some(Duration::ZERO), _) => {
            Err(refuse("a staleness bound of zero keeps nothing").remedy("raise max_age"))
        }
        (Some(max_age), Ttl::For(ttl)) if max_age == ttl && !policy.stale_window().is_zero() => {
            Err(refuse("the stale window can never take effect: max_age ends it as it begins")
                .with("max_age", show(max_age))
                .with("stale window", show(policy.stale_window()))
                .remedy("make max_age longer than ttl, or leave the stale window out"))
        }
        _ => Ok(()),
    }
}

fn shares(policy: &Policy, _: Around) -> Result<()> {
    if !(0.0..1.0).contains(&policy.jitter) {
        return Err(refuse("jitter is a share of the TTL")
            .with("jitter", policy.jitter)
            .remedy("set it from 0 to below 1; 0.1 is usual"));
    }
    if let Some(share) = policy.refresh_ahead
        && !(share > 0.0 && share < 1.0)
    {
        return Err(refuse("refresh_ahead is a share of the TTL")
            .with("refresh_ahead", share)
            .remedy("set it between 0 and 1; 0.8 is usual"));
    }
    if let Some(beta) = policy.early_refresh_beta
        && !(beta > 0.0 && beta <= 100.0)
    {
        return Err(refuse("the β of early refresh is out of range")
            .with("early_refresh_beta", beta)
            .remedy("set it above 0 and up to 100; 1 is usual, none turns it off"));
    }
    Ok(())
}

fn timeouts(policy: &Policy, _: Around) -> Result<()> {
    if policy.hard_timeout.is_zero() {
        return Err(refuse("a hard timeout of zero lets no load finish").remedy("raise it"));
    }
    if policy.soft_timeout >= policy.hard_timeout {
        return Err(refuse("the soft timeout can never take effect: the load is cancelled first")
            .with("soft_timeout", show(policy.soft_timeout))
            .with("hard_timeout", show(policy.hard_timeout))
            .remedy("make soft_timeout shorter than hard_timeout"));
    }
    Ok(())
}

fn origin(policy: &Policy, Around { has_origin, .. }: Around) -> Result<()> {
    if policy.refresh_ahead.is_some() && policy.ttl == Ttl::Forever && policy.max_age.is_none() {
        return Err(refuse("what never expires cannot be refreshed ahead of it")
            .remedy("give ttl a duration or set max_age, or leave refresh_ahead out"));
    }
    if has_origin {
        return Ok(());
    }
    let needs = |option: &'static str| {
        Err(refuse("there is no origin to refresh from")
            .with("option", option)
            .remedy("declare an origin, or leave the option out"))
    };
    if policy.refresh_ahead.is_some() {
        return needs("refresh_ahead");
    }
    if !policy.stale_while_revalidate.is_zero() {
        return needs("stale_while_revalidate");
    }
    Ok(())
}

/// A journal holds values outside of this process, and shows them before the origin
/// has them.
fn behind(policy: &Policy, Around { has_origin, writes_behind, .. }: Around) -> Result<()> {
    if writes_behind && !has_origin {
        return Err(refuse("there is no origin to write to, however late")
            .remedy("declare the origin that is the cache's target of the WriteBehind"));
    }
    if writes_behind && !policy.class.may_leave_process() {
        return Err(refuse(
            "data of this class cannot wait in a journal, which is outside of this process",
        )
        .with("class", policy.class)
        .remedy("write it through, or give the data another class"));
    }
    Ok(())
}

fn class(policy: &Policy, Around { has_origin, .. }: Around) -> Result<()> {
    if !policy.class.may_be_cached() && !has_origin {
        return Err(refuse("data of this class is never kept, and there is no origin to ask")
            .with("class", policy.class)
            .remedy("declare an origin, or give the data another class"));
    }
    Ok(())
}

fn refuse(message: &'static str) -> Error {
    Error::new(ErrorKind::Config, message)
}

fn show(duration: Duration) -> String {
    format!("{duration:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_core::Class;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_contradiction_is_refused_with_a_remedy() {
        let minute = || Policy::ttl(SECOND * 60);
        let cases: Vec<(Policy, bool, &str)> = vec![
            (Policy::ttl(Duration::ZERO), true, "TTL of zero"),
            (minute().negative_ttl(Duration::ZERO), true, "TTL of zero"),
            (minute().idle_ttl(SECOND * 60), true, "idle TTL can never"),
            (minute().sliding(true), true, "no staleness bound"),
            (Policy::ttl(Ttl::Forever).sliding(true), false, "cannot slide"),
            (minute().max_age(SECOND), true, "beyond the staleness bound"),
            (
                minute().max_age(SECOND * 60).stale_if_error(SECOND),
                true,
                "stale window can never take effect",
            ),
            (
                minute().max_age(SECOND * 60).stale_while_revalidate(SECOND),
                true,
                "stale window can never take effect",
            ),
            (minute().sliding(true).max_age(SECOND * 60), true, "cannot slide"),
            (minute().jitter(1.0), true, "jitter"),
            (minute().jitter(f64::NAN), true, "jitter"),
            (minute().refresh_ahead(1.0), true, "refresh_ahead"),
            (minute().early_refresh_beta(0.0), true, "β"),
            (minute().hard_timeout(Duration::ZERO), true, "hard timeout of zero"),
            (minute().soft_timeout(SECOND * 5), true, "soft timeout can never"),
            (minute().refresh_ahead(0.8), false, "no origin"),
            (minute().stale_while_revalidate(SECOND), false, "no origin"),
            (Policy::ttl(Ttl::Forever).refresh_ahead(0.8), true, "never expires"),
            (minute().class(Class::Personal), false, "never kept"),
        ];
        for (policy, has_origin, part) in cases {
            let around = Around { has_origin, has_stores: false, writes_behind: false };
            let error = validate("user", &policy, around).expect_err(part);
            assert!(error.to_string().contains(part), "{error}");
            assert!(error.remedy_text().is_some(), "{error}");
            assert_eq!(error.kind(), ErrorKind::Config);
        }
        let around = Around { has_origin: true, has_stores: false, writes_behind: false };
        assert!(validate("user", &minute(), around).is_ok());
        let bounded = Policy::ttl(Ttl::Forever).max_age(SECOND).refresh_ahead(0.8);
        assert_eq!(bounded.problems(true).len(), 0, "what max_age ends can be refreshed ahead");
        let twice = minute().jitter(1.0).soft_timeout(SECOND * 5);
        assert_eq!(twice.problems(true).len(), 2);
        assert!(
            validate("user", &Policy::default().sliding(true).max_age(SECOND * 900), around)
                .is_ok()
        );
    }

    #[test]
    fn durations_without_end_are_judged_like_others() {
        let policy = Policy::ttl(Duration::MAX).stale_if_error(SECOND).idle_ttl(SECOND);
        assert_eq!(policy.problems(true).len(), 0);
    }
}
