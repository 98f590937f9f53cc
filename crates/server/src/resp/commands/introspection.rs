//! `COMMAND`: what commands there are. Everything here derives from the table.

use super::super::Reply;
use super::super::command::{Command, Group, Handler, KeySpec, OnCache};
use super::super::session::Session;
use super::super::table::{Entry, Table};
use crate::keyspace::glob_matches;

/// What all of these have in common.
const COMMAND: Command = Command {
    name: "",
    arity: 2,
    syntax: "",
    summary: "",
    group: Group::Server,
    since: "2.8.13",
    complexity: "O(N) where N is the number of commands to look up",
    flags: &["loading", "stale"],
    keys: KeySpec::NONE,
    on_cache: OnCache::NoKeys,
    handler: Handler::Session(help),
};

pub(super) const SUBCOMMANDS: &[Command] = &[
    Command {
        name: "command|count",
        summary: "Returns a count of commands.",
        complexity: "O(1)",
        handler: Handler::Session(count),
        ..COMMAND
    },
    Command {
        name: "command|docs",
        arity: -2,
        syntax: "[command-name [command-name ...]]",
        summary: "Returns documentary information about commands.",
        since: "7.0.0",
        handler: Handler::Session(docs),
        ..COMMAND
    },
    Command {
        name: "command|getkeys",
        arity: -4,
        syntax: "command [argument ...]",
        summary: "Extracts the key names from an arbitrary command.",
        complexity: "O(N) where N is the number of arguments to the command",
        handler: Handler::Session(get_keys),
        ..COMMAND
    },
    Command {
        name: "command|help",
        summary: "Returns helpful text about the subcommands.",
        since: "5.0.0",
        complexity: "O(1)",
        handler: Handler::Session(help),
        ..COMMAND
    },
    Command {
        name: "command|info",
        arity: -2,
        syntax: "[command-name [command-name ...]]",
        summary: "Returns information about commands.",
        handler: Handler::Session(info),
        ..COMMAND
    },
    Command {
        name: "command|list",
        arity: -2,
        syntax: "[FILTERBY MODULE module-name|ACLCAT category|PATTERN pattern]",
        summary: "Returns a list of command names.",
        since: "7.0.0",
        complexity: "O(N) where N is the total number of commands",
        handler: Handler::Session(list),
        ..COMMAND
    },
];

