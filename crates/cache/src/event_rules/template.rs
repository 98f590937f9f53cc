//! Texts with `{names}` that stand for values, such as the tag
//! `artist:{artist_id}`.

/// A text with names to fill in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template(Vec<Segment>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Segment {
    Literal(String),
    Name(String),
}

/// Why a text is not a template.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TemplateError {
    /// Where, in bytes.
    pub at: usize,
    /// Why.
    pub why: &'static str,
}

/// A longer template is a slip.
const LENGTH_MAX: usize = 256;

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let error = |at, why| Err(TemplateError { at, why });
        if text.is_empty() {
            return error(0, "it is empty");
        }
        if text.len() > LENGTH_MAX {
            return error(0, "it is longer than 256 bytes");
        }
        let mut segments = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            if let Some(open) = rest.strip_prefix('{') {
                let Some(close) = open.find('}') else {
                    return error(at, "`{` is not closed");
                };
                let name = &open[..close];
                if name.is_empty() || name.contains('{') {
                    return error(at, "`{}` holds the name of a parameter or a column");
                }
                segments.push(Segment::Name(name.to_owned()));
                at += close + 2;
            } else {
                let end = rest.find('{').unwrap_or(rest.len());
                if let Some(stray) = rest[..end].find('}') {
                    return error(at + stray, "`}` without `{`");
                }
                segments.push(Segment::Literal(rest[..end].to_owned()));
                at += end;
            }
        }
        Ok(Self(segments))
    }

    /// The names to fill in, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|segment| match segment {
            Segment::Name(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }

    /// The text with every name filled in; `None` if one has no value.
    pub fn fill<'v>(
        &self,
        value: impl Fn(&str) -> Option<std::borrow::Cow<'v, str>>,
    ) -> Option<String> {
        let mut text = String::new();
        for segment in &self.0 {
            match segment {
                Segment::Literal(literal) => text.push_str(literal),
                Segment::Name(name) => text.push_str(&value(name)?),
            }
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_filled_in() {
        let template = Template::parse("a:{x}:{y}").expect("a template");
        assert_eq!(template.names().collect::<Vec<_>>(), ["x", "y"]);
        let filled = template.fill(|name| Some(name.to_uppercase().into()));
        assert_eq!(filled.as_deref(), Some("a:X:Y"));
        assert_eq!(template.fill(|name| (name == "x").then(|| "1".into())), None);
    }

    #[test]
    fn mistakes_are_located() {
        for (text, at) in [("", 0), ("a{", 1), ("a{}", 1), ("ab}", 2), ("{a{b}}", 0)] {
            assert_eq!(Template::parse(text).expect_err(text).at, at);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let _ = Template::parse(&text);
        }
    }
}
