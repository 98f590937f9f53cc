//! Commands about the connection itself.

use super::super::command::{Command, Group, Handler, KeySpec, OnCache};
use super::super::session::{Replies, Session};
use super::super::{Protocol, Reply};
use super::client::{self, INVALID_NAME};
use super::server::REDIS_VERSION;
use crate::keyspace::parse_integer;

/// What all of these have in common.
const CONNECTION: Command = Command {
    name: "",
    arity: 0,
    syntax: "",
    summary: "",
    group: Group::Connection,
    since: "1.0.0",
    complexity: "O(1)",
    flags: &[],
    keys: KeySpec::NONE,
    on_cache: OnCache::NoKeys,
    handler: Handler::Session(ping),
};

const NO_AUTH: &[&str] = &["noscript", "loading", "stale", "fast", "no_auth", "allow_busy"];

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "auth",
        arity: -2,
        syntax: "[username] password",
        summary: "Authenticates the connection.",
        flags: NO_AUTH,
        handler: Handler::Session(auth),
        ..CONNECTION
    },
    Command {
        name: "client",
        arity: -2,
        syntax: "subcommand [argument ...]",
        summary: "A container for client connection commands.",
        since: "2.4.0",
        complexity: "Depends on subcommand.",
        handler: Handler::Session(client::help),
        ..CONNECTION
    },
    Command {
        name: "echo",
        arity: 2,
        syntax: "message",
        summary: "Returns the given string.",
        flags: &["loading", "stale", "fast"],
        handler: Handler::Session(echo),
        ..CONNECTION
    },
    Command {
        name: "hello",
        arity: -1,
        syntax: "[protover [AUTH username password] [SETNAME clientname]]",
        summary: "Handshakes with the server: protocol, authentication, name.",
        since: "6.0.0",
        flags: NO_AUTH,
        handler: Handler::Session(hello),
        ..CONNECTION
    },
    Command {
        name: "ping",
        arity: -1,
        syntax: "[message]",
        summary: "Returns PONG, or the message.",
        flags: &["fast"],
        handler: Handler::Session(ping),
        ..CONNECTION
    },
    Command {
        name: "quit",
        arity: -1,
        summary: "Closes the connection.",
        flags: NO_AUTH,
        handler: Handler::Session(quit),
        ..CONNECTION
    },
    Command {
        name: "reset",
        arity: 1,
        summary: "Resets the connection to what it was when it began.",
        since: "6.2.0",
        flags: NO_AUTH,
        handler: Handler::Session(reset),
        ..CONNECTION
    },
    Command {
        name: "select",
        arity: 2,
        syntax: "index",
        summary: "Changes the selected database; there is one, with the index 0.",
        flags: &["loading", "stale", "fast"],
        handler: Handler::Session(select),
        ..CONNECTION
    },
];

fn ping(_: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    match *arguments {
        [_] => reply.simple("PONG"),
        [_, message] => reply.bulk(message),
        _ => reply.error("ERR wrong number of arguments for 'ping' command"),
    }
}

fn echo(_: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    reply.bulk(arguments[1]);
}

fn quit(session: &mut Session, _: &[&[u8]], reply: &mut Reply) {
    session.is_closing = true;
    reply.ok();
}

fn select(_: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    match parse_integer(arguments[1]) {
        Some(0) => reply.ok(),
        Some(index) if i32::try_from(index).is_ok() => reply.error("ERR DB index is out of range"),
        Some(_) => {
            reply.error("ERR value is out of range, value must between -2147483648 and 2147483647");
        }
        None => reply.error("ERR value is not an integer or out of range"),
    }
}

fn reset(session: &mut Session, _: &[&[u8]], reply: &mut Reply) {
    session.transaction.discard();
    session.client.set_queued(None);
    session.client.set_watched(0);
    session.client.label().name.clear();
    session.client.set_protocol(Protocol::Resp2);
    session.client.set_evictable(true);
    session.client.set_touching(true);
    session.forget_user();
    session.replies = Replies::On;
    session.is_labelling = false;
    reply.set_protocol(Protocol::Resp2);
    reply.simple("RESET");
}

