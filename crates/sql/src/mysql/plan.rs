use std::borrow::Cow;

use larder_core::Result;
use sqlx::mysql::MySqlStatement;
use sqlx::{AssertSqlSafe, Column as _, Executor, SqlSafeStr, Statement as _};

use super::MySqlEngine;
use crate::catalog::Relation;
use crate::engine::Pools;
use crate::key_type::{KeyColumn, MYSQL_DIGITS_MAX, Repertoire};
use crate::plan::{Plan, Shape, Statement};
use crate::pool::Pool;
use crate::statement::{Template, infer};
use crate::table::{Column, Fetch};
use crate::{Dialect, KeyType, QueryOptions, Table, catalog, json, query};

pub(super) const DIALECT: Dialect = Dialect::MySql;

/// One statement with a list of keys; the rows carry their own.
pub(crate) fn table_plan(table: &Table, value_size_max: usize) -> Plan {
    let column = |name: &str| format!("t.{}", DIALECT.quote(name));
    let columns: Vec<String> = table.columns.iter().map(|known| column(&known.name)).collect();
    let keys: Vec<String> = table.key_columns.iter().map(|known| column(&known.name)).collect();
    let marks: Vec<String> = table.key_columns.iter().map(table_placeholder).collect();
    let (left, tuple) = match keys.as_slice() {
        [key] => (key.clone(), marks.join(",")),
        keys => (format!("({})", keys.join(", ")), format!("({})", marks.join(","))),
    };
    let statement = Statement::Tuples {
        head: format!(
            "SELECT {} FROM {} AS t WHERE {left} IN (",
            columns.join(", "),
            DIALECT.quote_table(&table.schema, &table.name),
        ),
        tuple,
        tail: ")".to_owned(),
    };
    Plan::of_table(table, statement, value_size_max)
}

/// One arm of a UNION ALL for each key.
pub(crate) async fn query_plan(
    pools: &Pools<MySqlEngine>,
    options: &QueryOptions,
    relations: &[Relation],
    value_size_max: usize,
) -> Result<Plan> {
    let template = Template::parse(DIALECT, &options.select, options.pattern.parameters())?;
    // What the server itself has to say goes first.
    let described = prepare(pools, &template.render(|_, sql| sql.push('?'))).await?;
    let names: Vec<&str> = described.columns().iter().map(|column| column.name()).collect();
    query::check_columns(&names)?;
    let tables = catalog::known_tables(relations);
    let mut parameters = query::parameter_types(options, |name| {
        infer::parameter_type(DIALECT, &options.select, name, &tables)
    })?;
    for column in parameters.iter_mut().filter(|column| column.key_type == KeyType::Decimal) {
        column.scale.get_or_insert(SCALE);
    }
    let select =
        template.render(|parameter, sql| sql.push_str(&placeholder(&parameters[parameter])));
    let (rows, shape) = if !options.list {
        // One row more than is right shows that there are too many.
        (format!("FROM ({select}) AS q LIMIT 2)"), Shape::Row)
    } else if template.has_limit || !template.has_order {
        (format!("FROM ({select}) AS q)"), Shape::List)
    } else {
        // Without a limit a subquery forgets its order.
        (format!("FROM ({select} LIMIT 18446744073709551615) AS q)"), Shape::List)
    };
    // Named one by one, so that a table that changes cannot move a value under
    // another name. The subquery has names of its own for what has no alias.
    let shown = prepare(pools, &format!("SELECT q.* FROM ({select}) AS q")).await?;
    if shown.columns().len() != names.len() {
        return Err(query::changed_meanwhile());
    }
    let columns: String = shown
        .columns()
        .iter()
        .map(|column| format!(", q.{}", DIALECT.quote(column.name())))
        .collect();
    let statement = Statement::Union {
        before: "(SELECT ".to_owned(),
        after: format!(" AS larder_ordinal{columns} {rows}"),
        occurrences: template.occurrences(),
    };
    prepare(pools, &statement.text(2).0).await?;
    Ok(Plan {
        pattern: options.pattern.clone(),
        parameters,
        shape,
        members: names.iter().map(|name| (*name).to_owned()).collect(),
        prefixes: json::member_prefixes(names.iter().copied()),
        fetch: described.columns().iter().map(|column| fetch_of(column, relations)).collect(),
        statement,
        value_size_max,
    })
}

async fn prepare(pools: &Pools<MySqlEngine>, sql: &str) -> Result<MySqlStatement> {
    prepare_at(&pools.primary, sql).await
}

/// What the server says of a statement before it runs.
pub(super) async fn prepare_at(pool: &Pool<MySqlEngine>, sql: &str) -> Result<MySqlStatement> {
    let mut lease = pool.acquire().await?;
    let (_, connection) = lease.parts();
    match connection.prepare(AssertSqlSafe(sql).into_sql_str()).await {
        Ok(prepared) => {
            lease.release();
            Ok(prepared)
        }
        Err(error) => Err(query::refused(lease.fail(pool.label(), &error))),
    }
}

/// Whether a column of the query is a JSON column of a table.
fn fetch_of(column: &sqlx::mysql::MySqlColumn, relations: &[Relation]) -> Fetch {
    let origin = column.origin();
    let Some(origin) = origin.table_column() else { return Fetch::Native };
    // The driver names the table with or without its schema.
    let table = origin.table.rsplit('.').next().unwrap_or_default();
    let mut known = relations
        .iter()
        .filter(|relation| relation.name == table)
        .flat_map(|relation| &relation.columns)
        .filter(|known| known.name.eq_ignore_ascii_case(&origin.name))
        .peekable();
    let is_json = known.peek().is_some() && known.all(|known| known.fetch == Fetch::JsonText);
    if is_json { Fetch::JsonText } else { Fetch::Native }
}

/// Where a value of a key column goes. To a text in a character set that is not
/// Unicode goes one in the same, or the server would convert the whole column;
/// what cannot be converted finds a row that is spelled otherwise, or none.
pub(super) fn table_placeholder(column: &Column) -> String {
    let key = column.key.unwrap_or(KeyColumn::text(Repertoire::Unicode));
    match &column.charset {
        Some(charset) => {
            format!("CONVERT(? USING {}) COLLATE {}", charset.name, charset.collation)
        }
        None => placeholder(&key).into_owned(),
    }
}

/// Where a value of the type goes: what is not a number or a text is compared as
/// what it is only if it is told so.
fn placeholder(column: &KeyColumn) -> Cow<'static, str> {
    match column.key_type {
        KeyType::Decimal => {
            let scale = column.scale.unwrap_or(SCALE);
            format!("CAST(? AS DECIMAL({MYSQL_DIGITS_MAX},{scale}))").into()
        }
        KeyType::Date => "CAST(? AS DATE)".into(),
        KeyType::Time => "CAST(? AS TIME(6))".into(),
        KeyType::Timestamp | KeyType::TimestampUtc => "CAST(? AS DATETIME(6))".into(),
        KeyType::Integer | KeyType::Text | KeyType::Boolean | KeyType::Uuid | KeyType::Bytes => {
            "?".into()
        }
    }
}

/// Digits behind the point of decimals of which nothing else is known.
const SCALE: u8 = 30;

/// How a column of so many digits, so many of them behind the point, is
/// compared: as the column's own type, with digits behind the point to spare so
/// that a limit of a range is not rounded.
pub(super) fn decimal(precision: u8, scale: u8) -> KeyColumn {
    let whole = precision.saturating_sub(scale);
    let spare = (MYSQL_DIGITS_MAX as u8).saturating_sub(whole);
    KeyColumn::decimal(spare.min(SCALE.max(scale)))
}
