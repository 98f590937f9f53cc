/// Whether `text` matches a pattern as `KEYS` and `SCAN` take it: `*`, `?`,
/// `[a-z]`, `[^a-z]` and `\` before a character that stands for itself.
///
/// Takes at most pattern length times text length steps: a star that has been
/// followed by a later one is never tried again.
#[must_use]
pub fn glob_matches(pattern: &[u8], text: &[u8]) -> bool {
    if text.is_empty() {
        // Redis looks at no pattern but these two when there is nothing to match.
        return pattern.is_empty() || pattern == b"*";
    }
    let mut rest = pattern;
    let mut at = 0;
    // Behind the last star: the pattern after it, and where in the text it is
    // tried next.
    let mut retry: Option<(&[u8], usize)> = None;
    loop {
        if let [b'*', after @ ..] = rest {
            if after.is_empty() {
                return true;
            }
            rest = after;
            retry = Some((after, at));
            continue;
        }
        match (rest.is_empty(), text.get(at)) {
            (true, None) => return true,
            (false, Some(byte)) => {
                let (matches, after) = match_one(rest, *byte);
                if matches {
                    rest = after;
                    at += 1;
                    continue;
                }
            }
            _ => {}
        }
        match retry {
            Some((after, tried)) if tried < text.len() => {
                rest = after;
                at = tried + 1;
                retry = Some((after, at));
            }
            _ => return false,
        }
    }
}

/// Whether the first element of a pattern that is not empty matches `byte`, and
/// the pattern behind it.
fn match_one(pattern: &[u8], byte: u8) -> (bool, &[u8]) {
    match pattern {
        [b'?', after @ ..] => (true, after),
        [b'[', set @ ..] => match_set(set, byte),
        [b'\\', escaped, after @ ..] => (*escaped == byte, after),
        [first, after @ ..] => (*first == byte, after),
        [] => (false, pattern),
    }
}

/// A set in brackets, from behind the opening one. A set that is never closed
/// ends with the pattern, as in Redis.
fn match_set(set: &[u8], byte: u8) -> (bool, &[u8]) {
    let (is_negated, mut rest) = match set {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut is_in = false;
    loop {
        rest = match rest {
            [] => return (is_in != is_negated, rest),
            [b']', after @ ..] => return (is_in != is_negated, after),
            [b'\\', escaped, after @ ..] => {
                is_in |= *escaped == byte;
                after
            }
            [from, b'-', to, after @ ..] => {
                let (low, high) = if from <= to { (from, to) } else { (to, from) };
                is_in |= (*low..=*high).contains(&byte);
                after
            }
            [one, after @ ..] => {
                is_in |= *one == byte;
                after
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_match_as_in_redis() {
        let matching: [(&str, &str); 13] = [
            ("", ""),
            ("*", ""),
            ("h?llo", "hello"),
            ("h*o", "hello"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hallo"),
            ("h[a-c]llo", "hbllo"),
            ("h[c-a]llo", "hbllo"),
            ("h\\?llo", "h?llo"),
            ("[\\]]", "]"),
            ("a*b*c", "aXbXbXc"),
            ("[ab", "b"),
            ("**a**", "a"),
        ];
        for (pattern, text) in matching {
            assert!(glob_matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        let other =
            [("h?llo", "hllo"), ("h[^e]llo", "hello"), ("a", "ab"), ("*a", "b"), ("[]", "a")];
        for (pattern, text) in other {
            assert!(!glob_matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_do_not_take_forever() {
        let pattern = b"a*".repeat(5_000);
        let text = vec![b'a'; 4_000];
        assert!(!glob_matches(&[&pattern[..], b"b"].concat(), &text));
    }
}
