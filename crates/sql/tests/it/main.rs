//! The origins against real databases.

mod migrations;
mod mysql;
mod mysql_types;
mod postgres;
mod postgres_types;
mod sqlite;
mod support;
mod tls;
mod write_faults;
mod write_random;
mod write_rules;
mod writing;
