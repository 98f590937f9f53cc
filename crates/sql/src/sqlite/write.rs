//! Statements that write.

use larder_core::Result;
use sqlx::Arguments;
use sqlx::sqlite::SqliteArguments;

use super::SqliteEngine;
use super::plan::{DIALECT, prepare};
use crate::Dialect;
use crate::engine::Pools;
use crate::plan::Plan;
use crate::table::Column;
use crate::write::declared::{parse, with_placeholders};
use crate::write::kind::ValueKind;
use crate::write::rows::RowSyntax;
use crate::write::{Argument, Bound, DeclaredWrites, TableWrites};
use crate::{QueryOptions, WriteOptions, query};

pub(super) struct Syntax;

impl RowSyntax for Syntax {
    const DIALECT: Dialect = DIALECT;

    fn on_conflict(table: &TableWrites) -> String {
        let name = |at: usize| DIALECT.quote(&table.table.columns[at].name);
        let keys: Vec<String> = table.keys.iter().map(|at| name(*at)).collect();
        let same = keys.iter().map(|key| format!("t.{key} = excluded.{key} COLLATE BINARY"));
        let same = same.collect::<Vec<_>>().join(" AND ");
        let mut set: Vec<String> =
            table.replaced().map(|at| format!("{0} = excluded.{0}", name(at))).collect();
        set.extend(table.version.map(|at| format!("{0} = t.{0} + 1", name(at))));
        if set.is_empty() {
            return format!(" ON CONFLICT ({}) DO NOTHING", keys.join(", "));
        }
        format!(" ON CONFLICT ({}) DO UPDATE SET {} WHERE {same}", keys.join(", "), set.join(", "))
    }

    fn key_place(_: &Column) -> String {
        "?".to_owned()
    }

    /// A sum beyond 64 bits would become a floating point number.
    fn addition(column: &str, _: &ValueKind, _: u8) -> (String, String, usize) {
        (
            format!("{column} = {column} + ?"),
            format!("typeof({column}) = 'integer' AND typeof({column} + ?) = 'integer'"),
            1,
        )
    }
}

/// What is bound to a statement, in the driver's form.
pub(super) fn bind(bound: &Bound) -> Result<SqliteArguments, sqlx::error::BoxDynError> {
    let mut arguments = SqliteArguments::default();
    for argument in &bound.arguments {
        match argument {
            Argument::Null => arguments.add(None::<String>)?,
            Argument::Signed(number) => arguments.add(*number)?,
            // Only a part of a key: SQLite has no integer above 63 bits, and so no row.
            Argument::Unsigned(number) => arguments.add(*number as f64)?,
            Argument::Real(number) => arguments.add(*number)?,
            Argument::Text(text) => arguments.add(text.clone())?,
            Argument::Bytes(bytes) => arguments.add(bytes.clone())?,
            Argument::Token(token) => arguments.add(String::from_utf8_lossy(token).into_owned())?,
        }
    }
    Ok(arguments)
}

/// The declared statements, checked by SQLite.
pub(crate) async fn declared_writes(
    pools: &Pools<SqliteEngine>,
    query: &QueryOptions,
    options: &WriteOptions,
    read: &Plan,
) -> Result<DeclaredWrites> {
    let mut statements = Vec::new();
    for parsed in parse(DIALECT, &query.pattern, query.list, options)? {
        let statement = with_placeholders(parsed);
        let prepared = prepare(pools, &statement.sql).await;
        prepared.map_err(|error| query::refused_statement(error, statement.verb.name()))?;
        statements.push(statement);
    }
    DeclaredWrites::new(DIALECT, options, statements, read)
}
