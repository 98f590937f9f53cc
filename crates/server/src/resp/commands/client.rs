//! `CLIENT` and its subcommands.

use std::net::SocketAddr;
use std::sync::Arc;

use super::super::Reply;
use super::super::client::Client;
use super::super::command::{Command, Group, Handler, KeySpec, OnCache};
use super::super::session::{Replies, Session};
use crate::keyspace::parse_integer;

const SYNTAX_ERROR: &str = "ERR syntax error";
pub(super) const INVALID_NAME: &str =
    "ERR Client names cannot contain spaces, newlines or special characters.";

/// What all of these have in common.
const CLIENT: Command = Command {
    name: "",
    arity: 2,
    syntax: "",
    summary: "",
    group: Group::Connection,
    since: "2.4.0",
    complexity: "O(1)",
    flags: &["noscript", "loading", "stale"],
    keys: KeySpec::NONE,
    on_cache: OnCache::NoKeys,
    handler: Handler::Session(help),
};

/// For subcommands that see or end other clients.
const ADMIN: &[&str] = &["admin", "noscript", "loading", "stale"];

pub(super) const SUBCOMMANDS: &[Command] = &[
    Command {
        name: "client|getname",
        summary: "Returns the name of the connection.",
        since: "2.6.9",
        handler: Handler::Session(get_name),
        ..CLIENT
    },
    Command {
        name: "client|getredir",
        summary: "Returns the client to which invalidations are redirected: none, -1.",
        since: "6.0.0",
        handler: Handler::Session(get_redirection),
        ..CLIENT
    },
    Command {
        name: "client|help",
        summary: "Returns helpful text about the subcommands.",
        since: "5.0.0",
        flags: &["loading", "stale"],
        handler: Handler::Session(help),
        ..CLIENT
    },
    Command {
        name: "client|id",
        summary: "Returns the number of the connection.",
        since: "5.0.0",
        handler: Handler::Session(id),
        ..CLIENT
    },
    Command {
        name: "client|info",
        summary: "Returns what is known about the connection.",
        since: "6.2.0",
        handler: Handler::Session(info),
        ..CLIENT
    },
    Command {
        name: "client|kill",
        arity: -3,
        syntax: "address | [ID client-id] [TYPE type] [USER username] [ADDR address] \
                 [LADDR address] [SKIPME YES|NO]",
        summary: "Ends connections.",
        complexity: "O(N) where N is the number of client connections",
        flags: ADMIN,
        handler: Handler::Session(kill),
        ..CLIENT
    },
    Command {
        name: "client|list",
        arity: -2,
        syntax: "[TYPE type] [ID client-id [client-id ...]]",
        summary: "Lists open connections.",
        complexity: "O(N) where N is the number of client connections",
        flags: ADMIN,
        handler: Handler::Session(list),
        ..CLIENT
    },
    Command {
        name: "client|no-evict",
        arity: 3,
        syntax: "ON|OFF",
        summary: "Notes whether the connection may be evicted.",
        since: "7.0.0",
        flags: ADMIN,
        handler: Handler::Session(no_evict),
        ..CLIENT
    },
    Command {
        name: "client|no-touch",
        arity: 3,
        syntax: "ON|OFF",
        summary: "Notes whether the connection's commands count as uses of keys.",
        since: "7.2.0",
        handler: Handler::Session(no_touch),
        ..CLIENT
    },
    Command {
        name: "client|reply",
        arity: 3,
        syntax: "ON|OFF|SKIP",
        summary: "Tells the server whether to reply.",
        since: "3.2.0",
        handler: Handler::Session(set_replies),
        ..CLIENT
    },
    Command {
        name: "client|setinfo",
        arity: 4,
        syntax: "LIB-NAME libname | LIB-VER libver",
        summary: "Sets what is known about the client's library.",
        since: "7.2.0",
        handler: Handler::Session(set_info),
        ..CLIENT
    },
    Command {
        name: "client|setname",
        arity: 3,
        syntax: "connection-name",
        summary: "Sets the name of the connection.",
        since: "2.6.9",
        handler: Handler::Session(set_name),
        ..CLIENT
    },
    Command {
        name: "client|unblock",
        arity: -3,
        syntax: "client-id [TIMEOUT|ERROR]",
        summary: "Unblocks a client; none is ever blocked here.",
        since: "5.0.0",
        flags: ADMIN,
        handler: Handler::Session(unblock),
        ..CLIENT
    },
];

