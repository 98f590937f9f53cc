//! Rules for `[[on]]`, `[[schedule]]` and `[events]`.

use std::time::Duration;

use larder::event_rules::Template;
use larder::schedule::Timetable;
use larder_core::KeyPattern;

use super::Checker;
use crate::config::{MissedChoice, RedisTopology, ScheduleOptions, policy, suggest};

pub(super) fn check(checker: &mut Checker<'_>) {
    let config = &checker.parsed.config;
    for (place, rule) in config.on.iter().enumerate() {
        let place = place.to_string();
        let effect = Effect {
            path: ["on", &place],
            keys: &rule.keys,
            tags: &rule.tags,
            caches: &rule.caches,
            gradual: rule.gradual.map(|window| window.0),
            has_members: true,
        };
        if rule.event.is_empty() && !checker.is_set(&["on", &place, "event"]) {
            let remedy = "add event = \"trade.executed\", the name that it is sent under";
            checker.error(&effect.path, "a rule of [[on]] does not say which event", remedy);
        }
        effect.check(checker);
    }
    let mut names: Vec<&str> = Vec::new();
    for (place, it) in config.schedule.iter().enumerate() {
        let place = place.to_string();
        schedule(checker, &place, it);
        if names.contains(&it.name.as_str()) {
            let message = format!("two schedules are named \"{}\"", it.name);
            checker.error(&["schedule", &place, "name"], message, "give each a name of its own");
        }
        names.push(&it.name);
    }
    sources(checker);
}

fn schedule(checker: &mut Checker<'_>, place: &str, options: &ScheduleOptions) {
    let path = |option: &'static str| ["schedule", place, option];
    super::caches::name(checker, &path("name"), &options.name);
    if let Err(error) = Timetable::new(&options.cron, &options.zone) {
        let is_zone = error.context().any(|(name, _)| name == "zone");
        let option = if is_zone { "zone" } else { "cron" };
        let remedy = error.remedy_text().unwrap_or_default().to_owned();
        let reason = error.context().find(|(name, _)| *name == "reason").map(|(_, why)| why);
        let message = match reason {
            Some(reason) => format!("{}: {reason}", error.message()),
            None => error.message().to_owned(),
        };
        checker.error(&path(option), message, remedy);
    }
    let effect = Effect {
        path: ["schedule", place],
        keys: &options.keys,
        tags: &options.tags,
        caches: &options.caches,
        gradual: options.gradual.map(|window| window.0),
        has_members: false,
    };
    effect.check(checker);
    if options.jitter.is_some_and(|jitter| jitter.0 > Duration::from_secs(3600)) {
        checker.error(&path("jitter"), "an hour is the longest jitter", "try \"5m\"");
    }
    let config = &checker.parsed.config;
    let has_record = config.redis.is_set() || config.disk.directory.is_some();
    if options.missed == MissedChoice::Run && !has_record {
        checker.warning(
            &path("missed"),
            "what was missed before a restart is not known: nothing keeps a record",
            "add [disk] or [redis]",
        );
    }
}

fn sources(checker: &mut Checker<'_>) {
    let config = &checker.parsed.config;
    for (option, is_set) in
        [("channel", config.events.channel.is_some()), ("stream", config.events.stream.is_some())]
    {
        if is_set && !config.redis.is_set() {
            checker.error(
                &["events", option],
                format!("there is no Redis that the {option} could be on"),
                "add [redis] with its url",
            );
        }
    }
    if config.events.stream.is_some() && config.redis.topology == RedisTopology::Cluster {
        let message = "a stream of events is read from one server, not from a cluster";
        checker.error(&["events", "stream"], message, "publish on a channel, or use POST /events");
    }
    let most = Duration::from_secs(24 * 3600);
    if config.events.remember.0.is_zero() || config.events.remember.0 > most {
        let message = "events are remembered for up to a day, and for some time";
        checker.error(&["events", "remember"], message, "try \"10m\"");
    }
}

