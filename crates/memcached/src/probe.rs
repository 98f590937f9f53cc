//! What is wrong with the servers, and what to do about it.

use std::fmt;
use std::sync::Arc;

use futures_util::future::join_all;
use larder_core::{Error, ErrorKind, Key, Result};

use crate::handshake::{Introduction, text};
use crate::protocol::{Mode, Reply, Request, WireKey};
use crate::server::{Server, Session};
use crate::tls::Tls;
use crate::{MemcachedOptions, ServerAddress, failure};

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Severity {
    /// As it should be.
    Good,
    /// It works, but not as well as it could, or less safely.
    Warning,
    /// It does not work.
    Failure,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Finding {
    /// At which server.
    pub server: ServerAddress,
    /// What was looked at: `connection`, `version`, `login`, `encryption`,
    /// `rights`, `limits`, `evictions` or `connections`.
    pub subject: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.server, self.subject, self.message)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// Connects to each server and looks at what a doctor wants to know: can it be
/// reached, is it new enough, does it ask for a password, is the connection
/// encrypted, can items be written, read and deleted, how large they may be,
/// and does it evict. Servers are looked at all at once; each costs a new
/// connection and some ten round trips, and writes one item that lives for ten
/// seconds.
///
/// # Errors
/// [`ErrorKind::Config`] if the options contradict each other. What is wrong
/// with a server is a finding.
pub async fn probe(options: &MemcachedOptions) -> Result<Vec<Finding>> {
    options.check()?;
    let tls = options.tls.as_ref().map(Tls::new).transpose()?;
    let options = Arc::new(options.clone());
    let servers = options.servers.iter().map(|address| {
        let server = Server::new(address.clone(), Arc::clone(&options), tls.clone());
        let options = Arc::clone(&options);
        async move { probe_server(&server, &options).await }
    });
    Ok(join_all(servers).await.into_iter().flatten().collect())
}

async fn probe_server(server: &Arc<Server>, options: &MemcachedOptions) -> Vec<Finding> {
    let found = |subject, severity, message: String| Finding {
        server: server.address.clone(),
        subject,
        severity,
        message,
        remedy: None,
    };
    let session = match server.session().await {
        Ok(session) => session,
        Err(error) => {
            let finding = found("connection", Severity::Failure, without_remedy(&error));
            return vec![with_remedy_of(finding, &error)];
        }
    };
    let introduction = &session.introduction;
    let version = format!("memcached {}", introduction.version);
    let mut findings = vec![
        found("connection", Severity::Good, "it answers".to_owned()),
        found("version", Severity::Good, version),
        login(introduction, options, &found),
        encryption(options, &found),
        limits(introduction, &found),
        evictions(introduction, &found),
        connections(introduction, options, &found),
    ];
    findings.push(match try_rights(&session, &server.address).await {
        Ok(()) => found("rights", Severity::Good, "items are written, read and deleted".to_owned()),
        Err(error) => {
            with_remedy_of(found("rights", Severity::Failure, without_remedy(&error)), &error)
        }
    });
    findings
}

/// Makes a finding of a subject, a severity and a message.
type Found<'a> = dyn Fn(&'static str, Severity, String) -> Finding + Sync + 'a;

fn login(introduction: &Introduction, options: &MemcachedOptions, found: &Found<'_>) -> Finding {
    let has_credentials = options.credentials.is_some();
    match (introduction.asks_credentials, has_credentials) {
        (true, _) => found("login", Severity::Good, "it asks for a password".to_owned()),
        (false, true) => remedied(
            found("login", Severity::Warning, "it asks for no password though one is given".into()),
            "start it with -Y FILE; nothing was sent to it",
        ),
        (false, false) => remedied(
            found("login", Severity::Warning, "everybody who reaches it may read and write".into()),
            "let only the nodes reach its port, or start it with -Y FILE",
        ),
    }
}

