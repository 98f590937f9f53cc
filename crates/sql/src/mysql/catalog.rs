use std::collections::HashMap;

use larder_core::{Error, ErrorKind, Result};
use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::MySqlEngine;
use super::kind::{filled, value_kind};
use crate::KeyType;
use crate::catalog::{Relation, UniqueIndex};
use crate::engine::Pools;
use crate::key_type::{KeyColumn, Repertoire};
use crate::table::{Charset, Column, Fetch, TableKind};
use crate::write::kind::ValueKind;

/// The tables and views of these databases, or of the one in the URL.
pub(crate) async fn relations(
    pools: &Pools<MySqlEngine>,
    schemas: &[String],
) -> Result<Vec<Relation>> {
    let mut lease = pools.primary.acquire().await?;
    let (engine, connection) = lease.parts();
    let is_mariadb = engine.is_mariadb();
    match read(connection, schemas, is_mariadb).await {
        Ok(Some(relations)) => {
            lease.release();
            Ok(relations)
        }
        Ok(None) => {
            lease.release();
            Err(Error::new(ErrorKind::Config, "the URL names no database")
                .with("database", pools.primary.label())
                .remedy("write it like mysql://user@host:3306/shop, or list schemas"))
        }
        Err(error) => Err(lease.fail(pools.primary.label(), &error)),
    }
}

/// Tables by schema and name.
type Places = HashMap<(String, String), usize>;

async fn read(
    connection: &mut MySqlConnection,
    schemas: &[String],
    is_mariadb: bool,
) -> sqlx::Result<Option<Vec<Relation>>> {
    let default: Option<String> =
        sqlx::query_scalar("SELECT DATABASE()").fetch_one(&mut *connection).await?;
    let schemas = match (&default, schemas) {
        (Some(default), []) => vec![default.clone()],
        (None, []) => return Ok(None),
        (_, schemas) => schemas.to_vec(),
    };
    let rows = fetch(
        connection,
        "SELECT t.table_schema, t.table_name, t.table_type, v.view_definition \
         FROM information_schema.tables t LEFT JOIN information_schema.views v \
         ON v.table_schema = t.table_schema AND v.table_name = t.table_name \
         WHERE t.table_type <> 'SEQUENCE' AND t.table_schema IN",
        &schemas,
        "ORDER BY t.table_schema, t.table_name",
    )
    .await?;
    let mut relations = Vec::with_capacity(rows.len());
    let mut places = Places::new();
    for row in &rows {
        let (schema, name) = (text(row, 0), text(row, 1));
        let definition = text(row, 3);
        places.insert((schema.clone(), name.clone()), relations.len());
        relations.push(Relation {
            is_in_default_schema: default.as_ref() == Some(&schema),
            schema,
            name,
            kind: if text(row, 2).contains("VIEW") { TableKind::View } else { TableKind::Table },
            columns: Vec::new(),
            primary_key: Vec::new(),
            unique_indexes: Vec::new(),
            definition: (!definition.is_empty()).then_some(definition),
            obstacle: None,
        });
    }
    read_columns(connection, &schemas, &places, &mut relations).await?;
    read_indexes(connection, &schemas, &places, &mut relations).await?;
    if is_mariadb {
        read_json_columns(connection, &schemas, &places, &mut relations).await?;
    }
    Ok(Some(relations))
}

async fn read_columns(
    connection: &mut MySqlConnection,
    schemas: &[String],
    places: &Places,
    relations: &mut [Relation],
) -> sqlx::Result<()> {
    let rows = fetch(
        connection,
        "SELECT table_schema, table_name, column_name, data_type, column_type, is_nullable, \
         character_set_name, collation_name, extra FROM information_schema.columns WHERE table_schema IN",
        schemas,
        "ORDER BY table_schema, table_name, ordinal_position",
    )
    .await?;
    for row in &rows {
        let Some(&place) = places.get(&(text(row, 0), text(row, 1))) else { continue };
        let type_name = text(row, 4);
        relations[place].columns.push(Column {
            name: text(row, 2),
            key: key_column(&text(row, 3), &type_name, &text(row, 6)),
            kind: value_kind(&text(row, 3), &type_name, &text(row, 6)),
            filled: filled(&text(row, 8)),
            type_name,
            fetch: Fetch::Native,
            is_nullable: text(row, 5) != "NO",
            cast: None,
            charset: charset(text(row, 6), text(row, 7)),
        });
    }
    Ok(())
}

async fn read_indexes(
    connection: &mut MySqlConnection,
    schemas: &[String],
    places: &Places,
    relations: &mut [Relation],
) -> sqlx::Result<()> {
    let rows = fetch(
        connection,
        "SELECT table_schema, table_name, index_name, column_name \
         FROM information_schema.statistics WHERE non_unique = 0 AND table_schema IN",
        schemas,
        "ORDER BY table_schema, table_name, index_name, seq_in_index",
    )
    .await?;
    for row in &rows {
        let Some(&place) = places.get(&(text(row, 0), text(row, 1))) else { continue };
        let (index, column) = (text(row, 2), text(row, 3));
        // An index over an expression has no name for it, and no column has the
        // empty one.
        if index == "PRIMARY" {
            relations[place].primary_key.push(column);
            continue;
        }
        match relations[place].unique_indexes.last_mut() {
            Some(known) if known.name == index => known.columns.push(column),
            _ => relations[place]
                .unique_indexes
                .push(UniqueIndex { name: index, columns: vec![column] }),
        }
    }
    Ok(())
}

