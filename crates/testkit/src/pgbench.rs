//! The tables that Postgres' own benchmark program makes: accounts, tellers and
//! branches of a bank, with primary keys.

use std::process::Command;

use crate::psql;

/// Accounts for each unit of scale.
pub const ACCOUNTS_PER_SCALE: u64 = 100_000;

/// Makes the tables `pgbench_accounts`, `pgbench_tellers`, `pgbench_branches`
/// and `pgbench_history` in the database at `url` and fills them. Blocks: about
/// a second for each unit of scale.
///
/// # Panics
/// If pgbench is not installed or fails.
pub fn load(url: &str, scale: u32) {
    let mut pgbench = Command::new("pgbench");
    pgbench.args(["--initialize", "--quiet", "--scale"]).arg(scale.to_string()).arg(url);
    psql::run(pgbench, "");
}
