use crate::key_type::Repertoire;

/// Which values a column takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ValueKind {
    Boolean,
    Integer {
        minimum: i64,
        maximum: u64,
    },
    Float32,
    Float64,
    Decimal {
        /// Digits in all; `None` for as many as there are.
        precision: Option<u32>,
        /// Digits behind the point; if negative, so many zeros before it.
        scale: Option<i32>,
        /// It can be NaN and infinite.
        has_specials: bool,
    },
    Text {
        characters_max: Option<u32>,
        bytes_max: Option<u32>,
        repertoire: Repertoire,
    },
    Bytes {
        length_max: Option<u32>,
    },
    Uuid,
    Date,
    Time,
    /// A time that can be negative and longer than a day (MySQL).
    Span,
    Timestamp,
    TimestampUtc,
    Json,
    /// Whole numbers behind each other (`int2vector` of Postgres).
    Vector,
    /// Postgres.
    Array(Box<Self>),
    /// Whatever the database makes of it: a type of Postgres whose JSON is the
    /// server's.
    Any,
    /// SQLite.
    Class(StorageClass),
}

impl ValueKind {
    pub(crate) const fn integer(minimum: i64, maximum: u64) -> Self {
        Self::Integer { minimum, maximum }
    }
}

/// How SQLite stores what is given to a column: its affinity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StorageClass {
    Integer,
    Real,
    Numeric,
    Text,
    Blob,
    /// As it is given.
    Any,
    /// Declared as JSON, which for SQLite is a text or number.
    Json,
}

impl StorageClass {
    /// By the rules of SQLite for declared types.
    pub(crate) fn of(declared: &str) -> Self {
        let declared = declared.to_ascii_uppercase();
        let has = |part: &str| declared.contains(part);
        if has("INT") {
            Self::Integer
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Self::Text
        } else if has("BLOB") {
            Self::Blob
        } else if declared.is_empty() || declared == "ANY" {
            Self::Any
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Self::Real
        } else if has("JSON") {
            Self::Json
        } else {
            Self::Numeric
        }
    }
}
