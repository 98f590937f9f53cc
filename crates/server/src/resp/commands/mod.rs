//! Every command of the door, one entry each. Dispatch, `COMMAND` and the
//! reference in the guide derive from these tables.

mod client;
mod config;
mod connection;
mod events;
mod generic;
mod info;
mod introspection;
mod larder;
mod reference;
mod scan;
mod server;
mod string;
mod transactions;

pub use reference::reference;

use super::command::Command;

/// Every command, without the subcommands of some.
pub(crate) fn all() -> Vec<Command> {
    [
        connection::COMMANDS,
        events::COMMANDS,
        generic::COMMANDS,
        larder::COMMANDS,
        scan::COMMANDS,
        server::COMMANDS,
        string::COMMANDS,
        transactions::COMMANDS,
    ]
    .concat()
}

/// The subcommands of each command that has such, named `container|subcommand`.
pub(crate) const SUBCOMMANDS: &[(&str, &[Command])] = &[
    ("client", client::SUBCOMMANDS),
    ("command", introspection::SUBCOMMANDS),
    ("config", config::SUBCOMMANDS),
    ("memory", generic::MEMORY_SUBCOMMANDS),
    ("object", generic::OBJECT_SUBCOMMANDS),
];
