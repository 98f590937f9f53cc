//! Statements that write: each is given one JSON text with all its rows, which
//! Postgres itself makes values of the columns' types of.

use larder_core::Result;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments, AssertSqlSafe, Executor, SqlSafeStr};

use super::PostgresEngine;
use super::plan::{DIALECT, fetched, text};
use super::types::PostgresType;
use crate::engine::Pools;
use crate::plan::Plan;
use crate::table::Filled;
use crate::write::declared::{DeclaredStatement, Parameter, Parsed, parse, write_argument};
use crate::write::value::Argument;
use crate::write::{Bound, Change, DeclaredWrites, Group, Operation, Shape, TableWrites};
use crate::write::{expected_number, key_argument};
use crate::{QueryOptions, WriteOptions, json, query};

/// The statement of a group.
pub(super) fn statements(group: &Group<'_>) -> Vec<Bound> {
    let writer = Writer { table: group.table };
    let sql = match &group.shape {
        Shape::Upsert(columns) => writer.insert(columns, true),
        Shape::Insert(columns) => writer.insert(columns, false),
        Shape::Replace(columns) => writer.replace(columns),
        Shape::Delete => writer.delete(),
        Shape::Update(columns) => {
            writer.update(columns, columns.iter().map(|at| writer.given(*at)).collect(), None)
        }
        Shape::Add(column) => writer.add(*column),
    };
    let rows = rows(group);
    vec![Bound { sql, arguments: vec![Argument::Text(rows)], is_kept: true }]
}

struct Writer<'w> {
    table: &'w TableWrites,
}

impl Writer<'_> {
    fn insert(&self, columns: &[usize], replaces: bool) -> String {
        let table = self.table;
        let mut names: Vec<String> = Vec::new();
        let mut values: Vec<String> = Vec::new();
        for at in table.keys.iter().chain(columns) {
            names.push(self.name(*at));
            values.push(format!("r.c{at}"));
        }
        if let Some(version) = table.version {
            names.push(self.name(version));
            values.push("1".to_owned());
        }
        let overrides =
            table.keys.iter().any(|at| table.table.columns[*at].filled == Filled::Sequence);
        let overriding = if overrides { " OVERRIDING SYSTEM VALUE" } else { "" };
        let keys: Vec<String> = table.keys.iter().map(|at| self.name(*at)).collect();
        let action = if replaces { self.replacement() } else { "DO NOTHING".to_owned() };
        format!(
            "INSERT INTO {} AS t ({}){overriding} SELECT {} FROM {} \
             ON CONFLICT ({}) {action} RETURNING {}",
            self.source(),
            names.join(", "),
            values.join(", "),
            self.given_rows(columns),
            keys.join(", "),
            self.returned(),
        )
    }

    /// What becomes of a row that is there: what was not given has its default.
    fn replacement(&self) -> String {
        let table = self.table;
        let excluded = |at: usize| format!("{0} = EXCLUDED.{0}", self.name(at));
        let mut set: Vec<String> = table.replaced().map(excluded).collect();
        set.extend(self.next_version());
        if set.is_empty() {
            // Nothing changes, and the row is returned.
            set.extend(table.keys.first().map(|at| excluded(*at)));
        }
        let same = table.keys.iter().map(|at| {
            let name = self.name(*at);
            format!("t.{name}::text COLLATE \"C\" = EXCLUDED.{name}::text COLLATE \"C\"")
        });
        let same: Vec<String> = same.collect();
        format!("DO UPDATE SET {} WHERE {}", set.join(", "), same.join(" AND "))
    }

    fn replace(&self, columns: &[usize]) -> String {
        let set = self.table.replaced().map(|at| {
            if columns.contains(&at) {
                self.given(at)
            } else {
                format!("{} = DEFAULT", self.name(at))
            }
        });
        self.update(columns, set.collect(), None)
    }

    fn add(&self, column: usize) -> String {
        let name = self.name(column);
        let is_whole = !matches!(
            self.table.table.columns[column].kind,
            crate::write::kind::ValueKind::Decimal { .. }
        );
        let by = if is_whole { "r.b::pg_catalog.int8" } else { "r.b" };
        let set = format!("{name} = t.{name} + {by}");
        self.update(&[], vec![set], Some(format!("t.{name} IS NOT NULL")))
    }

    fn update(&self, columns: &[usize], mut set: Vec<String>, condition: Option<String>) -> String {
        set.extend(self.next_version());
        if set.is_empty() {
            let name = self.table.keys.first().map(|at| self.name(*at)).unwrap_or_default();
            set.push(format!("{name} = t.{name}"));
        }
        let condition = condition.map(|condition| format!(" AND {condition}"));
        format!(
            "UPDATE {} AS t SET {} FROM {} WHERE {}{} RETURNING {}",
            self.source(),
            set.join(", "),
            self.given_rows(columns),
            self.found(),
            condition.unwrap_or_default(),
            self.returned(),
        )
    }

    fn delete(&self) -> String {
        format!(
            "DELETE FROM {} AS t USING {} WHERE {} RETURNING {}",
            self.source(),
            self.given_rows(&[]),
            self.found(),
            self.returned(),
        )
    }

    fn given(&self, at: usize) -> String {
        format!("{} = r.c{at}", self.name(at))
    }

    fn next_version(&self) -> Option<String> {
        let name = self.name(self.table.version?);
        Some(format!("{name} = t.{name} + 1"))
    }

    /// The row of a key in its one spelling, with the version that is expected.
    fn found(&self) -> String {
        let mut conditions: Vec<String> = Vec::new();
        for at in &self.table.keys {
            let name = self.name(*at);
            conditions.push(format!("t.{name} = r.c{at}"));
            conditions.push(format!("t.{name}::text COLLATE \"C\" = r.c{at}::text COLLATE \"C\""));
        }
        if let Some(version) = self.table.version {
            let name = self.name(version);
            conditions.push(format!("(r.e IS NULL OR t.{name} = r.e)"));
        }
        conditions.join(" AND ")
    }

    /// The rows that are given, as values of the columns' types.
    fn given_rows(&self, columns: &[usize]) -> String {
        let table = self.table;
        let mut typed: Vec<String> = Vec::new();
        for at in table.keys.iter().chain(columns) {
            let cast = table.table.columns[*at].cast.clone().unwrap_or_else(text);
            typed.push(format!("c{at} {}", cast.name));
        }
        typed.push("e pg_catalog.int8".to_owned());
        typed.push("b pg_catalog.numeric".to_owned());
        format!("pg_catalog.json_to_recordset($1::pg_catalog.json) AS r({})", typed.join(", "))
    }

    fn returned(&self) -> String {
        let columns = self.table.table.columns.iter();
        let columns: Vec<String> = columns
            .map(|column| fetched(&format!("t.{}", DIALECT.quote(&column.name)), column.fetch))
            .collect();
        columns.join(", ")
    }

    fn source(&self) -> String {
        DIALECT.quote_table(&self.table.table.schema, &self.table.table.name)
    }

    fn name(&self, at: usize) -> String {
        DIALECT.quote(&self.table.table.columns[at].name)
    }
}

