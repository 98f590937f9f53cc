//! SQL databases as origins: SQLite, Postgres and MySQL (MariaDB too) rows as
//! JSON, with one statement for all the keys of a batch.
//!
//! ```no_run
//! use larder_sql::{Database, DatabaseOptions, QueryOptions};
//!
//! # async fn example() -> larder_core::Result<()> {
//! let database = Database::connect(&DatabaseOptions::new("sqlite:shop.db")).await?;
//!
//! // Every table and view with a key, as `product:42`.
//! for table in database.introspect().await?.tables {
//!     let origin = database.table_origin(&table)?;
//!     println!("{} from {table}", origin.key_pattern());
//! }
//!
//! // Or a query of one's own.
//! let pattern = "customer:{id}:orders".parse().expect("a key pattern");
//! let orders = "SELECT * FROM orders WHERE customer_id = :id ORDER BY id";
//! let origin = database.query_origin(QueryOptions::new(pattern, orders).list(true)).await?;
//! # let _ = origin;
//! # Ok(())
//! # }
//! ```
//!
//! An origin made by [`Database::writing_table_origin`] or
//! [`Database::writing_query_origin`] also writes: see the guide page
//! `docs/guide/writing.md`.
//!
//! How columns become JSON, how keys are spelled and what is skipped is in the
//! guide page `docs/guide/sql-origins.md`.

mod calendar;
mod catalog;
mod database;
mod dialect;
mod engine;
mod failure;
mod json;
mod key_type;
mod mysql;
mod options;
mod origin;
mod plan;
mod pool;
mod postgres;
mod query;
mod sink;
mod sqlite;
mod statement;
mod table;
mod url;
mod write;

pub use database::Database;
pub use dialect::Dialect;
pub use key_type::KeyType;
pub use options::{DatabaseOptions, TlsMode};
pub use origin::SqlOrigin;
pub use pool::PoolStatistics;
pub use query::QueryOptions;
pub use table::{Column, Introspection, KeySource, Skipped, Table, TableKind};
pub use write::{WriteOptions, lanes_table};

/// The page of the guide is a test: what it shows compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/sql-origins.md")]
mod guide {}

/// As above.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/writing.md")]
mod guide_to_writing {}
