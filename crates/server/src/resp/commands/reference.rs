//! The command reference of the guide, generated from the table.

use std::fmt::Write as _;

use super::super::command::{Command, Group, OnCache};
use super::super::table::{Entry, Table};
use super::super::written::CachedWrite;

/// Every command in Markdown, one section for each group.
#[must_use]
pub fn reference() -> String {
    let table = Table::get();
    let mut text = String::from(
        "# Commands\n\n\
         Generated from the table of commands. On keys of a cache, *reads* may load from the \
         database, *looks* means that only what is cached is looked at, *writes* that the \
         database is written where the cache takes writes, and *refused* that the command would \
         write what no cache takes.\n",
    );
    for group in Group::ALL {
        let entries: Vec<&Entry> =
            table.commands().iter().filter(|entry| entry.command.group == group).collect();
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\n## {}\n\n| command | what it does | since | cost | on keys of a cache |\n\
             |---|---|---|---|---|\n",
            group.title()
        );
        for entry in entries {
            write_row(&entry.command, &mut text);
            for subcommand in table.subcommands(entry) {
                write_row(&subcommand.command, &mut text);
            }
        }
    }
    text
}

fn write_row(command: &Command, text: &mut String) {
    let name = command.name.to_uppercase().replace('|', " ");
    let call = format!("{name} {}", command.syntax);
    let since = if command.since.is_empty() { "Larder" } else { command.since };
    let on_cache = match command.on_cache {
        OnCache::Read => "reads",
        OnCache::Inspect => "looks",
        OnCache::Refuse if CachedWrite::of(command.name).is_some() => "writes",
        OnCache::Refuse => "refused",
        OnCache::NoKeys => "",
    };
    let _ = writeln!(
        text,
        "| `{}` | {} | {since} | {} | {on_cache} |",
        call.trim_end().replace('|', "\\|"),
        command.summary,
        command.complexity,
    );
}

impl Group {
    /// Every page of the reference, in order.
    pub const ALL: [Self; 6] = [
        Self::String,
        Self::Generic,
        Self::Transactions,
        Self::Connection,
        Self::Server,
        Self::Larder,
    ];

    /// The name that `COMMAND DOCS` gives.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Server => "server",
            Self::Generic => "generic",
            Self::String => "string",
            Self::Transactions => "transactions",
            Self::Larder => "larder",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Connection => "Connection",
            Self::Server => "Server",
            Self::Generic => "Keys of any type",
            Self::String => "Strings",
            Self::Transactions => "Transactions",
            Self::Larder => "Larder",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_names_every_command() {
        let text = reference();
        for entry in Table::get().entries() {
            let name = entry.command.name.to_uppercase().replace('|', " ");
            assert!(text.contains(&format!("| `{name}")), "{name}");
        }
    }
}
