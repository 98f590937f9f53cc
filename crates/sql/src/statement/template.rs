use larder_core::{Error, ErrorKind, Result};

use super::{Kind, Token, tokenize};
use crate::Dialect;

/// A SELECT cut at its named parameters, ready to be put into a statement for
/// many keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Template {
    pub(crate) pieces: Vec<Piece>,
    /// Whether the outermost query limits its rows itself.
    pub(crate) has_limit: bool,
    /// Whether it orders them.
    pub(crate) has_order: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Piece {
    Sql(String),
    /// The parameter at this place of the pattern.
    Parameter(usize),
}

/// The keys of a batch inside of the statement, where a parameter reads them.
const KEYS: &str = "larder_keys";

/// A statement that nobody writes by hand is refused before it costs anything.
const SELECT_SIZE_MAX: usize = 256 * 1024;

impl Template {
    /// Cuts a SELECT at its parameters, which must be exactly those given.
    pub(crate) fn parse(dialect: Dialect, select: &str, parameters: &[String]) -> Result<Self> {
        let wrong = |what: &'static str| Error::new(ErrorKind::Config, what);
        let tokens = read(dialect, select, "query")?;
        check_statement(&tokens, READ)?;
        let pieces = cut(select, &tokens, parameters)?;
        for (index, name) in parameters.iter().enumerate() {
            if !pieces.contains(&Piece::Parameter(index)) {
                return Err(wrong("the query does not use a parameter of its key pattern")
                    .with("parameter", name)
                    .remedy(format!(
                        "compare a column with :{name}, or take {{{name}}} out of the pattern"
                    )));
            }
        }
        let has_limit = is_outermost(&tokens, &["LIMIT", "FETCH"]);
        Ok(Self { pieces, has_limit, has_order: is_outermost(&tokens, &["ORDER"]) })
    }

    /// Cuts a statement that writes at its parameters, and tells their names,
    /// each once, in the order in which they first stand.
    pub(crate) fn parse_write(dialect: Dialect, statement: &str) -> Result<(Self, Vec<String>)> {
        let tokens = read(dialect, statement, "statement")?;
        check_statement(&tokens, WRITE)?;
        let mut names: Vec<String> = Vec::new();
        for token in tokens.iter().filter(|token| token.kind == Kind::Parameter) {
            let name = &token.text[1..];
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        let pieces = cut(statement, &tokens, &names)?;
        Ok((Self { pieces, has_limit: false, has_order: false }, names))
    }

    /// The statement with each parameter written by `parameter`, which is called
    /// in the order in which they stand.
    pub(crate) fn render(&self, mut parameter: impl FnMut(usize, &mut String)) -> String {
        let mut sql = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Sql(text) => sql.push_str(text),
                Piece::Parameter(index) => parameter(*index, &mut sql),
            }
        }
        sql
    }

    /// The parameters in the order in which they stand, repeated as they are.
    pub(crate) fn occurrences(&self) -> Vec<usize> {
        let parameter = |piece: &Piece| match piece {
            Piece::Parameter(index) => Some(*index),
            Piece::Sql(_) => None,
        };
        self.pieces.iter().filter_map(parameter).collect()
    }
}

/// The tokens of one statement, without what ends it.
fn read<'s>(dialect: Dialect, sql: &'s str, noun: &str) -> Result<Vec<Token<'s>>> {
    let wrong = |what: String| Error::new(ErrorKind::Config, what);
    if sql.len() > SELECT_SIZE_MAX {
        return Err(wrong(format!("the {noun} is too long"))
            .with("bytes", sql.len())
            .with("limit", SELECT_SIZE_MAX)
            .remedy("make it a view or a function of the database"));
    }
    let mut tokens = tokenize(dialect, sql).map_err(|why| {
        wrong(format!("the {noun} cannot be read")).with("reason", why).remedy("close it")
    })?;
    while tokens.last().is_some_and(|token| token.is_symbol(";")) {
        tokens.pop();
    }
    Ok(tokens)
}

/// What a kind of statement is called, and how it may start.
#[derive(Clone, Copy)]
struct Grammar {
    noun: &'static str,
    verbs: &'static [&'static str],
    what: &'static str,
}

const READ: Grammar =
    Grammar { noun: "query", verbs: &["SELECT", "WITH"], what: "SELECT, or WITH … SELECT" };
const WRITE: Grammar = Grammar {
    noun: "statement",
    verbs: &["INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE", "WITH"],
    what: "INSERT, UPDATE or DELETE",
};

