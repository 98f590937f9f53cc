//! `CONFIG`: the parameters under the names that Redis gives them. What they
//! are set to comes from Larder's own configuration; what can change while the
//! server runs can be changed here, until the next start.

use std::time::Duration;

use super::super::Reply;
use super::super::command::{Command, Group, Handler, KeySpec, OnCache};
use super::super::door::Shared;
use super::super::session::Session;
use super::super::settings::BULK_BYTES_LIMIT;
use crate::keyspace::{EvictionPolicy, glob_matches, parse_integer};

/// What all of these have in common.
const CONFIG: Command = Command {
    name: "",
    arity: 2,
    syntax: "",
    summary: "",
    group: Group::Server,
    since: "2.0.0",
    complexity: "O(1)",
    flags: &["admin", "noscript", "loading", "stale"],
    keys: KeySpec::NONE,
    on_cache: OnCache::NoKeys,
    handler: Handler::Session(help),
};

pub(super) const SUBCOMMANDS: &[Command] = &[
    Command {
        name: "config|get",
        arity: -3,
        syntax: "parameter [parameter ...]",
        summary: "Returns the effective values of configuration parameters.",
        complexity: "O(N) when N is the number of configuration parameters provided",
        handler: Handler::Session(get),
        ..CONFIG
    },
    Command {
        name: "config|help",
        summary: "Returns helpful text about the subcommands.",
        since: "5.0.0",
        flags: &["loading", "stale"],
        handler: Handler::Session(help),
        ..CONFIG
    },
    Command {
        name: "config|resetstat",
        summary: "Resets the server's statistics.",
        handler: Handler::Session(reset_statistics),
        ..CONFIG
    },
    Command {
        name: "config|set",
        arity: -4,
        syntax: "parameter value [parameter value ...]",
        summary: "Sets configuration parameters in-flight.",
        complexity: "O(N) when N is the number of configuration parameters provided",
        handler: Handler::Session(set),
        ..CONFIG
    },
];

/// One parameter.
struct Parameter {
    name: &'static str,
    get: fn(&Shared) -> String,
    /// Reads a value and returns what puts it into effect; `None` if the
    /// parameter is fixed while the server runs.
    set: Option<ReadChange>,
}

/// Reads a value; an error says what is wrong with it.
type ReadChange = fn(&[u8]) -> Result<Change, &'static str>;

/// Puts a value into effect.
type Change = Box<dyn FnOnce(&Shared)>;

const NOT_AN_INTEGER: &str = "argument couldn't be parsed into an integer";
const NOT_A_SIZE: &str = "argument must be a memory value";

const PARAMETERS: &[Parameter] = &[
    fixed("appendonly", |_| "no".to_owned()),
    fixed("bind", |shared| shared.address.ip().to_string()),
    Parameter {
        name: "client-query-buffer-limit",
        get: |shared| shared.settings.query_bytes_max.get().to_string(),
        set: Some(|value| {
            let bytes = size(value)?;
            Ok(Box::new(move |shared| shared.settings.query_bytes_max.set(bytes)))
        }),
    },
    fixed("databases", |_| "1".to_owned()),
    fixed("io-threads", |shared| shared.workers.len().to_string()),
    Parameter {
        name: "maxclients",
        get: |shared| shared.settings.clients_max.get().to_string(),
        set: Some(|value| {
            let count = integer(value, 1, 1_000_000)?;
            Ok(Box::new(move |shared| shared.settings.clients_max.set(count as usize)))
        }),
    },
    Parameter {
        name: "maxmemory",
        get: |shared| shared.keyspace.memory_limit().unwrap_or(0).to_string(),
        set: Some(|value| {
            let bytes = Some(size(value)?).filter(|&bytes| bytes > 0);
            Ok(Box::new(move |shared| shared.keyspace.set_memory_limit(bytes)))
        }),
    },
    Parameter {
        name: "maxmemory-policy",
        get: |shared| shared.keyspace.eviction_policy().name().to_owned(),
        set: Some(|value| {
            let policy = std::str::from_utf8(value)
                .ok()
                .and_then(|name| name.parse::<EvictionPolicy>().ok())
                .ok_or(
                    "argument(s) must be one of the following: volatile-lru, volatile-lfu, \
                     volatile-random, volatile-ttl, allkeys-lru, allkeys-lfu, allkeys-random, \
                     noeviction",
                )?;
            Ok(Box::new(move |shared| shared.keyspace.set_eviction_policy(policy)))
        }),
    },
    fixed("port", |shared| shared.address.port().to_string()),
    Parameter {
        name: "proto-max-bulk-len",
        get: |shared| shared.settings.bulk_bytes_max.get().to_string(),
        set: Some(|value| {
            let bytes = size(value)?;
            if !(1024 * 1024..=BULK_BYTES_LIMIT).contains(&bytes) {
                return Err("argument must be between 1048576 and 536870912 inclusive");
            }
            Ok(Box::new(move |shared| shared.settings.bulk_bytes_max.set(bytes)))
        }),
    },
    // Whether there is a password may be known; which, not.
    fixed("requirepass", |shared| {
        if shared.credentials.are_required() { "<redacted>".to_owned() } else { String::new() }
    }),
    fixed("save", |_| String::new()),
    Parameter {
        name: "timeout",
        get: |shared| {
            shared.settings.idle_timeout().map_or(0, |timeout| timeout.as_secs()).to_string()
        },
        set: Some(|value| {
            let seconds = integer(value, 0, i64::from(i32::MAX))?;
            let timeout = (seconds > 0).then(|| Duration::from_secs(seconds as u64));
            Ok(Box::new(move |shared| shared.settings.set_idle_timeout(timeout)))
        }),
    },
];

