use std::collections::HashMap;

use sqlx::{PgConnection, Row};

use super::decode::Decoder;
use crate::KeyType;
use crate::key_type::{KeyColumn, Repertoire};
use crate::table::{Cast, Fetch};

/// What is to be known of a type.
#[derive(Clone, Debug)]
pub(super) struct PostgresType {
    pub(super) key: Option<KeyColumn>,
    pub(super) cast: Cast,
    pub(super) fetch: Fetch,
}

/// The types with these numbers; a domain is what it is made of.
pub(super) async fn types(
    connection: &mut PgConnection,
    oids: Vec<i64>,
) -> sqlx::Result<HashMap<i64, PostgresType>> {
    let rows = sqlx::query(
        "WITH RECURSIVE base AS ( \
            SELECT oid AS asked, oid FROM pg_catalog.pg_type WHERE oid = ANY ($1::int8[]::oid[]) \
            UNION ALL \
            SELECT base.asked, t.typbasetype FROM base JOIN pg_catalog.pg_type t ON t.oid = base.oid \
            WHERE t.typtype = 'd' \
         ) \
         SELECT base.asked::int8, t.oid::int8, t.typname::text, t.typtype::text, \
            pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(t.typname), \
            pg_catalog.current_setting('server_encoding') \
         FROM base JOIN pg_catalog.pg_type t ON t.oid = base.oid \
         JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype <> 'd'",
    )
    .bind(oids)
    .fetch_all(connection)
    .await?;
    let mut types = HashMap::with_capacity(rows.len());
    for row in rows {
        let oid = u32::try_from(row.try_get::<i64, _>(1)?).unwrap_or(0);
        let name: String = row.try_get(2)?;
        let is_enum = row.try_get::<String, _>(3)? == "e";
        let repertoire = repertoire(&row.try_get::<String, _>(5)?);
        let fetch =
            if Decoder::of(oid) == Decoder::Unknown { Fetch::AsJson } else { Fetch::Native };
        let of_text = is_enum || name == "citext";
        let key =
            if of_text { Some(KeyColumn::text(repertoire)) } else { key_column(oid, repertoire) };
        let cast = Cast { name: row.try_get(4)?, is_enum };
        types.insert(row.try_get(0)?, PostgresType { key, cast, fetch });
    }
    Ok(types)
}

/// The type that a declared type of a parameter means.
pub(super) fn declared(key_type: KeyType) -> PostgresType {
    let (oid, name) = match key_type {
        KeyType::Integer => (20, "int8"),
        KeyType::Decimal => (1700, "numeric"),
        KeyType::Text => (25, "text"),
        KeyType::Boolean => (16, "bool"),
        KeyType::Uuid => (2950, "uuid"),
        KeyType::Bytes => (17, "bytea"),
        KeyType::Date => (1082, "date"),
        KeyType::Time => (1083, "time"),
        KeyType::Timestamp => (1114, "timestamp"),
        KeyType::TimestampUtc => (1184, "timestamptz"),
    };
    PostgresType {
        key: key_column(oid, Repertoire::UnicodeNoNul),
        cast: Cast { name: format!("pg_catalog.{name}"), is_enum: false },
        fetch: Fetch::Native,
    }
}

fn key_column(oid: u32, repertoire: Repertoire) -> Option<KeyColumn> {
    Some(match oid {
        16 => KeyColumn::new(KeyType::Boolean),
        17 => KeyColumn::new(KeyType::Bytes),
        20 => KeyColumn::integer(i64::MIN, i64::MAX.unsigned_abs()),
        21 => KeyColumn::integer(i16::MIN.into(), i16::MAX.unsigned_abs().into()),
        23 => KeyColumn::integer(i32::MIN.into(), i32::MAX.unsigned_abs().into()),
        26 => KeyColumn::integer(0, u32::MAX.into()),
        19 | 25 | 1043 => KeyColumn::text(repertoire),
        1042 => KeyColumn { is_padded: true, ..KeyColumn::text(repertoire) },
        1082 => KeyColumn::new(KeyType::Date),
        1083 => KeyColumn::new(KeyType::Time),
        1114 => KeyColumn::new(KeyType::Timestamp),
        1184 => KeyColumn::new(KeyType::TimestampUtc),
        1700 => KeyColumn::new(KeyType::Decimal),
        2950 => KeyColumn::new(KeyType::Uuid),
        _ => return None,
    })
}

/// What a text of this encoding can hold. Of the others nothing is known: the
/// server refuses a key that it cannot convert, and that key fails alone.
fn repertoire(encoding: &str) -> Repertoire {
    match encoding {
        "LATIN1" => Repertoire::Latin1,
        _ => Repertoire::UnicodeNoNul,
    }
}
