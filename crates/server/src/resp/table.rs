//! Finds a command by its name: one look at a table built once.

use std::ops::Range;
use std::sync::LazyLock;

use super::cached::CachedRead;
use super::command::{Command, Handler};
use super::commands;
use super::written::CachedWrite;

/// Names are at most this long, so that one fits into a `u128`.
const NAME_BYTES_MAX: usize = 16;

/// More than twice as many slots as commands keeps the chains short.
const SLOTS: usize = 512;

/// Commands that read or destroy everything.
const DANGEROUS: [&str; 3] = ["keys", "flushall", "flushdb"];

/// One command and what dispatch needs to know of it, worked out beforehand.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) command: Command,
    /// Its place in the table.
    pub(crate) index: u16,
    /// The places of its subcommands; empty for most.
    pub(crate) subcommands: Range<usize>,
    /// How it reads keys of a cache, if it can.
    pub(crate) cached: Option<CachedRead>,
    /// How it writes keys of a cache, if it can.
    pub(crate) written: Option<CachedWrite>,
    /// The short way to run it on a plain key, if there is one.
    pub(crate) shortcut: Option<Shortcut>,
    /// Whether a client that has not authenticated may call it.
    pub(crate) is_open: bool,
    /// Whether `MULTI` queues it.
    pub(crate) is_queued: bool,
    /// Whether it may not be called inside `MULTI` at all.
    pub(crate) is_barred_in_multi: bool,
    /// Whether it runs only if the configuration names it.
    pub(crate) is_dangerous: bool,
}

/// A way to run one of the commands that matter most with a single look at the
/// keyspace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shortcut {
    /// `GET key`.
    Get,
    /// `SET key value`, if it has no options.
    Set,
}

/// Every command.
#[derive(Debug)]
pub(crate) struct Table {
    entries: Vec<Entry>,
    /// How many of the entries are commands; the subcommands stand behind them.
    commands_count: usize,
    slots: Box<[Slot]>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    name: u128,
    /// The place of the entry plus one; 0 in an empty slot.
    entry: u16,
}

/// Why there is no entry for a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unknown {
    Command,
    Subcommand,
}

static TABLE: LazyLock<Table> = LazyLock::new(Table::new);

impl Table {
    /// The one table.
    pub(crate) fn get() -> &'static Self {
        &TABLE
    }

    /// Every command, without the subcommands.
    pub(crate) fn commands(&self) -> &[Entry] {
        &self.entries[..self.commands_count]
    }

    /// Every command and, behind them, every subcommand.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The subcommands of a command.
    pub(crate) fn subcommands(&self, entry: &Entry) -> &[Entry] {
        &self.entries[entry.subcommands.clone()]
    }

    /// The entry for these arguments, of which there is at least one. A command
    /// with subcommands called without any is itself the answer: its arity
    /// refuses the call.
    #[inline]
    pub(crate) fn find(&self, arguments: &[&[u8]]) -> Result<&Entry, Unknown> {
        let entry = self.find_command(arguments[0]).ok_or(Unknown::Command)?;
        match arguments.get(1) {
            Some(name) if !entry.subcommands.is_empty() => {
                self.find_subcommand(entry, name).ok_or(Unknown::Subcommand)
            }
            _ => Ok(entry),
        }
    }

    /// The command with this name, in whatever case.
    #[inline]
    pub(crate) fn find_command(&self, name: &[u8]) -> Option<&Entry> {
        let folded = fold(name)?;
        let mut place = hash(folded);
        loop {
            let slot = self.slots[place % SLOTS];
            if slot.entry == 0 {
                return None;
            }
            if slot.name == folded {
                let entry = &self.entries[usize::from(slot.entry) - 1];
                // Equal but for NULs at the end is not equal.
                return (entry.command.name.len() == name.len()).then_some(entry);
            }
            place += 1;
        }
    }

    /// The command with this name, with a subcommand joined by `|` if there is
    /// one, as `COMMAND INFO` takes it.
    pub(crate) fn find_by_full_name(&self, name: &[u8]) -> Option<&Entry> {
        let Some(bar) = name.iter().position(|&byte| byte == b'|') else {
            return self.find_command(name);
        };
        self.find_subcommand(self.find_command(&name[..bar])?, &name[bar + 1..])
    }

    fn find_subcommand(&self, entry: &Entry, name: &[u8]) -> Option<&Entry> {
        self.subcommands(entry).iter().find(|subcommand| {
            let full_name = subcommand.command.name.as_bytes();
            full_name[entry.command.name.len() + 1..].eq_ignore_ascii_case(name)
        })
    }

    fn new() -> Self {
        let commands = commands::all();
        let mut entries: Vec<Entry> = commands.iter().map(|command| Entry::new(*command)).collect();
        for (container, subcommands) in commands::SUBCOMMANDS {
            let first = entries.len();
            entries.extend(subcommands.iter().map(|command| Entry::new(*command)));
            let places = first..entries.len();
            let container = entries
                .iter_mut()
                .find(|entry| entry.command.name == *container)
                .expect("subcommands belong to a command of the table");
            container.subcommands = places;
        }
        let mut slots = vec![Slot { name: 0, entry: 0 }; SLOTS].into_boxed_slice();
        for (index, entry) in entries.iter_mut().enumerate() {
            entry.index = index as u16;
            if index >= commands.len() {
                continue;
            }
            let name = fold(entry.command.name.as_bytes())
                .expect("names of commands have 1 to 16 bytes; a test holds the table to that");
            let mut place = hash(name);
            while slots[place % SLOTS].entry != 0 {
                place += 1;
            }
            slots[place % SLOTS] = Slot { name, entry: index as u16 + 1 };
        }
        Self { entries, commands_count: commands.len(), slots }
    }
}

