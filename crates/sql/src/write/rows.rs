//! Statements that list their rows value by value (MySQL and SQLite).

use super::kind::ValueKind;
use super::{Argument, Bound, Change, Group, Operation, Shape, TableWrites, key_argument};
use crate::Dialect;
use crate::table::Column;

/// What of such statements a database writes in its own way.
pub(crate) trait RowSyntax {
    const DIALECT: Dialect;

    /// The end of an INSERT that replaces a row that is there.
    fn on_conflict(table: &TableWrites) -> String;

    /// Where a part of a key goes that is compared with its column.
    fn key_place(column: &Column) -> String;

    /// A column that grows by one argument, and the condition that the sum has
    /// to hold, with as many arguments more.
    fn addition(column: &str, kind: &ValueKind, scale: u8) -> (String, String, usize);
}

/// The statements of a group: one for all rows where the database has such.
pub(crate) fn statements<S: RowSyntax>(group: &Group<'_>) -> Vec<Bound> {
    let writer = Writer { table: group.table };
    match &group.shape {
        Shape::Upsert(columns) | Shape::Replace(columns) => {
            writer.insert::<S>(columns, &group.operations, &S::on_conflict(group.table))
        }
        Shape::Insert(columns) => writer.insert::<S>(columns, &group.operations, ""),
        Shape::Delete => writer.delete::<S>(&group.operations),
        Shape::Update(_) | Shape::Add(_) => {
            group.operations.iter().map(|operation| writer.update::<S>(operation)).collect()
        }
    }
}

struct Writer<'w> {
    table: &'w TableWrites,
}

/// SQLite binds no more to one statement, and MySQL twice as many.
const PLACES_MAX: usize = 32_000;

impl Writer<'_> {
    fn insert<S: RowSyntax>(
        &self,
        columns: &[usize],
        operations: &[&Operation],
        end: &str,
    ) -> Vec<Bound> {
        let table = self.table;
        let names = table.keys.iter().chain(columns).chain(&table.version);
        let names: Vec<String> = names.map(|at| self.name(*at)).collect();
        let mut tuple = vec!["?"; table.keys.len() + columns.len()];
        if table.version.is_some() {
            tuple.push("1");
        }
        let tuple = format!("({})", tuple.join(","));
        let head = format!("INSERT INTO {} ({}) VALUES ", self.target(), names.join(", "));
        let rows_max = (PLACES_MAX / names.len().max(1)).max(1);
        operations
            .chunks(rows_max)
            .map(|some| {
                let mut arguments = Vec::with_capacity(some.len() * names.len());
                for operation in some {
                    self.push_key(operation, &mut arguments);
                    if let Change::Put(members) = &operation.change {
                        arguments.extend(members.iter().map(|(_, argument)| argument.clone()));
                    }
                }
                let tuples = vec![tuple.as_str(); some.len()].join(",");
                bound(format!("{head}{tuples}{end}"), arguments, some.len())
            })
            .collect()
    }

    fn delete<S: RowSyntax>(&self, operations: &[&Operation]) -> Vec<Bound> {
        let table = self.table;
        let names: Vec<String> = table.keys.iter().map(|at| self.name(*at)).collect();
        let places: Vec<String> =
            table.keys.iter().map(|at| S::key_place(&table.table.columns[*at])).collect();
        let rows_max = (PLACES_MAX / names.len().max(1)).max(1);
        let (left, tuple) = match names.as_slice() {
            [name] => (name.clone(), places.join(",")),
            names => (format!("({})", names.join(", ")), format!("({})", places.join(","))),
        };
        // SQLite takes a list of rows only as VALUES.
        let (open, close) = match (S::DIALECT, names.len()) {
            (Dialect::Sqlite, 2..) => ("(VALUES ", ")"),
            _ => ("(", ")"),
        };
        operations
            .chunks(rows_max)
            .map(|some| {
                let mut arguments = Vec::with_capacity(some.len() * names.len());
                some.iter().for_each(|operation| self.push_key(operation, &mut arguments));
                let tuples = vec![tuple.as_str(); some.len()].join(",");
                let sql =
                    format!("DELETE FROM {} WHERE {left} IN {open}{tuples}{close}", self.source());
                bound(sql, arguments, some.len())
            })
            .collect()
    }

    fn update<S: RowSyntax>(&self, operation: &Operation) -> Bound {
        let table = self.table;
        let mut set: Vec<String> = Vec::new();
        let mut arguments: Vec<Argument> = Vec::new();
        let mut condition = String::new();
        let mut behind: Vec<Argument> = Vec::new();
        match &operation.change {
            Change::Put(members) | Change::Patch(members) => {
                for (at, argument) in members {
                    set.push(format!("{} = ?", self.name(*at)));
                    arguments.push(argument.clone());
                }
            }
            Change::Add(at, by) => {
                let kind = &table.table.columns[*at].kind;
                let (sum, holds, repeated) = S::addition(&self.name(*at), kind, by.scale());
                set.push(sum);
                let by = match (kind, by.as_i64()) {
                    (ValueKind::Decimal { .. }, _) | (_, None) => Argument::Text(by.to_string()),
                    (_, Some(whole)) => Argument::Signed(whole),
                };
                behind = vec![by.clone(); repeated];
                arguments.push(by);
                condition = format!(" AND {holds}");
            }
            Change::Remove | Change::Declared(..) => {}
        }
        if let Some(version) = table.version {
            let name = self.name(version);
            set.push(format!("{name} = {name} + 1"));
        }
        let found = table.keys.iter().map(|at| {
            let column = &table.table.columns[*at];
            format!("{} = {}", self.name(*at), S::key_place(column))
        });
        let found: Vec<String> = found.collect();
        self.push_key(operation, &mut arguments);
        arguments.append(&mut behind);
        let sql = format!(
            "UPDATE {} SET {} WHERE {}{condition}",
            self.source(),
            set.join(", "),
            found.join(" AND "),
        );
        bound(sql, arguments, 1)
    }

    fn push_key(&self, operation: &Operation, arguments: &mut Vec<Argument>) {
        let table = self.table;
        for (value, column) in operation.request.values.iter().zip(&table.table.key_columns) {
            let Some(key) = column.key else { continue };
            arguments.push(key_argument(table.dialect, key.key_type, value));
        }
    }

    fn source(&self) -> String {
        self.table.dialect.quote_table(&self.table.table.schema, &self.table.table.name)
    }

    /// The table as an INSERT names it, so that what is there can be told from
    /// what is given.
    fn target(&self) -> String {
        match self.table.dialect {
            Dialect::Sqlite => format!("{} AS t", self.source()),
            Dialect::MySql | Dialect::Postgres => self.source(),
        }
    }

    fn name(&self, at: usize) -> String {
        self.table.dialect.quote(&self.table.table.columns[at].name)
    }
}

/// A text for one row, or for a power of two of them, comes again.
fn bound(sql: String, arguments: Vec<Argument>, rows: usize) -> Bound {
    Bound { sql, arguments, is_kept: rows.is_power_of_two() }
}