fn encryption(options: &MemcachedOptions, found: &Found<'_>) -> Finding {
    if options.tls.is_some() {
        return found("encryption", Severity::Good, "TLS, certificate verified".to_owned());
    }
    let severity = if options.credentials.is_some() { Severity::Warning } else { Severity::Good };
    let finding = found("encryption", severity, "none".to_owned());
    match severity {
        Severity::Good => finding,
        _ => remedied(finding, "start it with -Z and set tls: the password travels in the clear"),
    }
}

fn limits(introduction: &Introduction, found: &Found<'_>) -> Finding {
    let value_bytes_max = crate::item::value_bytes_max(introduction.item_bytes_max);
    let memory = text(&introduction.settings, "maxbytes").unwrap_or("?");
    let message =
        format!("values up to {value_bytes_max} bytes, {memory} bytes of memory for all items");
    found("limits", Severity::Good, message)
}

fn evictions(introduction: &Introduction, found: &Found<'_>) -> Finding {
    let evictions = introduction.figure("evictions").unwrap_or(0);
    let uptime_secs = introduction.figure("uptime").unwrap_or(0);
    let message = format!("{evictions} items evicted in {uptime_secs} s");
    if text(&introduction.settings, "evictions") == Some("off") {
        let message = "it refuses what is new when it is full".to_owned();
        return remedied(
            found("evictions", Severity::Warning, message),
            "start it without -M: a cache has to forget what is old",
        );
    }
    if evictions == 0 {
        return found("evictions", Severity::Good, message);
    }
    remedied(
        found("evictions", Severity::Warning, message),
        "give it more memory (-m): evictions also hit what remembers invalidations",
    )
}

fn connections(
    introduction: &Introduction,
    options: &MemcachedOptions,
    found: &Found<'_>,
) -> Finding {
    let held = introduction.figure("curr_connections").unwrap_or(0);
    let most = introduction.figure("max_connections").unwrap_or(0);
    let rejected = introduction.figure("rejected_connections").unwrap_or(0);
    let message = format!("{held} of {most} connections, {rejected} rejected so far");
    let needed = options.connections_per_server as u64;
    if rejected == 0 && held.saturating_add(needed) <= most {
        return found("connections", Severity::Good, message);
    }
    remedied(
        found("connections", Severity::Warning, message),
        "allow more connections (-c), or lower connections_per_server",
    )
}

/// Writes, reads, changes and deletes an item of its own.
async fn try_rights(session: &Session, address: &ServerAddress) -> Result<()> {
    let key = Key::new(format!("larder:doctor:{:016x}", fastrand::u64(..)));
    let name = WireKey::new(key.as_bytes()).expect("it is short");
    let value = bytes::Bytes::from_static(b"probe");
    let steps = [
        Request::set(name.clone(), value.clone(), Mode::Add).expires_at(10),
        Request::get(name.clone()).with_value(),
        Request::delete(name),
    ];
    let replies = session.call(&steps).await?.replies;
    if let Some(Reply::Complaint(complaint)) =
        replies.iter().find(|reply| matches!(reply, Reply::Complaint(_)))
    {
        return Err(failure::refused(address, complaint));
    }
    match &replies[..] {
        [Reply::Done(_), Reply::Value(read, _), Reply::Done(_)] if *read == value => Ok(()),
        _ => Err(Error::new(ErrorKind::Unavailable, "an item just written is not there")
            .remedy("see whether it has any memory left, and who deletes items")),
    }
}

fn remedied(finding: Finding, remedy: &str) -> Finding {
    Finding { remedy: Some(remedy.to_owned()), ..finding }
}

fn with_remedy_of(finding: Finding, error: &Error) -> Finding {
    Finding { remedy: error.remedy_text().map(str::to_owned), ..finding }
}

/// The error's text without its remedy, which has a place of its own.
fn without_remedy(error: &Error) -> String {
    let text = error.to_string();
    match error.remedy_text() {
        Some(remedy) => text.strip_suffix(&format!("; {remedy}")).unwrap_or(&text).to_owned(),
        None => text,
    }
}