/// What is invalidated.
struct Effect<'e> {
    path: [&'e str; 2],
    keys: &'e [String],
    tags: &'e [String],
    caches: &'e [String],
    gradual: Option<Duration>,
    /// Whether there is an event with members to fill in.
    has_members: bool,
}

impl Effect<'_> {
    fn check(&self, checker: &mut Checker<'_>) {
        let path = self.path;
        let is_set = |option| checker.is_set(&[path[0], path[1], option]);
        let is_empty = self.keys.is_empty() && self.tags.is_empty() && self.caches.is_empty();
        if is_empty && !["keys", "tags", "caches"].into_iter().any(is_set) {
            let remedy = "add keys, tags or caches";
            checker.error(&path, format!("this [[{}]] invalidates nothing", path[0]), remedy);
        }
        for (option, templates) in [("keys", self.keys), ("tags", self.tags)] {
            for (index, text) in templates.iter().enumerate() {
                let index = index.to_string();
                self.template(checker, &[path[0], path[1], option, &index], text, option);
            }
        }
        for (index, name) in self.caches.iter().enumerate() {
            let index = index.to_string();
            self.cache(checker, &[path[0], path[1], "caches", &index], name);
        }
        self.window(checker);
    }

    fn template(&self, checker: &mut Checker<'_>, path: &[&str], text: &str, option: &str) {
        let template = match Template::parse(text) {
            Ok(template) => template,
            Err(error) => {
                let remedy = "write it like \"portfolio:{account_id}\"";
                return checker.error_inside(path, error.at..error.at + 1, error.why, remedy);
            }
        };
        if !self.has_members && template.names().next().is_some() {
            let message = "a schedule has no event whose members could be filled in";
            return checker.error(path, message, "name a tag or a cache instead");
        }
        // With anything in place of the members, is it a key of a cache? Tables that are
        // served without an entry are known only once the database is.
        let config = &checker.parsed.config;
        let tables = config.origins.values().any(|origin| origin.serve_tables);
        if option == "keys" && !tables && !config.caches.is_empty() {
            let sample = template.fill(|_| Some("1".into())).unwrap_or_default();
            let patterns = config.caches.iter().filter_map(|(name, cache)| {
                cache.key.as_deref().map_or_else(
                    || cache.table.as_ref().map(|_| format!("{name}:{{id}}")),
                    |key| Some(key.to_owned()),
                )
            });
            let patterns: Vec<String> = patterns.collect();
            let is_known = |pattern: &String| {
                pattern.parse::<KeyPattern>().is_ok_and(|pattern| pattern.matches(&sample))
            };
            if !patterns.iter().any(is_known) {
                let message = format!("\"{text}\" makes keys of no cache");
                let remedy = format!("keys are {}", patterns.join(", "));
                checker.error(path, message, remedy);
            }
        }
    }

    fn cache(&self, checker: &mut Checker<'_>, path: &[&str], name: &str) {
        let config = &checker.parsed.config;
        // A table that is served has no entry.
        let tables = config.origins.values().any(|origin| origin.serve_tables);
        if config.caches.contains_key(name) || tables || config.origins.is_empty() {
            return;
        }
        let remedy = match suggest::closest(name, config.caches.keys().map(String::as_str)) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("declare it as [caches.{name}]"),
        };
        checker.error(path, format!("there is no cache `{name}`"), remedy);
    }

    /// Nothing is served stale for longer than the policy says.
    fn window(&self, checker: &mut Checker<'_>) {
        let Some(window) = self.gradual else { return };
        let path = [self.path[0], self.path[1], "gradual"];
        if window.is_zero() {
            return checker.error(&path, "a window of no time is no window", "leave gradual out");
        }
        let config = &checker.parsed.config;
        for name in self.caches.iter().filter(|name| config.caches.contains_key(*name)) {
            let policy = policy::resolve(config, Some(name), None);
            let stale = policy.options().stale_while_revalidate.and_then(|window| window.0);
            if stale.is_none_or(|stale| stale < window) {
                let message = format!(
                    "the cache `{name}` serves nothing stale for that long: its entries are \
                     invalidated within {}",
                    stale.map_or("no time".to_owned(), crate::config::show_duration)
                );
                let remedy = format!(
                    "give it stale_while_revalidate = \"{}\" or more",
                    crate::config::show_duration(window)
                );
                return checker.error(&path, message, remedy);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Diagnostic, Source, check};

    fn mistakes(text: &str) -> Vec<String> {
        let base = "[origins.db]\nurl = \"sqlite::memory:\"\nserve_tables = false\n[caches.portfolio]\nkey = \"portfolio:{id}\"\n\
                    query = \"SELECT 1 FROM a WHERE id = :id\"\n";
        let text = format!("{base}{text}");
        let parsed = check(&Source { name: "larder.toml".to_owned(), text });
        parsed.diagnostics.0.iter().map(Diagnostic::one_line).collect()
    }

    #[test]
    fn what_makes_sense_is_let_pass() {
        let text = "[[on]]\nevent = \"trade\"\nkeys = [\"portfolio:{a.b}\"]\ntags = [\"x:{y}\"]\n\
                    when = { side = \"buy\", lots = 3, big = true }\nverb = \"remove\"\ngradual = \"30s\"\n\
                    [[schedule]]\nname = \"day\"\ncron = \"59 23 * * *\"\nzone = \"America/New_York\"\n\
                    caches = [\"portfolio\"]\njitter = \"10s\"\n";
        assert_eq!(mistakes(text), [""; 0]);
    }

    #[test]
    fn every_mistake_has_its_place_and_remedy() {
        for (text, expected) in [
            ("[[on]]\ntags = [\"a\"]\n", "does not say which event"),
            ("[[on]]\nevent = \"e\"\n", "this [[on]] invalidates nothing"),
            ("[[on]]\nevent = \"e\"\nkeys = [\"portfolio:{\"]\n", "`{` is not closed"),
            (
                "[[on]]\nevent = \"e\"\nkeys = [\"portfolio:{a}\", \"other:{a}\"]\n",
                "makes keys of no cache",
            ),
            ("[[on]]\nevent = \"e\"\ncaches = [\"portfolios\"]\n", "did you mean `portfolio`?"),
            (
                "[[on]]\nevent = \"e\"\ncaches = [\"portfolio\"]\ngradual = \"30s\"\n",
                "stale_while_revalidate = \"30s\"",
            ),
            (
                "[[on]]\nevent = \"e\"\ntags = [\"a\"]\nmode = \"gradual\"\n",
                "[on.0] has no option `mode`",
            ),
            (
                "[[schedule]]\nname = \"a\"\ncron = \"61 * * * *\"\nzone = \"UTC\"\ntags = [\"a\"]\n",
                "no cron expression",
            ),
            (
                "[[schedule]]\nname = \"a\"\ncron = \"0 0 30 2 *\"\nzone = \"UTC\"\ntags = [\"a\"]\n",
                "never comes",
            ),
            (
                "[[schedule]]\nname = \"a\"\ncron = \"0 0 * * *\"\nzone = \"Berlin\"\ntags = [\"a\"]\n",
                "no such time zone",
            ),
            (
                "[[schedule]]\nname = \"a\"\ncron = \"0 0 * * *\"\nzone = \"UTC\"\ntags = [\"a:{b}\"]\n",
                "has no event",
            ),
            (
                "[[schedule]]\nname = \"a\"\ncron = \"0 0 * * *\"\nzone = \"UTC\"\ntags = [\"a\"]\nmissed = \"run\"\n",
                "keeps a record",
            ),
            ("[events]\nstream = \"s\"\n", "there is no Redis"),
        ] {
            let found = mistakes(text);
            assert!(found.iter().any(|it| it.contains(expected)), "{text}: {found:?}");
            assert!(found[0].starts_with("larder.toml:"), "{found:?}");
        }
    }
}
