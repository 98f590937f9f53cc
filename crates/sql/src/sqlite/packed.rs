//! Rows of a query packed into one text, cell by cell, without loss.
//!
//! SQLite's own JSON would round floating point numbers and refuse bytes, so a
//! cell says what it is: an integer and NULL are themselves, a text starts with
//! `t`, a number with `r`, bytes with `b`.

use serde_json::value::RawValue;

use crate::json;

/// The expression that packs a column.
pub(super) fn cell(column: &str) -> String {
    format!(
        "CASE typeof({column}) WHEN 'text' THEN 't' || {column} WHEN 'real' THEN {} \
         WHEN 'blob' THEN 'b' || lower(hex({column})) ELSE {column} END",
        real(column)
    )
}

/// A floating point number as `r`, a whole number, `p` and how often that is to
/// be halved. SQLite writes no number exactly in decimals, but to multiply by a
/// power of two is exact, and from 2^52 on every number is whole.
fn real(column: &str) -> String {
    let mut cases = String::new();
    for exponent in (-10..50).step_by(10) {
        let halvings = 52 - exponent;
        cases.push_str(&format!(
            "WHEN abs({column}) >= {:?} AND abs({column}) < {:?} \
             THEN 'r' || CAST({column} * {:?} AS INTEGER) || 'p{halvings}' ",
            power_of_two(exponent),
            power_of_two(exponent + 10),
            power_of_two(halvings),
        ));
    }
    let (low, high) = (power_of_two(52), power_of_two(62));
    // An infinity less itself is no number, which in SQLite is NULL.
    format!(
        "CASE WHEN {column} - {column} IS NULL THEN iif({column} > 0, 'rinf', 'r-inf') \
         WHEN {column} = 0 THEN 'r0p0' {cases} ELSE (\
         WITH RECURSIVE s(v, p) AS (SELECT {column}, 0 UNION ALL \
         SELECT iif(abs(v) < {low:?}, v * 1024.0, v / 1024.0), iif(abs(v) < {low:?}, p + 10, p - 10) \
         FROM s WHERE abs(v) < {low:?} OR abs(v) >= {high:?}) \
         SELECT 'r' || CAST(v AS INTEGER) || 'p' || p FROM s \
         WHERE abs(v) >= {low:?} AND abs(v) < {high:?}) END"
    )
}

/// 2 to the power of an exponent from -1022 to 1023, exactly.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(u64::from((exponent + 1_023).unsigned_abs()) << 52)
}

/// The number that [`real`] packed.
fn unpack_real(packed: &[u8]) -> Option<f64> {
    let packed = std::str::from_utf8(packed).ok()?;
    let Some((whole, halvings)) = packed.split_once('p') else { return packed.parse().ok() };
    let whole = whole.parse::<i64>().ok()? as f64;
    let exponent = -halvings.parse::<i32>().ok().filter(|halvings| halvings.abs() < 2_000)?;
    // In two steps, for the smallest and largest are out of one's reach.
    let half = exponent / 2;
    Some(whole * power_of_two(half) * power_of_two(exponent - half))
}

/// The cells of each row.
pub(super) fn rows(packed: &str) -> Result<Vec<Vec<&RawValue>>, String> {
    serde_json::from_str(packed).map_err(|_| "SQLite packed a row in an unknown way".to_owned())
}

/// Writes a cell as JSON.
pub(super) fn write_cell(cell: &RawValue, out: &mut Vec<u8>) -> Result<(), String> {
    let token = cell.get().as_bytes();
    match token {
        [b'"', b't', text @ ..] => {
            out.push(b'"');
            out.extend_from_slice(text);
        }
        [b'"', b'b', digits @ ..] => {
            out.push(b'"');
            out.extend_from_slice(digits);
        }
        [b'"', b'r', number @ .., b'"'] => {
            let number = unpack_real(number);
            json::write_float(out, number.ok_or("SQLite packed a number in an unknown way")?);
        }
        [b'"', ..] => return Err("SQLite packed a cell in an unknown way".to_owned()),
        _ => out.extend_from_slice(token),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_become_json() {
        let packed = r#"[[1,"ta\"\u0000","r-inf","r7205759403792794p56","b00ff",null,"t"]]"#;
        let rows = rows(packed).expect("it is packed");
        let mut out = Vec::new();
        for cell in &rows[0] {
            write_cell(cell, &mut out).expect("each cell is sound");
            out.push(b' ');
        }
        let text = String::from_utf8(out).expect("JSON is UTF-8");
        assert_eq!(text, r#"1 "a\"\u0000" "-Infinity" 0.1 "00ff" null "" "#);
        let unknown: &RawValue = serde_json::from_str(r#""x1""#).expect("it is JSON");
        assert!(write_cell(unknown, &mut Vec::new()).is_err());
    }
}
