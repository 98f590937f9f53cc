use larder_core::Result;
use sqlx::sqlite::SqliteStatement;
use sqlx::{AssertSqlSafe, Column as _, Executor, SqlSafeStr, Statement as _};

use super::{SqliteEngine, packed};
use crate::catalog::Relation;
use crate::engine::Pools;
use crate::key_type::KeyColumn;
use crate::plan::{Plan, Shape, Statement};
use crate::statement::{Template, infer};
use crate::table::Fetch;
use crate::{Dialect, KeyType, QueryOptions, Table, catalog, json, query};

pub(super) const DIALECT: Dialect = Dialect::Sqlite;
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
    let value = |(index, column): (usize, &KeyColumn)| {
        let value = format!("json_extract(larder_keys.value, '$[{index}]')");
        if column.key_type == KeyType::Bytes { format!("unhex({value})") } else { value }
    };
    let values: Vec<String> = parameters.iter().enumerate().map(value).collect();
    let select = template.render(|parameter, sql| sql.push_str(&values[parameter]));
    // One row more than is right shows that there are too many. The limit also
    // keeps SQLite from forgetting the order of the query.
    let (limit, shape) = if options.list { (-1, Shape::List) } else { (2, Shape::Row) };
    let cells = subquery_names(pools, &template, &values).await?;
    if cells.len() != names.len() {
        return Err(query::changed_meanwhile());
    }
    // Named one by one, so that a table that changes cannot move a value under
    // another name.
    let cell = |name: &String| packed::cell(&format!("larder_rows.{}", DIALECT.quote(name)));
    let sql = format!(
        "SELECT larder_keys.key, (SELECT json_group_array(json_array({})) \
         FROM (SELECT * FROM ({select}) LIMIT {limit}) AS larder_rows) \
         FROM json_each(?1) AS larder_keys",
        cells.iter().map(cell).collect::<Vec<_>>().join(", "),
    );
    prepare(pools, &sql).await?;
    Ok(Plan {
        pattern: options.pattern.clone(),
        parameters,
        shape,
        members: names.iter().map(|name| (*name).to_owned()).collect(),
        prefixes: json::member_prefixes(names.iter().copied()),
        fetch: vec![Fetch::Native; names.len()],
        statement: Statement::Fixed(sql.into()),
        value_size_max,
    })
}

/// The names that SQLite gives to the columns of the query where it is a
/// subquery and its parameters are these values. A column without alias is named
/// by the text of its expression, in which the values stand.
async fn subquery_names(
    pools: &Pools<SqliteEngine>,
    template: &Template,
    values: &[String],
) -> Result<Vec<String>> {
    let stand_in = |parameter: usize| format!(":larder_{parameter}_");
    let select = template.render(|parameter, sql| sql.push_str(&stand_in(parameter)));
    let described = prepare(pools, &format!("SELECT * FROM ({select})")).await?;
    let name = |column: &sqlx::sqlite::SqliteColumn| {
        let mut name = column.name().to_owned();
        for (parameter, value) in values.iter().enumerate() {
            name = name.replace(&stand_in(parameter), value);
        }
        name
    };
    Ok(described.columns().iter().map(name).collect())
}

/// What SQLite says of a statement before it runs.
pub(super) async fn prepare(pools: &Pools<SqliteEngine>, sql: &str) -> Result<SqliteStatement> {
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
