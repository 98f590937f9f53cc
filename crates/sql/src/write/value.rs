//! A member of a value as what its column takes: the inverse of what a load
//! makes of a column.

use std::borrow::Cow;

use super::kind::{StorageClass, ValueKind};
use super::{moment, number};
use crate::{Dialect, json};

/// What is bound to a statement.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Argument {
    Null,
    Signed(i64),
    /// Above the largest signed integer.
    Unsigned(u64),
    Real(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// A piece of JSON, to stand in the one JSON text that Postgres is given.
    Token(Vec<u8>),
}

/// Why a member is no value of its column, and what would be. Neither repeats
/// the value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Misfit {
    pub(crate) reason: &'static str,
    pub(crate) remedy: Cow<'static, str>,
}

impl Misfit {
    pub(crate) fn new(reason: &'static str, remedy: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, remedy: remedy.into() }
    }
}

/// A token of JSON, told apart.
pub(crate) enum Token<'t> {
    Null,
    Boolean(bool),
    Number(&'t str),
    Text(Cow<'t, str>),
    /// An array or an object.
    Nested(&'t str),
}

impl<'t> Token<'t> {
    /// Tells a token apart that a parser has accepted as JSON.
    pub(crate) fn of(token: &'t str) -> Result<Self, Misfit> {
        let unreadable = || Misfit::new("it is not a JSON value", "write one JSON value");
        Ok(match token.as_bytes().first().ok_or_else(unreadable)? {
            b'n' => Self::Null,
            b't' => Self::Boolean(true),
            b'f' => Self::Boolean(false),
            b'"' => Self::Text(text(token).ok_or_else(|| {
                Misfit::new(
                    "it has an escape that stands for no character",
                    "write each surrogate as half of a pair",
                )
            })?),
            b'[' | b'{' => Self::Nested(token),
            _ => Self::Number(token),
        })
    }
}

/// The text of a JSON string, copied only where it has escapes.
fn text(token: &str) -> Option<Cow<'_, str>> {
    let inner = token.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str::<String>(token).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// What is bound for a member of a value.
pub(crate) fn argument(
    dialect: Dialect,
    kind: &ValueKind,
    token: &str,
) -> Result<Argument, Misfit> {
    let parsed = Token::of(token)?;
    if matches!(parsed, Token::Null) {
        return Ok(Argument::Null);
    }
    let native = match kind {
        ValueKind::Class(class) => return of_class(*class, parsed),
        ValueKind::Boolean => match parsed {
            Token::Boolean(_) => return Ok(Argument::Token(token.into())),
            _ => return Err(Misfit::new("it is not a boolean", "write true or false")),
        },
        ValueKind::Integer { minimum, maximum } => {
            number::integer(&parsed, *minimum, *maximum, dialect == Dialect::MySql)?
        }
        ValueKind::Float32 => number::float(&parsed, dialect, f64::from(f32::MAX))?,
        ValueKind::Float64 => number::float(&parsed, dialect, f64::MAX)?,
        ValueKind::Decimal { precision, scale, has_specials } => {
            number::decimal(&parsed, *precision, *scale, *has_specials)?
        }
        ValueKind::Text { .. } => Argument::Text(characters(kind, parsed)?),
        ValueKind::Bytes { length_max } => Argument::Bytes(bytes(parsed, *length_max)?),
        ValueKind::Uuid => Argument::Text(uuid(parsed)?),
        ValueKind::Date
        | ValueKind::Time
        | ValueKind::Span
        | ValueKind::Timestamp
        | ValueKind::TimestampUtc => Argument::Text(moment::text(dialect, kind, parsed)?),
        ValueKind::Json if dialect == Dialect::Postgres => Argument::Token(token.into()),
        ValueKind::Json => Argument::Text(token.to_owned()),
        ValueKind::Vector => Argument::Text(vector(&parsed)?),
        ValueKind::Array(element) => {
            let mut out = Vec::with_capacity(token.len());
            array(element, token, 0, &mut out)?;
            Argument::Token(out)
        }
        ValueKind::Any => Argument::Token(token.into()),
    };
    Ok(if dialect == Dialect::Postgres { as_token(native, token) } else { native })
}

/// A value for Postgres: the token itself where its text is the type's own.
fn as_token(native: Argument, token: &str) -> Argument {
    let mut out = Vec::new();
    match native {
        Argument::Bytes(bytes) => {
            out.extend_from_slice(b"\"\\\\x");
            json::write_hexadecimal(&mut out, &bytes);
            out.push(b'"');
        }
        Argument::Text(text) => json::write_string(&mut out, text.as_bytes()),
        Argument::Token(token) => out = token,
        _ => out.extend_from_slice(token.as_bytes()),
    }
    Argument::Token(out)
}

fn characters(kind: &ValueKind, token: Token<'_>) -> Result<String, Misfit> {
    let ValueKind::Text { characters_max, bytes_max, repertoire } = kind else {
        return Err(Misfit::new("it is not a text", "write a JSON string"));
    };
    let Token::Text(text) = token else {
        return Err(Misfit::new("it is not a text", "write a JSON string"));
    };
    let limit = |max: &Option<u32>| max.map_or(usize::MAX, |max| max as usize);
    if text.len() > limit(bytes_max) {
        let most = limit(bytes_max);
        return Err(Misfit::new("it is too long", format!("write at most {most} bytes")));
    }
    if text.len() > limit(characters_max) && text.chars().count() > limit(characters_max) {
        let most = limit(characters_max);
        return Err(Misfit::new("it is too long", format!("write at most {most} characters")));
    }
    if !repertoire.holds(&text) {
        return Err(Misfit::new(
            "it has a character that the column cannot hold",
            "leave the character out (Postgres stores no U+0000), or change the column's character set",
        ));
    }
    Ok(text.into_owned())
}

fn bytes(token: Token<'_>, length_max: Option<u32>) -> Result<Vec<u8>, Misfit> {
    let misfit = || {
        Misfit::new(
            "it is not bytes",
            "write a JSON string of hexadecimal digits, two for each byte",
        )
    };
    let Token::Text(text) = token else { return Err(misfit()) };
    let bytes = hexadecimal(&text).ok_or_else(misfit)?;
    match length_max {
        Some(most) if bytes.len() > most as usize => {
            Err(Misfit::new("it is too long", format!("write at most {most} bytes")))
        }
        _ => Ok(bytes),
    }
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pair = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

fn uuid(token: Token<'_>) -> Result<String, Misfit> {
    let is_uuid = |text: &str| {
        text.len() == 36
            && text.bytes().enumerate().all(|(index, byte)| match index {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            })
    };
    match token {
        Token::Text(text) if is_uuid(&text) => Ok(text.into_owned()),
        _ => Err(Misfit::new(
            "it is not a UUID",
            "write a JSON string of 32 hexadecimal digits with hyphens",
        )),
    }
}

fn vector(token: &Token<'_>) -> Result<String, Misfit> {
    let misfit = || Misfit::new("it is not a list of whole numbers", "write one like [1,2]");
    let Token::Nested(list) = token else { return Err(misfit()) };
    let numbers: Vec<u32> = serde_json::from_str(list).map_err(|_| misfit())?;
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    Ok(numbers.join(" "))
}

/// Postgres allows six dimensions.
const DIMENSIONS_MAX: usize = 6;

/// Writes an array with its elements as Postgres reads them.
fn array(element: &ValueKind, token: &str, depth: usize, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let misfit = || Misfit::new("it is not an array", "write a JSON array");
    if !token.starts_with('[') || depth == DIMENSIONS_MAX {
        return Err(misfit());
    }
    let items: Vec<&serde_json::value::RawValue> =
        serde_json::from_str(token).map_err(|_| misfit())?;
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"" } else { b"," });
        let item = item.get();
        if item.starts_with('[') && !matches!(element, ValueKind::Json) {
            array(element, item, depth + 1, out)?;
            continue;
        }
        match argument(Dialect::Postgres, element, item)? {
            Argument::Token(token) => out.extend_from_slice(&token),
            _ => out.extend_from_slice(b"null"),
        }
    }
    out.push(b']');
    Ok(())
}

