//! What is asked of a server before anything else: may we speak, does it speak
//! the meta protocol, what time is it there, and how large an item may be.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Instant;

use larder_core::Result;

use crate::connection::Connection;
use crate::protocol::{ComplaintKind, Reply, Request, WireKey};
use crate::{MemcachedOptions, ServerAddress, failure};

/// Points in time below this are taken for durations.
const DURATION_SECS_MAX: u64 = 60 * 60 * 24 * 30;

/// The first version with the meta protocol.
const VERSION_MIN: (u32, u32) = (1, 6);

/// What a server says of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Introduction {
    pub(crate) version: String,
    /// Which run of the server: another after every restart.
    pub(crate) incarnation: u64,
    /// Seconds of its clock.
    pub(crate) time_secs: u64,
    /// When the answer with that came.
    pub(crate) answered_at: Option<Instant>,
    /// The largest item, its key and the server's own bookkeeping included.
    pub(crate) item_bytes_max: usize,
    /// Whether it asked for name and password.
    pub(crate) asks_credentials: bool,
    /// Everything else, for whoever looks after the server.
    pub(crate) statistics: Vec<(String, String)>,
    pub(crate) settings: Vec<(String, String)>,
}

impl Introduction {
    /// A figure of `stats`.
    pub(crate) fn figure(&self, name: &str) -> Option<u64> {
        figure(&self.statistics, name)
    }
}

/// Logs in if that is asked for, and lets the server introduce itself. At most
/// four round trips.
pub(crate) async fn introduce(
    connection: &Connection,
    server: &ServerAddress,
    options: &MemcachedOptions,
) -> Result<Introduction> {
    let asks_credentials = authenticate(connection, server, options).await?;
    let statistics = connection.call(&[Request::statistics()]).await?.statistics;
    let answered_at = Instant::now();
    let settings = connection.call(&[Request::settings()]).await?.statistics;
    let introduction = Introduction {
        version: text(&statistics, "version").unwrap_or("unknown").to_owned(),
        incarnation: incarnation(&statistics),
        time_secs: figure(&statistics, "time").unwrap_or(0),
        answered_at: Some(answered_at),
        item_bytes_max: figure(&settings, "item_size_max")
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or(1 << 20),
        asks_credentials,
        statistics,
        settings,
    };
    check(&introduction, server)?;
    check_meta_protocol(connection, &introduction, server).await?;
    Ok(introduction)
}

/// What `stats` says of the clock, and which run of the server says it.
pub(crate) fn clock_of(statistics: &[(String, String)]) -> Option<(u64, u64)> {
    Some((figure(statistics, "time")?, incarnation(statistics)))
}

/// Sends name and password, but only to a server that wants some: any other
/// would keep them as an item that everybody can read. Returns whether it does.
async fn authenticate(
    connection: &Connection,
    server: &ServerAddress,
    options: &MemcachedOptions,
) -> Result<bool> {
    let answers = connection.call(&[Request::noop()]).await?;
    let asked = match answers.replies.first() {
        Some(Reply::Complaint(asked)) if asked.kind == ComplaintKind::Client => asked.clone(),
        Some(Reply::Complaint(complaint)) if complaint.kind == ComplaintKind::UnknownCommand => {
            return Err(too_old(server));
        }
        Some(Reply::Complaint(complaint)) => return Err(failure::refused(server, complaint)),
        _ => return Ok(false),
    };
    let Some(credentials) = &options.credentials else {
        return Err(failure::config(server, "memcached asks for user and password")
            .with("answer", asked)
            .remedy("give the credentials of a line in the file that it was started with (-Y)"));
    };
    let login = Request::authenticate(&credentials.user, &credentials.password);
    match connection.call(&[login]).await?.replies.first() {
        Some(Reply::Stored) => Ok(true),
        Some(Reply::Complaint(complaint)) => Err(failure::refused(server, complaint)),
        _ => Err(failure::garbled(server, "the login was not answered")),
    }
}

fn check(introduction: &Introduction, server: &ServerAddress) -> Result<()> {
    let mut numbers = introduction.version.split('.').map(|part| part.parse::<u32>().ok());
    let version = (numbers.next().flatten(), numbers.next().flatten());
    if let (Some(major), Some(minor)) = version
        && (major, minor) < VERSION_MIN
    {
        return Err(too_old(server).with("version", &introduction.version));
    }
    if text(&introduction.settings, "cas_enabled") == Some("no") {
        return Err(failure::config(server, "memcached runs without compare-and-swap")
            .remedy("start it without -C: versions cannot be compared otherwise"));
    }
    if introduction.time_secs <= DURATION_SECS_MAX {
        return Err(failure::config(server, "memcached's clock cannot be told or is not set")
            .with("time", introduction.time_secs)
            .remedy("set the clock of its machine before it starts"));
    }
    Ok(())
}

/// Versions say too little: the protocol changed while it was new. So the
/// server has to answer what will be asked of it.
async fn check_meta_protocol(
    connection: &Connection,
    introduction: &Introduction,
    server: &ServerAddress,
) -> Result<()> {
    let key = || WireKey::new(b"larder hello\0").expect("it is short");
    let get = || Request::get(key()).with_value().with_cas().with_ttl().with_client_flags();
    let answers = connection.call(&[get(), get()]).await?;
    if answers.replies == [Reply::Missing, Reply::Missing] {
        return Ok(());
    }
    Err(too_old(server).with("version", &introduction.version))
}

fn too_old(server: &ServerAddress) -> larder_core::Error {
    failure::config(server, "this memcached lacks the meta protocol as it is today")
        .remedy("install memcached 1.6.14 or newer")
}

fn incarnation(statistics: &[(String, String)]) -> u64 {
    let start = figure(statistics, "time")
        .unwrap_or(0)
        .saturating_sub(figure(statistics, "uptime").unwrap_or(0));
    let mut hasher = DefaultHasher::new();
    (start, figure(statistics, "pid")).hash(&mut hasher);
    hasher.finish()
}

fn figure(statistics: &[(String, String)], name: &str) -> Option<u64> {
    text(statistics, name)?.parse().ok()
}

pub(crate) fn text<'a>(statistics: &'a [(String, String)], name: &str) -> Option<&'a str> {
    statistics.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}
