use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// A family of keys: literal text with named parameters, such as `album:{id}`
/// or `order:{customer}:{id}:lines`.
///
/// A parameter matches one part, up to the next `:`; the last parameter of a
/// pattern that ends with it matches the rest, colons included, so that
/// `weather:{origin}:{time}` matches `weather:EWR:2013-01-01T06:00:00Z`. No
/// parameter matches nothing. In a value `%3A` stands for `:`, `%25` for `%` and
/// `%76` for `v`.
///
/// ```
/// use larder_core::KeyPattern;
///
/// let pattern: KeyPattern = "order:{customer}:{id}".parse()?;
/// let values = pattern.match_key("order:ann:7").expect("it matches");
/// assert_eq!(values, ["ann", "7"]);
/// assert_eq!(pattern.key(["a:b", "7"]), "order:a%3Ab:7");
/// # Ok::<_, larder_core::PatternError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPattern {
    text: String,
    segments: Vec<Segment>,
    parameters: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Segment {
    Literal(String),
    Parameter,
}

/// Why a text is not a key pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PatternError {
    pattern: String,
    at: usize,
    why: &'static str,
}

/// More parameters than any key needs; a limit on what a configuration can ask.
const PARAMETERS_MAX: usize = 16;

impl KeyPattern {
    /// The names of the parameters, in order.
    #[must_use]
    pub fn parameters(&self) -> &[String] {
        &self.parameters
    }

    /// The literal text before the first parameter: every matching key starts
    /// with it.
    #[must_use]
    pub fn prefix(&self) -> &str {
        match self.segments.first() {
            Some(Segment::Literal(text)) => text,
            _ => "",
        }
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The values of the parameters if the key matches, unescaped.
    #[must_use]
    pub fn match_key<'k>(&self, key: &'k str) -> Option<Vec<Cow<'k, str>>> {
        let mut values = Vec::with_capacity(self.parameters.len());
        self.walk(key, |value| values.push(unescape(value))).then_some(values)
    }

    /// Whether the key matches, without reading its values. Allocates nothing.
    #[must_use]
    pub fn matches(&self, key: &str) -> bool {
        self.walk(key, |_| {})
    }

    /// Follows the pattern along a key and hands over each value as it is
    /// written. Returns whether the key matches.
    fn walk<'k>(&self, key: &'k str, mut value: impl FnMut(&'k str)) -> bool {
        let mut rest = key;
        for (index, segment) in self.segments.iter().enumerate() {
            match segment {
                Segment::Literal(text) => match rest.strip_prefix(text.as_str()) {
                    Some(after) => rest = after,
                    None => return false,
                },
                Segment::Parameter => {
                    let end = match self.segments.get(index + 1) {
                        None => rest.len(),
                        Some(_) => rest.find(':').unwrap_or(rest.len()),
                    };
                    if end == 0 {
                        return false;
                    }
                    value(&rest[..end]);
                    rest = &rest[end..];
                }
            }
        }
        rest.is_empty()
    }

    /// The key for these values, in the one spelling that the same values always
    /// get: `%` is escaped, and `:` too in every value but one that ends the
    /// pattern, which may hold it as it is.
    ///
    /// # Panics
    /// If there are fewer values than parameters.
    #[must_use]
    pub fn key<T: AsRef<str>>(&self, values: impl IntoIterator<Item = T>) -> String {
        let mut key = String::with_capacity(self.text.len() + 16);
        let mut values = values.into_iter();
        for (index, segment) in self.segments.iter().enumerate() {
            match segment {
                Segment::Literal(text) => key.push_str(text),
                Segment::Parameter => {
                    let value = values.next().expect("a value for each parameter");
                    if index + 1 == self.segments.len() {
                        key.push_str(&value.as_ref().replace('%', "%25"));
                    } else {
                        escape_into(&mut key, value.as_ref());
                    }
                }
            }
        }
        key
    }

    /// Every spelling that keys with these values are known to have: that of
    /// [`KeyPattern::key`] first, that of [`crate::KeyBuilder`], and that with the
    /// values as they are. One, where no value holds `:` or `%` or reads like a version.
    ///
    /// # Panics
    /// If there are fewer values than parameters.
    #[must_use]
    pub fn spellings<T: AsRef<str>>(&self, values: &[T]) -> Vec<String> {
        let mut keys = vec![self.key(values)];
        let is_plain = |value: &T| {
            let mut built = String::new();
            part_into(&mut built, value.as_ref());
            built == value.as_ref()
        };
        if values.iter().all(is_plain) {
            return keys;
        }
        let ends = self.segments.len() - 1;
        let written = |part_into: &dyn Fn(&mut String, &str, bool)| {
            let mut values = values.iter();
            let mut key = String::new();
            for (index, segment) in self.segments.iter().enumerate() {
                match segment {
                    Segment::Literal(text) => key.push_str(text),
                    Segment::Parameter => {
                        let value = values.next().expect("a value for each parameter");
                        part_into(&mut key, value.as_ref(), index == ends);
                    }
                }
            }
            key
        };
        let built = written(&|key, value, _| part_into(key, value));
        // A `:` within is the end of a part.
        let as_it_is = written(&|key, value, is_rest| match is_rest {
            true => key.push_str(value),
            false => key.push_str(&value.replace(':', "%3A")),
        });
        for key in [built, as_it_is] {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }
}

