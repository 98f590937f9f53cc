//! `larder doctor`: looks at each tier and says what is wrong and what to do
//! (O13).
//!
//! Everything is looked at from here, over connections of its own: what holds for
//! this machine, this user and this configuration. Nothing of the caches is read
//! or changed.

mod databases;
mod disk;
mod memcached;
mod redis;

use std::fmt;
use std::fmt::Write;

use futures_util::future::join_all;
use larder_core::Error;
use serde::Serialize;

use crate::config::{Diagnostic, Diagnostics, Settings, policy};
use crate::front;
use crate::serve;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Fine,
    /// It works, and will not always, or not as well as it could.
    Warning,
    /// It does not work.
    Failure,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// Of which tier: `configuration`, `database`, `disk`, `redis`, `bus`,
    /// `memcached` or `front`.
    pub tier: &'static str,
    /// Which server, file or directory.
    pub at: String,
    /// What was looked at, in a word.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Everything that was found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// Whether everything works, warnings notwithstanding.
    pub is_healthy: bool,
    /// Each thing that was looked at.
    pub findings: Vec<Finding>,
}

/// Looks at every tier that the configuration names, all at the same time. Takes
/// about a second where all of them answer, and their timeouts where not.
pub async fn examine(settings: &Settings) -> Report {
    let missing = serve::check_surroundings(settings);
    if !missing.is_empty() {
        // What depends on it would only repeat it.
        return Report::new(missing.into_iter().map(Finding::from).collect());
    }
    let looks: Vec<Look<'_>> = vec![
        Box::pin(databases::look(settings)),
        Box::pin(disk::look(settings)),
        Box::pin(redis::look(settings)),
        Box::pin(memcached::look(settings)),
        Box::pin(look_in_front(settings)),
    ];
    let mut findings: Vec<_> = join_all(looks).await.into_iter().flatten().collect();
    if findings.is_empty() {
        findings.push(
            Finding::new("configuration", "", "tiers", Level::Warning, "no tier is configured")
                .remedy("name a file with --config, or a database with --database"),
        );
    }
    Report::new(findings)
}

type Look<'a> = std::pin::Pin<Box<dyn Future<Output = Vec<Finding>> + 'a>>;

/// The Redis to stand in front of.
async fn look_in_front(settings: &Settings) -> Vec<Finding> {
    let options = match serve::front_options(&settings.config) {
        Ok(None) => return Vec::new(),
        Ok(Some(options)) => options,
        Err(error) => return vec![Finding::failure("front", "?", "configuration", &error)],
    };
    let at = options.label();
    vec![match front::check(&options).await {
        Ok(found) if found.is_cluster() => {
            Finding::fine("front", at, "reachable", "the cluster answers and serves every slot")
        }
        Ok(_) => Finding::fine("front", at, "reachable", "it answers and accepts the login"),
        Err(error) => Finding::failure("front", at, "reachable", &error),
    }]
}

impl Report {
    fn new(findings: Vec<Finding>) -> Self {
        let is_healthy = findings.iter().all(|finding| finding.level < Level::Failure);
        Self { is_healthy, findings }
    }

    /// What is wrong with a configuration that cannot be used.
    pub(crate) fn of_mistakes(diagnostics: Diagnostics) -> Self {
        Self::new(diagnostics.0.into_iter().map(Finding::from).collect())
    }

    /// How many findings are of this level.
    #[must_use]
    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }
}

impl Finding {
    fn new(
        tier: &'static str,
        at: impl Into<String>,
        check: &'static str,
        level: Level,
        message: impl Into<String>,
    ) -> Self {
        Self { tier, at: at.into(), check, level, message: message.into(), remedy: None }
    }

    fn fine(
        tier: &'static str,
        at: impl Into<String>,
        check: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self::new(tier, at, check, Level::Fine, message)
    }

    fn failure(
        tier: &'static str,
        at: impl Into<String>,
        check: &'static str,
        error: &Error,
    ) -> Self {
        let remedy = error.remedy_text().map(str::to_owned);
        let message = policy::without_remedy(error);
        let message = match std::error::Error::source(error) {
            Some(source) => format!("{message}: {source}"),
            None => message,
        };
        Self { remedy, ..Self::new(tier, at, check, Level::Failure, message) }
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl From<Diagnostic> for Finding {
    fn from(diagnostic: Diagnostic) -> Self {
        let level = match diagnostic.severity {
            crate::config::Severity::Error => Level::Failure,
            crate::config::Severity::Warning => Level::Warning,
            crate::config::Severity::Information => Level::Fine,
        };
        let at = match (diagnostic.file, diagnostic.line) {
            (Some(file), Some(line)) => format!("{file}:{line}"),
            (file, _) => file.unwrap_or_default(),
        };
        let finding = Self::new("configuration", at, "option", level, diagnostic.message);
        Self { remedy: diagnostic.remedy, ..finding }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = None;
        for finding in &self.findings {
            let place = (finding.tier, finding.at.as_str());
            if last != Some(place) {
                let gap = if last.is_some() { "\n" } else { "" };
                writeln!(f, "{gap}{}", format!("{} {}", place.0, place.1).trim_end())?;
                last = Some(place);
            }
            let word = match finding.level {
                Level::Fine => "ok",
                Level::Warning => "warning",
                Level::Failure => "failure",
            };
            writeln!(f, "  {word:7}  {:13}  {}", finding.check, finding.message)?;
            if let Some(remedy) = finding.remedy.as_ref().filter(|_| finding.level > Level::Fine) {
                writeln!(f, "           = {remedy}")?;
            }
        }
        f.write_char('\n')?;
        let (failures, warnings) = (self.count(Level::Failure), self.count(Level::Warning));
        let counted = |number: usize, noun: &str| match number {
            1 => format!("1 {noun}"),
            number => format!("{number} {noun}s"),
        };
        match (failures, warnings) {
            (0, 0) => f.write_str("everything works\n"),
            (0, number) => writeln!(f, "everything works, {}", counted(number, "warning")),
            (failures, number) => {
                writeln!(f, "{}, {}", counted(failures, "failure"), counted(number, "warning"))
            }
        }
    }
}

/// A duration as people read it.
fn shown(duration: std::time::Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}