/// Writes the help of a command with subcommands.
pub(super) fn write_help(table: &Table, container: &[u8], reply: &mut Reply) {
    let Some(entry) = table.find_command(container) else {
        reply.error("ERR there is no such command");
        return;
    };
    let name = entry.command.name.to_uppercase();
    let subcommands = table.subcommands(entry);
    reply.array(1 + subcommands.len() * 2);
    reply.simple(&format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for subcommand in subcommands {
        let command = &subcommand.command;
        let own_name = command.name[name.len() + 1..].to_uppercase();
        reply.simple(format!("{own_name} {}", command.syntax).trim_end());
        reply.simple(&format!("    {}", command.summary));
    }
}

/// `COMMAND` without a subcommand.
pub(super) fn all(session: &mut Session, _: &[&[u8]], reply: &mut Reply) {
    let table = session.shared.table;
    reply.array(table.commands().len());
    for entry in table.commands() {
        write_info(table, entry, reply);
    }
}

fn help(session: &mut Session, _: &[&[u8]], reply: &mut Reply) {
    write_help(session.shared.table, b"command", reply);
}

fn count(session: &mut Session, _: &[&[u8]], reply: &mut Reply) {
    reply.integer(session.shared.table.commands().len() as i64);
}

fn info(session: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    let table = session.shared.table;
    let names = &arguments[2..];
    if names.is_empty() {
        all(session, arguments, reply);
        return;
    }
    reply.array(names.len());
    for name in names {
        match table.find_by_full_name(name) {
            Some(entry) => write_info(table, entry, reply),
            None => reply.null(),
        }
    }
}

fn docs(session: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    let table = session.shared.table;
    let names = &arguments[2..];
    let entries: Vec<&Entry> = if names.is_empty() {
        table.commands().iter().collect()
    } else {
        names.iter().filter_map(|name| table.find_by_full_name(name)).collect()
    };
    reply.map(entries.len());
    for entry in entries {
        reply.bulk(entry.command.name.as_bytes());
        write_docs(table, entry, reply);
    }
}

fn list(session: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    let entries = session.shared.table.entries().iter();
    let names: Vec<&str> = match arguments[2..] {
        [] => entries.map(|entry| entry.command.name).collect(),
        [filterby, kind, value] if filterby.eq_ignore_ascii_case(b"filterby") => {
            let value = value.to_ascii_lowercase();
            let is_kept: Box<dyn Fn(&Command) -> bool> = match kind.to_ascii_lowercase().as_slice()
            {
                // Larder has no modules.
                b"module" => Box::new(|_| false),
                b"aclcat" => {
                    Box::new(|command| categories(command).iter().any(|it| it.as_bytes() == value))
                }
                b"pattern" => Box::new(|command| glob_matches(&value, command.name.as_bytes())),
                _ => {
                    reply.error("ERR syntax error");
                    return;
                }
            };
            entries.map(|entry| &entry.command).filter(|it| is_kept(it)).map(|it| it.name).collect()
        }
        _ => {
            reply.error("ERR syntax error");
            return;
        }
    };
    reply.array(names.len());
    for name in names {
        reply.bulk(name.as_bytes());
    }
}

fn get_keys(session: &mut Session, arguments: &[&[u8]], reply: &mut Reply) {
    let call = &arguments[2..];
    let Ok(entry) = session.shared.table.find(call) else {
        reply.error("ERR Invalid command specified");
        return;
    };
    if entry.command.keys == KeySpec::NONE {
        reply.error("ERR The command has no key arguments");
        return;
    }
    if !entry.takes(call.len()) {
        reply.error("ERR Invalid number of arguments specified for command");
        return;
    }
    let keys: Vec<&[u8]> =
        entry.command.keys.positions(call.len()).map(|place| call[place]).collect();
    if keys.is_empty() {
        reply.error("ERR Invalid arguments specified for command");
        return;
    }
    reply.array(keys.len());
    for key in keys {
        reply.bulk(key);
    }
}

/// What `COMMAND INFO` says about one command: ten elements.
fn write_info(table: &Table, entry: &Entry, reply: &mut Reply) {
    let command = &entry.command;
    reply.array(10);
    reply.bulk(command.name.as_bytes());
    reply.integer(i64::from(command.arity));
    reply.set(command.flags.len());
    for flag in command.flags {
        reply.simple(flag);
    }
    let keys = command.keys;
    reply.integer(keys.first as i64);
    reply.integer(i64::from(keys.last));
    reply.integer(if keys == KeySpec::NONE { 0 } else { keys.step as i64 });
    let categories = categories(command);
    reply.set(categories.len());
    for category in categories {
        reply.simple(&format!("@{category}"));
    }
    // Hints for clusters and proxies, of which there are none.
    reply.set(0);
    write_key_specification(command, reply);
    let subcommands = table.subcommands(entry);
    reply.set(subcommands.len());
    for subcommand in subcommands {
        write_info(table, subcommand, reply);
    }
}

/// Where the keys are, in the words of Redis 7: they begin at an index and form
/// a range.
fn write_key_specification(command: &Command, reply: &mut Reply) {
    let keys = command.keys;
    if keys == KeySpec::NONE {
        reply.set(0);
        return;
    }
    let last = if keys.last < 0 { keys.last } else { keys.last - keys.first as i32 };
    let access: &[&str] =
        if command.flags.contains(&"write") { &["RW", "update"] } else { &["RO", "access"] };
    reply.set(1);
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(access.len());
    for flag in access {
        reply.simple(flag);
    }
    reply.bulk(b"begin_search");
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(b"index");
    reply.bulk(b"spec");
    reply.map(1);
    reply.bulk(b"index");
    reply.integer(keys.first as i64);
    reply.bulk(b"find_keys");
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(b"range");
    reply.bulk(b"spec");
    reply.map(3);
    reply.bulk(b"lastkey");
    reply.integer(i64::from(last));
    reply.bulk(b"keystep");
    reply.integer(keys.step as i64);
    reply.bulk(b"limit");
    reply.integer(0);
}

/// What `COMMAND DOCS` says about one command.
fn write_docs(table: &Table, entry: &Entry, reply: &mut Reply) {
    let command = &entry.command;
    let subcommands = table.subcommands(entry);
    reply.map(if subcommands.is_empty() { 4 } else { 5 });
    for (name, text) in [
        ("summary", command.summary),
        ("since", command.since),
        ("group", command.group.name()),
        ("complexity", command.complexity),
    ] {
        reply.bulk(name.as_bytes());
        reply.bulk(text.as_bytes());
    }
    if !subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(subcommands.len());
        for subcommand in subcommands {
            reply.bulk(subcommand.command.name.as_bytes());
            write_docs(table, subcommand, reply);
        }
    }
}

/// The categories that Redis' access control would put the command into, in the
/// order in which Redis gives them.
fn categories(command: &Command) -> Vec<&'static str> {
    let has = |flag| command.flags.contains(&flag);
    let is_admin = has("admin");
    let is_sweeping = command.name == "keys" || command.name.starts_with("flush");
    [
        ("keyspace", command.group == Group::Generic || is_sweeping),
        ("read", has("readonly")),
        ("write", has("write")),
        ("string", command.group == Group::String),
        ("admin", is_admin),
        ("fast", has("fast")),
        ("slow", !has("fast")),
        ("dangerous", is_admin || is_sweeping),
        ("connection", command.group == Group::Connection),
        ("transaction", command.group == Group::Transactions),
    ]
    .into_iter()
    .filter_map(|(category, is_in)| is_in.then_some(category))
    .collect()
}