const fn fixed(name: &'static str, get: fn(&Shared) -> String) -> Parameter {
    Parameter { name, get, set: None }
}

pub(super) fn help(session: &mut Session, _: &[&[u8]], reply: &mut Reply) {
    super::introspection::write_help(session.shared.table, b"config", reply);
}

fn reset_statistics(session: &mut Session, _: &[&[u8]], reply: &mut Reply) {
    session.shared.reset_statistics();
    session.shared.keyspace.reset_statistics();
    reply.ok();
}

fn get(session: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    let mut found: Vec<(&[u8], &Parameter)> = Vec::new();
    for pattern in &arguments[2..] {
        let folded = pattern.to_ascii_lowercase();
        for parameter in PARAMETERS {
            let name = parameter.name.as_bytes();
            let is_new = !found.iter().any(|(_, other)| other.name == parameter.name);
            if is_new && glob_matches(&folded, name) {
                // Who asks by name finds the name as it was written.
                found.push((if folded == name { pattern } else { name }, parameter));
            }
        }
    }
    reply.map(found.len());
    for (name, parameter) in found {
        reply.bulk(name);
        reply.bulk((parameter.get)(&session.shared).as_bytes());
    }
}

fn set(session: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    let pairs = &arguments[2..];
    if !pairs.len().is_multiple_of(2) {
        reply.error("ERR syntax error");
        return;
    }
    match changes(pairs) {
        Ok(changes) => {
            for change in changes {
                change(&session.shared);
            }
            reply.ok();
        }
        Err(error) => reply.error(&error),
    }
}

/// What these parameters and values change: all of them or, if one is wrong,
/// nothing.
fn changes(pairs: &[&[u8]]) -> Result<Vec<Change>, String> {
    let mut seen: Vec<&str> = Vec::new();
    let mut changes = Vec::new();
    for pair in pairs.chunks_exact(2) {
        let name = pair[0].to_ascii_lowercase();
        let Some(parameter) = PARAMETERS.iter().find(|parameter| parameter.name.as_bytes() == name)
        else {
            let name = String::from_utf8_lossy(pair[0]);
            return Err(format!(
                "ERR Unknown option or number of arguments for CONFIG SET - '{name}'"
            ));
        };
        let failed = |why| {
            format!(
                "ERR CONFIG SET failed (possibly related to argument '{}') - {why}",
                parameter.name
            )
        };
        if seen.contains(&parameter.name) {
            return Err(failed("duplicate parameter"));
        }
        seen.push(parameter.name);
        let set = parameter.set.ok_or_else(|| failed("can't set immutable config"))?;
        changes.push(set(pair[1]).map_err(failed)?);
    }
    Ok(changes)
}

fn integer(value: &[u8], min: i64, max: i64) -> Result<i64, &'static str> {
    let integer = parse_integer(value).ok_or(NOT_AN_INTEGER)?;
    if (min..=max).contains(&integer) {
        Ok(integer)
    } else if min == 0 {
        Err("argument must be between 0 and 2147483647 inclusive")
    } else {
        Err("argument must be between 1 and 1000000 inclusive")
    }
}

/// A number of bytes with a unit as Redis knows them: `k` is 1000 and `kb`
/// 1024.
fn size(value: &[u8]) -> Result<usize, &'static str> {
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, unit) = value.split_at(digits);
    let factor: usize = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return Err(NOT_A_SIZE),
    };
    parse_integer(digits)
        .and_then(|number| usize::try_from(number).ok())
        .and_then(|number| number.checked_mul(factor))
        .ok_or(NOT_A_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_units_of_redis() {
        for (text, bytes) in [
            ("0", 0),
            ("100", 100),
            ("1k", 1000),
            ("1kb", 1024),
            ("2MB", 2 << 20),
            ("3gb", 3 << 30),
        ] {
            assert_eq!(size(text.as_bytes()), Ok(bytes), "{text}");
        }
        for text in ["", "kb", "-1", "1x", "1 kb", "99999999999999999999", "99999999999gb"] {
            assert_eq!(size(text.as_bytes()), Err(NOT_A_SIZE), "{text}");
        }
    }

    #[test]
    fn one_wrong_parameter_changes_nothing() {
        let error = |pairs: &[&[u8]]| changes(pairs).err().expect("the change is refused");
        assert!(error(&[b"maxclients", b"5", b"port", b"1"]).contains("can't set immutable"));
        assert!(error(&[b"maxclients", b"5", b"MAXCLIENTS", b"6"]).contains("duplicate"));
        assert!(error(&[b"maxclients", b"five"]).contains("integer"));
        assert!(error(&[b"nothing", b"5"]).contains("Unknown option"));
        assert!(error(&[b"proto-max-bulk-len", b"1gb"]).contains("between"));
    }

    #[test]
    fn parameters_are_in_order_and_unique() {
        assert!(PARAMETERS.windows(2).all(|pair| pair[0].name < pair[1].name));
    }
}
