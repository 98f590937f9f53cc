//! What a doctor wants to know of each server.

use std::time::Duration;

use larder_core::{Error, ErrorKind, Result};
use redis::Value;

use crate::Topology;
use crate::address::Endpoint;
use crate::connector::{Open, text};
use crate::rights;
use crate::shared::{Shared, read_time};

/// How far apart two looks at the clock are.
const RATE_TIME: Duration = Duration::from_millis(200);

/// By how much a clock may run fast or slow before it is told.
const RATE_OFF_MAX: f64 = 0.01;

/// The oldest version that everything works with.
const VERSION_LEAST: (u32, u32) = (6, 2);

/// The same in a cluster, where messages go to the subscribers of one slot.
const CLUSTER_VERSION_LEAST: (u32, u32) = (7, 0);

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// As it should be.
    Fine,
    /// It works, and will not always.
    Warning,
    /// It does not work.
    Failure,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Finding {
    /// Host and port.
    pub server: String,
    /// What was looked at: `reachable`, `version`, `role`, `rights`, `clock`,
    /// `eviction` or `tracking`.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Finding {
    /// Whether nothing is to be done about it.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        self.level == Level::Fine
    }
}

/// Looks at every server that is known.
pub(crate) async fn run(shared: &Shared) -> Vec<Finding> {
    let servers = shared.discovery.servers().await;
    if servers.is_empty() {
        let error = shared.discovery.open_primary().await.err();
        let remedy = error.as_ref().and_then(Error::remedy_text);
        let remedy = remedy.unwrap_or("check the URLs, and whether the servers run").to_owned();
        return vec![Finding {
            server: "?".to_owned(),
            check: "reachable",
            level: Level::Failure,
            message: error.map_or_else(|| "none".to_owned(), |error| without_remedy(&error)),
            remedy: Some(remedy),
        }];
    }
    let looks = servers.iter().map(|server| look(shared, server));
    let mut findings: Vec<Finding> =
        futures_util::future::join_all(looks).await.into_iter().flatten().collect();
    if shared.links.has_slots() && findings.iter().all(|it| it.check != "reachable" || it.is_fine())
    {
        let mut report = Report { server: "the cluster".to_owned(), findings };
        report.rights(rights::check(shared).await);
        findings = report.findings;
    }
    findings
}

/// How many connections listen to the channel of the bus.
pub(crate) async fn listeners(shared: &Shared) -> Result<u64> {
    let mut open = shared.discovery.open_primary().await?;
    let mut ask = redis::cmd("PUBSUB");
    ask.arg(if shared.links.has_slots() { "SHARDNUMSUB" } else { "NUMSUB" });
    ask.arg(shared.names.channel());
    let failed = |error| crate::failure::failed(&error, &open.endpoint.to_string());
    let answer = open.connection.send_packed_command(&ask).await;
    let answer = answer.and_then(Value::extract_error).map_err(failed)?;
    let counts = answer.as_map_iter().and_then(|mut pairs| pairs.next());
    let count = counts.and_then(|(_, count)| text(count)).and_then(|count| count.parse().ok());
    count.ok_or_else(|| Error::new(ErrorKind::Unavailable, "Redis does not say who listens"))
}

/// Looks at one server.
async fn look(shared: &Shared, server: &Endpoint) -> Vec<Finding> {
    let mut report = Report { server: server.to_string(), findings: Vec::new() };
    let mut open = match shared.discovery.connector().open_pushed(server).await {
        // What is pushed to a probe is of no interest.
        Ok((open, _)) => open,
        Err(error) => {
            let remedy = error.remedy_text().unwrap_or("check that it runs and can be reached");
            report.add("reachable", Level::Failure, without_remedy(&error), Some(remedy));
            return report.findings;
        }
    };
    report.add("reachable", Level::Fine, "it answers and accepts the login", None);
    report.version(&open, shared.options.topology == Topology::Cluster);
    let role = if open.hello.is_primary { "primary" } else { "replica" };
    report.add("role", Level::Fine, role, None);
    if open.hello.is_primary && !shared.links.has_slots() {
        report.rights(rights::missing(shared, &mut open).await);
    }
    report.clock(shared, &mut open).await;
    report.eviction(&mut open).await;
    report.tracking(shared, &mut open).await;
    report.findings
}

struct Report {
    server: String,
    findings: Vec<Finding>,
}

impl Report {
    fn add(
        &mut self,
        check: &'static str,
        level: Level,
        message: impl std::fmt::Display,
        remedy: Option<&str>,
    ) {
        self.findings.push(Finding {
            server: self.server.clone(),
            check,
            level,
            message: message.to_string(),
            remedy: remedy.map(str::to_owned),
        });
    }