/// In MariaDB a JSON column is a text with a check.
async fn read_json_columns(
    connection: &mut MySqlConnection,
    schemas: &[String],
    places: &Places,
    relations: &mut [Relation],
) -> sqlx::Result<()> {
    let rows = fetch(
        connection,
        "SELECT constraint_schema, table_name, check_clause \
         FROM information_schema.check_constraints WHERE constraint_schema IN",
        schemas,
        "",
    )
    .await?;
    for row in &rows {
        let Some(&place) = places.get(&(text(row, 0), text(row, 1))) else { continue };
        let clause = text(row, 2).to_ascii_lowercase();
        for column in &mut relations[place].columns {
            let name = column.name.to_ascii_lowercase().replace('`', "``");
            if clause == format!("json_valid(`{name}`)") {
                column.fetch = Fetch::JsonText;
                column.kind = ValueKind::Json;
                column.key = None;
            }
        }
    }
    Ok(())
}

/// The rows of a catalog query over these schemas.
async fn fetch(
    connection: &mut MySqlConnection,
    select: &str,
    schemas: &[String],
    order: &str,
) -> sqlx::Result<Vec<MySqlRow>> {
    let marks = vec!["?"; schemas.len()].join(", ");
    let sql = format!("{select} ({marks}) {order}");
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for schema in schemas {
        query = query.bind(schema);
    }
    query.fetch_all(connection).await
}

/// A text of the catalog, which some servers declare as bytes; empty for NULL.
fn text(row: &MySqlRow, index: usize) -> String {
    let bytes = row.try_get_unchecked::<Option<Vec<u8>>, _>(index).ok().flatten();
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

fn key_column(data_type: &str, column_type: &str, character_set: &str) -> Option<KeyColumn> {
    let is_unsigned = column_type.to_ascii_lowercase().contains("unsigned");
    let integer = |bits: u32| {
        Some(if is_unsigned {
            KeyColumn::integer(0, u64::MAX >> (64 - bits))
        } else {
            KeyColumn::integer(i64::MIN >> (64 - bits), i64::MAX.unsigned_abs() >> (64 - bits))
        })
    };
    match data_type.to_ascii_lowercase().as_str() {
        "tinyint" => integer(8),
        "smallint" => integer(16),
        "mediumint" => integer(24),
        "int" => integer(32),
        "bigint" => integer(64),
        "year" => Some(KeyColumn::integer(0, 2155)),
        "bit" => Some(KeyColumn::integer(0, u64::MAX)),
        "decimal" => Some(decimal(column_type)),
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "enum" | "set" => {
            Some(KeyColumn::text(repertoire(character_set)))
        }
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => {
            Some(KeyColumn::new(KeyType::Bytes))
        }
        "uuid" => Some(KeyColumn::new(KeyType::Uuid)),
        "date" => Some(KeyColumn::new(KeyType::Date)),
        "time" => Some(KeyColumn::span()),
        "datetime" => Some(KeyColumn::new(KeyType::Timestamp)),
        "timestamp" => Some(KeyColumn::new(KeyType::TimestampUtc)),
        _ => None,
    }
}

/// `decimal(10,2)`, and whatever stands behind it.
fn decimal(column_type: &str) -> KeyColumn {
    let digits = column_type.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    let (precision, scale) =
        digits.and_then(|(digits, _)| digits.split_once(',')).unwrap_or_default();
    match (precision.trim().parse(), scale.trim().parse()) {
        (Ok(precision), Ok(scale)) => super::plan::decimal(precision, scale),
        _ => KeyColumn::new(KeyType::Decimal),
    }
}

/// What a text of this character set can hold. A key with any other character
/// would make the server convert the column instead of the key, and so read the
/// whole table. Of the many small sets nothing is known: see [`charset`].
pub(super) fn repertoire(character_set: &str) -> Repertoire {
    match character_set {
        "utf8" | "utf8mb3" | "ucs2" => Repertoire::BasicPlane,
        "latin1" => Repertoire::Windows1252,
        "ascii" => Repertoire::Ascii,
        _ => Repertoire::Unicode,
    }
}

/// A character set to which keys are converted by the server, because what it
/// can hold is not known here.
fn charset(name: String, collation: String) -> Option<Charset> {
    const KNOWN: [&str; 9] =
        ["utf8mb4", "utf8mb3", "utf8", "utf16", "utf16le", "utf32", "ucs2", "latin1", "ascii"];
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let is_converted = !KNOWN.contains(&name.as_str()) && is_name(&name) && is_name(&collation);
    is_converted.then_some(Charset { name, collation })
}
