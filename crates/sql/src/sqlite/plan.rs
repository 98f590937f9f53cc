use larder_core::Result;
use sqlx::sqlite::SqliteStatement;
use sqlx::{AssertSqlSafe, Column as _, Executor, SqlSafeStr, Statement as _};

use super::{SqliteEngine, packed};
use crate::catalog::Relation;
use crate::engine::Pools;
use crate::plan::{Plan, Shape, Statement};
use crate::statement::{Template, infer};
use crate::table::Fetch;
use crate::{Dialect, KeyType, QueryOptions, Table, catalog, json, query};

const DIALECT: Dialect = Dialect::Sqlite;
/// One statement whose only parameter is a JSON array of the keys.
pub(crate) fn table_plan(table: &Table, value_size_max: usize) -> Plan {
    let columns: Vec<String> =
        table.columns.iter().map(|column| format!("t.{}", DIALECT.quote(&column.name))).collect();
    let is_single = table.key_columns.len() == 1;
    let conditions = table.key_columns.iter().enumerate().map(|(index, column)| {
        let text = if is_single {
            "k.value".to_owned()
        } else {
            format!("json_extract(k.value, '$[{index}]')")
        };
        let is_bytes = column.key.is_some_and(|key| key.key_type == KeyType::Bytes);
        let value = if is_bytes { format!("unhex({text})") } else { text };
        format!("t.{} = {value}", DIALECT.quote(&column.name))
    });
    // CROSS JOIN makes SQLite go through the keys and look each up.
    let sql = format!(
        "SELECT {} FROM json_each(?1) AS k CROSS JOIN {} AS t ON {}",
        columns.join(", "),
        DIALECT.quote_table(&table.schema, &table.name),
        conditions.collect::<Vec<_>>().join(" AND "),
    );
    Plan::of_table(table, Statement::Fixed(sql.into()), value_size_max)
}

/// One statement that runs the query for each key of a JSON array: SQLite has no
/// LATERAL, but a subquery that is a value may refer to the row outside, and
/// gives its rows packed into one text (see [`super::packed`]).
///
/// A UNION ALL of a thousand such queries takes some 25 times as long.
pub(crate) async fn query_plan(
    pools: &Pools<SqliteEngine>,
    options: &QueryOptions,
    relations: &[Relation],
    value_size_max: usize,
) -> Result<Plan> {
    let template = Template::parse(DIALECT, &options.select, options.pattern.parameters())?;
    // What SQLite itself has to say goes first.
    let described = prepare(pools, &template.render(|_, sql| sql.push('?'))).await?;
    let names: Vec<&str> = described.columns().iter().map(|column| column.name()).collect();
    query::check_columns(&names)?;
    let tables = catalog::known_tables(relations);
    let parameters = query::parameter_types(options, |name| {
        infer::parameter_type(DIALECT, &options.select, name, &tables)
    })?;
    let select = template.render(|parameter, sql| {
        let value = format!("json_extract(larder_keys.value, '$[{parameter}]')");
        let is_bytes = parameters[parameter].key_type == KeyType::Bytes;
        sql.push_str(&if is_bytes { format!("unhex({value})") } else { value });
    });
    // One row more than is right shows that there are too many. The limit also
    // keeps SQLite from forgetting the order of the query.
    let (limit, shape) = if options.list { (-1, Shape::List) } else { (2, Shape::Row) };
    let cells: Vec<String> = (0..names.len()).map(|index| format!("c{index}")).collect();
    let sql = format!(
        "SELECT larder_keys.key, (WITH q({}) AS ({select}) \
         SELECT json_group_array(json_array({})) FROM (SELECT * FROM q LIMIT {limit})) \
         FROM json_each(?1) AS larder_keys",
        cells.join(", "),
        cells.iter().map(|cell| packed::cell(cell)).collect::<Vec<_>>().join(", "),
    );
    prepare(pools, &sql).await?;
    Ok(Plan {
        pattern: options.pattern.clone(),
        parameters,
        shape,
        prefixes: json::member_prefixes(names.iter().copied()),
        fetch: vec![Fetch::Native; names.len()],
        statement: Statement::Fixed(sql.into()),
        value_size_max,
    })
}

/// What SQLite says of a statement before it runs.
async fn prepare(pools: &Pools<SqliteEngine>, sql: &str) -> Result<SqliteStatement> {
    let mut lease = pools.primary.acquire().await?;
    let (_, reader) = lease.parts();
    match reader.connection.prepare(AssertSqlSafe(sql).into_sql_str()).await {
        Ok(prepared) => {
            lease.release();
            Ok(prepared)
        }
        Err(error) => Err(query::refused(lease.fail(pools.primary.label(), &error))),
    }
}
