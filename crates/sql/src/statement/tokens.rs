use std::ops::Range;

use crate::Dialect;

/// A token of a statement. White space and comments are not tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Token<'s> {
    pub(crate) kind: Kind,
    /// As it was written.
    pub(crate) text: &'s str,
    /// Where it stands.
    pub(crate) at: Range<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A keyword or an unquoted identifier.
    Word,
    /// A quoted identifier; in MySQL a text in double quotes too.
    Quoted,
    /// A string, a number or a dollar-quoted text.
    Literal,
    /// `:name`.
    Parameter,
    /// A parameter of the driver's own kind, such as `$1` or `?`.
    Placeholder,
    /// Any other character; `::` and `:=` are one token.
    Symbol,
    /// A comment that MySQL executes.
    ExecutableComment,
}

impl Token<'_> {
    pub(crate) fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    pub(crate) fn is_symbol(&self, symbol: &str) -> bool {
        self.kind == Kind::Symbol && self.text == symbol
    }

    /// The name, if the token can be one: without quotes.
    pub(crate) fn identifier(&self) -> Option<String> {
        match self.kind {
            Kind::Word => Some(self.text.to_owned()),
            Kind::Quoted => {
                let mut chars = self.text.chars();
                let open = chars.next()?;
                let close = if open == '[' { ']' } else { open };
                let inner = chars.as_str().strip_suffix(close)?;
                let doubled: String = [close, close].iter().collect();
                Some(inner.replace(&doubled, &close.to_string()))
            }
            _ => None,
        }
    }
}

/// Splits a statement into tokens, or says what is not closed. Never panics and
/// takes time in proportion to the text.
pub(crate) fn tokenize(dialect: Dialect, sql: &str) -> Result<Vec<Token<'_>>, &'static str> {
    let mut scanner = Scanner { dialect, sql, at: 0 };
    let mut tokens = Vec::new();
    while let Some(token) = scanner.next()? {
        tokens.push(token);
    }
    Ok(tokens)
}

struct Scanner<'s> {
    dialect: Dialect,
    sql: &'s str,
    at: usize,
}

impl<'s> Scanner<'s> {
    fn rest(&self) -> &'s str {
        &self.sql[self.at..]
    }

    fn next(&mut self) -> Result<Option<Token<'s>>, &'static str> {
        loop {
            let rest = self.rest();
            let Some(first) = rest.chars().next() else { return Ok(None) };
            if first.is_whitespace() {
                self.at += first.len_utf8();
            } else if let Some(length) = self.line_comment() {
                self.at += length;
            } else if rest.starts_with("/*") {
                let length = self.block_comment()?;
                let is_executed = self.dialect == Dialect::MySql
                    && (rest.starts_with("/*!") || rest.starts_with("/*M!"));
                if is_executed {
                    return Ok(Some(self.token(Kind::ExecutableComment, length)));
                }
                self.at += length;
            } else {
                let (kind, length) = self.measure(first)?;
                return Ok(Some(self.token(kind, length)));
            }
        }
    }

    fn token(&mut self, kind: Kind, length: usize) -> Token<'s> {
        let at = self.at..self.at + length;
        self.at = at.end;
        Token { kind, text: &self.sql[at.clone()], at }
    }

    fn line_comment(&self) -> Option<usize> {
        let rest = self.rest();
        let starts = match self.dialect {
            // In MySQL `--` starts a comment only before white space.
            Dialect::MySql => {
                rest.starts_with('#')
                    || rest.strip_prefix("--").is_some_and(|tail| {
                        tail.chars().next().is_none_or(|c| c.is_whitespace() || c.is_control())
                    })
            }
            Dialect::Postgres | Dialect::Sqlite => rest.starts_with("--"),
        };
        starts.then(|| rest.find('\n').map_or(rest.len(), |end| end + 1))
    }

    fn block_comment(&self) -> Result<usize, &'static str> {
        let bytes = self.rest().as_bytes();
        let (mut depth, mut index) = (0_usize, 0);
        while index < bytes.len() {
            let pair = bytes.get(index..index + 2);
            if pair == Some(b"/*") && (depth == 0 || self.dialect == Dialect::Postgres) {
                depth += 1;
                index += 2;
            } else if pair == Some(b"*/") {
                depth -= 1;
                index += 2;
                if depth == 0 {
                    return Ok(index);
                }
            } else {
                index += 1;
            }
        }
        Err("a comment is not closed")
    }

    fn measure(&self, first: char) -> Result<(Kind, usize), &'static str> {
        let rest = self.rest();
        let postgres = self.dialect == Dialect::Postgres;
        match first {
            '\'' => Ok((Kind::Literal, quoted(rest, '\'', self.dialect == Dialect::MySql)?)),
            '"' => Ok((Kind::Quoted, quoted(rest, '"', self.dialect == Dialect::MySql)?)),
            '`' if !postgres => Ok((Kind::Quoted, quoted(rest, '`', false)?)),
            '[' if self.dialect == Dialect::Sqlite => {
                let end = rest.find(']').ok_or("a `[` is not closed")?;
                Ok((Kind::Quoted, end + 1))
            }
            'e' | 'E' if postgres && rest[1..].starts_with('\'') => {
                Ok((Kind::Literal, 1 + quoted(&rest[1..], '\'', true)?))
            }
            '$' if postgres => dollar(rest),
            '?' if !postgres => Ok((Kind::Placeholder, 1 + digits(&rest[1..]))),
            '@' | '$' if self.dialect == Dialect::Sqlite => {
                Ok((Kind::Placeholder, 1 + word(&rest[1..])))
            }
            ':' => Ok(colon(rest)),
            c if c.is_ascii_digit() => Ok((Kind::Literal, number(rest))),
            c if is_word_start(c) => Ok((Kind::Word, word(rest))),
            c => Ok((Kind::Symbol, c.len_utf8())),
        }
    }
}

