//! Reads the configuration again while the server runs: on SIGHUP, and when the
//! file changes. Policies apply at once; the rest needs a restart.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

use super::plan::{PlannedSource, entry_of_table};
use crate::config::policy::EffectivePolicy;
use crate::config::{Config, Diagnostics, FileMark, PolicyOptions, Settings};
use crate::registry::{Registry, Served};

/// How often the file is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What came of reading the configuration again.
#[derive(Debug, Default)]
pub struct Reloads {
    succeeded: AtomicU64,
    failed: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Reloads {
    /// How often a changed file was applied.
    #[must_use]
    pub fn succeeded(&self) -> u64 {
        self.succeeded.load(Ordering::Relaxed)
    }

    /// How often a file was refused.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Why the file that is there now was refused, if it was.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }

    /// Notes that a file was refused, and logs why.
    pub(super) fn note_failure(&self, diagnostics: &Diagnostics) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let errors: Vec<_> = diagnostics.errors().map(|error| error.one_line()).collect();
        for error in &errors {
            tracing::error!("the configuration is refused, what held before still holds: {error}");
        }
        *self.last_error.lock() = Some(errors.join("\n"));
    }

    pub(super) fn note_success(&self) {
        self.succeeded.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock() = None;
    }
}

/// Gives every cache the policy that the new settings give it, and logs what of
/// them needs a restart: where they differ from those of the start, which run.
pub(super) async fn apply(started: &Config, old: &Settings, new: &Settings, registry: &Registry) {
    let mut changed = Vec::new();
    for served in registry.served() {
        let effective = new.policy(entry_of(new, served));
        let policy = effective.to_policy();
        if policy == *served.cache.policy() {
            continue;
        }
        if let Err(error) = served.cache.set_policy(policy) {
            tracing::error!("the policy of `{}` stays: {error}", served.name());
            continue;
        }
        changed.push(served.name());
        // After the policy: what is loaded from here on is kept under the new one.
        if let Some(reason) = forbids_what_is_kept(&old.policy(entry_of(old, served)), &effective) {
            match served.cache.clear().await {
                Ok(_) => tracing::info!("the cache `{}` was emptied: {reason}", served.name()),
                Err(error) => tracing::error!("`{}` cannot be emptied: {error}", served.name()),
            }
        }
    }
    let restart = needs_restart(started, &new.config);
    tracing::info!(
        changed = changed.len(),
        "the configuration was read again; new policies: {}",
        if changed.is_empty() { "none".to_owned() } else { changed.join(", ") }
    );
    if !restart.is_empty() {
        tracing::warn!("this needs a restart to hold: {}", restart.join(", "));
    }
}

/// Why entries that were made under the old policy are not to be served under
/// the new one, if they are not. Entries keep the limits they were made with.
fn forbids_what_is_kept(old: &EffectivePolicy, new: &EffectivePolicy) -> Option<String> {
    if old.class().may_be_cached() && !new.class().may_be_cached() {
        return Some(format!("data of the class {} is not kept", new.class()));
    }
    let bound = |policy: &EffectivePolicy| policy.options().max_age.and_then(|bound| bound.0);
    let new = bound(new)?;
    let is_lower = bound(old).is_none_or(|old| new < old);
    is_lower.then(|| format!("max_age is now {new:?}"))
}

/// The entry of the configuration that holds for a cache. A table may have got
/// one since, or have lost it.
#[must_use]
pub fn entry_of<'s>(settings: &'s Settings, served: &'s Served) -> Option<&'s str> {
    match &served.source {
        PlannedSource::Table(table) => entry_of_table(settings, &served.origin, table),
        PlannedSource::Query(_) => served.config_name.as_deref(),
    }
}

/// The options, other than policies, whose values differ from those that run.
fn needs_restart(running: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (values(running), values(new));
    let names = old.keys().chain(new.keys());
    let mut differing: Vec<_> =
        names.filter(|name| old.get(*name) != new.get(*name)).cloned().collect();
    differing.sort_unstable();
    differing.dedup();
    differing
}

/// Every option by its path, without the policies.
fn values(config: &Config) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::new();
    if let Ok(Value::Object(sections)) = serde_json::to_value(config) {
        for (name, section) in &sections {
            if name != "defaults" && name != "on" {
                flatten(name, section, &mut values);
            }
        }
    }
    // A cache that has nothing but a policy has nothing that needs a restart.
    values.retain(|path, value| !is_policy(path) && !is_nothing(value));
    values
}

