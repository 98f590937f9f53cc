use larder_core::Result;
use sqlx::{Row, SqliteConnection};

use super::SqliteEngine;
use crate::KeyType;
use crate::catalog::{Relation, UniqueIndex};
use crate::engine::Pools;
use crate::key_type::{KeyColumn, Repertoire};
use crate::table::{Column, Fetch, Filled, TableKind};
use crate::write::kind::{StorageClass, ValueKind};

/// The tables and views of the file.
pub(crate) async fn relations(pools: &Pools<SqliteEngine>) -> Result<Vec<Relation>> {
    let mut lease = pools.primary.acquire().await?;
    let (_, reader) = lease.parts();
    match read(&mut reader.connection).await {
        Ok(relations) => {
            lease.release();
            Ok(relations)
        }
        Err(error) => Err(lease.fail(pools.primary.label(), &error)),
    }
}

async fn read(connection: &mut SqliteConnection) -> sqlx::Result<Vec<Relation>> {
    let rows = sqlx::query(
        "SELECT s.name, s.type, s.sql, l.strict FROM sqlite_schema s \
         LEFT JOIN pragma_table_list l ON l.name = s.name AND l.schema = 'main' \
         WHERE s.type IN ('table', 'view') AND s.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
         AND coalesce(l.type, '') <> 'shadow' ORDER BY s.name",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut relations = Vec::with_capacity(rows.len());
    for row in rows {
        let name: String = row.try_get(0)?;
        let kind =
            if row.try_get::<String, _>(1)? == "view" { TableKind::View } else { TableKind::Table };
        let is_strict = row.try_get::<Option<i64>, _>(3)? == Some(1);
        let mut relation = Relation {
            schema: "main".to_owned(),
            name,
            kind,
            is_in_default_schema: true,
            columns: Vec::new(),
            primary_key: Vec::new(),
            unique_indexes: Vec::new(),
            definition: row.try_get(2)?,
            obstacle: None,
        };
        match read_columns(connection, &mut relation, is_strict).await {
            Ok(()) => read_indexes(connection, &mut relation).await?,
            // A view over a table that is gone, a virtual table whose module is
            // not loaded: the others are served all the same.
            Err(sqlx::Error::Database(error)) => {
                let (reason, remedy) = ("SQLite cannot read it", "mend or drop it");
                relation.obstacle =
                    Some((format!("{reason}: {}", error.message()), remedy.to_owned()));
            }
            Err(error) => return Err(error),
        }
        relations.push(relation);
    }
    Ok(relations)
}

async fn read_columns(
    connection: &mut SqliteConnection,
    relation: &mut Relation,
    is_strict: bool,
) -> sqlx::Result<()> {
    // Hidden columns of virtual tables (1) are arguments, not values; generated
    // columns (2, 3) are values.
    let rows = sqlx::query(
        "SELECT name, type, \"notnull\", pk, hidden FROM pragma_table_xinfo(?) WHERE hidden <> 1 ORDER BY cid",
    )
    .bind(relation.name.as_str())
    .fetch_all(connection)
    .await?;
    let mut key: Vec<(i64, String)> = Vec::new();
    for row in rows {
        let name: String = row.try_get(0)?;
        let type_name: String = row.try_get(1)?;
        let place: i64 = row.try_get(3)?;
        if place > 0 {
            key.push((place, name.clone()));
        }
        relation.columns.push(Column {
            name,
            key: key_column(&type_name, is_strict),
            kind: ValueKind::Class(StorageClass::of(&type_name)),
            filled: match row.try_get::<i64, _>(4)? {
                2 | 3 => Filled::Expression,
                _ => Filled::Writer,
            },
            type_name,
            fetch: Fetch::Native,
            is_nullable: row.try_get::<i64, _>(2)? == 0,
            cast: None,
            charset: None,
        });
    }
    key.sort_unstable();
    relation.primary_key = key.into_iter().map(|(_, name)| name).collect();
    Ok(())
}

async fn read_indexes(
    connection: &mut SqliteConnection,
    relation: &mut Relation,
) -> sqlx::Result<()> {
    let rows = sqlx::query(
        "SELECT l.name, i.name FROM pragma_index_list(?) l, pragma_index_info(l.name) i \
         WHERE l.\"unique\" = 1 AND l.partial = 0 AND l.origin <> 'pk' ORDER BY l.name, i.seqno",
    )
    .bind(relation.name.as_str())
    .fetch_all(connection)
    .await?;
    for row in rows {
        let name: String = row.try_get(0)?;
        // An index over an expression has no name for it: no column has this one.
        let column = row.try_get::<Option<String>, _>(1)?.unwrap_or_else(|| "\0".to_owned());
        match relation.unique_indexes.last_mut() {
            Some(index) if index.name == name => index.columns.push(column),
            _ => relation.unique_indexes.push(UniqueIndex { name, columns: vec![column] }),
        }
    }
    Ok(())
}

/// How a key spells a value of a column, by the affinity of its declared type.
/// A column without affinity may hold both 1 and '1', which a key cannot tell
/// apart.
fn key_column(declared: &str, is_strict: bool) -> Option<KeyColumn> {
    let declared = declared.to_ascii_uppercase();
    let has = |part: &str| declared.contains(part);
    if has("INT") {
        Some(KeyColumn::integer(i64::MIN, i64::MAX.unsigned_abs()))
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        Some(KeyColumn::text(Repertoire::Unicode))
    } else if declared == "BLOB" {
        Some(KeyColumn::new(KeyType::Bytes))
    } else if declared.is_empty() || has("BLOB") || (is_strict && declared == "ANY") {
        None
    } else {
        // Of numeric affinity: whatever text it is, SQLite makes a number of it
        // when it stores it and when it compares it, or leaves it text.
        Some(KeyColumn::text(Repertoire::Unicode))
    }
}
