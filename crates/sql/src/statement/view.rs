//! Views that show at most one row for each row of one table.

use super::{Kind, Token, tokenize};
use crate::Dialect;

/// A view that selects from one table, row by row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SimpleView {
    /// The schema of the table, if the view names it.
    pub(crate) schema: Option<String>,
    /// The table.
    pub(crate) table: String,
    pub(crate) items: Items,
}

/// What the view shows of the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Items {
    /// All columns in their order.
    All,
    /// For each column of the view the column of the table, or `None` for
    /// anything computed.
    Columns(Vec<Option<String>>),
}

impl SimpleView {
    /// Understands `[CREATE VIEW … AS] SELECT items FROM table [WHERE …]` and
    /// nothing more: a join, grouping, DISTINCT or set operation gives `None`,
    /// because then a key of the table may not be one of the view.
    pub(crate) fn parse(dialect: Dialect, definition: &str) -> Option<Self> {
        let tokens = tokenize(dialect, definition).ok()?;
        let tokens = match tokens.last() {
            Some(last) if last.is_symbol(";") => &tokens[..tokens.len() - 1],
            _ => &tokens[..],
        };
        let tokens = body(tokens)?;
        let depths = depths(tokens);
        let outer = |word: &str| {
            (0..tokens.len()).find(|&index| depths[index] == 0 && tokens[index].is_word(word))
        };
        if REFUSED.iter().any(|word| outer(word).is_some()) {
            return None;
        }
        let from = outer("FROM")?;
        let items = items(&tokens[1..from], &depths[1..from])?;
        let end = ["WHERE", "ORDER"].iter().filter_map(|word| outer(word)).min();
        let source = &tokens[from + 1..end.unwrap_or(tokens.len())];
        let (schema, table, alias) = source_of(source)?;
        let qualifiers = [Some(table.as_str()), alias.as_deref()];
        let items = resolve(items, &qualifiers)?;
        Some(Self { schema, table, items })
    }
}

/// Words that stand outside all parentheses only where a row of the view is not
/// just a row of the table.
const REFUSED: [&str; 16] = [
    "JOIN",
    "STRAIGHT_JOIN",
    "UNION",
    "INTERSECT",
    "EXCEPT",
    "GROUP",
    "HAVING",
    "DISTINCT",
    "DISTINCTROW",
    "WITH",
    "WINDOW",
    "LATERAL",
    "TABLESAMPLE",
    "LIMIT",
    "OFFSET",
    "FETCH",
];

/// From the SELECT on: behind `CREATE VIEW name AS`. A view that names its
/// columns in parentheses is not understood; their number and order are the
/// same, so nothing else changes.
fn body<'t, 's>(tokens: &'t [Token<'s>]) -> Option<&'t [Token<'s>]> {
    let first = tokens.first()?;
    if first.is_word("SELECT") {
        return Some(tokens);
    }
    if !first.is_word("CREATE") {
        return None;
    }
    let start =
        tokens.windows(2).position(|pair| pair[0].is_word("AS") && pair[1].is_word("SELECT"))?;
    Some(&tokens[start + 1..])
}

fn depths(tokens: &[Token<'_>]) -> Vec<i64> {
    let mut depth = 0;
    let depth_of = |token: &Token<'_>| {
        depth -= i64::from(token.is_symbol(")"));
        let at = depth;
        depth += i64::from(token.is_symbol("("));
        at
    };
    tokens.iter().map(depth_of).collect()
}

/// The tokens of each item of the select list.
fn items<'t, 's>(tokens: &'t [Token<'s>], depths: &[i64]) -> Option<Vec<&'t [Token<'s>]>> {
    let mut items = Vec::new();
    let mut start = 0;
    for index in 0..tokens.len() {
        if depths[index] == 0 && tokens[index].is_symbol(",") {
            items.push(&tokens[start..index]);
            start = index + 1;
        }
    }
    items.push(&tokens[start..]);
    items.iter().all(|item| !item.is_empty()).then_some(items)
}

