use super::value::{Argument, Misfit, Token};
use crate::Dialect;

/// A whole number within these limits.
pub(super) fn integer(
    token: &Token<'_>,
    minimum: i64,
    maximum: u64,
    takes_booleans: bool,
) -> Result<Argument, Misfit> {
    let number = match token {
        Token::Boolean(boolean) if takes_booleans => i128::from(*boolean),
        // Longer ones are out of every range.
        Token::Number(text) if is_whole(text) => text.parse().unwrap_or(i128::MAX),
        _ => {
            return Err(Misfit::new(
                "it is not a whole number",
                "write a JSON number without point and exponent",
            ));
        }
    };
    if number < i128::from(minimum) || number > i128::from(maximum) {
        return Err(Misfit::new(
            "it is out of range",
            format!("write a number from {minimum} to {maximum}"),
        ));
    }
    match (i64::try_from(number), u64::try_from(number)) {
        (Ok(number), _) => Ok(Argument::Signed(number)),
        (Err(_), Ok(number)) => Ok(Argument::Unsigned(number)),
        (Err(_), Err(_)) => Err(Misfit::new("it is out of range", "write a smaller number")),
    }
}

/// A floating point number of at most this size.
pub(super) fn float(token: &Token<'_>, dialect: Dialect, most: f64) -> Result<Argument, Misfit> {
    let remedy = "write a JSON number; Postgres also takes \"NaN\", \"Infinity\" and \"-Infinity\"";
    match token {
        Token::Number(text) => match text.parse::<f64>() {
            Ok(number) if number.abs() <= most => Ok(Argument::Real(number)),
            _ => Err(Misfit::new("it is out of range", "write a smaller number")),
        },
        Token::Text(text) if dialect == Dialect::Postgres => match text.as_ref() {
            special @ ("NaN" | "Infinity" | "-Infinity") => Ok(Argument::Text(special.to_owned())),
            _ => Err(Misfit::new("it is not a number", remedy)),
        },
        _ => Err(Misfit::new("it is not a number", remedy)),
    }
}

/// A number with exact digits, none of which the column would round away.
pub(super) fn decimal(
    token: &Token<'_>,
    precision: Option<u32>,
    scale: Option<i32>,
    has_specials: bool,
) -> Result<Argument, Misfit> {
    let remedy = "write digits with at most one point, such as \"-12.50\"";
    let text = match token {
        Token::Number(text) => text,
        Token::Text(text) => text.as_ref(),
        _ => return Err(Misfit::new("it is not a decimal number", remedy)),
    };
    if has_specials && matches!(text, "NaN" | "Infinity" | "-Infinity") {
        return Ok(Argument::Text(text.to_owned()));
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_decimal = !whole.is_empty()
        && whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit())
        && digits.contains('.') != fraction.is_empty();
    if !is_decimal {
        return Err(Misfit::new("it is not a decimal number", remedy));
    }
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    if let Some(scale) = scale {
        let zeros = whole.len() - whole.trim_end_matches('0').len();
        let is_rounded = fraction.len() > usize::try_from(scale).unwrap_or(0)
            || (!whole.is_empty() && zeros < usize::try_from(-scale).unwrap_or(0));
        if is_rounded {
            return Err(Misfit::new(
                "it has more digits than the column keeps",
                format!("write at most {scale} digits behind the point"),
            ));
        }
    }
    if let Some(precision) = precision {
        let most = i64::from(precision) - i64::from(scale.unwrap_or(0));
        if i64::try_from(whole.len()).unwrap_or(i64::MAX) > most.max(0) {
            return Err(Misfit::new(
                "it is out of range",
                format!("write at most {most} digits before the point"),
            ));
        }
    }
    Ok(Argument::Text(text.to_owned()))
}

/// A number for SQLite, which has no exact decimals.
pub(super) fn of_sqlite(text: &str) -> Result<Argument, Misfit> {
    if is_whole(text) {
        return text.parse().map(Argument::Signed).map_err(|_| {
            Misfit::new("it is out of range", "write a number from -2^63 to 2^63 - 1, or a text")
        });
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(Argument::Real(number)),
        _ => Err(Misfit::new("it is out of range", "write a smaller number, or \"Infinity\"")),
    }
}

/// A number of which nothing is known: a whole number is not rounded to a floating point
/// number.
pub(super) fn untyped(dialect: Dialect, text: &str) -> Result<Argument, Misfit> {
    if dialect == Dialect::Sqlite {
        return of_sqlite(text);
    }
    if is_whole(text) {
        let signed = text.parse().map(Argument::Signed);
        return signed.or_else(|_| text.parse().map(Argument::Unsigned)).map_err(|_| {
            Misfit::new("it is out of range", "write a number from -2^63 to 2^64 - 1, or a text")
        });
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(Argument::Real(number)),
        _ => Err(Misfit::new("it is out of range", "write a smaller number")),
    }
}

fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}
