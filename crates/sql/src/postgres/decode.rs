use super::numeric::write_numeric;
use crate::calendar::{self, DAY_MICROS};
use crate::json;

/// How the binary form of a column becomes JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Decoder {
    Boolean,
    Integer16,
    Integer32,
    Integer64,
    Oid,
    Float32,
    Float64,
    Numeric,
    Text,
    Bytes,
    Uuid,
    Date,
    Time,
    Timestamp,
    TimestampUtc,
    /// JSON text, embedded as it is.
    Json,
    /// JSON text behind one byte of version.
    Jsonb,
    Array,
    /// A type whose binary form is not known: it should have been fetched as
    /// JSON, so the table changed.
    Unknown,
}

/// Microseconds and days from 1970-01-01 to 2000-01-01, where Postgres starts.
const EPOCH_DAYS: i64 = 10_957;
/// Postgres allows six.
const DIMENSIONS_MAX: i32 = 6;

impl Decoder {
    /// The decoder of a type of the system catalog; the numbers are fixed by
    /// Postgres.
    pub(super) const fn of(oid: u32) -> Self {
        match oid {
            16 => Self::Boolean,
            17 => Self::Bytes,
            // "char", name, text, unknown, bpchar, varchar.
            18 | 19 | 25 | 705 | 1042 | 1043 => Self::Text,
            20 => Self::Integer64,
            21 => Self::Integer16,
            23 => Self::Integer32,
            26 => Self::Oid,
            114 => Self::Json,
            700 => Self::Float32,
            701 => Self::Float64,
            1082 => Self::Date,
            1083 => Self::Time,
            1114 => Self::Timestamp,
            1184 => Self::TimestampUtc,
            1700 => Self::Numeric,
            2950 => Self::Uuid,
            3802 => Self::Jsonb,
            // Arrays of the above, int2vector and oidvector.
            22
            | 30
            | 199
            | 1000..=1003
            | 1005
            | 1007
            | 1009
            | 1014..=1016
            | 1021
            | 1022
            | 1028
            | 1115
            | 1182
            | 1183
            | 1185
            | 1231
            | 2951
            | 3807 => Self::Array,
            _ => Self::Unknown,
        }
    }

    /// Writes a value that is not NULL.
    pub(super) fn write(self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::Boolean => {
                let [byte] = fixed(bytes)?;
                out.extend_from_slice(if byte == 0 { b"false" } else { b"true" });
            }
            Self::Integer16 => json::write_integer(out, i16::from_be_bytes(fixed(bytes)?)),
            Self::Integer32 => json::write_integer(out, i32::from_be_bytes(fixed(bytes)?)),
            Self::Integer64 => json::write_integer(out, i64::from_be_bytes(fixed(bytes)?)),
            Self::Oid => json::write_integer(out, u32::from_be_bytes(fixed(bytes)?)),
            Self::Float32 => json::write_float(out, f32::from_be_bytes(fixed(bytes)?)),
            Self::Float64 => json::write_float(out, f64::from_be_bytes(fixed(bytes)?)),
            Self::Text => json::write_string(out, bytes),
            Self::Bytes => json::write_bytes(out, bytes),
            Self::Json => out.extend_from_slice(bytes),
            Self::Jsonb => match bytes.split_first() {
                Some((1, json)) => out.extend_from_slice(json),
                _ => return Err("a jsonb is of an unknown version".to_owned()),
            },
            Self::Array => write_array(bytes, out)?,
            Self::Unknown => {
                return Err("its type changed since the start: start Larder again".to_owned());
            }
            Self::Numeric
            | Self::Uuid
            | Self::Date
            | Self::Time
            | Self::Timestamp
            | Self::TimestampUtc => {
                out.push(b'"');
                self.write_quoted(bytes, out)?;
                out.push(b'"');
            }
        }
        Ok(())
    }

    fn write_quoted(self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::Numeric => write_numeric(bytes, out)?,
            Self::Uuid => {
                let uuid: [u8; 16] = fixed(bytes)?;
                let mut rest = uuid.as_slice();
                for (index, length) in [4, 2, 2, 2, 6].into_iter().enumerate() {
                    let (group, tail) = rest.split_at(length);
                    out.extend_from_slice(if index == 0 { b"" } else { b"-" });
                    json::write_hexadecimal(out, group);
                    rest = tail;
                }
            }
            Self::Date => match i32::from_be_bytes(fixed(bytes)?) {
                i32::MAX => out.extend_from_slice(b"infinity"),
                i32::MIN => out.extend_from_slice(b"-infinity"),
                days => {
                    let (year, month, day) =
                        calendar::civil_from_days(i64::from(days) + EPOCH_DAYS);
                    if calendar::write_date(out, year, month, day) {
                        out.extend_from_slice(b" BC");
                    }
                }
            },
            Self::Time => {
                let micros = i64::from_be_bytes(fixed(bytes)?);
                calendar::write_time(out, micros.unsigned_abs());
            }
            _ => match i64::from_be_bytes(fixed(bytes)?) {
                i64::MAX => out.extend_from_slice(b"infinity"),
                i64::MIN => out.extend_from_slice(b"-infinity"),
                micros => {
                    let days = micros.div_euclid(DAY_MICROS) + EPOCH_DAYS;
                    let (year, month, day) = calendar::civil_from_days(days);
                    let before_christ = calendar::write_date(out, year, month, day);
                    out.push(b'T');
                    calendar::write_time(out, micros.rem_euclid(DAY_MICROS).unsigned_abs());
                    if self == Self::TimestampUtc {
                        out.push(b'Z');
                    }
                    if before_christ {
                        out.extend_from_slice(b" BC");
                    }
                }
            },
        }
        Ok(())
    }
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], String> {
    bytes.try_into().map_err(|_| format!("a value has {} bytes instead of {N}", bytes.len()))
}

