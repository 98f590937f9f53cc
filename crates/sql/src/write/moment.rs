use super::kind::ValueKind;
use super::value::{Misfit, Token};
use crate::{Dialect, calendar};

/// A date, a time or both, as the database reads it.
pub(super) fn text(dialect: Dialect, kind: &ValueKind, token: Token<'_>) -> Result<String, Misfit> {
    let (what, remedy) = match kind {
        ValueKind::Date => ("it is not a date", "write a JSON string like \"2013-01-31\""),
        ValueKind::Time => ("it is not a time of day", "write a JSON string like \"06:00:00.25\""),
        ValueKind::Span => ("it is not a time", "write a JSON string like \"-838:59:59\""),
        ValueKind::Timestamp => (
            "it is not a date and time without zone",
            "write a JSON string like \"2013-01-31T06:00:00\", without Z",
        ),
        _ => {
            ("it is not a moment", "write a JSON string like \"2013-01-31T06:00:00Z\", with the Z")
        }
    };
    let misfit = || Misfit::new(what, remedy);
    let Token::Text(text) = token else { return Err(misfit()) };
    let is_right = match dialect {
        Dialect::Postgres => is_of_postgres(kind, &text),
        Dialect::MySql | Dialect::Sqlite => is_of_mysql(kind, &text),
    };
    if !is_right {
        return Err(misfit());
    }
    if dialect != Dialect::MySql {
        return Ok(text.into_owned());
    }
    // The session's time zone is UTC, and the text takes no `Z`.
    Ok(text.trim_end_matches('Z').replace('T', " "))
}

fn is_of_postgres(kind: &ValueKind, text: &str) -> bool {
    let has_infinities = !matches!(kind, ValueKind::Time);
    if has_infinities && matches!(text, "infinity" | "-infinity") {
        return true;
    }
    let text = text.strip_suffix(" BC").unwrap_or(text);
    let is_moment = |text: &str| {
        text.split_once('T').is_some_and(|(date, time)| is_day(date) && is_clock(time))
    };
    match kind {
        ValueKind::Date => is_day(text),
        ValueKind::Time => is_clock(text) || text == "24:00:00",
        ValueKind::Timestamp => is_moment(text),
        _ => without_zone(text).is_some_and(is_moment),
    }
}

fn is_of_mysql(kind: &ValueKind, text: &str) -> bool {
    let is_moment = |text: &str| {
        text.split_once('T').is_some_and(|(date, time)| is_day_or_zero(date) && is_clock(time))
    };
    match kind {
        ValueKind::Date => is_day_or_zero(text),
        ValueKind::Span => {
            calendar::is_clock(short(text.strip_prefix('-').unwrap_or(text)), 3, 838)
        }
        ValueKind::Timestamp => is_moment(text),
        _ => text.strip_suffix('Z').is_some_and(is_moment),
    }
}

/// Without the `Z` or the `+02:00` at the end.
fn without_zone(text: &str) -> Option<&str> {
    if let Some(text) = text.strip_suffix('Z') {
        return Some(text);
    }
    let at = text.len().checked_sub(6).filter(|at| text.is_char_boundary(*at))?;
    let (moment, zone) = text.split_at(at);
    let bytes = zone.as_bytes();
    let is_digit = |index: usize| bytes[index].is_ascii_digit();
    let is_zone = matches!(bytes[0], b'+' | b'-')
        && bytes[3] == b':'
        && [1, 2, 4, 5].into_iter().all(is_digit);
    is_zone.then_some(moment)
}

/// A day, of a year of any length: of those above 9999 Postgres itself decides.
fn is_day(text: &str) -> bool {
    if text.len() <= 10 {
        return calendar::is_date(text);
    }
    let Some((year, rest)) = text.split_at_checked(text.len() - 6) else { return false };
    year.len() <= 7
        && year.bytes().all(|byte| byte.is_ascii_digit())
        && calendar::is_date(&format!("2000{rest}"))
}

/// MySQL has days such as 2013-00-00.
fn is_day_or_zero(text: &str) -> bool {
    calendar::is_date(text)
        || (text.len() == 10
            && (text.ends_with("-00")
                || text.get(4..8) == Some("-00-")
                || text.starts_with("0000"))
            && text.bytes().enumerate().all(|(index, byte)| match index {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            }))
}

fn is_clock(text: &str) -> bool {
    calendar::is_time(short(text))
}

/// Without zeros at the end of the fraction.
fn short(text: &str) -> &str {
    match text.split_once('.') {
        Some((_, fraction)) if (1..=6).contains(&fraction.len()) => {
            text.trim_end_matches('0').trim_end_matches('.')
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn is(dialect: Dialect, kind: &ValueKind, texts: &[&str], expected: bool) {
        for given in texts {
            let found = text(dialect, kind, Token::Text(Cow::Borrowed(given))).is_ok();
            assert_eq!(found, expected, "{given} as {kind:?}");
        }
    }

    #[test]
    fn what_is_read_is_taken_and_what_would_be_guessed_is_not() {
        use Dialect::{MySql, Postgres};
        let utc = ValueKind::TimestampUtc;
        is(Postgres, &utc, &["2013-01-31T04:00:00.5Z", "294276-12-31T23:59:59Z", "infinity"], true);
        is(Postgres, &utc, &["2013-01-31T04:00:00+02:00", "0044-03-15T12:00:00Z BC"], true);
        is(Postgres, &utc, &["2013-01-31T04:00:00", "2013-01-31", "now", "", "é-+02:00"], false);
        is(
            Postgres,
            &ValueKind::Timestamp,
            &["2013-01-31T04:00:00Z", "2013-02-30T04:00:00"],
            false,
        );
        is(Postgres, &ValueKind::Time, &["24:00:00", "06:00:00.250"], true);
        is(Postgres, &ValueKind::Time, &["infinity", "24:00:01", "6:00"], false);
        is(Postgres, &ValueKind::Date, &["5874897-12-31", "4713-01-01 BC"], true);
        is(MySql, &ValueKind::Date, &["0000-00-00", "2013-00-00", "2013-01-31"], true);
        is(MySql, &ValueKind::Date, &["2013-02-30", "infinity", "13-01-31"], false);
        is(MySql, &utc, &["2013-01-31T05:00:00"], false);
        is(MySql, &ValueKind::Span, &["-838:59:59", "06:00:00"], true);
    }
}
