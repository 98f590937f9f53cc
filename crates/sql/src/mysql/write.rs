//! Statements that write.

use larder_core::Result;
use sqlx::Arguments;
use sqlx::mysql::MySqlArguments;

use super::MySqlEngine;
use super::plan::{DIALECT, prepare_at, table_placeholder};
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

/// A subquery of two rows where one is allowed: an error, if it is come to.
const REFUSE: &str = "(SELECT NULL UNION ALL SELECT NULL)";

impl RowSyntax for Syntax {
    const DIALECT: Dialect = DIALECT;

    /// MySQL does not say which unique index to look at. A row that has another
    /// key, or this key in another spelling, is not to be touched.
    fn on_conflict(table: &TableWrites) -> String {
        let name = |at: usize| DIALECT.quote(&table.table.columns[at].name);
        let same = table.keys.iter().map(|at| {
            let name = name(*at);
            format!("CAST({name} AS BINARY) = CAST(VALUES({name}) AS BINARY)")
        });
        let same = same.collect::<Vec<_>>().join(" AND ");
        let replaced: Vec<usize> =
            table.replaced().chain(table.version).chain(table.keys.first().copied()).collect();
        let set = replaced.iter().enumerate().filter_map(|(index, at)| {
            let column = name(*at);
            let value = if table.version == Some(*at) {
                format!("{column} + 1")
            } else {
                format!("VALUES({column})")
            };
            match index {
                0 => Some(format!("{column} = IF({same}, {value}, {REFUSE})")),
                // The key stands there only for want of any other column.
                _ if table.keys.contains(at) => None,
                _ => Some(format!("{column} = {value}")),
            }
        });
        format!(" ON DUPLICATE KEY UPDATE {}", set.collect::<Vec<_>>().join(", "))
    }

    fn key_place(column: &Column) -> String {
        table_placeholder(column)
    }

    fn addition(column: &str, kind: &ValueKind, scale: u8) -> (String, String, usize) {
        let by = match kind {
            ValueKind::Decimal { .. } => format!("CAST(? AS DECIMAL(65,{scale}))"),
            _ => "?".to_owned(),
        };
        (format!("{column} = {column} + {by}"), format!("{column} IS NOT NULL"), 0)
    }
}

/// What is bound to a statement, in the driver's form.
pub(super) fn bind(bound: &Bound) -> Result<MySqlArguments, sqlx::error::BoxDynError> {
    let mut arguments = MySqlArguments::default();
    for argument in &bound.arguments {
        match argument {
            Argument::Null => arguments.add(None::<String>)?,
            Argument::Signed(number) => arguments.add(*number)?,
            Argument::Unsigned(number) => arguments.add(*number)?,
            Argument::Real(number) => arguments.add(*number)?,
            Argument::Text(text) => arguments.add(text.as_str())?,
            Argument::Bytes(bytes) => arguments.add(bytes.as_slice())?,
            Argument::Token(token) => arguments.add(String::from_utf8_lossy(token).as_ref())?,
        }
    }
    Ok(arguments)
}

/// The declared statements, checked by the server.
pub(crate) async fn declared_writes(
    pools: &Pools<MySqlEngine>,
    query: &QueryOptions,
    options: &WriteOptions,
    read: &Plan,
) -> Result<DeclaredWrites> {
    let mut statements = Vec::new();
    for parsed in parse(DIALECT, &query.pattern, query.list, options)? {
        let statement = with_placeholders(parsed);
        // A connection that only reads does not even prepare it.
        let prepared = prepare_at(pools.writing(), &statement.sql).await;
        prepared.map_err(|error| query::refused_statement(error, statement.verb.name()))?;
        statements.push(statement);
    }
    DeclaredWrites::new(DIALECT, options, statements, read)
}