/// An array: the number of dimensions, a flag, the type of the elements, length
/// and lower bound of each dimension, then the elements row by row.
fn write_array(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let mut reader = Reader(bytes);
    let dimensions = reader.integer()?;
    let _has_nulls = reader.integer()?;
    let element = Decoder::of(reader.integer()?.cast_unsigned());
    if !(0..=DIMENSIONS_MAX).contains(&dimensions) || element == Decoder::Array {
        return Err("an array is of an unknown form".to_owned());
    }
    let mut lengths = Vec::new();
    for _ in 0..dimensions {
        lengths.push(reader.integer()?);
        let _lower_bound = reader.integer()?;
    }
    if lengths.is_empty() {
        out.extend_from_slice(b"[]");
        return Ok(());
    }
    write_dimension(&mut reader, element, &lengths, out)
}

fn write_dimension(
    reader: &mut Reader<'_>,
    element: Decoder,
    lengths: &[i32],
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let Some((&length, inner)) = lengths.split_first() else {
        if let Some(bytes) = reader.element()? {
            return element.write(bytes, out);
        }
        out.extend_from_slice(b"null");
        return Ok(());
    };
    out.push(b'[');
    for index in 0..length {
        if index > 0 {
            out.push(b',');
        }
        write_dimension(reader, element, inner, out)?;
    }
    out.push(b']');
    Ok(())
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, length: usize) -> Result<&'b [u8], String> {
        let (taken, rest) =
            self.0.split_at_checked(length).ok_or_else(|| "an array is cut short".to_owned())?;
        self.0 = rest;
        Ok(taken)
    }

    fn integer(&mut self) -> Result<i32, String> {
        Ok(i32::from_be_bytes(fixed(self.take(4)?)?))
    }

    fn element(&mut self) -> Result<Option<&'b [u8]>, String> {
        match usize::try_from(self.integer()?) {
            Ok(length) => self.take(length).map(Some),
            Err(_) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn moments_keep_their_microseconds() {
        let text = |decoder: Decoder, micros: i64| {
            let mut out = Vec::new();
            decoder.write(&micros.to_be_bytes(), &mut out).expect("eight bytes are a timestamp");
            String::from_utf8(out).expect("JSON is UTF-8")
        };
        assert_eq!(text(Decoder::TimestampUtc, 1), r#""2000-01-01T00:00:00.000001Z""#);
        assert_eq!(text(Decoder::Timestamp, -1), r#""1999-12-31T23:59:59.999999""#);
        assert_eq!(text(Decoder::TimestampUtc, i64::MAX), r#""infinity""#);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(oid in 0_u32..4_000, bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut out = Vec::new();
            let _ = Decoder::of(oid).write(&bytes, &mut out);
        }
    }
}
