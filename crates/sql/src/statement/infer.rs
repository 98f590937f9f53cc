//! The type of a parameter from the column that it is compared with, for
//! databases that do not tell.

use super::{Kind, Token, tokenize};
use crate::Dialect;
use crate::key_type::KeyColumn;

/// A table that a query may name.
pub(crate) struct KnownTable<'c> {
    pub(crate) name: &'c str,
    pub(crate) columns: Vec<(&'c str, Option<KeyColumn>)>,
}

/// The type of the parameter `name`, if it is compared with columns and all of
/// them are of one type.
pub(crate) fn parameter_type(
    dialect: Dialect,
    select: &str,
    name: &str,
    tables: &[KnownTable<'_>],
) -> Option<KeyColumn> {
    let tokens = tokenize(dialect, select).ok()?;
    let mut found: Option<KeyColumn> = None;
    for (index, token) in tokens.iter().enumerate() {
        if token.kind != Kind::Parameter || &token.text[1..] != name {
            continue;
        }
        // Where it is compared with no column, it takes the type from elsewhere.
        let Some((qualifier, column)) = compared_column(&tokens, index) else { continue };
        let column_type = column_type(&tokens, qualifier.as_deref(), &column, tables)?;
        match found {
            Some(other) if other != column_type => return None,
            _ => found = Some(column_type),
        }
    }
    found
}

/// The column in `column = :name`, `:name = column` or `column IN (…, :name`.
fn compared_column(tokens: &[Token<'_>], at: usize) -> Option<(Option<String>, String)> {
    let before = &tokens[..at];
    let comparison = before.iter().rev().take_while(|token| is_comparison(token)).count();
    if comparison > 0 {
        return column_ending(&before[..before.len() - comparison]);
    }
    let after = &tokens[at + 1..];
    let comparison = after.iter().take_while(|token| is_comparison(token)).count();
    if comparison > 0 {
        return column_starting(&after[comparison..]);
    }
    let is_listed = |token: &&Token<'_>| {
        token.is_symbol(",") || matches!(token.kind, Kind::Parameter | Kind::Literal)
    };
    let listed = before.iter().rev().take_while(is_listed).count();
    match &before[..before.len() - listed] {
        [column @ .., word, open] if word.is_word("IN") && open.is_symbol("(") => {
            column_ending(column)
        }
        _ => None,
    }
}

fn is_comparison(token: &Token<'_>) -> bool {
    token.kind == Kind::Symbol && matches!(token.text, "=" | "<" | ">" | "!")
}

fn column_ending(tokens: &[Token<'_>]) -> Option<(Option<String>, String)> {
    match tokens {
        [.., qualifier, dot, column] if dot.is_symbol(".") => {
            Some((Some(qualifier.identifier()?), column.identifier()?))
        }
        [.., column] => Some((None, column.identifier()?)),
        [] => None,
    }
}

fn column_starting(tokens: &[Token<'_>]) -> Option<(Option<String>, String)> {
    match tokens {
        [_, dot, table, second, column, ..] if dot.is_symbol(".") && second.is_symbol(".") => {
            Some((Some(table.identifier()?), column.identifier()?))
        }
        [qualifier, dot, column, ..] if dot.is_symbol(".") => {
            Some((Some(qualifier.identifier()?), column.identifier()?))
        }
        [column, ..] => Some((None, column.identifier()?)),
        [] => None,
    }
}

/// The type that the column has in every table of the query that has it.
fn column_type(
    tokens: &[Token<'_>],
    qualifier: Option<&str>,
    column: &str,
    tables: &[KnownTable<'_>],
) -> Option<KeyColumn> {
    let mut found: Option<KeyColumn> = None;
    for table in tables.iter().filter(|table| is_named(tokens, table.name, qualifier)) {
        let known = table.columns.iter().find(|(name, _)| name.eq_ignore_ascii_case(column));
        let Some((_, column_type)) = known else { continue };
        let column_type = (*column_type)?;
        match found {
            Some(other) if other != column_type => return None,
            _ => found = Some(column_type),
        }
    }
    found
}

/// Whether the query names the table, and by this qualifier if there is one.
fn is_named(tokens: &[Token<'_>], table: &str, qualifier: Option<&str>) -> bool {
    let is = |token: Option<&Token<'_>>, name: &str| {
        token
            .and_then(Token::identifier)
            .is_some_and(|identifier| identifier.eq_ignore_ascii_case(name))
    };
    (0..tokens.len()).filter(|&index| is(tokens.get(index), table)).any(|index| {
        let Some(qualifier) = qualifier else { return true };
        let alias = if tokens.get(index + 1).is_some_and(|token| token.is_word("AS")) {
            index + 2
        } else {
            index + 1
        };
        qualifier.eq_ignore_ascii_case(table) || is(tokens.get(alias), qualifier)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyType;

    fn inferred(select: &str, name: &str) -> Option<KeyType> {
        let integer = Some(KeyColumn::new(KeyType::Integer));
        let text = Some(KeyColumn::new(KeyType::Text));
        let tables = [
            KnownTable { name: "orders", columns: vec![("id", integer), ("code", text)] },
            KnownTable { name: "Users", columns: vec![("id", text), ("blob", None)] },
        ];
        parameter_type(Dialect::MySql, select, name, &tables).map(|column| column.key_type)
    }

    #[test]
    fn the_compared_column_decides() {
        for (select, expected) in [
            ("SELECT * FROM orders WHERE id = :p", Some(KeyType::Integer)),
            ("SELECT * FROM orders WHERE :p <= orders.id", Some(KeyType::Integer)),
            ("SELECT * FROM orders o JOIN users u ON 1 WHERE u.id = :p", Some(KeyType::Text)),
            ("SELECT * FROM orders AS o, users WHERE `o`.`id` IN (1, :p)", Some(KeyType::Integer)),
            ("SELECT * FROM orders, users WHERE id = :p", None),
            ("SELECT * FROM orders o, users u WHERE o.id = :p AND u.id = :p", None),
            ("SELECT * FROM users WHERE blob = :p", None),
            ("SELECT * FROM orders WHERE id + 1 = :p", None),
            ("SELECT * FROM orders WHERE id = :p AND :p > 0", Some(KeyType::Integer)),
            ("SELECT * FROM orders LIMIT :p", None),
            ("SELECT :p", None),
        ] {
            assert_eq!(inferred(select, "p"), expected, "{select}");
        }
    }
}
