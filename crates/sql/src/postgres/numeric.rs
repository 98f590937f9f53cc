/// Writes the binary form of a `numeric` as its exact digits, as many behind the
/// point as it was stored with.
pub(super) fn write_numeric(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let word = |index: usize| -> Option<u16> {
        let pair = bytes.get(index * 2..index * 2 + 2)?;
        Some(u16::from_be_bytes([pair[0], pair[1]]))
    };
    let header = (word(0), word(1), word(2), word(3));
    let (Some(count), Some(weight), Some(sign), Some(scale)) = header else {
        return Err("a numeric is cut short".to_owned());
    };
    match sign {
        POSITIVE => {}
        NEGATIVE => out.push(b'-'),
        _ => {
            out.extend_from_slice(match sign {
                NAN => b"NaN".as_slice(),
                INFINITY => b"Infinity",
                NEGATIVE_INFINITY => b"-Infinity",
                _ => return Err("a numeric has an unknown sign".to_owned()),
            });
            return Ok(());
        }
    }
    let count = usize::from(count);
    if bytes.len() < 8 + 2 * count {
        return Err("a numeric is cut short".to_owned());
    }
    // Group `i` of four digits stands for so many times 10000^(weight - i).
    let weight = i32::from(weight.cast_signed());
    let group = |place: i32| -> u16 {
        let index = usize::try_from(weight - place).ok().filter(|index| *index < count);
        index.and_then(|index| word(4 + index)).unwrap_or(0)
    };
    let mut buffer = itoa::Buffer::new();
    out.extend_from_slice(buffer.format(group(weight.max(0))).as_bytes());
    for place in (0..weight.max(0)).rev() {
        write_group(out, group(place), 4);
    }
    let mut digits_left = usize::from(scale);
    if digits_left > 0 {
        out.push(b'.');
    }
    let mut place = -1;
    while digits_left > 0 {
        let digits = digits_left.min(4);
        write_group(out, group(place), digits);
        digits_left -= digits;
        place -= 1;
    }
    Ok(())
}

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

/// The first `digits` of the four digits of a group.
fn write_group(out: &mut Vec<u8>, group: u16, digits: usize) {
    let all = [group / 1_000 % 10, group / 100 % 10, group / 10 % 10, group % 10];
    out.extend(all.iter().take(digits).map(|digit| b'0' + *digit as u8));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(words: &[u16]) -> Result<String, String> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        let mut out = Vec::new();
        write_numeric(&bytes, &mut out)?;
        Ok(String::from_utf8(out).expect("digits are UTF-8"))
    }

    #[test]
    fn digits_are_exact() {
        for (words, expected) in [
            (&[0, 0, 0, 0][..], "0"),
            (&[0, 0, 0, 2], "0.00"),
            (&[2, 0, 0, 2, 19, 9000], "19.90"),
            (&[1, 0xFFFF, NEGATIVE, 4, 25], "-0.0025"),
            (&[1, 0xFFFE, 0, 8, 25], "0.00000025"),
            (&[1, 2, 0, 0, 7], "700000000"),
            (&[3, 1, 0, 3, 12, 3456, 7890], "123456.789"),
            (&[0, 0, NAN, 0], "NaN"),
            (&[0, 0, NEGATIVE_INFINITY, 0], "-Infinity"),
        ] {
            assert_eq!(text(words).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        assert!(text(&[0, 0]).is_err());
        assert!(text(&[3, 0, 0, 0, 1]).is_err());
        assert!(text(&[0, 0, 0x1234, 0]).is_err());
    }
}