/// `[schema .] table [[AS] alias]`, in parentheses or not.
fn source_of(tokens: &[Token<'_>]) -> Option<(Option<String>, String, Option<String>)> {
    let tokens = match tokens {
        [open, inner @ .., close] if open.is_symbol("(") && close.is_symbol(")") => inner,
        _ => tokens,
    };
    let (schema, tokens) = match tokens {
        [schema, dot, rest @ ..] if dot.is_symbol(".") => (Some(schema.identifier()?), rest),
        _ => (None, tokens),
    };
    let (table, tokens) = tokens.split_first()?;
    let alias = match tokens {
        [] => None,
        [alias] => Some(alias.identifier()?),
        [word, alias] if word.is_word("AS") => Some(alias.identifier()?),
        _ => return None,
    };
    Some((schema, table.identifier()?, alias))
}

fn resolve(items: Vec<&[Token<'_>]>, qualifiers: &[Option<&str>]) -> Option<Items> {
    if let [item] = items.as_slice()
        && item.last()?.is_symbol("*")
    {
        return match item {
            [_] => Some(Items::All),
            [table, dot, _] if dot.is_symbol(".") && is_any(table, qualifiers) => Some(Items::All),
            _ => None,
        };
    }
    let mut columns = Vec::with_capacity(items.len());
    for item in items {
        if item.last()?.is_symbol("*") {
            return None;
        }
        columns.push(column_of(item, qualifiers));
    }
    Some(Items::Columns(columns))
}

/// The column, if the item is `[[schema .] table .] column [[AS] name]`.
fn column_of(item: &[Token<'_>], qualifiers: &[Option<&str>]) -> Option<String> {
    let item = match item {
        [column @ .., word, _] if word.is_word("AS") => column,
        [column @ .., last, name]
            if last.identifier().is_some() && matches!(name.kind, Kind::Word | Kind::Quoted) =>
        {
            &item[..column.len() + 1]
        }
        _ => item,
    };
    match item {
        [column] => column.identifier(),
        [table, dot, column] if dot.is_symbol(".") && is_any(table, qualifiers) => {
            column.identifier()
        }
        [_, first, table, dot, column]
            if first.is_symbol(".") && dot.is_symbol(".") && is_any(table, qualifiers) =>
        {
            column.identifier()
        }
        _ => None,
    }
}

fn is_any(token: &Token<'_>, names: &[Option<&str>]) -> bool {
    token
        .identifier()
        .is_some_and(|name| names.iter().flatten().any(|known| known.eq_ignore_ascii_case(&name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(names: &[&str]) -> Items {
        let column = |name: &&str| (*name != "-").then(|| (*name).to_owned());
        Items::Columns(names.iter().map(column).collect())
    }

    #[test]
    fn views_over_one_table_are_understood() {
        use Dialect::{MySql, Postgres, Sqlite};
        for (dialect, definition, table, items) in [
            (
                Postgres,
                " SELECT t.id,\n    t.name AS x,\n lower(t.name) AS y\n   FROM t\n  WHERE t.id > 0;",
                "t",
                columns(&["id", "name", "-"]),
            ),
            (
                MySql,
                "select `d`.`t`.`id` AS `id`,`d`.`t`.`a` + 1 AS `b` from `d`.`t` where (`d`.`t`.`a` > 1)",
                "t",
                columns(&["id", "-"]),
            ),
            (MySql, "select `x`.`id` AS `id` from `d`.`t` `x`", "t", columns(&["id"])),
            (Sqlite, "CREATE VIEW v AS SELECT * FROM t", "t", Items::All),
            (
                Sqlite,
                "CREATE VIEW v(a,b) AS SELECT x.id, x.a FROM main.t AS x ORDER BY 1",
                "t",
                columns(&["id", "a"]),
            ),
            (
                Sqlite,
                "create view if not exists v as select id i, 'from' f, (select count(*) from u) n from t",
                "t",
                columns(&["id", "-", "-"]),
            ),
        ] {
            let view = SimpleView::parse(dialect, definition).expect(definition);
            assert_eq!((view.table.as_str(), &view.items), (table, &items), "{definition}");
        }
    }

    #[test]
    fn a_view_that_may_repeat_or_merge_rows_is_not_served() {
        for definition in [
            "CREATE VIEW v AS SELECT t.id FROM t JOIN u ON u.t = t.id",
            "CREATE VIEW v AS SELECT t.id FROM t, u",
            "CREATE VIEW v AS SELECT id FROM t UNION ALL SELECT id FROM t",
            "CREATE VIEW v AS SELECT DISTINCT id FROM t",
            "CREATE VIEW v AS SELECT id FROM t GROUP BY id",
            "CREATE VIEW v AS SELECT id FROM (SELECT * FROM t)",
            "CREATE VIEW v AS SELECT id FROM json_each('[1]')",
            "CREATE VIEW v AS WITH x AS (SELECT 1 AS id) SELECT id FROM x",
            "CREATE VIEW v AS SELECT u.* FROM t",
            "CREATE VIEW v AS SELECT *, 1 FROM t",
            "CREATE VIEW v AS VALUES (1)",
            "",
        ] {
            assert_eq!(SimpleView::parse(Dialect::Sqlite, definition), None, "{definition}");
        }
    }
}