    fn rights(&mut self, found: Result<()>) {
        match found {
            Ok(()) => self.add("rights", Level::Fine, "nothing is missing", None),
            Err(error) => {
                let message = without_remedy(&error);
                self.add("rights", Level::Failure, message, error.remedy_text());
            }
        }
    }

    fn version(&mut self, open: &Open, is_cluster: bool) {
        let text = &open.hello.version;
        let mut numbers = text.split('.').map_while(|part| part.parse::<u32>().ok());
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let least = if is_cluster { CLUSTER_VERSION_LEAST } else { VERSION_LEAST };
        if version >= least {
            self.add("version", Level::Fine, text, None);
        } else {
            let remedy = format!("use {}.{} or later", least.0, least.1);
            self.add("version", Level::Failure, format!("{text} is too old"), Some(&remedy));
        }
    }

    async fn clock(&mut self, shared: &Shared, open: &mut Open) {
        match clock_rate(shared, open).await {
            Ok(rate) if (rate - 1.0).abs() <= RATE_OFF_MAX => {
                let message = format!("it runs at {rate:.4} of this node's rate");
                self.add("clock", Level::Fine, message, None);
            }
            Ok(rate) => self.add(
                "clock",
                Level::Warning,
                format!("it runs at {rate:.4} of this node's rate, or was set meanwhile"),
                Some("let the server's clock be slewed, not stepped"),
            ),
            Err(error) => {
                self.add("clock", Level::Failure, without_remedy(&error), error.remedy_text());
            }
        }
    }

    async fn eviction(&mut self, open: &mut Open) {
        let mut ask = redis::cmd("CONFIG");
        ask.arg("GET").arg("maxmemory-policy");
        let policy = match open.connection.send_packed_command(&ask).await {
            Ok(answer) => answer
                .as_map_iter()
                .and_then(|mut pairs| pairs.next().and_then(|(_, policy)| text(policy))),
            Err(_) => None,
        };
        match policy.as_deref() {
            Some(policy) if policy.starts_with("allkeys") => self.add(
                "eviction",
                Level::Warning,
                format!("{policy} may evict the shared clock: every node's memory is suspect then"),
                Some("set maxmemory-policy to volatile-lru or volatile-lfu: entries have a TTL"),
            ),
            Some("noeviction") => self.add(
                "eviction",
                Level::Warning,
                "noeviction refuses writes, invalidations too, when memory is full",
                Some("set maxmemory-policy to volatile-lru or volatile-lfu: entries have a TTL"),
            ),
            Some(policy) => self.add("eviction", Level::Fine, policy, None),
            None => self.add(
                "eviction",
                Level::Warning,
                "the policy cannot be read",
                Some("see that maxmemory-policy is volatile-lru or volatile-lfu, or allow +config|get"),
            ),
        }
    }

    async fn tracking(&mut self, shared: &Shared, open: &mut Open) {
        let [prefix, _] = shared.names.patterns();
        let mut track = redis::cmd("CLIENT");
        track.arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg(prefix);
        let answer = open.connection.send_packed_command(&track).await;
        match answer.and_then(Value::extract_error) {
            Ok(_) => self.add("tracking", Level::Fine, "CLIENT TRACKING is allowed", None),
            Err(error) => self.add(
                "tracking",
                Level::Warning,
                without_remedy(&crate::failure::failed(&error, &self.server)),
                Some(
                    "allow +client|tracking if other programs write the same keys; \
                     without it memory follows them by TTL only",
                ),
            ),
        }
    }
}

/// The error's text without its remedy, which has a place of its own.
fn without_remedy(error: &Error) -> String {
    let text = error.to_string();
    match error.remedy_text() {
        Some(remedy) => text.strip_suffix(&format!("; {remedy}")).unwrap_or(&text).to_owned(),
        None => text,
    }
}

/// How fast the server's clock runs beside this node's.
async fn clock_rate(shared: &Shared, open: &mut Open) -> Result<f64> {
    let (first, first_at) = server_time(shared, open).await?;
    tokio::time::sleep(RATE_TIME).await;
    let (second, second_at) = server_time(shared, open).await?;
    Ok((second as f64 - first as f64) / (second_at as f64 - first_at as f64))
}

/// The server's time, and this node's in the middle of the question, in
/// microseconds.
async fn server_time(shared: &Shared, open: &mut Open) -> Result<(u64, u64)> {
    let asked = shared.time.now();
    let answer = open.connection.send_packed_command(&redis::cmd("TIME")).await;
    let answered = shared.time.now();
    let failed = |error| crate::failure::failed(&error, &open.endpoint.to_string());
    let answer = answer.and_then(Value::extract_error).map_err(failed)?;
    let middle = (asked.as_nanos() + answered.as_nanos()) / 2000;
    Ok((read_time(&answer).unwrap_or_default(), middle))
}
