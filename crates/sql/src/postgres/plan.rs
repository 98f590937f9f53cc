use larder_core::{Error, ErrorKind, Result};
use sqlx::{AssertSqlSafe, Column as _, Executor, PgConnection, Row, SqlSafeStr};

use super::PostgresEngine;
use super::types::{PostgresType, declared, types};
use crate::engine::Pools;
use crate::key_type::KeyColumn;
use crate::plan::{Plan, Shape, Statement};
use crate::statement::Template;
use crate::table::{Cast, Fetch};
use crate::{Dialect, QueryOptions, Table, json, query};

pub(super) const DIALECT: Dialect = Dialect::Postgres;

/// One statement whose parameters are arrays of texts, one for each column of
/// the key.
pub(crate) fn table_plan(table: &Table, value_size_max: usize) -> Plan {
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|column| fetched(&format!("t.{}", DIALECT.quote(&column.name)), column.fetch))
        .collect();
    let source = DIALECT.quote_table(&table.schema, &table.name);
    let keys: Vec<(String, Cast)> = table
        .key_columns
        .iter()
        .map(|column| (DIALECT.quote(&column.name), column.cast.clone().unwrap_or_else(text)))
        .collect();
    let from = match keys.as_slice() {
        [(name, cast)] => format!("{source} AS t WHERE t.{name} = ANY ({})", array(cast, 1)),
        // The limit keeps the planner from anything but a look-up for each key;
        // two, so that a key of two rows is noticed.
        keys => {
            let conditions: Vec<String> = keys
                .iter()
                .enumerate()
                .map(|(index, (name, cast))| {
                    format!("r.{name} = {}", value(cast, &format!("k.p{index}")))
                })
                .collect();
            format!(
                "unnest({}) AS k({}) CROSS JOIN LATERAL \
                 (SELECT * FROM {source} AS r WHERE {} LIMIT 2) AS t",
                numbered(keys.len(), |index| format!("${}::text[]", index + 1)),
                numbered(keys.len(), |index| format!("p{index}")),
                conditions.join(" AND "),
            )
        }
    };
    let sql = format!("SELECT {} FROM {from}", columns.join(", "));
    Plan::of_table(table, Statement::Fixed(sql.into()), value_size_max)
}

/// The query as a LATERAL subquery, run for each key of an array.
pub(crate) async fn query_plan(
    pools: &Pools<PostgresEngine>,
    options: &QueryOptions,
    value_size_max: usize,
) -> Result<Plan> {
    let template = Template::parse(DIALECT, &options.select, options.pattern.parameters())?;
    // Names are checked before anything is sent.
    let declared = declared_types(options)?;
    let mut lease = pools.primary.acquire().await?;
    let (_, connection) = lease.parts();
    let description = match describe(connection, &template, &declared).await {
        Ok(description) => description,
        Err(error) => return Err(query::refused(lease.fail(pools.primary.label(), &error))),
    };
    let parameters = key_columns(options, &description.parameters);
    let names: Vec<&str> = description.columns.iter().map(|(name, _)| name.as_str()).collect();
    let checked =
        parameters.and_then(|parameters| query::check_columns(&names).map(|()| parameters));
    let statement = statement(&template, &description, options.list);
    let prepared = match &checked {
        Ok(_) => {
            connection.prepare(AssertSqlSafe(statement.as_str()).into_sql_str()).await.map(drop)
        }
        Err(_) => Ok(()),
    };
    match prepared {
        Ok(()) => lease.release(),
        Err(error) => return Err(query::refused(lease.fail(pools.primary.label(), &error))),
    }
    Ok(Plan {
        pattern: options.pattern.clone(),
        parameters: checked?,
        shape: if options.list { Shape::List } else { Shape::Row },
        members: names.iter().map(|name| (*name).to_owned()).collect(),
        prefixes: json::member_prefixes(names.iter().copied()),
        fetch: description.columns.iter().map(|(_, fetch)| *fetch).collect(),
        statement: Statement::Fixed(statement.into()),
        value_size_max,
    })
}

struct Description {
    parameters: Vec<Option<PostgresType>>,
    columns: Vec<(String, Fetch)>,
}

fn declared_types(options: &QueryOptions) -> Result<Vec<Option<PostgresType>>> {
    // Everything not declared is asked of Postgres.
    let unknown = |_: &str| Some(KeyColumn::integer(0, 0));
    query::parameter_types(options, unknown)?;
    let parameters = options.pattern.parameters().iter();
    let of_parameter = |name: &String| {
        let declaration = options.parameter_types.iter().find(|(declared, _)| declared == name);
        declaration.map(|(_, key_type)| declared(*key_type))
    };
    Ok(parameters.map(of_parameter).collect())
}

/// Asks Postgres for the types of the parameters and the columns.
///
/// Not by the driver's own way to prepare, which fails at types that it does not
/// know.
async fn describe(
    connection: &mut PgConnection,
    template: &Template,
    declared: &[Option<PostgresType>],
) -> sqlx::Result<Description> {
    let parameters = parameter_types(connection, template, declared).await?;
    let select = template.render(|parameter, sql| {
        let name = parameters[parameter].as_ref().map_or("text", |known| &known.cast.name);
        sql.push_str(&format!("NULL::{name}"));
    });
    // One row of NULLs, whatever the query selects: it is never run.
    let row = format!(
        "SELECT q.* FROM (SELECT 1) AS one LEFT JOIN LATERAL \
         (SELECT * FROM ({select}) AS r LIMIT 0) AS q ON true"
    );
    let row = sqlx::raw_sql(AssertSqlSafe(row)).fetch_one(&mut *connection).await?;
    let columns: Vec<(String, i64)> = row
        .columns()
        .iter()
        .map(|column| {
            let oid = column.type_info().oid().map_or(0, |oid| i64::from(oid.0));
            (column.name().to_owned(), oid)
        })
        .collect();
    let oids = columns.iter().map(|(_, oid)| *oid).collect();
    let types = types(connection, oids).await?;
    // Of a type that the catalog has not, such as a record, Postgres makes JSON.
    let fetch = |oid: i64| types.get(&oid).map_or(Fetch::AsJson, |known| known.fetch);
    let columns = columns.into_iter().map(|(name, oid)| (name, fetch(oid))).collect();
    Ok(Description { parameters, columns })
}