/// The help, which derives from the table.
pub(super) fn help(session: &mut Session, _: &[&[u8]], reply: &mut Reply) {
    super::introspection::write_help(session.shared.table, b"client", reply);
}

/// Whether this may be the name of a connection: no white space, nothing
/// unprintable.
pub(super) fn is_name(name: &[u8]) -> bool {
    name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

fn get_name(session: &mut Session, _: &[&[u8]], reply: &mut Reply) {
    match session.client.label().name.as_str() {
        "" => reply.null(),
        name => reply.bulk(name.as_bytes()),
    }
}

fn set_name(session: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    if !is_name(arguments[2]) {
        reply.error(INVALID_NAME);
        return;
    }
    session.client.label().name = String::from_utf8_lossy(arguments[2]).into_owned();
    reply.ok();
}

fn set_info(session: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    let option = arguments[2].to_ascii_lowercase();
    let mut label = session.client.label();
    let field = match option.as_slice() {
        b"lib-name" => &mut label.library_name,
        b"lib-ver" => &mut label.library_version,
        _ => {
            let option = String::from_utf8_lossy(arguments[2]);
            reply.error(&format!("ERR Unrecognized option '{option}'"));
            return;
        }
    };
    if !is_name(arguments[3]) {
        let option = String::from_utf8_lossy(&option);
        reply
            .error(&format!("ERR {option} cannot contain spaces, newlines or special characters."));
        return;
    }
    *field = String::from_utf8_lossy(arguments[3]).into_owned();
    reply.ok();
}

fn get_redirection(_: &mut Session, _: &[&[u8]], reply: &mut Reply) {
    reply.integer(-1);
}

fn id(session: &mut Session, _: &[&[u8]], reply: &mut Reply) {
    reply.integer(session.client.id() as i64);
}

fn info(session: &mut Session, _: &[&[u8]], reply: &mut Reply) {
    let line = describe(session, &session.client);
    reply.verbatim(&(line + "\n"));
}

fn list(session: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    let mut clients = session.shared.clients();
    match arguments[2..] {
        [] => {}
        [option, kind] if option.eq_ignore_ascii_case(b"type") => match is_normal(kind) {
            Some(true) => {}
            Some(false) => clients.clear(),
            None => {
                reply.error(&unknown_type(kind));
                return;
            }
        },
        [option, ref ids @ ..] if option.eq_ignore_ascii_case(b"id") && !ids.is_empty() => {
            let ids: Option<Vec<u64>> = ids
                .iter()
                .map(|id| parse_integer(id).and_then(|id| u64::try_from(id).ok()))
                .collect();
            let Some(ids) = ids else {
                reply.error("ERR Invalid client ID");
                return;
            };
            clients.retain(|client| ids.contains(&client.id()));
        }
        _ => {
            reply.error(SYNTAX_ERROR);
            return;
        }
    }
    let lines: String = clients.iter().map(|client| describe(session, client) + "\n").collect();
    reply.verbatim(&lines);
}

fn describe(session: &Session, client: &Client) -> String {
    let shared = &session.shared;
    client.describe(shared.clock.now(), |index| {
        shared.table.entries().get(usize::from(index)).map_or("NULL", |entry| entry.command.name)
    })
}

/// Which clients `CLIENT KILL` ends.
#[derive(Default)]
struct Victims {
    id: Option<u64>,
    user: Option<Vec<u8>>,
    address: Option<Vec<u8>>,
    local_address: Option<Vec<u8>>,
    /// Whether ordinary clients are meant at all; there are no others.
    is_normal: Option<bool>,
    spares_caller: bool,
}

fn kill(session: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    let is_old_form = arguments.len() == 3;
    let victims = if is_old_form {
        Victims { address: Some(arguments[2].to_vec()), ..Victims::default() }
    } else {
        match parse_victims(session, &arguments[2..]) {
            Ok(victims) => victims,
            Err(error) => {
                reply.error(&error);
                return;
            }
        }
    };
    let mut count = 0;
    for client in session.shared.clients() {
        let is_caller = Arc::ptr_eq(&client, &session.client);
        // Who was killed before may take a moment to leave.
        let is_gone = client.is_closing();
        if is_gone || !victims.includes(&client) || (is_caller && victims.spares_caller) {
            continue;
        }
        count += 1;
        if is_caller {
            // The reply still has to reach it.
            session.is_closing = true;
        } else {
            client.kill();
        }
    }
    match (is_old_form, count) {
        (true, 0) => reply.error("ERR No such client"),
        (true, _) => reply.ok(),
        (false, count) => reply.integer(count),
    }
}

fn parse_victims(session: &Session, mut options: &[&[u8]]) -> Result<Victims, String> {
    let mut victims = Victims { spares_caller: true, ..Victims::default() };
    while let [option, value, ref rest @ ..] = *options {
        match option.to_ascii_lowercase().as_slice() {
            b"id" => {
                let id =
                    parse_integer(value).and_then(|id| u64::try_from(id).ok()).filter(|&id| id > 0);
                victims.id = Some(id.ok_or("ERR client-id should be greater than 0")?);
            }
            b"type" => {
                victims.is_normal = Some(is_normal(value).ok_or_else(|| unknown_type(value))?);
            }
            b"user" => {
                if !session.shared.credentials.has_user(value) {
                    let user = String::from_utf8_lossy(value);
                    return Err(format!("ERR No such user '{user}'"));
                }
                victims.user = Some(value.to_vec());
            }
            b"addr" => victims.address = Some(value.to_vec()),
            b"laddr" => victims.local_address = Some(value.to_vec()),
            b"skipme" => {
                victims.spares_caller = match value.to_ascii_lowercase().as_slice() {
                    b"yes" => true,
                    b"no" => false,
                    _ => return Err(SYNTAX_ERROR.to_owned()),
                };
            }
            _ => return Err(SYNTAX_ERROR.to_owned()),
        }
        options = rest;
    }
    if options.is_empty() { Ok(victims) } else { Err(SYNTAX_ERROR.to_owned()) }
}

impl Victims {
    fn includes(&self, client: &Client) -> bool {
        let is_at = |wanted: &Option<Vec<u8>>, address: SocketAddr| {
            wanted.as_ref().is_none_or(|wanted| *wanted == address.to_string().as_bytes())
        };
        let is_user = |wanted: &Vec<u8>| {
            client.label().user.as_ref().is_some_and(|user| user.as_bytes() == wanted)
        };
        self.id.is_none_or(|id| id == client.id())
            && self.is_normal.unwrap_or(true)
            && is_at(&self.address, client.peer())
            && is_at(&self.local_address, client.local())
            && self.user.as_ref().is_none_or(is_user)
    }
}

/// Whether this type of client is the ordinary one; `None` if there is no such
/// type.
fn is_normal(kind: &[u8]) -> Option<bool> {
    match kind.to_ascii_lowercase().as_slice() {
        b"normal" => Some(true),
        b"slave" | b"replica" | b"pubsub" | b"master" => Some(false),
        _ => None,
    }
}

fn unknown_type(kind: &[u8]) -> String {
    format!("ERR Unknown client type '{}'", String::from_utf8_lossy(kind))
}

fn no_evict(session: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    match on_or_off(arguments[2]) {
        Some(is_on) => {
            session.client.set_evictable(!is_on);
            reply.ok();
        }
        None => reply.error(SYNTAX_ERROR),
    }
}

fn no_touch(session: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    match on_or_off(arguments[2]) {
        Some(is_on) => {
            session.client.set_touching(!is_on);
            reply.ok();
        }
        None => reply.error(SYNTAX_ERROR),
    }
}

pub(super) fn on_or_off(word: &[u8]) -> Option<bool> {
    match word.to_ascii_lowercase().as_slice() {
        b"on" => Some(true),
        b"off" => Some(false),
        _ => None,
    }
}

fn set_replies(session: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    match arguments[2].to_ascii_lowercase().as_slice() {
        b"on" => {
            session.replies = Replies::On;
            reply.ok();
        }
        b"off" => session.replies = Replies::Off,
        b"skip" => {
            if session.replies != Replies::Off {
                session.replies = Replies::SkipNext;
            }
        }
        _ => reply.error(SYNTAX_ERROR),
    }
}

fn unblock(_: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    let is_reason_known = match arguments[3..] {
        [] => true,
        [reason] => {
            reason.eq_ignore_ascii_case(b"timeout") || reason.eq_ignore_ascii_case(b"error")
        }
        _ => {
            reply.error(
                "ERR unknown subcommand or wrong number of arguments for 'UNBLOCK'. Try CLIENT \
                 HELP.",
            );
            return;
        }
    };
    if !is_reason_known {
        reply.error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
    } else if parse_integer(arguments[2]).is_none() {
        reply.error("ERR value is not an integer or out of range");
    } else {
        // No command here blocks.
        reply.integer(0);
    }
}
