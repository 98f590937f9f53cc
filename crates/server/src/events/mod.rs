//! What events and times invalidate in this server's caches.

mod calendar;
mod sources;
mod targets;

use larder::event_rules::{EventRule, EventRules};
use larder_core::{Result, Verb};

pub(crate) use calendar::calendar;
pub(crate) use sources::listen;
pub(crate) use targets::ServedCaches;

use crate::config::{ConditionValue, EffectVerb, EventRuleOptions, Settings};
use crate::serve::SharedTiers;

/// So many ids of events are remembered by one server.
const REMEMBERED_MAX: usize = 100_000;

/// What is said of an event that is being acted upon at this moment.
pub(crate) const UNDER_WAY: &str =
    "an event with this id is being acted upon: send it again to learn what became of it";

/// The name under which ids and schedules are kept in shared tiers.
pub(crate) const RECORDS: &str = "larder-records";

/// The rules of the configuration, over these caches.
///
/// # Errors
/// For a rule that the checks let pass and should not have.
pub(crate) fn rules(
    settings: &Settings,
    targets: ServedCaches,
    shared: Option<&SharedTiers>,
) -> Result<EventRules> {
    let mut builder =
        EventRules::builder(targets).remember(settings.config.events.remember.0, REMEMBERED_MAX);
    if let Some(shared) = shared {
        builder = builder.lease(std::sync::Arc::new(shared.redis.lease(RECORDS)));
    }
    for rule in rules_of(settings)? {
        builder = builder.rule(rule);
    }
    Ok(builder.build())
}

/// The rules as the file has them.
///
/// # Errors
/// As [`rules`].
pub(crate) fn rules_of(settings: &Settings) -> Result<Vec<EventRule>> {
    settings.config.on.iter().map(rule).collect()
}

fn rule(options: &EventRuleOptions) -> Result<EventRule> {
    let mut rule = EventRule::on(&options.event);
    for key in &options.keys {
        rule = rule.key(key)?;
    }
    for tag in &options.tags {
        rule = rule.tag(tag)?;
    }
    for cache in &options.caches {
        rule = rule.cache(cache);
    }
    for (member, value) in &options.when {
        rule = match value {
            ConditionValue::Flag(is_so) => rule.when(member, *is_so),
            ConditionValue::Number(number) => rule.when(member, *number),
            ConditionValue::Text(text) => rule.when(member, text.as_str()),
        };
    }
    if verb(options.verb) == Verb::Remove {
        rule = rule.removing();
    }
    Ok(rule.gradually(options.gradual.map(|window| window.0).unwrap_or_default()))
}

fn verb(verb: EffectVerb) -> Verb {
    match verb {
        EffectVerb::Expire => Verb::Expire,
        EffectVerb::Remove => Verb::Remove,
    }
}