/// What SQLite is given: it decides by the column's affinity how it is stored.
fn of_class(class: StorageClass, token: Token<'_>) -> Result<Argument, Misfit> {
    let is_numeric = matches!(class, StorageClass::Real | StorageClass::Numeric);
    match token {
        Token::Null => Ok(Argument::Null),
        Token::Text(text) if class == StorageClass::Blob => {
            bytes(Token::Text(text), None).map(Argument::Bytes)
        }
        Token::Text(text) if is_numeric && text == "Infinity" => Ok(Argument::Real(f64::INFINITY)),
        Token::Text(text) if is_numeric && text == "-Infinity" => {
            Ok(Argument::Real(f64::NEG_INFINITY))
        }
        Token::Text(text) => Ok(Argument::Text(text.into_owned())),
        _ if class == StorageClass::Text => {
            Err(Misfit::new("it is not a text", "write a JSON string"))
        }
        Token::Boolean(boolean) => Ok(Argument::Signed(boolean.into())),
        Token::Number(number) => number::of_sqlite(number),
        Token::Nested(token) if class == StorageClass::Json => Ok(Argument::Text(token.to_owned())),
        Token::Nested(_) => Err(Misfit::new(
            "it is an array or an object",
            "write it as a JSON string, or declare the column as JSON",
        )),
    }
}

/// What is bound for a member of which no column is known, such as a parameter
/// of a declared statement.
pub(crate) fn untyped(dialect: Dialect, token: &str) -> Result<Argument, Misfit> {
    Ok(match Token::of(token)? {
        Token::Null => Argument::Null,
        Token::Boolean(boolean) => Argument::Signed(boolean.into()),
        Token::Number(number) => number::untyped(dialect, number)?,
        Token::Text(text) => Argument::Text(text.into_owned()),
        Token::Nested(token) => Argument::Text(token.to_owned()),
    })
}
