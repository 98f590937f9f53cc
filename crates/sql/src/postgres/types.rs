use std::collections::HashMap;

use sqlx::{PgConnection, Row};

use super::decode::Decoder;
use crate::KeyType;
use crate::key_type::{KeyColumn, Repertoire};
use crate::table::{Cast, Fetch};
use crate::write::kind::ValueKind;

/// What is to be known of a type.
#[derive(Clone, Debug)]
pub(super) struct PostgresType {
    pub(super) key: Option<KeyColumn>,
    pub(super) cast: Cast,
    pub(super) fetch: Fetch,
    /// The number of the type underneath.
    oid: u32,
    /// What a domain says of the length or the digits; -1 if nothing.
    modifier: i32,
    /// Which characters its texts can have.
    repertoire: Repertoire,
}

impl PostgresType {
    /// Which values a column of this type takes that says so much of the length
    /// or the digits.
    pub(super) fn kind(&self, modifier: i32) -> ValueKind {
        let modifier = if modifier == -1 { self.modifier } else { modifier };
        match self.fetch {
            Fetch::AsJson => ValueKind::Any,
            Fetch::Native | Fetch::JsonText => value_kind(self.oid, modifier, self.repertoire),
        }
    }
}

/// The types with these numbers; a domain is what it is made of.
pub(super) async fn types(
    connection: &mut PgConnection,
    oids: Vec<i64>,
) -> sqlx::Result<HashMap<i64, PostgresType>> {
    let rows = sqlx::query(
        "WITH RECURSIVE base AS ( \
            SELECT oid AS asked, oid, -1 AS modifier \
            FROM pg_catalog.pg_type WHERE oid = ANY ($1::int8[]::oid[]) \
            UNION ALL \
            SELECT base.asked, t.typbasetype, \
                CASE WHEN t.typtypmod = -1 THEN base.modifier ELSE t.typtypmod END FROM base JOIN pg_catalog.pg_type t ON t.oid = base.oid \
            WHERE t.typtype = 'd' \
         ) \
         SELECT base.asked::int8, t.oid::int8, t.typname::text, t.typtype::text, \
            pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(t.typname), \
            pg_catalog.current_setting('server_encoding'), base.modifier \
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
        let modifier = row.try_get(6)?;
        let known = PostgresType { key, cast, fetch, oid, modifier, repertoire };
        types.insert(row.try_get(0)?, known);
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
        oid,
        modifier: -1,
        repertoire: Repertoire::UnicodeNoNul,
    }
}

fn value_kind(oid: u32, modifier: i32, repertoire: Repertoire) -> ValueKind {
    let text = |characters_max: Option<u32>, bytes_max: Option<u32>| ValueKind::Text {
        characters_max,
        bytes_max,
        repertoire,
    };
    match oid {
        16 => ValueKind::Boolean,
        17 => ValueKind::Bytes { length_max: None },
        18 => text(None, Some(1)),
        19 => text(None, Some(63)),
        20 => ValueKind::integer(i64::MIN, i64::MAX.unsigned_abs()),
        21 => ValueKind::integer(i16::MIN.into(), i16::MAX.unsigned_abs().into()),
        23 => ValueKind::integer(i32::MIN.into(), i32::MAX.unsigned_abs().into()),
        26 => ValueKind::integer(0, u32::MAX.into()),
        25 => text(None, None),
        // The length counts four bytes that are not there.
        1042 | 1043 => text(u32::try_from(modifier - 4).ok(), None),
        114 | 3802 => ValueKind::Json,
        700 => ValueKind::Float32,
        701 => ValueKind::Float64,
        1082 => ValueKind::Date,
        1083 => ValueKind::Time,
        1114 => ValueKind::Timestamp,
        1184 => ValueKind::TimestampUtc,
        1700 => numeric(modifier),
        2950 => ValueKind::Uuid,
        22 | 30 => ValueKind::Vector,
        _ => match element(oid) {
            Some(element) => ValueKind::Array(Box::new(value_kind(element, modifier, repertoire))),
            None => ValueKind::Any,
        },
    }
}

/// Digits, and digits behind the point, which Postgres keeps in one number.
fn numeric(modifier: i32) -> ValueKind {
    let Ok(packed) = u32::try_from(modifier - 4) else {
        return ValueKind::Decimal { precision: None, scale: None, has_specials: true };
    };
    // The scale is a number of eleven bits with a sign.
    let scale = ((packed & 0x7FF) as i32 ^ 1_024) - 1_024;
    let precision = packed >> 16;
    ValueKind::Decimal { precision: Some(precision), scale: Some(scale), has_specials: true }
}

/// The type of the elements of an array type of the system catalog.
const fn element(oid: u32) -> Option<u32> {
    Some(match oid {
        199 => 114,
        1000 => 16,
        1001 => 17,
        1002 => 18,
        1003 => 19,
        1005 => 21,
        1007 => 23,
        1009 => 25,
        1014 => 1042,
        1015 => 1043,
        1016 => 20,
        1021 => 700,
        1022 => 701,
        1028 => 26,
        1115 => 1114,
        1182 => 1082,
        1183 => 1083,
        1185 => 1184,
        1231 => 1700,
        2951 => 2950,
        3807 => 3802,
        _ => return None,
    })
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