/// The rows of a group as one JSON text.
fn rows(group: &Group<'_>) -> String {
    let mut out = vec![b'['];
    for (index, operation) in group.operations.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"{" } else { b",{" });
        write_row(group.table, operation, &mut out);
        out.push(b'}');
    }
    out.push(b']');
    // Escaped text and tokens of a JSON text are UTF-8.
    String::from_utf8(out).unwrap_or_default()
}

fn write_row(table: &TableWrites, operation: &Operation, out: &mut Vec<u8>) {
    let mut member = |name: &str, at: Option<usize>, argument: &Argument| {
        let is_first = out.last() == Some(&b'{');
        out.extend_from_slice(if is_first { b"\"" } else { b",\"" });
        out.extend_from_slice(name.as_bytes());
        if let Some(at) = at {
            json::write_integer(out, at);
        }
        out.extend_from_slice(b"\":");
        write_argument(out, argument);
    };
    for (part, at) in table.keys.iter().enumerate() {
        // A boolean is `true` in a key, as in JSON.
        let value = match &operation.request.values[part] {
            crate::key_type::KeyValue::Boolean(boolean) => {
                Argument::Token(boolean.to_string().into_bytes())
            }
            value => key_argument(DIALECT, crate::KeyType::Text, value),
        };
        member("c", Some(*at), &value);
    }
    match &operation.change {
        Change::Put(members) | Change::Patch(members) => {
            members.iter().for_each(|(at, argument)| member("c", Some(*at), argument));
        }
        Change::Add(_, by) => member("b", None, &Argument::Token(by.to_string().into_bytes())),
        Change::Remove | Change::Declared(..) => {}
    }
    if let Some(expected) = expected_number(operation.expected) {
        member("e", None, &Argument::Signed(expected));
    }
}

/// What is bound to a statement, in the driver's form.
pub(super) fn bind(bound: &Bound) -> Result<PgArguments, sqlx::error::BoxDynError> {
    let mut arguments = PgArguments::default();
    for argument in &bound.arguments {
        match argument {
            Argument::Null => arguments.add(None::<String>)?,
            Argument::Signed(number) => arguments.add(*number)?,
            Argument::Unsigned(number) => arguments.add(number.to_string())?,
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
    pools: &Pools<PostgresEngine>,
    query: &QueryOptions,
    options: &WriteOptions,
    read: &Plan,
) -> Result<DeclaredWrites> {
    let mut statements = Vec::new();
    for parsed in parse(DIALECT, &query.pattern, query.list, options)? {
        let mut lease = pools.primary.acquire().await?;
        let (_, connection) = lease.parts();
        match prepare(connection, &parsed).await {
            Ok(sql) => {
                lease.release();
                let Parsed { verb, parameters, .. } = parsed;
                statements.push(DeclaredStatement { verb, sql, parameters });
            }
            Err(error) => {
                let error = lease.fail(pools.primary.label(), &error);
                return Err(query::refused_statement(query::refused(error), parsed.verb.name()));
            }
        }
    }
    DeclaredWrites::new(DIALECT, options, statements, read)
}

/// The statement with its parameters read from one JSON object, once the server
/// has told their types.
async fn prepare(connection: &mut sqlx::PgConnection, parsed: &Parsed) -> sqlx::Result<String> {
    let asked = parsed.template.render(|parameter, sql| {
        sql.push_str(&format!("${}", parameter + 1));
        if parsed.parameters[parameter] == Parameter::ExpectedVersion {
            sql.push_str("::pg_catalog.int8");
        }
    });
    let types = super::plan::types_of(connection, &asked).await?;
    let sql = parsed.template.render(|parameter, sql| {
        let name = types.get(parameter).and_then(|known: &Option<PostgresType>| known.as_ref());
        let name = name.map_or("pg_catalog.text", |known| known.cast.name.as_str());
        sql.push_str(&format!(
            "(SELECT larder_p.p{parameter} FROM pg_catalog.json_to_record($1::pg_catalog.json) \
             AS larder_p(p{parameter} {name}))"
        ));
    });
    connection.prepare(AssertSqlSafe(sql.as_str()).into_sql_str()).await?;
    Ok(sql)
}
