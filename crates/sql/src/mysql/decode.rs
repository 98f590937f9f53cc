use sqlx::mysql::MySqlTypeInfo;
use sqlx::{MySql, Type, TypeInfo};

use crate::{calendar, json};

/// How the binary form of a column becomes JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Decoder {
    /// Little-endian, of whatever length.
    Signed,
    Unsigned,
    /// Big-endian, of whatever length.
    Bits,
    Float32,
    Float64,
    Decimal,
    Date,
    Datetime,
    Timestamp,
    Time,
    Text,
    Bytes,
    /// Text that is JSON.
    Json,
}

impl Decoder {
    pub(super) fn of(info: &MySqlTypeInfo) -> Self {
        match info.name() {
            "BOOLEAN" | "TINYINT" | "TINYINT UNSIGNED" | "SMALLINT" | "SMALLINT UNSIGNED"
            | "MEDIUMINT" | "MEDIUMINT UNSIGNED" | "INT" | "INT UNSIGNED" | "BIGINT"
            | "BIGINT UNSIGNED" => {
                if <u64 as Type<MySql>>::compatible(info) {
                    Self::Unsigned
                } else {
                    Self::Signed
                }
            }
            "YEAR" => Self::Unsigned,
            "BIT" => Self::Bits,
            "FLOAT" => Self::Float32,
            "DOUBLE" => Self::Float64,
            "DECIMAL" => Self::Decimal,
            "DATE" => Self::Date,
            "DATETIME" => Self::Datetime,
            "TIMESTAMP" => Self::Timestamp,
            "TIME" => Self::Time,
            "JSON" => Self::Json,
            "SET" => Self::Text,
            // The collation, not the name, tells text from bytes.
            _ if <str as Type<MySql>>::compatible(info) => Self::Text,
            _ => Self::Bytes,
        }
    }

    /// Writes a value that is not NULL.
    pub(super) fn write(self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::Signed => {
                let unsigned = little_endian(bytes)?;
                // The sign bit is that of the type's own width.
                let unused = 64 - 8 * bytes.len().min(8) as u32;
                let shifted = unsigned.checked_shl(unused).unwrap_or(0).cast_signed();
                json::write_integer(out, shifted.checked_shr(unused).unwrap_or(0));
            }
            Self::Unsigned => json::write_integer(out, little_endian(bytes)?),
            Self::Bits => {
                if bytes.len() > 8 {
                    return Err(format!("a bit field has {} bytes", bytes.len()));
                }
                let number = bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
                json::write_integer(out, number);
            }
            Self::Float32 => json::write_float(out, f32::from_le_bytes(fixed(bytes)?)),
            Self::Float64 => json::write_float(out, f64::from_le_bytes(fixed(bytes)?)),
            Self::Text | Self::Decimal => json::write_string(out, bytes),
            Self::Bytes => json::write_bytes(out, bytes),
            Self::Json => json::write_verbatim(out, bytes),
            Self::Date | Self::Datetime | Self::Timestamp => self.write_moment(bytes, out)?,
            Self::Time => write_span(bytes, out)?,
        }
        Ok(())
    }

    /// A length, then year, month and day, hour, minute and second, and
    /// microseconds, as far as they are not all zero.
    fn write_moment(self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let parts = parts::<11>(bytes)?;
        let year = u16::from_le_bytes([parts[0], parts[1]]);
        out.push(b'"');
        calendar::write_day(out, year.into(), parts[2].into(), parts[3].into());
        if self != Self::Date {
            out.push(b'T');
            let micros = u32::from_le_bytes([parts[7], parts[8], parts[9], parts[10]]);
            let [hour, minute, second] = [parts[4], parts[5], parts[6]].map(u64::from);
            calendar::write_clock(out, hour, minute, second, micros);
        }
        // The session's time zone is UTC.
        out.extend_from_slice(if self == Self::Timestamp { b"Z\"" } else { b"\"" });
        Ok(())
    }
}

/// A length, then sign, days, hours, minutes and seconds, and microseconds, as
/// far as they are not all zero.
fn write_span(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let parts = parts::<12>(bytes)?;
    let days = u64::from(u32::from_le_bytes([parts[1], parts[2], parts[3], parts[4]]));
    let micros = u32::from_le_bytes([parts[8], parts[9], parts[10], parts[11]]);
    out.extend_from_slice(if parts[0] == 1 { b"\"-" } else { b"\"" });
    let [hours, minutes, seconds] = [parts[5], parts[6], parts[7]].map(u64::from);
    calendar::write_clock(out, days * 24 + hours, minutes, seconds, micros);
    out.push(b'"');
    Ok(())
}

/// The bytes behind a length, with zeros for those that were left out.
fn parts<const N: usize>(bytes: &[u8]) -> Result<[u8; N], String> {
    let mut parts = [0; N];
    match bytes.split_first() {
        Some((length, rest)) if usize::from(*length) == rest.len() && rest.len() <= N => {
            parts[..rest.len()].copy_from_slice(rest);
            Ok(parts)
        }
        _ => Err("a date or time is of an unknown form".to_owned()),
    }
}

fn little_endian(bytes: &[u8]) -> Result<u64, String> {
    if bytes.len() > 8 {
        return Err(format!("an integer has {} bytes", bytes.len()));
    }
    let mut padded = [0; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    Ok(u64::from_le_bytes(padded))
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], String> {
    bytes.try_into().map_err(|_| format!("a value has {} bytes instead of {N}", bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(decoder: Decoder, bytes: &[u8]) -> String {
        let mut out = Vec::new();
        decoder.write(bytes, &mut out).expect("the bytes are sound");
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn every_form_is_read() {
        for (decoder, bytes, expected) in [
            (Decoder::Signed, &[0xFF][..], "-1"),
            (Decoder::Signed, &[0x00, 0x80], "-32768"),
            (Decoder::Signed, &[0xFF; 8], "-1"),
            (Decoder::Unsigned, &[0xFF; 8], "18446744073709551615"),
            (Decoder::Bits, &[1, 0], "256"),
            (Decoder::Date, &[0], r#""0000-00-00""#),
            (Decoder::Datetime, &[4, 0xDD, 7, 1, 2], r#""2013-01-02T00:00:00""#),
            (
                Decoder::Timestamp,
                &[11, 0xDD, 7, 1, 2, 3, 4, 5, 0x3F, 0x42, 0x0F, 0],
                r#""2013-01-02T03:04:05.999999Z""#,
            ),
            (Decoder::Time, &[0], r#""00:00:00""#),
            (Decoder::Time, &[8, 1, 34, 0, 0, 0, 22, 59, 59], r#""-838:59:59""#),
        ] {
            assert_eq!(text(decoder, bytes), expected);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            use Decoder::{Bits, Bytes, Date, Datetime, Float32, Json, Signed, Text, Time, Unsigned};
            for decoder in [Signed, Unsigned, Bits, Float32, Date, Datetime, Time, Text, Bytes, Json] {
                let _ = decoder.write(&bytes, &mut Vec::new());
            }
        }
    }
}