fn auth(session: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    let (name, password) = match *arguments {
        [_, password] => {
            if !session.shared.credentials.has_default_password() {
                reply.error(
                    "ERR AUTH <password> called without any password configured for the default \
                     user. Are you sure your configuration is correct?",
                );
                return;
            }
            (None, password)
        }
        [_, name, password] => (Some(name), password),
        _ => {
            reply.error("ERR syntax error");
            return;
        }
    };
    if authenticate(session, name, password, reply) {
        reply.ok();
    }
}

/// Whether the password was right; if not, that is the reply.
fn authenticate(
    session: &mut Session,
    name: Option<&[u8]>,
    password: &[u8],
    reply: &mut Reply,
) -> bool {
    let Some(user) = session.shared.credentials.verify(name, password) else {
        tracing::info!(peer = %session.client.peer(), "a client gave a wrong user or password");
        reply.error("WRONGPASS invalid username-password pair or user is disabled.");
        return false;
    };
    session.is_trusted = true;
    session.client.label().user = Some(user);
    true
}

/// What a client asks for in `HELLO`.
#[derive(Default)]
struct Hello<'a> {
    protocol: Option<Protocol>,
    credentials: Option<(&'a [u8], &'a [u8])>,
    name: Option<&'a [u8]>,
}

fn hello(session: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    let asked = match parse_hello(arguments) {
        Ok(asked) => asked,
        Err(error) => {
            reply.error(&error);
            return;
        }
    };
    if let Some((user, password)) = asked.credentials
        && !authenticate(session, Some(user), password, reply)
    {
        return;
    }
    if !session.is_trusted {
        reply.error(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
             HELLO AUTH <user> <pass> option can be used to authenticate the client and \
             select the RESP protocol version at the same time",
        );
        return;
    }
    if let Some(name) = asked.name {
        session.client.label().name = String::from_utf8_lossy(name).into_owned();
    }
    if let Some(protocol) = asked.protocol {
        reply.set_protocol(protocol);
        session.client.set_protocol(protocol);
        session.is_labelling &= protocol == Protocol::Resp3;
    }
    introduce(session, reply);
}

fn parse_hello<'a>(arguments: &[&'a [u8]]) -> Result<Hello<'a>, String> {
    let mut asked = Hello::default();
    let Some((version, mut options)) = arguments[1..].split_first() else { return Ok(asked) };
    asked.protocol = Some(match parse_integer(version) {
        Some(2) => Protocol::Resp2,
        Some(3) => Protocol::Resp3,
        Some(_) => return Err("NOPROTO unsupported protocol version".to_owned()),
        None => return Err("ERR Protocol version is not an integer or out of range".to_owned()),
    });
    loop {
        options = match *options {
            [] => return Ok(asked),
            [option, user, password, ref rest @ ..] if option.eq_ignore_ascii_case(b"auth") => {
                asked.credentials = Some((user, password));
                rest
            }
            [option, name, ref rest @ ..] if option.eq_ignore_ascii_case(b"setname") => {
                if !client::is_name(name) {
                    return Err(INVALID_NAME.to_owned());
                }
                asked.name = Some(name);
                rest
            }
            [option, ..] => {
                let option = String::from_utf8_lossy(option);
                return Err(format!("ERR Syntax error in HELLO option '{option}'"));
            }
        };
    }
}

/// Says what this server is.
fn introduce(session: &Session, reply: &mut Reply) {
    reply.map(7);
    reply.bulk(b"server");
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk(REDIS_VERSION.as_bytes());
    reply.bulk(b"proto");
    reply.integer(match reply.protocol() {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    });
    reply.bulk(b"id");
    reply.integer(session.client.id() as i64);
    reply.bulk(b"mode");
    reply.bulk(b"standalone");
    reply.bulk(b"role");
    reply.bulk(b"master");
    reply.bulk(b"modules");
    reply.array(0);
}