fn is_word_start(c: char) -> bool {
    c == '_' || c.is_alphabetic()
}

fn word(text: &str) -> usize {
    text.find(|c: char| c != '_' && c != '$' && !c.is_alphanumeric()).unwrap_or(text.len())
}

fn digits(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())
}

/// A number; its parts after a sign or a point are tokens of their own, which
/// does not matter to anyone here.
fn number(text: &str) -> usize {
    text.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(text.len())
}

/// The length of a text in quotes, in which a doubled quote does not end it.
fn quoted(text: &str, mark: char, has_escapes: bool) -> Result<usize, &'static str> {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((index, c)) = chars.next() {
        if c == '\\' && has_escapes {
            chars.next();
        } else if c == mark {
            if chars.peek().is_some_and(|(_, next)| *next == mark) {
                chars.next();
            } else {
                return Ok(index + 1);
            }
        }
    }
    Err("a quote is not closed")
}

/// `$1`, `$tag$ … $tag$`, or a lone `$`.
fn dollar(text: &str) -> Result<(Kind, usize), &'static str> {
    let tail = &text[1..];
    let number = digits(tail);
    if number > 0 {
        return Ok((Kind::Placeholder, 1 + number));
    }
    let tag = tail
        .find(|c: char| c != '_' && !c.is_alphanumeric())
        .filter(|end| tail[*end..].starts_with('$'));
    let Some(tag) = tag else { return Ok((Kind::Symbol, 1)) };
    let fence = &text[..tag + 2];
    let body = &text[fence.len()..];
    let end = body.find(fence).ok_or("a dollar quote is not closed")?;
    Ok((Kind::Literal, fence.len() + end + fence.len()))
}

/// `::`, `:=`, `:name`, or a lone `:`.
fn colon(text: &str) -> (Kind, usize) {
    let tail = &text[1..];
    let is_name = |c: char| c == '_' || c.is_ascii_alphanumeric();
    match tail.chars().next() {
        Some(':' | '=') => (Kind::Symbol, 2),
        Some(c) if c == '_' || c.is_ascii_alphabetic() => {
            (Kind::Parameter, 1 + tail.find(|c: char| !is_name(c)).unwrap_or(tail.len()))
        }
        _ => (Kind::Symbol, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parameters(dialect: Dialect, sql: &str) -> Vec<&str> {
        tokenize(dialect, sql)
            .expect(sql)
            .into_iter()
            .filter(|token| token.kind == Kind::Parameter)
            .map(|token| token.text)
            .collect()
    }

    #[test]
    fn a_parameter_inside_text_is_no_parameter() {
        use Dialect::{MySql, Postgres, Sqlite};
        for (dialect, sql, expected) in [
            (Postgres, "SELECT ':a', \":b\", $$:c$$, $x$ :d $$ $x$, :e::text", vec![":e"]),
            (Postgres, "SELECT E'it\\'s :a' /* :b /* :c */ :d */, :e -- :f", vec![":e"]),
            (Postgres, "SELECT '\\', :e, x::int, '''' || :f", vec![":e", ":f"]),
            (MySql, "SELECT 'it\\'s :a', \":b\", `:c`, :e # :f\n, 2--1, :g", vec![":e", ":g"]),
            (MySql, "SELECT @x := :e -- :f", vec![":e"]),
            (Sqlite, "SELECT [:a], `:b`, '\\', :e /* /* :f */", vec![":e"]),
            (Sqlite, "SELECT 'é:a', :ü, :e", vec![":e"]),
        ] {
            assert_eq!(parameters(dialect, sql), expected, "{sql}");
        }
    }

    #[test]
    fn what_is_not_closed_is_said() {
        for sql in ["SELECT 'a", "SELECT \"a", "SELECT /* a", "SELECT $a$ b $$"] {
            assert!(tokenize(Dialect::Postgres, sql).is_err(), "{sql}");
        }
    }

    #[test]
    fn names_lose_their_quotes() {
        let tokens = tokenize(Dialect::Sqlite, "[a b] `c``d` \"e\"\"f\" g").expect("it is closed");
        let names: Vec<_> = tokens.iter().filter_map(Token::identifier).collect();
        assert_eq!(names, ["a b", "c`d", "e\"f", "g"]);
    }

    proptest! {
        #[test]
        fn tokens_stand_in_order_and_no_text_panics(sql in "[-$:'\"`\\[\\]/*#a1 \\\\\\né;@?]{0,40}") {
            for dialect in [Dialect::Sqlite, Dialect::Postgres, Dialect::MySql] {
                if let Ok(tokens) = tokenize(dialect, &sql) {
                    let mut end = 0;
                    for token in tokens {
                        prop_assert!(token.at.start >= end && token.at.end > token.at.start);
                        end = token.at.end;
                        let _ = token.identifier();
                    }
                }
            }
        }
    }
}
