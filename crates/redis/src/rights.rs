//! Whether the user may do everything that a tier does.

use larder_core::{Error, ErrorKind, Result};
use redis::Value;
use redis::cluster_routing::Slot;

use crate::bus::publish_command;
use crate::connector::{Open, text};
use crate::discovery::Shard;
use crate::failure::{bounded, failed, is_about_rights};
use crate::keys::Names;
use crate::script::{Call, TRY_CONTROL, TRY_ENTRY};
use crate::shared::{Shared, call_over};
use crate::subscription::subscribe;

/// The commands that a tier's user must be allowed, as in `ACL SETUSER`; a cluster
/// takes those of [`CLUSTER_RIGHTS`], too.
///
/// Beside them the user needs the keys and channels of the prefix. With the
/// prefix `larder`:
///
/// ```text
/// ACL SETUSER app on >PASSWORD resetkeys resetchannels nocommands
///     ~larder:* ~{larder}:* &larder:* &{larder}:*
///     +eval +evalsha +mget +get +getrange +set +setrange +del +pttl +pexpire
///     +persist +hset +hmget +xadd +xrange +zadd +zscore +zrange +zrangebyscore
///     +zrem +time +publish +subscribe +info
/// ```
///
/// A user that is not in database 0 needs `select`.
pub const RIGHTS: [&str; 24] = [
    "eval",
    "evalsha",
    "mget",
    "get",
    "getrange",
    "set",
    "setrange",
    "del",
    "pttl",
    "pexpire",
    "persist",
    "hset",
    "hmget",
    "xadd",
    "xrange",
    "zadd",
    "zscore",
    "zrange",
    "zrangebyscore",
    "zrem",
    "time",
    "publish",
    "subscribe",
    "info",
];

/// What a cluster takes beside [`RIGHTS`].
pub const CLUSTER_RIGHTS: [&str; 6] =
    ["cluster|slots", "cluster|info", "spublish", "ssubscribe", "readonly", "asking"];

/// What a journal takes beside [`RIGHTS`], or beside both in a cluster. To wait for
/// disks it takes `waitaof`, too, which servers before 7.2 do not know.
pub const JOURNAL_RIGHTS: [&str; 11] = [
    "hget",
    "hgetall",
    "hdel",
    "hincrby",
    "xread",
    "xrevrange",
    "xdel",
    "xtrim",
    "zcard",
    "zremrangebyscore",
    "wait",
];

/// Tries everything at each primary.
///
/// # Errors
/// [`ErrorKind::Config`] with the first right that is missing, and where.
pub(crate) async fn check(shared: &Shared) -> Result<()> {
    let (mut open, _pushes) = shared.discovery.open_primary_pushed().await?;
    if !shared.links.has_slots() {
        return missing(shared, &mut open).await;
    }
    missing_at_control(shared, &mut open).await?;
    for shard in shared.discovery.shards().await? {
        match check_shard(shared, &shard).await {
            Err(error) if error.kind() == ErrorKind::Config => return Err(error),
            // A shard that fails over or moves slots is no reason not to start.
            Err(error) => tracing::warn!(%error, "the rights at a shard are not known"),
            Ok(()) => {}
        }
    }
    Ok(())
}

async fn check_shard(shared: &Shared, shard: &Shard) -> Result<()> {
    let mut open = shared.discovery.connector().open(&shard.primary).await?;
    match key_of(&shared.names, shard) {
        Some(key) => missing_at_entries(shared, &mut open, &key).await,
        None => Ok(()),
    }
}

/// What everything takes at a primary that has all keys. The connection hears a
/// channel from then on.
pub(crate) async fn missing(shared: &Shared, open: &mut Open) -> Result<()> {
    missing_at_control(shared, open).await?;
    missing_at_entries(shared, open, &shared.names.entries("probe")).await
}

/// What the bus and watermarks take. The connection hears a channel from then on.
async fn missing_at_control(shared: &Shared, open: &mut Open) -> Result<()> {
    let names = &shared.names;
    let has_slots = shared.links.has_slots();
    let keys = ["hash", "stream", "set"].map(|which| names.control_probe(which)).to_vec();
    let first = keys[0].clone();
    let call = Call::new(&TRY_CONTROL, keys)
        .argument(names.control_probe("channel"))
        .argument(publish_command(shared));
    try_all(shared, open, &call).await?;
    let mut eval = redis::cmd("EVAL");
    eval.arg("return 1").arg(1).arg(first);
    let answer = open.connection.send_packed_command(&eval).await;
    answer.and_then(Value::extract_error).map_err(|error| refused(shared, open, &error))?;
    let subscribed = subscribe(open, has_slots, &names.channel()).await;
    subscribed.map_err(|error| refused(shared, open, &error))?;
    let subscribed = subscribe(open, false, &names.wakes()).await;
    subscribed.map_err(|error| refused(shared, open, &error))
}

/// What entries and leases take, with a key like this one.
async fn missing_at_entries(shared: &Shared, open: &mut Open, key: &[u8]) -> Result<()> {
    try_all(shared, open, &Call::new(&TRY_ENTRY, vec![key.to_vec()])).await?;
    let mut read = redis::cmd("MGET");
    read.arg(key);
    let answer = open.connection.send_packed_command(&read).await;
    answer.and_then(Value::extract_error).map_err(|error| refused(shared, open, &error)).map(drop)
}

async fn try_all(shared: &Shared, open: &mut Open, call: &Call) -> Result<()> {
    let answer =
        call_over(open, call).await.map_err(|failure| with_remedy(shared, failure.error))?;
    let Value::Array(failures) = answer else { return Ok(()) };
    let Some(failure) = failures.first().and_then(text) else { return Ok(()) };
    let (command, detail) = failure.split_once(' ').unwrap_or((&failure, ""));
    let (kind, what) = if is_about_rights(detail) {
        (ErrorKind::Config, "the Redis user lacks a right")
    } else {
        (ErrorKind::Unavailable, "Redis refused a command")
    };
    let error = Error::new(kind, what)
        .with("server", &open.endpoint)
        .with("right", format!("+{}", command.to_lowercase()))
        .with("detail", bounded(detail));
    Err(with_remedy(shared, error))
}

fn refused(shared: &Shared, open: &Open, error: &redis::RedisError) -> Error {
    with_remedy(shared, failed(error, &open.endpoint.to_string()))
}

/// Says which rights there should be.
fn with_remedy(shared: &Shared, error: Error) -> Error {
    if error.kind() != ErrorKind::Config {
        return error;
    }
    let [keys, control] = shared.names.patterns();
    let mut rights: Vec<String> = RIGHTS.iter().map(|right| format!("+{right}")).collect();
    if shared.links.has_slots() {
        rights.extend(CLUSTER_RIGHTS.iter().map(|right| format!("+{right}")));
    }
    error
        .remedy(format!("give the user ~{keys} ~{control} &{keys} &{control} {}", rights.join(" ")))
}

/// A key that no entry has and that lies in this shard.
fn key_of(names: &Names, shard: &Shard) -> Option<Vec<u8>> {
    let start = names.entries("probe");
    (0..1_000_000_u32)
        .map(|number| [start.as_slice(), number.to_string().as_bytes()].concat())
        .find(|key| {
            let slot = Slot::for_key(key);
            (shard.first..=shard.last).any(|own| Slot::new(own) == Some(slot))
        })
}
