//! The Redis door: RESP2 and RESP3 over TCP.
//!
//! ```text
//! Door ── up to one thread for each core
//!   ├─ balance ── how many of them serve, and whom
//!   └─ worker ── one thread; the first accepts and sweeps idle clients
//!        ├─ coalesce ── fewer wake-ups when many clients ask
//!        └─ connection ── read; answer all that has arrived; write once
//!             ├─ parser ── commands out of bytes, nothing copied
//!             ├─ table ── the command of a name
//!             └─ session ── the client's state; dispatch
//!                  ├─ keyspace ── plain keys, under their locks
//!                  ├─ cached ── keys of a cache, loading what is missing
//!                  └─ transaction ── MULTI, EXEC, WATCH
//! ```
//! A command is one entry of the table in `commands`: its handler, arity, keys
//! and description. Dispatch, `COMMAND` and the reference derive from it.

pub(crate) mod arguments;
mod balance;
pub(crate) mod cached;
mod client;
mod coalesce;
pub mod command;
mod commands;
pub(crate) mod connection;
mod credentials;
mod door;
mod file_limit;
mod inline;
pub mod parser;
mod reply;
mod routes;
pub(crate) mod scratch;
pub mod session;
mod settings;
mod statistics;
pub(crate) mod table;
pub(crate) mod transaction;
pub(crate) mod worker;
pub(crate) mod written;

pub use commands::reference;
pub(crate) use credentials::Credentials;
pub use credentials::User;
pub use door::{Door, Monitor};
pub use file_limit::raise_file_limit;
pub use reply::{Protocol, Reply};
pub use routes::{NoCaches, Routes, ServedCache};
pub use settings::DoorOptions;
pub use statistics::{CommandStatistics, DoorStatistics};

/// The names of all commands, without subcommands.
#[cfg(test)]
pub(crate) fn command_names() -> Vec<&'static str> {
    table::Table::get().commands().iter().map(|entry| entry.command.name).collect()
}