impl Entry {
    fn new(command: Command) -> Self {
        let has = |flag| command.flags.contains(&flag);
        Self {
            command,
            index: 0,
            subcommands: 0..0,
            written: CachedWrite::of(command.name),
            cached: CachedRead::of(command.name),
            shortcut: match command.name {
                "get" => Some(Shortcut::Get),
                "set" => Some(Shortcut::Set),
                _ => None,
            },
            is_open: has("no_auth"),
            is_queued: !matches!(
                command.name,
                "multi" | "exec" | "discard" | "watch" | "quit" | "reset"
            ),
            is_barred_in_multi: has("no_multi"),
            is_dangerous: DANGEROUS.contains(&command.name),
        }
    }

    /// Whether this many arguments, the name included, are acceptable.
    #[inline]
    pub(crate) fn takes(&self, arguments_count: usize) -> bool {
        let arity = self.command.arity;
        let wanted = arity.unsigned_abs() as usize;
        if arity < 0 { arguments_count >= wanted } else { arguments_count == wanted }
    }
}

/// The name in lower case as a number; `None` if it is too long to be one.
#[inline]
fn fold(name: &[u8]) -> Option<u128> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return None;
    }
    let mut bytes = [0; NAME_BYTES_MAX];
    bytes[..name.len()].copy_from_slice(name);
    bytes.make_ascii_lowercase();
    Some(u128::from_le_bytes(bytes))
}

#[inline]
fn hash(name: u128) -> usize {
    // Multiplication mixes upwards, so the place is taken from the top bits.
    let mixed =
        (name as u64 ^ ((name >> 64) as u64).rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (64 - SLOTS.ilog2())) as usize
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Command").field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handler")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::resp::command::OnCache;

    #[test]
    fn every_command_is_found_in_any_case_and_nothing_else_is() {
        let table = Table::get();
        assert!(table.commands().len() * 2 < SLOTS, "the table of slots must grow");
        for entry in table.commands() {
            let name = entry.command.name;
            assert_eq!(name, name.to_lowercase());
            for name in [name.to_owned(), name.to_uppercase()] {
                let found = table.find_command(name.as_bytes()).expect("it is in the table");
                assert_eq!(found.index, entry.index, "{name}");
            }
            assert!(table.find_command(format!("{name}\0").as_bytes()).is_none());
        }
        for name in ["", "ge", "getx", "a-name-far-too-long-to-be-one"] {
            assert!(table.find_command(name.as_bytes()).is_none(), "{name}");
        }
    }

    #[test]
    fn names_are_unique_and_every_entry_is_described() {
        let mut names = HashSet::new();
        for entry in Table::get().entries() {
            let command = &entry.command;
            assert!(names.insert(command.name), "{} is there twice", command.name);
            assert!(!command.summary.is_empty(), "{}", command.name);
            assert_ne!(command.arity, 0, "{}", command.name);
            let has_keys = command.keys.first != 0;
            assert_eq!(has_keys, command.on_cache != OnCache::NoKeys, "{}", command.name);
        }
    }

    #[test]
    fn every_command_that_may_read_a_cache_can() {
        for entry in Table::get().entries() {
            let reads = matches!(entry.command.on_cache, OnCache::Read | OnCache::Inspect);
            assert_eq!(reads, entry.cached.is_some(), "{}", entry.command.name);
        }
    }
}
