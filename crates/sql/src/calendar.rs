//! Dates and times as text: the proleptic Gregorian calendar, without zones.

/// Microseconds in a day.
pub(crate) const DAY_MICROS: i64 = 86_400_000_000;

/// Year, month and day of the day so many days after 1970-01-01. Year 0 is 1 BC.
///
/// The algorithm counts years from March, so that the leap day is the last of a
/// year, and eras of 400 years, which all have the same length.
pub(crate) fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u32, day as u32)
}

/// Appends `2013-01-31`; a year before 1 ends with ` BC`, as Postgres writes it.
/// Returns whether it is such a year.
pub(crate) fn write_date(out: &mut Vec<u8>, year: i64, month: u32, day: u32) -> bool {
    let before_christ = year <= 0;
    let shown = if before_christ { 1 - year } else { year };
    write_day(out, shown.unsigned_abs(), month, day);
    before_christ
}

/// Appends `2013-01-31`, or whatever the parts are: MySQL has a day 0000-00-00.
pub(crate) fn write_day(out: &mut Vec<u8>, year: u64, month: u32, day: u32) {
    write_padded(out, year, 4);
    out.push(b'-');
    write_padded(out, u64::from(month), 2);
    out.push(b'-');
    write_padded(out, u64::from(day), 2);
}

/// Appends `06:00:00` or `06:00:00.25`: a fraction only where there is one, and
/// without trailing zeros.
pub(crate) fn write_time(out: &mut Vec<u8>, micros_of_day: u64) {
    let seconds = micros_of_day / 1_000_000;
    write_clock(
        out,
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60,
        (micros_of_day % 1_000_000) as u32,
    );
}

/// [`write_time`] of a time given in parts.
pub(crate) fn write_clock(out: &mut Vec<u8>, hours: u64, minutes: u64, seconds: u64, micros: u32) {
    write_padded(out, hours, 2);
    out.push(b':');
    write_padded(out, minutes, 2);
    out.push(b':');
    write_padded(out, seconds, 2);
    if micros > 0 {
        out.push(b'.');
        write_padded(out, u64::from(micros), 6);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

fn write_padded(out: &mut Vec<u8>, number: u64, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(number);
    out.extend(std::iter::repeat_n(b'0', width.saturating_sub(digits.len())));
    out.extend_from_slice(digits.as_bytes());
}

/// Whether the text is a day of the years 0001 to 9999, as `2013-01-31`.
pub(crate) fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return false;
    }
    let (Some(year), Some(month), Some(day)) =
        (digits(&bytes[..4]), digits(&bytes[5..7]), digits(&bytes[8..]))
    else {
        return false;
    };
    year >= 1 && (1..=12).contains(&month) && day >= 1 && day <= days_of_month(year, month)
}

/// Whether the text is a time of day as [`write_time`] writes it.
pub(crate) fn is_time(text: &str) -> bool {
    is_clock(text, 2, 23)
}

/// Whether the text is a clock reading with at most so many hours, in so many
/// digits at most.
pub(crate) fn is_clock(text: &str, hour_digits: usize, hours_max: u32) -> bool {
    let Some((hours, rest)) = text.split_once(':') else { return false };
    let bytes = rest.as_bytes();
    if hours.len() < 2
        || hours.len() > hour_digits
        || (hours.len() > 2 && hours.starts_with('0'))
        || bytes.len() < 5
        || bytes[2] != b':'
    {
        return false;
    }
    let (Some(hours), Some(minutes), Some(seconds)) =
        (digits(hours.as_bytes()), digits(&bytes[..2]), digits(&bytes[3..5]))
    else {
        return false;
    };
    hours <= hours_max && minutes < 60 && seconds < 60 && is_fraction(&bytes[5..])
}

/// Whether the text is `2013-01-31T06:00:00`, with a fraction of at most six
/// digits that does not end in 0.
pub(crate) fn is_timestamp(text: &str) -> bool {
    text.split_once('T').is_some_and(|(date, time)| is_date(date) && is_time(time))
}

fn is_fraction(bytes: &[u8]) -> bool {
    match bytes.split_first() {
        None => true,
        Some((b'.', fraction)) => {
            (1..=6).contains(&fraction.len())
                && fraction.iter().all(u8::is_ascii_digit)
                && fraction.last() != Some(&b'0')
        }
        Some(_) => false,
    }
}

fn digits(bytes: &[u8]) -> Option<u32> {
    bytes.iter().try_fold(0_u32, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0'))
    })
}

fn days_of_month(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn date(days: i64) -> String {
        let (year, month, day) = civil_from_days(days);
        let mut out = Vec::new();
        if write_date(&mut out, year, month, day) {
            out.extend_from_slice(b" BC");
        }
        String::from_utf8(out).expect("digits are UTF-8")
    }

    #[test]
    fn known_days() {
        for (days, text) in [
            (0, "1970-01-01"),
            (11_016, "2000-02-29"),
            (-1, "1969-12-31"),
            (-719_162, "0001-01-01"),
            (-719_163, "0001-12-31 BC"),
            (2_932_896, "9999-12-31"),
            (2_932_897, "10000-01-01"),
        ] {
            assert_eq!(date(days), text);
        }
    }

    #[test]
    fn only_the_one_spelling_is_accepted() {
        for good in ["2013-01-31T06:00:00", "2000-02-29T23:59:59.25"] {
            assert!(is_timestamp(good), "{good}");
        }
        for bad in [
            "2013-01-31 06:00:00",
            "2013-02-29T06:00:00",
            "2013-01-31T06:00:00.250",
            "2013-01-31T24:00:00",
            "0000-01-31T06:00:00",
            "2013-1-31T06:00:00",
            "2013-01-31T6:00:00",
            "",
            "T",
            "２013-01-3T06:00:00",
        ] {
            assert!(!is_timestamp(bad), "{bad}");
        }
        assert!(is_clock("838:59:59", 3, 838) && !is_clock("038:59:59", 3, 838));
    }

    proptest! {
        #[test]
        fn every_day_has_one_text_in_order(days in -719_162_i64..2_932_896) {
            let (today, tomorrow) = (date(days), date(days + 1));
            prop_assert!(is_date(&today));
            prop_assert!(today < tomorrow);
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = (is_timestamp(&text), is_clock(&text, 3, 838), is_date(&text));
        }
    }
}