fn flatten(path: &str, value: &Value, values: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                flatten(&format!("{path}.{name}"), member, values);
            }
        }
        _ => {
            values.insert(path.to_owned(), value.clone());
        }
    }
}

fn is_policy(path: &str) -> bool {
    let option = path.rsplit('.').next().unwrap_or_default();
    path.starts_with("caches.") && PolicyOptions::NAMES.contains(&option)
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Bool(is_set) => !is_set,
        _ => false,
    }
}

/// Notices that a file is another one. A file that was changed since the last
/// look may still be being written: it counts once it stays the same.
#[derive(Debug)]
pub(super) struct Watch {
    path: Option<PathBuf>,
    applied: Option<FileMark>,
    seen: Option<FileMark>,
}

impl Watch {
    /// Watches a file that was like this when it was read.
    pub(super) fn new(path: Option<PathBuf>, mark: Option<FileMark>) -> Self {
        Self { path, applied: mark, seen: mark }
    }

    /// What is there now is about to be read.
    pub(super) async fn forget_change(&mut self) {
        self.applied = self.look().await;
        self.seen = self.applied;
    }

    /// Whether there is another file since the last time, at rest.
    pub(super) async fn is_changed(&mut self) -> bool {
        let now = self.look().await;
        let is_at_rest = now == self.seen;
        self.seen = now;
        // A file that is gone for a moment is being replaced.
        if !is_at_rest || now.is_none() || now == self.applied {
            return false;
        }
        self.applied = now;
        true
    }

    async fn look(&self) -> Option<FileMark> {
        let metadata = tokio::fs::metadata(self.path.as_ref()?).await.ok()?;
        FileMark::of(&metadata)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, Source as Text, parse};

    fn config(text: &str) -> Config {
        parse(&Text { name: "x".into(), text: text.into() }).config
    }

    #[test]
    fn only_what_is_no_policy_needs_a_restart() {
        let old = config(
            "[defaults]\nttl = '1m'\n[caches.a]\nttl = '1m'\ntable = 'a'\n[origins.o]\nurl = 'sqlite:a'",
        );
        let new = config(
            "[server]\nmax_clients = 5\n[defaults]\nttl = '2m'\n[caches.a]\nttl = '9m'\ntable = 'b'\n\
             [caches.b]\nttl = '1s'\n[origins.o]\nurl = 'sqlite:a'",
        );
        assert_eq!(needs_restart(&old, &new), ["caches.a.table", "server.max_clients"]);
        assert!(needs_restart(&old, &old).is_empty());
    }

    fn watch(path: &std::path::Path) -> Watch {
        let settings =
            Settings::load(Some(path), &Overrides::default()).expect("it has no mistake");
        Watch::new(settings.path, settings.mark)
    }

    #[tokio::test]
    async fn a_change_between_reading_and_watching_is_noticed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("a");
        std::fs::write(&path, "").expect("it can be written");
        let mut watch = watch(&path);
        std::fs::write(&path, "[defaults]\n").expect("it can be written");
        assert!(!watch.is_changed().await, "it may still be being written");
        assert!(watch.is_changed().await);
        assert!(!watch.is_changed().await);
    }

    #[tokio::test]
    async fn a_pipe_is_read_once() {
        let mut watch = watch(std::path::Path::new("/dev/null"));
        for _ in 0..3 {
            assert!(!watch.is_changed().await);
        }
    }

    #[tokio::test]
    async fn a_file_put_in_the_place_of_another_is_noticed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (path, other) = (directory.path().join("a"), directory.path().join("b"));
        std::fs::write(&path, "").expect("it can be written");
        let mut watch = watch(&path);
        assert!(!watch.is_changed().await);
        std::fs::write(&other, "2").expect("it can be written");
        std::fs::rename(&other, &path).expect("it can be renamed");
        assert!(!watch.is_changed().await, "it may still be being written");
        assert!(watch.is_changed().await);
        assert!(!watch.is_changed().await);
        std::fs::remove_file(&path).expect("it can be removed");
        assert!(!watch.is_changed().await && !watch.is_changed().await);
    }
}