fn check_statement(tokens: &[Token<'_>], grammar: Grammar) -> Result<()> {
    let noun = grammar.noun;
    let wrong = |what: String| Error::new(ErrorKind::Config, what);
    let verb = tokens.iter().find(|token| !token.is_symbol("("));
    let Some(verb) = verb else {
        return Err(
            wrong(format!("the {noun} is empty")).remedy(format!("write one {}", grammar.what))
        );
    };
    if !grammar.verbs.iter().any(|known| verb.is_word(known)) {
        let kind = if noun == "query" { "SELECT" } else { grammar.what };
        return Err(wrong(format!("the {noun} is not a {kind}"))
            .with("it starts with", verb.text)
            .remedy(format!("write one {}", grammar.what)));
    }
    if tokens.iter().any(|token| token.is_symbol(";")) {
        return Err(wrong(format!("the {noun} is more than one statement"))
            .remedy(format!("write one {}, without `;` inside", grammar.what)));
    }
    let mut depth = 0_i64;
    for token in tokens {
        depth += i64::from(token.is_symbol("(")) - i64::from(token.is_symbol(")"));
        if depth < 0 {
            break;
        }
        let is_ours = |name: String| name.eq_ignore_ascii_case(KEYS);
        if token.identifier().is_some_and(is_ours) {
            return Err(wrong(format!("the {noun} uses a name that is Larder's own"))
                .with("name", KEYS)
                .remedy("give it another name: this one stands for the keys of a batch"));
        }
        match token.kind {
            Kind::Placeholder => {
                return Err(wrong(format!("the {noun} has a parameter without a name"))
                    .with("parameter", token.text)
                    .remedy("write it as :name, after the {name} of the key pattern"));
            }
            Kind::ExecutableComment => {
                return Err(wrong(format!("the {noun} has a comment that MySQL executes"))
                    .remedy("take the comment's marks away, or the comment"));
            }
            _ => {}
        }
    }
    if depth != 0 {
        return Err(
            wrong(format!("the parentheses of the {noun} do not match")).remedy("balance them")
        );
    }
    Ok(())
}

fn cut(select: &str, tokens: &[Token<'_>], parameters: &[String]) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut copied = tokens.first().map_or(0, |token| token.at.start);
    for token in tokens.iter().filter(|token| token.kind == Kind::Parameter) {
        let name = &token.text[1..];
        let index = parameters.iter().position(|known| known == name).ok_or_else(|| {
            Error::new(ErrorKind::Config, "the query uses a parameter that its key pattern has not")
                .with("parameter", name)
                .with("pattern has", parameters.join(", "))
                .remedy(format!("add {{{name}}} to the pattern, or take :{name} out of the query"))
        })?;
        pieces.push(Piece::Sql(select[copied..token.at.start].to_owned()));
        pieces.push(Piece::Parameter(index));
        copied = token.at.end;
    }
    let end = tokens.last().map_or(copied, |token| token.at.end);
    pieces.push(Piece::Sql(select[copied..end].to_owned()));
    Ok(pieces)
}

/// Whether one of the words stands outside all parentheses.
fn is_outermost(tokens: &[Token<'_>], words: &[&str]) -> bool {
    let mut depth = 0_i64;
    tokens.iter().any(|token| {
        depth += i64::from(token.is_symbol("(")) - i64::from(token.is_symbol(")"));
        depth == 0 && words.iter().any(|word| token.is_word(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn parameters_are_replaced_and_nothing_else() {
        let select =
            " -- first\n SELECT ':id', a::text FROM t WHERE a = :id AND b = :b OR a=:id ; -- end";
        let template =
            Template::parse(Dialect::Postgres, select, &names(&["id", "b"])).expect("it is sound");
        let sql = template.render(|index, sql| sql.push_str(&format!("<{index}>")));
        assert_eq!(sql, "SELECT ':id', a::text FROM t WHERE a = <0> AND b = <1> OR a=<0>");
        assert_eq!(template.occurrences(), [0, 1, 0]);
    }

    #[test]
    fn a_comment_at_the_end_cannot_swallow_what_follows() {
        let template = Template::parse(Dialect::Sqlite, "SELECT :id -- end", &names(&["id"]));
        let sql = template.expect("it is sound").render(|_, sql| sql.push('?'));
        assert_eq!(sql, "SELECT ?");
    }

    #[test]
    fn only_the_outermost_limit_counts() {
        let limited = |select: &str| {
            Template::parse(Dialect::MySql, select, &names(&["id"])).expect("it is sound").has_limit
        };
        assert!(limited("SELECT a FROM t WHERE a = :id ORDER BY a LIMIT 3"));
        assert!(!limited("SELECT a FROM (SELECT a FROM t LIMIT 3) x WHERE a = :id"));
        assert!(!limited("SELECT `LIMIT`, 'LIMIT' FROM t WHERE a = :id"));
    }

    #[test]
    fn what_is_no_single_select_is_refused_with_the_remedy() {
        for (select, part) in [
            ("", "empty"),
            ("DELETE FROM t WHERE a = :id", "it starts with: DELETE"),
            ("SELECT 1; DROP TABLE t", "more than one statement"),
            ("SELECT a FROM t", "does not use a parameter"),
            ("SELECT a FROM t WHERE a = :id AND b = :c", "parameter: c, pattern has: id"),
            ("SELECT a FROM t WHERE a = :id AND b = ?", "without a name"),
            ("SELECT 'a FROM t WHERE a = :id", "not closed"),
            ("SELECT a FROM t WHERE a = :id) x, (SELECT 1", "parentheses"),
            ("WITH Larder_Keys AS (SELECT 1) SELECT :id", "name: larder_keys"),
            ("SELECT a FROM `larder_keys` WHERE a = :id", "name: larder_keys"),
            ("SELECT /*! 1 */ a FROM t WHERE a = :id", "MySQL executes"),
        ] {
            let error = Template::parse(Dialect::MySql, select, &names(&["id"])).expect_err(select);
            assert!(error.to_string().contains(part), "{select}: {error}");
            assert!(error.remedy_text().is_some(), "{select}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(select in ".*") {
            for dialect in [Dialect::Sqlite, Dialect::Postgres, Dialect::MySql] {
                let _ = Template::parse(dialect, &select, &names(&["id"]));
            }
        }
    }
}
