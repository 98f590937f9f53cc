use super::catalog::repertoire;
use crate::table::Filled;
use crate::write::kind::ValueKind;

/// Which values a column takes, by `data_type`, `column_type` and character set
/// of the catalog.
pub(super) fn value_kind(data_type: &str, column_type: &str, character_set: &str) -> ValueKind {
    let column_type = column_type.to_ascii_lowercase();
    let is_unsigned = column_type.contains("unsigned");
    let integer = |bits: u32| {
        if is_unsigned {
            ValueKind::integer(0, u64::MAX >> (64 - bits))
        } else {
            ValueKind::integer(i64::MIN >> (64 - bits), i64::MAX.unsigned_abs() >> (64 - bits))
        }
    };
    let (first, second) = arguments(&column_type);
    let text = |characters_max: Option<u32>, bytes_max: Option<u32>| ValueKind::Text {
        characters_max,
        bytes_max,
        repertoire: repertoire(character_set),
    };
    let bytes = |length_max: Option<u32>| ValueKind::Bytes { length_max };
    match data_type.to_ascii_lowercase().as_str() {
        "tinyint" => integer(8),
        "smallint" => integer(16),
        "mediumint" => integer(24),
        "int" => integer(32),
        "bigint" => integer(64),
        "year" => ValueKind::integer(0, 2155),
        "bit" => ValueKind::integer(0, u64::MAX >> (64 - first.unwrap_or(1).clamp(1, 64))),
        "float" => ValueKind::Float32,
        "double" => ValueKind::Float64,
        "decimal" => ValueKind::Decimal {
            precision: first,
            scale: second.and_then(|scale| i32::try_from(scale).ok()),
            has_specials: false,
        },
        "char" | "varchar" => text(first, None),
        "tinytext" => text(None, Some(0xFF)),
        "text" => text(None, Some(0xFFFF)),
        "mediumtext" => text(None, Some(0xFF_FFFF)),
        "longtext" => text(None, None),
        "enum" | "set" | "inet4" | "inet6" => text(None, None),
        "binary" | "varbinary" => bytes(first),
        "tinyblob" => bytes(Some(0xFF)),
        "blob" => bytes(Some(0xFFFF)),
        "mediumblob" => bytes(Some(0xFF_FFFF)),
        "uuid" => ValueKind::Uuid,
        "date" => ValueKind::Date,
        "time" => ValueKind::Span,
        "datetime" => ValueKind::Timestamp,
        "timestamp" => ValueKind::TimestampUtc,
        "json" => ValueKind::Json,
        // Large and spatial objects.
        _ => bytes(None),
    }
}

/// Where a column's values come from, by `extra` of the catalog.
pub(super) fn filled(extra: &str) -> Filled {
    let extra = extra.to_ascii_uppercase();
    // MySQL says DEFAULT_GENERATED of a default that is an expression.
    if extra.contains("VIRTUAL") || extra.contains("STORED") || extra.contains("PERSISTENT") {
        Filled::Expression
    } else {
        Filled::Writer
    }
}

/// The numbers in `decimal(10,2)`.
fn arguments(column_type: &str) -> (Option<u32>, Option<u32>) {
    let inside = column_type.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    let mut numbers = inside.map_or("", |(inside, _)| inside).split(',');
    let mut next = || numbers.next().and_then(|number| number.trim().parse().ok());
    (next(), next())
}