impl FromStr for KeyPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let error = |at, why| PatternError { pattern: text.to_owned(), at, why };
        let mut segments = Vec::new();
        let mut parameters: Vec<String> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let at = text.len() - rest.len();
            if let Some(open) = rest.strip_prefix('{') {
                let close = open.find('}').ok_or_else(|| error(at, "`{` is not closed"))?;
                let name = &open[..close];
                let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                if name.is_empty() || !name.chars().all(is_name) {
                    return Err(error(at + 1, "a parameter's name is letters, digits and `_`"));
                }
                if parameters.iter().any(|known| known == name) {
                    return Err(error(at + 1, "this parameter stands twice"));
                }
                if matches!(segments.last(), Some(Segment::Parameter)) {
                    return Err(error(at, "two parameters need a `:` between them"));
                }
                if parameters.len() == PARAMETERS_MAX {
                    return Err(error(at, "a pattern has at most 16 parameters"));
                }
                parameters.push(name.to_owned());
                segments.push(Segment::Parameter);
                rest = &open[close + 1..];
            } else {
                let end = rest.find('{').unwrap_or(rest.len());
                let literal = &rest[..end];
                if let Some(stray) = literal.find('}') {
                    return Err(error(at + stray, "`}` without `{`"));
                }
                if matches!(segments.last(), Some(Segment::Parameter)) && !literal.starts_with(':')
                {
                    return Err(error(at, "after a parameter comes `:` or the end"));
                }
                segments.push(Segment::Literal(literal.to_owned()));
                rest = &rest[end..];
            }
        }
        if parameters.is_empty() {
            return Err(error(text.len(), "a pattern has at least one `{parameter}`"));
        }
        if matches!(segments[0], Segment::Parameter) {
            return Err(error(0, "a pattern starts with literal text, such as `album:`"));
        }
        Ok(Self { text: text.to_owned(), segments, parameters })
    }
}

impl fmt::Display for KeyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for KeyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "key pattern \"{}\" at character {}: {}; write it like `album:{{id}}`",
            self.pattern,
            self.pattern[..self.at].chars().count() + 1,
            self.why
        )
    }
}

impl std::error::Error for PatternError {}

/// Appends a value as a part of a key that is built: one that reads like a version
/// does not any more.
pub(super) fn part_into(text: &mut String, value: &str) {
    let is_number =
        |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match value.strip_prefix('v').filter(is_number) {
        Some(number) => {
            text.push_str("%76");
            text.push_str(number);
        }
        None => escape_into(text, value),
    }
}

/// Appends a value with `:` and `%` escaped.
pub(super) fn escape_into(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            ':' => text.push_str("%3A"),
            '%' => text.push_str("%25"),
            _ => text.push(c),
        }
    }
}

fn unescape(value: &str) -> Cow<'_, str> {
    if !value.contains('%') {
        return Cow::Borrowed(value);
    }
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        let tail = &rest[at..];
        let (decoded, used) = match tail.get(..3) {
            Some("%3A" | "%3a") => (':', 3),
            Some("%25") => ('%', 3),
            // As `KeyBuilder::part` writes what reads like a version.
            Some("%76") => ('v', 3),
            _ => ('%', 1),
        };
        text.push(decoded);
        rest = &tail[used..];
    }
    text.push_str(rest);
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> KeyPattern {
        text.parse().expect("a valid pattern")
    }

    #[test]
    fn a_parameter_in_the_middle_stops_at_the_colon_and_the_last_takes_the_rest() {
        let lines = pattern("order:{customer}:{id}:lines");
        assert_eq!(lines.match_key("order:ann:7:lines"), Some(vec!["ann".into(), "7".into()]));
        assert_eq!(lines.match_key("order:ann:7:8:lines"), None);
        assert_eq!(lines.match_key("order::7:lines"), None);
        let weather = pattern("weather:{origin}:{time}");
        assert_eq!(
            weather.match_key("weather:EWR:2013-01-01T06:00:00Z"),
            Some(vec!["EWR".into(), "2013-01-01T06:00:00Z".into()])
        );
        assert_eq!(weather.prefix(), "weather:");
        assert_eq!(weather.key(["a:b", "6:00 5%"]), "weather:a%3Ab:6:00 5%25");
    }

    #[test]
    fn errors_point_at_the_place() {
        for (text, part) in [
            ("album", "at least one"),
            ("album:{id", "at character 7: `{` is not closed"),
            ("album:{}", "letters, digits"),
            ("{id}", "starts with literal"),
            ("a:{id}{x}", "need a `:`"),
            ("a:{id}x", "after a parameter"),
            ("a:{id}:{id}", "twice"),
            ("a}:{id}", "at character 2: `}` without"),
        ] {
            let error = text.parse::<KeyPattern>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(a in ".{1,12}", b in ".{1,12}", c in ".{1,12}") {
            let pattern = pattern("x:{a}:{b}:y:{c}");
            let key = pattern.key([&a, &b, &c]);
            let values = pattern.match_key(&key).expect("the key of a pattern matches it");
            prop_assert_eq!(values, vec![a, b, c]);
        }

        #[test]
        fn no_text_panics(text in ".*", key in ".*") {
            if let Ok(pattern) = text.parse::<KeyPattern>() {
                let _ = pattern.match_key(&key);
            }
        }
    }
}