/// The types of the parameters: as declared, else as Postgres infers them.
async fn parameter_types(
    connection: &mut PgConnection,
    template: &Template,
    declared: &[Option<PostgresType>],
) -> sqlx::Result<Vec<Option<PostgresType>>> {
    let select = template.render(|parameter, sql| match &declared[parameter] {
        Some(known) => sql.push_str(&format!("${}::{}", parameter + 1, known.cast.name)),
        None => sql.push_str(&format!("${}", parameter + 1)),
    });
    let asked = types_of(connection, &select).await?;
    let known = declared.iter().zip(asked);
    Ok(known.map(|(known, asked)| known.clone().or(asked)).collect())
}

/// The types of the parameters of a statement, as Postgres infers them.
pub(super) async fn types_of(
    connection: &mut PgConnection,
    statement: &str,
) -> sqlx::Result<Vec<Option<PostgresType>>> {
    let prepare = format!("PREPARE larder_query AS {statement}");
    sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *connection).await?;
    let oids: Vec<i64> = sqlx::query_scalar(
        "SELECT parameter_types::oid[]::int8[] FROM pg_catalog.pg_prepared_statements \
         WHERE name = 'larder_query'",
    )
    .fetch_one(&mut *connection)
    .await?;
    sqlx::raw_sql("DEALLOCATE larder_query").execute(&mut *connection).await?;
    let types = types(connection, oids.clone()).await?;
    Ok(oids.iter().map(|oid| types.get(oid).cloned()).collect())
}

fn key_columns(options: &QueryOptions, types: &[Option<PostgresType>]) -> Result<Vec<KeyColumn>> {
    let names = options.pattern.parameters().iter();
    names
        .zip(types)
        .map(|(name, known)| {
            known.as_ref().and_then(|known| known.key).ok_or_else(|| {
                let of_type = known.as_ref().map_or("unknown", |known| known.cast.name.as_str());
                Error::new(ErrorKind::Config, "a parameter is of a type that keys cannot spell")
                    .with("parameter", name)
                    .with("type", of_type)
                    .remedy(format!("compare the column's text: column::text = :{name}"))
            })
        })
        .collect()
}

fn statement(template: &Template, description: &Description, is_list: bool) -> String {
    let casts: Vec<Cast> = description
        .parameters
        .iter()
        .map(|known| known.as_ref().map_or_else(text, |known| known.cast.clone()))
        .collect();
    let select = template.render(|parameter, sql| {
        sql.push_str(&format!("larder_keys.p{parameter}"));
    });
    let columns: Vec<String> = description
        .columns
        .iter()
        .map(|(name, fetch)| fetched(&format!("q.{}", DIALECT.quote(name)), *fetch))
        .collect();
    let values: Vec<String> = casts
        .iter()
        .enumerate()
        .map(|(index, cast)| format!("{} AS p{index}", value(cast, &format!("u.p{index}"))))
        .collect();
    // One row more than is right shows that there are too many.
    let rows =
        if is_list { select } else { format!("SELECT * FROM ({select}) AS larder_rows LIMIT 2") };
    format!(
        "SELECT larder_keys.ordinal, {} FROM (SELECT u.place - 1 AS ordinal, {} \
         FROM unnest({}) WITH ORDINALITY AS u({}, place)) AS larder_keys \
         CROSS JOIN LATERAL ({rows}) AS q",
        columns.join(", "),
        values.join(", "),
        numbered(casts.len(), |index| format!("${}::text[]", index + 1)),
        numbered(casts.len(), |index| format!("p{index}")),
    )
}

pub(super) fn fetched(column: &str, fetch: Fetch) -> String {
    match fetch {
        Fetch::AsJson => format!("to_json({column})::text"),
        Fetch::Native | Fetch::JsonText => column.to_owned(),
    }
}

/// The value of a type that a text spells. A text that is no label of an enum is
/// NULL, which equals nothing, instead of an error.
fn value(cast: &Cast, text: &str) -> String {
    let name = &cast.name;
    if cast.is_enum {
        format!("(SELECT e FROM unnest(enum_range(NULL::{name})) AS e WHERE e::text = {text})")
    } else {
        format!("{text}::{name}")
    }
}

/// The values of a type that the texts of a parameter spell.
fn array(cast: &Cast, parameter: usize) -> String {
    let name = &cast.name;
    if cast.is_enum {
        format!(
            "ARRAY(SELECT e FROM unnest(enum_range(NULL::{name})) AS e \
             WHERE e::text = ANY (${parameter}::text[]))"
        )
    } else {
        format!("${parameter}::text[]::{name}[]")
    }
}

pub(super) fn text() -> Cast {
    Cast { name: "pg_catalog.text".to_owned(), is_enum: false }
}

fn numbered(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(", ")
}
